//! How old a reading may grow: the one rule for all that is read in turns. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Turns that may fail or be late in a row before a reading is stale.
const TURNS: u32 = 3;

/// How long ago that was; `None` when it never was.
#[must_use]
pub fn age(read_at: Option<Instant>, now: Instant) -> Option<Duration> {
    read_at.map(|at| now.saturating_duration_since(at))
}

/// Whether there is no reading, or one of an age at which several turns of this period have failed to renew it.
#[must_use]
pub fn is_stale(age: Option<Duration>, period: Duration) -> bool {
    age.is_none_or(|age| age > period * TURNS)
}
