//! What a receiver's answer means. Pure.
//!
//! Source: OTLP 1.9, sections "Failures" and "Throttling" of both transports, and RFC 9110 for status codes.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::Code;

use crate::telemetry::wire::{Fields, Value};

/// A destination is never left alone for longer, whatever it asks for.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What a receiver said, or that it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has the request, but for the rejected items.
    Accepted {
        /// How many items it refused.
        rejected: u64,
        /// Why, or a warning.
        message: String,
    },
    /// It said yes, in words that nobody can read: it may have the request, so it is not resent.
    Unreadable(String),
    /// Not now; perhaps it said for how long.
    Later {
        /// Not before this.
        floor: Option<Duration>,
        /// Its words, or what failed.
        reason: String,
    },
    /// The request is too large.
    TooLarge(String),
    /// It may be that it only does not know the compression.
    UnknownCoding(String),
    /// Not with this token or certificate.
    Unauthorized(String),
    /// Never.
    Refused(String),
}

impl Answer {
    /// No answer at all.
    pub(crate) fn none(reason: impl Into<String>) -> Self {
        Self::Later { floor: None, reason: reason.into() }
    }
}

/// Reads a gRPC status other than OK.
pub(crate) fn of_grpc_error(code: Code, message: &str, details: &[u8]) -> Answer {
    let text = format!("{code:?}: {message}");
    let floor = retry_info(details).map(|delay| delay.min(LONGEST_WAIT));
    match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Answer::Later { floor, reason: text },
        Code::ResourceExhausted if floor.is_some() => Answer::Later { floor, reason: text },
        Code::ResourceExhausted => Answer::TooLarge(text),
        Code::Unauthenticated | Code::PermissionDenied => Answer::Unauthorized(text),
        // tonic and Go say so of an unknown grpc-encoding; of an unknown service, too
        Code::Unimplemented => Answer::UnknownCoding(text),
        // Go servers say so of a body whose compression they cannot undo
        Code::Internal if message.contains("decompress") || message.contains("encoding") => Answer::UnknownCoding(text),
        _ => Answer::Refused(text),
    }
}

/// Reads an HTTP status other than 2xx, and what a gRPC receiver's proxy may answer in its place.
pub(crate) fn of_http_error(status: StatusCode, headers: &HeaderMap, body: &[u8], now: SystemTime) -> Answer {
    let said = error_message(body);
    let text = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    match status.as_u16() {
        429 | 502 | 503 | 504 => Answer::Later { floor: retry_after(headers, now), reason: text },
        413 => Answer::TooLarge(text),
        401 | 403 => Answer::Unauthorized(text),
        400 | 415 => Answer::UnknownCoding(text),
        _ => Answer::Refused(text),
    }
}

/// Reads the body of a success: all three signals answer in the same shape.
pub(crate) fn of_success(body: &[u8]) -> Answer {
    let Ok(response) = ExportTraceServiceResponse::decode(body) else {
        return Answer::Unreadable(format!("the answer of {} bytes is no export response", body.len()));
    };
    let partial = response.partial_success.unwrap_or_default();
    Answer::Accepted { rejected: u64::try_from(partial.rejected_spans).unwrap_or(0), message: partial.error_message }
}

/// Reads a success in JSON, as some vendors answer whatever was sent.
pub(crate) fn of_json_success(body: &[u8]) -> Answer {
    let Ok(response) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Answer::Unreadable(format!("the answer of {} bytes is no JSON", body.len()));
    };
    let partial = &response["partialSuccess"];
    let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"].iter().find_map(|key| {
        let count = partial.get(key)?;
        count.as_u64().or_else(|| count.as_str()?.parse().ok()) // 64-bit numbers are texts in protobuf's JSON
    });
    let message = partial["errorMessage"].as_str().unwrap_or_default().to_owned();
    Answer::Accepted { rejected: rejected.unwrap_or(0), message }
}

/// `Retry-After`: seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let delay = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(delay.min(LONGEST_WAIT))
}

