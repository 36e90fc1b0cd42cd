//! What the tasks room gives out: tasks of the application that run and that have ended, and how many there were.

use std::fmt;
use std::time::Duration;

use crate::model::trace::{SpanId, TraceId};
use crate::redact::Clean;

/// The id that the sidecar gives a task: a UUID of version 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskId(u128);

impl TaskId {
    /// An id that somebody else made.
    #[must_use]
    pub const fn foreign(number: u128) -> Self {
        Self(number)
    }

    /// An id of this time and of as much of `random` as has room, which are 74 bits.
    ///
    /// Source: RFC 9562, section 5.7.
    #[must_use]
    pub const fn new(unix_millis: u64, random: u128) -> Self {
        const VERSION: u128 = 0x7 << 76;
        const VARIANT: u128 = 0b10 << 62;
        const RANDOM: u128 = (0xfff << 64) | ((1 << 62) - 1);
        Self((unix_millis as u128) << 80 | VERSION | VARIANT | random & RANDOM)
    }

    /// Reads the form with dashes, in letters of either case; `None` when it is no UUID at all.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        const DASHES: [usize; 4] = [8, 13, 18, 23];
        if text.len() != 36 {
            return None;
        }
        text.bytes()
            .enumerate()
            .try_fold(0_u128, |id, (at, byte)| match (DASHES.contains(&at), byte) {
                (true, b'-') => Some(id),
                (false, digit) => Some(id << 4 | u128::from(char::from(digit).to_digit(16)?)),
                (true, _) => None,
            })
            .map(Self)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(id) = self;
        let (time, version, variant) = (id >> 96, (id >> 64) & 0xffff, (id >> 48) & 0xffff);
        write!(f, "{time:08x}-{:04x}-{version:04x}-{variant:04x}-{:012x}", (id >> 80) & 0xffff, id & ((1 << 48) - 1))
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// As it should.
    Succeeded,
    /// By an error.
    Failed,
    /// Nobody told its end in time.
    Lost,
}

impl TaskState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Succeeded, Self::Failed, Self::Lost];

    /// The word in the endpoints and in the label `state`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

/// A task that runs.
#[derive(Clone, Debug)]
pub struct OpenTask {
    /// Its id here.
    pub id: TaskId,
    /// Its name, as the application calls it.
    pub name: Clean<'static>,
    /// The id that Celery has for it, when it runs inside one of Celery's.
    pub task_id: Option<Clean<'static>>,
    /// How long it has run.
    pub age: Duration,
    /// The trace that it belongs to.
    pub trace_id: Option<TraceId>,
}

/// A task that has ended.
#[derive(Clone, Debug)]
pub struct EndedTask {
    /// Its id here.
    pub id: TaskId,
    /// Its name, as the application calls it.
    pub name: Clean<'static>,
    /// The id that Celery has for it, when it ran inside one of Celery's.
    pub task_id: Option<Clean<'static>>,
    /// How it ended.
    pub state: TaskState,
    /// The class of the error, never its text.
    pub error_type: Option<Clean<'static>>,
    /// How long it ran; of a lost one, how long it was waited for.
    pub duration: Duration,
    /// How long ago it ended.
    pub age: Duration,
    /// The trace that it belongs to.
    pub trace_id: Option<TraceId>,
}

/// Tasks since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskTotals {
    /// Begun: whatever their end.
    pub begun: u64,
    /// Ended, by `TaskState`.
    pub ended: [u64; TaskState::ALL.len()],
    /// Those that run. What runs inside the same task of Celery counts once.
    pub active: u64,
    /// Tasks of Celery among them.
    pub active_of_celery: u64,
    /// Those that failed. What failed inside the same task of Celery counts once.
    pub failures: u64,
    /// Tasks of Celery among them.
    pub failures_of_celery: u64,
    /// Not taken, as too many were open.
    pub too_many_open: u64,
    /// Taken, but counted without their name, as there were too many names.
    pub too_many_names: u64,
}

impl TaskTotals {
    /// Those that run, with so many that Celery's workers work on: what runs inside one of these counts once.
    #[must_use]
    pub fn active_with(&self, celery: u64) -> u64 {
        self.active + celery.saturating_sub(self.active_of_celery)
    }

    /// Those that failed, with so many that Celery knows of: what failed inside one of these counts once.
    ///
    /// Never more than there were; fewer, where a task of Celery succeeds though a part of it failed, and another fails.
    #[must_use]
    pub fn failures_with(&self, celery: u64) -> u64 {
        self.failures + celery.saturating_sub(self.failures_of_celery)
    }
}

/// Tasks for people, of one moment.
#[derive(Clone, Debug, Default)]
pub struct TaskLists {
    /// The counts.
    pub totals: TaskTotals,
    /// Those that have run longest, the oldest first.
    pub open: Vec<OpenTask>,
    /// Those that ended last, the newest first.
    pub recent: Vec<EndedTask>,
}

/// What becomes a span: a task that has ended, in the trace that it was begun in.
#[derive(Clone, Debug)]
pub struct TaskSpan {
    /// Its name, as the application calls it.
    pub name: Clean<'static>,
    /// The trace.
    pub trace_id: TraceId,
    /// The span that it was begun in; `None` when it begins its trace.
    pub parent: Option<SpanId>,
    /// When it ended, in nanoseconds since the Unix epoch.
    pub ended_unix_nanos: u64,
    /// How long it ran.
    pub duration: Duration,
    /// The class of the error; `None` when it succeeded.
    pub error_type: Option<Clean<'static>>,
    /// The message that had a worker run it; `None` of a task that the application tells of itself.
    pub message: Option<TaskMessage>,
}

/// The message that had a worker of Celery run a task.
#[derive(Clone, Debug)]
pub struct TaskMessage {
    /// The id of the span: who was sent by this task names it as its parent.
    pub span: SpanId,
    /// The task's id, when it is one that Celery made.
    pub id: Option<TaskId>,
    /// The queue, as far as it is known.
    pub queue: Option<Clean<'static>>,
    /// The worker's name.
    pub worker: Clean<'static>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_a_uuid_of_version_7_and_of_its_time() {
        let id = TaskId::new(0x017f_22e2_79b0, 0xcc3_98c4_dc0c_0c07_398f);
        assert_eq!(id.to_string(), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
        assert_eq!(TaskId::parse("017F22E2-79B0-7CC3-98C4-DC0C0C07398F"), Some(id));
    }

    #[test]
    fn what_is_no_uuid_is_no_id() {
        for text in ["", "017f22e279b07cc398c4dc0c0c07398f", "017f22e2-79b0-7cc3-98c4-dc0c0c07398g", &"-".repeat(36)] {
            assert_eq!(TaskId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_runs_or_fails_inside_a_task_of_celery_counts_once_whoever_tells_of_it() {
        let totals =
            TaskTotals { active: 5, active_of_celery: 2, failures: 7, failures_of_celery: 4, ..TaskTotals::default() };
        assert_eq!([0, 2, 3].map(|celery| totals.active_with(celery)), [5, 5, 6]);
        assert_eq!([0, 4, 9].map(|celery| totals.failures_with(celery)), [7, 7, 12]);
    }

    proptest! {
        #[test]
        fn every_id_reads_back(millis in 0_u64..1 << 48, random: u128) {
            let id = TaskId::new(millis, random);
            prop_assert_eq!(TaskId::parse(&id.to_string()), Some(id));
        }
    }
}
