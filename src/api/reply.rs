//! How an answer is put: its media type, and the one shape of every error.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;

use crate::api::contract;

pub(super) const JSON: &str = "application/json";
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const CSS: &str = "text/css; charset=utf-8";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// A good answer of this media type.
pub(super) fn respond(media: &'static str, body: impl Into<Body>) -> Response {
    let builder = Response::builder().header(header::CONTENT_TYPE, media);
    builder.body(body.into()).expect("builder with a known media type must not fail")
}

/// The way to another path, for good.
pub(super) fn redirect(target: &'static str) -> Response {
    let builder = Response::builder().status(StatusCode::PERMANENT_REDIRECT).header(header::LOCATION, target);
    builder.body(Body::empty()).expect("builder with a known target must not fail")
}

/// An answer that is an error, as JSON.
pub(super) fn error(status: StatusCode, found: &str, expected: &str) -> Response {
    let mut response = respond(JSON, contract::error(found, expected));
    *response.status_mut() = status;
    response
}
