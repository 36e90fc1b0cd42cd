//! SIGTERM: whoever asked gets an answer, whoever comes late is told to come elsewhere, and the process ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout};

use crate::proxy_world::{Application, Client};
use crate::rig::{PATIENCE, Sidecar};

/// Connections that press at once.
const CLIENTS: u64 = 32;
/// Requests that are answered when SIGTERM comes; the clients go on.
const BEFORE: u64 = 20_000;

/// What the clients of a run saw.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    /// Answers that ended their connection.
    last: AtomicU64,
    failed: AtomicU64,
    /// `BEFORE` requests are answered.
    enough: Notify,
    ending: AtomicBool,
}

impl Seen {
    fn answered(&self) {
        if self.answered.fetch_add(1, Ordering::Relaxed) + 1 == BEFORE {
            self.enough.notify_one();
        }
    }
}

/// Asks on kept connections until connections are refused, which is only right once the sidecar was told to end.
async fn press(proxy: std::net::SocketAddr, seen: Arc<Seen>) {
    'connecting: loop {
        let Ok(mut client) = Client::connect(proxy).await else {
            assert!(seen.ending.load(Ordering::Relaxed), "a connection was refused before SIGTERM");
            return;
        };
        loop {
            if client.get("/pressed").await.is_err() {
                seen.failed.fetch_add(1, Ordering::Relaxed);
                continue 'connecting;
            }
            match client.answer().await {
                Some((200, true)) => seen.answered(),
                Some((200, false)) => {
                    seen.answered();
                    seen.last.fetch_add(1, Ordering::Relaxed);
                    continue 'connecting;
                }
                _ => {
                    seen.failed.fetch_add(1, Ordering::Relaxed);
                    continue 'connecting;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_over_a_sigterm_under_load() {
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(press(sidecar.proxy, Arc::clone(&seen)));
    }
    timeout(3 * PATIENCE, seen.enough.notified()).await.expect("the load is carried");
    seen.ending.store(true, Ordering::Relaxed);
    sidecar.signal("TERM").await;
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(sidecar.ended().await, Some(0));
    let (answered, failed) = (seen.answered.load(Ordering::Relaxed), seen.failed.load(Ordering::Relaxed));
    assert_eq!(failed, 0, "{failed} of {answered} requests failed");
    assert_eq!(application.requests.load(Ordering::Relaxed) as u64, answered, "none was asked twice");
    // else the load was over before the signal came
    assert!(answered >= BEFORE && seen.last.load(Ordering::Relaxed) >= CLIENTS, "{answered} answers");
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_sigterm() {
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut client = Client::connect(sidecar.proxy).await.unwrap();
    client.get("/late").await.unwrap();
    while application.requests.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    sidecar.signal("TERM").await;
    assert_eq!(client.answer().await, Some((200, false)));
    assert!(client.closed_by_fin().await);
    assert_eq!(sidecar.ended().await, Some(0));
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end_up() {
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut idle = Client::connect(sidecar.proxy).await.unwrap();
    idle.get("/once").await.unwrap();
    assert_eq!(idle.answer().await, Some((200, true)));
    let told = Instant::now();
    sidecar.signal("TERM").await;
    assert!(idle.closed_by_fin().await);
    assert!(told.elapsed() < Duration::from_secs(3), "closed after {:?}", told.elapsed());
    // the collector is away: the last deliveries take all of their own time, and none of the drain's 20 s
    assert_eq!(sidecar.ended().await, Some(0));
    assert!(told.elapsed() < Duration::from_secs(10), "ended after {:?}", told.elapsed());
}

#[tokio::test]
async fn what_is_under_way_gets_the_time_that_is_set_and_no_more() {
    let application = Application::start().await;
    let limit = [("SIDECAR_PROXY__DRAIN_TIMEOUT", "500ms"), ("SIDECAR_TELEMETRY__SHUTDOWN", "1s")];
    let mut sidecar = Sidecar::start(application.address, &[], &limit).await;
    let mut client = Client::connect(sidecar.proxy).await.unwrap();
    client.get("/hold").await.unwrap();
    timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
    let told = Instant::now();
    sidecar.signal("TERM").await;
    assert_eq!(client.head().await, None, "it is broken off without an answer");
    assert!(told.elapsed() >= Duration::from_millis(500), "broken off after {:?}", told.elapsed());
    timeout(PATIENCE, application.abandoned.acquire()).await.expect("the application is told").unwrap().forget();
    assert_eq!(sidecar.ended().await, Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "ended after {:?}", told.elapsed());
}
