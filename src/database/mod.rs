//! Business rows from the application's database, by a tiny pool of our own.
//!
//! Read-only, in the background, with a limit on every statement: the application never waits for us. A table that is
//! not there, or that we may not read, is unknown, and so is everything while the database does not answer.

pub mod config;
mod counts;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::lifecycle::Drain;
use crate::model::dsn::DatabaseAddress;
use crate::model::usage::BusinessRows;
use crate::redact::{Outlet, Redactor};

use config::Config;
use counts::Pool;

/// Reads the last counts, from memory.
pub type Reader = watch::Receiver<BusinessRows>;

/// Counts, and owns the pool.
pub struct Database {
    address: Option<DatabaseAddress>,
    period: Duration,
    last: watch::Sender<BusinessRows>,
    redactor: Arc<Redactor>,
}

/// All tables together; each statement has its own, shorter limit.
const COUNT_LIMIT: Duration = Duration::from_secs(10);

/// Makes the room; all rows are unknown until they are counted.
#[must_use]
pub fn build(config: Config, redactor: Arc<Redactor>) -> (Database, Reader) {
    let (last, reader) = watch::channel(BusinessRows::default());
    (Database { address: config.address, period: config.period, last, redactor }, reader)
}

impl Database {
    /// Counts until the process drains. May be called again after a panic.
    pub async fn run(&self, mut drain: Drain) {
        let Some(pool) = self.address.as_ref().and_then(Pool::open) else { return };
        let mut turns = interval(self.period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = turns.tick() => {
                    let rows = self.count(&pool).await;
                    self.last.send_replace(rows);
                }
                _ = drain.begun() => return,
            }
        }
    }

    async fn count(&self, pool: &Pool) -> BusinessRows {
        match timeout(COUNT_LIMIT, pool.count()).await {
            Ok(Ok(rows)) => rows,
            Ok(Err(error)) => {
                let detail = error.to_string();
                let detail = self.redactor.text(Outlet::OwnLog, detail.as_bytes());
                tracing::debug!(%detail, "the business tables cannot be read");
                BusinessRows::default()
            }
            Err(_) => {
                tracing::debug!("the business tables were not counted in time");
                BusinessRows::default()
            }
        }
    }
}
