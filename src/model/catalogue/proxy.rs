//! What the data path holds for its clients.

use crate::model::catalogue::metric::{Metric, MetricKind, metric};

/// Memory for clients.
pub static PROXY_HELD: Metric = metric(
    "content_factory.proxy.memory.held",
    "By",
    MetricKind::UpDownCounter,
    &[],
    "Memory that is held for requests under way and for connections of HTTP/2: `proxy.limits.memory` bounds it.",
);
