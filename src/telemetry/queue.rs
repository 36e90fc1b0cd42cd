//! The queue of one signal, bounded in bytes, and its account: nothing comes in or goes out uncounted.
//!
//! Pieces are whole export requests. The sender leases a batch and settles it; a lease that is let go without a
//! word goes back to the front. Workers never take the lock: they count on atomics, see `hand_off`.
//! What waits on disk is in the account too, so that it is exact at any moment; the file itself is `spool`'s.
//! How long something waits is told by the clock that nobody sets.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::model::telemetry::{Account, DropReason, Signal};
use crate::telemetry::hand_off::{Chunk, WorkerCount};
use crate::telemetry::otlp::{self, Origin, Request};
use crate::telemetry::receipt::Receipt;
use crate::telemetry::tail::Reason;

/// Pieces smaller than this are appended to the one before.
const COALESCED: usize = 64 << 10;

/// Workers' spans are gathered in pieces of this size, as large as what is sent at once: a request of them is made without
/// another copy.
pub(crate) const GATHERED: usize = 256 << 10;

/// A request that waits, and who wants to hear of its delivery.
#[derive(Debug)]
pub(crate) struct Piece {
    request: Request,
    receipts: Vec<Receipt>,
    /// Its oldest part came in.
    since: Instant,
}

impl From<Request> for Piece {
    fn from(request: Request) -> Self {
        Self { request, receipts: Vec::new(), since: Instant::now() }
    }
}

impl Piece {
    /// A request whose delivery somebody waits for.
    pub(crate) fn with_receipt(request: Request, receipt: Receipt) -> Self {
        Self { request, receipts: vec![receipt], since: Instant::now() }
    }

    fn append(&mut self, mut other: Self) {
        self.request.items += other.request.items;
        self.request.body.append(&mut other.request.body);
        self.receipts.append(&mut other.receipts);
    }

    fn len(&self) -> usize {
        self.request.body.len()
    }

    /// Whether so many bytes more fit without another buffer.
    fn has_room(&self, bytes: usize) -> bool {
        self.request.body.capacity() - self.len() >= bytes
    }
}

/// The queue of one signal.
#[derive(Debug)]
pub(crate) struct Queue {
    signal: Signal,
    capacity: usize,
    workers: Mutex<Vec<Arc<WorkerCount>>>,
    state: Mutex<State>,
    /// Something came in, or can be taken again.
    arrived: Notify,
    /// Half of the room is taken.
    pressed: Notify,
    /// Something left, so that there is more room.
    left: Notify,
}

/// What became of telemetry that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The receiver has it, but for so many items.
    Delivered {
        /// How many it refused.
        rejected: u64,
    },
    /// Nobody will have it.
    Dropped(DropReason),
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// Of `pieces` and of what is leased.
    bytes: usize,
    items: u64,
    /// Taken over from workers.
    taken: u64,
    /// Put in by others.
    put_in: u64,
    /// Values that others cut.
    truncated: u64,
    delivered: u64,
    rejected: u64,
    dropped: [u64; DropReason::ALL.len()],
    /// On disk, until it is settled.
    spooled: u64,
    spooled_bytes: u64,
    /// How old the oldest of it was when it was looked at, and when that was.
    oldest_spooled: Option<(Duration, Instant)>,
    /// The empty buffer of the last large request that was settled.
    spare: Vec<u8>,
    /// Nothing that can be refused is taken in any more.
    is_closed: bool,
}

impl Queue {
    pub(crate) fn new(signal: Signal, capacity: usize) -> Self {
        let [arrived, pressed, left] = [const { Notify::const_new() }; 3];
        Self { signal, capacity, workers: Mutex::default(), state: Mutex::default(), arrived, pressed, left }
    }

    pub(crate) fn signal(&self) -> Signal {
        self.signal
    }

    /// A worker's count belongs to the account from now on.
    pub(crate) fn adopt(&self, worker: Arc<WorkerCount>) {
        self.workers.lock().expect("no code panics while it holds the list of workers").push(worker);
    }

