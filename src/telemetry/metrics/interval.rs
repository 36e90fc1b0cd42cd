//! From when to when a point counts, also where somebody sets the clock in between.
//!
//! Pure: readings of both clocks come in. Lengths are of the monotonic one, ends of the one that people see.

use std::time::Duration;

use tokio::time::Instant;

/// The same moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Never set.
    pub(crate) at: Instant,
    /// By the time of day, in nanoseconds since the Unix epoch.
    pub(crate) unix_nanos: u64,
}

/// From a moment to a later one, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    /// Its first moment.
    pub(crate) start: u64,
    /// Its last one.
    pub(crate) end: u64,
}

/// What ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intervals {
    /// The life of the process.
    pub(crate) life: Interval,
    /// What is new since the last export.
    pub(crate) step: Interval,
}

/// A clock that is off by less was slewed or was late, and intervals that follow each other without a gap are worth more.
const TOLERANCE: Duration = Duration::from_secs(1);

/// When the process started, and when it exported last.
#[derive(Debug)]
pub(crate) struct Times {
    started: Reading,
    exported: Reading,
}

impl Times {
    /// Nothing was exported yet.
    pub(crate) fn new(started: Reading) -> Self {
        Self { started, exported: started }
    }

    /// Ends an interval, and begins the next one.
    pub(crate) fn end_step(&mut self, now: Reading) -> Intervals {
        let end = now.unix_nanos;
        let steady = ago(self.exported, now);
        let step = if steady.abs_diff(self.exported.unix_nanos) > nanos(TOLERANCE) {
            steady // the clock was set: by the new time it began then
        } else {
            self.exported.unix_nanos.min(end)
        };
        if self.started.unix_nanos > step {
            // set back behind the start; otherwise the start is left as it was told, because a new one is a new series
            self.started.unix_nanos = ago(self.started, now).min(step);
        }
        self.exported = now;
        Intervals { life: Interval { start: self.started.unix_nanos, end }, step: Interval { start: step, end } }
    }
}

/// The time of day of an earlier moment, by the clock as it is now.
fn ago(then: Reading, now: Reading) -> u64 {
    now.unix_nanos.saturating_sub(nanos(now.at - then.at))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const HOUR: u64 = 3_600 * SECOND;

    /// Exports 10 s after each other, while the clock shows these seconds after or before 100 hours; start and end of the
    /// life and of the step, in the same seconds.
    fn intervals(shown: &[i64]) -> Vec<[i64; 4]> {
        let start = Instant::now();
        let reading = |number: usize, seconds: i64| Reading {
            at: start + Duration::from_secs(10) * u32::try_from(number).unwrap(),
            unix_nanos: (100 * HOUR).checked_add_signed(seconds * SECOND as i64).unwrap(),
        };
        let mut times = Times::new(reading(0, 0));
        let numbered = shown.iter().enumerate();
        numbered
            .map(|(number, seconds)| {
                let Intervals { life, step } = times.end_step(reading(number + 1, *seconds));
                [life.start, life.end, step.start, step.end]
                    .map(|time| (i64::try_from(time).unwrap() - 100 * HOUR as i64) / SECOND as i64)
            })
            .collect()
    }

    #[test]
    fn one_interval_follows_the_other() {
        assert_eq!(intervals(&[10, 20, 30]), [[0, 10, 0, 10], [0, 20, 10, 20], [0, 30, 20, 30]]);
    }

    #[test]
    fn a_clock_set_ahead_makes_no_long_interval() {
        assert_eq!(
            intervals(&[10, 3_620, 3_630]),
            [[0, 10, 0, 10], [0, 3_620, 3_610, 3_620], [0, 3_630, 3_620, 3_630]]
        );
    }

    #[test]
    fn a_clock_set_back_makes_no_negative_interval() {
        let back = [[0, 10, 0, 10], [-3_600, -3_580, -3_590, -3_580], [-3_600, 30, 20, 30]];
        assert_eq!(intervals(&[10, -3_580, 30]), back);
    }

    #[test]
    fn a_clock_that_is_corrected_a_little_leaves_no_gap() {
        // half a second of delay between two exports that were due ten seconds apart
        let start = Instant::now();
        let mut times = Times::new(Reading { at: start, unix_nanos: HOUR });
        let later = Reading { at: start + Duration::from_secs(10), unix_nanos: HOUR + 10 * SECOND };
        times.end_step(later);
        let slewed = Reading { at: start + Duration::from_secs(20), unix_nanos: HOUR + 20 * SECOND + SECOND / 2 };
        assert_eq!(times.end_step(slewed).step, Interval { start: later.unix_nanos, end: slewed.unix_nanos });
    }
}
