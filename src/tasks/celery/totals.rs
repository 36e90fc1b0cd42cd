//! What became of the tasks, by name and queue: counters that never fall, and two distributions.

use std::collections::BTreeMap;

use crate::model::catalogue::celery::TASK_SECONDS;
use crate::model::sample::Histogram;
use crate::tasks::celery::event::TaskId;
use crate::tasks::celery::names::NameId;

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Outcome {
    Succeeded,
    /// Succeeded for Celery; its result says `error` or `failed`.
    ResultError,
    Failed,
    Revoked,
    Rejected,
    /// Its worker went silent.
    Lost,
    /// Its worker is idle again, and nothing was heard of its end.
    Unseen,
}

impl Outcome {
    /// All, in the order of their numbers.
    pub(super) const ALL: [Self; 7] =
        [Self::Succeeded, Self::ResultError, Self::Failed, Self::Revoked, Self::Rejected, Self::Lost, Self::Unseen];

    /// Its name on the endpoint.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::ResultError => "result_error",
            Self::Failed => "failed",
            Self::Revoked => "revoked",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
            Self::Unseen => "unseen",
        }
    }

    /// Whether we concluded it, and nobody told it.
    pub(super) const fn is_ours(self) -> bool {
        matches!(self, Self::Lost | Self::Unseen)
    }

    /// Whether it counts among the application's errors.
    pub(super) const fn is_failure(self) -> bool {
        matches!(self, Self::ResultError | Self::Failed | Self::Lost)
    }
}

/// A name and a queue, or a failure's name, queue and class.
pub(super) type Pair = (NameId, NameId);

/// Pairs of a name and a queue that are told apart; a task has its queue, so there are few more than names.
const MOST_PAIRS: usize = 500;
/// Failures that are told apart by name, queue and class.
const MOST_FAILURES: usize = 500;

/// The counts of one name in one queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) started: u64,
    pub(super) retried: u64,
    pub(super) outcomes: [u64; Outcome::ALL.len()],
    /// Seconds from the start of a run to its end.
    pub(super) runtime: Spread,
    /// Seconds from when a task was sent or due, whichever is later, to its start.
    pub(super) wait: Spread,
}

/// A distribution of seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spread {
    buckets: [u64; TASK_SECONDS.len() + 1],
    sum: f64,
    count: u64,
}

impl Spread {
    /// Takes a value in; what no clock can have measured is left out.
    pub(super) fn record(&mut self, seconds: f64) {
        const LONGEST: f64 = 90.0 * 86_400.0;
        if !(0.0..=LONGEST).contains(&seconds) {
            return;
        }
        let bucket = TASK_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(TASK_SECONDS.len());
        self.buckets[bucket] += 1;
        self.sum += seconds;
        self.count += 1;
    }

    /// Takes in the values of another one.
    pub(super) fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, more)| *sum += more);
        self.sum += other.sum;
        self.count += other.count;
    }

    /// How many values there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` without values.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// In the form in which it is exported.
    pub(super) fn histogram(&self) -> Histogram {
        Histogram { explicit: self.buckets.to_vec(), sum: self.sum, count: self.count, ..Histogram::default() }
    }
}

/// All counts.
#[derive(Debug, Default)]
pub(super) struct Totals {
    by_pair: BTreeMap<Pair, Counts>,
    by_class: BTreeMap<(Pair, NameId), u64>,
    /// Tasks that had been counted as lost and whose end came after all.
    pub(super) found_again: u64,
    /// Tasks that ended badly since somebody looked last.
    bad_ends: BadEnds,
}

/// A task that ended badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadEnd {
    pub(super) id: TaskId,
    pub(super) name: NameId,
    pub(super) outcome: Outcome,
    /// `None` when nobody names it.
    pub(super) class: Option<NameId>,
}

/// Those, as far as there is room, and how many more.
#[derive(Debug, Default)]
pub(super) struct BadEnds {
    pub(super) ends: Vec<BadEnd>,
    pub(super) missed: u64,
}

/// Bad ends that wait for whoever looks, which is each second.
const MOST_BAD_ENDS: usize = 256;

impl Totals {
    /// The counts of a pair; those of all further ones when there is no room.
    pub(super) fn of(&mut self, pair: Pair) -> &mut Counts {
        let has_room = self.by_pair.contains_key(&pair) || self.by_pair.len() < MOST_PAIRS;
        self.by_pair.entry(if has_room { pair } else { (NameId::OTHER, NameId::OTHER) }).or_default()
    }

    /// Counts a failure by its class.
    pub(super) fn failed(&mut self, pair: Pair, class: NameId) {
        let key = (pair, class);
        let has_room = self.by_class.contains_key(&key) || self.by_class.len() < MOST_FAILURES;
        let key = if has_room { key } else { ((NameId::OTHER, NameId::OTHER), NameId::OTHER) };
        *self.by_class.entry(key).or_default() += 1;
    }

    /// Notes a task that ended badly.
    pub(super) fn ended_badly(&mut self, end: BadEnd) {
        if self.bad_ends.ends.len() < MOST_BAD_ENDS {
            self.bad_ends.ends.push(end);
        } else {
            self.bad_ends.missed += 1;
        }
    }

    /// Takes those that ended badly since this was asked last.
    pub(super) fn bad_ends(&mut self) -> BadEnds {
        std::mem::take(&mut self.bad_ends)
    }

    /// Every pair and its counts.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (Pair, &Counts)> {
        self.by_pair.iter().map(|(pair, counts)| (*pair, counts))
    }

    /// Every failure's pair and class, and how often it was.
    pub(super) fn failures(&self) -> impl Iterator<Item = (Pair, NameId, u64)> {
        self.by_class.iter().map(|((pair, class), count)| (*pair, *class, *count))
    }

    /// Ends of all tasks that count among the application's errors.
    pub(super) fn errors(&self) -> u64 {
        let failures = Outcome::ALL.into_iter().filter(|outcome| outcome.is_failure());
        failures.map(|outcome| self.by_pair.values().map(|counts| counts.outcomes[outcome as usize]).sum::<u64>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::redact::Redactor;
    use crate::tasks::celery::names::Names;

    #[test]
    fn pairs_beyond_the_bound_are_counted_together_and_none_is_lost() {
        let mut names = Names::new(1_000, &Arc::new(Redactor::new([])));
        let mut totals = Totals::default();
        for number in 0..1_000 {
            let pair = (names.id(&number.to_string()), NameId::UNKNOWN);
            totals.of(pair).sent += 1;
            totals.failed(pair, NameId::UNKNOWN);
        }
        assert_eq!(totals.pairs().count(), MOST_PAIRS + 1);
        assert_eq!(totals.pairs().map(|(_, counts)| counts.sent).sum::<u64>(), 1_000);
        assert_eq!(totals.failures().map(|(_, _, count)| count).sum::<u64>(), 1_000);
    }

    #[test]
    fn a_distribution_has_each_value_in_the_bucket_up_to_it_and_no_nonsense() {
        let mut spread = Spread::default();
        for seconds in [0.05, 0.051, 1e9, -1.0, f64::NAN, 2_000.0] {
            spread.record(seconds);
        }
        let histogram = spread.histogram();
        assert_eq!((histogram.count, histogram.explicit.iter().sum::<u64>()), (3, 3));
        assert_eq!((histogram.explicit[0], histogram.explicit[1], *histogram.explicit.last().unwrap()), (1, 1, 1));
    }
}
