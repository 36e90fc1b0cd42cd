//! The loop of one signal: leases batches from its queue, has them sent, and settles them by the answer.
//!
//! Four lanes in one task. The first takes whatever waits; the others help only with a backlog of whole requests,
//! so that a slow answer does not halve the throughput and a fast one costs no extra connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::model::telemetry::DropReason;
use crate::telemetry::queue::{Lease, Queue};
use crate::telemetry::sender::answer::Answer;
use crate::telemetry::sender::breaker::Permit;
use crate::telemetry::sender::destination::Destination;

/// A probe is small: what it carries may be sent several times.
const PROBE_BYTES: usize = 64 << 10;
/// When nothing else ends a wait; only a safety net.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Delivers one signal.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: Arc<Queue>,
    destination: Arc<Destination>,
    /// Bytes of a request; shrinks for good when the receiver finds them too many.
    limit: AtomicUsize,
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The queue is being filled.
    Running,
    /// What is in the queue is the last.
    Finishing,
}

/// What a lane does next.
enum Next {
    Send(Lease, Duration),
    Wait(Instant),
    Done,
}

impl Delivery {
    pub(crate) fn new(queue: Arc<Queue>, destination: Arc<Destination>, limit: usize) -> Self {
        Self { queue, destination, limit: AtomicUsize::new(limit) }
    }

    /// Delivers until the stage is `Finishing` and nothing is left. Let go, it gives back what is on its way.
    pub(crate) async fn run(&self, stage: watch::Receiver<Stage>) {
        let lane = |number| self.lane(number, stage.clone());
        tokio::join!(lane(0), lane(1), lane(2), lane(3));
    }

    async fn lane(&self, number: usize, mut stage: watch::Receiver<Stage>) {
        loop {
            let (arrived, changed) = (self.queue.arrived(), self.destination.changed());
            let now = *stage.borrow_and_update();
            match self.next(number, now) {
                Next::Send(lease, timeout) => self.deliver(lease, timeout).await,
                Next::Done => return,
                Next::Wait(until) => tokio::select! {
                    () = arrived => {}
                    () = changed => {}
                    () = sleep_until(until) => {}
                    _ = stage.changed() => {}
                },
            }
        }
    }

    fn next(&self, lane: usize, stage: Stage) -> Next {
        let waiting = self.queue.waiting_bytes();
        let limit = self.limit.load(Ordering::Relaxed);
        let idle = Next::Wait(Instant::now() + LONGEST_WAIT);
        if waiting == 0 && stage == Stage::Finishing {
            return Next::Done;
        }
        if waiting == 0 || (lane > 0 && waiting < limit && stage == Stage::Running) {
            return idle;
        }
        let (limit, timeout) = match self.destination.permit() {
            Permit::Send => (limit, self.destination.timeout()),
            Permit::Probe(timeout) => (limit.min(PROBE_BYTES), timeout.min(self.destination.timeout())),
            Permit::Wait(until) => return Next::Wait(until),
            Permit::Ask => return idle,
        };
        match self.queue.lease(limit) {
            Some(lease) => Next::Send(lease, timeout),
            None => {
                self.destination.unused();
                idle
            }
        }
    }

    async fn deliver(&self, lease: Lease, timeout: Duration) {
        let (destination, signal) = (&self.destination, self.queue.signal());
        match destination.attempt(signal, lease.body(), timeout).await {
            Answer::Accepted { rejected, message } => {
                lease.delivered(rejected);
                destination.accepted(signal, rejected, &message);
            }
            Answer::Later { floor, reason } => {
                drop(lease); // back to the front
                destination.failed(floor, &reason).await;
            }
            Answer::TooLarge(reason) => self.too_large(lease, &reason),
            Answer::Refused(reason) | Answer::UnknownCoding(reason) => {
                lease.dropped(DropReason::Permanent);
                destination.refused(signal, &reason);
            }
            Answer::Unreadable(reason) => {
                lease.dropped(DropReason::BadResponse);
                // what answers like this takes nothing: slow down, or all would be lost at full speed
                destination.failed(None, &reason).await;
            }
        }
    }

    /// Never the same bytes again: halves, until a single item is too large by itself.
    fn too_large(&self, lease: Lease, reason: &str) {
        self.destination.refused(self.queue.signal(), reason);
        if lease.is_indivisible() {
            lease.dropped(DropReason::TooLarge);
        } else {
            self.limit.fetch_min(lease.body().len() / 2, Ordering::Relaxed);
        }
    }
}