    /// Takes in what was produced elsewhere than on a worker.
    pub(crate) fn push(&self, piece: Piece) {
        if piece.request.items == 0 {
            return; // receivers refuse empty requests
        }
        let mut state = self.state();
        state.put_in += piece.request.items;
        self.add(state, piece);
    }

    /// Takes in what has room beside all that waits, and gives anything else back: nothing older goes for it.
    pub(crate) fn offer(&self, piece: Piece) -> Result<(), Piece> {
        let mut state = self.state();
        if state.is_closed || state.bytes + piece.len() > self.capacity {
            return Err(piece);
        }
        if piece.request.items > 0 {
            state.put_in += piece.request.items;
            self.add(state, piece);
        }
        Ok(())
    }

    /// Ends when something leaves after this call, even before it is awaited.
    pub(crate) fn left(&self) -> Notified<'_> {
        self.left.notified()
    }

    /// Gives back all that is offered from now on: what is left is about to be kept, and nobody would look again.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
    }

    /// Takes in spans that a worker produced and counted.
    pub(crate) fn push_handed_over(&self, origin: &Origin<'_>, chunk: &Chunk) {
        let mut state = self.state();
        state.taken += chunk.items;
        let length = origin.request_length(&chunk.bytes);
        if let Some(last) = state.pieces.back_mut().filter(|last| last.has_room(length)) {
            origin.write_request(&chunk.bytes, &mut last.request.body);
            last.request.items += chunk.items;
            return self.added(state, chunk.items, length);
        }
        let mut body = std::mem::take(&mut state.spare);
        // few spans are gathered like anything else: a large buffer for them would lie empty
        body.reserve(if length < COALESCED { length } else { length.max(GATHERED) });
        origin.write_request(&chunk.bytes, &mut body);
        self.add(state, Request { items: chunk.items, body }.into());
    }

    fn add(&self, mut state: MutexGuard<'_, State>, piece: Piece) {
        let (items, bytes) = (piece.request.items, piece.len());
        state.add(piece, if self.signal.joins() { COALESCED } else { 0 });
        self.added(state, items, bytes);
    }

    /// So much has come into the pieces: what is too much goes, and who waits for it hears of it.
    fn added(&self, mut state: MutexGuard<'_, State>, items: u64, bytes: usize) {
        state.items += items;
        state.bytes += bytes;
        state.make_room(self.capacity);
        let is_half_full = state.bytes > self.capacity / 2;
        drop(state);
        self.arrived.notify_waiters();
        if is_half_full {
            self.pressed.notify_one();
        }
    }

    /// Ends when something comes in after this call, even before it is awaited.
    pub(crate) fn arrived(&self) -> Notified<'_> {
        self.arrived.notified()
    }

    /// Ends when memory is, or has become, half full.
    pub(crate) fn pressed(&self) -> Notified<'_> {
        self.pressed.notified()
    }

    /// Whether half of the room is taken, with what is on its way.
    pub(crate) fn is_half_full(&self) -> bool {
        self.state().bytes > self.capacity / 2
    }

    /// What may wait in memory, in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that wait and are not leased.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.state().pieces.iter().map(Piece::len).sum()
    }

    /// Takes the oldest items, at most `limit` bytes of them; more only when a single item is larger.
    pub(crate) fn lease(self: &Arc<Self>, limit: usize) -> Option<Lease> {
        let mut state = self.state();
        let mut batch = state.pieces.pop_front()?;
        if batch.len() > limit && self.signal.joins() {
            batch = self.cut(&mut state, batch, limit);
        }
        let is_indivisible = batch.request.items <= 1 || batch.len() > limit;
        while let Some(next) = state.pieces.front().filter(|_| self.signal.joins()) {
            if batch.len() + next.len() > limit {
                break;
            }
            if let Some(next) = state.pieces.pop_front() {
                batch.append(next);
            }
        }
        drop(state);
        let body = Bytes::from(std::mem::take(&mut batch.request.body));
        Some(Lease {
            queue: Arc::clone(self),
            items: batch.request.items,
            body,
            receipts: batch.receipts,
            since: batch.since,
            is_indivisible,
        })
    }

    /// Keeps the first part of a piece, and puts the others back to the front.
    fn cut(&self, state: &mut State, piece: Piece, limit: usize) -> Piece {
        let Ok(parts) = otlp::split(self.signal, &piece.request.body, limit) else {
            return piece; // it was counted when it came in, so it can be read; whole is better than lost
        };
        let before = piece.len();
        let part = |request| Piece { request, receipts: piece.receipts.clone(), since: piece.since };
        let mut parts = parts.into_iter().map(part);
        let Some(first) = parts.next() else { return piece };
        let mut after = first.len();
        for part in parts.rev() {
            after += part.len();
            state.pieces.push_front(part);
        }
        state.bytes = state.bytes + after - before; // each part repeats the resource
        first
    }

    /// Drops what waits.
    pub(crate) fn drop_waiting(&self, reason: DropReason) -> u64 {
        let mut state = self.state();
        let mut items = 0;
        while let Some(piece) = state.pieces.pop_front() {
            items += piece.request.items;
            state.remove(&piece, reason);
        }
        items
    }

    /// Items and bytes on disk that are not settled.
    pub(crate) fn on_disk(&self) -> (u64, u64) {
        let state = self.state();
        (state.spooled, state.spooled_bytes)
    }

    /// The oldest row has waited for so long by now.
    pub(crate) fn oldest_on_disk(&self, age: Option<Duration>) {
        self.state().oldest_spooled = age.map(|age| (age, Instant::now()));
    }

    /// How long the oldest item has waited in memory; what is on its way is not looked at.
    pub(crate) fn oldest_in_memory(&self) -> Duration {
        self.state().oldest_in_memory()
    }

    /// How long the oldest item has waited here or on disk; zero when nothing waits. What is on its way is not looked at.
    pub(crate) fn oldest_age(&self) -> Duration {
        let state = self.state();
        let on_disk = state.oldest_spooled.map(|(age, seen)| age + seen.elapsed());
        state.oldest_in_memory().max(on_disk.unwrap_or_default())
    }

    /// So many bytes came to the disk with what was leased for it; whoever delivers may look.
    pub(crate) fn came_to_disk(&self, bytes: u64) {
        self.state().spooled_bytes += bytes;
        self.arrived.notify_waiters();
    }

    /// What is on disk was written anew.
    pub(crate) fn was_rewritten(&self, before: u64, after: u64) {
        let mut state = self.state();
        state.spooled_bytes = (state.spooled_bytes + after).saturating_sub(before);
    }

    /// The disk holds so much that is not settled. What was not known counts as produced, by an earlier process or before a
    /// failure; what is missing as dropped.
    pub(crate) fn reconcile(&self, items: u64, bytes: u64) {
        let mut state = self.state();
        state.put_in += items.saturating_sub(state.spooled);
        state.dropped[DropReason::DiskError as usize] += state.spooled.saturating_sub(items);
        (state.spooled, state.spooled_bytes) = (items, bytes);
        drop(state);
        self.arrived.notify_waiters();
    }

    /// These left the disk.
    pub(crate) fn left_disk(&self, items: u64, bytes: u64, fate: Fate) {
        let mut state = self.state();
        state.spooled -= items;
        state.spooled_bytes = state.spooled_bytes.saturating_sub(bytes);
        state.end(items, fate);
    }

    /// The account of now: `produced = delivered + rejected + dropped + queued + spooled`.
    pub(crate) fn account(&self) -> Account {
        let workers = self.workers.lock().expect("no code panics while it holds the list of workers");
        let state = self.state();
        let mut dropped = state.dropped;
        let (mut produced, mut lost) = (0, 0);
        for worker in workers.iter() {
            // lost first: what is counted there was produced before
            lost += worker.lost();
            produced += worker.produced();
        }
        dropped[DropReason::HandoffFull as usize] += lost;
        Account {
            produced: produced + state.put_in,
            delivered: state.delivered,
            rejected: state.rejected,
            dropped,
            // in the chunks of the workers and on the way from them, then here
            queued: (produced - lost - state.taken) + state.items,
            queued_bytes: state.bytes as u64,
            spooled: state.spooled,
            spooled_bytes: state.spooled_bytes,
        }
    }

    /// Values cut before they came here.
    pub(crate) fn truncated(&self) -> u64 {
        let workers = self.workers.lock().expect("no code panics while it holds the list of workers");
        workers.iter().map(|worker| worker.truncated()).sum::<u64>() + self.state().truncated
    }

    /// Requests that the tail would have kept for this reason, had it not kept so many.
    pub(crate) fn over_budget(&self, reason: Reason) -> u64 {
        let workers = self.workers.lock().expect("no code panics while it holds the list of workers");
        workers.iter().map(|worker| worker.over_budget(reason)).sum()
    }

    /// Counts values that were cut elsewhere than on a worker.
    pub(crate) fn count_truncated(&self, values: u64) {
        self.state().truncated += values;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the queue")
    }
}

