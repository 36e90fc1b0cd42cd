//! The loop of one signal: leases batches from memory and disk, has them sent, and settles them by the answer.
//!
//! Four lanes, and one wait for all of them. The first takes whatever waits, what is new before what is on disk; the others help
//! only with a backlog, so that a slow answer does not halve the throughput and a fast one costs no extra connections. Half of
//! them empty the disk, so that a long outage's remains never hold up what is new. Where few requests are served, to wake up
//! costs more than to send: so a chunk that changes nothing wakes nobody.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
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
/// Requests on their way at once.
const LANES: usize = 4;
/// From this lane on, the disk comes first.
const FIRST_FOR_DISK: usize = 2;
/// A lane that found nothing pauses for so long.
const EMPTY_HANDED: Duration = Duration::from_millis(100);
/// After a request what is new is gathered for so long, unless it is as much as `GATHERED`: each request costs a wake-up of both sides, a compression
/// that knows nothing yet, and some system calls. With the quarter of a second that a worker keeps a span it is seen within one.
const GATHERING: Duration = Duration::from_millis(500);
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

    /// How much longer it may be in memory alone.
    fn exposed(&self) -> Duration {
        match self {
            Self::Memory(lease) => EXPOSED.saturating_sub(lease.age()),
            Self::Disk(_) => EXPOSED,
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
    pub(crate) async fn run(&self, mut stage: watch::Receiver<Stage>) {
        let (mut sending, mut is_free) = (FuturesUnordered::new(), [true; LANES]);
        let mut gathers_until = None;
        loop {
            let now = *stage.borrow_and_update();
            if gathers_until.take_if(|until| *until <= Instant::now()).is_some() && self.queue.waiting_bytes() == 0 {
                self.destination.press().rest(); // nothing came all the while
            }
            let gathers = gathers_until.filter(|_| now == Stage::Running);
            // while it gathers or sends, a chunk more changes nothing
            let is_busy = now == Stage::Running && (gathers.is_some() || !is_free[0]);
            let came = if is_busy { self.queue.gathered() } else { self.queue.arrived() };
            let changed = self.destination.changed();
            let (mut until, mut is_done) = (Instant::now() + LONGEST_WAIT, false);
            for (lane, is_free) in is_free.iter_mut().enumerate().filter(|(_, is_free)| **is_free) {
                match self.next(lane, now, gathers) {
                    Next::Send(place, limit, timeout) => {
                        *is_free = false;
                        // at once: the next lane looks at what is left
                        let taken = if place == Place::Memory { self.queue.lease(limit) } else { None };
                        // on the heap: what a lane holds is moved through a small stack
                        let sent = Box::pin(self.send(place, taken, limit, timeout));
                        sending.push(sent.map(move |()| lane));
                    }
                    Next::Wait(then) => until = until.min(then),
                    Next::Done => is_done = true,
                }
            }
            if is_done && sending.is_empty() {
                return;
            }
            tokio::select! {
                Some(lane) = sending.next() => {
                    is_free[lane] = true;
                    if lane == 0 {
                        gathers_until = Some(Instant::now() + GATHERING);
                    }
                }
                () = came => {}
                () = changed => {}
                () = sleep_until(until) => {}
                _ = stage.changed() => {}
            }
        }
    }

    fn next(&self, lane: usize, stage: Stage, gathers: Option<Instant>) -> Next {
        let limit = self.queue.limit();
        let memory = self.queue.waiting_bytes();
        let disk = self.spool.as_ref().map_or(0, |spool| spool.waiting(self.queue.signal()));
        let idle = Next::Wait(Instant::now() + LONGEST_WAIT);
        if memory == 0 && disk == 0 && stage != Stage::Running {
            return Next::Done;
        }
        let is_backlog = memory >= limit || (memory > 0 && stage != Stage::Running);
        let gathers = gathers.filter(|_| memory < GATHERED.min(limit));
        let place = match lane {
            0 if memory > 0 && gathers.is_none() => Place::Memory,
            0 if disk > 0 => Place::Disk,
            0 => return gathers.map_or(idle, Next::Wait),
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

    async fn send(&self, place: Place, taken: Option<Lease>, limit: usize, timeout: Duration) {
        let batch = match (place, &self.spool) {
            (Place::Disk, Some(spool)) => spool.lease(self.queue.signal(), limit).await.map(Batch::Disk),
            _ => taken.map(Batch::Memory),
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
                settle(batch, Fate::Delivered { rejected });
                destination.accepted(signal, rejected, &message);
            }
            Answer::Later { floor, reason } => {
                drop(batch); // back to the front
                destination.count_retry(signal);
                destination.failed(floor, &reason).await;
            }
            Answer::TooLarge(reason) => self.too_large(batch, &reason),
            Answer::Refused(reason) | Answer::Unauthorized(reason) | Answer::UnknownCoding(reason) => {
                settle(batch, Fate::Dropped(DropReason::Permanent));
                destination.refused(signal, &reason);
            }
            Answer::Unreadable(reason) => {
                settle(batch, Fate::Dropped(DropReason::BadResponse));
                // what answers like this takes nothing: slow down, or all would be lost at full speed
                destination.failed(None, &reason).await;
            }
        }
    }

    /// The answer, and the batch unless the disk has it in hand.
    async fn attempt(&self, mut batch: Batch, timeout: Duration) -> (Answer, Option<Batch>) {
        let form = match batch.form(&self.destination) {
            Ok(form) => form,
            Err(error) => return (Answer::none(format!("cannot compress: {error}")), Some(batch)),
        };
        let mut attempt = pin!(self.destination.attempt(self.queue.signal(), &form, timeout));
        match tokio::time::timeout(batch.exposed(), &mut attempt).await {
            Ok(answer) => (answer, Some(batch)),
            // a silent receiver: what it was sent must outlive this process
            Err(_) => tokio::join!(attempt, self.kept(&form, batch)),
        }
    }

    /// The same batch, on disk if there is one; `None` when the disk does not say whether it has it.
    async fn kept(&self, form: &Form, batch: Batch) -> Option<Batch> {
        match (batch, &self.spool) {
            (Batch::Memory(lease), Some(spool)) => match spool.hold(self.queue.signal(), form, lease).await {
                Ok(lease) => Some(Batch::Disk(lease)),
                Err(lease) => lease.map(Batch::Memory),
            },
            (batch, _) => Some(batch),
        }
    }

    /// Never the same bytes again: halves, until a single item is too large by itself.
    fn too_large(&self, batch: Option<Batch>, reason: &str) {
        self.destination.refused(self.queue.signal(), reason);
        let Some(batch) = batch else { return };
        if batch.is_indivisible() {
            batch.settle(Fate::Dropped(DropReason::TooLarge));
        } else {
            self.queue.shrink_limit(batch.raw_len() / 2);
        }
    }
}

/// What the disk has in hand is not settled: it is sent again.
fn settle(batch: Option<Batch>, fate: Fate) {
    if let Some(batch) = batch {
        batch.settle(fate);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use axum::Router;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::model::telemetry::Signal;
    use crate::redact::Redactor;
    use crate::settings::{Place as Origin, Settings, Tree};
    use crate::telemetry::config::Config;
    use crate::telemetry::otlp::Request;
    use crate::telemetry::sender::compression::Press;

    /// Who is woken, and how often.
    struct Bell {
        rang: AtomicUsize,
        sleeper: Waker,
    }

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.rang.fetch_add(1, Ordering::Relaxed);
            self.sleeper.wake_by_ref();
        }
    }

    /// A receiver of logs.
    fn destination(receiver: SocketAddr, press: Arc<Press>) -> Arc<Destination> {
        let mut tree = Tree::default();
        let settings = json!({"telemetry": {"endpoint": format!("http://{receiver}"), "protocol": "http/protobuf"}});
        tree.merge(settings, &Origin("this test".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("not read".to_owned()));
        let Config { destinations: [_, _, logs, _], connection, resolver, .. } =
            Config::read(&mut settings.section("telemetry"));
        let redactor = Arc::new(Redactor::new([]));
        Arc::new(Destination::new(logs.unwrap(), connection, resolver, redactor, press).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_gathered_is_in_memory_alone_for_the_rest_of_a_second() {
        let queue = Arc::new(Queue::new(Signal::Logs, 4 << 20, 1 << 20));
        queue.push(Request { items: 1, body: vec![0; 100] }.into());
        tokio::time::advance(GATHERING).await;
        queue.push(Request { items: 1, body: vec![0; 100] }.into());
        let batch = Batch::Memory(queue.lease(1 << 20).unwrap());
        assert_eq!(batch.exposed(), EXPOSED - GATHERING);
        tokio::time::advance(EXPOSED).await;
        assert_eq!(batch.exposed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn of_what_comes_while_it_gathers_nothing_wakes_it_before_there_is_enough_and_all_is_one_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let press = Arc::default();
        let destination = destination(listener.local_addr().unwrap(), Arc::clone(&press));
        let queue = Arc::new(Queue::new(Signal::Logs, 4 << 20, 1 << 20));
        let push = |bytes: usize| queue.push(Request { items: 1, body: vec![0; bytes] }.into());
        let delivery = Delivery::new(Arc::clone(&queue), None, Arc::clone(&destination));
        let (_running, stage) = watch::channel(Stage::Running);
        let mut running = pin!(delivery.run(stage));
        let sleeper = std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let bell = Arc::new(Bell { rang: AtomicUsize::new(0), sleeper });
        let waker = Waker::from(Arc::clone(&bell));
        let mut taken = async |requests: u64| {
            let taken = std::future::poll_fn(|_| {
                let _runs_on = running.as_mut().poll(&mut Context::from_waker(&waker));
                let is_taken = destination.volume(Signal::Logs).requests == requests && queue.account().queued == 0;
                if is_taken { Poll::Ready(()) } else { Poll::Pending }
            });
            tokio::time::timeout(Duration::from_secs(30), taken).await.expect("the receiver takes it");
        };
        let receiver = async { axum::serve(listener, Router::new().fallback(async || "")).await };
        let sends = async {
            push(100);
            taken(1).await;
            let before = bell.rang.load(Ordering::Relaxed);
            (0..1_000).for_each(|_| push(100));
            assert_eq!(bell.rang.load(Ordering::Relaxed), before, "a thousand chunks are not enough");
            push(GATHERED);
            assert_eq!(bell.rang.load(Ordering::Relaxed), before + 1);
            taken(2).await;
            assert!(format!("{press:?}").contains("keeps: true"));
            let mut rests = pin!(async {
                while format!("{press:?}").contains("keeps: true") {
                    taken(2).await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            tokio::time::timeout(Duration::from_secs(30), &mut rests).await.expect("nothing comes while it gathers");
        };
        tokio::select! {
            _ = receiver => panic!("it serves for ever"),
            () = sends => {}
        }
    }
}
