//! SIGTERM: whoever asked gets an answer, whoever comes late is told to come elsewhere, and the process ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use crate::proxy_world::{Application, Client};
use crate::rig::Sidecar;

/// What the clients of a run saw.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    failed: AtomicU64,
    ending: AtomicBool,
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
                Some((200, true)) => seen.answered.fetch_add(1, Ordering::Relaxed),
                Some((200, false)) => {
                    seen.answered.fetch_add(1, Ordering::Relaxed);
                    continue 'connecting;
                }
                _ => {
                    seen.failed.fetch_add(1, Ordering::Relaxed);
                    continue 'connecting;
                }
            };
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_over_a_sigterm_under_load() {
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        clients.spawn(press(sidecar.proxy, Arc::clone(&seen)));
    }
    while seen.answered.load(Ordering::Relaxed) < 2_000 {
        tokio::task::yield_now().await;
    }
    seen.ending.store(true, Ordering::Relaxed);
    sidecar.signal("TERM").await;
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(sidecar.ended().await, Some(0));
    let (answered, failed) = (seen.answered.load(Ordering::Relaxed), seen.failed.load(Ordering::Relaxed));
    assert_eq!(failed, 0, "{failed} of {answered} requests failed");
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
    // the collector is away: the last deliveries take all the time that they are given
    let mut sidecar = Sidecar::start(application.address, &[], &[("SIDECAR_TELEMETRY__SHUTDOWN", "1s")]).await;
    let mut idle = Client::connect(sidecar.proxy).await.unwrap();
    idle.get("/once").await.unwrap();
    assert_eq!(idle.answer().await, Some((200, true)));
    let told = Instant::now();
    sidecar.signal("TERM").await;
    assert!(idle.closed_by_fin().await);
    assert_eq!(sidecar.ended().await, Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}