/// The delay of a `google.rpc.RetryInfo` among the details of a `google.rpc.Status`.
fn retry_info(status: &[u8]) -> Option<Duration> {
    let details = fields(status, 3).find(|detail| {
        let url = fields(detail, 1).next().unwrap_or_default();
        url.ends_with(b"google.rpc.RetryInfo")
    })?;
    let delay = fields(fields(details, 2).next()?, 1).next().unwrap_or_default();
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields(delay).flatten() {
        match (field.number, field.value) {
            (1, Value::Number(number)) => seconds = number,
            (2, Value::Number(number)) => nanos = u32::try_from(number).unwrap_or(0),
            _ => {}
        }
    }
    (seconds <= i64::MAX as u64)
        .then(|| Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

/// The text of a `google.rpc.Status`, as OTLP/HTTP asks for, or of a plain answer.
fn error_message(body: &[u8]) -> String {
    let well_formed = Fields(body).all(|field| field.is_ok());
    let text = well_formed.then(|| fields(body, 2).next()).flatten().unwrap_or(body);
    let text = String::from_utf8_lossy(&text[..text.len().min(300)]);
    text.chars().filter(|character| !character.is_control()).collect()
}

/// The byte values of one field.
fn fields(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    Fields(message).flatten().filter_map(move |field| match field.value {
        Value::Bytes(bytes) if field.number == number => Some(bytes),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::wire;

    fn later(answer: &Answer) -> Option<Duration> {
        match answer {
            Answer::Later { floor, .. } => *floor,
            other => panic!("{other:?}"),
        }
    }

    fn status_with_retry_info(seconds: u64, nanos: u64) -> Vec<u8> {
        let mut out = Vec::new();
        wire::message(&mut out, 3, |out| {
            wire::bytes_field(out, 1, b"type.googleapis.com/google.rpc.RetryInfo");
            wire::message(out, 2, |out| {
                wire::message(out, 1, |out| {
                    wire::varint_field(out, 1, seconds);
                    wire::varint_field(out, 2, nanos);
                });
            });
        });
        out
    }

    #[test]
    fn retry_info_is_a_floor_and_turns_exhaustion_into_patience() {
        let details = status_with_retry_info(1, 500_000_000);
        let answer = of_grpc_error(Code::ResourceExhausted, "busy", &details);
        assert_eq!(later(&answer), Some(Duration::from_millis(1_500)));
        assert!(matches!(of_grpc_error(Code::ResourceExhausted, "large", &[]), Answer::TooLarge(_)));
        let long = of_grpc_error(Code::Unavailable, "", &status_with_retry_info(86_400, 0));
        assert_eq!(later(&long), Some(LONGEST_WAIT));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (value, expected) in [
            ("7", Some(7)),
            ("Sun, 09 Sep 2001 01:46:50 GMT", Some(10)),
            ("Sun, 09 Sep 2001 01:46:30 GMT", Some(0)),
            ("x", None),
        ] {
            let headers = [(header::RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
            let answer = of_http_error(StatusCode::SERVICE_UNAVAILABLE, &headers, b"", now);
            assert_eq!(later(&answer), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn what_may_be_retried_is_told_from_what_may_not() {
        let none = HeaderMap::new();
        for (status, kind) in [
            (429, "Later"),
            (502, "Later"),
            (413, "TooLarge"),
            (415, "UnknownCoding"),
            (401, "Unauthorized"),
            (403, "Unauthorized"),
            (500, "Refused"),
            (302, "Refused"),
        ] {
            let answer = of_http_error(StatusCode::from_u16(status).unwrap(), &none, b"why", SystemTime::UNIX_EPOCH);
            assert!(format!("{answer:?}").starts_with(kind), "{status}: {answer:?}");
        }
        for (code, kind) in [
            (Code::Unavailable, "Later"),
            (Code::Unauthenticated, "Unauthorized"),
            (Code::PermissionDenied, "Unauthorized"),
            (Code::Unknown, "Refused"),
            (Code::Unimplemented, "UnknownCoding"),
        ] {
            let answer = of_grpc_error(code, "", &[]);
            assert!(format!("{answer:?}").starts_with(kind), "{code:?}: {answer:?}");
        }
    }

    #[test]
    fn partial_success_and_garbage_are_told_apart() {
        assert_eq!(of_success(b""), Answer::Accepted { rejected: 0, message: String::new() });
        assert_eq!(of_success(b"\x0a\x06\x08\x03\x12\x02no"), Answer::Accepted { rejected: 3, message: "no".into() });
        assert!(matches!(of_success(b"<html>"), Answer::Unreadable(_)));
        let json = br#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"no"}}"#;
        assert_eq!(of_json_success(json), Answer::Accepted { rejected: 2, message: "no".into() });
        assert_eq!(of_json_success(b"{}"), Answer::Accepted { rejected: 0, message: String::new() });
    }
}
