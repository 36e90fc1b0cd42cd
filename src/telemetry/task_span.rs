//! Spans of the application's tasks: INTERNAL, below the span that a task was begun in; of Celery's, which a message has
//! a worker run, CONSUMER.
//!
//! Its texts are clean already. Never waits: what does not fit into the queue pushes the oldest out, counted.

use std::time::Duration;

use crate::model::task::{TaskMessage, TaskSpan};
use crate::model::telemetry::Signal;
use crate::semconv;
use crate::telemetry::intake::Intake;
use crate::telemetry::{otlp, wire};

/// In `ScopeSpans`.
const SPANS: u32 = 2;
/// In `Span`.
const ATTRIBUTES: u32 = 9;
const KIND_INTERNAL: u64 = 1;
const KIND_CONSUMER: u64 = 5;
const STATUS_ERROR: u64 = 2;
/// Sampled, and known to have its parent elsewhere.
const FLAGS: u32 = 0x301;
/// Sampled, and known to have no parent elsewhere.
const FLAGS_OF_A_ROOT: u32 = 0x101;

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

fn append(out: &mut Vec<u8>, span: &TaskSpan, random: u64) {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let (id, kind) =
        span.message.as_ref().map_or((random.to_be_bytes(), KIND_INTERNAL), |message| (message.span.0, KIND_CONSUMER));
    wire::message(out, SPANS, |out| {
        wire::bytes_field(out, 1, &span.trace_id.0);
        wire::bytes_field(out, 2, &id);
        if let Some(parent) = span.parent {
            wire::bytes_field(out, 4, &parent.0);
        }
        match &span.message {
            // a queue holds tasks of many names: its own would tell them apart by nothing
            Some(_) => wire::bytes_field(out, 5, &[b"process ", span.name.as_str().as_bytes()].concat()),
            None => wire::bytes_field(out, 5, span.name.as_str().as_bytes()),
        }
        wire::varint_field(out, 6, kind);
        wire::fixed64_field(out, 7, span.ended_unix_nanos.saturating_sub(nanos(span.duration)));
        wire::fixed64_field(out, 8, span.ended_unix_nanos);
        if let Some(message) = &span.message {
            append_message(out, message, span.name.as_str());
        }
        if let Some(class) = &span.error_type {
            wire::text_attribute(out, ATTRIBUTES, semconv::ERROR_TYPE, class.as_str().as_bytes());
            wire::message(out, 15, |out| wire::varint_field(out, 3, STATUS_ERROR));
        }
        wire::fixed32_field(out, 16, if span.parent.is_some() { FLAGS } else { FLAGS_OF_A_ROOT });
    });
}

/// What is known of the message, by the conventions of messaging.
fn append_message(out: &mut Vec<u8>, message: &TaskMessage, task: &str) {
    let mut put = |key, value: &str| wire::text_attribute(out, ATTRIBUTES, key, value.as_bytes());
    put(semconv::MESSAGING_SYSTEM, "celery");
    put(semconv::MESSAGING_OPERATION_NAME, "process");
    put(semconv::MESSAGING_OPERATION_TYPE, "process");
    put(semconv::CELERY_TASK, task);
    put(semconv::MESSAGING_CLIENT_ID, message.worker.as_str());
    if let Some(queue) = &message.queue {
        put(semconv::MESSAGING_DESTINATION_NAME, queue.as_str());
    }
    if let Some(id) = message.id {
        put(semconv::MESSAGING_MESSAGE_ID, &id.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::task::TaskId;
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
            parent: Some(SpanId([0xcd; 8])),
            ended_unix_nanos: 5_000_000_000,
            duration: Duration::from_secs(3),
            error_type: Some(Clean::literal("ValueError")),
            message: None,
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
    #[test]
    fn a_task_of_celery_is_a_consumer_span_that_may_begin_its_trace() {
        let message = TaskMessage {
            span: SpanId([7; 8]),
            id: TaskId::parse("59226a2a-2b64-4f0b-9c3e-000000000001"),
            queue: Some(Clean::literal("video-queue")),
            worker: Clean::literal("w1@vm"),
        };
        let mut span = TaskSpan {
            name: Clean::literal("factory.render"),
            trace_id: TraceId([0xab; 16]),
            parent: None,
            ended_unix_nanos: 5_000_000_000,
            duration: Duration::from_secs(3),
            error_type: Some(Clean::literal("lost")),
            message: Some(message),
        };
        let mut encoded = Vec::new();
        append(&mut encoded, &span, 1);
        span.parent = Some(SpanId([0xcd; 8]));
        append(&mut encoded, &span, 1);
        let spans = ScopeSpans::decode(encoded.as_slice()).unwrap().spans;
        assert_eq!((spans[0].name.as_str(), spans[0].kind()), ("process factory.render", SpanKind::Consumer));
        assert_eq!(
            (&spans[0].span_id[..], spans[0].parent_span_id.len(), spans[0].flags),
            (&[7; 8][..], 0, FLAGS_OF_A_ROOT)
        );
        assert_eq!((spans[1].parent_span_id.len(), spans[1].flags), (8, FLAGS));
        let keys: Vec<&str> = spans[0].attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "messaging.system",
                "messaging.operation.name",
                "messaging.operation.type",
                "content_factory.celery.task",
                "messaging.client.id",
                "messaging.destination.name",
                "messaging.message.id",
                "error.type",
            ]
        );
    }
}
