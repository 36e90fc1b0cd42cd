//! Restarts, of the application and of the sidecar itself: orderly, forced, and by SIGKILL.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::origin::{Head, Origin, Site, Stream, connect, say};
use crate::page;
use crate::port::Port;
use crate::proxy_world::{Application, Client};
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::{among_others, scaled};
use crate::telemetry_receiver::{Codings, Receiver};

/// Connections to the application that are kept at once.
const KEPT: usize = 8;

/// Methods that may be sent again: RFC 9110, section 9.2.1.
pub(crate) const SAFE: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// Answers at once, but `/together` only when `KEPT` requests are there, so that each has its own connection.
struct Gathering {
    all: Barrier,
}

impl Gathering {
    fn new() -> Arc<Self> {
        Arc::new(Self { all: Barrier::new(KEPT) })
    }
}

impl Site for Gathering {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        if head.path() == "/together" {
            self.all.wait().await;
        }
        say(stream, 200, "").await
    }
}

/// One request on a connection of its own: the head of the answer.
pub(crate) async fn ask(proxy: SocketAddr, method: &str, path: &str) -> std::io::Result<Head> {
    let mut stream = connect(proxy).await?;
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await?;
    let head = timeout(PATIENCE, Head::read(&mut stream)).await.expect("an answer in time")?;
    head.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

/// As many requests at once as connections are kept; the statuses.
async fn ask_at_once(proxy: SocketAddr, path: &'static str) -> Vec<u16> {
    let mut asking = JoinSet::new();
    for number in 0..KEPT {
        let method = SAFE[number % SAFE.len()];
        asking.spawn(async move { ask(proxy, method, path).await.expect("an answer").status() });
    }
    asking.join_all().await
}

/// Row 20: kept connections that died with the application give no 502, and the first request after its return is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_restarts_is_away_as_long_as_it_is_and_no_longer() {
    let _machine = among_others().await;
    let (port, rounds) = (Port::reserve(), scaled(5, 20));
    let address = port.address();
    let mut application = Origin::start_on(address, Gathering::new()).await;
    let sidecar = Sidecar::start(address, &[], &[]).await;
    let mut waits = Vec::new();
    for round in 0..rounds {
        assert_eq!(ask_at_once(sidecar.proxy, "/together").await, [200; KEPT], "round {round}: connections to keep");
        application.stop().await;
        application = Origin::start_on(address, Gathering::new()).await;
        assert_eq!(ask_at_once(sidecar.proxy, "/again").await, [200; KEPT], "round {round}: dead connections are kept");
        application.stop().await;
        for method in SAFE {
            let head = ask(sidecar.proxy, method, "/away").await.unwrap();
            assert_eq!((head.status(), head.field("retry-after")), (503, Some("1")), "round {round}: {method}");
        }
        tokio::time::sleep(Duration::from_millis(scaled(200, 5_000))).await;
        application = Origin::start_on(address, Gathering::new()).await;
        let back = Instant::now();
        assert_eq!(ask(sidecar.proxy, "POST", "/back").await.unwrap().status(), 200, "round {round}: it listens again");
        waits.push(back.elapsed());
    }
    waits.sort();
    let half = waits[rounds / 2];
    println!(
        "{rounds} restarts; the first request after each took {:?} to {:?}, half of them {half:?} at most",
        waits[0],
        waits[rounds - 1]
    );
    // a pause of the sidecar's own would be in each of them, one of the machine is not
    let judged = scaled(waits[0], half);
    assert!(judged < Duration::from_millis(100), "the first request took {waits:?}");
    let page = page::settled(&sidecar, 1).await;
    assert_eq!(page::tally(&page).keys().filter(|(_, status, _)| *status == 502).count(), 0, "{page}");
}

/// Waits for a condition that nobody tells of.
pub(crate) async fn until(is_so: impl Fn() -> bool, wanted: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "wanted: {wanted}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks again and again, and does not mind what happens.
async fn press(proxy: SocketAddr, ends: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    while !ends.load(Ordering::Relaxed) {
        match ask(proxy, "GET", "/pressed").await {
            Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                0
            }
        };
    }
}

