//! How the application's calls of its AI service ended of late: the egress room tells it, and a check reads it.
//!
//! Counts by class for slots of ten seconds, for half an hour: bounded, whatever comes. Who writes holds a lock for a moment,
//! once for each call. Nothing of a call is kept but its class and when it ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How a call ended, as far as it says something of the service and of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AiOutcome {
    /// With a success.
    Works,
    /// The key is not known any more (401).
    KeyRevoked,
    /// The key may not do this (403).
    Forbidden,
    /// Used up, not paid, or too much at once (402, 429).
    Quota,
    /// No answer in time, ours or the service's own (408, 504).
    Timeout,
    /// No connection: nobody listens, no name, no way, no handshake.
    Unreachable,
    /// The service failed (5xx), or broke off.
    Failing,
    /// Nothing: the request was wrong, or the caller did not wait.
    Untold,
}

/// The outcomes of late. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct AiOutcomes(Arc<Mutex<Kept>>);

/// What the calls of a window say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AiCounts {
    /// Calls by outcome, in the order of `AiOutcome::ALL`.
    pub calls: [u64; AiOutcome::ALL.len()],
    /// Those since the last success in the window, in the same order; all, when there was none.
    pub since_success: [u64; AiOutcome::ALL.len()],
    /// How long ago a call last told something, in the window or before it; `None` when none did.
    pub silence: Option<Duration>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    slots: VecDeque<Slot>,
    /// When a call last told something.
    told: Option<Instant>,
}

/// The calls of ten seconds.
#[derive(Debug)]
struct Slot {
    begun: Instant,
    calls: [u64; AiOutcome::ALL.len()],
    since_success: [u64; AiOutcome::ALL.len()],
}

/// How exact a window's begin is.
const STEP: Duration = Duration::from_secs(10);

impl AiOutcome {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Works,
        Self::KeyRevoked,
        Self::Forbidden,
        Self::Quota,
        Self::Timeout,
        Self::Unreachable,
        Self::Failing,
        Self::Untold,
    ];

    /// The outcomes of an outage: the key has no part in them.
    pub const OUTAGE: [Self; 3] = [Self::Timeout, Self::Unreachable, Self::Failing];

    /// That of an answer with this status.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=399 => Self::Works,
            401 => Self::KeyRevoked,
            403 => Self::Forbidden,
            402 | 429 => Self::Quota,
            408 | 504 => Self::Timeout,
            500.. => Self::Failing,
            _ => Self::Untold,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::KeyRevoked => "key_revoked",
            Self::Forbidden => "forbidden",
            Self::Quota => "quota",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Failing => "server_error",
            Self::Untold => "untold",
        }
    }
}

impl AiOutcomes {
    /// The longest window that is kept.
    pub const LONGEST: Duration = Duration::from_secs(1_800);

    /// Takes the outcome of a call that has ended at this moment.
    pub fn add(&self, outcome: AiOutcome, now: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome != AiOutcome::Untold {
            kept.told = Some(now);
        }
        let is_open = kept.slots.back().is_some_and(|slot| now.saturating_duration_since(slot.begun) < STEP);
        if !is_open {
            let none = [0; AiOutcome::ALL.len()];
            kept.slots.push_back(Slot { begun: now, calls: none, since_success: none });
        }
        while kept.slots.front().is_some_and(|slot| now.saturating_duration_since(slot.begun) > Self::LONGEST + STEP) {
            kept.slots.pop_front();
        }
        if let Some(slot) = kept.slots.back_mut() {
            slot.calls[outcome as usize] += 1;
            slot.since_success[outcome as usize] += 1;
            if outcome == AiOutcome::Works {
                slot.since_success = [0; AiOutcome::ALL.len()];
            }
        }
    }

    /// What the calls of this window say; its begin is exact to ten seconds.
    #[must_use]
    pub fn within(&self, window: Duration, now: Instant) -> AiCounts {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let silence = kept.told.map(|told| now.saturating_duration_since(told));
        let mut counts = AiCounts { silence, ..AiCounts::default() };
        for slot in kept.slots.iter().filter(|slot| now.saturating_duration_since(slot.begun) <= window) {
            add(&mut counts.calls, &slot.calls);
            if slot.calls[AiOutcome::Works as usize] > 0 {
                counts.since_success = [0; AiOutcome::ALL.len()];
            }
            add(&mut counts.since_success, &slot.since_success);
        }
        counts
    }
}

