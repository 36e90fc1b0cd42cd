//! What a sender is told, in the words of its protocol: by the status of gRPC or HTTP, and with a message of `google.rpc.Status`.
//!
//! Whether it should come again is the whole point: what is full for now is, what cannot be read is not
//! (OTLP specification, "OTLP/gRPC Response" and "OTLP/HTTP Response").

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tonic::{Code, Status};

use crate::model::telemetry::Signal;
use crate::telemetry::wire;

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How a request came, and how it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Grpc,
    /// `application/x-protobuf` over HTTP.
    Protobuf,
    /// `application/json` over HTTP; also for those who did not say what they speak.
    Json,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "found no path of OTLP, expected /v1/traces, /v1/metrics or /v1/logs, or Export of their services over gRPC"
    )]
    Path,
    #[error("found another method, expected POST")]
    Method,
    #[error("found another media type, expected application/x-protobuf, application/json or application/grpc")]
    MediaType,
    #[error("found another coding, expected gzip, zstd or none")]
    Coding,
    #[error("found a body that is no export request, expected OTLP")]
    Malformed,
    #[error("found JSON that is no export request from line {0}, column {1} on, expected OTLP")]
    NotJson(usize, usize),
    #[error("found values within values, expected at most 32 of them")]
    TooDeep,
    #[error("found more than {} MiB, expected a smaller request", .0 >> 20)]
    TooLarge(usize),
    #[error("found a request that grows too much, expected few resources for many items")]
    Growing,
    #[error("found an item that is larger than the queue, expected a smaller one")]
    Item,
    #[error("found no whole request within 10 s, expected it at once")]
    Slow,
    #[error("too much comes in at once, expected to come again")]
    Busy,
    #[error("the queue is full, expected to come again")]
    Full,
    #[error(
        "found what this sidecar sends, expected what an application sends: telemetry.endpoint leads into telemetry.intake"
    )]
    Circle,
}

/// When to come again: by then the disk has taken what is in memory.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// Why requests are refused, as the metric names it.
pub(super) const REASONS: [&str; 8] =
    ["unsupported", "malformed", "too_large", "slow", "busy", "full", "circle", "connections"];

impl Refusal {
    /// The value of the label `reason`, as its place in `REASONS`.
    pub(super) fn reason(self) -> usize {
        match self {
            Self::Path | Self::Method | Self::MediaType | Self::Coding => 0,
            Self::Malformed | Self::NotJson(..) | Self::TooDeep => 1,
            Self::TooLarge(_) | Self::Growing | Self::Item => 2,
            Self::Slow => 3,
            Self::Busy => 4,
            Self::Full => 5,
            Self::Circle => 6,
        }
    }

    fn codes(self) -> (Code, StatusCode) {
        match self {
            Self::Path => (Code::Unimplemented, StatusCode::NOT_FOUND),
            Self::Method => (Code::Unimplemented, StatusCode::METHOD_NOT_ALLOWED),
            Self::MediaType | Self::Coding => (Code::Unimplemented, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::Malformed | Self::NotJson(..) | Self::TooDeep => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
            Self::TooLarge(_) | Self::Growing | Self::Item => (Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE),
            Self::Slow => (Code::DeadlineExceeded, StatusCode::REQUEST_TIMEOUT),
            Self::Busy | Self::Full | Self::Circle => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// The answer.
    pub(super) fn answer(self, form: Form) -> Response<Body> {
        let (code, status) = self.codes();
        let message = self.to_string();
        let details = status_message(code, &message);
        if form == Form::Grpc {
            return Status::with_details(code, message, details.into())
                .into_http::<Full<Bytes>>()
                .map(BodyExt::boxed_unsync);
        }
        let mut response = match form {
            Form::Json => http(form, json!({"code": code as i32, "message": message}).to_string().into()),
            _ => http(form, details),
        };
        *response.status_mut() = status;
        let headers = response.headers_mut();
        match self {
            Self::Method => drop(headers.insert(header::ALLOW, HeaderValue::from_static("POST"))),
            Self::Coding => drop(headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"))),
            _ if code == Code::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(COME_AGAIN.as_secs()));
            }
            _ => {}
        }
        response
    }
}

/// A `google.rpc.Status`, with a `RetryInfo` for those who should come again.
fn status_message(code: Code, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    wire::varint_field(&mut out, 1, code as u64);
    wire::bytes_field(&mut out, 2, message.as_bytes());
    if code == Code::Unavailable {
        wire::message(&mut out, 3, |any| {
            wire::bytes_field(any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
            wire::message(any, 2, |info| {
                wire::message(info, 1, |delay| wire::varint_field(delay, 1, COME_AGAIN.as_secs()));
            });
        });
    }
    out
}

/// Success, in full or in part: so many items were left out, for this reason.
pub(super) fn success(form: Form, signal: Signal, left_out: u64, why: &str) -> Response<Body> {
    if form == Form::Json {
        let name = match signal {
            Signal::Metrics => "rejectedDataPoints",
            Signal::Logs => "rejectedLogRecords",
            Signal::Traces | Signal::Envelopes => "rejectedSpans",
        };
        let part = json!({"partialSuccess": {name: left_out.to_string(), "errorMessage": why}});
        let whole = json!({});
        return http(form, if left_out > 0 { part } else { whole }.to_string().into());
    }
    let mut message = Vec::new();
    if left_out > 0 {
        wire::message(&mut message, 1, |part| {
            wire::varint_field(part, 1, left_out);
            wire::bytes_field(part, 2, why.as_bytes());
        });
    }
    if form == Form::Protobuf {
        return http(form, message);
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.append(&mut message);
    let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::from(frame).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn http(form: Form, body: Vec<u8>) -> Response<Body> {
    let media_type = if form == Form::Json { "application/json" } else { "application/x-protobuf" };
    let mut response = Response::new(Full::from(body).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
