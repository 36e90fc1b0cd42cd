//! What went wrong inside the application, for whoever tells of it as issues: tasks that failed, and exceptions that it logged.
//!
//! Rooms put incidents into a channel that nobody waits for: what finds no room is counted. The text of an exception has
//! no place here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::model::task::TaskId;
use crate::model::trace::{SpanId, TraceId};
use crate::redact::Clean;

/// Incidents that may wait: more come only when something fails again and again.
const ROOM: usize = 256;

/// Something that went wrong.
#[derive(Clone, Debug)]
pub struct Incident {
    /// When, in seconds since the Unix epoch; `None` when it is just now.
    pub at: Option<f64>,
    /// What.
    pub what: Mishap,
    /// The trace that it happened in.
    pub trace_id: Option<TraceId>,
    /// The span in that trace, when it is known.
    pub span_id: Option<SpanId>,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub enum Mishap {
    /// A task did not do what it should.
    Task {
        /// Its name, as the application calls it.
        name: Clean<'static>,
        /// How it ended.
        fault: TaskFault,
        /// The class of the error, when somebody names it.
        error_type: Option<Clean<'static>>,
        /// The id that Celery has for it, when it ran inside one of Celery's: two may tell of the same.
        task_id: Option<TaskId>,
    },
    /// An exception in a log record.
    Logged {
        /// Its class.
        error_type: Clean<'static>,
        /// The logger, by its name.
        logger: Option<Clean<'static>>,
        /// Where it was raised.
        frame: Option<Frame>,
    },
}

/// How a task ended that did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskFault {
    /// By an error.
    Failed,
    /// As a success whose result says that it is none.
    ResultError,
    /// Nobody told its end in time, or its worker went silent.
    Lost,
}

impl TaskFault {
    /// The word for it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::ResultError => "result_error",
            Self::Lost => "lost",
        }
    }
}

/// A place in the application's code. Without its line, which each release moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function.
    pub function: Clean<'static>,
    /// The file.
    pub file: Clean<'static>,
}

/// Puts incidents in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct IncidentSink {
    sender: mpsc::Sender<Incident>,
    missed: Arc<AtomicU64>,
}

/// Takes incidents out; there is one.
#[derive(Debug)]
pub struct IncidentSource {
    receiver: mpsc::Receiver<Incident>,
    missed: Arc<AtomicU64>,
}

/// Both ends of the channel.
#[must_use]
pub fn incidents() -> (IncidentSink, IncidentSource) {
    let (sender, receiver) = mpsc::channel(ROOM);
    let missed = Arc::<AtomicU64>::default();
    (IncidentSink { sender, missed: Arc::clone(&missed) }, IncidentSource { receiver, missed })
}

impl IncidentSink {
    /// Puts one in, or counts that there was no room. Never waits.
    pub fn put(&self, incident: Incident) {
        if self.sender.try_send(incident).is_err() {
            self.missed(1);
        }
    }

    /// So many more there were than could be put in.
    pub fn missed(&self, incidents: u64) {
        self.missed.fetch_add(incidents, Ordering::Relaxed);
    }
}

impl IncidentSource {
    /// Takes what is there, the oldest first, and how many more there were since this was asked last.
    pub fn take(&mut self) -> (Vec<Incident>, u64) {
        let mut taken = Vec::new();
        while taken.len() < ROOM
            && let Ok(incident) = self.receiver.try_recv()
        {
            taken.push(incident);
        }
        (taken, self.missed.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(name: &'static str) -> Incident {
        let (error_type, task_id) = (None, None);
        let what = Mishap::Task { name: Clean::literal(name), fault: TaskFault::Lost, error_type, task_id };
        Incident { at: None, what, trace_id: None, span_id: None }
    }

    #[test]
    fn what_has_no_room_is_counted_and_waits_for_nobody() {
        let (sink, mut source) = incidents();
        for _ in 0..ROOM + 7 {
            sink.put(incident("x"));
        }
        sink.missed(3);
        let (taken, missed) = source.take();
        assert_eq!((taken.len(), missed), (ROOM, 10));
        let (taken, missed) = source.take();
        assert_eq!((taken.len(), missed), (0, 0));
        sink.put(incident("y"));
        assert_eq!(source.take().0.len(), 1);
        drop(source);
        sink.put(incident("z"));
    }
}
