//! Spans of calls of AI services: CLIENT, below the span that the application made the call in.

use crate::model::ai::AiCall;
use crate::semconv;
use crate::telemetry::intake::Intake;
use crate::telemetry::lone_span::{ATTRIBUTES, LoneSpan, LoneSpans};
use crate::telemetry::wire;

const KIND_CLIENT: u64 = 3;

/// The way out for calls of AI services.
#[derive(Clone, Debug)]
pub struct AiSpans(LoneSpans);

impl AiSpans {
    pub(crate) fn new(intake: Intake, resource: Vec<u8>, scope: Vec<u8>) -> Self {
        Self(LoneSpans::new(intake, resource, scope))
    }

    /// Takes a call that has ended.
    pub fn push(&self, call: &AiCall) {
        self.0.push(|out, id| append(out, call, id));
    }
}

fn append(out: &mut Vec<u8>, call: &AiCall, id: u64) {
    let model = call.request_model.as_ref().map_or("", |model| model.as_str());
    let name = format!("{} {model}", call.operation.label());
    let span = LoneSpan {
        trace_id: call.trace_id,
        id: id.to_be_bytes(),
        parent: call.parent,
        kind: KIND_CLIENT,
        ended_unix_nanos: call.ended_unix_nanos,
        duration: call.duration,
        error_type: call.error_type.as_ref().map(|class| class.as_str()),
    };
    span.append(out, name.trim_end().as_bytes(), |out| attributes(out, call));
}

fn attributes(out: &mut Vec<u8>, call: &AiCall) {
    let texts = [
        (semconv::GEN_AI_OPERATION_NAME, Some(call.operation.label())),
        (semconv::GEN_AI_PROVIDER_NAME, Some(call.provider.as_str())),
        (semconv::GEN_AI_REQUEST_MODEL, call.request_model.as_ref().map(|model| model.as_str())),
        (semconv::GEN_AI_RESPONSE_MODEL, call.response_model.as_ref().map(|model| model.as_str())),
        (semconv::SERVER_ADDRESS, Some(call.server.0.as_str())),
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
    use std::time::Duration;

    use crate::model::ai::AiOperation;
    use crate::model::trace::{SpanId, TraceId};
    use crate::redact::Clean;
    use crate::telemetry::lone_span::{FLAGS_LOCAL, FLAGS_REMOTE};
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
