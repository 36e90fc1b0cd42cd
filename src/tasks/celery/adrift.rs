//! Tasks that a worker had received and not begun when nothing was heard any more. Pure.
//!
//! The worker may have run them meanwhile. If it is heard again, its own count tells of those; if not, nobody can say
//! whether they have run, or wait to be given to another worker, and that is what is told of them. Bounded by the tasks
//! that are remembered.

use std::collections::{HashMap, HashSet};

use crate::tasks::celery::event::TaskId;
use crate::tasks::celery::workers::Life;

/// Those tasks, until something is heard of them or of their worker.
#[derive(Debug, Default)]
pub(super) struct Adrift {
    holders: HashMap<TaskId, Life>,
    lives: HashMap<Life, Held>,
}

/// What one worker had.
#[derive(Debug, Default)]
struct Held {
    tasks: HashSet<TaskId>,
    /// Whether it was waited for in vain.
    is_given_up: bool,
}

impl Adrift {
    /// Nothing is heard any more; these are held.
    pub(super) fn gather(&mut self, held: impl Iterator<Item = (TaskId, Life)>) {
        for (id, life) in held {
            self.holders.insert(id, life);
            self.lives.entry(life).or_default().tasks.insert(id);
        }
    }

    /// Something was told of this task, or it is forgotten.
    pub(super) fn heard_of_task(&mut self, id: TaskId) {
        let Some(life) = self.holders.remove(&id) else { return };
        if let Some(held) = self.lives.get_mut(&life) {
            held.tasks.remove(&id);
            if held.tasks.is_empty() {
                self.lives.remove(&life);
            }
        }
    }

    /// This worker told of itself.
    pub(super) fn heard_of_worker(&mut self, life: Life) {
        for id in self.lives.remove(&life).unwrap_or_default().tasks {
            self.holders.remove(&id);
        }
    }

    /// Workers that were not heard until now are over.
    pub(super) fn give_up(&mut self) {
        self.lives.values_mut().for_each(|held| held.is_given_up = true);
    }

    /// How many tasks may have run and may not, as their worker is over.
    pub(super) fn count(&self) -> u64 {
        self.lives.values().filter(|held| held.is_given_up).map(|held| held.tasks.len() as u64).sum()
    }
}
