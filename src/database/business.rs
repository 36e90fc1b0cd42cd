//! The numbers of the business: one bounded question each, from the configuration.
//!
//! The defaults read the newest rows by the primary key, because `created_at` has no index; they are asked only where the
//! table can be read. A question that the server refuses rests for a while, so that its log is not filled with it.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use crate::database::config::Questions;
use crate::database::fault::Fault;
use crate::database::session::Session;
use crate::database::texts::amount;
use crate::model::database::business::{Business, Publishes};
use crate::redact::{Clean, Outlet, Redactor};

/// Statuses of the application's own; what is beyond is not shown one by one.
const STATUSES: usize = 20;
/// Of a status, in bytes.
const LONGEST: usize = 40;
/// Turns that a refused question rests.
const REST: u32 = 10;

/// The questions, and which of them rest.
#[derive(Debug)]
pub(super) struct Asker {
    questions: Questions,
    /// Turns left, in the order of the questions.
    rests: [u32; 3],
}

/// The two ways in which a moment and a list of statuses are read.
struct Dialect {
    age: &'static str,
    statuses: &'static str,
}

/// The server's own clock, so that ours makes no difference. A time without a zone is in UTC, as our session is.
const POSTGRES: Dialect = Dialect {
    age: "SELECT extract(epoch FROM clock_timestamp() - max(at))::float8 FROM asked",
    statuses: "SELECT coalesce(status::text, ''), count::int8 FROM asked ORDER BY 2 DESC LIMIT 20",
};
const SQLITE: Dialect = Dialect {
    age: "SELECT (julianday('now') - julianday(max(at))) * 86400.0 FROM asked",
    statuses: "SELECT coalesce(CAST(status AS TEXT), ''), CAST(count AS INTEGER) FROM asked ORDER BY 2 DESC LIMIT 20",
};

impl Asker {
    /// Asks these.
    pub(super) fn new(questions: &Questions) -> Self {
        Self { questions: questions.clone(), rests: [0; 3] }
    }

    /// Asks all of them in PostgreSQL; `readable` tells of products, videos and posts whether the table can be read.
    ///
    /// # Errors
    /// When the server does not answer; a question that it refuses is `None` instead.
    pub(super) async fn in_postgres(
        &mut self,
        session: &mut Session,
        readable: [bool; 3],
        redactor: &Redactor,
    ) -> Result<Business, Fault> {
        let mut rows: [Option<Vec<PgRow>>; 3] = [const { None }; 3];
        for (index, slot) in rows.iter_mut().enumerate() {
            let Some(question) = self.due(index, readable, &POSTGRES) else { continue };
            *slot = session.rows_if_any(&question, STATUSES).await?;
            self.rests[index] = if slot.is_some() { 0 } else { REST };
        }
        let age = |rows: &Option<Vec<PgRow>>| match rows.as_ref().and_then(|rows| rows.first()) {
            Some(row) => amount(row, 0),
            None => Ok(None),
        };
        let publishes = rows[2].as_ref().map(|rows| {
            let pairs = rows.iter().map(|row| Ok((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?)));
            pairs.collect::<Result<Vec<_>, Fault>>()
        });
        let publishes = publishes.transpose()?.map(|pairs| self.publishes(&pairs, redactor));
        Ok(Business { newest_product_seconds: age(&rows[0])?, newest_video_seconds: age(&rows[1])?, publishes })
    }

    /// Asks all of them in a file of SQLite.
    ///
    /// # Errors
    /// When the file cannot be read; a question that is refused is `None` instead.
    pub(super) async fn in_sqlite(
        &mut self,
        connection: &mut SqliteConnection,
        readable: [bool; 3],
        redactor: &Redactor,
    ) -> Result<Business, Fault> {
        let mut rows: [Option<Vec<SqliteRow>>; 3] = [const { None }; 3];
        for (index, slot) in rows.iter_mut().enumerate() {
            let Some(question) = self.due(index, readable, &SQLITE) else { continue };
            let answer = sqlx::raw_sql(AssertSqlSafe(question)).fetch_all(&mut *connection).await;
            *slot = match answer.map_err(Fault::from) {
                Ok(rows) => Some(rows),
                Err(fault) if fault.is_answer => None,
                Err(fault) => return Err(fault),
            };
            self.rests[index] = if slot.is_some() { 0 } else { REST };
        }
        let age = |rows: &Option<Vec<SqliteRow>>| -> Result<Option<f64>, Fault> {
            let Some(row) = rows.as_ref().and_then(|rows| rows.first()) else { return Ok(None) };
            Ok(row.try_get::<Option<f64>, _>(0)?.filter(|age| age.is_finite()))
        };
        let publishes = rows[2].as_ref().map(|rows| {
            let pairs = rows.iter().map(|row| Ok((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?)));
            pairs.collect::<Result<Vec<_>, Fault>>()
        });
        let publishes = publishes.transpose()?.map(|pairs| self.publishes(&pairs, redactor));
        Ok(Business { newest_product_seconds: age(&rows[0])?, newest_video_seconds: age(&rows[1])?, publishes })
    }

