//! A worker thread: its runtime, its listener, its tick, and its end.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::lifecycle::{Drain, Phase};
use crate::model::request::{Client, CutOff, Method, Outcome, Refusal, RequestSink};
use crate::proxy::answer::{After, Answer};
use crate::proxy::counters::{Breach, Counters};
use crate::proxy::forwarded::Peer;
use crate::proxy::in_flight::{Counting, Facts, InFlight};
use crate::proxy::serve::serve;
use crate::proxy::timers::TICK;
use crate::proxy::upstream::{LOOKUP_PERIOD, LOOKUP_RETRY};
use crate::proxy::wire::Wire;
use crate::proxy::worker::Worker;

/// Runs until the drain is over.
pub(crate) async fn run<S: RequestSink + 'static>(
    worker: Rc<Worker<S>>,
    listener: TcpListener,
    drain: Drain,
    limit: usize,
) {
    let lookup = worker.upstream.is_named().then(|| look_up(Rc::clone(&worker)));
    let mut lookup = pin!(async {
        match lookup {
            Some(lookup) => lookup.await,
            None => std::future::pending().await,
        }
    });
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut port = Port { listener: Some(listener), paused: false, limit, closes: None };
    let mut drain_begun = pin!(wait_for_drain(drain.clone()));
    let mut deadline = None;
    let started = Instant::now();
    poll_fn(|cx| {
        if lookup.as_mut().poll(cx).is_ready() {
            return Poll::Ready(()); // never: it loops
        }
        if deadline.is_none()
            && let Poll::Ready(until) = drain_begun.as_mut().poll(cx)
        {
            deadline = Some(until);
            port.closes = Some(Instant::now() + worker.config.drain_delay);
            worker.drain(until.saturating_duration_since(Instant::now()));
        }
        if poll_ticks(&mut ticks, cx) {
            port.paused = false;
            worker.tick(u64::try_from(started.elapsed().as_millis() / TICK.as_millis()).unwrap_or(u64::MAX));
        }
        if port.closes.is_none_or(|at| Instant::now() < at) {
            port.poll(&worker, cx);
        } else {
            port.close(&worker, cx);
        }
        let Some(deadline) = deadline else { return Poll::Pending };
        let over = Instant::now() >= deadline || drain.phase() == Phase::Aborting;
        let left = port.listener.is_some() || worker.connections.get() > 0;
        if over || !left { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    worker.cuts_off_by.set(CutOff::Shutdown);
    worker.pool.clear();
    worker.links.close().await;
}

/// The instant at which the drain is over.
async fn wait_for_drain(mut drain: Drain) -> Instant {
    match drain.begun().await {
        Phase::Draining { deadline } => deadline,
        Phase::Running | Phase::Aborting => Instant::now(),
    }
}

async fn look_up<S>(worker: Rc<Worker<S>>) {
    loop {
        worker.upstream.look_up().await;
        let pause = if worker.upstream.is_known() { LOOKUP_PERIOD } else { LOOKUP_RETRY };
        tokio::time::sleep(pause).await;
    }
}

fn poll_ticks(ticks: &mut Interval, cx: &mut Context<'_>) -> bool {
    let mut ticked = false;
    while ticks.poll_tick(cx).is_ready() {
        ticked = true;
    }
    ticked
}

struct Port {
    listener: Option<TcpListener>,
    /// Until the next tick, after an error: without file descriptors the call would fail at once, for ever.
    paused: bool,
    limit: usize,
    /// Set by the drain: who comes before is still served.
    closes: Option<Instant>,
}

/// Requests in flight for which one more connection is taken in a turn.
const REQUESTS_PER_ACCEPT: usize = 16;

impl Port {
    /// Takes who has come, a few in a turn: to come and go costs us as much as a request, and a crowd that does
    /// nothing else shall not keep the thread from those who ask.
    fn poll<S: RequestSink + 'static>(&mut self, worker: &Rc<Worker<S>>, cx: &mut Context<'_>) {
        let mut room = 1 + worker.in_flight.get() / REQUESTS_PER_ACCEPT;
        while let Some(listener) = self.listener.as_ref().filter(|_| !self.paused) {
            if room == 0 {
                let _ = pin!(tokio::task::yield_now()).poll(cx); // pending: it wakes us behind the others
                return;
            }
            match listener.poll_accept(cx) {
                Poll::Ready(Ok((stream, address))) => {
                    room -= 1;
                    self.take(worker, stream, address, cx);
                }
                Poll::Ready(Err(error)) => {
                    worker.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.paused = true;
                }
                Poll::Pending => return,
            }
        }
    }

    /// Takes who is in the queue, and closes: nobody who has connected is left waiting.
    fn close<S: RequestSink + 'static>(&mut self, worker: &Rc<Worker<S>>, cx: &mut Context<'_>) {
        // asked of the kernel, because epoll may not have told of the last ones yet
        let Some(Ok(listener)) = self.listener.take().map(TcpListener::into_std) else { return };
        while let Ok((stream, address)) = listener.accept() {
            let nonblocking = stream.set_nonblocking(true);
            if let Ok(stream) = nonblocking.and_then(|()| TcpStream::from_std(stream)) {
                self.take(worker, stream, address, cx);
            }
        }
        // the thread holds the same socket, to begin again after a panic: closing this handle alone would let the kernel
        // take connections that nobody will ever answer
        let _ = socket2::SockRef::from(&listener).shutdown(std::net::Shutdown::Both); // else it ends with the process
    }

    fn take<S: RequestSink + 'static>(
        &self,
        worker: &Rc<Worker<S>>,
        mut stream: TcpStream,
        address: SocketAddr,
        cx: &mut Context<'_>,
    ) {
        let peer = Peer::new(address, &worker.lists().trusted_proxies);
        if !peer.is_trusted && !worker.arrivals.admits(peer.address.ip(), worker.timers.now()) {
            worker.counters.breaches.count(Breach::ConnectionRate);
            return stream.break_off(); // an answer would cost as much as what is refused
        }
        worker.counters.connections.fetch_add(1, Ordering::Relaxed);
        worker.renew();
        let guard = OpenConnection::new(worker, cx);
        if worker.connections.get() > self.limit {
            worker.counters.refuse(Refusal::Overload);
            refuse(worker, &mut stream, &peer, cx);
            return;
        }
        let worker = Rc::clone(worker);
        spawn(async move {
            let _guard = guard;
            // made in here: a future that is moved into its task is kept there twice, and each idle connection pays
            serve(worker, stream, peer).await;
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "the one task per connection; the worker counts them and drains them")]
fn spawn(connection: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(connection);
}

/// Says 503 as far as the socket takes it at once: there is no task to wait with.
fn refuse<S: RequestSink>(worker: &Rc<Worker<S>>, stream: &mut TcpStream, peer: &Peer, cx: &mut Context<'_>) {
    let client = Client { peer: peer.address, address: peer.address.ip() };
    let mut in_flight = InFlight::begin(worker, Facts::unknown(client), Counting::Counted);
    let mut bytes = Vec::new();
    let answer = Answer::refusal(Refusal::Overload);
    in_flight.facts.response_bytes = answer.write(Method::Other, After::Close, &mut bytes);
    in_flight.facts.status = answer.status;
    let sent = socket2::SockRef::from(&*stream).send(&bytes).is_ok();
    let _ = pin!(stream.shutdown()).poll(cx); // best effort: it is closed in any case
    in_flight.end(if sent { Outcome::Refused(Refusal::Overload) } else { Outcome::ClientGone });
}

/// Counts a connection for as long as it is open, and a panic in its task.
struct OpenConnection<S> {
    worker: Rc<Worker<S>>,
    /// The worker's own task: at a drain it waits for the last connection.
    waker: std::task::Waker,
}

impl<S> OpenConnection<S> {
    fn new(worker: &Rc<Worker<S>>, cx: &Context<'_>) -> Self {
        worker.connections.set(worker.connections.get() + 1);
        Self { worker: Rc::clone(worker), waker: cx.waker().clone() }
    }
}

impl<S> Drop for OpenConnection<S> {
    fn drop(&mut self) {
        self.worker.connections.set(self.worker.connections.get() - 1);
        self.worker.counters.connections_closed.fetch_add(1, Ordering::Relaxed);
        if std::thread::panicking() {
            self.worker.counters.connection_panics.fetch_add(1, Ordering::Relaxed);
            self.worker.has_panicked.set(true);
        }
        if self.worker.draining.get() {
            self.waker.wake_by_ref();
        }
    }
}

/// How many client connections one worker may hold: never more than half of the file descriptors.
pub(crate) fn connection_limit(configured: usize, workers: usize) -> usize {
    let descriptors = std::fs::read_to_string("/proc/self/limits").ok().and_then(|text| open_files_limit(&text));
    let possible = descriptors.map_or(usize::MAX, |count| (count / 2).saturating_sub(RESERVED_DESCRIPTORS));
    configured.min(possible.max(1)).div_ceil(workers)
}

/// Listeners, stores, logs, the admin port.
const RESERVED_DESCRIPTORS: usize = 32;

fn open_files_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// How long a worker waits before it begins again: not at all at first, then longer while it goes on failing.
#[derive(Debug, Default)]
struct Backoff(Duration);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A worker that lived so long has recovered.
const QUIET: Duration = Duration::from_secs(10);

impl Backoff {
    /// The pause after an attempt that lived this long.
    fn after(&mut self, lived: Duration) -> Duration {
        let pause = if lived > QUIET { Duration::ZERO } else { self.0 };
        self.0 = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        pause
    }
}

/// Why a worker ended before its time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("it could not start: {0}")]
    Start(#[from] std::io::Error),
    #[error("it panicked")]
    Panic,
}

/// Runs a worker's thread to its end; a worker that fails begins again with the same listener.
///
/// Nobody is turned away meanwhile: the kernel keeps who connects, and the next attempt accepts them.
pub(crate) fn thread<S, M>(make: M, listener: &std::net::TcpListener, drain: &Drain, counters: &Arc<Counters>)
where
    S: RequestSink + 'static,
    M: Fn() -> (Rc<Worker<S>>, usize),
{
    let (mut backoff, mut pause) = (Backoff::default(), Duration::ZERO);
    loop {
        let begun = Instant::now();
        let Err(failure) = attempt(&make, listener, drain, pause) else { return };
        pause = backoff.after(begun.elapsed());
        if matches!(failure, Failure::Panic) {
            counters.worker_panics.fetch_add(1, Ordering::Relaxed);
        }
        counters.worker_restarts.fetch_add(1, Ordering::Relaxed);
        // the log itself may be what panics: it shall not take the thread with it
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let pause_ms = pause.as_millis();
            tracing::error!(reason = %failure, pause_ms, "a proxy worker ended before its time, and begins again");
        }));
    }
}

