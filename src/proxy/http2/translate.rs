//! Heads between HTTP/2 and HTTP/1.1 (RFC 9113, section 8).
//!
//! What only HTTP/2 can get wrong is refused here. All else is left to the engine, which judges the head that is
//! written here as it judges any other: nothing that is not valid HTTP/1.1 can come out of a translation.

use h2::RecvStream;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use http::request::Parts;
use http::{Method as Verb, Response, StatusCode};

use crate::model::request::Refusal;
use crate::proxy::framing::MAX_TRAILERS;
use crate::proxy::head::fields::Field;
use crate::proxy::head::lines::field;
use crate::proxy::head::response;

/// How the body of a translated request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none, or its length is told.
    Plain,
    /// By chunks: the stream's end tells where it ends, and trailers may follow.
    Chunked,
}

/// Writes a request's head as HTTP/1.1.
///
/// # Errors
/// The reason to refuse it.
pub(crate) fn request(parts: &Parts, body: Body) -> Result<Vec<u8>, Refusal> {
    if parts.method == Verb::CONNECT {
        return Err(Refusal::MethodNotAllowed);
    }
    let path = parts.uri.path();
    // an absolute form in `:path` would name another host than `:authority` (RFC 9113, section 8.3.1)
    if !path.starts_with('/') && path != "*" {
        return Err(Refusal::Malformed);
    }
    let target = parts.uri.path_and_query().map_or(path, |target| target.as_str());
    let mut head = Vec::with_capacity(512);
    for part in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    if let Some(host) = host(parts)? {
        field(b"host", host, &mut head);
    }
    for (name, value) in &parts.headers {
        // RFC 9113, section 8.2.1: a blank at an end of a value is for two readers to differ about
        if value.as_bytes().trim_ascii().len() != value.len() {
            return Err(Refusal::Malformed);
        }
        if ![HOST, COOKIE, TE].contains(name) {
            field(name.as_str().as_bytes(), value.as_bytes(), &mut head);
        }
    }
    write_cookies(&parts.headers, &mut head);
    if body == Body::Chunked {
        field(b"transfer-encoding", b"chunked", &mut head);
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// How the body will be delimited, by the fields and by whether anything follows them.
pub(crate) fn body_of(headers: &HeaderMap, stream: &RecvStream) -> Body {
    if stream.is_end_stream() || headers.contains_key(CONTENT_LENGTH) { Body::Plain } else { Body::Chunked }
}

/// `:authority`, which goes before `Host` and must not contradict it (RFC 9113, section 8.3.1).
fn host(parts: &Parts) -> Result<Option<&[u8]>, Refusal> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let (field, more) = (fields.next().map(HeaderValue::as_bytes), fields.next());
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    match (authority, field) {
        _ if more.is_some() => Err(Refusal::Malformed),
        (Some(authority), Some(field)) if !authority.eq_ignore_ascii_case(field) => Err(Refusal::Malformed),
        (authority, field) => Ok(authority.or(field)),
    }
}

/// Crumbs become one field again (RFC 9113, section 8.2.3).
fn write_cookies(headers: &HeaderMap, head: &mut Vec<u8>) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    head.extend_from_slice(b"cookie: ");
    head.extend_from_slice(first.as_bytes());
    for crumb in crumbs {
        head.extend_from_slice(b"; ");
        head.extend_from_slice(crumb.as_bytes());
    }
    head.extend_from_slice(b"\r\n");
}

/// An answer's head as HTTP/2 has it; `None` when it cannot be said there.
pub(crate) fn response(head: &response::Response<'_, '_>) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    for (class, name, value) in head.fields() {
        let is_of_the_hop =
            matches!(class, Field::Connection | Field::HopByHop | Field::TransferEncoding | Field::Upgrade | Field::Te);
        if !is_of_the_hop {
            response.headers_mut().append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        }
    }
    if response.headers().get(CONTENT_LENGTH).is_some_and(|length| length == "0") && head.is_grpc() {
        // an answer of nothing but its status tells no length in gRPC
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    Some(response)
}

/// The trailer section of a chunked body; the engine has left in it what may pass.
pub(crate) fn trailers(section: &[u8]) -> Option<HeaderMap> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(section, &mut fields) else {
        return None;
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        trailers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(trailers)
}

/// The end of a chunked body, with the trailers that came behind it.
pub(crate) fn last_chunk(trailers: Option<&HeaderMap>) -> Vec<u8> {
    let mut end = b"0\r\n".to_vec();
    for (name, value) in trailers.into_iter().flatten() {
        field(name.as_str().as_bytes(), value.as_bytes(), &mut end);
    }
    end.extend_from_slice(b"\r\n");
    end
}
