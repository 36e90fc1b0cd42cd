//! Why a question had no answer: the class that may be told, and what may only go to our log, after redaction.

use std::error::Error;
use std::{fmt, io};

use crate::model::database::reading::Trouble;

/// A question that had no answer.
pub(super) struct Fault {
    /// What may be told.
    pub(super) trouble: Trouble,
    /// Whether the server said so itself, over a connection that still works.
    pub(super) is_answer: bool,
    /// The code that the server gave.
    pub(super) code: Option<String>,
    /// The driver's and the server's words; these may hold data.
    pub(super) detail: String,
}

/// Without the words, so that no printed value leaks them.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fault({}, {:?})", self.trouble.word(), self.code)
    }
}

impl Fault {
    /// A fault of our own making: a deadline, a bound.
    pub(super) fn plain(trouble: Trouble) -> Self {
        Self { trouble, is_answer: false, code: None, detail: String::new() }
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let detail = error.to_string();
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().map(std::borrow::Cow::into_owned);
                let trouble = of_code(code.as_deref().unwrap_or_default());
                Self { trouble, is_answer: true, code, detail }
            }
            sqlx::Error::Tls(_) => Self { detail, ..Self::plain(Trouble::Tls) },
            sqlx::Error::Io(error) => Self { detail, ..Self::plain(of_io(error)) },
            _ => Self { detail, ..Self::plain(Trouble::Protocol) },
        }
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

fn of_io(error: &io::Error) -> Trouble {
    if error.get_ref().is_some_and(is_tls) {
        return Trouble::Tls;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Trouble::Refused,
        io::ErrorKind::TimedOut => Trouble::Timeout,
        io::ErrorKind::NotFound => Trouble::NotFound,
        io::ErrorKind::PermissionDenied => Trouble::Auth,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Trouble::Unreachable,
        // the resolver's errors have no kind of their own
        _ if error.to_string().contains("lookup address") => Trouble::Unreachable,
        _ => Trouble::Protocol,
    }
}

fn is_tls(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    error.is::<rustls::Error>() || error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).is_some_and(is_tls)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_the_connection_suffers_is_told_apart_and_prints_no_words() {
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::HandshakeNotComplete));
        for (error, expected) in [
            (io::Error::from(io::ErrorKind::ConnectionRefused), Trouble::Refused),
            (io::Error::other("failed to lookup address information: hunter2"), Trouble::Unreachable),
            (wrapped, Trouble::Tls),
            (io::Error::other("hunter2"), Trouble::Protocol),
        ] {
            let fault = Fault::from(sqlx::Error::Io(error));
            assert_eq!((fault.trouble, fault.is_answer), (expected, false));
            assert!(!format!("{fault:?}").contains("hunter2"));
        }
    }
}
