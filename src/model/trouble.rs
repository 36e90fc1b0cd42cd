//! Why something outside could not be reached or read: one set of classes, whoever asked.
//!
//! Only the class may be told. What a driver or a server said beside it may hold data, and stays with whoever asked.

use std::error::Error;
use std::io;
use std::sync::Arc;

use crate::postgres_link::frames::FrameError;

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// No answer in time, ours or the server's own.
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
    /// The file, database, table or other object is not there.
    NotFound,
    /// It broke off, or what it said made no sense.
    Protocol,
    /// More than any honest answer has.
    TooLarge,
}

impl Trouble {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Dns => "dns",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Quota => "quota",
            Self::NotFound => "not_found",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
        }
    }

    /// Of any error, by what it is or came from; `None` when nothing along the way is known.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let found = classify(error);
            if found.is_some() {
                return found;
            }
            cause = error.source();
        }
        None
    }

    /// Of a database's error, where the server's own code comes first.
    #[must_use]
    pub fn of_database(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(database) => of_code(database.code().as_deref().unwrap_or_default()),
            sqlx::Error::Tls(_) => Self::Tls,
            sqlx::Error::PoolTimedOut => Self::Timeout,
            _ => Self::of(error).unwrap_or(Self::Protocol),
        }
    }
}

fn classify(error: &(dyn Error + 'static)) -> Option<Trouble> {
    if error.is::<rustls::Error>() {
        return Some(Trouble::Tls);
    }
    if let Some(error) = error.downcast_ref::<FrameError>() {
        return Some(match error {
            FrameError::LongMessage(_) | FrameError::LongAnswer(_) => Trouble::TooLarge,
            FrameError::NoMessage(_) | FrameError::DearPassword(_) => Trouble::Protocol,
        });
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
        io::ErrorKind::ConnectionRefused => Some(Trouble::Refused),
        io::ErrorKind::TimedOut => Some(Trouble::Timeout),
        io::ErrorKind::NotFound => Some(Trouble::NotFound),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Trouble::Unreachable),
        io::ErrorKind::PermissionDenied => Some(Trouble::Auth),
        // the resolver's errors have no kind of their own
        _ if error.to_string().contains("lookup address") => Some(Trouble::Dns),
        _ => None,
    }
}

/// PostgreSQL: appendix A of its manual; SQLite: its result codes, which are shorter.
fn of_code(code: &str) -> Trouble {
    match code {
        "28000" | "28P01" | "42501" | "23" => Trouble::Auth,
        "53300" | "53400" => Trouble::Quota,
        "57P01" | "57P02" | "57P03" => Trouble::Refused,
        "57014" | "55P03" | "25P03" | "5" | "6" => Trouble::Timeout,
        "3D000" | "42P01" | "42703" | "14" => Trouble::NotFound,
        _ => Trouble::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_cause_decides_the_class() {
        let tls = || io::Error::new(io::ErrorKind::InvalidData, rustls::Error::HandshakeNotComplete);
        for (error, expected) in [
            (io::Error::from(io::ErrorKind::ConnectionRefused), Some(Trouble::Refused)),
            (io::Error::from(io::ErrorKind::TimedOut), Some(Trouble::Timeout)),
            (io::Error::other("failed to lookup address information: x"), Some(Trouble::Dns)),
            (tls(), Some(Trouble::Tls)),
            (io::Error::other(tls()), Some(Trouble::Tls)),
            (io::Error::from(io::ErrorKind::ConnectionReset), None),
        ] {
            assert_eq!(Trouble::of(&Outer(error)), expected);
        }
    }

    #[test]
    fn a_database_that_is_not_reached_is_told_apart_like_any_other_server() {
        for (error, expected) in [
            (sqlx::Error::Io(io::Error::from(io::ErrorKind::ConnectionRefused)), Trouble::Refused),
            (sqlx::Error::Io(io::Error::other("failed to lookup address information: x")), Trouble::Dns),
            (sqlx::Error::Tls("x".into()), Trouble::Tls),
            (sqlx::Error::PoolTimedOut, Trouble::Timeout),
            (sqlx::Error::Io(io::Error::other(FrameError::LongMessage(1 << 30))), Trouble::TooLarge),
            (sqlx::Error::Io(io::Error::other(FrameError::LongAnswer(1 << 20))), Trouble::TooLarge),
            (sqlx::Error::Io(io::Error::other(FrameError::NoMessage(3))), Trouble::Protocol),
            (sqlx::Error::RowNotFound, Trouble::Protocol),
        ] {
            assert_eq!(Trouble::of_database(&error), expected);
        }
    }

    #[test]
    fn the_code_of_the_server_decides_the_class() {
        for (code, expected) in [
            ("28P01", Trouble::Auth),
            ("42501", Trouble::Auth),
            ("53300", Trouble::Quota),
            ("57P03", Trouble::Refused),
            ("57014", Trouble::Timeout),
            ("55P03", Trouble::Timeout),
            ("42P01", Trouble::NotFound),
            ("22012", Trouble::Protocol),
            ("", Trouble::Protocol),
        ] {
            assert_eq!(of_code(code), expected, "{code}");
        }
    }
}
