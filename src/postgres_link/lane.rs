//! One direction of a relay: a small buffer, filled again only when all of it has gone on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The buffer, in bytes: most answers fit.
const ROOM: usize = 8 << 10;

/// What was read and has not gone on yet.
pub(super) struct Lane {
    buffer: Box<[u8]>,
    held: std::ops::Range<usize>,
    /// Something was written since the last flush, which a stream of TLS needs.
    is_dirty: bool,
    is_over: bool,
}

impl Lane {
    /// Holds nothing yet.
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; ROOM].into(), held: 0..0, is_dirty: false, is_over: false }
    }

    /// Carries on what can be carried now; ready at the end, which it passes on.
    ///
    /// # Errors
    /// What broke, or what `judge` says of the bytes, none of which are passed on then. Told once.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
        to: &mut (impl AsyncWrite + Unpin + ?Sized),
        judge: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Poll<io::Result<()>> {
        let over = if self.is_over { Poll::Ready(Ok(())) } else { self.carry(context, from, to, judge) };
        if over.is_ready() {
            self.is_over = true;
            // whatever becomes of that: there is nothing more to say
            let _ = Pin::new(to).poll_shutdown(context);
        }
        over
    }

    fn carry(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin + ?Sized),
        to: &mut (impl AsyncWrite + Unpin + ?Sized),
        mut judge: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.held.is_empty() {
                match ready!(Pin::new(&mut *to).poll_write(context, &self.buffer[self.held.clone()]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.held.start += written,
                }
                self.is_dirty = true;
            }
            let mut room = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *from).poll_read(context, &mut room) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    if self.is_dirty {
                        ready!(Pin::new(&mut *to).poll_flush(context))?;
                        self.is_dirty = false;
                    }
                    return Poll::Pending;
                }
            }
            let read = room.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(()));
            }
            judge(read)?;
            self.held = 0..read.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn all_goes_on_in_order_through_a_narrow_pipe_and_so_does_the_end() {
        let (mut client, mut inner) = duplex(64 << 10);
        let (mut outer, mut server) = duplex(7);
        let sent: Vec<u8> = (0..60_000_u32).map(|number| number as u8).collect();
        client.write_all(&sent).await.unwrap();
        drop(client);
        let (mut lane, mut received) = (Lane::new(), Vec::new());
        let carried = poll_fn(|context| lane.poll(context, &mut inner, &mut outer, |_| Ok(())));
        let (carried, read) = tokio::join!(carried, server.read_to_end(&mut received));
        carried.unwrap();
        read.unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn what_is_refused_is_not_passed_on_and_is_told_once() {
        let (mut server, mut outer) = duplex(64);
        let (mut inner, mut client) = duplex(64);
        server.write_all(b"good").await.unwrap();
        let mut lane = Lane::new();
        let judge = |bytes: &[u8]| if bytes == b"good" { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
        let mut seen = [0; 4];
        tokio::select! {
            _ = poll_fn(|context| lane.poll(context, &mut outer, &mut inner, judge)) => panic!("it goes on"),
            read = client.read_exact(&mut seen) => assert_eq!((read.unwrap(), &seen), (4, b"good")),
        }
        server.write_all(b"bad").await.unwrap();
        let refused = poll_fn(|context| lane.poll(context, &mut outer, &mut inner, judge)).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(client.read(&mut seen).await.unwrap(), 0, "an end, and nothing before it");
        poll_fn(|context| lane.poll(context, &mut outer, &mut inner, judge)).await.unwrap();
    }
}