/// What SQLite says of the file in this folder; of a copy, so that the next process finds what the kill has left.
async fn integrity(folder: &Path) -> String {
    let copy = TempDir::new().expect("a folder");
    for file in std::fs::read_dir(folder).expect("the data folder").flatten() {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).expect("a file of a process that has ended");
    }
    let url = format!("sqlite://{}", copy.path().join("spool.db").display());
    let mut file = SqliteConnection::connect(&url).await.expect("a file of SQLite");
    sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut file).await.expect("an answer")
}

/// Row 9: killed under load and started again on the same port, it serves the first request that it gets within 200 ms, and
/// what it has on disk is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_was_killed_serves_as_soon_as_it_is_started_again() {
    let _machine = among_others().await;
    let application = Origin::start(Gathering::new()).await;
    let (port, rounds, folder) = (Port::reserve(), scaled(5, 50), TempDir::new().expect("a folder"));
    let (proxy, listen) = (port.address(), port.address().to_string());
    // nobody takes its telemetry: each request leaves something on disk
    let data_dir = folder.path().display().to_string();
    let settings = [("SIDECAR_DATA_DIR", data_dir.as_str())];
    let arguments = ["--listen", listen.as_str()];
    let start = || Sidecar::start(application.address, &arguments, &settings);
    let on_disk = |page: &str| page::sum(page, "content_factory_telemetry_queued", r#"signal="traces",place="disk""#);
    let mut sidecar = start().await;
    let (ends, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for _ in 0..KEPT {
        load.spawn(press(proxy, Arc::clone(&ends), Arc::clone(&answered)));
    }
    let (mut waits, mut kept) = (Vec::new(), 0.0);
    for round in 0..rounds {
        let enough = answered.load(Ordering::Relaxed) + 100;
        until(|| answered.load(Ordering::Relaxed) >= enough, "the load is carried").await;
        let page = sidecar.eventually("/metrics", |_, page| on_disk(page) > kept).await;
        kept = on_disk(&page);
        sidecar.signal("KILL").await;
        assert_eq!(sidecar.ended().await, None, "ended by a signal");
        assert_eq!(integrity(folder.path()).await, "ok", "round {round}");
        let started = Instant::now();
        sidecar = start().await;
        assert_eq!(ask(proxy, "GET", "/first").await.unwrap().status(), 200, "round {round}");
        waits.push(started.elapsed());
    }
    ends.store(true, Ordering::Relaxed);
    load.join_all().await;
    waits.sort();
    let half = waits[waits.len() / 2];
    println!(
        "killed {rounds} times; from exec to the first answer {:?} to {:?}, half of them within {half:?}; {kept} spans on disk",
        waits[0],
        waits[waits.len() - 1]
    );
    let judged = scaled(waits[0], half); // a debug build on a machine with other work takes longer, but not each time
    assert!(judged < Duration::from_millis(200), "from exec to the first answer {waits:?}");
}

/// The time of day.
pub(crate) fn now_unix_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_nanos()).expect("before 2554")
}

/// What a point of a sum or a histogram is about.
pub(crate) struct Interval {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) is_delta: bool,
}

/// That of each point.
pub(crate) fn intervals_of(metrics: &[Metric]) -> Vec<Interval> {
    let mut all = Vec::new();
    for metric in metrics {
        let (times, temporality): (Vec<_>, i32) = match &metric.data {
            Some(Data::Sum(sum)) => {
                let times = sum.data_points.iter().map(|point| (point.start_time_unix_nano, point.time_unix_nano));
                (times.collect(), sum.aggregation_temporality)
            }
            Some(Data::Histogram(sum)) => {
                let times = sum.data_points.iter().map(|point| (point.start_time_unix_nano, point.time_unix_nano));
                (times.collect(), sum.aggregation_temporality)
            }
            Some(Data::ExponentialHistogram(sum)) => {
                let times = sum.data_points.iter().map(|point| (point.start_time_unix_nano, point.time_unix_nano));
                (times.collect(), sum.aggregation_temporality)
            }
            _ => continue,
        };
        let is_delta = temporality == AggregationTemporality::Delta as i32;
        all.extend(times.into_iter().map(|(start, end)| Interval { start, end, is_delta }));
    }
    all
}

