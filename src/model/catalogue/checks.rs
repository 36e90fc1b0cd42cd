//! The metrics of the health checks; the names of checks come from the configuration, so their number is bounded.

use crate::model::catalogue::metric::{Metric, MetricKind, metric};

/// The status of each check.
pub static CHECK_STATUS: Metric = metric(
    "content_factory.check.status",
    "1",
    MetricKind::UpDownCounter,
    &["check", "status"],
    "1 for the status that a health check has, 0 for the others.",
);

/// How long each check took.
pub static CHECK_DURATION: Metric = metric(
    "content_factory.check.duration",
    "s",
    MetricKind::Gauge,
    &["check"],
    "Duration of the last run of a health check.",
);

/// What the runs of each check found.
pub static CHECK_RUNS: Metric = metric(
    "content_factory.check.runs",
    "{run}",
    MetricKind::Counter,
    &["check", "status"],
    "Runs of a health check by what each found, before any threshold.",
);

/// How much of a day each check found its service working.
pub static CHECK_UPTIME: Metric = metric(
    "content_factory.check.uptime",
    "1",
    MetricKind::Gauge,
    &["check"],
    "Share of the results of a health check in the last 24 hours that were no failure.",
);

/// Which checks change too often.
pub static CHECK_FLAPPING: Metric = metric(
    "content_factory.check.flapping",
    "1",
    MetricKind::UpDownCounter,
    &["check"],
    "1 while the results of a health check change too often (5 changes in the last 20), else 0.",
);
