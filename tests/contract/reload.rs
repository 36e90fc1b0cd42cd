//! Reloads under load: no request, no result of a check and no telemetry is lost.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::origin::{Head, Origin, Site, Stream, say};
use crate::page;
use crate::proxy_world::Client;
use crate::rig::Sidecar;
use crate::scale::{among_others, scaled};
use crate::telemetry_receiver::{Codings, Receiver, eventually};

/// Clients at once, each with a connection that it keeps.
const LANES: usize = 4;
/// Longer than a last export takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers at once.
struct Quick;

impl Site for Quick {
    async fn answer(&self, _: &Head, stream: &mut Stream) -> std::io::Result<()> {
        say(stream, 200, "").await
    }
}

/// The settings of a turn: right ones that differ, and every seventh is wrong.
fn settings(turn: u64) -> String {
    let level = if turn.is_multiple_of(2) { "info" } else { "info,content_factory_sidecar::checks=debug" };
    let limit = 100 + turn % 2;
    let wrong = if turn % 7 == 6 { "proxy: {workrs: 1}\n" } else { "" };
    format!(
        "log: {{level: \"{level}\"}}\n{wrong}checks:\n  \
         steady: {{kind: tcp, address: \"127.0.0.1:1\", period: 1s, timeout: {limit}ms, failure_threshold: 1}}\n"
    )
}

/// Asks on one connection until told to end; gives how many answers came.
async fn ask(proxy: SocketAddr, ends: &AtomicBool, asked: &AtomicU64) -> u64 {
    let mut client = Client::connect(proxy).await.expect("it listens");
    let mut answered = 0;
    while !ends.load(Ordering::Relaxed) {
        client.get("/flat").await.expect("it reads");
        asked.fetch_add(1, Ordering::Relaxed);
        let (status, _) = client.answer().await.expect("an answer");
        assert_eq!(status, 200);
        answered += 1;
        sleep(Duration::from_millis(1)).await; // the load is there; what the machine carries is tried elsewhere
    }
    answered
}

fn reload_of(body: &str) -> (u64, u64) {
    let state = serde_json::from_str::<Value>(body).map(|status| status["reload"].clone()).unwrap_or_default();
    (state["reloads"].as_u64().unwrap_or(0), state["failures"].as_u64().unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_lose_no_request_no_check_and_no_telemetry() {
    let _machine = among_others().await;
    let turns = scaled(50, 1_000);
    let application = Origin::start(Arc::new(Quick)).await;
    let receiver = Receiver::grpc(Codings::All, Arc::default()).await;
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("sidecar.yaml");
    fs::write(&file, settings(0)).expect("a file");
    let (otlp, config) = (format!("http://{}", receiver.address), file.display().to_string());
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.as_str()),
        ("SIDECAR_TELEMETRY__SPANS", "server-only"),
        ("SIDECAR_TELEMETRY__METRICS__INTERVAL", "1s"),
    ];
    let mut sidecar = Sidecar::start(application.address, &["--config", &config], &environment).await;
    let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut lanes = JoinSet::new();
    for _ in 0..LANES {
        let (proxy, ends, asked) = (sidecar.proxy, Arc::clone(&ends), Arc::clone(&asked));
        lanes.spawn(async move { ask(proxy, &ends, &asked).await });
    }
    let streak = |body: &str| serde_json::from_str::<Value>(body).ok()?["streak"].as_u64();
    let steady = "/api/v1/monitoring/checks/steady";
    sidecar.eventually(steady, |_, body| streak(body).is_some_and(|streak| streak > 0)).await;
    let (mut last, mut before) = (0, asked.load(Ordering::Relaxed));
    for turn in 1..=turns {
        let next = folder.path().join("next");
        fs::write(&next, settings(turn)).expect("a file");
        fs::rename(&next, &file).expect("it takes its place");
        sidecar.signal("HUP").await;
        // a look at the file may have come first: at least one reload for each turn, all of them counted
        sidecar.eventually("/status", |_, body| reload_of(body).0 >= turn).await;
        let (_, body) = sidecar.ask(steady).await;
        let now = streak(&body).expect("its history goes on");
        assert!(now >= last && body.contains("\"unhealthy\""), "turn {turn}: {last} results, then {body}");
        last = now;
        let deadline = Instant::now() + PATIENCE;
        while asked.load(Ordering::Relaxed) <= before {
            assert!(Instant::now() < deadline, "turn {turn}: no request was answered");
            sleep(Duration::from_millis(1)).await;
        }
        before = asked.load(Ordering::Relaxed);
    }
    ends.store(true, Ordering::Relaxed);
    let answered: u64 = lanes.join_all().await.into_iter().sum();
    assert_eq!(answered, asked.load(Ordering::Relaxed));
    let (reloads, failures) = reload_of(&sidecar.ask("/status").await.1);
    println!("{reloads} reloads, {failures} of them wrong; {answered} requests, {last} results of the check in a row");
    assert!(failures >= turns / 7, "{failures} were refused");
    let page = page::settled(&sidecar, answered).await;
    let counted: u64 = page::tally(&page).values().sum();
    assert_eq!(counted, answered, "{page}");
    let dropped = page::sum(&page, "content_factory_telemetry_dropped_total", "");
    sidecar.signal("TERM").await;
    assert_eq!((sidecar.ended().await, dropped), (Some(0), 0.0));
    let spans = || receiver.with(|seen| seen.spans.iter().filter(|span| span.kind == 2).count() as u64);
    eventually("each request's span", PATIENCE, || spans() >= answered).await;
    assert_eq!(spans(), answered);
}
