//! The application's side of an exchange: a socket, or one stream of HTTP/2 that behaves like one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::model::request::Protocol;
use crate::proxy::buffers::Inbox;
use crate::proxy::h2c::stream::Stream;
use crate::proxy::wire::Wire;

/// What the hop to the application speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HopProtocol {
    Http1,
    /// HTTP/2 in clear text.
    H2c,
}

/// The application's side.
pub(crate) struct Hop {
    pub(crate) stream: HopStream,
    pub(crate) inbox: Inbox,
    /// Whether its connection has carried a request before: it may have been closed meanwhile.
    pub(crate) is_reused: bool,
}

/// What carries it. Its methods are asked to be inlined: to a socket they shall be no more than one comparison.
pub(crate) enum HopStream {
    Socket(TcpStream),
    /// On the heap: an exchange over HTTP/1.1 shall not hold room for it.
    Stream(Box<Stream>),
}

impl Hop {
    /// A connection from the pool.
    pub(crate) fn kept(stream: TcpStream) -> Self {
        Self { stream: HopStream::Socket(stream), inbox: Inbox::default(), is_reused: true }
    }

    /// A new connection.
    pub(crate) fn fresh(stream: TcpStream) -> Self {
        Self { stream: HopStream::Socket(stream), inbox: Inbox::default(), is_reused: false }
    }

    /// A stream of a connection of HTTP/2.
    pub(crate) fn stream(stream: Stream) -> Self {
        let is_reused = stream.is_reused();
        Self { stream: HopStream::Stream(Box::new(stream)), inbox: Inbox::default(), is_reused }
    }

    /// The same for a request that was sent before: it is not sent a third time.
    pub(crate) fn last_stream(stream: Stream) -> Self {
        Self { is_reused: false, ..Self::stream(stream) }
    }

    /// Whether the application has said that it never looked at the request.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(&self.stream, HopStream::Stream(stream) if stream.is_untouched())
    }

    /// Why the application has broken it off, in the words of HTTP/2.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match &self.stream {
            HopStream::Socket(_) => None,
            HopStream::Stream(stream) => stream.reason(),
        }
    }
}

impl Wire for HopStream {
    const CARRIES: Option<Protocol> = None;

    #[inline]
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(socket) => TcpStream::poll_read_ready(socket, cx),
            Self::Stream(stream) => stream.poll_read_ready(cx),
        }
    }

    fn break_off(&mut self) {
        match self {
            Self::Socket(socket) => socket.break_off(),
            Self::Stream(stream) => stream.break_off(),
        }
    }
}

impl AsyncRead for HopStream {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Socket(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Stream(stream) => Pin::new(&mut **stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for HopStream {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Socket(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Stream(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
        }
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Socket(socket) => Pin::new(socket).poll_flush(cx),
            Self::Stream(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    #[inline]
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Socket(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}
