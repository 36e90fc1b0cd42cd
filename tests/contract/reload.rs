//! Reloads under load: no request, no call of an AI service, no result of a check and no telemetry is lost.

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

/// What clients ask of the application, and what it asks of its AI service.
const REQUEST: &str = "/flat";
const CALL: &str = "/v1/models";

/// Answers at once, as the application and as its AI service, and counts what it was asked.
#[derive(Default)]
struct Quick {
    requests: AtomicU64,
    calls: AtomicU64,
}

impl Site for Quick {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        match head.path() {
            REQUEST => self.requests.fetch_add(1, Ordering::Relaxed),
            CALL => self.calls.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
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
fn settings(turn: u64, service: SocketAddr) -> String {
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
         telemetry: {{privacy: {{query: {odd}}}, sampling: {{keep_errors: {odd}, keep_slow: {odd}, keep_per_second: {limit}}}}}\n\
         egress:\n  \
         {{enabled: true, listen: \"127.0.0.1:0\", upstream: \"http://{service}\", prices: {{gpt-5: {limit}/1}},\n   \
         connect_timeout: {limit}s, read_timeout: 1{limit}s, max_models: {limit}}}\n\
         database: {{period: {limit}s, activity_period: {limit}s, statements: {odd}}}\n\
         celery: {{period: {limit}s, lost_after: {limit}s, enable_events: {odd}}}\n\
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
    service: SocketAddr,
}

impl Operator<'_> {
    /// Writes the settings of a turn, tells of them, and waits until they are in force, or refused.
    async fn turn(&self, turn: u64) {
        let next = self.folder.join("next");
        fs::write(&next, settings(turn, self.service)).expect("a file");
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
async fn ask((port, path): (SocketAddr, &str), ends: &AtomicBool, asked: &AtomicU64) -> u64 {
    let mut client = Client::connect(port).await.expect("it listens");
    let mut answered = 0;
    while !ends.load(Ordering::Relaxed) {
        client.get(path).await.expect("it reads");
        asked.fetch_add(1, Ordering::Relaxed);
        let (status, _) = client.answer().await.expect("an answer");
        assert_eq!(status, 200);
        answered += 1;
        sleep(Duration::from_millis(1)).await; // the load is there; what the machine carries is tried elsewhere
    }
    answered
}

/// Reloads, how many of them were refused, the mistakes of the last one, and what waits for a restart.
fn reload_of(body: &str) -> (u64, u64, String, Value) {
    let state = serde_json::from_str::<Value>(body).map(|status| status["reload"].clone()).unwrap_or_default();
    let count = |name: &str| state[name].as_u64().unwrap_or(0);
    (count("reloads"), count("failures"), state["problems"].to_string(), state["restart_needed"].clone())
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

/// What goes on while the file changes: requests on some connections, and calls of the AI service on one.
struct Load {
    ends: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    called: Arc<AtomicU64>,
    requests: JoinSet<u64>,
    calls: JoinSet<u64>,
}

impl Load {
    fn start(proxy: SocketAddr, egress: SocketAddr) -> Self {
        let (ends, asked, called): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let lane = |to: (SocketAddr, &'static str), count: &Arc<AtomicU64>| {
            let (ends, count) = (Arc::clone(&ends), Arc::clone(count));
            async move { ask(to, &ends, &count).await }
        };
        let (mut requests, mut calls) = (JoinSet::new(), JoinSet::new());
        for _ in 0..LANES {
            requests.spawn(lane((proxy, REQUEST), &asked));
        }
        calls.spawn(lane((egress, CALL), &called));
        Self { ends, asked, called, requests, calls }
    }

    /// Ends it; gives how many requests and calls were answered, which is how many were made.
    async fn end(self) -> (u64, u64) {
        self.ends.store(true, Ordering::Relaxed);
        let requests: u64 = self.requests.join_all().await.into_iter().sum();
        let calls: u64 = self.calls.join_all().await.into_iter().sum();
        assert_eq!((requests, calls), (self.asked.load(Ordering::Relaxed), self.called.load(Ordering::Relaxed)));
        (requests, calls)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_lose_no_request_no_call_no_check_and_no_telemetry() {
    let _machine = among_others().await;
    let turns = scaled(50, 1_000);
    let site = Arc::new(Quick::default());
    let application = Origin::start(Arc::clone(&site)).await;
    let receiver = Receiver::grpc(Codings::All, Arc::default()).await;
    let folder = TempDir::new().expect("a folder");
    fs::write(file(folder.path()), settings(0, application.address)).expect("a file");
    let (otlp, config) = (format!("http://{}", receiver.address), file(folder.path()).display().to_string());
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.as_str()),
        ("SIDECAR_TELEMETRY__SPANS", "server-only"),
        ("SIDECAR_TELEMETRY__METRICS__INTERVAL", "1s"),
    ];
    let mut sidecar = Sidecar::start(application.address, &["--config", &config], &environment).await;
    let load = Load::start(sidecar.proxy, sidecar.egress().await);
    let operator = Operator { sidecar: &sidecar, folder: folder.path(), service: application.address };
    let results = operate(&operator, turns, &load.asked).await;
    let (requests, calls) = load.end().await;
    let site = [&site.requests, &site.calls].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(site, [requests, calls], "what was answered was asked, once");
    let (reloads, failures, _, waiting) = reload_of(&sidecar.ask("/status").await.1);
    println!(
        "{reloads} reloads, {failures} of them wrong; {requests} requests, {calls} calls, {results} results of the check in a row"
    );
    let wrong = (1..=turns).filter(|turn| is_wrong(*turn)).count() as u64;
    assert!(reloads >= turns && failures >= wrong, "{reloads} reloads, {failures} refused");
    assert_eq!(waiting, serde_json::json!([]), "each of these settings was taken");
    let page = page::settled(&sidecar, requests).await;
    let counted: u64 = page::tally(&page).values().sum();
    assert_eq!(counted, requests, "{page}");
    assert_eq!(page::sum(&page, "gen_ai_client_operation_duration_seconds_count", "") as u64, calls, "{page}");
    let dropped = page::sum(&page, "content_factory_telemetry_dropped_total", "");
    sidecar.signal("TERM").await;
    assert_eq!((sidecar.ended().await, dropped), (Some(0), 0.0));
    let spans = |kind: i32| receiver.with(|seen| seen.spans.iter().filter(|span| span.kind == kind).count() as u64);
    eventually("each request's span and each call's", PATIENCE, || spans(2) >= requests && spans(3) >= calls).await;
    assert_eq!([spans(2), spans(3)], [requests, calls]);
}
