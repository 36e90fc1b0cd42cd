//! The metrics of the application's own tasks, as its TaskMonitor tells of them: counted here, read when asked.

use crate::model::catalogue::metric::{Metric, MetricKind, metric};
use crate::semconv;

/// Bounds for the length of tasks, in seconds.
pub const TASK_SECONDS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0];

/// Tasks that run.
pub static TASKS_ACTIVE: Metric = metric(
    "content_factory.tasks.active",
    "{task}",
    MetricKind::UpDownCounter,
    &["task", semconv::OTEL_METRIC_OVERFLOW],
    "Tasks that the application's TaskMonitor has begun and not ended.",
);

/// How long tasks ran.
pub static TASKS_DURATION: Metric = metric(
    "content_factory.tasks.duration",
    "s",
    MetricKind::Histogram(TASK_SECONDS),
    &["task", "state", semconv::OTEL_METRIC_OVERFLOW],
    "Duration of the tasks that the application's TaskMonitor has ended, by state: succeeded or failed.",
);

/// Tasks that never ended.
pub static TASKS_LOST: Metric = metric(
    "content_factory.tasks.lost",
    "{task}",
    MetricKind::Counter,
    &["task", semconv::OTEL_METRIC_OVERFLOW],
    "Tasks that the application's TaskMonitor has begun and nobody has ended within `tasks.max_runtime`.",
);

/// Tasks that were not counted as they should.
pub static TASKS_REFUSED: Metric = metric(
    "content_factory.tasks.refused",
    "{task}",
    MetricKind::Counter,
    &["reason"],
    "Tasks that were not taken (too_many_open: `tasks.max_open`), or not by their name (too_many_names: `tasks.max_names`).",
);
