//! The queue of one signal, bounded in bytes, and its account: nothing comes in or goes out uncounted.
//!
//! Pieces are whole export requests. The sender leases a batch, which is compressed then, once, and settles it; a lease that
//! is let go without a word goes back to the front as it is. Workers never take the lock: they count on atomics, see `hand_off`.
//! What waits on disk is in the account too, so that it is exact at any moment; the file itself is `spool`'s.
//! How long something waits is told by the clock that nobody sets.

pub(crate) mod piece;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::model::telemetry::{Account, DropReason, Signal};
use crate::telemetry::config::Compression;
use crate::telemetry::hand_off::{Chunk, WorkerCount};
use crate::telemetry::otlp::{Origin, Request};
use crate::telemetry::queue::piece::{Body, Piece};
use crate::telemetry::receipt::Receipt;
use crate::telemetry::sealed::Sealed;
use crate::telemetry::sender::compression::Press;
use crate::telemetry::tail::Reason;

/// Pieces smaller than this are appended to the one before.
const COALESCED: usize = 64 << 10;

/// Workers' spans are gathered in pieces of this size, as large as what is sent at once: a request of them is made without
/// another copy.
pub(crate) const GATHERED: usize = 256 << 10;

/// The queue of one signal.
#[derive(Debug)]
pub(crate) struct Queue {
    signal: Signal,
    capacity: usize,
    /// Bytes of a request before compression; shrinks for good when the receiver finds them too many.
    limit: AtomicUsize,
    workers: Mutex<Vec<Arc<WorkerCount>>>,
    state: Mutex<State>,
    /// Something came in, or can be taken again.
    arrived: Notify,
    /// As much came in as is sent at once, or there is something on disk.
    gathered: Notify,
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
    taken_bytes: u64,
    /// In memory for attempts from the disk.
    lent: usize,
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
    /// For so many bytes that wait, sent in requests of at most `limit`.
    pub(crate) fn new(signal: Signal, capacity: usize, limit: usize) -> Self {
        let [arrived, gathered, pressed, left] = [const { Notify::const_new() }; 4];
        let (workers, state, limit) = (Mutex::default(), Mutex::default(), AtomicUsize::new(limit));
        Self { signal, capacity, limit, workers, state, arrived, gathered, pressed, left }
    }

    /// The most bytes of a request, before compression.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// The receiver found one too large that was twice as long: requests are smaller from now on.
    pub(crate) fn shrink_limit(&self, bytes: usize) {
        self.limit.fetch_min(bytes.max(1), Ordering::Relaxed);
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
        if piece.items == 0 {
            return; // receivers refuse empty requests
        }
        let mut state = self.state();
        state.put_in += piece.items;
        self.add(state, piece);
    }

    /// Takes in what has room beside all that waits, and gives anything else back: nothing older goes for it.
    pub(crate) fn offer(&self, piece: Piece) -> Result<(), Piece> {
        let mut state = self.state();
        if state.is_closed || state.bytes + piece.len() > self.capacity {
            return Err(piece);
        }
        if piece.items > 0 {
            state.put_in += piece.items;
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
        state.taken_bytes += chunk.bytes.len() as u64;
        let length = origin.request_length(&chunk.bytes);
        if let Some(last) = state.pieces.back_mut()
            && let Some(body) = last.with_room(length)
        {
            origin.write_request(&chunk.bytes, body);
            last.items += chunk.items;
            last.errors = last.errors.and(chunk.errors);
            return self.added(state, chunk.items, length);
        }
        let mut body = std::mem::take(&mut state.spare);
        // few spans are gathered like anything else: a large buffer for them would lie empty
        body.reserve(if length < COALESCED { length } else { length.max(GATHERED) });
        origin.write_request(&chunk.bytes, &mut body);
        let piece = Piece { errors: chunk.errors, ..Request { items: chunk.items, body }.into() };
        self.add(state, piece);
    }

    fn add(&self, mut state: MutexGuard<'_, State>, piece: Piece) {
        let (items, bytes) = (piece.items, piece.len());
        state.add(piece, if self.signal.joins() { COALESCED } else { 0 });
        self.added(state, items, bytes);
    }

    /// So much has come into the pieces: what is too much goes, and who waits for it hears of it.
    fn added(&self, mut state: MutexGuard<'_, State>, items: u64, bytes: usize) {
        state.items += items;
        state.bytes += bytes;
        state.make_room(self.signal, self.capacity);
        let is_half_full = state.bytes > self.capacity / 2;
        let is_gathered = state.waiting_bytes() >= GATHERED.min(self.limit());
        drop(state);
        self.arrived.notify_waiters();
        if is_gathered {
            self.gathered.notify_waiters();
        }
        if is_half_full {
            self.pressed.notify_one();
        }
    }

    /// Ends when something comes in after this call, even before it is awaited.
    pub(crate) fn arrived(&self) -> Notified<'_> {
        self.arrived.notified()
    }

