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

/// The finest time that receivers tell points apart by: of two differences of one series that end in the same second Datadog
/// keeps one.
const FINEST: Duration = Duration::from_secs(1);

/// When the process started, and when it exported last.
#[derive(Debug)]
pub(crate) struct Times {
    started: Reading,
    exported: Reading,
    /// The end of the last interval, as it was told.
    told: Option<u64>,
    /// Exports are not meant to come more often than receivers tell points apart.
    is_coarse: bool,
}

impl Times {
    /// Nothing was exported yet; it will be each `interval`, and at the end.
    pub(crate) fn new(started: Reading, interval: Duration) -> Self {
        Self { started, exported: started, told: None, is_coarse: interval >= FINEST }
    }

    /// Ends an interval, and begins the next one.
    ///
    /// No two end in the same second, also where the process ends just after an export: the last then ends with the next
    /// second, in which nothing more is counted.
    pub(crate) fn end_step(&mut self, now: Reading) -> Intervals {
        let steady = ago(self.exported, now);
        let was_set = steady.abs_diff(self.exported.unix_nanos) > nanos(TOLERANCE);
        let soonest = self.told.filter(|_| self.is_coarse && !was_set).map_or(0, next_second);
        let end = now.unix_nanos.max(soonest);
        let step = if was_set {
            steady // by the new time it began then
        } else {
            self.told.unwrap_or(self.exported.unix_nanos).min(end)
        };
        if self.started.unix_nanos > step {
            // set back behind the start; otherwise the start is left as it was told, because a new one is a new series
            self.started.unix_nanos = ago(self.started, now).min(step);
        }
        (self.exported, self.told) = (now, Some(end));
        Intervals { life: Interval { start: self.started.unix_nanos, end }, step: Interval { start: step, end } }
    }
}

/// The time of day of an earlier moment, by the clock as it is now.
fn ago(then: Reading, now: Reading) -> u64 {
    now.unix_nanos.saturating_sub(nanos(now.at - then.at))
}

fn next_second(unix_nanos: u64) -> u64 {
    (unix_nanos / nanos(FINEST)).saturating_add(1).saturating_mul(nanos(FINEST))
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
        let mut times = Times::new(reading(0, 0), Duration::from_secs(10));
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
        let mut times = Times::new(Reading { at: start, unix_nanos: HOUR }, Duration::from_secs(10));
        let later = Reading { at: start + Duration::from_secs(10), unix_nanos: HOUR + 10 * SECOND };
        times.end_step(later);
        let slewed = Reading { at: start + Duration::from_secs(20), unix_nanos: HOUR + 20 * SECOND + SECOND / 2 };
        assert_eq!(times.end_step(slewed).step, Interval { start: later.unix_nanos, end: slewed.unix_nanos });
    }

    /// Exports after so many milliseconds of a second that begins with the start; start and end of each step, in milliseconds.
    fn steps(interval: Duration, exports: &[u64]) -> Vec<[u64; 2]> {
        let start = Instant::now();
        let reading = |after: u64| Reading {
            at: start + Duration::from_millis(after),
            unix_nanos: 100 * HOUR + after * (SECOND / 1_000),
        };
        let mut times = Times::new(reading(0), interval);
        let ended = exports.iter().map(|after| times.end_step(reading(*after)).step);
        ended.map(|step| [step.start, step.end].map(|time| (time - 100 * HOUR) / (SECOND / 1_000))).collect()
    }

    #[test]
    fn no_two_intervals_end_in_the_same_second_and_none_leaves_a_gap() {
        let second = Duration::from_secs(1);
        // the process ends 100 ms after an export, and 900
        assert_eq!(steps(15 * second, &[15_200, 15_300]), [[0, 15_200], [15_200, 16_000]]);
        assert_eq!(steps(15 * second, &[15_200, 16_100]), [[0, 15_200], [15_200, 16_100]]);
        // a timer that was late and then was not
        assert_eq!(steps(second, &[1_001, 1_999, 3_000]), [[0, 1_001], [1_001, 2_000], [2_000, 3_000]]);
        assert_eq!(steps(second, &[1_001, 1_999, 2_999]), [[0, 1_001], [1_001, 2_000], [2_000, 3_000]]);
        // in the second in which the process started
        assert_eq!(steps(15 * second, &[300]), [[0, 300]]);
    }

    #[test]
    fn whoever_wants_several_points_a_second_gets_them_at_their_times() {
        assert_eq!(steps(Duration::from_millis(100), &[100, 200, 250]), [[0, 100], [100, 200], [200, 250]]);
    }

    #[test]
    fn a_clock_set_back_before_the_last_export_is_followed() {
        let start = Instant::now();
        let mut times = Times::new(Reading { at: start, unix_nanos: HOUR }, Duration::from_secs(10));
        times.end_step(Reading { at: start + Duration::from_secs(10), unix_nanos: HOUR + 10 * SECOND });
        let last = times.end_step(Reading { at: start + Duration::from_secs(11), unix_nanos: HOUR - 60 * SECOND });
        assert_eq!(last.step, Interval { start: HOUR - 61 * SECOND, end: HOUR - 60 * SECOND });
    }
}
