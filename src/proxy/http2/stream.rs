//! One stream as a wire of HTTP/1.1: reads give the request translated, writes take the answer and translate it.
//!
//! Nothing is collected: a piece is taken from the stream when the engine reads, and its window is given back only
//! then; the engine's writes wait for the client's window.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::request::{Method, Protocol};
use crate::proxy::buffers::{Buffers, Loan};
use crate::proxy::head::request::storage;
use crate::proxy::head::response;
use crate::proxy::http2::translate::{self, Body};
use crate::proxy::stream_body::{Piece, Rest, StreamBody, gather};
use crate::proxy::wire::Wire;

/// What a stream takes beside its buffers: what serves it, the text of its head, and what the library keeps of it. As measured.
const STREAM_BYTES: usize = 4 << 10;

/// A stream that has brought a request's head.
pub(crate) struct Stream {
    method: Method,
    /// Heads and framing that are to be read before `data`.
    text: io::Cursor<Vec<u8>>,
    data: Bytes,
    body: RecvStream,
    coding: Body,
    upload: Upload,
    answer: Answer,
    /// What the client is told if its answer breaks off.
    reason: Reason,
    buffers: Buffers,
    _counted: Loan,
}

/// What is still to come of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    Data,
    Trailers,
    /// Nothing; a reset still tells that the client has gone.
    Over,
}

/// How far the answer has come.
enum Answer {
    /// Its final head has not been written.
    Head(SendResponse<Piece>),
    Body(StreamBody),
    /// All is said; what else is written, such as the body of an answer to HEAD, is not sent.
    Whole(Option<SendStream<Piece>>),
}

impl Stream {
    /// A stream whose head, translated, is this text, and whose body is delimited so.
    pub(crate) fn new(
        method: Method,
        (head, coding): (Vec<u8>, Body),
        (body, respond): (RecvStream, SendResponse<Piece>),
        buffers: &Buffers,
    ) -> Self {
        Self {
            method,
            text: io::Cursor::new(head),
            data: Bytes::new(),
            upload: if body.is_end_stream() { Upload::Over } else { Upload::Data },
            coding,
            body,
            answer: Answer::Head(respond),
            reason: Reason::INTERNAL_ERROR,
            buffers: buffers.clone(),
            _counted: buffers.count(STREAM_BYTES),
        }
    }

    fn has_unread(&self) -> bool {
        self.text.has_remaining() || !self.data.is_empty()
    }

    fn say(&mut self, text: Vec<u8>) {
        self.text = io::Cursor::new(text);
    }

    /// Ready when there is something to read.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.has_unread() {
            match self.upload {
                Upload::Data => match ready!(self.body.poll_data(cx)) {
                    Some(Ok(data)) => {
                        let data = gather(data, &mut self.body, cx);
                        if self.coding == Body::Chunked && !data.is_empty() {
                            self.say(format!("{:x}\r\n", data.len()).into_bytes());
                        }
                        self.data = data;
                    }
                    Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                    None => self.upload = Upload::Trailers,
                },
                Upload::Trailers => {
                    let trailers = ready!(self.body.poll_trailers(cx)).map_err(io::Error::other)?;
                    if self.coding == Body::Chunked {
                        self.say(translate::last_chunk(trailers.as_ref()));
                    }
                    self.upload = Upload::Over;
                }
                Upload::Over => return self.poll_gone(cx),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the client has given the stream up; it says nothing else any more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reset = match &mut self.answer {
            Answer::Head(respond) => ready!(respond.poll_reset(cx)),
            Answer::Body(body) => ready!(body.send.poll_reset(cx)),
            Answer::Whole(Some(send)) => ready!(send.poll_reset(cx)),
            Answer::Whole(None) => return Poll::Pending,
        };
        Poll::Ready(Err(reset.map_or_else(io::Error::other, |_| io::ErrorKind::ConnectionReset.into())))
    }

    fn take_data(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let count = self.data.len().min(buf.remaining());
        buf.put_slice(&self.data[..count]);
        self.data.advance(count);
        // from here on the client may send as many more
        self.body.flow_control().release_capacity(count).map_err(io::Error::other)?;
        if self.data.is_empty() && self.coding == Body::Chunked {
            self.say(b"\r\n".to_vec());
        }
        Ok(())
    }

    /// Takes a head, interim or final; the engine writes each whole.
    fn write_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let unfit = || io::Error::from(io::ErrorKind::InvalidData);
        let length = memchr::memmem::find(bytes, b"\r\n\r\n").ok_or_else(unfit)? + 4;
        let mut room = storage();
        let head = response::parse(&bytes[..length], self.method, &mut room).map_err(|_| unfit())?;
        let translated = translate::response(&head).ok_or_else(unfit)?;
        let Answer::Head(respond) = &mut self.answer else { return Err(unfit()) };
        if head.status < 200 {
            respond.send_informational(translated).map_err(io::Error::other)?;
            return Ok(length);
        }
        let rest = Rest::of(head.framing);
        let send = respond.send_response(translated, rest.is_none()).map_err(io::Error::other)?;
        self.answer = match rest {
            Some(rest) => Answer::Body(StreamBody::new(send, rest, self.buffers.clone())),
            None => Answer::Whole(Some(send)),
        };
        Ok(length)
    }

    fn poll_write_body(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Answer::Body(body) = &mut self.answer else { return Poll::Ready(Ok(bytes.len())) };
        let used = ready!(body.poll_write(bytes, cx))?;
        if body.is_over()
            && let Answer::Body(body) = std::mem::replace(&mut self.answer, Answer::Whole(None))
        {
            self.answer = Answer::Whole(Some(body.send));
        }
        Poll::Ready(Ok(used))
    }
}

impl Wire for Stream {
    const CARRIES: Option<Protocol> = Some(Protocol::Http2);

    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unread(cx)
    }

    fn poll_given_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_gone(cx).map(drop)
    }

    fn blame(&mut self, reason: Option<Reason>) {
        // the others would tell the client that it has broken the rules
        let known = reason.filter(|reason| [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM].contains(reason));
        self.reason = known.unwrap_or(self.reason);
    }

    fn break_off(&mut self) {
        match &mut self.answer {
            Answer::Head(respond) => respond.send_reset(self.reason),
            Answer::Body(body) => body.send.send_reset(self.reason),
            Answer::Whole(_) => {}
        }
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
        match self.answer {
            Answer::Head(_) => Poll::Ready(self.write_head(bytes)),
            Answer::Body(..) | Answer::Whole(_) => self.poll_write_body(bytes, cx),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the stream ends with its answer
    }
}
