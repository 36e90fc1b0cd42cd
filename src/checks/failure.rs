//! Why a check failed: a class that may be told, and the raw text, which may not.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::redact::Clean;

/// The class of a failure: all that an endpoint tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No answer in time.
    Timeout,
    /// Nobody listens, or whoever does turns everybody away.
    Refused,
    /// The name has no address.
    Dns,
    /// No network leads there.
    Unreachable,
    /// The certificate or the handshake.
    Tls,
    /// The credentials, or the rights behind them.
    Auth,
    /// Too many connections or requests.
    Quota,
    /// The file, database or other object is not there.
    NotFound,
    /// It broke off, or what it said made no sense.
    Protocol,
    /// An HTTP status that is no success.
    Status(u16),
    /// It answered, but not as the configuration expects: which of its conditions does not hold.
    Condition(&'static str),
    /// A command that ended with this code.
    Exit(u8),
}

impl Class {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> Clean<'static> {
        match self {
            Self::Timeout => Clean::literal("timeout"),
            Self::Refused => Clean::literal("refused"),
            Self::Dns => Clean::literal("dns"),
            Self::Unreachable => Clean::literal("unreachable"),
            Self::Tls => Clean::literal("tls"),
            Self::Auth => Clean::literal("auth"),
            Self::Quota => Clean::literal("quota"),
            Self::NotFound => Clean::literal("not_found"),
            Self::Protocol => Clean::literal("protocol"),
            Self::Condition(word) => Clean::literal(word),
            Self::Exit(code) => Clean::concat(&[Clean::literal("exit_"), Clean::number(code.into())]),
            Self::Status(status) => Clean::concat(&[Clean::literal("status_"), Clean::number(status.into())]),
        }
    }
}

/// A failed run.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// What may be told.
    pub class: Class,
    /// Raw text of the driver, for our own log after redaction.
    pub(super) detail: String,
}

/// Without the raw text, so that no printed value leaks it.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({})", self.class.word())
    }
}

impl Failure {
    /// A failure of this class.
    pub(super) fn new(class: Class, detail: impl Into<String>) -> Self {
        Self { class, detail: detail.into() }
    }

    /// A failure that has no driver's text.
    pub(super) fn plain(class: Class) -> Self {
        Self::new(class, "")
    }

    /// A driver's error, of the class that its kind says; where it says none, what it came from decides.
    pub(super) fn known(class: Option<Class>, error: &(dyn Error + 'static)) -> Self {
        let general = Self::of(error);
        Self { class: class.unwrap_or(general.class), ..general }
    }

    /// Classifies any error by what it is or came from; `Protocol` when nothing fits.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let mut texts = Vec::new();
        let mut class = None;
        let mut cause = Some(error);
        while let Some(error) = cause {
            class = class.or_else(|| classify(error));
            texts.push(error.to_string());
            cause = error.source();
        }
        texts.dedup();
        Self::new(class.unwrap_or(Class::Protocol), texts.join(": "))
    }
}

fn classify(error: &(dyn Error + 'static)) -> Option<Class> {
    if error.is::<rustls::Error>() {
        return Some(Class::Tls);
    }
    // what redis names as its source is the pointer, not the error behind it
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return classify(&**shared);
    }
    let error = error.downcast_ref::<io::Error>()?;
    // an io::Error does not name what it wraps as its source, and some are wrapped twice
    let inner = error.get_ref().and_then(|inner| classify(inner));
    if inner.is_some() {
        return inner;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(Class::Refused),
        io::ErrorKind::TimedOut => Some(Class::Timeout),
        io::ErrorKind::NotFound => Some(Class::NotFound),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Class::Unreachable),
        io::ErrorKind::PermissionDenied => Some(Class::Auth),
        // the resolver's errors have no kind of their own
        _ if error.to_string().contains("lookup address") => Some(Class::Dns),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer hunter2")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_cause_decides_the_class() {
        let table = [
            (io::Error::from(io::ErrorKind::ConnectionRefused), Class::Refused),
            (io::Error::from(io::ErrorKind::TimedOut), Class::Timeout),
            (io::Error::other("failed to lookup address information: x"), Class::Dns),
            (io::Error::new(io::ErrorKind::InvalidData, rustls::Error::HandshakeNotComplete), Class::Tls),
            (io::Error::from(io::ErrorKind::ConnectionReset), Class::Protocol),
        ];
        for (error, expected) in table {
            assert_eq!(Failure::of(&Outer(error)).class, expected);
        }
    }

    #[test]
    fn what_the_driver_says_outdoes_the_cause() {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(Failure::known(Some(Class::Quota), &error).class, Class::Quota);
        assert_eq!(Failure::known(None, &error), Failure::of(&error));
    }

    #[test]
    fn a_failure_prints_its_class_only() {
        let failure = Failure::of(&Outer(io::Error::from(io::ErrorKind::TimedOut)));
        assert!(failure.detail.contains("hunter2"));
        assert_eq!(format!("{failure:?}"), "Failure(timeout)");
        assert_eq!(Class::Status(503).word().as_str(), "status_503");
    }
}
