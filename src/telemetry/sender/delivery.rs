//! The loop of one signal: leases batches from memory and disk, has them sent, and settles them by the answer.
//!
//! Four lanes in one task. The first takes whatever waits, what is new before what is on disk; the others help only with a
//! backlog, so that a slow answer does not halve the throughput and a fast one costs no extra connections. Half of
//! them empty the disk, so that a long outage's remains never hold up what is new.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::model::telemetry::DropReason;
use crate::telemetry::queue::{Fate, GATHERED, Lease, Queue};
use crate::telemetry::sealed::Form;
use crate::telemetry::sender::answer::Answer;
use crate::telemetry::sender::breaker::Permit;
use crate::telemetry::sender::destination::Destination;
use crate::telemetry::spool::{EXPOSED, Spool, SpoolLease};

/// A probe is small: what it carries may be sent several times. What is compressed already stays as it is.
const PROBE_BYTES: usize = 64 << 10;
/// From this lane on, the disk comes first.
const FIRST_FOR_DISK: usize = 2;
/// A lane that found nothing pauses for so long.
const EMPTY_HANDED: Duration = Duration::from_millis(100);
/// After a request what is new is gathered for so long, unless it is as much as `GATHERED`: each request costs a wake-up of both sides, a compression
/// that knows nothing yet, and some system calls.
const GATHERING: Duration = Duration::from_millis(250);
/// When nothing else ends a wait; only a safety net.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Delivers one signal.
#[derive(Debug)]
pub(crate) struct Delivery {
    queue: Arc<Queue>,
    /// `None` when nothing is kept on disk.
    spool: Option<Arc<Spool>>,
    destination: Arc<Destination>,
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The queue is being filled.
    Running,
    /// What is in the queue is the last.
    Finishing,
    /// Nothing is delivered any more.
    Leaving,
}

/// Where a lane takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Memory,
    Disk,
}

/// What a lane does next.
enum Next {
    /// Takes from there at most so many bytes, and sends them with this timeout.
    Send(Place, usize, Duration),
    Wait(Instant),
    Done,
}

/// A batch on its way; dropped without being settled, it waits again.
enum Batch {
    Memory(Lease),
    Disk(SpoolLease),
}

impl Batch {
    /// As it is sent: compressed now if it never was, and kept so.
    fn form(&mut self, destination: &Destination) -> io::Result<Form> {
        match self {
            Self::Memory(lease) => Ok(lease.seal(destination.compression(), destination.press())?.form().clone()),
            Self::Disk(lease) => Ok(lease.form().clone()),
        }
    }

    /// Bytes before compression.
    fn raw_len(&self) -> usize {
        match self {
            Self::Memory(lease) => lease.raw_len(),
            Self::Disk(lease) => lease.form().raw_len(),
        }
    }

    fn is_indivisible(&self) -> bool {
        match self {
            Self::Memory(lease) => lease.is_indivisible(),
            Self::Disk(lease) => lease.is_indivisible(),
        }
    }

    fn settle(self, fate: Fate) {
        match self {
            Self::Memory(lease) => lease.settle(fate),
            Self::Disk(lease) => lease.settle(fate),
        }
    }
}

impl Delivery {
    pub(crate) fn new(queue: Arc<Queue>, spool: Option<Arc<Spool>>, destination: Arc<Destination>) -> Self {
        Self { queue, spool, destination }
    }

    /// Delivers until the stage is `Finishing` and nothing is left. Let go, it gives back what is on its way.
    pub(crate) async fn run(&self, stage: watch::Receiver<Stage>) {
        let lane = |number| self.lane(number, stage.clone());
        tokio::join!(lane(0), lane(1), lane(2), lane(3));
    }

