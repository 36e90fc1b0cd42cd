//! The time of day of a monotonic instant, without asking for it at each request.

use std::cell::Cell;

use tokio::time::Instant;

use crate::wall_clock::since_epoch;

/// A pair of readings, renewed by the worker's tick: a clock that is set shows within a second.
#[derive(Debug)]
pub(crate) struct Clock {
    anchor: Cell<(Instant, u64)>,
}

impl Clock {
    /// Reads both clocks.
    pub(crate) fn new() -> Self {
        Self { anchor: Cell::new(read()) }
    }

    /// Reads both clocks again.
    pub(crate) fn renew(&self) {
        self.anchor.set(read());
    }

    /// Nanoseconds since the Unix epoch.
    pub(crate) fn unix_nanos(&self, instant: Instant) -> u64 {
        let (anchor, nanos) = self.anchor.get();
        match instant.checked_duration_since(anchor) {
            Some(later) => nanos.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)),
            None => nanos.saturating_sub(u64::try_from((anchor - instant).as_nanos()).unwrap_or(u64::MAX)),
        }
    }
}

fn read() -> (Instant, u64) {
    let unix = since_epoch();
    (Instant::now(), u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_instant_before_or_after_the_anchor_has_its_time_of_day() {
        let clock = Clock::new();
        let (anchor, nanos) = clock.anchor.get();
        assert_eq!(clock.unix_nanos(anchor + Duration::from_secs(2)), nanos + 2_000_000_000);
        if let Some(before) = anchor.checked_sub(Duration::from_millis(1)) {
            assert_eq!(clock.unix_nanos(before), nanos - 1_000_000);
        }
    }
}
