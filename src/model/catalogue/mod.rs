//! The one table of all metrics: OTLP names, `/metrics` and `docs/metrics.md` are made from it.
//!
//! A new metric is one constant, here or in the files beside it, and its place in `ALL`.

pub mod admin;
pub mod ai;
pub mod celery;
pub mod checks;
pub mod container;
pub mod database;
pub mod database_pool;
pub mod lease;
pub mod machine;
mod metric;
pub mod proxy;
pub mod reload;
pub mod tasks;
pub mod telemetry;

use crate::model::catalogue::metric::metric;
use crate::semconv;

pub use crate::model::catalogue::metric::{Metric, MetricKind, Scope};

/// The bounds that the conventions advise for durations of HTTP requests, in seconds.
pub const REQUEST_SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Bounds for the length of streams and tunnels, in seconds.
pub const STREAM_SECONDS: &[f64] = &[0.1, 1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0];

/// Bounds for sizes of bodies, in bytes.
pub const BODY_BYTES: &[f64] =
    &[0.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 16_777_216.0];

const HTTP_LABELS: &[&str] = &[
    semconv::HTTP_REQUEST_METHOD,
    semconv::HTTP_RESPONSE_STATUS_CODE,
    semconv::HTTP_ROUTE,
    semconv::ERROR_TYPE,
    semconv::NETWORK_PROTOCOL_VERSION,
    semconv::URL_SCHEME,
    semconv::OTEL_METRIC_OVERFLOW,
];

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
    "Size of the request bodies of ordinary requests, without framing.",
);

