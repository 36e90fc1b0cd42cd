//! The receiver is away while requests go on: no span is lost, memory stays bounded, and a kill costs a moment.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::memory::Memory;
use crate::origin::{Head, Stream, connect};
use crate::page;
use crate::port::Port;
use crate::proxy_world::Application;
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::{alone, scaled};
use crate::telemetry_link::Link;
use crate::telemetry_receiver::{Codings, Receiver};

/// Clients that ask in turn.
const LANES: u32 = 32;
/// KiB by which memory may grow during an outage.
const GROWTH_KIB: u64 = 32 << 10;
/// What a killed process may lose: what came in so shortly before. A debug build needs longer to write.
fn exposed() -> Duration {
    Duration::from_millis(scaled(1_500, 1_000))
}

/// How long the receiver may take for what has waited.
const DRAINED: Duration = Duration::from_secs(120);

/// One request: its number, and its answer's time and duration.
#[derive(Clone, Copy, Debug)]
struct Answered {
    number: u64,
    at: Instant,
    took: Duration,
}

async fn get(stream: &mut Stream, number: u64) -> std::io::Result<u16> {
    stream.write_all(format!("GET /numbered/{number} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await?;
    let head = Head::read(stream).await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let length: usize = head.field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).await?;
    Ok(head.status())
}

/// Requests in a second: what a build for use is promised to carry; a debug build needs many times as long for a span.
fn rate() -> u32 {
    if std::env::var("SIDECAR_BIN").is_ok_and(|path| !path.is_empty()) { 2_000 } else { 500 }
}

/// One lane of the load, at its part of the rate; ends early when the sidecar does.
async fn lane(proxy: SocketAddr, first: u64, started: Instant, long: Duration) -> Vec<Answered> {
    let mut stream = connect(proxy).await.expect("the proxy is there");
    let mut answered = Vec::new();
    for turn in 0.. {
        let due = started + turn * Duration::from_secs(1) * LANES / rate();
        if due >= started + long {
            break;
        }
        sleep_until(due).await;
        let (number, asked) = (first + u64::from(turn * LANES), Instant::now());
        match timeout(PATIENCE, get(&mut stream, number)).await.expect("an answer in time") {
            Ok(status) => assert_eq!(status, 200),
            Err(_) => break, // killed
        }
        answered.push(Answered { number, at: Instant::now(), took: asked.elapsed() });
    }
    answered
}

/// Requests at the rate for so long; numbers start at `first`.
async fn load(proxy: SocketAddr, first: u64, long: Duration) -> Vec<Answered> {
    let (started, mut lanes) = (Instant::now(), JoinSet::new());
    for number in 0..LANES {
        lanes.spawn(lane(proxy, first + u64::from(number), started, long));
    }
    lanes.join_all().await.concat()
}

/// The duration that 99 of 100 requests do not exceed.
fn p99(answered: &[Answered]) -> Duration {
    let mut took: Vec<_> = answered.iter().map(|request| request.took).collect();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// What arrived: the ids of the spans of requests, and the numbers of these.
#[derive(Default)]
struct Arrived {
    ids: BTreeSet<Vec<u8>>,
    numbers: BTreeSet<u64>,
}

impl Arrived {
    fn take(&mut self, receiver: &Receiver) {
        for span in receiver.with(|seen| std::mem::take(&mut seen.spans)) {
            if let Some(number) = number_of(&span) {
                self.numbers.insert(number);
            }
            if span.kind == SpanKind::Server as i32 || span.kind == SpanKind::Client as i32 {
                self.ids.insert(span.span_id);
            }
        }
    }

    /// Takes what comes until nothing waits at the sidecar.
    async fn all(&mut self, receiver: &Receiver, sidecar: &Sidecar) {
        let deadline = Instant::now() + DRAINED;
        loop {
            self.take(receiver);
            let page = sidecar.metrics().await;
            let traces = |name| page::sum(&page, name, "signal=\"traces\"");
            if traces("content_factory_telemetry_queued") == 0.0 {
                break;
            }
            assert!(Instant::now() < deadline, "{} spans wait", traces("content_factory_telemetry_queued"));
            sleep(Duration::from_millis(50)).await;
        }
        self.take(receiver);
    }
}

/// The number in the path that a SERVER span tells.
fn number_of(span: &Span) -> Option<u64> {
    let path = span.attributes.iter().find(|attribute| attribute.key == "url.path")?;
    match path.value.as_ref()?.value.as_ref()? {
        Value::StringValue(path) => path.strip_prefix("/numbered/")?.parse().ok(),
        _ => None,
    }
}

/// The way to the receiver, as long as it is kept.
async fn way(port: &Port, receiver: &Receiver) -> Link {
    Link::on(TcpListener::bind(port.address()).await.expect("the port is ours"), receiver)
}

async fn sidecar(application: &Application, port: &Port, folder: &TempDir) -> Sidecar {
    let endpoint = format!("http://{}", port.address());
    let data_dir = folder.path().display().to_string();
    let environment = [("SIDECAR_DATA_DIR", data_dir.as_str())];
    Sidecar::start(application.address, &["--otlp", &endpoint], &environment).await
}

/// Beside the rows: all spans of so many requests a second wait on disk, and arrive when the receiver is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_loses_no_span_and_costs_little_memory() {
    let _machine = alone().await;
    let (port, folder) = (Port::reserve(), TempDir::new().expect("a folder"));
    let application = Application::start().await;
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let open = way(&port, &receiver).await;
    let sidecar = sidecar(&application, &port, &folder).await;
    let mut arrived = Arrived::default();
    let before = load(sidecar.proxy, 0, Duration::from_secs(scaled(3, 20))).await;
    arrived.all(&receiver, &sidecar).await;
    drop(open);

    let (memory, long) = (Memory::watch(&sidecar), Duration::from_secs(scaled(8, 60)));
    let during = load(sidecar.proxy, 1 << 32, long).await;
    let grown = memory.peak_growth_kib();
    let page = sidecar.metrics().await;
    let on_disk = page::sum(&page, "content_factory_telemetry_queued", "signal=\"traces\",place=\"disk\"");
    assert!(on_disk > 0.0, "{page}");

    let (_open, back) = (way(&port, &receiver).await, Instant::now());
    arrived.all(&receiver, &sidecar).await;
    let requests = before.len() + during.len();
    println!(
        "{} requests in an outage of {long:?}: {grown} KiB more at most, p99 {:?} before and {:?} during it, \
         {on_disk} spans on disk, all delivered {:?} after the return",
        during.len(),
        p99(&before),
        p99(&during),
        back.elapsed(),
    );
    let page = sidecar.metrics().await;
    assert_eq!(page::sum(&page, "content_factory_telemetry_dropped_total", ""), 0.0, "{page}");
    assert_eq!(arrived.numbers.len(), requests, "each request has its span");
    assert_eq!(arrived.ids.len(), 2 * requests, "and the application's side of it");
    assert!(grown <= GROWTH_KIB, "{grown} KiB more");
}

/// How long before the kill the last request came whose predecessors all have their spans.
async fn lost_by_a_kill(turn: u64) -> Duration {
    let (port, folder) = (Port::reserve(), TempDir::new().expect("a folder"));
    let application = Application::start().await;
    let mut killed = sidecar(&application, &port, &folder).await;
    let mut loading = JoinSet::new();
    // never at the same point of the second between two writes
    let (proxy, long) = (killed.proxy, Duration::from_millis(3_000 + 370 * turn));
    loading.spawn(load(proxy, 0, 2 * long));
    sleep(long).await;
    let at = Instant::now();
    killed.signal("KILL").await;
    killed.ended().await;
    let answered = loading.join_all().await.concat();

    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let _open = way(&port, &receiver).await;
    let next = sidecar(&application, &port, &folder).await;
    let mut arrived = Arrived::default();
    next.eventually("/metrics", |_, page| {
        page::sum(page, "content_factory_telemetry_delivered_total", "signal=\"traces\"") > 0.0
    })
    .await;
    arrived.all(&receiver, &next).await;
    let missing = answered.iter().filter(|request| !arrived.numbers.contains(&request.number));
    let oldest = missing.clone().map(|request| at.saturating_duration_since(request.at)).max();
    println!("{} of {} requests without a span, the oldest {oldest:?} old", missing.count(), answered.len());
    let page = next.metrics().await;
    let account =
        |name: &str| page::sum(&page, &format!("content_factory_telemetry_{name}_total"), "signal=\"traces\"");
    assert_eq!(account("produced"), account("delivered"), "what was found is counted: {page}");
    oldest.unwrap_or_default()
}

/// Row 9: SIGKILL in an outage costs a second of telemetry at most. What the machine does beside it can only worsen it, so the
/// best of some turns is what the sidecar can do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_an_outage_loses_about_a_second_at_most() {
    let _machine = alone().await;
    let mut good = 0;
    for turn in 1..=scaled(8, 20) {
        good += u64::from(lost_by_a_kill(turn).await <= exposed());
        if good == scaled(1, 10) {
            return;
        }
    }
    panic!("only {good} turns lost no more than {:?}", exposed());
}
