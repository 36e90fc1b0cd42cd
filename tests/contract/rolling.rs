//! Restarts that nobody notices: of the application's workers behind a port that stays, and of the sidecar itself.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::origin::{Head, Origin, Site, Stream, connect, say};
use crate::page;
use crate::restarts::{SAFE, until};
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::{among_others, scaled};

/// Clients at once.
const CLIENTS: usize = 8;
/// How long an idle connection may still bring a request when its sidecar drains.
const LINGER: Duration = Duration::from_secs(1);
/// Runs at most, where a request may find a listener that closes in that instant.
const RUNS: usize = 3;

/// An application whose workers are replaced: kept connections end, also over a request, and new ones are always served.
struct Workers {
    generation: watch::Sender<u64>,
}

impl Site for Workers {
    /// Serves all that comes on the connection. Its first request is answered whatever happens.
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let mut generation = self.generation.subscribe();
        let first = *generation.borrow_and_update();
        answer(head, stream).await?;
        loop {
            let next = tokio::select! {
                next = Head::read(stream) => next?,
                _ = generation.changed() => None,
            };
            match next {
                Some(head) if *generation.borrow() == first => answer(&head, stream).await?,
                _ => return Err(std::io::ErrorKind::ConnectionAborted.into()),
            }
        }
    }
}

async fn answer(head: &Head, stream: &mut Stream) -> std::io::Result<()> {
    say(stream, 200, if head.method() == "HEAD" { "" } else { "answered" }).await
}

/// What clients have seen.
#[derive(Default)]
struct Seen {
    answered: AtomicU64,
    /// Requests that found their connection closed before any byte of an answer, and went out again on another one.
    repeated: AtomicU64,
    ends: AtomicBool,
}

/// One request and its answer; whether the connection may carry another one. `None`: no byte of an answer came.
async fn exchange(stream: &mut Stream, method: &str) -> Option<bool> {
    stream.write_all(format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await.ok()?;
    let head = timeout(PATIENCE, Head::read(stream)).await.expect("an answer in time").ok().flatten()?;
    assert_eq!(head.status(), 200, "{method}");
    let length = head.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
    stream.read_exact(&mut body).await.expect("the whole answer");
    Some(head.field("connection") != Some("close"))
}

/// Asks on one connection after the other, as a client does that knows RFC 9112, section 9.3.1: a request that was sent
/// on a connection that closed may be sent again.
async fn press(proxy: SocketAddr, seen: Arc<Seen>) {
    let mut kept: Option<(Stream, Instant)> = None;
    for method in SAFE.iter().cycle() {
        if seen.ends.load(Ordering::Relaxed) {
            return;
        }
        let mut attempts = 0;
        loop {
            let (mut stream, idle_since) = match kept.take() {
                Some((stream, since)) => (stream, Some(since)),
                None => (connect(proxy).await.expect("somebody listens at any time"), None),
            };
            if let Some(goes_on) = exchange(&mut stream, method).await {
                kept = goes_on.then(|| (stream, Instant::now()));
                break;
            }
            let has_lingered = idle_since.is_none_or(|since| since.elapsed() >= LINGER);
            assert!(has_lingered, "{method} on a connection that was not told of its end");
            attempts += 1;
            seen.repeated.fetch_add(1, Ordering::Relaxed);
            assert!(attempts < 3, "{method} finds nobody who answers");
        }
        seen.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Presses while `step` is done so many times, each time after some hundred answers more.
async fn under_load(proxy: SocketAddr, steps: u64, mut step: impl AsyncFnMut(u64)) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(press(proxy, Arc::clone(&seen)));
    }
    for number in 0..=steps {
        let wanted = seen.answered.load(Ordering::Relaxed) + scaled(200, 2_000);
        until(|| seen.answered.load(Ordering::Relaxed) >= wanted, "the load is carried").await;
        if number < steps {
            step(number).await;
        }
    }
    seen.ends.store(true, Ordering::Relaxed);
    clients.join_all().await;
    seen
}

/// Row 20: connections that die while requests go out on them cost no client anything, for GET, HEAD and OPTIONS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_the_application_are_replaced_under_load_and_every_request_is_answered() {
    let _machine = among_others().await;
    let workers = Arc::new(Workers { generation: watch::Sender::new(0) });
    let application = Origin::start(Arc::clone(&workers)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let rounds = 20;
    let seen = under_load(sidecar.proxy, rounds, async |_| workers.generation.send_modify(|number| *number += 1)).await;
    let (answered, repeated) = (seen.answered.load(Ordering::Relaxed), seen.repeated.load(Ordering::Relaxed));
    let page = page::settled(&sidecar, answered).await;
    let resends = page::sum(&page, "content_factory_proxy_upstream_resends_total", "");
    println!("{answered} answered over {rounds} restarts; {resends} sent again by the sidecar");
    assert_eq!((page::total(&page), repeated), (answered, 0), "no client had to ask twice");
}

/// Row 6: a pair of sidecars on one port, replaced one by one: each request is answered, and each process ends with 0.
///
/// A connection that is made in the instant in which its listener closes is reset by the kernel, and its client asks again; one
/// run of three must have none of these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_rolling_restarts_of_a_pair_lose_no_request() {
    let _machine = among_others().await;
    let mut repeated = Vec::new();
    while repeated.len() < RUNS && !repeated.contains(&0) {
        repeated.push(rolling_restarts().await);
    }
    assert!(repeated.contains(&0), "requests that had to be sent again, in each run: {repeated:?}");
}

/// How many requests had to be sent again over ten restarts.
async fn rolling_restarts() -> u64 {
    let application = Origin::start(Arc::new(Workers { generation: watch::Sender::new(0) })).await;
    let settings = [("SIDECAR_PROXY__REUSE_PORT", "true"), ("SIDECAR_TELEMETRY__SHUTDOWN", "200ms")];
    let first = Sidecar::start(application.address, &[], &settings).await;
    let (proxy, listen) = (first.proxy, first.proxy.to_string());
    let beside = ["--listen", &listen];
    let another = || Sidecar::start(application.address, &beside, &settings);
    let mut pair = VecDeque::from([first, another().await]);
    let seen = under_load(proxy, 10, async |number| {
        pair.push_back(another().await);
        let mut oldest = pair.pop_front().expect("a pair");
        oldest.signal("TERM").await;
        assert_eq!(oldest.ended().await, Some(0), "restart {number}");
    })
    .await;
    let (answered, repeated) = (seen.answered.load(Ordering::Relaxed), seen.repeated.load(Ordering::Relaxed));
    println!("{answered} answered over 10 restarts; {repeated} were sent again by their clients");
    repeated
}
