//! Spans that come one at a time and not from the data path: of tasks, and of calls of AI services.
//!
//! Their texts are clean already. Never waits: what does not fit into the queue pushes the oldest out, counted.

use std::time::Duration;

use crate::model::telemetry::Signal;
use crate::model::trace::{SpanId, TraceId};
use crate::semconv;
use crate::telemetry::intake::Intake;
use crate::telemetry::{otlp, wire};

/// In `ScopeSpans`.
const SPANS: u32 = 2;
/// In `Span`.
pub(crate) const ATTRIBUTES: u32 = 9;
const STATUS_ERROR: u64 = 2;
/// Sampled, and known to have its parent elsewhere.
pub(crate) const FLAGS_REMOTE: u32 = 0x301;
/// Sampled, and known to have no parent elsewhere.
pub(crate) const FLAGS_LOCAL: u32 = 0x101;

/// The way out for such spans, each a request.
#[derive(Clone, Debug)]
pub(crate) struct LoneSpans {
    intake: Intake,
    resource: Vec<u8>,
    scope: Vec<u8>,
}

/// What all of them have.
pub(crate) struct LoneSpan<'s> {
    pub(crate) trace_id: TraceId,
    pub(crate) id: [u8; 8],
    pub(crate) parent: Option<SpanId>,
    /// As OTLP numbers them.
    pub(crate) kind: u64,
    pub(crate) ended_unix_nanos: u64,
    pub(crate) duration: Duration,
    /// Makes it a failed one.
    pub(crate) error_type: Option<&'s str>,
}

impl LoneSpans {
    pub(crate) fn new(intake: Intake, resource: Vec<u8>, scope: Vec<u8>) -> Self {
        Self { intake, resource, scope }
    }

    /// Takes a span that `append` writes with this number as its id, unless it has one of its own.
    pub(crate) fn push(&self, append: impl FnOnce(&mut Vec<u8>, u64)) {
        let mut encoded = Vec::with_capacity(512);
        // zero is no id
        append(&mut encoded, fastrand::u64(1..));
        let request = otlp::request(&self.resource, &self.scope, &encoded);
        self.intake.push(Signal::Traces, request).expect("a span of our own is a request of OTLP");
    }
}

impl LoneSpan<'_> {
    /// Appends it as an item of `ScopeSpans`, with the attributes that are its own.
    pub(crate) fn append(&self, out: &mut Vec<u8>, name: &[u8], attributes: impl FnOnce(&mut Vec<u8>)) {
        let duration = u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX);
        wire::message(out, SPANS, |out| {
            wire::bytes_field(out, 1, &self.trace_id.0);
            wire::bytes_field(out, 2, &self.id);
            if let Some(parent) = &self.parent {
                wire::bytes_field(out, 4, &parent.0);
            }
            wire::bytes_field(out, 5, name);
            wire::varint_field(out, 6, self.kind);
            wire::fixed64_field(out, 7, self.ended_unix_nanos.saturating_sub(duration));
            wire::fixed64_field(out, 8, self.ended_unix_nanos);
            attributes(out);
            if let Some(class) = self.error_type {
                wire::text_attribute(out, ATTRIBUTES, semconv::ERROR_TYPE, class.as_bytes());
                wire::message(out, 15, |out| wire::varint_field(out, 3, STATUS_ERROR));
            }
            wire::fixed32_field(out, 16, if self.parent.is_some() { FLAGS_REMOTE } else { FLAGS_LOCAL });
        });
    }
}
