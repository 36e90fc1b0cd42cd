//! What is known of Celery at one moment: values of the room `tasks`, for whoever shows them.

use std::time::Duration;

use crate::redact::Clean;

/// How the application's Celery fares, as far as its Redis tells.
#[derive(Clone, Debug)]
pub struct CeleryState {
    /// The connection on which events are heard.
    pub hearing: Condition,
    /// The connection on which queues are read and workers are asked.
    pub asking: Condition,
    /// Whether anything of Celery was ever seen there.
    pub is_found: bool,
    /// What the server does not let us do.
    pub not_allowed: Vec<&'static str>,
    /// Times that the hearing was lost.
    pub gaps: u64,
    /// How long ago it was lost last.
    pub last_gap_age: Option<Duration>,
    /// Messages heard.
    pub messages: u64,
    /// Messages refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// Tasks that workers started and that nobody told us of.
    pub missed: u64,
    /// Tasks that a worker had received, and of which nobody can say whether it ran them before its end.
    pub uncertain: u64,
    /// The workers, by name.
    pub workers: Vec<WorkerState>,
    /// The queues, by name.
    pub queues: Vec<QueueState>,
    /// Messages taken and not acknowledged; `None` when unknown.
    pub unacked: Option<u64>,
    /// When the oldest of them was taken, in seconds since the Unix epoch.
    pub oldest_unacked_at: Option<f64>,
    /// Age of the reading of the queues; `None` before the first.
    pub queues_age: Option<Duration>,
    /// Whether there is none, or one that several turns have failed to renew.
    pub is_stale: bool,
    /// Age of the workers' last answers on what they consume.
    pub consumers_age: Option<Duration>,
    /// The tasks, by name and queue.
    pub tasks: Vec<TaskState>,
    /// How those that publish have ended.
    pub publishes: PublishTasks,
    /// Failures by name, queue, class and count.
    pub failures: Vec<(Clean<'static>, Clean<'static>, Clean<'static>, u64)>,
}

/// What the application's own endpoints count of Celery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CeleryCounts {
    /// Tasks that live workers work on.
    pub active: u64,
    /// Tasks that ended badly since the start: failed, with an error as their result, or lost.
    pub errors: u64,
}

/// How the tasks that publish have ended: one source of the rate of publishes, beside rows and the answers of the route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishTasks {
    /// Ended well, by Celery's word and by their own.
    pub published: u64,
    /// Raised, said of themselves that they failed, in whole or in part, or were lost.
    pub failed: u64,
}

impl PublishTasks {
    /// The share that went well; `None` before the first.
    #[must_use]
    pub fn success_ratio(&self) -> Option<f64> {
        let known = self.published.saturating_add(self.failed);
        (known > 0).then(|| self.published as f64 / known as f64)
    }
}

/// How a connection fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is no Redis to ask, or Celery is not watched.
    Off,
    /// Being opened for the first time.
    Connecting,
    /// Open for so long.
    Up(Duration),
    /// Not there for so long, for this reason; it is tried again.
    Down(Duration, &'static str),
}

/// A worker.
#[derive(Clone, Debug)]
pub struct WorkerState {
    /// Its name, such as `celery@host`.
    pub name: Clean<'static>,
    /// Celery's version.
    pub version: Clean<'static>,
    /// Whether its heartbeats come.
    pub is_alive: bool,
    /// How long ago anything was heard of it.
    pub age: Duration,
    /// Tasks that it works on.
    pub active: u64,
    /// Tasks that it has started since it lives.
    pub processed: u64,
    /// Whether it sends the events of tasks.
    pub sends_events: bool,
    /// Queues that it consumes; `None` when it did not say.
    pub consumes: Option<Vec<Clean<'static>>>,
    /// How long it has done nothing while a message waited that it could take; `None` when all is well.
    pub not_consuming: Option<Duration>,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct QueueState {
    /// Its name.
    pub name: Clean<'static>,
    /// Messages that wait, of all priorities.
    pub messages: u64,
    /// Messages that workers have taken and not acknowledged; `None` when unknown, or more of all queues than are looked at.
    pub unacked: Option<u64>,
    /// Live workers that consume it; `None` when unknown.
    pub consumers: Option<u64>,
    /// How long its next message has been the next.
    pub head_age: Duration,
    /// How long it has held messages without a consumer; `None` when it is served, empty, or nobody knows.
    pub unserved: Option<Duration>,
}

/// The tasks of one name in one queue.
#[derive(Clone, Debug)]
pub struct TaskState {
    /// Their name.
    pub name: Clean<'static>,
    /// Their queue.
    pub queue: Clean<'static>,
    /// Sent, received, started, retried: what happened on the way.
    pub steps: [(&'static str, u64); 4],
    /// How they ended, by outcome.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Mean seconds of a run; `None` before the first.
    pub mean_seconds: Option<f64>,
    /// Mean seconds of waiting; `None` when no sender tells when it sent.
    pub mean_wait_seconds: Option<f64>,
}

impl CeleryState {
    /// Of what is not watched.
    #[must_use]
    pub fn off() -> Self {
        Self {
            hearing: Condition::Off,
            asking: Condition::Off,
            is_found: false,
            not_allowed: Vec::new(),
            gaps: 0,
            last_gap_age: None,
            messages: 0,
            refused: Vec::new(),
            missed: 0,
            uncertain: 0,
            workers: Vec::new(),
            queues: Vec::new(),
            unacked: None,
            oldest_unacked_at: None,
            queues_age: None,
            is_stale: false,
            consumers_age: None,
            tasks: Vec::new(),
            publishes: PublishTasks::default(),
            failures: Vec::new(),
        }
    }
}
