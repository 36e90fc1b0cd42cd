//! One stream as a wire of HTTP/1.1: writes take the request and translate it, reads give the answer translated.
//!
//! Nothing is collected: a piece is taken from the stream when the engine reads, and its window is given back only
//! then; the engine's writes wait for the application's window. Dropped before its end, it cancels the request.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::request::{Method, Protocol};
use crate::proxy::buffers::Buffers;
use crate::proxy::h2c::link::{End, Seat};
use crate::proxy::h2c::translate::{self, Body};
use crate::proxy::head::request::{self, storage};
use crate::proxy::http2::translate::last_chunk;
use crate::proxy::stream_body::{Rest, StreamBody, gather};
use crate::proxy::upstream::Upstream;
use crate::proxy::wire::Wire;

/// A request to the application, and its answer.
pub(crate) struct Stream {
    // before the seat: a stream is gone before its place is given to another
    request: Upload,
    answer: Answer,
    /// Heads and framing that are to be read before `data`.
    text: io::Cursor<Vec<u8>>,
    data: Bytes,
    method: Method,
    /// Why the application has broken it off.
    reason: Option<Reason>,
    /// Whether the application has said that it never looked at it.
    is_untouched: bool,
    seat: Seat,
    upstream: Rc<Upstream>,
    buffers: Buffers,
}

/// How far the request has come.
enum Upload {
    /// Its head has not been written.
    Head,
    Body(StreamBody),
    Whole,
}

/// What is still to come of the answer.
enum Answer {
    /// All, and nothing was asked yet.
    Unasked,
    Head(ResponseFuture),
    Data(RecvStream, Body),
    Trailers(RecvStream, Body),
    Over,
    /// It could not be asked.
    Failed,
}

impl Stream {
    /// Nothing is asked yet.
    pub(crate) fn new(seat: Seat, upstream: Rc<Upstream>, buffers: Buffers) -> Self {
        Self {
            request: Upload::Head,
            answer: Answer::Unasked,
            text: io::Cursor::default(),
            data: Bytes::new(),
            method: Method::Other,
            reason: None,
            is_untouched: false,
            seat,
            upstream,
            buffers,
        }
    }

    fn has_unread(&self) -> bool {
        self.text.has_remaining() || !self.data.is_empty()
    }

    fn say(&mut self, text: Vec<u8>) {
        self.text = io::Cursor::new(text);
    }

    /// Ready when there is something to read, or the answer is over.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.has_unread() {
            match &mut self.answer {
                Answer::Unasked => return Poll::Pending, // a write comes first, and wakes
                Answer::Head(_) => ready!(self.poll_head(cx))?,
                Answer::Data(body, coding) => {
                    let coding = *coding;
                    match ready!(body.poll_data(cx)) {
                        Some(Ok(data)) => {
                            let data = gather(data, body, cx);
                            self.take(data, coding);
                        }
                        Some(Err(error)) => return Poll::Ready(Err(self.broken(&error))),
                        None => self.answer = self.behind_data(),
                    }
                }
                Answer::Trailers(body, coding) => {
                    let coding = *coding;
                    match ready!(body.poll_trailers(cx)) {
                        Ok(trailers) if coding == Body::Chunked => self.say(last_chunk(trailers.as_ref())),
                        Ok(_) => {}
                        Err(error) => return Poll::Ready(Err(self.broken(&error))),
                    }
                    self.answer = Answer::Over;
                }
                Answer::Over => return Poll::Ready(Ok(())),
                Answer::Failed => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, data: Bytes, coding: Body) {
        if coding == Body::Chunked && !data.is_empty() {
            self.say(format!("{:x}\r\n", data.len()).into_bytes());
        }
        self.data = data;
    }

