//! The way of a worker's spans to the control side: chunks through a bounded channel that nobody waits for, and their
//! buffers the way back, as pages that are asked of the kernel anew cost more than what is written to them.
//!
//! The worker counts on two atomics that it alone writes; the account reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::telemetry::sealed::Errors;
use crate::telemetry::tail::Reason;

/// Spans of one worker: each with its tag and length, ready for a request.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) items: u64,
    pub(crate) errors: Errors,
    pub(crate) bytes: Vec<u8>,
    home: mpsc::Sender<Vec<u8>>,
}

impl Chunk {
    /// It has been read: its worker may have the buffer again.
    pub(crate) fn give_back(self) {
        let _enough_are_there = self.home.try_send(self.bytes);
    }
}

/// How many chunks may be on the way: with 64 KiB each, 4 MiB for each worker. At 2,000 requests a second that is more than a
/// second and a half, as a busy machine may keep the control side from its turn for so long.
pub(crate) const CHUNKS_PER_WORKER: usize = 64;

/// How many buffers may lie ready for a worker: one for each chunk that is usually on the way.
const BUFFERS_READY: usize = 2;

/// What one worker counts.
#[derive(Debug, Default)]
pub(crate) struct WorkerCount {
    produced: AtomicU64,
    lost: AtomicU64,
    /// Bytes of the chunks that were handed over.
    handed: AtomicU64,
    truncated: AtomicU64,
    /// By `Reason`.
    over_budget: [AtomicU64; Reason::ALL.len()],
}

impl WorkerCount {
    /// Spans written, since the start.
    pub(crate) fn produced(&self) -> u64 {
        self.produced.load(Ordering::Acquire)
    }

    /// Spans that could not be handed over, since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }

    /// Bytes handed over, since the start.
    pub(crate) fn handed(&self) -> u64 {
        self.handed.load(Ordering::Acquire)
    }

    /// Values cut, since the start.
    pub(crate) fn truncated(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    /// Counts values that were cut; by the one worker only.
    pub(crate) fn count_truncated(&self, values: u64) {
        self.truncated.store(self.truncated.load(Ordering::Relaxed) + values, Ordering::Relaxed);
    }

    /// Requests that the tail would have kept for this reason, had it not kept so many, since the start.
    pub(crate) fn over_budget(&self, reason: Reason) -> u64 {
        self.over_budget[reason as usize].load(Ordering::Relaxed)
    }

    /// Counts a request over the budget of the tail; by the one worker only.
    pub(crate) fn count_over_budget(&self, reason: Reason) {
        let count = &self.over_budget[reason as usize];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Counts spans; by the one worker only, so a load and a store do.
    pub(crate) fn count_produced(&self, items: u64) {
        self.produced.store(self.produced.load(Ordering::Relaxed) + items, Ordering::Release);
    }
}

/// A worker's end of the channel.
#[derive(Debug)]
pub(crate) struct HandOff {
    sender: mpsc::Sender<Chunk>,
    home: mpsc::Sender<Vec<u8>>,
    emptied: mpsc::Receiver<Vec<u8>>,
    pub(crate) count: Arc<WorkerCount>,
}

impl HandOff {
    pub(crate) fn new(sender: mpsc::Sender<Chunk>, count: Arc<WorkerCount>) -> Self {
        let (home, emptied) = mpsc::channel(BUFFERS_READY);
        Self { sender, home, emptied, count }
    }

    /// Hands spans over, or drops them and counts that; never waits.
    ///
    /// Returns an empty buffer to go on with.
    pub(crate) fn give(&mut self, (items, errors): (u64, Errors), bytes: Vec<u8>) -> Vec<u8> {
        // the next chunk is probably as large as this one; grown step by step it would be copied often
        let length = bytes.len();
        // before, so that what was taken over is never more than what was handed over
        let handed = self.count.handed.load(Ordering::Relaxed);
        self.count.handed.store(handed + length as u64, Ordering::Release);
        let mut buffer = match self.sender.try_send(Chunk { items, errors, bytes, home: self.home.clone() }) {
            Ok(()) => self.emptied.try_recv().unwrap_or_else(|_| Vec::with_capacity(length)),
            Err(mpsc::error::TrySendError::Full(chunk) | mpsc::error::TrySendError::Closed(chunk)) => {
                let lost = &self.count.lost;
                lost.store(lost.load(Ordering::Relaxed) + chunk.items, Ordering::Release);
                self.count.handed.store(handed, Ordering::Release);
                chunk.bytes
            }
        };
        buffer.clear();
        buffer
    }
}