fn add(sum: &mut [u64], more: &[u64]) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

#[cfg(test)]
mod tests {
    use super::*;
    use AiOutcome::{Failing, Forbidden, KeyRevoked, Quota, Timeout, Unreachable, Untold, Works};
    use proptest::prelude::*;

    fn count(counts: &[u64], outcome: AiOutcome) -> u64 {
        counts[outcome as usize]
    }

    #[test]
    fn each_status_tells_of_the_key_of_the_quota_of_an_outage_or_of_nothing() {
        for (status, expected) in [
            (200, Works),
            (204, Works),
            (302, Works),
            (400, Untold),
            (401, KeyRevoked),
            (402, Quota),
            (403, Forbidden),
            (404, Untold),
            (408, Timeout),
            (422, Untold),
            (429, Quota),
            (500, Failing),
            (503, Failing),
            (504, Timeout),
            (529, Failing),
        ] {
            assert_eq!(AiOutcome::of_status(status), expected, "{status}");
        }
        assert!(AiOutcome::OUTAGE.contains(&Unreachable) && !AiOutcome::OUTAGE.contains(&Forbidden));
    }

    #[test]
    fn what_came_before_the_last_success_is_no_failure_of_now() {
        let (outcomes, now) = (AiOutcomes::default(), Instant::now());
        for (second, outcome) in [(0, Quota), (1, Works), (2, Timeout), (15, Timeout), (16, Untold)] {
            outcomes.add(outcome, now + Duration::from_secs(second));
        }
        let counts = outcomes.within(Duration::from_secs(60), now + Duration::from_secs(20));
        assert_eq!([Quota, Works, Timeout, Untold].map(|outcome| count(&counts.calls, outcome)), [1, 1, 2, 1]);
        assert_eq!([Quota, Works, Timeout].map(|outcome| count(&counts.since_success, outcome)), [0, 0, 2]);
        assert_eq!(counts.silence, Some(Duration::from_secs(5)), "what tells nothing breaks no silence");
    }

    #[test]
    fn a_window_forgets_and_the_silence_does_not() {
        let (outcomes, now) = (AiOutcomes::default(), Instant::now());
        assert_eq!(outcomes.within(AiOutcomes::LONGEST, now), AiCounts::default());
        outcomes.add(Works, now);
        let later = now + Duration::from_secs(7_200);
        let counts = outcomes.within(Duration::from_secs(600), later);
        assert_eq!((counts.calls, counts.silence), ([0; 8], Some(Duration::from_secs(7_200))));
    }

    #[test]
    fn years_of_calls_take_no_more_room_than_half_an_hour() {
        let (outcomes, now) = (AiOutcomes::default(), Instant::now());
        (0..20_000).for_each(|turn| outcomes.add(Failing, now + STEP * turn));
        let kept = outcomes.0.lock().expect("no panic while held").slots.len();
        assert!(kept <= 182, "{kept} slots");
    }

    proptest! {
        #[test]
        fn each_call_of_the_window_counts_once_whatever_its_outcome(calls in prop::collection::vec((0_u64..600, 0_usize..8), 0..200)) {
            let (outcomes, now) = (AiOutcomes::default(), Instant::now());
            let mut calls = calls;
            calls.sort_unstable();
            for (second, outcome) in &calls {
                outcomes.add(AiOutcome::ALL[*outcome], now + Duration::from_secs(*second));
            }
            let counts = outcomes.within(AiOutcomes::LONGEST, now + Duration::from_secs(600));
            prop_assert_eq!(counts.calls.iter().sum::<u64>(), calls.len() as u64);
            let behind = calls.iter().rev().take_while(|(_, outcome)| *outcome != Works as usize).count();
            prop_assert_eq!(counts.since_success.iter().sum::<u64>(), behind as u64);
        }
    }
}
