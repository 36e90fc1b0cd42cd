//! The socket of a connection to the application, watched: frames that move nothing are paid from a credit here too.
//!
//! An application is trusted more than a client, and yet a loop in it must not take the thread that serves all others. Who
//! has spent its credit is not read any more; the connection ends, and what was under way on it fails as a bad answer.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::http2::conduct::{Conduct, TURN_WORK};
use crate::proxy::timers::{NEVER, Timers};

/// Reads and writes, and takes note of both.
pub(crate) struct Socket {
    stream: TcpStream,
    conduct: Rc<Conduct>,
    timers: Rc<Timers>,
    /// Caused since the last turn of the others: of those who are to read what has come, for instance.
    work: u32,
}

impl Socket {
    /// A connection on which no frame has come yet.
    pub(crate) fn new(stream: TcpStream, conduct: Rc<Conduct>, timers: Rc<Timers>) -> Self {
        Self { stream, conduct, timers, work: 0 }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.conduct.is_flooding() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if self.work >= TURN_WORK {
            self.work -= TURN_WORK;
            return pin!(tokio::task::yield_now()).poll(cx).map(Ok);
        }
        let known = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if result.is_pending() {
            self.work = 0;
        }
        ready!(result)?;
        self.work += self.conduct.received(&buf.filled()[known..], (self.timers.now(), NEVER));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.conduct.sent(&bytes[..count], |_, _| {});
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, pieces))?;
        let mut rest = count;
        for piece in pieces {
            let taken = rest.min(piece.len());
            self.conduct.sent(&piece[..taken], |_, _| {});
            rest -= taken;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
