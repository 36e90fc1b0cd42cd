//! What the connections of one worker thread share. One thread: cells, no locks.

use std::cell::{Cell, Ref, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use crate::lifecycle::Pulse;
use crate::model::request::{CutOff, RequestSink};
use crate::model::route::RouteTable;
use crate::proxy::arrivals::Arrivals;
use crate::proxy::buffers::Buffers;
use crate::proxy::clock::Clock;
use crate::proxy::config::{Config, Timeouts};
use crate::proxy::counters::Counters;
use crate::proxy::h2c::link::LinkLimits;
use crate::proxy::h2c::links::Links;
use crate::proxy::http2::places::Places;
use crate::proxy::ids::{Ids, TracePolicy};
use crate::proxy::pool::Pool;
use crate::proxy::terms::{Admission, Lists, Terms};
use crate::proxy::timers::{NEVER, TICK, Tick, Timers};
use crate::proxy::upstream::Upstream;

/// The state of a worker.
pub(crate) struct Worker<S> {
    pub(crate) config: Arc<Config>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) buffers: Buffers,
    pub(crate) timers: Rc<Timers>,
    pub(crate) pool: Pool,
    pub(crate) links: Links,
    pub(crate) upstream: Rc<Upstream>,
    pub(crate) ids: RefCell<Ids>,
    pub(crate) clock: Clock,
    pub(crate) policy: Cell<TracePolicy>,
    pub(crate) draining: Cell<bool>,
    /// When the clients of tunnels are told that the process ends: a moment before it breaks them off.
    pub(crate) leaves_at: Cell<Tick>,
    /// Why what is under way ends, if it ends now: by a panic, until the drain is over.
    pub(crate) cuts_off_by: Cell<CutOff>,
    /// A connection's task has panicked since the last tick.
    pub(crate) has_panicked: Cell<bool>,
    pub(crate) connections: Cell<usize>,
    pub(crate) in_flight: Cell<usize>,
    /// This worker's share of what may be admitted.
    pub(crate) admission: Cell<Admission>,
    pub(crate) timeouts: Cell<Timeouts>,
    pub(crate) arrivals: Arrivals,
    pub(crate) places: Rc<Places>,
    sink: Rc<RefCell<S>>,
    lists: RefCell<Arc<Lists>>,
    routes: RefCell<Arc<RouteTable>>,
    sources: RefCell<Sources>,
    kept: RefCell<Vec<Vec<u8>>>,
    /// What it has last told of the memory that it holds.
    told: Cell<usize>,
    /// When buffers that nobody needs are next given back.
    sweep_due: Cell<Tick>,
}

/// What changes while the worker runs, and its sign of life.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) routes: watch::Receiver<Arc<RouteTable>>,
    pub(crate) policy: watch::Receiver<TracePolicy>,
    pub(crate) terms: watch::Receiver<Terms>,
    pub(crate) pulse: Option<Pulse>,
}

/// How long before the end the clients of tunnels are told, or half of the time if that is less: a frame must have ended, and
/// its close frame must be answered.
const FAREWELL: Duration = Duration::from_secs(5);

/// Memory for copied heads that is used again; more of it is given back.
const KEPT_COPIES: usize = 64;
const KEPT_COPY_BYTES: usize = 4 << 10;

/// 10 s of ticks: longer than the pauses of ordinary traffic, well below a minute.
const SWEEP_TICKS: Tick = 100;

impl<S> Drop for Worker<S> {
    fn drop(&mut self) {
        self.tell_held(0);
    }
}

impl<S> Worker<S> {
    /// Tells how much memory it holds, in bytes.
    fn tell_held(&self, bytes: usize) {
        // by the difference, because the others add theirs; it wraps where that is less
        let change = (bytes as u64).wrapping_sub(self.told.replace(bytes) as u64);
        self.counters.held.fetch_add(change, Ordering::Relaxed);
    }
}

