//! Who speaks for the cluster: values between the room `lease` and those that it hears, asks or is shown by.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::redact::Clean;

/// Whether this replica exports what is true of the cluster, and who does if not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether this one does, at this moment.
    pub is_holder: bool,
    /// The replica that holds the lease, as far as known.
    pub holder: Option<Clean<'static>>,
    /// How long this one has held it; `None` when it does not.
    pub held_for: Option<Duration>,
    /// Why the lease cannot be asked for, by a word of ours; `None` when it can.
    pub problem: Option<&'static str>,
}

/// Where marks are published, and who is told what came of it.
#[derive(Clone)]
pub struct Marks {
    /// The channel, which is also the pattern that is subscribed to: it has no character that a pattern knows.
    pub channel: String,
    /// Told from the connection on which Celery is heard, in the order of its messages.
    pub heard: Arc<dyn Fn(Heard) + Send + Sync>,
}

/// Whether counts come with marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// Celery is watched, and its connection hears marks.
    ByMarks,
    /// There is nothing to hear, or it may not be heard.
    Off,
}

/// What is heard on the channel of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A mark: all replicas hear it between the same two messages.
    Mark(u64),
    /// The connection was lost: what was published meanwhile is not known.
    Gap,
    /// The server does not let us hear marks.
    Refused,
}

/// Which export of metrics comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// One of many.
    Next,
    /// The last one of the process.
    Last,
}

/// What is waited for before metrics are taken, for a second at most; it keeps that limit itself.
pub type Ahead = Arc<dyn Fn(Turn) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;
