//! SIGTERM in the midst of a load, for clients of any protocol: nobody's request fails, and none is asked twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::Signal;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::proxy_world::Application;
use crate::rig::{PATIENCE, Sidecar};

/// What the clients of a run have seen.
pub(crate) struct Load {
    answered: AtomicU64,
    /// Requests without an answer that are no fault of the sidecar's.
    excused: AtomicU64,
    /// Answers before SIGTERM; the clients go on.
    before: u64,
    enough: Notify,
    ending: AtomicBool,
}

impl Load {
    /// An answer came.
    pub(crate) fn answered(&self) {
        if self.answered.fetch_add(1, Ordering::Relaxed) + 1 == self.before {
            self.enough.notify_one();
        }
    }

    /// A request had no answer because its client came too late: such a run proves nothing.
    pub(crate) fn excused(&self) {
        self.excused.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was refused or left: the end of a client, and only right once the sidecar was told to end.
    pub(crate) fn ends(&self, what: &str) {
        assert!(self.ending.load(Ordering::Relaxed), "a connection was {what} before SIGTERM");
    }
}

/// Runs at most, on a machine so busy that clients have no turn for a second.
const RUNS: usize = 3;

/// Lets so many clients ask until they are refused, and sends SIGTERM after so many answers: each request has its answer.
pub(crate) async fn over_sigterm<F>(clients: usize, before: u64, press: impl Fn(SocketAddr, Arc<Load>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    for _ in 0..RUNS {
        if run(clients, before, &press).await == 0 {
            return;
        }
    }
    panic!("in each of {RUNS} runs a client had no turn for longer than a connection may idle");
}

/// One run; how many requests were excused.
async fn run<F>(clients: usize, before: u64, press: &impl Fn(SocketAddr, Arc<Load>) -> F) -> u64
where
    F: Future<Output = ()> + Send + 'static,
{
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let (enough, ending) = (Notify::new(), AtomicBool::new(false));
    let (answered, excused) = (AtomicU64::new(0), AtomicU64::new(0));
    let load = Arc::new(Load { answered, excused, before, enough, ending });
    let mut pressing = JoinSet::new();
    for _ in 0..clients {
        pressing.spawn(press(sidecar.proxy, Arc::clone(&load)));
    }
    timeout(3 * PATIENCE, load.enough.notified()).await.expect("the load is carried");
    load.ending.store(true, Ordering::Relaxed);
    // before the signal, and that at once: a drain may be over before whoever sends it by another process has a turn again
    let until_then = load.answered.load(Ordering::Relaxed);
    sidecar.signal_at_once(Signal::TERM);
    while let Some(client) = pressing.join_next().await {
        client.expect("no client fails");
    }
    assert_eq!(sidecar.ended().await, Some(0));
    let answered = load.answered.load(Ordering::Relaxed);
    assert!(answered > until_then, "{answered} answers, none of them after SIGTERM: nobody asked any more");
    assert_eq!(application.requests.load(Ordering::Relaxed) as u64, answered, "none was asked twice or for nobody");
    load.excused.load(Ordering::Relaxed)
}
