//! What a worker holds for its clients: buffers, lent to connections that move bytes, and a count of all of it.
//!
//! An idle connection owns no buffer. What is lent comes back by itself, when its holder drops it. One thread, so no lock.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The size of an outbox for a body.
const OUTBOX_BYTES: usize = 16 << 10;

/// The size of an outbox for a head alone, which makes its own one larger where that is too small: a request that waits for its
/// answer holds it, and may have to be sent again.
const HEAD_BYTES: usize = 2 << 10;

/// The size of an inbox; a head that does not fit makes its own one larger.
///
/// By so much smaller that what was read from one side fits into what is written to the other, with the framing of a chunk and
/// our own fields: a remainder of some bytes would hold a buffer, and be a write of its own.
const INBOX_BYTES: usize = OUTBOX_BYTES - 128;

/// Of each kind more than these are given to the allocator at once; of these, what a sweep finds unused. While 1,000 connections
/// are busy none is made anew.
const KEPT_BUFFERS: usize = 1_024;

/// Bytes read from a socket and not yet used.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Initialised in its whole length; empty while nothing is lent.
    lent: Lent,
    start: usize,
    end: usize,
}

/// Bytes that are to be written to a socket.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// What is to be written, whole: kept until `clear`, so that it can be sent again.
    lent: Lent,
    written: usize,
    /// Whether bytes written have been forgotten.
    has_sent: bool,
}

/// The buffers of a worker. A handle: cloning is shallow.
#[derive(Clone, Debug)]
pub(crate) struct Buffers(Rc<Store>);

#[derive(Debug)]
struct Store {
    /// By `Kind`.
    shelves: [Shelf; Kind::ALL.len()],
    /// What is lent, or otherwise held for clients, in bytes.
    lent: Cell<usize>,
    /// What that and the free buffers may come to, in bytes. Beyond it nothing is kept, and `is_full` says so to who admits requests.
    limit: usize,
}

/// What a buffer is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Inbox,
    Outbox,
    Head,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Inbox, Self::Outbox, Self::Head];

    /// The size of each, in bytes.
    fn usual(self) -> usize {
        match self {
            Self::Inbox => INBOX_BYTES,
            Self::Outbox => OUTBOX_BYTES,
            Self::Head => HEAD_BYTES,
        }
    }
}

/// Free buffers of one kind.
#[derive(Debug, Default)]
struct Shelf {
    free: RefCell<Vec<Vec<u8>>>,
    /// The fewest that lay here since the last sweep: so many were not needed.
    unused: Cell<usize>,
}

/// Memory that is lent: back on its shelf when it is dropped.
#[derive(Debug, Default)]
struct Lent {
    bytes: Vec<u8>,
    kind: Kind,
    /// `None` while nothing is lent.
    loan: Option<Loan>,
}

/// Memory that somebody holds for a client, as long as this lives; the memory itself is the holder's.
#[derive(Debug)]
pub(crate) struct Loan {
    store: Rc<Store>,
    bytes: usize,
}

impl Buffers {
    /// None yet; so many bytes may be held.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Rc::new(Store { shelves: Default::default(), lent: Cell::new(0), limit }))
    }

    /// Gives the inbox a buffer if it has none.
    pub(crate) fn lend_inbox(&self, inbox: &mut Inbox) {
        if !inbox.is_lent() {
            inbox.lent = self.lend(Kind::Inbox);
        }
    }

    /// Gives the outbox a buffer if it has none.
    pub(crate) fn lend_outbox(&self, outbox: &mut Outbox) {
        if outbox.lent.loan.is_none() {
            outbox.lent = self.lend(Kind::Outbox);
        }
    }

    /// Gives the outbox a buffer for a head without a body, if it has none.
    pub(crate) fn lend_head(&self, outbox: &mut Outbox) {
        if outbox.lent.loan.is_none() {
            outbox.lent = self.lend(Kind::Head);
        }
    }

    #[inline]
    fn lend(&self, kind: Kind) -> Lent {
        let bytes = self.0.shelves[kind as usize].take().unwrap_or_else(|| self.0.make(kind));
        Lent { bytes, kind, loan: Some(self.count(kind.usual())) }
    }

    /// Counts memory of somebody else that is held for a client.
    #[inline]
    pub(crate) fn count(&self, bytes: usize) -> Loan {
        let lent = &self.0.lent;
        lent.set(lent.get() + bytes);
        Loan { store: Rc::clone(&self.0), bytes }
    }

    /// Whether so much is held that nobody new shall be served.
    pub(crate) fn is_full(&self) -> bool {
        self.0.lent.get() >= self.0.limit
    }

    /// What is held for clients, in bytes.
    pub(crate) fn lent(&self) -> usize {
        self.0.lent.get()
    }

    /// Gives back what nobody has needed since the last sweep: a burst's memory is not kept for good.
    pub(crate) fn sweep(&self) {
        self.0.shelves.iter().for_each(Shelf::sweep);
    }
}

