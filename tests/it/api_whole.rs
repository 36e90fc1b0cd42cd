//! The admin port in front of real checks: fast whatever hangs behind it, and silent about every secret.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use content_factory_sidecar::model::health::HealthStatus;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing_subscriber::fmt::MakeWriter;

use crate::api_port::{Port, healthy};
use crate::checks_services::{Checks, black_hole};
use crate::rig::{PATIENCE, Sidecar, echo_application};
use crate::telemetry_receiver::eventually;

/// Part of every secret below; must come out nowhere.
const CANARY: &str = "canary-canary";

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic while held").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn health_is_answered_at_once_while_everything_behind_it_hangs() {
    let hole = black_hole();
    let document = json!({
        "redis": {"url": format!("redis://{hole}/0")},
        "external_api": {"url": format!("http://{hole}/")},
    });
    let mut checks = Checks::start(document, Some(&format!("postgresql://u@{hole}/x")), Some(hole));
    let port = Port::start_reading(checks.reader.clone(), json!({})).await;
    for name in ["database", "redis", "external_api"] {
        checks.message(name, HealthStatus::Unhealthy).await;
    }
    let mut times = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        let answer = port.get("/health").await;
        times.push(started.elapsed());
        assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("unhealthy")));
    }
    times.sort_unstable();
    // a wait of the sidecar's own would be in each of them, one of the machine is not
    assert!(times[0] < Duration::from_millis(5), "{times:?}");
}