impl<S: RequestSink> Worker<S> {
    /// A worker without connections.
    pub(crate) fn new(
        config: Arc<Config>,
        counters: Arc<Counters>,
        mut sources: Sources,
        sink: Rc<RefCell<S>>,
    ) -> Rc<Self> {
        let routes = Arc::clone(&sources.routes.borrow_and_update());
        let policy = *sources.policy.borrow_and_update();
        let Terms { admission, timeouts, lists } = sources.terms.borrow_and_update().clone();
        let (timers, admission) = (Timers::new(), admission.shared_by(config.workers));
        let upstream = Rc::new(Upstream::new(config.upstream.clone(), timeouts.connect));
        let limits = LinkLimits { head_bytes: config.limits.head_bytes };
        let far = (Rc::clone(&upstream), limits);
        Rc::new(Self {
            buffers: Buffers::new(config.limits.memory.div_ceil(config.workers)),
            pool: Pool::new(config.limits.pool, timeouts.pool_idle),
            links: Links::new(far, Arc::clone(&counters), Rc::clone(&timers), timeouts.pool_idle),
            timers,
            upstream,
            ids: RefCell::new(Ids::new()),
            clock: Clock::new(),
            policy: Cell::new(policy),
            draining: Cell::new(false),
            leaves_at: Cell::new(NEVER),
            cuts_off_by: Cell::new(CutOff::Panic),
            has_panicked: Cell::new(false),
            connections: Cell::new(0),
            in_flight: Cell::new(0),
            admission: Cell::new(admission),
            timeouts: Cell::new(timeouts),
            arrivals: Arrivals::new(admission.connection_rate),
            places: Places::new(config.http2_connections.div_ceil(config.workers)),
            told: Cell::new(0),
            sink,
            lists: RefCell::new(lists),
            routes: RefCell::new(routes),
            sources: RefCell::new(sources),
            kept: RefCell::default(),
            sweep_due: Cell::default(),
            config,
            counters,
        })
    }

    /// Calls the sink. Its panic is its own: it is counted, and the request goes on.
    pub(crate) fn tell(&self, call: impl FnOnce(&mut S)) {
        let told = catch_unwind(AssertUnwindSafe(|| call(&mut self.sink.borrow_mut())));
        if told.is_err() {
            self.counters.sink_panics.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The routes of now.
    pub(crate) fn routes(&self) -> Ref<'_, RouteTable> {
        Ref::map(self.routes.borrow(), |routes| &**routes)
    }

    /// The lists of now.
    pub(crate) fn lists(&self) -> Ref<'_, Lists> {
        Ref::map(self.lists.borrow(), |lists| &**lists)
    }

    /// Memory for the copy of a head.
    pub(crate) fn copy_memory(&self) -> Vec<u8> {
        self.kept.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes such memory back.
    pub(crate) fn keep(&self, bytes: Vec<u8>) {
        let mut kept = self.kept.borrow_mut();
        if (1..=KEPT_COPY_BYTES).contains(&bytes.capacity()) && kept.len() < KEPT_COPIES {
            kept.push(bytes);
        }
    }

    /// The drain begins, and will be over after this time.
    pub(crate) fn drain(&self, limit: Duration) {
        let told = limit.saturating_sub(FAREWELL).max(limit / 2).max(TICK);
        self.leaves_at.set(self.timers.after(told));
        self.draining.set(true);
        self.timers.wake_all();
    }

    /// What is done at each tick: deadlines, the pool, what the sink gathers, the sign of life, and what others
    /// have changed.
    pub(crate) fn tick(&self, now: u64) {
        self.timers.advance(now);
        self.tell(S::tick);
        self.pool.sweep(now);
        if now >= self.sweep_due.get() {
            self.sweep_due.set(now + SWEEP_TICKS);
            self.buffers.sweep();
        }
        self.note_panics(self.links.sweep(now));
        self.tell_held(self.buffers.lent());
        self.clock.renew();
        if self.has_panicked.take() {
            // here and not where it is seen: a log that panics while a task unwinds would end the process
            tracing::error!("a connection's task panicked: that connection has ended, and no other");
        }
        if let Some(pulse) = &self.sources.borrow().pulse {
            pulse.beat();
        }
        self.renew();
    }

    /// Counts tasks that have panicked; the log is told at the next tick.
    pub(crate) fn note_panics(&self, count: u64) {
        if count > 0 {
            self.counters.connection_panics.fetch_add(count, Ordering::Relaxed);
            self.has_panicked.set(true);
        }
    }

    /// Takes over what others have changed: at each tick, and for each new connection, so that who connects after a
    /// change never meets what was before it.
    pub(crate) fn renew(&self) {
        let mut sources = self.sources.borrow_mut();
        if sources.routes.has_changed().unwrap_or(false) {
            *self.routes.borrow_mut() = Arc::clone(&sources.routes.borrow_and_update());
        }
        if sources.policy.has_changed().unwrap_or(false) {
            self.policy.set(*sources.policy.borrow_and_update());
        }
        if sources.terms.has_changed().unwrap_or(false) {
            self.serve_on(sources.terms.borrow_and_update().clone());
        }
    }

    fn serve_on(&self, Terms { admission, timeouts, lists }: Terms) {
        let admission = admission.shared_by(self.config.workers);
        self.arrivals.come_at(admission.connection_rate);
        self.admission.set(admission);
        self.upstream.wait_for(timeouts.connect);
        self.pool.keep_for(timeouts.pool_idle);
        self.links.keep_for(timeouts.pool_idle);
        self.timeouts.set(timeouts);
        *self.lists.borrow_mut() = lists;
    }
}