    fn behind_data(&mut self) -> Answer {
        match std::mem::replace(&mut self.answer, Answer::Over) {
            Answer::Data(body, coding) => Answer::Trailers(body, coding),
            other => other,
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Answer::Head(response) = &mut self.answer else { return Poll::Ready(Ok(())) };
        let unfit = || io::Error::from(io::ErrorKind::InvalidData);
        match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => {
                let text = translate::answer(&interim.into_parts().0, Body::Plain).ok_or_else(unfit)?;
                self.say(text);
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.broken(&error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        let response = match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => response,
            Err(error) => return Poll::Ready(Err(self.broken(&error))),
        };
        let (parts, body) = response.into_parts();
        if body.is_end_stream() {
            self.say(translate::bare_answer(&parts).ok_or_else(unfit)?);
            self.answer = Answer::Over;
        } else {
            let coding = translate::body_of(&parts, self.method);
            self.say(translate::answer(&parts, coding).ok_or_else(unfit)?);
            self.answer = Answer::Data(body, coding);
        }
        Poll::Ready(Ok(()))
    }

    fn take_data(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let count = self.data.len().min(buf.remaining());
        buf.put_slice(&self.data[..count]);
        self.data.advance(count);
        if let Answer::Data(body, coding) = &mut self.answer {
            // from here on the application may send as many more
            body.flow_control().release_capacity(count).map_err(io::Error::other)?;
            if self.data.is_empty() && *coding == Body::Chunked {
                self.say(b"\r\n".to_vec());
            }
        }
        Ok(())
    }

    /// The application has broken the stream or the connection.
    fn broken(&mut self, error: &h2::Error) -> io::Error {
        let is_cut_off = error.get_io().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData);
        if error.is_library() || is_cut_off {
            return io::ErrorKind::InvalidData.into(); // it has broken the rules, and was told so, or has flooded
        }
        if error.is_remote() {
            self.reason = error.reason();
            // RFC 9113, section 8.7: streams above the last one that GOAWAY names, and those that are refused
            self.is_untouched = error.is_go_away() || self.reason == Some(Reason::REFUSED_STREAM);
        }
        io::ErrorKind::ConnectionReset.into()
    }

    /// Takes a request's head; the engine writes it whole.
    fn write_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answer = Answer::Failed; // until it is asked
        let unfit = || io::Error::from(io::ErrorKind::InvalidData);
        let length = memchr::memmem::find(bytes, b"\r\n\r\n").ok_or_else(unfit)? + 4;
        let mut room = storage();
        let head = request::parse(&bytes[..length], &mut room).map_err(|_| unfit())?;
        let translated = translate::request(&head, &self.upstream.text).ok_or_else(unfit)?;
        let rest = Rest::of(head.framing);
        let end = if rest.is_none() { End::Here } else { End::Later };
        let (response, send) = self.seat.ask(translated, end).map_err(io::Error::other)?;
        self.method = head.method;
        self.answer = Answer::Head(response);
        self.request = match rest {
            Some(rest) => Upload::Body(StreamBody::new(send, rest, self.buffers.clone())),
            None => Upload::Whole,
        };
        Ok(length)
    }

    fn poll_write_body(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Upload::Body(body) = &mut self.request else { return Poll::Ready(Ok(bytes.len())) };
        let used = ready!(body.poll_write(bytes, cx))?;
        if body.is_over() {
            self.request = Upload::Whole;
        }
        Poll::Ready(Ok(used))
    }

    /// Whether its connection has carried a request before this one.
    pub(crate) fn is_reused(&self) -> bool {
        self.seat.is_reused
    }

    /// Whether the application has said that it never looked at the request: it may be sent again, whatever it is.
    pub(crate) fn is_untouched(&self) -> bool {
        self.is_untouched
    }

    /// Why the application has broken it off, in the words of HTTP/2.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

impl Wire for Stream {
    const CARRIES: Option<Protocol> = Some(Protocol::Http2);

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unread(cx)
    }

    fn break_off(&mut self) {
        // dropped, it is cancelled
        (self.request, self.answer) = (Upload::Whole, Answer::Over);
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unread(cx))?;
        while buf.remaining() > 0 && self.has_unread() {
            if self.text.has_remaining() {
                let count = self.text.remaining().min(buf.remaining());
                buf.put_slice(&self.text.chunk()[..count]);
                self.text.advance(count);
            } else {
                self.take_data(buf)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.request {
            Upload::Head => Poll::Ready(self.write_head(bytes)),
            Upload::Body(_) | Upload::Whole => self.poll_write_body(bytes, cx),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the stream ends with its request
    }
}
