//! The metrics of the admin port itself.

use crate::model::catalogue::metric::{Metric, MetricKind, metric};

/// What it refused.
pub static ADMIN_REFUSALS: Metric = metric(
    "content_factory.admin.refusals",
    "{refusal}",
    MetricKind::Counter,
    &["reason"],
    "Requests and connections that the admin port refused: too many (rate, connections), nobody known (stranger), a token that \
     nobody gave out (token) or that only reads (read_only), a foreign Host or Origin (foreign), or TLS that did not come \
     about (plain_http, handshake, handshake_timeout).",
);
