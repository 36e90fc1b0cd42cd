//! The check of the database: a connection of its own, and one statement that reads.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection};

use crate::checks::check::{Check, Finding};
use crate::checks::failure::Failure;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::dsn::DatabaseAddress;
use crate::model::health::HealthStatus;
use crate::model::trouble::Trouble;
use crate::postgres_link::Link;
use crate::redact::Clean;

/// Keeps its connection between runs; a run that is cut off takes the connection with it.
pub(in crate::checks) struct Sql {
    address: DatabaseAddress,
    kept: Mutex<Option<Open>>,
}

enum Open {
    Postgres(Link),
    Sqlite(SqliteConnection),
}

pub(super) const KIND: Kind =
    Kind { word: "sql", about: "a PostgreSQL or SQLite that answers", pace: Pace::seconds(10, 2), read };

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    const EXPECTED: &str = "a URL such as postgresql://user:password@host:5432/name or sqlite:///file.db";
    let section = &mut *reading.section;
    let about = "The database, as postgresql://user:password@host/name or sqlite:///file.db.";
    let Some(url) = section.secret_url("url", about) else {
        if !section.is_secret_set("url") {
            section.problem("url", "nothing", EXPECTED);
        }
        return None;
    };
    let Ok(address) = DatabaseAddress::parse(url.expose()) else {
        section.problem("url", &url, EXPECTED);
        return None;
    };
    Some(Plan::new(move |_| Sql::new(address.clone())))
}

impl Sql {
    /// Checks this database.
    pub(in crate::checks) fn new(address: DatabaseAddress) -> Self {
        Self { address, kept: Mutex::default() }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Check for Sql {
    async fn run(&self) -> Result<Finding, Failure> {
        let kept = self.slot().take();
        // a server that was restarted closes the kept connection; that alone is no failure of today
        if let Some(mut open) = kept
            && open.ask().await.is_ok()
        {
            *self.slot() = Some(open);
            return Ok(Finding::Works);
        }
        let opened = match &self.address {
            DatabaseAddress::Postgres(options) => Link::open(options).await.map(Open::Postgres),
            DatabaseAddress::Sqlite(file) => SqliteConnection::connect_with(&file.options()).await.map(Open::Sqlite),
            DatabaseAddress::InProcess => {
                let words = Clean::literal("in-process database, not observable from outside");
                return Ok(Finding::Told(HealthStatus::Unknown, words));
            }
        };
        let mut open = opened.map_err(|error| failure(&error))?;
        open.ask().await.map_err(|error| failure(&error))?;
        *self.slot() = Some(open);
        Ok(Finding::Works)
    }
}

impl Open {
    async fn ask(&mut self) -> Result<(), sqlx::Error> {
        match self {
            // as simple queries: a pooler in front knows no prepared statements
            Self::Postgres(link) => {
                let (connection, relay) = link.parts();
                relay.answer(sqlx::raw_sql("SELECT 1").execute(connection)).await.map(|_| ())
            }
            // reads the file, unlike SELECT 1
            Self::Sqlite(connection) => {
                sqlx::raw_sql("SELECT count(*) FROM sqlite_master").fetch_one(connection).await.map(|_| ())
            }
        }
    }
}

fn failure(error: &sqlx::Error) -> Failure {
    Failure::known(Some(Trouble::of_database(error)), error)
}
