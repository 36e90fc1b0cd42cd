//! What the way out tells of its work beside the accounts, which are in `mod`.

use crate::model::catalogue::metric::{Metric, MetricKind, metric};

/// Batches that were compressed.
pub static TELEMETRY_COMPRESSIONS: Metric = metric(
    "content_factory.telemetry.compressions",
    "{batch}",
    MetricKind::Counter,
    &["signal", "reason"],
    "Batches that were compressed: for the first time (first), which is once for all attempts and the disk; again because the receiver \
     found them too large (halved) or does not know the coding that they had (other_coding).",
);
