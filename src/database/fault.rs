//! Why a question had no answer: the class that may be told, and what may only go to our log, after redaction.

use std::borrow::Cow;
use std::fmt;

use crate::model::trouble::Trouble;

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
        let code = error.as_database_error().and_then(|answer| answer.code()).map(Cow::into_owned);
        let is_answer = matches!(error, sqlx::Error::Database(_));
        Self { trouble: Trouble::of_database(&error), is_answer, code, detail: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_connection_suffers_is_no_answer_and_prints_no_words() {
        let fault = Fault::from(sqlx::Error::Protocol("hunter2".into()));
        assert_eq!((fault.trouble, fault.is_answer), (Trouble::Protocol, false));
        assert!(fault.detail.contains("hunter2"));
        assert_eq!(format!("{fault:?}"), "Fault(protocol, None)");
    }
}
