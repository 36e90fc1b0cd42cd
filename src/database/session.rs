//! One connection to PostgreSQL, kept between questions; each question is a transaction of its own.
//!
//! A question is one message of the simple protocol: it begins a transaction that only reads, sets limits for it alone,
//! asks, and commits. So a pooler that gives each transaction another connection makes no difference, there are no
//! prepared statements for it to mix up, and nothing of ours is ever open between two messages. Where the server takes
//! options at the start, the same limits stand behind that too. A future that is dropped takes its connection with it.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Either, PgConnection, Row};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::database::fault::Fault;
use crate::model::database::DatabaseState;
use crate::model::database::pool::Pool;
use crate::model::trouble::Trouble;
use crate::postgres_link::Link;

/// A connection when it is needed.
pub(super) struct Session {
    options: PgConnectOptions,
    startup: Startup,
    open: Option<Held>,
    last: watch::Sender<DatabaseState>,
}

/// An open connection, counted as long as it lives: a future that is dropped drops it too.
struct Held {
    link: Link,
    last: watch::Sender<DatabaseState>,
}

/// A question that has a connection, counted as the other.
struct Use {
    began: Instant,
    last: watch::Sender<DatabaseState>,
}

/// What the other end takes when a connection begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Startup {
    /// A server: options too.
    WithOptions,
    /// A pooler, which refuses them.
    Plain,
}