impl State {
    fn oldest_in_memory(&self) -> Duration {
        self.pieces.front().map(|piece| piece.since.elapsed()).unwrap_or_default()
    }

    fn end(&mut self, items: u64, fate: Fate) {
        match fate {
            Fate::Delivered { rejected } => {
                let rejected = rejected.min(items);
                self.delivered += items - rejected;
                self.rejected += rejected;
            }
            Fate::Dropped(reason) => self.dropped[reason as usize] += items,
        }
    }

    /// Appends the piece to the last one when both are at most `joined` bytes together.
    fn add(&mut self, piece: Piece, joined: usize) {
        match self.pieces.back_mut().filter(|last| last.len() + piece.len() <= joined) {
            Some(last) => last.append(piece),
            None => self.pieces.push_back(piece),
        }
    }

    /// Drops the oldest until all is at most `capacity` bytes.
    fn make_room(&mut self, capacity: usize) {
        while self.bytes > capacity {
            let Some(oldest) = self.pieces.pop_front() else { break };
            self.remove(&oldest, DropReason::QueueFull);
        }
    }

    /// Keeps the buffer for the next large request, when nobody else reads it.
    fn keep_buffer(&mut self, body: Bytes) {
        if body.len() >= COALESCED && body.is_unique() {
            self.spare = body.into();
            self.spare.clear();
            self.spare.shrink_to(GATHERED);
        }
    }

