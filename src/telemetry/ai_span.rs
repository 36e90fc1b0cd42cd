//! Spans of calls of AI services: CLIENT, below the span that the application made the call in.
//!
//! Its texts are clean already. Never waits: what does not fit into the queue pushes the oldest out, counted.

use std::time::Duration;

use crate::model::ai::AiCall;
use crate::model::telemetry::Signal;
use crate::semconv;
use crate::telemetry::intake::Intake;
use crate::telemetry::{otlp, wire};

/// In `ScopeSpans`.
const SPANS: u32 = 2;
/// In `Span`.
const ATTRIBUTES: u32 = 9;
const KIND_CLIENT: u64 = 3;
const STATUS_ERROR: u64 = 2;
/// Sampled, and known to have its parent elsewhere, or none.
const FLAGS_REMOTE: u32 = 0x301;
const FLAGS_LOCAL: u32 = 0x101;

/// The way out for calls of AI services.
#[derive(Clone, Debug)]
pub struct AiSpans {
    intake: Intake,
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl AiSpans {
    pub(crate) fn new(intake: Intake, resource: Vec<u8>, scope: Vec<u8>) -> Self {
        Self { intake, resource, scope }
    }

    /// Takes a call that has ended.
    pub fn push(&self, call: &AiCall) {
        let mut encoded = Vec::with_capacity(512);
        // zero is no id
        append(&mut encoded, call, fastrand::u64(1..));
        let request = otlp::request(&self.resource, &self.scope, &encoded);
        self.intake.push(Signal::Traces, request).expect("a span of our own is a request of OTLP");
    }
}

fn append(out: &mut Vec<u8>, call: &AiCall, id: u64) {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    wire::message(out, SPANS, |out| {
        wire::bytes_field(out, 1, &call.trace_id.0);
        wire::bytes_field(out, 2, &id.to_be_bytes());
        if let Some(parent) = &call.parent {
            wire::bytes_field(out, 4, &parent.0);
        }
        let model = call.request_model.as_ref().map_or("", |model| model.as_str());
        wire::bytes_field(out, 5, format!("{} {model}", call.operation.label()).trim_end().as_bytes());
        wire::varint_field(out, 6, KIND_CLIENT);
        wire::fixed64_field(out, 7, call.ended_unix_nanos.saturating_sub(nanos(call.duration)));
        wire::fixed64_field(out, 8, call.ended_unix_nanos);
        attributes(out, call);
        if call.error_type.is_some() {
            wire::message(out, 15, |out| wire::varint_field(out, 3, STATUS_ERROR));
        }
        wire::fixed32_field(out, 16, if call.parent.is_some() { FLAGS_REMOTE } else { FLAGS_LOCAL });
    });
}

fn attributes(out: &mut Vec<u8>, call: &AiCall) {
    let texts = [
        (semconv::GEN_AI_OPERATION_NAME, Some(call.operation.label())),
        (semconv::GEN_AI_PROVIDER_NAME, Some(call.provider.as_str())),
        (semconv::GEN_AI_REQUEST_MODEL, call.request_model.as_ref().map(|model| model.as_str())),
        (semconv::GEN_AI_RESPONSE_MODEL, call.response_model.as_ref().map(|model| model.as_str())),
        (semconv::SERVER_ADDRESS, Some(call.server.0.as_str())),
        (semconv::ERROR_TYPE, call.error_type.as_ref().map(|class| class.as_str())),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            wire::text_attribute(out, ATTRIBUTES, key, value.as_bytes());
        }
    }
    let tokens = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
    let numbers = [
        (semconv::SERVER_PORT, Some(i64::from(call.server.1))),
        (semconv::HTTP_RESPONSE_STATUS_CODE, Some(i64::from(call.status)).filter(|status| *status > 0)),
        (semconv::GEN_AI_USAGE_INPUT_TOKENS, tokens(call.input_tokens)),
        (semconv::GEN_AI_USAGE_OUTPUT_TOKENS, tokens(call.output_tokens)),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            wire::int_attribute(out, ATTRIBUTES, key, value);
        }
    }
    if call.is_stream {
        wire::flag_attribute(out, ATTRIBUTES, (semconv::GEN_AI_REQUEST_STREAM, true));
    }
    if let Some(first) = call.first_chunk {
        wire::double_attribute(out, ATTRIBUTES, semconv::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, first.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ai::AiOperation;
    use crate::model::trace::{SpanId, TraceId};
    use crate::redact::Clean;
    use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
    use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
    use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
    use prost::Message;

    #[test]
    fn a_call_is_a_client_span_below_the_one_that_made_it() {
        let mut call = AiCall {
            operation: AiOperation::Chat,
            provider: Clean::literal("openai"),
            server: (Clean::literal("api.openai.com"), 443),
            request_model: Some(Clean::literal("gpt-5")),
            response_model: Some(Clean::literal("gpt-5-2026")),
            is_stream: true,
            trace_id: TraceId([0xab; 16]),
            parent: Some(SpanId([0xcd; 8])),
            ended_unix_nanos: 5_000_000_000,
            duration: Duration::from_secs(3),
            first_chunk: Some(Duration::from_millis(250)),
            status: 200,
            error_type: None,
            input_tokens: Some(12),
            output_tokens: Some(34),
        };
        let mut encoded = Vec::new();
        append(&mut encoded, &call, 7);
        call = AiCall {
            request_model: None,
            parent: None,
            error_type: Some(Clean::literal("timeout")),
            status: 0,
            ..call
        };
        append(&mut encoded, &call, 8);
        let spans = ScopeSpans::decode(encoded.as_slice()).unwrap().spans;
        let whole = &spans[0];
        assert_eq!((whole.name.as_str(), whole.kind(), whole.flags), ("chat gpt-5", SpanKind::Client, FLAGS_REMOTE));
        assert_eq!((&whole.trace_id[..], &whole.parent_span_id[..]), (&[0xab; 16][..], &[0xcd; 8][..]));
        assert_eq!((whole.start_time_unix_nano, whole.end_time_unix_nano), (2_000_000_000, 5_000_000_000));
        assert_eq!((whole.attributes.len(), whole.status.is_none()), (11, true));
        let failed = &spans[1];
        assert_eq!((failed.name.as_str(), failed.parent_span_id.len(), failed.flags), ("chat", 0, FLAGS_LOCAL));
        assert_eq!(failed.status.as_ref().unwrap().code(), StatusCode::Error);
    }
}