impl Store {
    /// What is lent and what lies free, in bytes.
    fn held(&self) -> usize {
        let free = Kind::ALL.iter().map(|kind| self.shelves[*kind as usize].free.borrow().len() * kind.usual());
        self.lent.get() + free.sum::<usize>()
    }

    /// A new buffer. Free ones of other kinds go, as far as they are in its way.
    #[cold]
    fn make(&self, kind: Kind) -> Vec<u8> {
        for shelf in &self.shelves {
            while self.held() + kind.usual() > self.limit && shelf.take().is_some() {}
        }
        match kind {
            Kind::Inbox => vec![0; INBOX_BYTES],
            Kind::Outbox | Kind::Head => Vec::with_capacity(kind.usual()),
        }
    }

    #[inline]
    fn put(&self, mut bytes: Vec<u8>, kind: Kind) {
        // one that has been made larger is not kept
        if bytes.capacity() == kind.usual() {
            if kind != Kind::Inbox {
                bytes.clear();
            }
            self.shelves[kind as usize].put(bytes);
        }
    }
}

impl Shelf {
    #[inline]
    fn take(&self) -> Option<Vec<u8>> {
        let mut free = self.free.borrow_mut();
        let taken = free.pop();
        self.unused.set(self.unused.get().min(free.len()));
        taken
    }