/// One life of a worker.
fn attempt<S, M>(make: &M, listener: &std::net::TcpListener, drain: &Drain, pause: Duration) -> Result<(), Failure>
where
    S: RequestSink + 'static,
    M: Fn() -> (Rc<Worker<S>>, usize),
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    let listener = listener.try_clone()?;
    let life = async {
        tokio::time::sleep(pause).await;
        let (worker, limit) = make();
        run(worker, TcpListener::from_std(listener)?, drain.clone(), limit).await;
        Ok::<(), std::io::Error>(())
    };
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(life)));
    // behind the panic, if there was one: what its connections tell as they end must not take it for their own;
    // and at once: a name that is being looked up shall not hold the stop
    runtime.shutdown_background();
    ended.map_err(|_| Failure::Panic)?.map_err(Failure::Start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_begins_again_at_once_and_slower_while_it_goes_on_failing() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..6).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1_000]);
        assert_eq!(backoff.after(Duration::from_secs(60)), Duration::ZERO, "it had recovered");
    }

    #[test]
    fn the_limit_of_open_files_is_found() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(open_files_limit(text), Some(1_024));
        assert_eq!(open_files_limit("Max open files            unlimited   unlimited   files\n"), None);
        assert!(connection_limit(10, 4) <= 3);
    }
}
