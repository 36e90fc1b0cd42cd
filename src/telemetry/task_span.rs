//! Spans of the application's tasks: INTERNAL, below the span that a task was begun in.
//!
//! Its texts are clean already. Never waits: what does not fit into the queue pushes the oldest out, counted.

use std::time::Duration;

use crate::model::task::TaskSpan;
use crate::model::telemetry::Signal;
use crate::semconv;
use crate::telemetry::intake::Intake;
use crate::telemetry::{otlp, wire};

/// In `ScopeSpans`.
const SPANS: u32 = 2;
/// In `Span`.
const ATTRIBUTES: u32 = 9;
const KIND_INTERNAL: u64 = 1;
const STATUS_ERROR: u64 = 2;
/// Sampled, and known to have its parent elsewhere.
const FLAGS: u32 = 0x301;

/// The way out for tasks.
#[derive(Clone, Debug)]
pub struct TaskSpans {
    intake: Intake,
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl TaskSpans {
    pub(crate) fn new(intake: Intake, resource: Vec<u8>, scope: Vec<u8>) -> Self {
        Self { intake, resource, scope }
    }

    /// Takes a task that has ended.
    pub fn push(&self, span: &TaskSpan) {
        let mut encoded = Vec::with_capacity(256);
        // zero is no id
        append(&mut encoded, span, fastrand::u64(1..));
        let request = otlp::request(&self.resource, &self.scope, &encoded);
        self.intake.push(Signal::Traces, request).expect("a span of our own is a request of OTLP");
    }
}

fn append(out: &mut Vec<u8>, span: &TaskSpan, id: u64) {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    wire::message(out, SPANS, |out| {
        wire::bytes_field(out, 1, &span.trace_id.0);
        wire::bytes_field(out, 2, &id.to_be_bytes());
        wire::bytes_field(out, 4, &span.parent.0);
        wire::bytes_field(out, 5, span.name.as_str().as_bytes());
        wire::varint_field(out, 6, KIND_INTERNAL);
        wire::fixed64_field(out, 7, span.ended_unix_nanos.saturating_sub(nanos(span.duration)));
        wire::fixed64_field(out, 8, span.ended_unix_nanos);
        if let Some(class) = &span.error_type {
            wire::text_attribute(out, ATTRIBUTES, semconv::ERROR_TYPE, class.as_str().as_bytes());
            wire::message(out, 15, |out| wire::varint_field(out, 3, STATUS_ERROR));
        }
        wire::fixed32_field(out, 16, FLAGS);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trace::{SpanId, TraceId};
    use crate::redact::Clean;
    use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
    use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
    use prost::Message;

    #[test]
    fn a_task_is_an_internal_span_below_the_one_that_it_was_begun_in() {
        let mut span = TaskSpan {
            name: Clean::literal("video_generation"),
            trace_id: TraceId([0xab; 16]),
            parent: SpanId([0xcd; 8]),
            ended_unix_nanos: 5_000_000_000,
            duration: Duration::from_secs(3),
            error_type: Some(Clean::literal("ValueError")),
        };
        let mut encoded = Vec::new();
        append(&mut encoded, &span, 7);
        span.error_type = None;
        append(&mut encoded, &span, 8);
        let spans = ScopeSpans::decode(encoded.as_slice()).unwrap().spans;
        let failed = &spans[0];
        assert_eq!((failed.name.as_str(), failed.kind()), ("video_generation", SpanKind::Internal));
        assert_eq!((&failed.trace_id[..], &failed.parent_span_id[..]), (&[0xab; 16][..], &[0xcd; 8][..]));
        assert_eq!((failed.start_time_unix_nano, failed.end_time_unix_nano), (2_000_000_000, 5_000_000_000));
        assert_eq!(failed.status.as_ref().unwrap().code(), StatusCode::Error);
        assert_eq!((failed.attributes[0].key.as_str(), failed.attributes.len()), ("error.type", 1));
        assert_eq!((spans[1].status.is_none(), spans[1].attributes.len(), spans[1].flags), (true, 0, FLAGS));
    }
}
