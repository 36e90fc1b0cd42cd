//! The one table of all metrics: OTLP names, `/metrics` and `docs/metrics.md` are made from it.
//!
//! A new metric is one constant here and its place in `ALL`.

use std::time::Duration;

use crate::semconv;

/// A metric: what it is called, what it counts, and how old its values may be.
#[derive(Debug, PartialEq)]
pub struct Metric {
    /// The OTLP name; the Prometheus name is made from it, the unit and the kind.
    pub name: &'static str,
    /// UCUM, as the conventions write it: `s`, `By`, `1`, `{request}`.
    pub unit: &'static str,
    /// Kind of instrument.
    pub kind: MetricKind,
    /// The names of its labels, in the order in which they are shown.
    pub labels: &'static [&'static str],
    /// Of whom it is true.
    pub scope: Scope,
    /// A value older than this is not shown; zero for values that are read when asked.
    pub max_age: Duration,
    /// What it tells, in one sentence.
    pub about: &'static str,
}

/// The kind of an instrument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Never falls while the process lives.
    Counter,
    /// Rises and falls, and adds up over replicas.
    UpDownCounter,
    /// A level that does not add up.
    Gauge,
    /// A distribution, with the bounds of its explicit form.
    Histogram(&'static [f64]),
}

/// Of whom a metric is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of this pod: each replica exports its own.
    Pod,
    /// Of the cluster: one replica exports it, or sums would multiply.
    Cluster,
}

/// The bounds that the conventions advise for durations of HTTP requests, in seconds.
pub const REQUEST_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Bounds for the length of streams and tunnels, in seconds.
pub const STREAM_SECONDS: &[f64] = &[0.1, 1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0];

/// Bounds for sizes of bodies, in bytes.
pub const BODY_BYTES: &[f64] =
    &[0.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 16_777_216.0];

const NOW: Duration = Duration::ZERO;
const HTTP_LABELS: &[&str] = &[
    semconv::HTTP_REQUEST_METHOD,
    semconv::HTTP_RESPONSE_STATUS_CODE,
    semconv::HTTP_ROUTE,
    semconv::ERROR_TYPE,
    semconv::NETWORK_PROTOCOL_VERSION,
    semconv::URL_SCHEME,
    semconv::OTEL_METRIC_OVERFLOW,
];

const fn metric(
    name: &'static str,
    unit: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    about: &'static str,
) -> Metric {
    Metric { name, unit, kind, labels, scope: Scope::Pod, max_age: NOW, about }
}

/// Durations of ordinary requests.
pub static HTTP_SERVER_REQUEST_DURATION: Metric = metric(
    "http.server.request.duration",
    "s",
    MetricKind::Histogram(REQUEST_SECONDS),
    HTTP_LABELS,
    "Duration of ordinary requests, from the complete head to the last byte of the answer.",
);

/// Requests in flight.
pub static HTTP_SERVER_ACTIVE_REQUESTS: Metric = metric(
    "http.server.active_requests",
    "{request}",
    MetricKind::UpDownCounter,
    &[semconv::HTTP_REQUEST_METHOD, semconv::URL_SCHEME],
    "Requests in flight.",
);

/// Sizes of request bodies.
pub static HTTP_SERVER_REQUEST_BODY_SIZE: Metric = metric(
    "http.server.request.body.size",
    "By",
    MetricKind::Histogram(BODY_BYTES),
    HTTP_LABELS,
    "Size of request bodies, without framing.",
);

/// Sizes of response bodies.
pub static HTTP_SERVER_RESPONSE_BODY_SIZE: Metric = metric(
    "http.server.response.body.size",
    "By",
    MetricKind::Histogram(BODY_BYTES),
    HTTP_LABELS,
    "Size of response bodies, without framing.",
);

/// Lengths of event streams and tunnels.
pub static HTTP_SERVER_STREAM_DURATION: Metric = metric(
    "content_factory.http.server.stream.duration",
    "s",
    MetricKind::Histogram(STREAM_SECONDS),
    HTTP_LABELS,
    "Length of event streams and upgraded connections, which are no latency and therefore counted apart.",
);

/// Durations of probes.
pub static HTTP_SERVER_PROBE_DURATION: Metric = metric(
    "content_factory.http.server.probe.duration",
    "s",
    MetricKind::Histogram(REQUEST_SECONDS),
    HTTP_LABELS,
    "Duration of requests to probe paths (`proxy.probe_paths`), which are no users' requests and therefore counted apart.",
);

/// Items produced for export.
pub static TELEMETRY_PRODUCED: Metric = metric(
    "content_factory.telemetry.produced",
    "{item}",
    MetricKind::Counter,
    &["signal"],
    "Spans, metric data points and log records made for export.",
);

/// Items acknowledged by the receiver.
pub static TELEMETRY_DELIVERED: Metric = metric(
    "content_factory.telemetry.delivered",
    "{item}",
    MetricKind::Counter,
    &["signal"],
    "Items that the receiver acknowledged.",
);

/// Items refused by the receiver within an accepted request.
pub static TELEMETRY_REJECTED: Metric = metric(
    "content_factory.telemetry.rejected",
    "{item}",
    MetricKind::Counter,
    &["signal"],
    "Items that the receiver refused within an accepted request (partial success).",
);

/// Items dropped.
pub static TELEMETRY_DROPPED: Metric = metric(
    "content_factory.telemetry.dropped",
    "{item}",
    MetricKind::Counter,
    &["signal", "reason"],
    "Items that could not be kept or delivered, by reason.",
);

/// Items waiting.
pub static TELEMETRY_QUEUED: Metric = metric(
    "content_factory.telemetry.queued",
    "{item}",
    MetricKind::UpDownCounter,
    &["signal", "place"],
    "Items that wait for delivery: produced = delivered + rejected + dropped + queued.",
);

/// Bytes waiting.
pub static TELEMETRY_QUEUE_BYTES: Metric = metric(
    "content_factory.telemetry.queue.bytes",
    "By",
    MetricKind::UpDownCounter,
    &["signal", "place"],
    "Bytes that wait for delivery.",
);

/// Every metric, in the order in which it is shown.
pub static ALL: &[&Metric] = &[
    &HTTP_SERVER_REQUEST_DURATION,
    &HTTP_SERVER_ACTIVE_REQUESTS,
    &HTTP_SERVER_REQUEST_BODY_SIZE,
    &HTTP_SERVER_RESPONSE_BODY_SIZE,
    &HTTP_SERVER_STREAM_DURATION,
    &HTTP_SERVER_PROBE_DURATION,
    &TELEMETRY_PRODUCED,
    &TELEMETRY_DELIVERED,
    &TELEMETRY_REJECTED,
    &TELEMETRY_DROPPED,
    &TELEMETRY_QUEUED,
    &TELEMETRY_QUEUE_BYTES,
];
