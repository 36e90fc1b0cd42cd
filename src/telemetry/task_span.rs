//! Spans of the application's tasks: INTERNAL, below the span that a task was begun in; of Celery's, which a message has
//! a worker run, CONSUMER.

use crate::model::task::{TaskMessage, TaskSpan};
use crate::semconv;
use crate::telemetry::intake::Intake;
use crate::telemetry::lone_span::{ATTRIBUTES, LoneSpan, LoneSpans};
use crate::telemetry::wire;

const KIND_INTERNAL: u64 = 1;
const KIND_CONSUMER: u64 = 5;

/// The way out for tasks.
#[derive(Clone, Debug)]
pub struct TaskSpans(LoneSpans);

impl TaskSpans {
    pub(crate) fn new(intake: Intake, resource: Vec<u8>, scope: Vec<u8>) -> Self {
        Self(LoneSpans::new(intake, resource, scope))
    }

    /// Takes a task that has ended.
    pub fn push(&self, span: &TaskSpan) {
        self.0.push(|out, id| append(out, span, id));
    }
}

fn append(out: &mut Vec<u8>, task: &TaskSpan, random: u64) {
    let (id, kind) =
        task.message.as_ref().map_or((random.to_be_bytes(), KIND_INTERNAL), |message| (message.span.0, KIND_CONSUMER));
    let span = LoneSpan {
        trace_id: task.trace_id,
        id,
        parent: task.parent,
        kind,
        ended_unix_nanos: task.ended_unix_nanos,
        duration: task.duration,
        error_type: task.error_type.as_ref().map(|class| class.as_str()),
    };
    let name = task.name.as_str();
    match &task.message {
        // a queue holds tasks of many names: its own would tell them apart by nothing
        Some(message) => {
            let whole = [b"process ", name.as_bytes()].concat();
            span.append(out, &whole, |out| append_message(out, message, name));
        }
        None => span.append(out, name.as_bytes(), |_| {}),
    }
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
    use std::time::Duration;

    use crate::model::task::TaskId;
    use crate::model::trace::{SpanId, TraceId};
    use crate::redact::Clean;
    use crate::telemetry::lone_span::{FLAGS_LOCAL, FLAGS_REMOTE};
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
        assert_eq!((spans[1].status.is_none(), spans[1].attributes.len(), spans[1].flags), (true, 0, FLAGS_REMOTE));
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
            (&[7; 8][..], 0, FLAGS_LOCAL)
        );
        assert_eq!((spans[1].parent_span_id.len(), spans[1].flags), (8, FLAGS_REMOTE));
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
