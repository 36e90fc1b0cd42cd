//! Reloads under load: no request, no result of a check and no telemetry is lost.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
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
/// Signals of a burst.
const BURST: usize = 20;

/// Answers at once, and counts what it was asked.
#[derive(Default)]
struct Quick(AtomicU64);

impl Site for Quick {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        if head.path() == "/flat" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        say(stream, 200, "").await
    }
}

/// How a turn tells that the file has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Once,
    /// By many signals, of which the kernel merges some.
    Burst,
    /// Not at all: the file is looked at.
    NotAtAll,
}

impl Told {
    fn of(turn: u64) -> Self {
        match turn {
            turn if turn % 50 == 49 => Self::NotAtAll,
            turn if turn % 5 == 3 => Self::Burst,
            _ => Self::Once,
        }
    }
}

fn is_wrong(turn: u64) -> bool {
    turn % 7 == 6
}

/// The settings of a turn: each differs from the one before in every room that takes some, and every seventh is wrong. A check
/// of its own, or the mistake, tells which turn is seen.
fn settings(turn: u64) -> String {
    let (odd, limit) = (turn % 2 == 1, 100 + turn % 2);
    let level = if odd { "info,content_factory_sidecar::checks=debug" } else { "info" };
    let wrong = if is_wrong(turn) { format!("workrs-{turn}: 1, ") } else { String::new() };
    format!(
        "log: {{level: \"{level}\"}}\n\
         proxy:\n  \
         {{{wrong}limits: {{in_flight: {limit}, body: {limit}KiB, connection_rate: 1{limit}}},\n   \
         timeouts: {{client_idle: {limit}s, pool_idle: 1{limit}ms}}, probe_paths: [/probe-{limit}]}}\n\
         tasks: {{max_open: {limit}}}\n\
         system: {{period: 1{limit}ms}}\n\
         traffic: {{routes: {{refresh: {limit}s}}}}\n\
         telemetry: {{privacy: {{query: {odd}}}, sampling: {{keep_per_second: {limit}}}}}\n\
         application: {{status: {{enabled: {odd}}}}}\n\
         admin: {{rate: {limit}00}}\n\
         checks:\n  \
         steady: {{kind: tcp, address: \"127.0.0.1:1\", period: 1s, timeout: {limit}ms, failure_threshold: 1}}\n  \
         turn-{turn}: {{kind: tcp, address: \"127.0.0.1:1\", period: 1h, timeout: 100ms}}\n"
    )
}

/// The file of the sidecar under test, and who it is told to.
struct Operator<'a> {
    sidecar: &'a Sidecar,
    folder: &'a Path,
}

impl Operator<'_> {
    /// Writes the settings of a turn, tells of them, and waits until they are in force, or refused.
    async fn turn(&self, turn: u64) {
        let next = self.folder.join("next");
        fs::write(&next, settings(turn)).expect("a file");
        fs::rename(&next, file(self.folder)).expect("it takes its place");
        let signals = match Told::of(turn) {
            Told::Once => 1,
            Told::Burst => BURST,
            Told::NotAtAll => 0,
        };
        for _ in 0..signals {
            self.sidecar.signal_at_once(Signal::HUP);
        }
        if is_wrong(turn) {
            let mistake = format!("workrs-{turn}");
            self.sidecar.eventually("/status", |_, body| reload_of(body).2.contains(&mistake)).await;
        } else {
            let check = format!("\"turn-{turn}\"");
            self.sidecar.eventually("/health", |_, body| body.contains(&check)).await;
        }
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("sidecar.yaml")
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

/// Reloads, how many of them were refused, and the mistakes of the last one.
fn reload_of(body: &str) -> (u64, u64, String) {
    let state = serde_json::from_str::<Value>(body).map(|status| status["reload"].clone()).unwrap_or_default();
    let count = |name: &str| state[name].as_u64().unwrap_or(0);
    (count("reloads"), count("failures"), state["problems"].to_string())
}

/// The results of the check that stays, in a row.
fn streak_of(body: &str) -> Option<u64> {
    serde_json::from_str::<Value>(body).ok()?["streak"].as_u64()
}

const STEADY: &str = "/api/v1/monitoring/checks/steady";

/// So many turns; in each a request is answered, and the results of the check go on. Gives how many there were.
async fn operate(operator: &Operator<'_>, turns: u64, asked: &AtomicU64) -> u64 {
    let sidecar = operator.sidecar;
    sidecar.eventually(STEADY, |_, body| streak_of(body).is_some_and(|streak| streak > 0)).await;
    let (mut last, mut before) = (0, asked.load(Ordering::Relaxed));
    for turn in 1..=turns {
        operator.turn(turn).await;
        let (_, body) = sidecar.ask(STEADY).await;
        let now = streak_of(&body).expect("its history goes on");
        assert!(now >= last && body.contains("\"unhealthy\""), "turn {turn}: {last} results, then {body}");
        last = now;
        let deadline = Instant::now() + PATIENCE;
        while asked.load(Ordering::Relaxed) <= before {
            assert!(Instant::now() < deadline, "turn {turn}: no request was answered");
            sleep(Duration::from_millis(1)).await;
        }
        before = asked.load(Ordering::Relaxed);
    }
    let body = sidecar.eventually(STEADY, |_, body| streak_of(body).is_some_and(|streak| streak > last)).await;
    streak_of(&body).expect("it was seen")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_lose_no_request_no_check_and_no_telemetry() {
    let _machine = among_others().await;
    let turns = scaled(50, 1_000);
    let site = Arc::new(Quick::default());
    let application = Origin::start(Arc::clone(&site)).await;
    let receiver = Receiver::grpc(Codings::All, Arc::default()).await;
    let folder = TempDir::new().expect("a folder");
    fs::write(file(folder.path()), settings(0)).expect("a file");
    let (otlp, config) = (format!("http://{}", receiver.address), file(folder.path()).display().to_string());
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
    let results = operate(&Operator { sidecar: &sidecar, folder: folder.path() }, turns, &asked).await;
    ends.store(true, Ordering::Relaxed);
    let answered: u64 = lanes.join_all().await.into_iter().sum();
    assert_eq!((answered, site.0.load(Ordering::Relaxed)), (asked.load(Ordering::Relaxed), answered));
    let (reloads, failures, _) = reload_of(&sidecar.ask("/status").await.1);
    println!(
        "{reloads} reloads, {failures} of them wrong; {answered} requests, {results} results of the check in a row"
    );
    let wrong = (1..=turns).filter(|turn| is_wrong(*turn)).count() as u64;
    assert!(reloads >= turns && failures >= wrong, "{reloads} reloads, {failures} refused");
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
