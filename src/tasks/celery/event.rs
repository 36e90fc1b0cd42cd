//! What workers and senders tell, as far as it is kept: values, read by `wire` and counted by `ledger`.
//!
//! There is deliberately no place here for arguments, results, tracebacks or the text of an exception.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// One thing that was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// A worker of itself.
    Worker(WorkerEvent),
    /// A sender or a worker of a task.
    Task(TaskEvent),
    /// The result backend of a task.
    Result(TaskResult),
}

/// A worker's sign of life.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WorkerEvent {
    pub(super) host: String,
    pub(super) pid: u64,
    pub(super) sign: Sign,
    /// Time between two heartbeats.
    pub(super) period: Duration,
    /// Tasks that it works on.
    pub(super) active: u64,
    /// Tasks that it has started since it lives.
    pub(super) processed: u64,
    pub(super) version: String,
}

/// Which sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Online,
    Heartbeat,
    Offline,
}

/// A step of a task.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TaskEvent {
    pub(super) id: TaskId,
    pub(super) host: String,
    pub(super) pid: u64,
    /// By the clock of who tells it, in seconds since the Unix epoch.
    pub(super) at: f64,
    /// The task that sent it, if one did.
    pub(super) origin: Option<Origin>,
    pub(super) step: Step,
}

/// Which tasks sent a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The first of all.
    pub(super) root: TaskId,
    /// The one that sent it.
    pub(super) parent: TaskId,
}

/// Which step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Sent {
        name: String,
        queue: Option<String>,
        due: Option<f64>,
    },
    Received {
        name: String,
        retries: u32,
        due: Option<f64>,
    },
    Started,
    /// `seconds` of running; the verdict as far as the cut text of the result shows it.
    Succeeded {
        seconds: Option<f64>,
        verdict: Verdict,
    },
    Failed(Option<ExceptionClass>),
    Retried,
    Revoked,
    Rejected,
}

/// What the result backend was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TaskResult {
    pub(super) id: TaskId,
    pub(super) state: ResultState,
}

/// Celery's states of which it publishes a result.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ResultState {
    Success(Verdict),
    Failure(Option<ExceptionClass>),
    Retry,
    Revoked,
}

/// What a task that ended well says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing against it.
    #[default]
    Good,
    /// `{"status": "error"}` or `"failed"`, itself or one of its `results`.
    Bad,
}

/// The last name of an exception's class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ExceptionClass(String);

/// The longest class that is taken for one.
const LONGEST_CLASS: usize = 80;

impl ExceptionClass {
    /// The class in `ValueError('…')` or `builtins.ValueError`; `None` if that is no name of Python.
    pub(super) fn of(text: &str) -> Option<Self> {
        let class = text.split('(').next()?.rsplit('.').next()?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let begins = class.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        (begins && class.len() <= LONGEST_CLASS && class.chars().all(is_name)).then(|| Self(class.to_owned()))
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names of tasks, queues and hosts are cut here.
const LONGEST_NAME: usize = 120;

/// A name that is no longer than is kept.
pub(super) fn cut(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(LONGEST_NAME));
    name
}

/// The id of a task, in a fixed size: what it stands for is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TaskId(u128);

impl TaskId {
    /// What is kept of the id.
    pub(super) fn number(self) -> u128 {
        self.0
    }

    /// The id itself, if it is a UUID as Celery makes them; what an application chose may name anything.
    pub(super) fn uuid(self) -> Option<u128> {
        (self.0 & VERSION != VERSION).then_some(self.0)
    }
}

/// Where a UUID has its version; there is none of which all these bits are set.
const VERSION: u128 = 0xf << 76;

/// Turns ids into what is kept of them.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskIds(RandomState, RandomState);

impl TaskIds {
    /// The id of this text: a UUID as its number, any other text as a hash that nobody outside can aim at.
    pub(super) fn id(&self, text: &str) -> TaskId {
        let digits = || text.bytes().filter(|byte| *byte != b'-');
        if text.len() == 36 && digits().count() == 32 && digits().all(|byte| byte.is_ascii_hexdigit()) {
            let digit = |byte: u8| u128::from(char::from(byte).to_digit(16).unwrap_or_default());
            return TaskId(digits().fold(0, |number, byte| number << 4 | digit(byte)));
        }
        TaskId(u128::from(self.0.hash_one(text)) << 64 | u128::from(self.1.hash_one(text)) | VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_exception_only_its_class_is_kept() {
        for (text, class) in [
            ("ValueError('postgresql://u:secretpw@h/db failed')", Some("ValueError")),
            ("EncodeError(TypeError('Object of type coroutine'))", Some("EncodeError")),
            ("celery.exceptions.WorkerLostError", Some("WorkerLostError")),
            ("KeyError", Some("KeyError")),
            ("no such table: hunter2", None),
            ("", None),
            ("1Error()", None),
        ] {
            assert_eq!(ExceptionClass::of(text).as_ref().map(ExceptionClass::as_str), class, "{text}");
        }
        assert_eq!(ExceptionClass::of(&"E".repeat(81)), None);
    }

    #[test]
    fn ids_are_told_apart_whatever_they_look_like() {
        let ids = TaskIds::default();
        let uuid = "59226a2a-2b64-4f0b-9c3e-000000000001";
        assert_eq!(ids.id(uuid), ids.id(&uuid.to_uppercase()));
        assert_eq!(ids.id("order-7"), ids.id("order-7"));
        assert_ne!(ids.id("order-7"), ids.id("order-8"));
        assert_ne!(ids.id(uuid), ids.id("59226a2a-2b64-4f0b-9c3e-000000000002"));
        assert_eq!(ids.id(uuid).uuid(), Some(0x59226a2a_2b64_4f0b_9c3e_000000000001));
        assert_eq!(ids.id("order-7").uuid(), None, "what an application chose is not shown");
    }
}