/// Sizes of response bodies.
pub static HTTP_SERVER_RESPONSE_BODY_SIZE: Metric = metric(
    "http.server.response.body.size",
    "By",
    MetricKind::Histogram(BODY_BYTES),
    HTTP_LABELS,
    "Size of the response bodies of ordinary requests, without framing.",
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

/// Client connections.
pub static PROXY_CONNECTIONS: Metric = metric(
    "content_factory.proxy.connections",
    "{connection}",
    MetricKind::Counter,
    &[],
    "Client connections that the proxy took.",
);

/// Client connections that are open.
pub static PROXY_ACTIVE_CONNECTIONS: Metric = metric(
    "content_factory.proxy.connections.active",
    "{connection}",
    MetricKind::UpDownCounter,
    &[],
    "Client connections that are open, idle ones among them.",
);

/// Connections that were not accepted.
pub static PROXY_ACCEPT_ERRORS: Metric = metric(
    "content_factory.proxy.accept.errors",
    "{error}",
    MetricKind::Counter,
    &[],
    "Failures to accept a client connection, as without file descriptors.",
);

/// Requests refused.
pub static PROXY_REFUSALS: Metric = metric(
    "content_factory.proxy.refusals",
    "{request}",
    MetricKind::Counter,
    &[semconv::ERROR_TYPE],
    "Requests and connections that the proxy refused with an answer of its own, by reason.",
);

/// Connections cut off.
pub static PROXY_CUT_OFF_CONNECTIONS: Metric = metric(
    "content_factory.proxy.connections.cut_off",
    "{connection}",
    MetricKind::Counter,
    &[semconv::ERROR_TYPE],
    "Client connections that the proxy ended where no request could be answered, by reason: too many \
     from one address (`proxy.limits.connection_rate`), a flood of HTTP/2 frames, a head of HTTP/2 that did not end, more \
     connections of HTTP/2 than `proxy.http2.connections`, or an idle one of those whose place another needed.",
);

/// Errors told in HTTP/2.
pub static PROXY_HTTP2_ERRORS: Metric = metric(
    "content_factory.proxy.http2.errors",
    "{frame}",
    MetricKind::Counter,
    &["frame", semconv::ERROR_TYPE],
    "RST_STREAM and GOAWAY frames that the proxy sent to clients for an error, by its code (RFC 9113, section 7).",
);

/// Connections to the application.
pub static PROXY_UPSTREAM_CONNECTIONS: Metric = metric(
    "content_factory.proxy.upstream.connections",
    "{connection}",
    MetricKind::Counter,
    &[],
    "Connections that the proxy opened to the application; all other requests used one again.",
);

/// Requests sent again.
pub static PROXY_UPSTREAM_RESENDS: Metric = metric(
    "content_factory.proxy.upstream.resends",
    "{request}",
    MetricKind::Counter,
    &[],
    "Requests that were sent again, because the application had just closed the kept connection that they went out on.",
);

/// Panics of the data path.
pub static PROXY_PANICS: Metric = metric(
    "content_factory.proxy.panics",
    "{panic}",
    MetricKind::Counter,
    &["place"],
    "Panics on the data path, by what each ended: a connection, a worker with its connections, or a report (sink).",
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
    "Items that wait for delivery: produced = delivered + rejected + dropped + queued, memory and disk together.",
);

/// Bytes waiting.
pub static TELEMETRY_QUEUE_BYTES: Metric = metric(
    "content_factory.telemetry.queue.bytes",
    "By",
    MetricKind::UpDownCounter,
    &["signal", "place"],
    "Bytes of what waits for delivery, as they are held: in memory compressed from the first attempt on, on disk always.",
);

/// Age of what waits.
pub static TELEMETRY_OLDEST_AGE: Metric = metric(
    "content_factory.telemetry.queue.oldest_age",
    "s",
    MetricKind::Gauge,
    &["signal"],
    "How long the oldest item has waited for delivery, in memory or on disk; 0 when none waits.",
);

/// Requests that go again.
pub static TELEMETRY_RETRIES: Metric = metric(
    "content_factory.telemetry.retries",
    "{request}",
    MetricKind::Counter,
    &["signal"],
    "Requests to the receiver that failed and are sent again.",
);

/// Whether the receiver is given up for now.
pub static TELEMETRY_BREAKER_OPEN: Metric = metric(
    "content_factory.telemetry.breaker.open",
    "1",
    MetricKind::UpDownCounter,
    &["signal"],
    "1 while the receiver has failed five times in a row and is only asked, within 8 s, whether it is back; else 0.",
);

/// Failures of the disk.
pub static TELEMETRY_SPOOL_ERRORS: Metric = metric(
    "content_factory.telemetry.spool.errors",
    "{error}",
    MetricKind::Counter,
    &[],
    "Failures of the disk while telemetry was written to it or read from it; telemetry stays in memory meanwhile.",
);

/// Values and names cut before they were encoded.
pub static TELEMETRY_TRUNCATED: Metric = metric(
    "content_factory.telemetry.truncated",
    "{value}",
    MetricKind::Counter,
    &["signal"],
    "Values and names of attributes that were cut: values at 4,095 bytes, names at 255, lists at 64, as vendors take no more.",
);

/// Requests that the tail of sampling would have kept.
pub static TELEMETRY_TAIL_OVER_BUDGET: Metric = metric(
    "content_factory.telemetry.tail.over_budget",
    "{request}",
    MetricKind::Counter,
    &["reason"],
    "Requests whose spans would have been kept because they failed (`error`) or were slow for their route (`slow`), had there not been more than `telemetry.sampling.keep_per_second` of them.",
);

/// Items that the application's SDKs handed over.
pub static INTAKE_ITEMS: Metric = metric(
    "content_factory.intake.items",
    "{item}",
    MetricKind::Counter,
    &["signal"],
    "Spans, metric data points and log records of the application's own SDKs that the intake took in.",
);

/// Items that the intake left out.
pub static INTAKE_LEFT_OUT: Metric = metric(
    "content_factory.intake.left_out",
    "{item}",
    MetricKind::Counter,
    &["signal", "reason"],
    "Items of the application's own SDKs that the intake left out of requests that it took, by reason.",
);

/// Requests that the intake refused.
pub static INTAKE_REFUSED: Metric = metric(
    "content_factory.intake.refused",
    "{request}",
    MetricKind::Counter,
    &["reason"],
    "Requests of the application's own SDKs that the intake refused, and connections for which it had no place, by reason.",
);

/// Failures of the application of which Sentry got no event.
pub static SENTRY_LEFT_OUT: Metric = metric(
    "content_factory.sentry.left_out",
    "{failure}",
    MetricKind::Counter,
    &[],
    "Failures of the application, at its proxy, of its tasks or in its log, of which Sentry got no event of their own, as too many were alike or came at once; the next event tells how many.",
);

/// What vendors accepted, as the collector says.
pub static EXPORTER_ACCEPTED: Metric = metric(
    "content_factory.exporter.accepted",
    "{item}",
    MetricKind::Counter,
    &["exporter", "signal"],
    "Items that the vendor behind an exporter of the collector accepted, from whomever they came; read from telemetry.receipts.url.",
);

/// What vendors did not accept, as the collector says.
pub static EXPORTER_FAILED: Metric = metric(
    "content_factory.exporter.failed",
    "{item}",
    MetricKind::Counter,
    &["exporter", "signal"],
    "Items that the collector gave up for a vendor: refused, not taken for too long, or without room in its queue.",
);

/// Whether a vendor refuses.
pub static EXPORTER_REFUSING: Metric = metric(
    "content_factory.exporter.refusing",
    "1",
    MetricKind::UpDownCounter,
    &["exporter", "signal"],
    "1 while the last that the collector sent to a vendor was given up; else 0.",
);

/// Checks of the export.
pub static EXPORT_CHECKS: Metric = metric(
    "content_factory.export.checks",
    "{check}",
    MetricKind::Counter,
    &[],
    "Marked data points that `check-export` sent: 1 for each call.",
);

/// Bytes that the receivers took, as vendors count them.
pub static TELEMETRY_DELIVERED_SIZE: Metric = metric(
    "content_factory.telemetry.delivered.size",
    "By",
    MetricKind::Counter,
    &["signal"],
    "Bytes that the receiver took, before compression.",
);

/// Bytes that the receivers took, as they were sent.
pub static TELEMETRY_SENT_SIZE: Metric = metric(
    "content_factory.telemetry.sent.size",
    "By",
    MetricKind::Counter,
    &["signal"],
    "Bytes that the receiver took, as they were sent: compressed, without what the transport adds.",
);

/// Series of metrics exported.
pub static TELEMETRY_SERIES: Metric = metric(
    "content_factory.telemetry.series",
    "{series}",
    MetricKind::Gauge,
    &[],
    "Series of metrics that were exported so far; some vendors bill each of them.",
);

/// Texts changed by the redactor.
pub static REDACTIONS: Metric = metric(
    "content_factory.redactions",
    "{text}",
    MetricKind::Counter,
    &["outlet"],
    "Texts from which a secret was removed on their way out.",
);

/// Restarts of rooms.
pub static ROOM_RESTARTS: Metric = metric(
    "content_factory.room.restarts",
    "{restart}",
    MetricKind::Counter,
    &["room"],
    "Restarts of a part of the sidecar after it panicked.",
);

/// Every metric, in the order in which it is shown.
pub static ALL: &[&Metric] = &[
    &HTTP_SERVER_REQUEST_DURATION,
    &HTTP_SERVER_ACTIVE_REQUESTS,
    &HTTP_SERVER_REQUEST_BODY_SIZE,
    &HTTP_SERVER_RESPONSE_BODY_SIZE,
    &HTTP_SERVER_STREAM_DURATION,
    &HTTP_SERVER_PROBE_DURATION,
    &PROXY_CONNECTIONS,
    &PROXY_ACTIVE_CONNECTIONS,
    &proxy::PROXY_HELD,
    &PROXY_ACCEPT_ERRORS,
    &PROXY_REFUSALS,
    &PROXY_CUT_OFF_CONNECTIONS,
    &PROXY_HTTP2_ERRORS,
    &PROXY_UPSTREAM_CONNECTIONS,
    &PROXY_UPSTREAM_RESENDS,
    &PROXY_PANICS,
    &TELEMETRY_PRODUCED,
    &TELEMETRY_DELIVERED,
    &TELEMETRY_REJECTED,
    &TELEMETRY_DROPPED,
    &TELEMETRY_QUEUED,
    &TELEMETRY_QUEUE_BYTES,
    &TELEMETRY_OLDEST_AGE,
    &TELEMETRY_RETRIES,
    &TELEMETRY_BREAKER_OPEN,
    &TELEMETRY_SPOOL_ERRORS,
    &TELEMETRY_TRUNCATED,
    &TELEMETRY_DELIVERED_SIZE,
    &TELEMETRY_SENT_SIZE,
    &telemetry::TELEMETRY_COMPRESSIONS,
    &TELEMETRY_SERIES,
    &TELEMETRY_TAIL_OVER_BUDGET,
    &INTAKE_ITEMS,
    &INTAKE_LEFT_OUT,
    &INTAKE_REFUSED,
    &SENTRY_LEFT_OUT,
    &EXPORTER_ACCEPTED,
    &EXPORTER_FAILED,
    &EXPORTER_REFUSING,
    &machine::PROCESS_CPU_TIME,
    &machine::PROCESS_MEMORY_USAGE,
    &machine::PROCESS_MEMORY_VIRTUAL,
    &machine::PROCESS_THREAD_COUNT,
    &machine::PROCESS_UNIX_FILE_DESCRIPTOR_COUNT,
    &machine::PROCESS_UPTIME,
    &machine::SYSTEM_CPU_UTILIZATION,
    &machine::SYSTEM_MEMORY_USAGE,
    &machine::SYSTEM_MEMORY_LIMIT,
    &machine::SYSTEM_MEMORY_LINUX_AVAILABLE,
    &machine::SYSTEM_MEMORY_UTILIZATION,
    &machine::SYSTEM_FILESYSTEM_USAGE,
    &machine::SYSTEM_NETWORK_IO,
    &container::CONTAINER_CPU_TIME,
    &container::CONTAINER_CPU_LIMIT,
    &container::CONTAINER_CPU_PERIODS,
    &container::CONTAINER_CPU_THROTTLED,
    &container::CONTAINER_MEMORY_USAGE,
    &container::CONTAINER_MEMORY_WORKING_SET,
    &container::CONTAINER_MEMORY_LIMIT,
    &container::CONTAINER_OOM_KILLS,
    &container::PRESSURE_TIME,
    &container::SYSTEM_INODES,
    &container::APPLICATION_PROCESSES,
    &container::APPLICATION_MEMORY,
    &container::APPLICATION_CPU_TIME,
    &database::POSTGRESQL_BACKENDS,
    &database::POSTGRESQL_CONNECTION_MAX,
    &database::POSTGRESQL_COMMITS,
    &database::POSTGRESQL_ROLLBACKS,
    &database::POSTGRESQL_DEADLOCKS,
    &database::POSTGRESQL_BLKS_HIT,
    &database::POSTGRESQL_BLKS_READ,
    &database::POSTGRESQL_TEMP_FILES,
    &database::POSTGRESQL_TEMP_IO,
    &database::POSTGRESQL_DB_SIZE,
    &database::DATABASE_FILE_SIZE,
    &database::POSTGRESQL_ROWS,
    &database::POSTGRESQL_WAL_DELAY,
    &database::POSTGRESQL_REPLICATION_DATA_DELAY,
    &database::DATABASE_CONNECTIONS,
    &database::DATABASE_TRANSACTION_AGE,
    &database::DATABASE_BLOCKED,
    &database::DATABASE_BLOCKED_AGE,
    &database::DATABASE_CACHE_HIT_RATIO,
    &database::DATABASE_WRAPAROUND_AGE,
    &database::DATABASE_SLOT_RETAINED,
    &database::DATABASE_REPLAY_LAG,
    &database::DATABASE_RESETS,
    &database::DATABASE_VISIBILITY,
    &database::DATABASE_READING_AGE,
    &database::DATABASE_READING_FAILURES,
    &database::DB_CLIENT_OPERATION_DURATION,
    &database_pool::DB_CLIENT_CONNECTION_COUNT,
    &database_pool::DB_CLIENT_CONNECTION_MAX,
    &database_pool::DB_CLIENT_CONNECTION_TIMEOUTS,
    &database_pool::DB_CLIENT_CONNECTION_CREATE_TIME,
    &database_pool::DB_CLIENT_CONNECTION_USE_TIME,
    &database::BUSINESS_ROWS,
    &database::BUSINESS_NEWEST_AGE,
    &database::BUSINESS_PUBLISHES,
    &database::BUSINESS_PUBLISH_SUCCESS,
    &database::BUSINESS_PUBLISH_ANSWERS,
    &ai::AI_DURATION,
    &ai::AI_FIRST_CHUNK,
    &ai::AI_TOKENS,
    &ai::AI_COST,
    &ai::AI_UNREAD,
    &ai::EGRESS_CONNECTIONS_REFUSED,
    &EXPORT_CHECKS,
    &checks::CHECK_STATUS,
    &checks::CHECK_DURATION,
    &checks::CHECK_RUNS,
    &checks::CHECK_UPTIME,
    &checks::CHECK_FLAPPING,
    &tasks::TASKS_ACTIVE,
    &tasks::TASKS_DURATION,
    &tasks::TASKS_LOST,
    &tasks::TASKS_REFUSED,
    &celery::TASKS_SENT,
    &celery::TASKS_RECEIVED,
    &celery::TASKS_STARTED,
    &celery::TASKS_SUCCEEDED,
    &celery::TASKS_RESULT_ERROR,
    &celery::TASKS_FAILED,
    &celery::TASKS_RETRIED,
    &celery::TASKS_REVOKED,
    &celery::TASKS_REJECTED,
    &celery::TASKS_LOST,
    &celery::TASKS_FOUND_AGAIN,
    &celery::TASKS_UNSEEN,
    &celery::TASK_DURATION,
    &celery::PROCESS_DURATION,
    &celery::TASK_WAIT,
    &celery::WORKER_ACTIVE,
    &celery::WORKER_ALIVE,
    &celery::QUEUE_MESSAGES,
    &celery::QUEUE_CONSUMERS,
    &celery::QUEUE_HEAD_AGE,
    &celery::QUEUE_UNSERVED,
    &celery::UNACKED_MESSAGES,
    &celery::QUEUE_UNACKED,
    &celery::UNACKED_OLDEST_AGE,
    &celery::MESSAGES_REFUSED,
    &celery::EVENTS_MISSED,
    &celery::TASKS_UNCERTAIN,
    &celery::GAPS,
    &celery::SPANS_LEFT_OUT,
    &celery::PUBLISHES,
    &lease::LEASE_HELD,
    &lease::LEASE_TAKEN,
    &lease::LEASE_GAPS,
    &lease::LEASE_FAILURES,
    &reload::CONFIG_RELOAD_SUCCESS,
    &reload::CONFIG_RELOAD_SUCCESS_TIME,
    &reload::CONFIG_RELOADS,
    &reload::CONFIG_RELOAD_FAILURES,
    &reload::CONFIG_RESTART_NEEDED,
    &admin::ADMIN_REFUSALS,
    &REDACTIONS,
    &ROOM_RESTARTS,
];

#[cfg(test)]
mod tests;
