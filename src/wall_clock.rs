//! The time that the wall clock tells: for what is shown, stored or sent, never for how long something took.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, since the Unix epoch; zero before it.
#[must_use]
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
