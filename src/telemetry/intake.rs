//! The way in for whole export requests: of the sidecar's own SDK now, of the application's later.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::model::telemetry::Signal;
use crate::telemetry::otlp::{self, Request};
use crate::telemetry::queue::{Piece, Queue};
use crate::telemetry::receipt::Receipt;

pub use crate::telemetry::receipt::Delivery;

/// The bytes are no OTLP export request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an OTLP export request of {}, expected protobuf", .0.label())]
pub struct NotOtlp(Signal);

/// Puts requests into the queues. Never waits; what does not fit pushes the oldest out, counted.
#[derive(Clone, Debug)]
pub struct Intake {
    /// By signal; `None` when it is switched off: then it is neither kept nor counted.
    queues: [Option<Arc<Queue>>; Signal::ALL.len()],
}

impl Intake {
    pub(crate) fn new(queues: [Option<Arc<Queue>>; Signal::ALL.len()]) -> Self {
        Self { queues }
    }

    /// Takes a request in.
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