/// A login takes milliseconds; the checks tell when it does not.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Above the server's own limit, which leaves the connection whole.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// The limits, as a server takes them when a connection begins.
const OPTIONS: [(&str, &str); 4] = [
    ("statement_timeout", "2s"),
    ("lock_timeout", "500ms"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("default_transaction_read_only", "on"),
];
/// The same for one transaction, as a pooler hands it on.
const BEGIN: &str = "BEGIN /* cf-sidecar */ READ ONLY; SET /* cf-sidecar */ LOCAL statement_timeout = '2s'; \
                     SET /* cf-sidecar */ LOCAL lock_timeout = '500ms'; \
                     SET /* cf-sidecar */ LOCAL idle_in_transaction_session_timeout = '5s'; ";
/// Not ROLLBACK: that would be counted among those of the application.
const END: &str = "; COMMIT";

/// `protocol_violation`: what PgBouncer says of options that it does not know.
const UNKNOWN_OPTIONS: &str = "08P01";

impl Session {
    /// No connection yet; what becomes of each is told there.
    pub(super) fn new(options: &PgConnectOptions, last: &watch::Sender<DatabaseState>) -> Self {
        let options = options.clone().disable_statement_logging();
        Self { options, startup: Startup::WithOptions, open: None, last: last.clone() }
    }

    /// Asks one question; at most so many rows.
    ///
    /// # Errors
    /// When there is no connection, no answer in time, a refusal, or more rows than that. All but a refusal end the connection.
    pub(super) async fn rows(&mut self, question: &str, most: usize) -> Result<Vec<PgRow>, Fault> {
        if let Some(kept) = self.open.take() {
            let answer = self.ask_over(kept, question, most).await;
            // a server that was restarted has ended the kept connection; that alone is no failure of today
            let is_gone = matches!(&answer, Err(fault) if fault.trouble != Trouble::Timeout && fault.trouble != Trouble::TooLarge);
            if self.open.is_some() || !is_gone {
                return answer;
            }
        }
        let fresh = self.connect().await?;
        self.ask_over(fresh, question, most).await
    }

    /// Keeps the connection if it is still whole.
    async fn ask_over(&mut self, mut held: Held, question: &str, most: usize) -> Result<Vec<PgRow>, Fault> {
        let under_way = Use::begin(&self.last);
        let answer = timeout(ANSWER_LIMIT, ask(&mut held.link, question, most)).await;
        let answer = answer.unwrap_or(Err(Fault::plain(Trouble::Timeout)));
        let is_whole = match &answer {
            Ok(_) => true,
            // the transaction failed, and must not stay open: it would hold back the application's vacuum
            Err(fault) if fault.is_answer => {
                let (connection, relay) = held.link.parts();
                let rollback = relay.answer(sqlx::raw_sql("ROLLBACK").execute(connection));
                matches!(timeout(ANSWER_LIMIT, rollback).await, Ok(Ok(_)))
            }
            Err(_) => false,
        };
        drop(under_way);
        if is_whole {
            self.open = Some(held);
        }
        answer
    }

    /// The same where a refusal is an answer too: that of a server on which there is no such thing, or not for us.
    ///
    /// # Errors
    /// When there is no connection, or no answer in time.
    pub(super) async fn rows_if_any(&mut self, question: &str, most: usize) -> Result<Option<Vec<PgRow>>, Fault> {
        match self.rows(question, most).await {
            Ok(rows) => Ok(Some(rows)),
            Err(fault) if fault.is_answer => {
                tracing::debug!(code = fault.code.as_deref(), class = fault.trouble.word(), "a part cannot be read");
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    async fn connect(&mut self) -> Result<Held, Fault> {
        let first = self.connect_by(self.startup).await;
        match first {
            Err(fault) if self.startup == Startup::WithOptions && fault.code.as_deref() == Some(UNKNOWN_OPTIONS) => {
                let connection = self.connect_by(Startup::Plain).await?;
                self.startup = Startup::Plain;
                Ok(connection)
            }
            outcome => outcome,
        }
    }

    async fn connect_by(&self, startup: Startup) -> Result<Held, Fault> {
        let options = match startup {
            Startup::WithOptions => self.options.clone().options(OPTIONS),
            Startup::Plain => self.options.clone(),
        };
        let began = Instant::now();
        match timeout(CONNECT_LIMIT, Link::open(&options)).await {
            Ok(connected) => {
                let link = connected.map_err(Fault::from)?;
                count(&self.last, |pool| pool.opened(began.elapsed()));
                Ok(Held { link, last: self.last.clone() })
            }
            Err(_) => {
                count(&self.last, Pool::timed_out);
                Err(Fault::plain(Trouble::Timeout))
            }
        }
    }
}

impl Use {
    fn begin(last: &watch::Sender<DatabaseState>) -> Self {
        count(last, Pool::taken);
        Self { began: Instant::now(), last: last.clone() }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        count(&self.last, |pool| pool.returned(took));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        count(&self.last, Pool::closed);
    }
}

/// Counts, and wakes nobody: what waits for a reading is not waiting for this.
fn count(last: &watch::Sender<DatabaseState>, change: impl FnOnce(&mut Pool)) {
    last.send_if_modified(|state| {
        change(&mut state.pool);
        false
    });
}

/// Our own mark, by which `pg_stat_statements` tells our questions from the application's: behind the first word, because the server
/// leaves out a comment that stands before it. A pooler and a log show it, too.
pub(super) const MARK: &str = "/* cf-sidecar */";

/// The question with our mark in it.
fn marked(question: &str) -> String {
    let end = question.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(question.len());
    let (word, rest) = question.split_at(end);
    [word, " ", MARK, rest].concat()
}

async fn ask(link: &mut Link, question: &str, most: usize) -> Result<Vec<PgRow>, Fault> {
    let (connection, relay) = link.parts();
    let rows = relay.answer(rows(connection, question, most)).await?;
    rows.ok_or(Fault::plain(Trouble::TooLarge))
}

/// All of them, or `None` when there are more than `most`.
async fn rows(connection: &mut PgConnection, question: &str, most: usize) -> Result<Option<Vec<PgRow>>, sqlx::Error> {
    let whole = [BEGIN, &marked(question), END].concat();
    let mut answers = sqlx::raw_sql(AssertSqlSafe(whole)).fetch_many(connection);
    let mut rows = Vec::new();
    while let Some(answer) = std::future::poll_fn(|context| answers.as_mut().poll_next(context)).await {
        if let Either::Right(row) = answer? {
            if rows.len() >= most {
                return Ok(None);
            }
            // looked at here, where a row that contradicts itself is caught: the driver believes its lengths until then
            for column in 0..row.len() {
                row.try_get_raw(column)?;
            }
            rows.push(row);
        }
    }
    Ok(Some(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_inside_the_statement() {
        for (question, expected) in [
            ("SELECT 1", "SELECT /* cf-sidecar */ 1"),
            ("WITH asked(at) AS (SELECT 1) SELECT 2", "WITH /* cf-sidecar */ asked(at) AS (SELECT 1) SELECT 2"),
        ] {
            assert_eq!(marked(question), expected);
        }
    }
}
