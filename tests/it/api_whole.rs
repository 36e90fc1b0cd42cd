//! The admin port in front of real checks: fast whatever hangs behind it, and silent about every secret.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use content_factory_sidecar::model::health::HealthStatus;
use serde_json::json;
use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;

use crate::api_port::{Port, healthy};
use crate::checks_services::{Checks, black_hole};

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
    // the median, with a connection each: a busy machine may delay a few of them
    assert!(times[25] < Duration::from_millis(5), "{times:?}");
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
