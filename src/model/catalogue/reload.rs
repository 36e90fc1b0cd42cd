//! The metrics of the configuration's changes.

use crate::model::catalogue::metric::{Metric, MetricKind, metric};

/// Whether the configuration in force is the one that is written.
pub static CONFIG_RELOAD_SUCCESS: Metric = metric(
    "content_factory.config.reload.success",
    "1",
    MetricKind::UpDownCounter,
    &[],
    "1 while the configuration was right when it was last read, 0 when it was wrong and the one of before is kept.",
);

/// When it was.
pub static CONFIG_RELOAD_SUCCESS_TIME: Metric = metric(
    "content_factory.config.reload.success_time",
    "s",
    MetricKind::Gauge,
    &[],
    "When the configuration was last read and right, in seconds since the Unix epoch; the start is the first time.",
);

/// Times that it was read again.
pub static CONFIG_RELOADS: Metric = metric(
    "content_factory.config.reloads",
    "{reload}",
    MetricKind::Counter,
    &[],
    "Times that the configuration was read again, at SIGHUP or because its file had changed.",
);

/// Times that it was wrong.
pub static CONFIG_RELOAD_FAILURES: Metric = metric(
    "content_factory.config.reload.failures",
    "{reload}",
    MetricKind::Counter,
    &[],
    "Times that the configuration was read again and was wrong, so that the one of before is kept.",
);

/// Settings that wait.
pub static CONFIG_RESTART_NEEDED: Metric = metric(
    "content_factory.config.restart_needed",
    "{setting}",
    MetricKind::Gauge,
    &[],
    "Settings that were changed and take effect with a restart only; `/status` names them.",
);