    /// The same for whoever is not to hear of each chunk: ends when `GATHERED` bytes wait, or what a request may have, or
    /// something is on disk.
    pub(crate) fn gathered(&self) -> Notified<'_> {
        self.gathered.notified()
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
        self.state().waiting_bytes()
    }

    /// Takes the oldest items, at most `goal` bytes of them; more only when a single item is larger, or when they are
    /// compressed already: those stay together as long as the receiver takes as many.
    pub(crate) fn lease(self: &Arc<Self>, goal: usize) -> Option<Lease> {
        let mut state = self.state();
        let mut batch = state.pieces.pop_front()?;
        let limit = if batch.is_raw() { goal.min(self.limit()) } else { self.limit() };
        if batch.raw_len() > limit && self.signal.joins() {
            batch = self.cut(&mut state, batch, limit);
        }
        let is_indivisible = batch.items <= 1 || batch.raw_len() > limit;
        while let Some(next) = state.pieces.pop_front_if(|next| self.signal.joins() && batch.joins(next, limit)) {
            batch.append(next);
        }
        drop(state);
        Some(Lease { queue: Arc::clone(self), piece: Some(batch), is_indivisible })
    }

    /// Keeps the first part of a piece, and puts the others back to the front.
    fn cut(&self, state: &mut State, piece: Piece, limit: usize) -> Piece {
        // it was counted when it came in, so it can be read; whole is better than lost
        let Some(parts) = piece.split(self.signal, limit) else { return piece };
        let before = piece.len();
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return piece };
        let mut after = first.len();
        for part in parts.rev() {
            after += part.len();
            state.pieces.push_front(part);
        }
        state.bytes = state.bytes + after - before; // each part repeats the resource, and is not compressed yet
        first
    }

    /// Drops what waits.
    pub(crate) fn drop_waiting(&self, reason: DropReason) -> u64 {
        let mut state = self.state();
        let mut items = 0;
        while let Some(piece) = state.pieces.pop_front() {
            items += piece.items;
            state.remove(&piece, reason);
        }
        items
    }

    /// Items that are leased.
    pub(crate) fn on_its_way(&self) -> u64 {
        let state = self.state();
        state.items - state.pieces.iter().map(|piece| piece.items).sum::<u64>()
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

    /// So many bytes are held for an attempt from the disk, until this is let go.
    pub(crate) fn lend(self: &Arc<Self>, bytes: usize) -> Lent {
        self.state().lent += bytes;
        Lent { queue: Arc::clone(self), bytes }
    }

    /// So many bytes came to the disk with what was leased for it; whoever delivers may look.
    pub(crate) fn came_to_disk(&self, bytes: u64) {
        self.state().spooled_bytes += bytes;
        self.arrived.notify_waiters();
        self.gathered.notify_waiters();
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
        self.gathered.notify_waiters();
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
        let (mut produced, mut lost, mut handed) = (0, 0, 0);
        for worker in workers.iter() {
            handed += worker.handed();
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
            queued_bytes: (state.bytes + state.lent) as u64 + (handed - state.taken_bytes),
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
    fn waiting_bytes(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

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
        match self.pieces.back_mut().filter(|last| last.joins(&piece, joined)) {
            Some(last) => last.append(piece),
            None => self.pieces.push_back(piece),
        }
    }

    /// Drops the oldest until all is at most `capacity` bytes; what tells of errors goes last.
    fn make_room(&mut self, signal: Signal, capacity: usize) {
        while self.bytes > capacity {
            let at = self.pieces.iter().position(|piece| signal.joins() && !piece.is_errors()).unwrap_or(0);
            let Some(oldest) = self.pieces.remove(at) else { break };
            let errors = if oldest.is_errors() || !signal.joins() { None } else { oldest.errors(signal) };
            self.remove(&oldest, DropReason::QueueFull);
            if let Some(errors) = errors {
                self.put_back(at, errors);
            }
        }
    }

    /// What was dropped with the piece that was there is not.
    fn put_back(&mut self, at: usize, errors: Piece) {
        self.bytes += errors.len();
        self.items += errors.items;
        self.dropped[DropReason::QueueFull as usize] -= errors.items;
        let before = at.checked_sub(1).and_then(|before| self.pieces.get_mut(before));
        match before.filter(|before| before.is_errors() && before.joins(&errors, COALESCED)) {
            Some(before) => before.append(errors),
            None => self.pieces.insert(at, errors),
        }
    }

    /// Keeps the buffer for the next large request.
    fn keep_buffer(&mut self, mut body: Vec<u8>) {
        if body.len() >= COALESCED {
            body.clear();
            body.shrink_to(GATHERED);
            self.spare = body;
        }
    }

    fn remove(&mut self, piece: &Piece, reason: DropReason) {
        self.bytes -= piece.len();
        self.items -= piece.items;
        self.dropped[reason as usize] += piece.items;
        piece.receipts.iter().for_each(Receipt::fail);
    }
}

/// Bytes that are on their way from the disk.
#[derive(Debug)]
pub(crate) struct Lent {
    queue: Arc<Queue>,
    bytes: usize,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.queue.state().lent -= self.bytes;
    }
}

/// A batch on its way. Dropped without being settled, it goes back to the front of its queue.
#[derive(Debug)]
pub(crate) struct Lease {
    queue: Arc<Queue>,
    /// Until it is settled.
    piece: Option<Piece>,
    is_indivisible: bool,
}

impl Lease {
    /// Whether a smaller limit would not make it smaller.
    pub(crate) fn is_indivisible(&self) -> bool {
        self.is_indivisible
    }

    /// Bytes before compression.
    pub(crate) fn raw_len(&self) -> usize {
        self.piece.as_ref().map_or(0, Piece::raw_len)
    }

    /// How long the oldest of it has been here.
    pub(crate) fn age(&self) -> Duration {
        self.piece.as_ref().map_or(Duration::ZERO, |piece| piece.since.elapsed())
    }

    /// How it is compressed; `None` before it was.
    pub(crate) fn coding(&self) -> Option<Compression> {
        match &self.piece.as_ref()?.body {
            Body::Raw(_) => None,
            Body::Sealed(sealed) => Some(sealed.form().coding()),
        }
    }

    /// Compresses it in this way, unless it is already. In a coding that does not join, what tells of errors goes by itself, and
    /// the rest is the next batch.
    ///
    /// # Errors
    /// The compressor has no memory.
    pub(crate) fn seal(&mut self, coding: Compression, press: &Press) -> io::Result<Sealed> {
        let signal = self.queue.signal;
        let Some(piece) = &mut self.piece else { return Err(io::ErrorKind::NotFound.into()) };
        let before = piece.len();
        if !coding.joins()
            && let Some(rest) = piece.take_rest(signal)
        {
            // a request by itself, and the next
            let mut state = self.queue.state();
            state.bytes = state.bytes + piece.len() + rest.len() - before;
            state.pieces.push_front(rest);
        }
        let before = piece.len();
        let sealed = match &piece.body {
            Body::Sealed(sealed) if sealed.form().coding() == coding => return Ok(Sealed::clone(sealed)),
            Body::Sealed(sealed) => sealed.in_coding(signal, coding, press)?,
            Body::Raw(raw) => Sealed::new(signal, (raw, piece.items, piece.errors), coding, (press, piece.occasion))?,
        };
        let was = std::mem::replace(&mut piece.body, Body::Sealed(Box::new(sealed.clone())));
        let mut state = self.queue.state();
        state.bytes = state.bytes + piece.len() - before;
        if let Body::Raw(raw) = was {
            state.keep_buffer(raw);
        }
        drop(state);
        self.queue.left.notify_waiters(); // what is compressed takes less room
        Ok(sealed)
    }

    /// It waits no more.
    pub(crate) fn settle(mut self, fate: Fate) {
        let Some(piece) = self.piece.take() else { return };
        let mut state = self.queue.state();
        state.bytes -= piece.len();
        state.items -= piece.items;
        state.end(piece.items, fate);
        drop(state);
        self.queue.left.notify_waiters();
        if matches!(fate, Fate::Dropped(_)) {
            piece.receipts.iter().for_each(Receipt::fail);
        }
    }

    /// The disk has it. Whoever waits for a receipt hears that it is safe.
    pub(crate) fn spooled(mut self) {
        let Some(piece) = self.piece.take() else { return };
        let mut state = self.queue.state();
        state.bytes -= piece.len();
        state.items -= piece.items;
        state.spooled += piece.items;
        drop(state);
        self.queue.left.notify_waiters();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(piece) = self.piece.take() {
            self.queue.state().pieces.push_front(piece);
            // whoever saw nothing while this was taken waits for what is new
            self.queue.arrived.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