    /// The question, if it is to be asked now.
    fn due(&mut self, index: usize, readable: [bool; 3], dialect: &Dialect) -> Option<String> {
        let question = self.questions.all()[index];
        if question.is_empty() || (!readable[index] && self.questions.is_default(index)) {
            return None;
        }
        if self.rests[index] > 0 {
            self.rests[index] -= 1;
            return None;
        }
        let (columns, answer) = if index == 2 { ("status, count", dialect.statuses) } else { ("at", dialect.age) };
        Some(format!("WITH asked({columns}) AS ({question}) {answer}"))
    }

    fn publishes(&self, pairs: &[(String, i64)], redactor: &Redactor) -> Publishes {
        let mut publishes = Publishes::default();
        for (status, count) in pairs.iter().take(STATUSES) {
            let count = u64::try_from(*count).unwrap_or_default();
            let is_in = |words: &[String]| words.iter().any(|word| word.eq_ignore_ascii_case(status));
            let sum = match () {
                () if is_in(&self.questions.published) => &mut publishes.published,
                () if is_in(&self.questions.failed) => &mut publishes.failed,
                () => &mut publishes.others,
            };
            *sum = sum.saturating_add(count);
            let clean: Clean<'static> = redactor.text(Outlet::Endpoint, status.as_bytes()).into_owned().cut(LONGEST);
            publishes.by_status.push((clean, count));
        }
        publishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables that can be read.
    const ALL: [bool; 3] = [true; 3];
    const NONE: [bool; 3] = [false; 3];

    fn asker() -> Asker {
        Asker::new(&Questions::default())
    }

    #[test]
    fn a_refused_question_rests_and_is_asked_again() {
        let mut asker = asker();
        asker.rests[0] = REST;
        for _ in 0..REST {
            assert_eq!(asker.due(0, ALL, &POSTGRES), None);
        }
        assert!(asker.due(0, ALL, &POSTGRES).is_some());
        assert!(asker.due(1, ALL, &POSTGRES).is_some(), "the others go on");
    }

    #[test]
    fn a_default_is_asked_of_a_readable_table_only_and_an_own_question_always() {
        let mut asker = asker();
        assert_eq!(asker.due(0, NONE, &POSTGRES), None);
        asker.questions.newest_product = "SELECT made FROM goods ORDER BY id DESC LIMIT 1".into();
        let question = asker.due(0, NONE, &SQLITE).unwrap();
        let (head, tail) =
            ("WITH asked(at) AS (SELECT made FROM goods ORDER BY id DESC LIMIT 1) SELECT ", " FROM asked");
        assert!(question.starts_with(head) && question.ends_with(tail), "{question}");
        asker.questions.newest_product = String::new();
        assert_eq!(asker.due(0, ALL, &POSTGRES), None);
    }

    #[test]
    fn statuses_count_as_published_failed_or_neither() {
        let pairs = [("published", 7), ("Failed", 2), ("pending", 4), ("error", 1), ("", -3)];
        let pairs = pairs.map(|(status, count)| (status.to_owned(), count));
        let found = asker().publishes(&pairs, &Redactor::new([]));
        assert_eq!((found.published, found.failed, found.others), (7, 3, 4));
        assert_eq!(found.by_status.len(), 5);
    }

    #[test]
    fn a_status_is_cleaned_and_cut() {
        let pairs = [(format!("hunter2 {}", "x".repeat(100)), 1)];
        let found = asker().publishes(&pairs, &Redactor::new(["hunter2-hunter2", "hunter2"]));
        assert!(found.by_status[0].0.as_str().len() <= LONGEST, "{found:?}");
    }
}
