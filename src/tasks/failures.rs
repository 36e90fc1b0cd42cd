//! Failed tasks, each counted once though several tell of it.

use std::collections::{HashSet, VecDeque};

use crate::redact::Clean;

/// How many of Celery's tasks are remembered: those of some minutes, by which all have told.
const REMEMBERED: usize = 4_096;

/// How many tasks failed.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u64,
    of_celery: u64,
    /// The tasks of Celery that are counted, the oldest first.
    order: VecDeque<Clean<'static>>,
    known: HashSet<Clean<'static>>,
}

impl Failures {
    /// Counts a task, unless it is one of Celery's that is counted already.
    pub(super) fn add(&mut self, task_id: Option<&Clean<'static>>) {
        if let Some(id) = task_id {
            if !self.known.insert(id.clone()) {
                return;
            }
            self.order.push_back(id.clone());
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.of_celery += 1;
        }
        self.count += 1;
    }

    /// Since the start.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Tasks of Celery among them.
    pub(super) fn of_celery(&self) -> u64 {
        self.of_celery
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_of_celery_counts_once_whoever_tells_of_it() {
        let mut failures = Failures::default();
        let [one, other] = ["one", "other"].map(Clean::literal);
        for id in [Some(&one), None, Some(&one), Some(&other), None, Some(&one)] {
            failures.add(id);
        }
        assert_eq!((failures.count(), failures.of_celery()), (4, 2));
    }

    #[test]
    fn an_endless_supply_of_ids_takes_no_endless_memory() {
        let mut failures = Failures::default();
        for number in 0..3 * REMEMBERED as u64 {
            failures.add(Some(&Clean::number(number)));
        }
        assert_eq!(failures.count(), 3 * REMEMBERED as u64);
        assert_eq!((failures.order.len(), failures.known.len()), (REMEMBERED, REMEMBERED));
    }
}
