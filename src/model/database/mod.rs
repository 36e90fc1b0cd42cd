//! The application's database, as it was last read: what the room gives out, and all others show.

pub mod asked;
pub mod business;
pub mod pool;
pub mod reading;
pub mod samples;
pub mod statements;
pub mod values;
pub mod verdict;

use std::time::Duration;

use crate::model::database::asked::Asked;
use crate::model::database::business::Business;
use crate::model::database::pool::Pool;
use crate::model::database::reading::Reading;
use crate::model::database::statements::Statements;
use crate::model::database::values::{Activity, Server, Statistics, Storage};
use crate::model::usage::BusinessRows;

/// Which kind of database is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DatabaseKind {
    /// No address is configured.
    #[default]
    None,
    /// A server of PostgreSQL.
    Postgres,
    /// A file of SQLite.
    Sqlite,
    /// Inside the application's process: nobody else can see it.
    InProcess,
}

/// The time between two turns of each part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Periods {
    /// Sessions, transactions and locks.
    pub activity: Duration,
    /// Counters, replication and tables.
    pub statistics: Duration,
    /// What takes the server longer to tell: sizes.
    pub storage: Duration,
    /// Rows of the business tables, and the newest of them.
    pub rows: Duration,
}

/// All that is known of the database. Each part has its own turns and its own age.
#[derive(Clone, Debug)]
pub struct DatabaseState {
    /// Which kind it is.
    pub kind: DatabaseKind,
    /// The server and our rights.
    pub server: Reading<Server>,
    /// What goes on.
    pub activity: Reading<Activity>,
    /// What it counts.
    pub statistics: Reading<Statistics>,
    /// What is on the disk.
    pub storage: Reading<Storage>,
    /// What took most of its time.
    pub statements: Reading<Statements>,
    /// Rows of the business tables.
    pub rows: Reading<BusinessRows>,
    /// The newest rows of them.
    pub business: Reading<Business>,
    /// How long all that took to ask.
    pub asked: Asked,
    /// The connections that it was asked over; of a server only.
    pub pool: Pool,
}

impl DatabaseState {
    /// Nothing read yet.
    #[must_use]
    pub fn new(kind: DatabaseKind, periods: &Periods) -> Self {
        Self {
            kind,
            server: Reading::new(periods.activity),
            activity: Reading::new(periods.activity),
            statistics: Reading::new(periods.statistics),
            storage: Reading::new(periods.storage),
            statements: Reading::new(periods.statistics),
            rows: Reading::new(periods.rows),
            business: Reading::new(periods.rows),
            asked: Asked::default(),
            pool: Pool::default(),
        }
    }

    /// Readings come at another pace from now on.
    pub fn pace(&mut self, periods: &Periods) {
        self.server.period = periods.activity;
        self.activity.period = periods.activity;
        self.statistics.period = periods.statistics;
        self.storage.period = periods.storage;
        self.statements.period = periods.statistics;
        self.rows.period = periods.rows;
        self.business.period = periods.rows;
    }

    /// The rows as the last turn counted them; unknown when it could not.
    #[must_use]
    pub fn business_rows(&self) -> BusinessRows {
        self.rows.current().copied().unwrap_or_default()
    }
}

impl DatabaseKind {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Postgres => "postgresql",
            Self::Sqlite => "sqlite",
            Self::InProcess => "in_process",
        }
    }
}
