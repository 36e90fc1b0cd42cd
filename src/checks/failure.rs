//! Why a check failed: a class that may be told, and the raw text, which may not.

use std::error::Error;
use std::fmt;

use crate::model::trouble::Trouble;
use crate::redact::Clean;

/// The class of a failure: all that an endpoint tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It could not be reached, or turned us away.
    Trouble(Trouble),
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
            Self::Trouble(trouble) => Clean::literal(trouble.word()),
            Self::Condition(word) => Clean::literal(word),
            Self::Exit(code) => Clean::concat(&[Clean::literal("exit_"), Clean::number(code.into())]),
            Self::Status(status) => Clean::concat(&[Clean::literal("status_"), Clean::number(status.into())]),
        }
    }
}

impl From<Trouble> for Class {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
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
    pub(super) fn new(class: impl Into<Class>, detail: impl Into<String>) -> Self {
        Self { class: class.into(), detail: detail.into() }
    }

    /// A failure that has no driver's text.
    pub(super) fn plain(class: impl Into<Class>) -> Self {
        Self::new(class, "")
    }

    /// A driver's error, of the class that its kind says; where it says none, what it came from decides.
    pub(super) fn known(class: Option<Trouble>, error: &(dyn Error + 'static)) -> Self {
        let mut texts = Vec::new();
        let mut cause = Some(error);
        while let Some(error) = cause {
            texts.push(error.to_string());
            cause = error.source();
        }
        texts.dedup();
        Self::new(class.or_else(|| Trouble::of(error)).unwrap_or(Trouble::Protocol), texts.join(": "))
    }

    /// Any error, of the class of what it is or came from; `protocol` when nothing fits.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        Self::known(None, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("outer hunter2")]
    struct Outer(#[source] io::Error);

    #[test]
    fn what_the_driver_says_outdoes_the_cause() {
        let error = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(Failure::known(Some(Trouble::Quota), &error).class, Trouble::Quota.into());
        assert_eq!(Failure::of(&error).class, Trouble::Refused.into());
        assert_eq!(Failure::of(&io::Error::other("x")).class, Trouble::Protocol.into());
    }

    #[test]
    fn a_failure_prints_its_class_only() {
        let failure = Failure::of(&Outer(io::Error::from(io::ErrorKind::TimedOut)));
        assert!(failure.detail.contains("hunter2"));
        assert_eq!(format!("{failure:?}"), "Failure(timeout)");
        assert_eq!(Class::Status(503).word().as_str(), "status_503");
    }
}
