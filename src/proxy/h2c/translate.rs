//! Heads between the engine's HTTP/1.1 and the application's HTTP/2 (RFC 9113, section 8).
//!
//! Fields of one hop end here. What the application may not say is refused; all else is left to the engine, which
//! judges the head that is written here as it judges any other.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::response::Parts;
use http::{Request, StatusCode, Uri};

use crate::model::request::Method;
use crate::proxy::grpc;
use crate::proxy::head::fields::Field;
use crate::proxy::head::lines::field;
use crate::proxy::head::request;

/// A request's head as HTTP/2 has it; `None` when it cannot be said there.
///
/// `upstream` stands for a host that the client has left empty, which HTTP/2 cannot say.
pub(crate) fn request(head: &request::Request<'_, '_>, upstream: &str) -> Option<Request<()>> {
    let host = head.host.filter(|host| !host.is_empty()).unwrap_or(upstream.as_bytes());
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(head.target).build().ok()?;
    let mut request = Request::builder().method(head.method_text).uri(uri).body(()).ok()?;
    let fields = request.headers_mut();
    for (class, name, value) in head.fields() {
        let is_of_the_hop = matches!(
            class,
            Field::Host
                | Field::Connection
                | Field::HopByHop
                | Field::TransferEncoding
                | Field::Upgrade
                | Field::Te
                | Field::ProxyAuth
        );
        if !is_of_the_hop {
            fields.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        }
    }
    // our own word, for this hop: servers of gRPC refuse who does not take trailers
    fields.insert(TE, HeaderValue::from_static("trailers"));
    Some(request)
}

/// How the body of a translated answer is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none, or its length is told.
    Plain,
    /// By chunks: trailers may follow.
    Chunked,
}

/// How a body will be delimited that is not over with its head.
///
/// A length that gRPC tells is left away: its status comes behind the body, where a length leaves no room for it.
pub(crate) fn body_of(parts: &Parts, method: Method) -> Body {
    let is_bodiless =
        method == Method::Head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_told = parts.headers.contains_key(CONTENT_LENGTH) && !is_grpc(parts);
    if is_bodiless || is_told { Body::Plain } else { Body::Chunked }
}

fn is_grpc(parts: &Parts) -> bool {
    parts.headers.get(CONTENT_TYPE).is_some_and(|value| grpc::is_content_type(value.as_bytes()))
}

/// Writes an answer's head as HTTP/1.1, interim or final; `None` when it is not valid.
pub(crate) fn answer(parts: &Parts, body: Body) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    for part in ["HTTP/1.1 ", parts.status.as_str(), " ", parts.status.canonical_reason().unwrap_or_default(), "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in &parts.headers {
        // RFC 9113, section 8.2.1: a blank at an end of a value is for two readers to differ about
        if value.as_bytes().trim_ascii().len() != value.len() {
            return None;
        }
        if body == Body::Plain || name != CONTENT_LENGTH {
            field(name.as_str().as_bytes(), value.as_bytes(), &mut head);
        }
    }
    if body == Body::Chunked {
        field(b"transfer-encoding", b"chunked", &mut head);
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

/// The same of an answer that ends with its head.
pub(crate) fn bare_answer(parts: &Parts) -> Option<Vec<u8>> {
    let mut head = answer(parts, Body::Plain)?;
    if !parts.headers.contains_key(CONTENT_LENGTH) {
        // for a reader of HTTP/1.1 the end would not be here
        head.truncate(head.len() - 2);
        head.extend_from_slice(b"content-length: 0\r\n\r\n");
    }
    Some(head)
}
