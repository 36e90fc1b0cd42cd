//! The settings of the database room.

use std::time::Duration;

use crate::model::database::Periods;
use crate::model::dsn::DatabaseAddress;
use crate::settings::Section;

/// Which database is read, and how often.
#[derive(Clone, Debug)]
pub struct Config {
    /// The application's database; the check of it uses the same.
    pub address: Option<DatabaseAddress>,
    /// Time between two turns of each part.
    pub periods: Periods,
    /// Whether `pg_stat_statements` is read.
    pub statements: bool,
    /// What is asked of the business tables.
    pub questions: Questions,
}

/// What is asked of the business tables; an empty text asks nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    /// One column: moments, of which the newest counts.
    pub newest_product: String,
    /// The same.
    pub newest_video: String,
    /// Two columns: a status, and a number of rows.
    pub publishes: String,
    /// The statuses of what went well.
    pub published: Vec<String>,
    /// The statuses of what did not.
    pub failed: Vec<String>,
}

/// By the primary key: `created_at` has no index, and a table of millions is not to be read for one row.
const NEWEST_PRODUCT: &str = "SELECT created_at FROM products ORDER BY id DESC LIMIT 1";
const NEWEST_VIDEO: &str = "SELECT created_at FROM (SELECT status, created_at FROM videos ORDER BY id DESC LIMIT 200) newest WHERE status = 'completed'";
const PUBLISHES: &str =
    "SELECT status, count(*) FROM (SELECT status FROM social_media_posts ORDER BY id DESC LIMIT 500) newest GROUP BY 1";
const PUBLISHED: &[&str] = &["published", "posted", "success", "completed"];
const FAILED: &[&str] = &["failed", "error"];

/// A count reads a whole index; the numbers move slowly.
const ROWS: Duration = Duration::from_secs(60);
/// Four small statements; a lock that holds everybody up is seen before people call.
const ACTIVITY: Duration = Duration::from_secs(10);
/// Counters tell as much in longer steps.
const STATISTICS: Duration = Duration::from_secs(60);
/// The server looks at every file of the database.
const STORAGE: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(1);

impl Config {
    /// Reads `database.*` below the root of the settings.
    pub fn read(root: &mut Section<'_>) -> Self {
        let mut section = root.section("database");
        let about = "The application's database, as postgresql://user:password@host/name or sqlite:///file.db.";
        let url = section.secret_url("url", about);
        let address = url.and_then(|url| match DatabaseAddress::parse(url.expose()) {
            Ok(address) => Some(address),
            Err(_) => {
                section.problem(
                    "url",
                    &url,
                    "a URL such as postgresql://user:password@host:5432/name or sqlite:///file.db",
                );
                None
            }
        });
        let periods = Periods {
            rows: period(&mut section, "period", ROWS, "Time between two counts of the business tables."),
            activity: period(
                &mut section,
                "activity_period",
                ACTIVITY,
                "Time between two looks at sessions, transactions and locks.",
            ),
            statistics: period(
                &mut section,
                "statistics_period",
                STATISTICS,
                "Time between two looks at the server's counters, at replication and at dead rows.",
            ),
            storage: period(
                &mut section,
                "storage_period",
                STORAGE,
                "Time between two looks at the size of the database, for which the server looks at each of its files.",
            ),
        };
        let statements = section.flag(
            "statements",
            true,
            "Whether the slowest statements are read from pg_stat_statements, for the endpoint alone.",
        );
        let questions = Questions::read(&mut section.section("business"));
        Self { address, periods, statements, questions }
    }
}

impl Questions {
    fn read(section: &mut Section<'_>) -> Self {
        let newest = "SQL whose one column is moments, the newest of which counts; empty: not asked. By the primary key, because created_at has no index.";
        let publishes =
            "SQL whose two columns are a status and a number of rows; empty: not asked. Of the newest rows only.";
        let (published, failed) = ("Statuses of a publish that went well.", "Statuses of one that did not.");
        Self {
            newest_product: question(section, "newest_product", NEWEST_PRODUCT, newest),
            newest_video: question(section, "newest_video", NEWEST_VIDEO, newest),
            publishes: question(section, "publishes", PUBLISHES, publishes),
            published: section.list("published", PUBLISHED, published),
            failed: section.list("failed", FAILED, failed),
        }
    }

    /// All of them: the newest product, the newest finished video, publishes.
    #[must_use]
    pub fn all(&self) -> [&str; 3] {
        [&self.newest_product, &self.newest_video, &self.publishes]
    }

    /// Whether one of them, by its place in `all`, is as we made it.
    #[must_use]
    pub fn is_default(&self, index: usize) -> bool {
        self.all()[index] == [NEWEST_PRODUCT, NEWEST_VIDEO, PUBLISHES][index]
    }
}

impl Default for Questions {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self {
            newest_product: NEWEST_PRODUCT.into(),
            newest_video: NEWEST_VIDEO.into(),
            publishes: PUBLISHES.into(),
            published: words(PUBLISHED),
            failed: words(FAILED),
        }
    }
}

/// One statement that reads: it becomes a part of ours, inside a transaction that cannot write.
fn question(section: &mut Section<'_>, name: &'static str, default: &str, about: &'static str) -> String {
    let text = section.text(name, default, about);
    let text = text.trim();
    let first = text.split_whitespace().next().unwrap_or_default();
    let reads = ["select", "with"].iter().any(|word| first.eq_ignore_ascii_case(word));
    if !text.is_empty() && (!reads || text.contains(';')) {
        section.problem(name, text, "one statement that begins with SELECT or WITH, without a semicolon");
    }
    text.to_owned()
}

fn period(section: &mut Section<'_>, name: &'static str, default: Duration, about: &'static str) -> Duration {
    let period = section.duration(name, default, about);
    if period < SHORTEST {
        section.problem(name, crate::settings::show_duration(period), "at least 1s");
    }
    period.max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::redact::{Outlet, Redactor};
    use crate::settings::{Place, Settings, Tree};

    fn problems(business: serde_json::Value) -> Vec<String> {
        let mut tree = Tree::default();
        tree.merge(json!({"database": {"business": business}}), &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let _ = Config::read(&mut settings.section(""));
        settings.finish().1.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_question_is_one_statement_that_reads() {
        for (text, is_taken) in [
            ("SELECT made FROM goods", true),
            ("  with a as (select 1) select 1 from a", true),
            ("", true),
            ("DELETE FROM products", false),
            ("SELECT 1; DELETE FROM products", false),
        ] {
            let expected: &[&str] = if is_taken { &[] } else { &["database.business.newest_product"] };
            assert_eq!(problems(json!({"newest_product": text})), expected, "{text}");
        }
    }

    #[test]
    fn the_password_of_the_database_alone_is_known_to_the_redactor() {
        let mut tree = Tree::default();
        let url = "postgresql+asyncpg://factory:hunter%402@db/factory";
        tree.merge(json!({"database": {"url": url}}), &Place("DATABASE_URL".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let _ = Config::read(&mut settings.section(""));
        let (_, _, secrets) = settings.finish();
        let redactor = Redactor::new(secrets.iter().map(String::as_str));
        let told = redactor.text(Outlet::OwnLog, b"hunter@2 was refused for factory at db").into_owned();
        assert_eq!(told.as_str(), "[REDACTED:secret] was refused for factory at db");
    }
}
