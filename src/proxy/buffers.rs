//! Buffers of a worker: lent to connections that move bytes, given back when they idle.
//!
//! An idle connection owns none. One thread, so no lock.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The size of an outbox.
const OUTBOX_BYTES: usize = 16 << 10;

/// The size of an inbox; a head that does not fit makes its own one larger.
///
/// By so much smaller that what was read from one side fits into what is written to the other, with the framing of a chunk and
/// our own fields: a remainder of some bytes would hold a buffer, and be a write of its own.
const INBOX_BYTES: usize = OUTBOX_BYTES - 128;

/// More than these are given back at once; of these, what a sweep finds unused. While 1,000 connections are busy none is made
/// anew.
const KEPT_BUFFERS: usize = 1_024;

/// Bytes read from a socket and not yet used.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Initialised in its whole length; empty while nothing is lent.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// Bytes that are to be written to a socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// What is to be written, whole: kept until `clear`, so that it can be sent again.
    pub(crate) bytes: Vec<u8>,
    written: usize,
    /// Whether bytes written have been forgotten.
    has_sent: bool,
}

/// The free buffers of a worker.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    inboxes: Shelf,
    outboxes: Shelf,
}

/// Free buffers of one kind.
#[derive(Debug, Default)]
struct Shelf {
    free: RefCell<Vec<Vec<u8>>>,
    /// The fewest that lay here since the last sweep: so many were not needed.
    unused: Cell<usize>,
}

impl Shelf {
    fn take(&self) -> Option<Vec<u8>> {
        let mut free = self.free.borrow_mut();
        let taken = free.pop();
        self.unused.set(self.unused.get().min(free.len()));
        taken
    }

    fn put(&self, bytes: Vec<u8>, usual: usize) {
        let mut free = self.free.borrow_mut();
        if bytes.capacity() == usual && free.len() < KEPT_BUFFERS {
            free.push(bytes);
        }
    }

    fn sweep(&self) {
        let mut free = self.free.borrow_mut();
        let needed = free.len() - self.unused.get().min(free.len());
        free.truncate(needed);
        free.shrink_to_fit();
        self.unused.set(free.len());
    }
}

impl Buffers {
    /// Gives the inbox a buffer if it has none.
    pub(crate) fn lend_inbox(&self, inbox: &mut Inbox) {
        if inbox.bytes.is_empty() {
            inbox.bytes = self.inboxes.take().unwrap_or_else(|| vec![0; INBOX_BYTES]);
        }
    }

    /// Takes the buffer of an inbox back; what is in it is lost.
    pub(crate) fn take_inbox(&self, inbox: &mut Inbox) {
        (inbox.start, inbox.end) = (0, 0);
        if !inbox.bytes.is_empty() {
            self.inboxes.put(std::mem::take(&mut inbox.bytes), INBOX_BYTES);
        }
    }

    /// Gives the outbox a buffer if it has none.
    pub(crate) fn lend_outbox(&self, outbox: &mut Outbox) {
        if outbox.bytes.capacity() == 0 {
            outbox.bytes = self.outboxes.take().unwrap_or_else(|| Vec::with_capacity(OUTBOX_BYTES));
        }
    }

    /// Takes the buffer of an outbox back; what is in it is forgotten.
    pub(crate) fn take_outbox(&self, outbox: &mut Outbox) {
        outbox.clear();
        if outbox.bytes.capacity() > 0 {
            self.outboxes.put(std::mem::take(&mut outbox.bytes), OUTBOX_BYTES);
        }
    }

    /// Takes the buffer of an inbox back if nothing is in it.
    pub(crate) fn reclaim_inbox(&self, inbox: &mut Inbox) {
        if inbox.is_empty() {
            self.take_inbox(inbox);
        }
    }

    /// Takes the buffer of an outbox back if all that was in it is written.
    pub(crate) fn reclaim_outbox(&self, outbox: &mut Outbox) {
        if outbox.is_flushed() {
            self.take_outbox(outbox);
        }
    }

    /// Gives back what nobody has needed since the last sweep: a burst's memory is not kept for good.
    pub(crate) fn sweep(&self) {
        self.inboxes.sweep();
        self.outboxes.sweep();
    }
}

impl Inbox {
    /// The bytes that are there.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether it has a buffer.
    pub(crate) fn is_lent(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether more can be read without making it larger.
    pub(crate) fn has_room(&self) -> bool {
        self.end < self.bytes.len() || self.start > 0
    }

    /// Drops the first bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "only what is there is consumed");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Puts bytes in as if they had been read.
    #[cfg(test)]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Makes it larger, for a head that does not fit; `limit` is the largest.
    pub(crate) fn grow(&mut self, limit: usize) {
        let wanted = (self.bytes.len() * 2).min(limit.max(INBOX_BYTES));
        if wanted > self.bytes.len() {
            self.bytes.resize(wanted, 0);
        }
    }

    /// Reads once what the socket has; 0 at its end. There must be room.
    pub(crate) fn poll_fill<R>(&mut self, stream: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
    {
        if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut unfilled = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(stream).poll_read(cx, &mut unfilled))?;
        let count = unfilled.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }
}

impl Outbox {
    /// Whether all is written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Whether none of its bytes were ever written: all can still be sent elsewhere.
    pub(crate) fn is_unsent(&self) -> bool {
        self.written == 0 && !self.has_sent
    }

    /// Whether nothing of what was ever written is forgotten: all can still be sent from its first byte.
    pub(crate) fn is_kept(&self) -> bool {
        !self.has_sent
    }

    /// Forgets what was written.
    pub(crate) fn clear(&mut self) {
        self.has_sent |= self.written > 0;
        self.bytes.clear();
        self.written = 0;
    }

    /// Begins again at the first byte.
    pub(crate) fn rewind(&mut self) {
        self.written = 0;
    }

    /// How many bytes may still be added.
    pub(crate) fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Writes as much as the socket takes; ready when all is written. See `written` for its progress.
    pub(crate) fn poll_flush<W>(&mut self, stream: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        while self.written < self.bytes.len() {
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        Poll::Ready(Ok(()))
    }

    /// How much has been written: for seeing whether a write made progress.
    pub(crate) fn written(&self) -> usize {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(buffers: &Buffers, count: usize) {
        let mut inboxes: Vec<Inbox> = (0..count).map(|_| Inbox::default()).collect();
        inboxes.iter_mut().for_each(|inbox| buffers.lend_inbox(inbox));
        inboxes.iter_mut().for_each(|inbox| buffers.take_inbox(inbox));
    }

    #[test]
    fn what_a_burst_took_is_given_back_and_what_is_in_use_stays() {
        let buffers = Buffers::default();
        let free = || buffers.inboxes.free.borrow().len();
        burst(&buffers, KEPT_BUFFERS + 100);
        assert_eq!(free(), KEPT_BUFFERS, "the rest went back at once");
        buffers.sweep();
        burst(&buffers, 3);
        buffers.sweep();
        assert_eq!(free(), 3, "the others were not needed between two sweeps");
        buffers.sweep();
        assert_eq!(free(), 0);
    }
}
