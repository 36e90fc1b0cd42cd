//! SIGTERM in the midst of a load, for clients of any protocol: nobody's request fails, and none is asked twice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::proxy_world::Application;
use crate::rig::{PATIENCE, Sidecar};

/// What the clients of a run have seen.
pub(crate) struct Load {
    answered: AtomicU64,
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

    /// A connection was refused or left: the end of a client, and only right once the sidecar was told to end.
    pub(crate) fn ends(&self, what: &str) {
        assert!(self.ending.load(Ordering::Relaxed), "a connection was {what} before SIGTERM");
    }
}

/// Lets so many clients ask until they are refused, and sends SIGTERM after so many answers.
pub(crate) async fn over_sigterm<F>(clients: usize, before: u64, press: impl Fn(SocketAddr, Arc<Load>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let (enough, ending) = (Notify::new(), AtomicBool::new(false));
    let load = Arc::new(Load { answered: AtomicU64::new(0), before, enough, ending });
    let mut pressing = JoinSet::new();
    for _ in 0..clients {
        pressing.spawn(press(sidecar.proxy, Arc::clone(&load)));
    }
    timeout(3 * PATIENCE, load.enough.notified()).await.expect("the load is carried");
    load.ending.store(true, Ordering::Relaxed);
    sidecar.signal("TERM").await;
    while let Some(client) = pressing.join_next().await {
        client.expect("no client fails");
    }
    assert_eq!(sidecar.ended().await, Some(0));
    let answered = load.answered.load(Ordering::Relaxed);
    assert_eq!(application.requests.load(Ordering::Relaxed) as u64, answered, "none was asked twice or for nobody");
}
