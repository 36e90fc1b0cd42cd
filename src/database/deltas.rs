//! What is new in the server's counters between two readings, also over a reset of them. Pure.

use crate::model::database::values::{Counters, Recent};

/// The counters of one reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Counted {
    /// When they were read, in seconds of any clock that does not go back.
    pub(super) at: f64,
    /// When somebody reset them, in seconds since the Unix epoch; 0 for never.
    pub(super) reset_at: f64,
    /// What the server says.
    pub(super) counters: Counters,
}

/// Adds up what is new, so that a reset of the server's takes nothing away.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    last: Option<Counted>,
    /// The first reading, and all that came after it.
    pub(super) totals: Counters,
    /// Resets that were seen.
    pub(super) resets: u64,
}

impl Meter {
    /// Takes a reading, and gives what is new in it; `None` for the first.
    pub(super) fn take(&mut self, now: Counted) -> Option<Recent> {
        let Some(before) = self.last.replace(now) else {
            self.totals = now.counters;
            return None;
        };
        // a crash resets without a date
        let was_reset = now.reset_at > before.reset_at || has_fallen(&before.counters, &now.counters);
        let base = if was_reset { Counters::default() } else { before.counters };
        let counters = zip(&now.counters, &base, u64::saturating_sub);
        self.totals = zip(&self.totals, &counters, u64::saturating_add);
        self.resets += u64::from(was_reset);
        Some(Recent { seconds: (now.at - before.at).max(0.0), counters, was_reset })
    }
}

fn has_fallen(before: &Counters, now: &Counters) -> bool {
    zip(before, now, |before, now| u64::from(now < before)) != Counters::default()
}

fn zip(left: &Counters, right: &Counters, of: impl Fn(u64, u64) -> u64) -> Counters {
    Counters {
        commits: of(left.commits, right.commits),
        rollbacks: of(left.rollbacks, right.rollbacks),
        blocks_read: of(left.blocks_read, right.blocks_read),
        blocks_hit: of(left.blocks_hit, right.blocks_hit),
        temp_files: of(left.temp_files, right.temp_files),
        temp_bytes: of(left.temp_bytes, right.temp_bytes),
        deadlocks: of(left.deadlocks, right.deadlocks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counted(at: f64, reset_at: f64, commits: u64, deadlocks: u64) -> Counted {
        Counted { at, reset_at, counters: Counters { commits, deadlocks, ..Counters::default() } }
    }

    #[test]
    fn a_reset_takes_nothing_away_whether_it_is_dated_or_not() {
        let mut meter = Meter::default();
        assert_eq!(meter.take(counted(0.0, 5.0, 1_000, 2)), None);
        // reading, then what is new: commits, deadlocks, whether it was reset; then the sums
        for (reading, new, sums) in [
            (counted(60.0, 5.0, 1_030, 2), (30, 0, false), (1_030, 2, 0)),
            (counted(120.0, 90.0, 7, 0), (7, 0, true), (1_037, 2, 1)),
            (counted(180.0, 90.0, 7, 1), (0, 1, false), (1_037, 3, 1)),
            (counted(240.0, 90.0, 3, 0), (3, 0, true), (1_040, 3, 2)),
            // dated, and already above what was there before
            (counted(300.0, 290.0, 9, 0), (9, 0, true), (1_049, 3, 3)),
        ] {
            let recent = meter.take(reading).expect("not the first");
            assert_eq!((recent.counters.commits, recent.counters.deadlocks, recent.was_reset), new, "{reading:?}");
            assert_eq!(recent.seconds, 60.0);
            assert_eq!((meter.totals.commits, meter.totals.deadlocks, meter.resets), sums, "{reading:?}");
        }
    }

    #[test]
    fn the_hit_rate_is_of_the_interval_and_of_nothing_is_none() {
        let read = |at, blocks_hit, blocks_read| Counted {
            at,
            reset_at: 0.0,
            counters: Counters { blocks_hit, blocks_read, ..Counters::default() },
        };
        let mut meter = Meter::default();
        meter.take(read(0.0, 1_000_000, 0));
        for (reading, expected) in [
            (read(60.0, 1_000_000, 0), None),
            (read(120.0, 1_000_030, 10), Some(0.75)),
            (read(180.0, 1_000_030, 20), Some(0.0)),
        ] {
            assert_eq!(meter.take(reading).and_then(|recent| recent.hit_ratio()), expected);
        }
    }

    proptest! {
        #[test]
        fn the_sums_never_fall(readings: Vec<(u64, u64, bool)>) {
            let (mut meter, mut reset_at, mut last) = (Meter::default(), 0.0, 0);
            for (index, (commits, deadlocks, reset)) in readings.into_iter().enumerate() {
                reset_at += f64::from(u8::from(reset));
                meter.take(counted(index as f64, reset_at, commits, deadlocks));
                prop_assert!(meter.totals.commits >= last);
                last = meter.totals.commits;
            }
        }
    }
}
