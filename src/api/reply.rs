//! How an answer is put: its media type, and the one shape of every error.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use futures_core::Stream;

use crate::api::contract;

pub(super) const JSON: &str = "application/json";
pub(super) const HEALTH: &str = "application/health+json";
pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const CSS: &str = "text/css; charset=utf-8";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// A good answer of this media type.
pub(super) fn respond(media: &'static str, body: impl Into<Body>) -> Response {
    let builder = Response::builder().header(header::CONTENT_TYPE, media);
    builder.body(body.into()).expect("builder with a known media type must not fail")
}

/// A good answer whose text is made while it is sent: no more of it is held than the client has room for.
///
/// One of a single piece is sent as a whole, with its length.
pub(super) fn respond_in_pieces<I>(media: &'static str, mut pieces: I) -> Response
where
    I: Iterator<Item = String> + Send + Unpin + 'static,
{
    let first = pieces.next().unwrap_or_default();
    match pieces.next() {
        None => respond(media, first),
        Some(second) => respond(media, Body::from_stream(Pieces([first, second].into_iter().chain(pieces)))),
    }
}

/// An iterator as a stream: the next piece is always ready.
struct Pieces<I>(I);

impl<I: Iterator<Item = String> + Unpin> Stream for Pieces<I> {
    type Item = Result<String, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().map(Ok))
    }
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
