//! The connections of a worker to an application that speaks HTTP/2: as few as carry what is under way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::model::request::UpstreamFault;
use crate::proxy::counters::Counters;
use crate::proxy::h2c::link::{Life, Link, LinkLimits, STREAMS, Seat};
use crate::proxy::timers::{Tick, Timers, ticks_of};
use crate::proxy::upstream::Upstream;

/// How long the last connections may take to say that they end.
const FAREWELL: Duration = Duration::from_millis(200);

/// The connections. The first that has room is taken, so that the last ones age out.
///
/// There are never more of them than requests in flight and those that have just ended.
pub(crate) struct Links {
    links: RefCell<Vec<Rc<Link>>>,
    tasks: RefCell<JoinSet<()>>,
    /// How many requests a connection took the last time that one was opened.
    usual_room: Cell<usize>,
    upstream: Rc<Upstream>,
    counters: Arc<Counters>,
    timers: Rc<Timers>,
    limits: LinkLimits,
    idle_ticks: Cell<Tick>,
}

impl Links {
    /// No connection yet; each is kept unused for so long.
    pub(crate) fn new(
        (upstream, limits): (Rc<Upstream>, LinkLimits),
        counters: Arc<Counters>,
        timers: Rc<Timers>,
        idle: Duration,
    ) -> Self {
        Self {
            links: RefCell::default(),
            tasks: RefCell::default(),
            usual_room: Cell::new(STREAMS),
            upstream,
            counters,
            timers,
            limits,
            idle_ticks: Cell::new(ticks_of(idle)),
        }
    }

    /// Keeps each unused for so long from now on.
    pub(crate) fn keep_for(&self, idle: Duration) {
        self.idle_ticks.set(ticks_of(idle));
    }

    /// A place for one request, on a new connection if all are full.
    ///
    /// # Errors
    /// The connection that it waited for could not be opened, or the application left two before anything was asked.
    pub(crate) async fn seat(&self) -> Result<Seat, UpstreamFault> {
        let mut was_left = false;
        loop {
            let found = self.find();
            let link = found.unwrap_or_else(|| self.open());
            match link.opened().await {
                Ok(()) if !link.is_over(0) => {
                    self.usual_room.set(link.room());
                    // others who waited may have been faster
                    if let Some(seat) = link.seat() {
                        return Ok(seat);
                    }
                }
                // nothing was asked on it: as good as one that was never opened
                Ok(()) | Err(UpstreamFault::Broken) if !was_left => was_left = true,
                Ok(()) => return Err(UpstreamFault::Broken),
                Err(fault) => return Err(fault),
            }
        }
    }

    fn find(&self) -> Option<Rc<Link>> {
        self.let_go(0);
        self.links.borrow().iter().find(|link| link.has_room()).map(Rc::clone)
    }

    /// Forgets those that are of no more use: they end behind what they still carry.
    fn let_go(&self, idle_before: Tick) {
        self.links.borrow_mut().retain(|link| {
            let is_over = link.is_over(idle_before);
            if is_over {
                link.leave();
            }
            !is_over
        });
    }

    fn open(&self) -> Rc<Link> {
        let link = Link::new(self.usual_room.get(), Rc::clone(&self.timers));
        self.links.borrow_mut().push(Rc::clone(&link));
        let (life, upstream, limits) = (Life(Rc::clone(&link)), Rc::clone(&self.upstream), self.limits);
        let counters = Arc::clone(&self.counters);
        self.tasks.borrow_mut().spawn_local(async move {
            let opened = || {
                counters.upstream_connections.fetch_add(1, Ordering::Relaxed);
            };
            life.live(&upstream, limits, opened).await;
        });
        link
    }

    /// Closes what nobody has used for long; gives the number of tasks that have panicked.
    pub(crate) fn sweep(&self, now: Tick) -> u64 {
        self.let_go(now.saturating_sub(self.idle_ticks.get()));
        let mut panics = 0;
        while let Some(ended) = self.tasks.borrow_mut().try_join_next() {
            panics += u64::from(ended.is_err_and(|error| error.is_panic()));
        }
        panics
    }

    /// Ends all, each with a word of farewell.
    pub(crate) async fn close(&self) {
        self.links.borrow_mut().drain(..).for_each(|link| link.leave());
        let mut tasks = self.tasks.take();
        let farewell = async { while tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, farewell).await; // what is not gone by then goes with the process
    }
}
