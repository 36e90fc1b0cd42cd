//! One call, from its head to the last byte of its answer: its bodies pass through here as they come, and are counted.
//!
//! The end of a call is one value that tells of itself in `drop`: answered, broken off, or the caller gone, exactly once.
//! Neither side is delayed: what comes is handed on at once, and only looked at.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, header};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Instant;

use crate::egress::desk::Desk;
use crate::egress::events::Answer;
use crate::egress::scan::{Found, Scan};
use crate::egress::told::{End, Origin, Told};
use crate::model::ai::AiOperation;
use crate::model::trace::{TraceId, parse_traceparent};
use crate::model::trouble::Trouble;

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    desk: Arc<Desk>,
    started: Instant,
    operation: AiOperation,
    origin: Origin,
    asked: Arc<Mutex<Scan>>,
    answer: Answer,
    status: u16,
    is_stream: bool,
    is_encoded: bool,
    /// Whether the answer is a document, or has one in each event.
    is_readable: bool,
    first_chunk: Option<Duration>,
    end: End,
}

/// The body of a request, on its way to the service.
pub(super) struct Asking {
    inner: Incoming,
    /// `None` when it is nothing that could be read.
    scan: Option<Arc<Mutex<Scan>>>,
}

/// The body of an answer, on its way to the caller.
pub(super) struct Answering {
    inner: reqwest::Body,
    call: Call,
}

impl Call {
    /// Begins with its head.
    pub(super) fn begin(desk: &Arc<Desk>, head: &Parts) -> Self {
        let caller = head.headers.get("traceparent").and_then(|value| parse_traceparent(value.as_bytes()).ok());
        let origin = match caller {
            Some(caller) => {
                Origin { trace_id: caller.trace_id, parent: Some(caller.parent), is_sampled: Some(caller.sampled) }
            }
            // zero is no id
            None => Origin { trace_id: TraceId(fastrand::u128(1..).to_be_bytes()), parent: None, is_sampled: None },
        };
        Self {
            desk: Arc::clone(desk),
            started: Instant::now(),
            operation: operation(head.uri.path()),
            origin,
            asked: Arc::new(Mutex::new(Scan::of_query(head.uri.query()))),
            answer: Answer::default(),
            status: 0,
            is_stream: false,
            is_encoded: false,
            is_readable: false,
            first_chunk: None,
            end: End::ClientGone,
        }
    }

    /// Looks at a request while it passes.
    pub(super) fn asking(&self, head: &Parts, inner: Incoming) -> Asking {
        let is_readable = is_json(&head.headers) && !is_encoded(&head.headers);
        Asking { inner, scan: is_readable.then(|| Arc::clone(&self.asked)) }
    }

    /// Looks at an answer while it passes; the call ends with it.
    pub(super) fn answering(mut self, status: u16, headers: &HeaderMap, inner: reqwest::Body) -> Answering {
        self.status = status;
        self.is_encoded = is_encoded(headers);
        self.is_stream = media_type(headers).starts_with("text/event-stream");
        self.is_readable = !self.is_encoded && (self.is_stream || is_json(headers));
        if self.is_stream {
            self.answer = Answer::of_events();
        }
        Answering { inner, call: self }
    }

    /// Ends with the service's agreement to go on without HTTP.
    pub(super) fn switched(mut self) {
        self.status = 101;
        self.end = End::Answered;
    }

    /// Ends without an answer.
    pub(super) fn fail(mut self, trouble: Trouble) {
        self.end = End::Failed(trouble);
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.is_stream && self.first_chunk.is_none() {
            self.first_chunk = Some(self.started.elapsed());
        }
        if self.is_readable {
            self.answer.feed(bytes);
        }
    }

    fn asked(&self) -> Found {
        let mut scan = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        scan.end();
        scan.found().clone()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (asked, answered) = (self.asked(), self.answer.end().clone());
        self.desk.end(Told {
            operation: self.operation,
            origin: self.origin,
            asked,
            answered,
            duration: self.started.elapsed(),
            first_chunk: self.first_chunk,
            status: self.status,
            is_stream: self.is_stream,
            is_encoded: self.is_encoded,
            end: self.end,
        });
    }
}

impl Body for Asking {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let (Some(Ok(frame)), Some(scan)) = (&frame, &this.scan)
            && let Some(bytes) = frame.data_ref()
        {
            scan.lock().unwrap_or_else(PoisonError::into_inner).feed(bytes);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    this.call.hear(bytes);
                }
            }
            Some(Err(error)) => this.call.end = End::Failed(trouble(error)),
            None => this.call.end = End::Answered,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // who knows the length of a body does not ask for what comes behind its last byte
        if self.call.end == End::ClientGone && self.inner.is_end_stream() {
            self.call.end = End::Answered;
        }
    }
}

/// The class of a failure on the way to the service.
pub(super) fn trouble(error: &reqwest::Error) -> Trouble {
    if error.is_timeout() { Trouble::Timeout } else { Trouble::of(error).unwrap_or(Trouble::Protocol) }
}

/// By the end of the path, as OpenAI's API, those like it and Anthropic's have it.
fn operation(path: &str) -> AiOperation {
    const PATHS: [(&str, AiOperation); 8] = [
        ("/chat/completions", AiOperation::Chat),
        ("/responses", AiOperation::Chat),
        ("/messages", AiOperation::Chat),
        ("/completions", AiOperation::Completion),
        ("/embeddings", AiOperation::Embeddings),
        ("/images/generations", AiOperation::Content),
        ("/images/edits", AiOperation::Content),
        ("/realtime", AiOperation::Realtime),
    ];
    let found = PATHS.iter().find(|(end, _)| path.ends_with(end));
    found.map_or(AiOperation::Other, |(_, operation)| *operation)
}

fn media_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers).starts_with("application/json")
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_what_is_asked_for() {
        for (path, expected) in [
            ("/v1/chat/completions", AiOperation::Chat),
            ("/openai/deployments/x/chat/completions", AiOperation::Chat),
            ("/v1/completions", AiOperation::Completion),
            ("/v1/responses", AiOperation::Chat),
            ("/v1/responses/resp_1", AiOperation::Other),
            ("/v1/embeddings", AiOperation::Embeddings),
            ("/v1/images/generations", AiOperation::Content),
            ("/v1/realtime", AiOperation::Realtime),
            ("/v1/realtime/client_secrets", AiOperation::Other),
            ("/v1/models", AiOperation::Other),
            ("", AiOperation::Other),
        ] {
            assert_eq!(operation(path), expected, "{path}");
        }
    }
}
