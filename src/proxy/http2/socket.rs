//! A client's socket, with what was read from it before it was known to speak HTTP/2; watched, and read by turns.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::model::request::{Client, Outcome, Protocol, Refusal, RequestSink};
use crate::proxy::answer::Answer;
use crate::proxy::client::ClientSide;
use crate::proxy::forwarded::Peer;
use crate::proxy::http2::conduct::{Conduct, TURN_WORK};
use crate::proxy::http2::frames::Kind;
use crate::proxy::in_flight::{Counting, Facts, InFlight};
use crate::proxy::timers::NEVER;
use crate::proxy::worker::Worker;

/// Read at once: small frames cost a client next to nothing, and what has been read is worked off without a pause.
const PIECE_BYTES: u64 = 4 << 10;

/// Reads what is in the inbox first, then the socket.
pub(crate) struct Socket<'c, S: RequestSink> {
    client: &'c mut ClientSide<S>,
    conduct: Rc<Conduct>,
    /// Caused since the last turn of the others. Who causes more than a turn's work misses as many turns.
    work: u32,
    /// Bytes that have been offered to the socket, and noted, and not yet taken: they are offered again.
    offered: usize,
}

impl<'c, S: RequestSink> Socket<'c, S> {
    /// The socket of this client.
    pub(crate) fn new(client: &'c mut ClientSide<S>, conduct: Rc<Conduct>) -> Self {
        Self { client, conduct, work: 0, offered: 0 }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let client = &mut *self.client;
        if !client.inbox.is_lent() {
            // not through a piece of ours, which would have to be zeroed: pages that nothing is read into stay with the kernel
            return Pin::new(&mut (&mut client.stream).take(PIECE_BYTES)).poll_read(cx, buf);
        }
        let count = client.inbox.filled().len().min(buf.remaining());
        buf.put_slice(&client.inbox.filled()[..count]);
        client.inbox.consume(count);
        client.inbox.rest();
        Poll::Ready(Ok(()))
    }

    /// Takes note of what is going out, before it does: a client that has an error in its hands finds it counted.
    fn note<'b>(&mut self, pieces: impl Iterator<Item = &'b [u8]>) {
        let mut known = self.offered;
        self.offered = 0;
        for piece in pieces {
            self.offered += piece.len();
            let fresh = &piece[known.min(piece.len())..];
            known = known.saturating_sub(piece.len());
            let (worker, peer) = (&self.client.worker, &self.client.peer);
            self.conduct.sent(fresh, |kind, code| match kind {
                Kind::GoAway => worker.counters.go_aways.count(code),
                // what the library answers by itself: a header list beyond what it was told is 431
                Kind::Headers => count_refused(worker, peer, Refusal::HeadTooLarge),
                _ => worker.counters.resets.count(code),
            });
        }
    }

    fn taken(&mut self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = result {
            self.offered -= count;
        }
    }
}

/// Counts a request that was refused in our name, by an answer without a body.
fn count_refused<S: RequestSink>(worker: &Rc<Worker<S>>, peer: &Peer, refusal: Refusal) {
    worker.counters.refuse(refusal);
    let mut facts = Facts::unknown(Client { peer: peer.address, address: peer.address.ip() });
    (facts.protocol, facts.status) = (Protocol::Http2, Answer::refusal(refusal).status);
    InFlight::begin(worker, facts, Counting::Counted).end(Outcome::Refused(refusal));
}

impl<S: RequestSink> AsyncRead for Socket<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.conduct.is_flooding() || self.conduct.waits_until(self.client.worker.timers.now()) != NEVER {
            return Poll::Pending; // whoever polls the connection looks at it next, and ends it or wakes it at that tick
        }
        if self.work >= TURN_WORK {
            self.work -= TURN_WORK;
            // not by waking itself: the runtime would look at the other sockets only after dozens of such turns
            return pin!(tokio::task::yield_now()).poll(cx).map(Ok);
        }
        let known = buf.filled().len();
        let result = self.poll_piece(cx, buf);
        if result.is_pending() {
            self.work = 0;
        } else {
            let worker = &self.client.worker;
            let until = worker.timers.after(worker.timeouts.get().header);
            self.work += self.conduct.received(&buf.filled()[known..], (worker.timers.now(), until));
        }
        result
    }
}

impl<S: RequestSink> AsyncWrite for Socket<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.note(std::iter::once(bytes));
        let result = Pin::new(&mut self.client.stream).poll_write(cx, bytes);
        self.taken(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note(bytes.iter().map(|piece| &**piece));
        let result = Pin::new(&mut self.client.stream).poll_write_vectored(cx, bytes);
        self.taken(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.client.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx) // who lingers behind it ends our side, in his own time
    }
}
