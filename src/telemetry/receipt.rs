//! Receipts: who hands telemetry over may learn when the receiver has it, whatever it was merged with or cut into.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

/// What became of something handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The receiver has all of it.
    Complete,
    /// At least a part of it was dropped, and counted.
    Incomplete,
}

/// Travels with each part of what was handed over; the last one to go tells the result.
#[derive(Clone, Debug)]
pub(crate) struct Receipt(Arc<Pending>);

#[derive(Debug)]
struct Pending {
    failed: AtomicBool,
    /// Taken once, by `drop`, which has no other way to own it.
    answer: Mutex<Option<oneshot::Sender<Delivery>>>,
}

impl Receipt {
    /// A receipt, and where its result arrives.
    pub(crate) fn new() -> (Self, oneshot::Receiver<Delivery>) {
        let (answer, result) = oneshot::channel();
        (Self(Arc::new(Pending { failed: AtomicBool::new(false), answer: Mutex::new(Some(answer)) })), result)
    }

    /// A part was dropped.
    pub(crate) fn fail(&self) {
        self.0.failed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let delivery = if *self.failed.get_mut() { Delivery::Incomplete } else { Delivery::Complete };
        let answer = self.answer.get_mut().ok().and_then(Option::take);
        if let Some(answer) = answer {
            let _ = answer.send(delivery); // nobody waits any more: nothing to tell
        }
    }
}