/// Counts the connections that it takes, and answers each with a document that every question understands.
struct Counting {
    address: SocketAddr,
    taken: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Counting {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, taken) = (listener.local_addr().expect("an address"), Arc::new(AtomicU64::new(0)));
        let (mut task, count) = (JoinSet::new(), Arc::clone(&taken));
        task.spawn(async move {
            let body = r#"{"paths": {"/x": {}}, "version": "1.0.0"}"#;
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                // a check that waits for a greeting finds that it is none; who only looks has gone
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, taken, _task: task }
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn no_request_to_any_endpoint_opens_a_connection() {
    let (application, database, redis, external) =
        (Counting::start().await, Counting::start().await, Counting::start().await, Counting::start().await);
    let (database_url, redis_url) =
        (format!("postgresql://u@{}/x?sslmode=disable", database.address), format!("redis://{}/0", redis.address));
    let external_url = format!("http://{}/", external.address);
    let mut environment = vec![
        ("DATABASE_URL".to_owned(), database_url),
        ("REDIS_URL".to_owned(), redis_url),
        ("SIDECAR_EXTERNAL_API__URL".to_owned(), external_url),
        ("SIDECAR_DATABASE__PERIOD".to_owned(), "1h".to_owned()),
        // it tries again and again to be heard
        ("SIDECAR_CELERY__ENABLED".to_owned(), "false".to_owned()),
        ("SIDECAR_DATABASE__ACTIVITY_PERIOD".to_owned(), "1h".to_owned()),
        ("SIDECAR_DATABASE__STATISTICS_PERIOD".to_owned(), "1h".to_owned()),
        ("SIDECAR_DATABASE__STORAGE_PERIOD".to_owned(), "1h".to_owned()),
        ("SIDECAR_TRAFFIC__ROUTES__REFRESH".to_owned(), "1h".to_owned()),
        ("SIDECAR_TELEMETRY__ENABLED".to_owned(), "false".to_owned()),
    ];
    for check in ["DATABASE", "REDIS", "EXTERNAL_API", "APPLICATION"] {
        environment.push((format!("SIDECAR_CHECKS__{check}__PERIOD"), "1h".to_owned()));
        environment.push((format!("SIDECAR_CHECKS__{check}__FAILURE_THRESHOLD"), "1".to_owned()));
        environment.push((format!("SIDECAR_CHECKS__{check}__SUCCESS_THRESHOLD"), "1".to_owned()));
    }
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
    let sidecar = Sidecar::start(application.address, &[], &environment).await;
    // all that it asks of anybody by itself within the hour has been asked
    let is_known = |_, body: &str| {
        ["database", "redis", "external_api", "application"].iter().all(|name| {
            let health: serde_json::Value = serde_json::from_str(body).expect("JSON");
            health["services"][name]["status"] != "unknown"
        })
    };
    sidecar.eventually("/health", is_known).await;
    sidecar.eventually("/status", |_, body| body.contains("\"version\":\"1.0.0\"")).await;
    sidecar.says(&["route templates read"]).await;
    let all = [&application, &database, &redis, &external];
    let before = settled(&all).await;
    assert!(before.iter().all(|taken| *taken > 0), "each was asked once: {before:?}");
    let (_, document) = sidecar.ask("/openapi.json").await;
    let document: serde_json::Value = serde_json::from_str(&document).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 10, "{paths:?}");
    for (path, _) in paths.iter().filter(|(_, operations)| operations["get"].is_object()) {
        for _ in 0..READS {
            let (status, body) = sidecar.ask(&path.replace("{item}", "listener")).await;
            // `/` leads to the dashboard, not each of the probes has this item, and tasks have only writes there
            assert!([200, 308].contains(&status) || path.ends_with('}'), "{path}: {status} {body}");
        }
    }
    assert_eq!(all.map(Counting::taken), before, "application, database, Redis, external API");
}

/// Takes connections and never answers; counts them, and those that were given up.
struct Silent {
    address: SocketAddr,
    taken: Arc<AtomicU64>,
    left: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Silent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let [taken, left] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let (mut task, counts) = (JoinSet::new(), (Arc::clone(&taken), Arc::clone(&left)));
        task.spawn(async move {
            let mut held = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                counts.0.fetch_add(1, Ordering::SeqCst);
                let left = Arc::clone(&counts.1);
                held.spawn(async move {
                    while stream.read(&mut [0; 4_096]).await.is_ok_and(|length| length > 0) {}
                    left.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, taken, left, _task: task }
    }

    /// Connections so far, and those that are over.
    fn counts(&self) -> [u64; 2] {
        [&self.taken, &self.left].map(|count| count.load(Ordering::SeqCst))
    }
}

/// Runs that nothing ends meanwhile, and beside them one check that works.
fn beside_runs_in_flight(redis: &Silent, database: &Silent, live: &Silent) -> String {
    let patient = "period: 1h, timeout: 30m";
    format!(
        "admin: {{rate: 1000000, rate_per_peer: 1000000}}\n\
         redis: {{url: \"redis://{}/0\"}}\n\
         celery: {{enabled: false}}\n\
         checks:\n  \
         redis: {{{patient}}}\n  \
         silent-sql: {{kind: sql, url: \"postgresql://u@{}/x?sslmode=disable\", {patient}}}\n  \
         live: {{kind: tcp, address: \"{}\", period: 100ms, timeout: 90ms}}\n",
        redis.address, database.address, live.address
    )
}

#[tokio::test]
async fn while_a_redis_and_a_postgresql_never_answer_health_waits_for_no_run_and_no_other_check_misses_one() {
    let (redis, database, live) = (Silent::start().await, Silent::start().await, Silent::start().await);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, beside_runs_in_flight(&redis, &database, &live)).expect("a file in a new folder");
    let file = file.display().to_string();
    let sidecar = Sidecar::start(echo_application().await, &["--config", &file], &[]).await;
    eventually("both are asked", PATIENCE, || [&redis, &database].iter().all(|peer| peer.counts() == [1, 0])).await;
    let runs = |body: &str| serde_json::from_str::<serde_json::Value>(body).expect("JSON")["streak"].as_u64();
    let live_runs = "/api/v1/monitoring/checks/live";
    sidecar.eventually(live_runs, |_, body| runs(body) >= Some(1)).await;
    let before = live.counts()[0];
    let mut asked = 0;
    while asked < 500 || live.counts()[0] < before + 10 {
        let (status, body) = sidecar.ask("/health").await;
        let health: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        for name in ["redis", "silent-sql"] {
            assert_eq!((status, &health["services"][name]["status"]), (200, &json!("unknown")), "{body}");
        }
        asked += 1;
    }
    // each answer came while both runs were under way, and nobody asked them for more
    assert_eq!([redis.counts(), database.counts()], [[1, 0]; 2], "after {asked} requests");
    // each run of the other check is one connection, and one result in its row; the last may not be counted yet
    let (_, body) = sidecar.ask(live_runs).await;
    let (connections, results) = (live.counts()[0], runs(&body).expect("it goes on"));
    assert!(body.contains("\"healthy\"") && connections.abs_diff(results) <= 1, "{connections} connections: {body}");
}

/// Reads of each path.
const READS: usize = 100;

/// The counts once they have stayed the same over fifty looks: the counting of rows, too, has been tried and given up.
async fn settled<const N: usize>(all: &[&Counting; N]) -> [u64; N] {
    let (mut last, mut same) = (all.map(Counting::taken), 0);
    while same < 50 {
        sleep(Duration::from_millis(20)).await;
        let now = all.map(Counting::taken);
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

#[tokio::test]
async fn no_secret_comes_out_of_any_endpoint_or_the_log() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_max_level(tracing::Level::TRACE).finish();
    // while only one subscriber lives, a place that another test reaches first is taken as of no interest to anybody
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let hole = black_hole();
    let document = json!({
        "redis": {"url": format!("redis://:{CANARY}@{hole}/0")},
        "external_api": {"url": format!("http://u:{CANARY}@{hole}/?key={CANARY}")},
        "ai_services": {"keys": ["CONTENT_KEY"]},
    });
    let database = format!("postgresql://u:{CANARY}@{hole}/x?password={CANARY}&unknown={CANARY}");
    let mut checks = Checks::start(document, Some(&database), None);
    let port = Port::start_reading(checks.reader.clone(), json!({})).await;
    for name in ["database", "redis", "external_api", "ai_services"] {
        checks.message(name, HealthStatus::Unhealthy).await;
    }
    let document = port.get("/openapi.json").await.json();
    for path in document["paths"].as_object().expect("paths").keys() {
        let answer = port.get(&path.replace("{item}", "listener")).await;
        assert!(!answer.body.contains(CANARY) && !answer.head.contains(CANARY), "{path}: {}", answer.body);
    }
    let log = String::from_utf8(log.0.lock().expect("no panic while held").clone()).expect("UTF-8");
    assert!(log.contains("a service has changed"), "{log}");
    assert!(!log.contains(CANARY), "{log}");
}

#[tokio::test]
async fn metrics_come_in_the_form_that_accept_names() {
    let port = Port::start(healthy()).await;
    let scraper = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    for (path, accept, media) in [
        ("/metrics", "", "text/plain; version=0.0.4; charset=utf-8"),
        ("/metrics", "text/html", "text/plain; version=0.0.4; charset=utf-8"),
        ("/metrics", scraper, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("/api/v1/monitoring/metrics", "", "application/json"),
        ("/api/v1/monitoring/metrics", "*/*", "application/json"),
        ("/api/v1/monitoring/metrics", "application/json, text/plain, */*", "application/json"),
        ("/api/v1/monitoring/metrics", "text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        ("/api/v1/monitoring/metrics", scraper, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ] {
        let accept = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
        let head = format!("Host: {}\r\n{accept}Connection: close\r\n", port.address);
        let answer = port.ask(&format!("GET {path} HTTP/1.1\r\n{head}\r\n")).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, media), "{path} {accept}");
        if media.starts_with("text") {
            assert!(answer.body.contains("content_factory_check_status{check=\"redis\",status=\"healthy\"} 1"));
        }
        assert_eq!(answer.body.ends_with("# EOF\n"), media.starts_with("application/openmetrics"), "{path} {accept}");
    }
}
