//! The way in for whole export requests: of the sidecar's own SDK, and of the application's.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::model::telemetry::Signal;
use crate::telemetry::otlp::{self, Request};
use crate::telemetry::queue::Queue;
use crate::telemetry::queue::piece::Piece;
use crate::telemetry::receipt::Receipt;

pub use crate::telemetry::receipt::Delivery;

/// The bytes are no OTLP export request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an OTLP export request of {}, expected protobuf", .0.label())]
pub struct NotOtlp(Signal);

/// There is no room for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Not now.
    Full,
    /// Never: one of its items is larger than the queue.
    TooLarge,
}

/// Puts requests into the queues.
#[derive(Clone, Debug)]
pub struct Intake {
    /// By signal; `None` when it is switched off: then it is neither kept nor counted.
    queues: [Option<Arc<Queue>>; Signal::ALL.len()],
}

impl Intake {
    pub(crate) fn new(queues: [Option<Arc<Queue>>; Signal::ALL.len()]) -> Self {
        Self { queues }
    }

    /// Takes a request in. Never waits; what does not fit pushes the oldest out, counted.
    ///
    /// # Errors
    /// When it is none; it is not counted then.
    pub fn push(&self, signal: Signal, body: Vec<u8>) -> Result<(), NotOtlp> {
        let request = read(signal, body)?;
        if let Some(queue) = &self.queues[signal as usize] {
            queue.push(request.into());
        }
        Ok(())
    }

    /// Takes a request in as soon as it has room, and lets nothing older go for it. Once this is done the queue has it, and
    /// within a second the disk or the receiver.
    ///
    /// # Errors
    /// When there is no room by the deadline; of a request that is larger than a quarter of the queue, a part may be in then.
    pub(crate) async fn offer(&self, signal: Signal, request: Request, deadline: Instant) -> Result<(), NoRoom> {
        let Some(queue) = &self.queues[signal as usize] else { return Ok(()) };
        let largest = queue.capacity() / 4;
        let is_large = request.body.len() > largest;
        let parts = is_large.then(|| otlp::split(signal, &request.body, largest).ok()).flatten();
        let parts = parts.unwrap_or_else(|| vec![request]);
        if parts.iter().any(|part| part.body.len() > queue.capacity()) {
            return Err(NoRoom::TooLarge);
        }
        for part in parts {
            let mut piece = Piece::from(part);
            loop {
                let left = queue.left();
                match queue.offer(piece) {
                    Ok(()) => break,
                    Err(back) => piece = back,
                }
                timeout_at(deadline, left).await.map_err(|_| NoRoom::Full)?;
            }
        }
        Ok(())
    }

    /// Whether a signal is exported at all.
    pub(crate) fn takes(&self, signal: Signal) -> bool {
        self.queues[signal as usize].is_some()
    }

    /// Counts values that were cut in what is taken in.
    pub(crate) fn count_truncated(&self, signal: Signal, values: u64) {
        if let Some(queue) = self.queues[signal as usize].as_ref().filter(|_| values > 0) {
            queue.count_truncated(values);
        }
    }

    /// Takes a request in and tells when the receiver has all of it, or when a part of it was dropped.
    ///
    /// # Errors
    /// When it is none; it is not counted then.
    pub fn push_acknowledged(&self, signal: Signal, body: Vec<u8>) -> Result<oneshot::Receiver<Delivery>, NotOtlp> {
        let (receipt, result) = Receipt::new();
        let request = read(signal, body)?;
        match &self.queues[signal as usize] {
            Some(queue) => queue.push(Piece::with_receipt(request, receipt)),
            None => receipt.fail(),
        }
        Ok(result)
    }
}

fn read(signal: Signal, body: Vec<u8>) -> Result<Request, NotOtlp> {
    let items = otlp::count(signal, &body).map_err(|_| NotOtlp(signal))?;
    Ok(Request { items, body })
}
