//! Sliding windows: what was counted in each of the last short steps, in bounded memory.
//!
//! Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::traffic::Window;
use crate::traffic::buckets::{Range, SLOTS};

/// Counts since the start of the process, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tally {
    /// Requests ended.
    pub(super) completed: u64,
    /// Errors among them.
    pub(super) errors: u64,
    /// Durations of the ordinary ones.
    pub(super) slots: Box<[u64; SLOTS]>,
}

/// The steps of one window, or of several that end now.
#[derive(Debug)]
pub(super) struct Track {
    /// How long steps are kept.
    keep: Duration,
    /// The last step's end.
    at: Instant,
    last: Tally,
    steps: VecDeque<Step>,
}

/// What was counted from `from` on, up to the next step.
#[derive(Debug)]
struct Step {
    from: Instant,
    completed: u64,
    errors: u64,
    /// Only the slots that are not empty: an idle step costs no memory.
    slots: Box<[(u8, u64)]>,
}

impl Tally {
    pub(super) fn none() -> Self {
        Self { completed: 0, errors: 0, slots: Box::new([0; SLOTS]) }
    }
}

impl Track {
    pub(super) fn new(from: Instant, keep: Duration) -> Self {
        Self { keep, at: from, last: Tally::none(), steps: VecDeque::new() }
    }

    /// Ends a step.
    pub(super) fn advance(&mut self, now: Instant, tally: Tally) {
        let grown = |(slot, (now, before)): (usize, (&u64, &u64))| {
            (now > before).then(|| (u8::try_from(slot).unwrap_or(u8::MAX), now - before))
        };
        self.steps.push_back(Step {
            from: self.at,
            completed: tally.completed.saturating_sub(self.last.completed),
            errors: tally.errors.saturating_sub(self.last.errors),
            slots: tally.slots.iter().zip(self.last.slots.iter()).enumerate().filter_map(grown).collect(),
        });
        (self.at, self.last) = (now, tally);
        while self.steps.front().is_some_and(|step| now - step.from > self.keep) {
            self.steps.pop_front();
        }
    }

    /// The window of at most this length that ends now: whole steps, and what was counted since the last.
    pub(super) fn window(&self, now: Instant, tally: &Tally, length: Duration) -> Window {
        let mut slots = [0; SLOTS];
        for ((slot, now), before) in slots.iter_mut().zip(tally.slots.iter()).zip(self.last.slots.iter()) {
            *slot = now.saturating_sub(*before);
        }
        let mut window = Window {
            length: now - self.at,
            requests: tally.completed.saturating_sub(self.last.completed),
            errors: tally.errors.saturating_sub(self.last.errors),
            p50_seconds: None,
            p95_seconds: None,
            p99_seconds: None,
        };
        for step in self.steps.iter().rev().take_while(|step| now - step.from <= length) {
            window.length = now - step.from;
            window.requests += step.completed;
            window.errors += step.errors;
            step.slots.iter().for_each(|(slot, count)| slots[usize::from(*slot)] += count);
        }
        let quantile = |share| Range::REQUESTS.quantile(&slots, share);
        Window { p50_seconds: quantile(0.5), p95_seconds: quantile(0.95), p99_seconds: quantile(0.99), ..window }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(5);
    const MINUTE: Duration = Duration::from_secs(60);

    fn tally(completed: u64, errors: u64) -> Tally {
        let mut tally = Tally { completed, errors, ..Tally::none() };
        tally.slots[100] = completed;
        tally
    }

    #[test]
    fn a_window_holds_what_was_counted_in_it() {
        let start = Instant::now();
        let mut track = Track::new(start, MINUTE * 15);
        for step in 1..=200_u32 {
            track.advance(start + STEP * step, tally(u64::from(step) * 10, u64::from(step)));
        }
        let now = start + STEP * 200;
        let minute = track.window(now, &tally(2_000, 200), MINUTE);
        assert_eq!((minute.length, minute.requests, minute.errors), (MINUTE, 120, 12));
        let quarter = track.window(now, &tally(2_000, 200), MINUTE * 15);
        assert_eq!((quarter.length, quarter.requests), (MINUTE * 15, 1_800));
        assert_eq!(track.steps.len(), 180);
    }

    #[test]
    fn the_newest_requests_are_there_at_once_and_the_length_is_true() {
        let start = Instant::now();
        let mut track = Track::new(start, MINUTE);
        let young = track.window(start + STEP / 5, &tally(7, 1), MINUTE);
        assert_eq!((young.length, young.requests, young.errors), (STEP / 5, 7, 1));
        assert!(young.p95_seconds.is_some());
        track.advance(start + STEP, tally(7, 1));
        let later = track.window(start + STEP + STEP / 5, &tally(8, 1), MINUTE);
        assert_eq!((later.length, later.requests), (STEP + STEP / 5, 8));
    }

    #[test]
    fn an_idle_window_has_no_percentiles() {
        let start = Instant::now();
        let mut track = Track::new(start, MINUTE);
        track.advance(start + STEP, Tally::none());
        assert_eq!(track.window(start + STEP, &Tally::none(), MINUTE).p50_seconds, None);
        assert!(track.steps[0].slots.is_empty());
    }
}
