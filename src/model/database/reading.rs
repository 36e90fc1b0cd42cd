//! A reading: the last good value, its age, and why a newer one could not be had.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::age;
use crate::model::trouble::Trouble;

/// What was read from elsewhere, in turns. A failure keeps the last value, which grows old.
#[derive(Clone, Debug)]
pub struct Reading<T> {
    /// The last good value, and when it was read.
    value: Option<(Instant, T)>,
    /// Why the last turn gave none.
    trouble: Option<Trouble>,
    /// Turns that gave none, since the start.
    pub failures: u64,
    /// Time between two turns.
    pub period: Duration,
}

impl<T> Reading<T> {
    /// Nothing read yet, in turns of this period.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Self { value: None, trouble: None, failures: 0, period }
    }

    /// The same after a turn.
    pub fn turn(&mut self, outcome: Result<T, Trouble>, now: Instant) {
        match outcome {
            Ok(value) => (self.value, self.trouble) = (Some((now, value)), None),
            Err(trouble) => {
                self.trouble = Some(trouble);
                self.failures += 1;
            }
        }
    }

    /// The last good value, whatever its age.
    #[must_use]
    pub fn last(&self) -> Option<&T> {
        self.value.as_ref().map(|(_, value)| value)
    }

    /// The value, if the last turn gave one.
    #[must_use]
    pub fn current(&self) -> Option<&T> {
        self.last().filter(|_| self.trouble.is_none())
    }

    /// How long ago the last good value was read.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        age::age(self.value.as_ref().map(|(at, _)| *at), now)
    }

    /// Whether there is no value, or one that several turns have failed to renew.
    #[must_use]
    pub fn is_stale(&self, now: Instant) -> bool {
        age::is_stale(self.age(now), self.period)
    }

    /// Why the last turn gave no value; `None` when it did, or before the first.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_value_and_three_of_them_make_it_stale() {
        let (start, period) = (Instant::now(), Duration::from_secs(10));
        let mut reading = Reading::new(period);
        assert!(reading.is_stale(start) && reading.age(start).is_none());
        reading.turn(Ok(7), start);
        for (seconds, stale) in [(10, false), (30, false), (31, true)] {
            let now = start + Duration::from_secs(seconds);
            reading.turn(Err(Trouble::Timeout), now);
            assert_eq!((reading.last(), reading.current()), (Some(&7), None));
            assert_eq!((reading.age(now), reading.is_stale(now)), (Some(Duration::from_secs(seconds)), stale));
        }
        assert_eq!((reading.failures, reading.trouble()), (3, Some(Trouble::Timeout)));
        let now = start + Duration::from_secs(40);
        reading.turn(Ok(8), now);
        assert_eq!((reading.current(), reading.trouble(), reading.is_stale(now)), (Some(&8), None, false));
    }
}