    async fn lane(&self, number: usize, mut stage: watch::Receiver<Stage>) {
        let mut gathers_until = Instant::now();
        loop {
            let (arrived, changed) = (self.queue.arrived(), self.destination.changed());
            let now = *stage.borrow_and_update();
            match self.next(number, now, gathers_until) {
                // on the heap: sixteen lanes are one task, and what they hold is moved through a small stack
                Next::Send(place, limit, timeout) => {
                    Box::pin(self.send(place, limit, timeout)).await;
                    gathers_until = Instant::now() + GATHERING;
                }
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

    fn next(&self, lane: usize, stage: Stage, gathers_until: Instant) -> Next {
        let limit = self.queue.limit();
        let memory = self.queue.waiting_bytes();
        let disk = self.spool.as_ref().map_or(0, |spool| spool.waiting(self.queue.signal()));
        let idle = Next::Wait(Instant::now() + LONGEST_WAIT);
        if memory == 0 && disk == 0 {
            return if stage == Stage::Running { idle } else { Next::Done };
        }
        let is_backlog = memory >= limit || (memory > 0 && stage != Stage::Running);
        let gathers = memory < GATHERED.min(limit) && stage == Stage::Running && Instant::now() < gathers_until;
        let place = match lane {
            0 if memory > 0 && !gathers => Place::Memory,
            0 if disk > 0 => Place::Disk,
            0 => return Next::Wait(gathers_until),
            FIRST_FOR_DISK.. if disk > 0 => Place::Disk,
            _ if is_backlog => Place::Memory,
            _ => return idle,
        };
        match self.destination.permit() {
            Permit::Send => Next::Send(place, limit, self.destination.timeout()),
            Permit::Probe(timeout) => {
                Next::Send(place, limit.min(PROBE_BYTES), timeout.min(self.destination.timeout()))
            }
            Permit::Wait(until) => Next::Wait(until),
            Permit::Ask => idle,
        }
    }

    async fn send(&self, place: Place, limit: usize, timeout: Duration) {
        let batch = match (place, &self.spool) {
            (Place::Disk, Some(spool)) => spool.lease(self.queue.signal(), limit).await.map(Batch::Disk),
            _ => self.queue.lease(limit).map(Batch::Memory),
        };
        match batch {
            // the disk takes its time, and another lane's answer may have come meanwhile
            Some(batch) if self.destination.must_wait() => {
                drop(batch);
                self.destination.unused();
            }
            Some(batch) => self.deliver(batch, timeout).await,
            None => {
                // another lane took it, or the disk fails: not again at once
                self.destination.unused();
                tokio::time::sleep(EMPTY_HANDED).await;
            }
        }
    }

    async fn deliver(&self, batch: Batch, timeout: Duration) {
        let (destination, signal) = (&self.destination, self.queue.signal());
        let (answer, batch) = self.attempt(batch, timeout).await;
        match answer {
            Answer::Accepted { rejected, message } => {
                batch.settle(Fate::Delivered { rejected });
                destination.accepted(signal, rejected, &message);
            }
            Answer::Later { floor, reason } => {
                drop(batch); // back to the front
                destination.count_retry(signal);
                destination.failed(floor, &reason).await;
            }
            Answer::TooLarge(reason) => self.too_large(batch, &reason),
            Answer::Refused(reason) | Answer::Unauthorized(reason) | Answer::UnknownCoding(reason) => {
                batch.settle(Fate::Dropped(DropReason::Permanent));
                destination.refused(signal, &reason);
            }
            Answer::Unreadable(reason) => {
                batch.settle(Fate::Dropped(DropReason::BadResponse));
                // what answers like this takes nothing: slow down, or all would be lost at full speed
                destination.failed(None, &reason).await;
            }
        }
    }

    async fn attempt(&self, mut batch: Batch, timeout: Duration) -> (Answer, Batch) {
        let form = match batch.form(&self.destination) {
            Ok(form) => form,
            Err(error) => return (Answer::none(format!("cannot compress: {error}")), batch),
        };
        let mut attempt = pin!(self.destination.attempt(self.queue.signal(), &form, timeout));
        match tokio::time::timeout(EXPOSED, &mut attempt).await {
            Ok(answer) => (answer, batch),
            // a silent receiver: what it was sent must outlive this process
            Err(_) => tokio::join!(attempt, self.kept(&form, batch)),
        }
    }

    /// The same batch, on disk if there is one.
    async fn kept(&self, form: &Form, batch: Batch) -> Batch {
        match (batch, &self.spool) {
            (Batch::Memory(lease), Some(spool)) => match spool.hold(self.queue.signal(), form, lease).await {
                Ok(lease) => Batch::Disk(lease),
                Err(lease) => Batch::Memory(lease),
            },
            (batch, _) => batch,
        }
    }

    /// Never the same bytes again: halves, until a single item is too large by itself.
    fn too_large(&self, batch: Batch, reason: &str) {
        self.destination.refused(self.queue.signal(), reason);
        if batch.is_indivisible() {
            batch.settle(Fate::Dropped(DropReason::TooLarge));
        } else {
            self.queue.shrink_limit(batch.raw_len() / 2);
        }
    }
}
