//! What the traffic room gives out: totals, windows and recent failures.

use std::time::Duration;

use crate::model::request::Method;
use crate::model::trace::{SpanId, TraceId};
use crate::redact::Clean;

/// Totals since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests begun: whatever their end.
    pub requests: u64,
    /// Requests ended.
    pub completed: u64,
    /// Ended requests that count as errors.
    pub errors: u64,
    /// Requests for which the application accepted no connection.
    pub upstream_refused: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// The sum of the durations of ordinary requests that ended, in seconds.
    pub duration_sum_seconds: f64,
    /// How many ordinary requests that sum is of.
    pub duration_count: u64,
}

/// The traffic of a sliding window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// How long the window is; shorter than asked when the process is younger.
    pub length: Duration,
    /// Requests ended in it.
    pub requests: u64,
    /// Errors among them.
    pub errors: u64,
    /// The median of their durations, in seconds; `None` without requests.
    pub p50_seconds: Option<f64>,
    /// The 95th percentile.
    pub p95_seconds: Option<f64>,
    /// The 99th percentile.
    pub p99_seconds: Option<f64>,
}

/// The traffic of one route.
#[derive(Clone, Debug)]
pub struct RouteTraffic {
    /// Its template; `None` for all requests to paths that the application does not name.
    pub route: Option<Clean<'static>>,
    /// What it had in the last 5 minutes.
    pub window: Window,
}

/// A request that failed, kept for people.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it ended, in seconds since the Unix epoch.
    pub at: f64,
    /// Its method.
    pub method: Method,
    /// Its route template, or `None` when unknown; never the path.
    pub route: Option<Clean<'static>>,
    /// The status sent, 0 for none.
    pub status: u16,
    /// `error.type`, or the status as text.
    pub error_type: Clean<'static>,
    /// How long it took.
    pub duration: Duration,
    /// Its trace, when it had one; the application's log lines carry it even when no span was kept.
    pub trace_id: Option<TraceId>,
    /// The span in it that stands for the request at the proxy.
    pub span_id: Option<SpanId>,
}

/// The failures since somebody looked last.
#[derive(Clone, Debug, Default)]
pub struct NewFailures {
    /// The oldest first.
    pub failures: Vec<Failure>,
    /// So many more there were than are kept.
    pub missed: u64,
}
