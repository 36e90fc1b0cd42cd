//! What the data path tells of itself: relaxed atomics, written by the workers, read by anyone.

use std::sync::atomic::AtomicU64;

/// Totals since the start, over all workers.
#[derive(Debug, Default)]
pub struct Counters {
    /// Client connections taken.
    pub connections: AtomicU64,
    /// Client connections closed again: the difference is open.
    pub connections_closed: AtomicU64,
    /// Client connections refused because there were too many.
    pub connections_refused: AtomicU64,
    /// Errors of the accept call, such as no file descriptors left.
    pub accept_errors: AtomicU64,
    /// Connections to the application opened.
    pub upstream_connections: AtomicU64,
    /// Requests sent again because a kept connection had just closed.
    pub resends: AtomicU64,
    /// Panics in a connection's task or in a worker: each ended what it was in, and nothing else.
    pub panics: AtomicU64,
    /// Times that a worker began again, after a panic or because it could not start.
    pub worker_restarts: AtomicU64,
    /// Panics in the sink: the request went on, its report may be missing.
    pub sink_panics: AtomicU64,
}