/// Row 10: after a restart each sum begins anew and says since when; what counts since the start begins at 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_say_since_when_they_count() {
    let _machine = among_others().await;
    let application = Application::start().await;
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let endpoint = format!("http://{}", receiver.address);
    let interval = [("SIDECAR_TELEMETRY__METRICS__INTERVAL", "100ms")];
    for round in 0..scaled(3, 20) {
        let (began, born) = (now_unix_nanos(), Instant::now());
        let mut sidecar = Sidecar::start(application.address, &["--otlp", &endpoint], &interval).await;
        let mut client = Client::connect(sidecar.proxy).await.unwrap();
        for _ in 0..=round {
            client.get("/counted").await.unwrap();
            assert_eq!(client.answer().await, Some((200, true)));
        }
        let metrics: serde_json::Value =
            serde_json::from_str(&sidecar.ask("/api/v1/monitoring/metrics").await.1).unwrap();
        assert_eq!(metrics["request_count"], round + 1, "since this start, not the one before");
        let uptime = metrics["uptime_seconds"].as_f64().expect("a number");
        assert!((0.0..=born.elapsed().as_secs_f64()).contains(&uptime), "{uptime} s of {:?}", born.elapsed());
        let described: serde_json::Value = serde_json::from_str(&sidecar.ask("/openapi.json").await.1).unwrap();
        let said = described["paths"]["/api/v1/monitoring/metrics"]["get"]["summary"].as_str().expect("a summary");
        assert!(said.contains("since the sidecar's start"), "{said}");
        sidecar.signal("TERM").await;
        assert_eq!(sidecar.ended().await, Some(0));
        let ended = now_unix_nanos();
        let metrics = receiver.with(|seen| std::mem::take(&mut seen.metrics));
        let intervals = intervals_of(&metrics);
        assert!(!intervals.is_empty(), "sums are exported");
        for Interval { start, end, .. } in intervals {
            assert!(began <= start && start <= end && end <= ended, "round {round}: {began} {start} {end} {ended}");
        }
    }
}

/// How many requests the end of the process broke off, by a histogram at the receiver.
pub(crate) fn cut_off(receiver: &Receiver, histogram: &str) -> u64 {
    receiver.with(|seen| {
        let metrics = seen.metrics.iter().filter(|metric| metric.name == histogram);
        let points = metrics.filter_map(|metric| match &metric.data {
            Some(Data::ExponentialHistogram(histogram)) => Some(&histogram.data_points),
            _ => None,
        });
        let cut = points.flatten().filter(|point| format!("{:?}", point.attributes).contains("\"shutdown\""));
        cut.map(|point| point.count).sum()
    })
}

/// Row 6: a second SIGTERM ends the drain at once, and what it cuts off is counted as that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_the_drain_at_once_and_what_it_cuts_off_is_counted() {
    let _machine = among_others().await;
    let application = Application::start().await;
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let for_ever = [("SIDECAR_PROXY__DRAIN_TIMEOUT", "10m")];
    let endpoint = format!("http://{}", receiver.address);
    let mut sidecar = Sidecar::start(application.address, &["--otlp", &endpoint], &for_ever).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(sidecar.proxy).await.unwrap();
        client.get("/hold").await.unwrap();
        timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
        clients.push(client);
    }
    sidecar.signal("TERM").await;
    until(|| sidecar.log().contains("draining"), "it drains").await;
    sidecar.signal("TERM").await;
    for client in &mut clients {
        assert_eq!(client.head().await, None, "broken off without an answer");
    }
    assert_eq!(sidecar.ended().await, Some(0));
    assert!(sidecar.log().contains("stopped again"), "{}", sidecar.log());
    let cut_off = cut_off(&receiver, "http.server.request.duration");
    assert_eq!(cut_off, 3, "error.type `shutdown` at the receiver");
}
