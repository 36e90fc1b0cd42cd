//! The address of the application's database, as its configuration writes it. Parsing does no I/O.
//!
//! Read once; the rooms that open connections share the parsed value, never the text.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use url::Url;

/// A database that can be asked. Prints no more than its kind.
#[derive(Clone)]
pub enum DatabaseAddress {
    /// A PostgreSQL server.
    Postgres(Box<PgConnectOptions>),
    /// A file of SQLite.
    Sqlite(SqliteFile),
    /// A database inside the application's process: nobody else can see it.
    InProcess,
}

/// Where a file of SQLite may be: the two dialects of its URL differ in what three slashes mean.
#[derive(Clone, PartialEq, Eq)]
pub struct SqliteFile {
    /// As SQLAlchemy reads it: relative after three slashes.
    relative: PathBuf,
    /// As everybody else reads it.
    absolute: PathBuf,
}

/// Why a text is no address of a database. Never holds the text: it may contain a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// No URL at all.
    #[error("is no URL")]
    NoUrl,
    /// A URL of something else.
    #[error("is neither of PostgreSQL nor of SQLite")]
    OtherKind,
    /// A part of it cannot be used.
    #[error("has a part that cannot be used")]
    BadPart,
}

/// The parameters that are passed on; others are the dialect's or the driver's of the application.
const PARAMETERS: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
];
/// How we show ourselves in `pg_stat_activity`.
const APPLICATION_NAME: &str = "cf-sidecar";
/// A writer of the application comes first.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

impl DatabaseAddress {
    /// Reads a URL as SQLAlchemy and everybody else write it: `postgresql+asyncpg://…`, `postgres://…`,
    /// `sqlite:///relative.db`, `sqlite:////absolute.db`, `sqlite:///:memory:`.
    ///
    /// # Errors
    /// What is wrong, without the text.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        let (scheme, rest) = text.trim().split_once(':').ok_or(DsnError::NoUrl)?;
        match scheme.split('+').next().unwrap_or_default() {
            "postgres" | "postgresql" => postgres(rest),
            "sqlite" => Ok(sqlite(rest)),
            _ => Err(DsnError::OtherKind),
        }
    }
}

fn postgres(rest: &str) -> Result<DatabaseAddress, DsnError> {
    // the driver behind the plus sign is the application's
    let mut url = Url::parse(&format!("postgresql:{rest}")).map_err(|_| DsnError::NoUrl)?;
    // sqlx logs what it does not know together with its value, so it never gets to see it
    let known: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(key, _)| PARAMETERS.contains(&key.as_ref()))
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect();
    url.set_query(None);
    if !known.is_empty() {
        url.query_pairs_mut().extend_pairs(known);
    }
    let options: PgConnectOptions = url.as_str().parse().map_err(|_| DsnError::BadPart)?;
    // no prepared statements: a pooler may give each transaction another connection; nor an option that it does not know
    let options = options.application_name(APPLICATION_NAME).statement_cache_capacity(0).extra_float_digits(None);
    Ok(DatabaseAddress::Postgres(Box::new(options)))
}

fn sqlite(rest: &str) -> DatabaseAddress {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = percent_decode_str(path).decode_utf8_lossy();
    let relative = path.strip_prefix('/').unwrap_or(&path);
    if relative.is_empty() || relative == ":memory:" {
        return DatabaseAddress::InProcess;
    }
    DatabaseAddress::Sqlite(SqliteFile { relative: relative.into(), absolute: PathBuf::from(&*path) })
}

impl SqliteFile {
    /// How to open it: read-only, and never made anew. Looks which of the two readings is there.
    #[must_use]
    pub fn options(&self) -> SqliteConnectOptions {
        let path: &Path = if self.relative.exists() { &self.relative } else { &self.absolute };
        SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .create_if_missing(false)
            .busy_timeout(BUSY_TIMEOUT)
            .statement_cache_capacity(0)
    }
}

impl fmt::Debug for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres(_) => "PostgreSQL",
            Self::Sqlite(_) => "SQLite",
            Self::InProcess => "in process",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sqlite_paths(text: &str) -> (String, String) {
        match DatabaseAddress::parse(text) {
            Ok(DatabaseAddress::Sqlite(file)) => {
                (file.relative.display().to_string(), file.absolute.display().to_string())
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_drivers_of_sqlalchemy_make_no_difference() {
        for scheme in ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg2"] {
            let text = format!("{scheme}://shop:s%40cret@db.local:6432/content?sslmode=require&prepared=x");
            let Ok(DatabaseAddress::Postgres(options)) = DatabaseAddress::parse(&text) else { panic!("{text}") };
            assert_eq!((options.get_host(), options.get_port()), ("db.local", 6_432));
            assert_eq!((options.get_username(), options.get_database()), ("shop", Some("content")));
            assert_eq!(options.get_application_name(), Some("cf-sidecar"));
        }
    }

    #[test]
    fn both_dialects_of_sqlite_are_read() {
        assert_eq!(sqlite_paths("sqlite:///app.db").0, "app.db");
        assert_eq!(sqlite_paths("sqlite:///tmp/x.db").1, "/tmp/x.db");
        assert_eq!(sqlite_paths("sqlite:////tmp/x%20y.db").1, "//tmp/x y.db");
        assert_eq!(sqlite_paths("sqlite+aiosqlite:///./app.db?mode=ro").0, "./app.db");
        assert_eq!(sqlite_paths("sqlite:app.db").1, "app.db");
        for text in ["sqlite://", "sqlite:///:memory:", "sqlite::memory:"] {
            assert!(matches!(DatabaseAddress::parse(text), Ok(DatabaseAddress::InProcess)), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_told_without_the_text() {
        for (text, expected) in [
            ("hunter2-hunter2", DsnError::NoUrl),
            ("mysql://root:hunter2@h/x", DsnError::OtherKind),
            ("postgresql://u:hunter2@h:port/x", DsnError::NoUrl),
            ("postgresql://u:hunter2@h/x?sslmode=perhaps", DsnError::BadPart),
        ] {
            let error = DatabaseAddress::parse(text).unwrap_err();
            assert_eq!(error, expected, "{text}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        let address = DatabaseAddress::parse("postgresql://u:hunter2@h/x").unwrap();
        assert_eq!(format!("{address:?}"), "PostgreSQL");
    }
}
