//! Our own connections to the application's database, as they are opened, used and given up.
//!
//! There are two, one for each reader, and no reader waits for the other's: so nothing here tells of waiting.

use std::time::Duration;

use crate::model::catalogue::database_pool::{
    DB_CLIENT_CONNECTION_COUNT, DB_CLIENT_CONNECTION_CREATE_TIME, DB_CLIENT_CONNECTION_MAX,
    DB_CLIENT_CONNECTION_TIMEOUTS, DB_CLIENT_CONNECTION_USE_TIME, POOL_SECONDS,
};
use crate::model::sample::Sample;
use crate::model::tally::Tally;
use crate::semconv;

/// One connection looks at what goes on, one reads what may be slow.
pub const CONNECTIONS: u64 = 2;
/// The name of this pool in telemetry.
const NAME: &str = "cf-sidecar";

/// What became of our connections.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Open now.
    open: u64,
    /// Open now, with a question under way.
    used: u64,
    /// How long it took to open each: name, connection, handshake, login.
    create: Tally,
    /// How long each question had its connection.
    uses: Tally,
    /// Attempts to open one that took too long.
    timeouts: u64,
}

impl Default for Pool {
    fn default() -> Self {
        let tally = Tally::new(POOL_SECONDS);
        Self { open: 0, used: 0, create: tally.clone(), uses: tally, timeouts: 0 }
    }
}

impl Pool {
    /// One was opened, in so much time.
    pub fn opened(&mut self, took: Duration) {
        self.open += 1;
        self.create.add(took.as_secs_f64());
    }

    /// One could not be opened in time.
    pub fn timed_out(&mut self) {
        self.timeouts += 1;
    }

    /// One was given up.
    pub fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// A question has one now.
    pub fn taken(&mut self) {
        self.used += 1;
    }

    /// It has it no more, whole or broken, after so much time.
    pub fn returned(&mut self, took: Duration) {
        self.used = self.used.saturating_sub(1);
        self.uses.add(took.as_secs_f64());
    }

    /// All series.
    pub(super) fn samples(&self, out: &mut Vec<Sample>) {
        let named = |sample: Sample| sample.with_literal(semconv::DB_CLIENT_CONNECTION_POOL_NAME, NAME);
        for (state, count) in [("idle", self.open.saturating_sub(self.used)), ("used", self.used)] {
            let sample = named(Sample::level(&DB_CLIENT_CONNECTION_COUNT, count as f64));
            out.push(sample.with_literal(semconv::DB_CLIENT_CONNECTION_STATE, state));
        }
        out.push(named(Sample::level(&DB_CLIENT_CONNECTION_MAX, CONNECTIONS as f64)));
        out.push(named(Sample::count(&DB_CLIENT_CONNECTION_TIMEOUTS, self.timeouts)));
        for (metric, tally) in
            [(&DB_CLIENT_CONNECTION_CREATE_TIME, &self.create), (&DB_CLIENT_CONNECTION_USE_TIME, &self.uses)]
        {
            if !tally.is_empty() {
                out.push(named(Sample::histogram(metric, tally.histogram())));
            }
        }
    }
}