    fn remove(&mut self, piece: &Piece, reason: DropReason) {
        self.bytes -= piece.len();
        self.items -= piece.request.items;
        self.dropped[reason as usize] += piece.request.items;
        piece.receipts.iter().for_each(Receipt::fail);
    }
}

/// A batch on its way. Dropped without being settled, it goes back to the front of its queue.
#[derive(Debug)]
pub(crate) struct Lease {
    queue: Arc<Queue>,
    items: u64,
    body: Bytes,
    receipts: Vec<Receipt>,
    since: Instant,
    is_indivisible: bool,
}

impl Lease {
    /// Whether a smaller limit would not make it smaller.
    pub(crate) fn is_indivisible(&self) -> bool {
        self.is_indivisible
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// It waits no more.
    pub(crate) fn settle(mut self, fate: Fate) {
        let mut state = self.queue.state();
        state.bytes -= self.body.len();
        state.items -= self.items;
        state.end(self.items, fate);
        state.keep_buffer(std::mem::take(&mut self.body));
        drop(state);
        self.queue.left.notify_waiters();
        if matches!(fate, Fate::Dropped(_)) {
            self.receipts.iter().for_each(Receipt::fail);
        }
        self.settled();
    }

    /// The disk has it. Whoever waits for a receipt hears that it is safe.
    pub(crate) fn spooled(mut self) {
        let mut state = self.queue.state();
        state.bytes -= self.body.len();
        state.items -= self.items;
        state.spooled += self.items;
        drop(state);
        self.queue.left.notify_waiters();
        self.settled();
    }

    fn settled(&mut self) {
        self.items = 0;
        self.body = Bytes::new();
        self.receipts.clear();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.body.is_empty() {
            return;
        }
        let body = std::mem::take(&mut self.body).into();
        let receipts = std::mem::take(&mut self.receipts);
        let request = Request { items: self.items, body };
        self.queue.state().pieces.push_front(Piece { request, receipts, since: self.since });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::hand_off::HandOff;

    fn piece(bytes: usize) -> Piece {
        Request { items: 1, body: vec![0; bytes] }.into()
    }

    #[test]
    fn what_is_offered_goes_in_where_there_is_room_and_pushes_nothing_out() {
        let queue = Arc::new(Queue::new(Signal::Traces, 100));
        assert!(queue.offer(piece(60)).is_ok());
        assert!(queue.offer(piece(60)).is_err());
        let lease = queue.lease(100).expect("one waits");
        assert!(queue.offer(piece(60)).is_err(), "what is on its way has its room still");
        lease.settle(Fate::Delivered { rejected: 0 });
        assert!(queue.offer(piece(60)).is_ok());
        let account = queue.account();
        assert_eq!(
            (account.produced, account.delivered, account.queued, account.dropped.iter().sum()),
            (2, 1, 1, 0_u64)
        );
    }

    #[test]
    fn spans_of_workers_are_gathered_in_one_buffer_that_the_next_request_has_again() {
        let queue = Arc::new(Queue::new(Signal::Traces, 1 << 20));
        let origin = Origin { resource: b"", scope: b"" };
        let (sender, mut chunks) = tokio::sync::mpsc::channel(1);
        let mut worker = HandOff::new(sender, Arc::default());
        queue.adopt(Arc::clone(&worker.count));
        let mut leased = || {
            for _ in 0..3 {
                worker.count.count_produced(10);
                let empty = worker.give(10, vec![0; COALESCED]);
                assert!(empty.is_empty());
                let chunk = chunks.try_recv().expect("it was handed over");
                queue.push_handed_over(&origin, &chunk);
            }
            let lease = queue.lease(1 << 20).expect("they wait");
            assert!(lease.body().len() > 3 * COALESCED && lease.items == 30, "all at once");
            let buffer = lease.body().as_ptr();
            lease.settle(Fate::Delivered { rejected: 0 });
            buffer
        };
        let first = leased();
        assert_eq!(first, leased());
        let account = queue.account();
        assert_eq!((account.delivered, account.queued_bytes), (60, 0));
    }

    #[test]
    fn a_closed_queue_gives_back_what_is_offered_and_keeps_what_it_has() {
        let queue = Queue::new(Signal::Logs, 100);
        assert!(queue.offer(piece(10)).is_ok());
        queue.close();
        assert!(queue.offer(piece(10)).is_err());
        assert_eq!(queue.account().queued, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_grows_old_by_the_clock_that_nobody_sets() {
        let queue = Arc::new(Queue::new(Signal::Logs, 100));
        queue.push(piece(10));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(queue.oldest_in_memory(), Duration::from_secs(1));
        drop(queue.lease(100));
        assert_eq!(queue.oldest_in_memory(), Duration::from_secs(1), "what comes back is as old as it was");
        queue.oldest_on_disk(Some(Duration::from_secs(60)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!((queue.oldest_in_memory(), queue.oldest_age()), (Duration::from_secs(6), Duration::from_secs(65)));
        queue.oldest_on_disk(None);
        assert_eq!(queue.oldest_age(), Duration::from_secs(6));
    }
}
