//! A socket of which nobody is told when something comes: it is looked at each tenth of a second.
//!
//! Workers send a message for each step of a task. To be woken for each costs several times what it costs to read it, so
//! they are left to gather: in the kernel, and behind it in the server's buffer for this client. Just after it is opened a
//! socket is looked at far more often, because answers are waited for then, and until they are there nothing is heard.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Between two looks at a socket that had nothing.
const PACE: Duration = Duration::from_millis(100);
/// The same for a socket that is young.
const FIRST_PACE: Duration = Duration::from_millis(1);
const YOUTH: Duration = Duration::from_secs(1);

/// A socket that does not block, and the wait until it is looked at again.
pub(super) struct Gathered<S> {
    socket: S,
    opened: Instant,
    wait: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl<S> Gathered<S> {
    /// Reads a socket, which must not block.
    pub(super) fn new(socket: S) -> Self {
        Self { socket, opened: Instant::now(), wait: Box::pin(sleep(FIRST_PACE)), is_waiting: false }
    }

    /// Waits out a wait that has begun.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_waiting {
            ready!(self.wait.as_mut().poll(context));
            self.is_waiting = false;
        }
        Poll::Ready(())
    }

    /// Tries until it is done, with a wait each time that nothing can be done.
    fn attempt<T>(
        &mut self,
        context: &mut Context<'_>,
        mut act: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match act(&self.socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let now = Instant::now();
                    let pace = if now.saturating_duration_since(self.opened) < YOUTH { FIRST_PACE } else { PACE };
                    if !self.is_waiting {
                        self.wait.as_mut().reset(now + pace);
                        self.is_waiting = true;
                    }
                    ready!(self.wait(context));
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

impl<S: Unpin> AsyncRead for Gathered<S>
where
    for<'a> &'a S: Read,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.wait(context)); // whoever asks again meanwhile makes nothing come sooner
        let room = buffer.initialize_unfilled();
        let read = ready!(self.attempt(context, |mut socket| socket.read(room)))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: Unpin> AsyncWrite for Gathered<S>
where
    for<'a> &'a S: Write,
{
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.attempt(context, |mut socket| socket.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // a socket keeps nothing back
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // it ends when it is dropped
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{advance, timeout};

    use super::*;

    fn pair() -> (UnixStream, Gathered<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, Gathered::new(ours))
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_a_tenth_of_a_second_is_read_at_once() {
        let (mut theirs, mut gathered) = pair();
        advance(YOUTH).await;
        let mut buffer = [0; 64];
        // nothing is there: it is looked at again a tenth of a second later, and no sooner
        let mut read = Box::pin(gathered.read(&mut buffer));
        assert!(timeout(Duration::ZERO, &mut read).await.is_err());
        for byte in 0..10 {
            theirs.write_all(&[byte]).unwrap();
            assert!(timeout(PACE / 20, &mut read).await.is_err());
        }
        assert_eq!(read.await.unwrap(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_young_socket_is_read_within_a_millisecond_and_an_end_is_seen() {
        let (mut theirs, mut gathered) = pair();
        let mut buffer = [0; 64];
        let mut read = Box::pin(gathered.read(&mut buffer));
        assert!(timeout(Duration::ZERO, &mut read).await.is_err());
        theirs.write_all(b"+OK").unwrap();
        assert_eq!(timeout(FIRST_PACE * 2, read).await.unwrap().unwrap(), 3);
        drop(theirs);
        assert_eq!(gathered.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_into_the_socket_is_written_when_there_is_room() {
        let (mut theirs, mut gathered) = pair();
        let much = vec![7; 4 << 20];
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).unwrap();
            read.len()
        });
        gathered.write_all(&much).await.unwrap();
        drop(gathered);
        assert_eq!(reader.join().unwrap(), much.len());
    }
}
