//! A client's socket, with what was read from it before it was known to speak HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::model::request::RequestSink;
use crate::proxy::client::ClientSide;

/// Reads what is in the inbox first, then the socket.
pub(crate) struct Socket<'c, S: RequestSink> {
    client: &'c mut ClientSide<S>,
}

impl<'c, S: RequestSink> Socket<'c, S> {
    /// The socket of this client.
    pub(crate) fn new(client: &'c mut ClientSide<S>) -> Self {
        Self { client }
    }
}

impl<S: RequestSink> AsyncRead for Socket<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let client = &mut *self.client;
        if !client.inbox.is_lent() {
            return Pin::new(&mut client.stream).poll_read(cx, buf);
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
