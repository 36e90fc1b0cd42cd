//! The order in which Kubernetes ends a pod: a native sidecar behind the application, an ordinary container beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::origin::{Head, Origin, Site, Stream, say};
use crate::port::Port;
use crate::restarts::{ask, until};
use crate::rig::Sidecar;
use crate::scale::{among_others, scaled};

/// Clients at once.
const CLIENTS: usize = 4;

struct Busy;

impl Site for Busy {
    async fn answer(&self, _: &Head, stream: &mut Stream) -> std::io::Result<()> {
        say(stream, 200, "").await
    }
}

/// What clients that come anew for each request have seen.
#[derive(Default)]
struct Seen {
    good: AtomicU64,
    /// 503 with the advice to come again.
    away: AtomicU64,
    other: AtomicU64,
    /// Answers that ended their connection.
    last: AtomicU64,
    /// The sidecar was told to end.
    ending: AtomicBool,
}

impl Seen {
    fn of(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

/// Asks until a connection is refused, which it may be only once the sidecar was told to end; gives when that was.
async fn press(proxy: SocketAddr, seen: Arc<Seen>) -> Instant {
    loop {
        let Ok(head) = ask(proxy, "GET", "/").await else {
            assert!(seen.ending.load(Ordering::Relaxed), "refused before the sidecar was told to end");
            return Instant::now();
        };
        let count = match (head.status(), head.field("retry-after")) {
            (200, None) => &seen.good,
            (503, Some("1")) => &seen.away,
            _ => &seen.other,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if head.field("connection") == Some("close") {
            seen.last.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn clients(proxy: SocketAddr) -> (JoinSet<Instant>, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(press(proxy, Arc::clone(&seen)));
    }
    (clients, seen)
}

/// Row 7: it serves until the application has ended, says 503 at once from then on, and ends with 0 when it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_native_sidecar_serves_until_the_application_has_ended_and_goes_when_it_is_told() {
    let _machine = among_others().await;
    let (port, many) = (Port::reserve(), scaled(100, 2_000));
    let application = Origin::start_on(port.address(), Arc::new(Busy)).await;
    let mut sidecar = Sidecar::start(port.address(), &[], &[]).await;
    let (clients, seen) = clients(sidecar.proxy);
    until(|| Seen::of(&seen.good) > many, "the application answers").await;
    application.stop().await;
    let before = Seen::of(&seen.away);
    until(|| Seen::of(&seen.away) > before + many, "503 in its place").await;
    assert_eq!(sidecar.ask("/readyz").await.0, 200, "whether the application is there is asked of itself");
    seen.ending.store(true, Ordering::Relaxed);
    sidecar.signal("TERM").await;
    clients.join_all().await;
    assert_eq!(sidecar.ended().await, Some(0));
    // the last answer may have been under way when the application ended
    assert!(Seen::of(&seen.other) <= CLIENTS as u64, "{} answers neither 200 nor 503", Seen::of(&seen.other));
}

/// Row 7: with `proxy.drain_delay` it goes on taking new connections while it is no longer ready, and ends with 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_container_takes_new_connections_for_a_while_and_is_not_ready() {
    let _machine = among_others().await;
    let many = scaled(100, 2_000);
    let application = Origin::start(Arc::new(Busy)).await;
    for (delay, ends_by_itself) in [(600, false), (scaled(1, 5), true)] {
        let said = format!("{delay}s");
        let settings = [("SIDECAR_PROXY__DRAIN_DELAY", said.as_str()), ("SIDECAR_TELEMETRY__SHUTDOWN", "500ms")];
        let mut sidecar = Sidecar::start(application.address, &[], &settings).await;
        let (clients, seen) = clients(sidecar.proxy);
        until(|| Seen::of(&seen.good) > many, "the application answers").await;
        assert_eq!(Seen::of(&seen.last), 0, "no connection is ended before SIGTERM");
        seen.ending.store(true, Ordering::Relaxed);
        let told = Instant::now();
        sidecar.signal("TERM").await;
        sidecar.eventually("/readyz", |status, _| status == 503).await;
        if !ends_by_itself {
            until(|| Seen::of(&seen.last) > many, "new connections are taken, for one request each").await;
            sidecar.signal("TERM").await;
        }
        let refused = clients.join_all().await.into_iter().min().expect("clients");
        assert_eq!(sidecar.ended().await, Some(0));
        let served = refused - told;
        assert!(
            served >= Duration::from_secs(delay) || !ends_by_itself,
            "new connections were refused after {served:?}"
        );
        assert!(Seen::of(&seen.last) > 0, "none was taken in that time");
        assert_eq!((Seen::of(&seen.away), Seen::of(&seen.other)), (0, 0), "the application was there all the time");
    }
}
