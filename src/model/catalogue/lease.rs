//! The metrics of the lease: who speaks for the cluster, and what hand-overs cost.

use crate::model::catalogue::metric::{Metric, MetricKind, metric};

/// Whether this replica speaks.
pub static LEASE_HELD: Metric = metric(
    "content_factory.lease.held",
    "1",
    MetricKind::UpDownCounter,
    &[],
    "1 while this replica exports what is true of the cluster, else 0; the sum over replicas is 1. There with `lease.enabled` only.",
);

/// Times that it began to.
pub static LEASE_TAKEN: Metric = metric(
    "content_factory.lease.taken",
    "{hand_over}",
    MetricKind::Counter,
    &[],
    "Times that this replica began to export what is true of the cluster.",
);

/// Hand-overs with a hole.
pub static LEASE_GAPS: Metric = metric(
    "content_factory.lease.gaps",
    "{hand_over}",
    MetricKind::Counter,
    &[],
    "Hand-overs to this replica at which it did not know up to where the cluster's counts had been exported, so that some are in no sum.",
);

/// Failures to ask.
pub static LEASE_FAILURES: Metric = metric(
    "content_factory.lease.failures",
    "{question}",
    MetricKind::Counter,
    &["problem"],
    "Questions for the lease that Redis did not answer, or refused, by a word for the reason.",
);
