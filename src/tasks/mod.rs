//! Tasks of the application, as it tells of them itself: what TaskMonitor begins and ends. Those of Celery are in `celery`.
//!
//! One owner of all state behind a lock that is held for moments; nothing here does I/O, and no task of ours runs:
//! what is overdue is found by whoever looks next. Names, ids and classes come from outside: they are checked, cleaned
//! and bounded, and the text of an exception is nothing that could be told.

pub mod celery;
pub mod config;
mod failures;
mod series;
mod store;
mod words;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::incident::IncidentSink;
use crate::model::reload::Retune;
use crate::model::sample::Sample;
use crate::model::task::{TaskId, TaskLists, TaskSpan, TaskState, TaskTotals};
use crate::model::trace::TraceParent;
use crate::redact::{Clean, Outlet, Redactor};
use crate::tasks::config::Config;
use crate::tasks::store::{End, Ended, Known, Store};
use crate::tasks::words::{is_class, is_name, is_task_id};
use crate::wall_clock::since_epoch;

/// Takes a task that has ended in a trace; must not block.
pub type SpanSink = Arc<dyn Fn(TaskSpan) + Send + Sync>;

/// Begins and ends tasks, and tells of them. Cheap to clone, for any thread.
#[derive(Clone)]
pub struct Tasks(Arc<Shared>);

struct Shared {
    store: Mutex<Store>,
    redactor: Arc<Redactor>,
    /// `None` when tasks become no spans.
    spans: Option<SpanSink>,
}

/// What the application says of a task that begins.
#[derive(Clone, Copy, Debug)]
pub struct Beginning<'a> {
    /// Its name.
    pub name: &'a str,
    /// The id that Celery has for it, when it runs inside one of Celery's.
    pub task_id: Option<&'a str>,
    /// The span that it is begun in.
    pub trace: Option<TraceParent>,
}

/// What the application says of a task that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ending<'a> {
    /// How.
    pub success: Success,
    /// The class of the error; of a task that succeeded it is left out.
    pub error_type: Option<&'a str>,
    /// How long it ran, when the application has measured it.
    pub duration: Option<Duration>,
}

/// Whether a task did what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// It did.
    Succeeded,
    /// It did not.
    Failed,
}

/// Why a task is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// Empty, too long, or with control characters.
    #[error("no name of a task, expected 1 to 100 characters, none of them a control character")]
    Name,
    /// Empty, too long, or with other characters than ids have.
    #[error("no id of a task, expected 1 to 100 of the characters a-z A-Z 0-9 - _ . : /")]
    TaskId,
    /// As many are open as may be.
    #[error("as many open tasks as there may be, expected fewer than tasks.max_open")]
    TooMany,
}

/// Why a task is not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndError {
    /// No class, but a text.
    #[error("no class of an error, expected a name such as ValueError or httpx.ConnectError, at most 100 characters")]
    ErrorType,
    /// Never begun, or ended too long ago.
    #[error("no such task, expected the id of one that is open or ended lately")]
    Unknown,
}

/// Opens the room: no task is known. Those that fail are told to `incidents`, if there is one.
#[must_use]
pub fn open(
    config: &Config,
    redactor: Arc<Redactor>,
    spans: Option<SpanSink>,
    incidents: Option<IncidentSink>,
) -> Tasks {
    Tasks(Arc::new(Shared { store: Mutex::new(Store::new(config, incidents)), redactor, spans }))
}

impl Tasks {
    /// Begins a task.
    ///
    /// # Errors
    /// What is wrong with it, or that there are too many.
    pub fn begin(&self, beginning: &Beginning<'_>) -> Result<TaskId, BeginError> {
        let name = Some(beginning.name).filter(|name| is_name(name)).ok_or(BeginError::Name)?;
        if !beginning.task_id.is_none_or(is_task_id) {
            return Err(BeginError::TaskId);
        }
        let words = (self.clean(name), beginning.task_id.map(|id| self.clean(id)));
        let id = TaskId::new(u64::try_from(since_epoch().as_millis()).unwrap_or(0), fastrand::u128(..));
        let begun = self.store().begin(id, words, beginning.trace, Instant::now());
        begun.map_err(|_| BeginError::TooMany)?;
        Ok(id)
    }

    /// Ends a task, and tells how it has ended: a second word changes nothing.
    ///
    /// # Errors
    /// What is wrong with it, or that nobody knows such a task.
    pub fn end(&self, id: TaskId, ending: &Ending<'_>) -> Result<TaskState, EndError> {
        if !ending.error_type.is_none_or(is_class) {
            return Err(EndError::ErrorType);
        }
        let (state, class) = match ending.success {
            Success::Succeeded => (TaskState::Succeeded, None),
            Success::Failed => (TaskState::Failed, ending.error_type),
        };
        let end = End { state, error_type: class.map(|class| self.clean(class)), duration: ending.duration };
        let known = self.store().end(id, end, Instant::now());
        match known.ok_or(EndError::Unknown)? {
            Known::Before(state) => Ok(state),
            Known::Now(ended) => {
                let (state, span) = (ended.state, span(ended));
                if let Some((sink, span)) = self.0.spans.as_ref().zip(span) {
                    sink(span);
                }
                Ok(state)
            }
        }
    }

    /// The counts.
    #[must_use]
    pub fn totals(&self) -> TaskTotals {
        self.store().totals(Instant::now())
    }

    /// The counts, the tasks that have run longest, and those that ended last.
    #[must_use]
    pub fn lists(&self) -> TaskLists {
        self.store().lists(Instant::now())
    }

    /// Adds the samples of now.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        self.store().samples(Instant::now(), out);
    }

    fn clean(&self, text: &str) -> Clean<'static> {
        self.0.redactor.text(Outlet::Telemetry, text.as_bytes()).into_owned()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Retune for Tasks {
    type Config = Config;
    const LIVE: &'static [&'static str] = &["tasks."];

    /// What is known stays; bounds are those of whatever comes from now on.
    fn retune(&self, config: &Config) -> Result<(), String> {
        self.store().bounded_by(config);
        Ok(())
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("totals", &self.totals()).finish_non_exhaustive()
    }
}

/// The span of a task in a trace whose spans are kept.
fn span(ended: Ended) -> Option<TaskSpan> {
    let trace = ended.task.trace.filter(|trace| trace.sampled)?;
    Some(TaskSpan {
        name: ended.task.name,
        trace_id: trace.trace_id,
        parent: Some(trace.parent),
        ended_unix_nanos: u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX),
        duration: ended.duration,
        // what failed is an error, though nobody names its class
        error_type: (ended.state == TaskState::Failed).then(|| ended.error_type.unwrap_or(Clean::literal("_OTHER"))),
        message: None,
    })
}

#[cfg(test)]
mod tests;