    #[inline]
    fn put(&self, bytes: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if free.len() < KEPT_BUFFERS {
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

impl Loan {
    /// Counts so many bytes instead.
    fn change(&mut self, bytes: usize) {
        let lent = &self.store.lent;
        lent.set(lent.get() - self.bytes + bytes);
        self.bytes = bytes;
    }
}

impl Drop for Loan {
    #[inline]
    fn drop(&mut self) {
        self.store.lent.set(self.store.lent.get() - self.bytes);
    }
}

impl Drop for Lent {
    #[inline]
    fn drop(&mut self) {
        if let Some(loan) = &self.loan {
            loan.store.put(std::mem::take(&mut self.bytes), self.kind);
        }
    }
}

impl Inbox {
    /// The bytes that are there.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.lent.bytes[self.start..self.end]
    }

    /// Whether it has a buffer.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.loan.is_some()
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether more can be read without making it larger.
    pub(crate) fn has_room(&self) -> bool {
        self.end < self.lent.bytes.len() || self.start > 0
    }

    /// Gives the buffer back; what is in it is lost.
    pub(crate) fn give_back(&mut self) {
        (self.start, self.end) = (0, 0);
        if self.is_lent() {
            self.lent = Lent::default();
        }
    }

    /// Gives the buffer back if nothing is in it.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            self.give_back();
        }
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
        self.lent.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Makes it larger, for a head that does not fit; `limit` is the largest.
    pub(crate) fn grow(&mut self, limit: usize) {
        let wanted = (self.lent.bytes.len() * 2).min(limit.max(INBOX_BYTES));
        if wanted > self.lent.bytes.len() {
            self.lent.bytes.resize(wanted, 0);
            self.lent.count_growth();
        }
    }

    /// Reads once what the socket has; 0 at its end. There must be room.
    pub(crate) fn poll_fill<R>(&mut self, stream: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
    {
        if self.end == self.lent.bytes.len() && self.start > 0 {
            self.lent.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut unfilled = ReadBuf::new(&mut self.lent.bytes[self.end..]);
        ready!(Pin::new(stream).poll_read(cx, &mut unfilled))?;
        let count = unfilled.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }
}

impl Lent {
    fn count_growth(&mut self) {
        if let Some(loan) = &mut self.loan
            && self.bytes.capacity() > loan.bytes
        {
            loan.change(self.bytes.capacity());
        }
    }
}

impl Outbox {
    /// Where what is to be written is added. Behind a head that may have made it larger follows `count_growth`.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.lent.bytes
    }

    /// Counts it as large as it has become.
    pub(crate) fn count_growth(&mut self) {
        self.lent.count_growth();
    }

    /// Whether all is written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.written == self.lent.bytes.len()
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
        self.lent.bytes.clear();
        self.written = 0;
    }

    /// Gives the buffer back; what is in it is forgotten.
    pub(crate) fn give_back(&mut self) {
        self.clear();
        if self.lent.loan.is_some() {
            self.lent = Lent::default();
        }
    }

    /// Gives the buffer back if all that was in it is written.
    pub(crate) fn rest(&mut self) {
        if self.is_flushed() {
            self.give_back();
        }
    }

    /// Begins again at the first byte.
    pub(crate) fn rewind(&mut self) {
        self.written = 0;
    }

    /// How many bytes may still be added.
    pub(crate) fn room(&self) -> usize {
        self.lent.bytes.capacity() - self.lent.bytes.len()
    }

    /// Writes as much as the socket takes; ready when all is written. See `written` for its progress.
    pub(crate) fn poll_flush<W>(&mut self, stream: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        while self.written < self.lent.bytes.len() {
            let count = ready!(Pin::new(&mut *stream).poll_write(cx, &self.lent.bytes[self.written..]))?;
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
    }

    #[test]
    fn what_a_burst_took_is_given_back_and_what_is_in_use_stays() {
        let buffers = Buffers::new(1 << 30);
        let free = || buffers.0.shelves[0].free.borrow().len();
        burst(&buffers, KEPT_BUFFERS + 100);
        assert_eq!(free(), KEPT_BUFFERS, "the rest went back at once");
        buffers.sweep();
        burst(&buffers, 3);
        buffers.sweep();
        assert_eq!(free(), 3, "the others were not needed between two sweeps");
        buffers.sweep();
        assert_eq!((free(), buffers.0.held()), (0, 0));
    }

    #[test]
    fn what_is_lent_is_counted_however_it_comes_back() {
        let buffers = Buffers::new(1 << 20);
        let (mut inbox, mut outbox, mut head) = (Inbox::default(), Outbox::default(), Outbox::default());
        buffers.lend_inbox(&mut inbox);
        buffers.lend_outbox(&mut outbox);
        buffers.lend_head(&mut head);
        let all = INBOX_BYTES + OUTBOX_BYTES + HEAD_BYTES;
        assert_eq!(buffers.lent(), all);
        head.bytes().resize(100_000, b'x');
        head.count_growth();
        inbox.grow(64 << 10);
        assert!(buffers.lent() >= all + 100_000 - HEAD_BYTES + INBOX_BYTES);
        let loan = buffers.count(5_000);
        inbox.rest();
        head.rest(); // not written: it stays
        drop(outbox);
        assert!((105_000..110_000).contains(&buffers.lent()), "{}", buffers.lent());
        head.give_back();
        drop(loan);
        assert_eq!(buffers.lent(), 0);
        assert_eq!(buffers.0.held(), OUTBOX_BYTES, "what has grown is not kept");
    }

    #[test]
    fn what_lies_idle_makes_room_for_what_is_needed() {
        let buffers = Buffers::new(4 * OUTBOX_BYTES);
        burst(&buffers, 3);
        let held = || buffers.0.held();
        assert!(!buffers.is_full() && held() == 3 * INBOX_BYTES, "{}", held());
        let mut outboxes: Vec<Outbox> = (0..4).map(|_| Outbox::default()).collect();
        outboxes.iter_mut().for_each(|outbox| buffers.lend_outbox(outbox));
        assert!(buffers.is_full() && held() == 4 * OUTBOX_BYTES, "{}", held());
    }
}
