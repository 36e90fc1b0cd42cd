//! A client's socket, with what was read from it before it was known to speak HTTP/2, and read a little at a time.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::request::RequestSink;
use crate::proxy::client::ClientSide;

/// After so many bytes the other connections of the thread have their turn: small frames cost a client next to nothing,
/// and a socket that is never empty would keep the thread in its loop.
const TURN_BYTES: usize = 4 << 10;

/// Reads what is in the inbox first, then the socket.
pub(crate) struct Socket<'c, S: RequestSink> {
    client: &'c mut ClientSide<S>,
    /// What may still be read in this turn.
    turn: usize,
}

impl<'c, S: RequestSink> Socket<'c, S> {
    /// The socket of this client.
    pub(crate) fn new(client: &'c mut ClientSide<S>) -> Self {
        Self { client, turn: TURN_BYTES }
    }
}

impl<S: RequestSink> Socket<'_, S> {
    fn poll_socket(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(self.turn.min(buf.remaining())));
        let result = Pin::new(&mut self.client.stream).poll_read(cx, &mut piece);
        let count = piece.filled().len();
        buf.advance(count);
        self.turn = if result.is_pending() { TURN_BYTES } else { self.turn - count };
        result
    }
}

impl<S: RequestSink> AsyncRead for Socket<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.turn == 0 {
            self.turn = TURN_BYTES;
            // not by waking itself: the runtime would look at the other sockets only after dozens of such turns
            return pin!(tokio::task::yield_now()).poll(cx).map(Ok);
        }
        let client = &mut *self.client;
        if !client.inbox.is_lent() {
            return self.poll_socket(cx, buf);
        }
        let count = client.inbox.filled().len().min(buf.remaining());
        buf.put_slice(&client.inbox.filled()[..count]);
        client.inbox.consume(count);
        if client.inbox.is_empty() {
            client.worker.buffers.take_inbox(&mut client.inbox);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: RequestSink> AsyncWrite for Socket<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.client.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.client.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.client.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client.stream).poll_shutdown(cx)
    }
}
