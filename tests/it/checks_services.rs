//! Checks against real servers: files of SQLite, a real Redis, small HTTP servers, and black holes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use content_factory_sidecar::checks::config::Config;
use content_factory_sidecar::checks::{self, Reader, Targets};
use content_factory_sidecar::lifecycle::{Conductor, Pulse, drain};
use content_factory_sidecar::model::dsn::DatabaseAddress;
use content_factory_sidecar::model::health::{CheckReport, HealthStatus};
use content_factory_sidecar::model::traffic::Totals;
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::settings::{Place, Settings, Tree};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::port::Port;

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Running checks; they end with their test.
pub(crate) struct Checks {
    pub(crate) reader: Reader,
    pub(crate) pulse: Pulse,
    _conductor: Conductor,
    runner: JoinHandle<()>,
}

impl Checks {
    /// Runs the checks of these settings, each ten times a second, against these targets.
    pub(crate) fn start(mut document: Value, database: Option<&str>, application: Option<SocketAddr>) -> Self {
        for service in ["database", "redis", "external_api", "application"] {
            let quick = json!({"period": "100ms", "timeout": "90ms", "failure_threshold": 2, "success_threshold": 1});
            let limits = document["checks"][service].take();
            document["checks"][service] = if limits.is_null() { quick } else { limits };
        }
        let mut tree = Tree::default();
        tree.merge(document, &Place("test".into()));
        let mut settings = Settings::new(tree, |path: &str| Err(format!("no file {path}")));
        let config = Config::read(&mut settings.section(""), &|_| false);
        let (_, problems, secrets) = settings.finish();
        assert!(problems.is_empty(), "{problems:?}");
        let targets = Targets {
            database: database.map(|url| DatabaseAddress::parse(url).expect("an address of a database")),
            application: application.map(|address| address.to_string()),
            totals: Arc::new(Totals::default),
            refused: tokio::sync::watch::channel(None).0,
            calls: None,
            routes: Arc::new(Vec::new),
            cpu: Arc::new(|| None),
        };
        let redactor = Arc::new(Redactor::new(secrets.iter().map(String::as_str)));
        let (runner, reader) = checks::build(&config, targets, redactor);
        let (conductor, drain) = drain();
        let pulse = runner.pulse();
        #[expect(clippy::disallowed_methods, reason = "a test has no supervisor; the handle is aborted in drop")]
        let runner = tokio::spawn(async move { runner.run(drain).await });
        Self { reader, pulse, _conductor: conductor, runner }
    }

    /// Waits until the report of a service is as asked for.
    pub(crate) async fn until(&mut self, name: &str, wanted: impl Fn(&CheckReport) -> bool) -> CheckReport {
        let find = |reports: &Arc<[CheckReport]>| reports.iter().find(|report| report.name == name).cloned();
        let seen = self.reader.wait_for(|reports| find(reports).is_some_and(|report| wanted(&report)));
        let seen = timeout(PATIENCE, seen).await.map(|reports| reports.expect("the runner lives").clone());
        match seen {
            Ok(reports) => find(&reports).expect("a report"),
            Err(_) => panic!("{name} is {:?}", find(&self.reader.borrow())),
        }
    }

    /// Waits for a status and gives the message.
    pub(crate) async fn message(&mut self, name: &str, status: HealthStatus) -> String {
        self.until(name, |report| report.status == status).await.message.to_string()
    }

    /// Waits until a service has this status, and these words for it: a run that a busy machine holds up has others.
    pub(crate) async fn says(&mut self, name: &str, status: HealthStatus, message: &str) {
        self.until(name, |report| report.status == status && report.message.as_str() == message).await;
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.runner.abort();
    }
}

/// Accepts connections and never answers.
pub(crate) fn black_hole() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        let held: Vec<_> = listener.incoming().collect();
        drop(held);
    });
    address
}

/// Answers every request with this status line.
fn http_server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 1_024];
            let length = stream.read(&mut head).unwrap_or_default();
            let named = String::from_utf8_lossy(&head[..length]).contains("user-agent: content-factory-sidecar/");
            let answer = if named { answer } else { "400 Bad Request" };
            let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    address
}

struct RedisServer(Child);

impl RedisServer {
    fn start(port: u16) -> Self {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--requirepass", "canary-canary"])
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("redis-server is on the PATH; tests/setup/debian.sh installs it"))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_redis_is_healthy_goes_and_comes_back() {
    let kept = Port::reserve();
    let port = kept.address().port();
    let url = format!("redis://:canary-canary@127.0.0.1:{port}/0");
    let mut checks = Checks::start(json!({"redis": {"url": url}}), None, None);
    checks.says("redis", HealthStatus::Unhealthy, "Redis check failed: refused").await;
    let server = RedisServer::start(port);
    checks.says("redis", HealthStatus::Healthy, "Redis connection successful").await;
    drop(server);
    checks.says("redis", HealthStatus::Unhealthy, "Redis check failed: refused").await;
    let _server = RedisServer::start(port);
    checks.says("redis", HealthStatus::Healthy, "Redis connection successful").await;
}

#[tokio::test]
async fn a_wrong_password_of_redis_is_told_as_such() {
    let kept = Port::reserve();
    let port = kept.address().port();
    let _server = RedisServer::start(port);
    let url = format!("redis://:wrong-canary@127.0.0.1:{port}/0");
    let mut checks = Checks::start(json!({"redis": {"url": url}}), None, None);
    checks.until("redis", |report| report.message.as_str() == "Redis check failed: auth").await;
}

#[tokio::test]
async fn a_file_of_sqlite_is_healthy_and_a_missing_one_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("app.db");
    let url = format!("sqlite:///{}", file.display());
    let mut checks = Checks::start(json!({}), Some(&url), None);
    checks.says("database", HealthStatus::Unhealthy, "Database check failed: not_found").await;
    std::fs::write(&file, "").expect("an empty file is an empty database");
    checks.says("database", HealthStatus::Healthy, "Database connection successful").await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_not_healthy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("app.db");
    std::fs::write(&file, "this is text, and long enough to be no header of a database ".repeat(20)).expect("a file");
    let mut checks = Checks::start(json!({}), Some(&format!("sqlite:///{}", file.display())), None);
    checks.says("database", HealthStatus::Unhealthy, "Database check failed: protocol").await;
}

#[tokio::test]
async fn a_database_inside_the_application_is_unknown_with_its_reason() {
    let mut checks = Checks::start(json!({}), Some("sqlite:///:memory:"), None);
    let report = checks.until("database", |report| report.checked_at.is_some()).await;
    assert_eq!(report.status, HealthStatus::Unknown);
    assert_eq!(report.message.as_str(), "in-process database, not observable from outside");
}

#[tokio::test]
async fn the_status_of_an_api_decides_and_redirects_are_not_followed() {
    for (answer, status, message) in [
        ("204 No Content", HealthStatus::Healthy, "External API connection successful"),
        ("302 Found\r\nLocation: http://169.254.169.254/", HealthStatus::Healthy, "External API connection successful"),
        ("401 Unauthorized", HealthStatus::Unhealthy, "External API check failed: auth"),
        ("429 Too Many Requests", HealthStatus::Unhealthy, "External API check failed: quota"),
        ("503 Service Unavailable", HealthStatus::Unhealthy, "External API check failed: status_503"),
        ("nonsense", HealthStatus::Unhealthy, "External API check failed: protocol"),
    ] {
        let url = format!("http://{}/health?key=canary", http_server(answer));
        let mut checks = Checks::start(json!({"external_api": {"url": url}}), None, None);
        checks.says("external_api", status, message).await;
    }
}

#[tokio::test]
async fn a_name_without_an_address_and_a_certificate_that_is_none_are_told_apart() {
    let limits = json!({"period": "10s", "timeout": "9s", "failure_threshold": 1});
    let unresolved =
        json!({"external_api": {"url": "https://name.invalid/"}, "checks": {"external_api": limits.clone()}});
    let mut checks = Checks::start(unresolved, None, None);
    checks.says("external_api", HealthStatus::Unhealthy, "External API check failed: dns").await;
    let unresolved = json!({"redis": {"url": "redis://name.invalid/0"}, "checks": {"redis": limits.clone()}});
    let mut checks = Checks::start(unresolved, None, None);
    checks.says("redis", HealthStatus::Unhealthy, "Redis check failed: dns").await;
    // a server without TLS: nonsense to whoever expects it
    let address = http_server("200 OK");
    let plain = json!({"redis": {"url": format!("rediss://{address}/0")}, "checks": {"redis": limits.clone()}});
    let mut checks = Checks::start(plain, None, None);
    checks.says("redis", HealthStatus::Unhealthy, "Redis check failed: tls").await;
    let plain = json!({"external_api": {"url": format!("https://{}/", http_server("200 OK"))}, "checks": {"external_api": limits}});
    let mut checks = Checks::start(plain, None, None);
    checks.says("external_api", HealthStatus::Unhealthy, "External API check failed: tls").await;
}

#[tokio::test]
async fn black_holes_time_out_by_themselves_and_delay_nobody() {
    let hole = black_hole();
    let document = json!({
        "redis": {"url": format!("redis://{hole}/0")},
        "external_api": {"url": format!("http://{hole}/")},
    });
    let database = format!("postgresql://u:canary-canary@{hole}/x");
    let started = Instant::now();
    let mut checks = Checks::start(document, Some(&database), Some(hole));
    checks.says("application", HealthStatus::Healthy, "Application connection successful").await;
    for (name, message) in [
        ("database", "Database check failed: timeout"),
        ("redis", "Redis check failed: timeout"),
        ("external_api", "External API check failed: timeout"),
    ] {
        checks.says(name, HealthStatus::Unhealthy, message).await;
    }
    let report = checks.until("redis", |report| report.latency.is_some()).await;
    assert!(report.latency.expect("it ran") < Duration::from_secs(5), "{report:?}");
    assert!(checks.pulse.age() < PATIENCE.min(started.elapsed() + Duration::from_secs(1)));
}

#[tokio::test]
async fn a_run_that_is_cut_off_takes_its_connection_with_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let hole = listener.local_addr().expect("a bound listener");
    let own = |mut check: Value| {
        (check["period"], check["timeout"]) = (json!("100ms"), json!("90ms"));
        json!({"checks": {"own": check}})
    };
    for (document, database) in [
        (json!({"redis": {"url": format!("redis://:canary@{hole}/0")}}), None),
        (json!({"external_api": {"url": format!("http://{hole}/")}}), None),
        (json!({}), Some(format!("postgresql://u@{hole}/x"))),
        (own(json!({"kind": "grpc", "url": format!("http://{hole}")})), None),
        (own(json!({"kind": "tls", "address": hole.to_string(), "server_name": "localhost"})), None),
        (own(json!({"kind": "ai", "url": format!("http://{hole}/v1/models"), "key": "canary-canary"})), None),
    ] {
        let _checks = Checks::start(document.clone(), database.as_deref(), None);
        for _ in 0..3 {
            let ended = async {
                let (mut stream, _) = listener.accept().await.expect("a check connects");
                while stream.read(&mut [0; 1_024]).await.expect("a check writes, then ends") > 0 {}
            };
            assert!(timeout(PATIENCE, ended).await.is_ok(), "a connection stays open: {document} {database:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_degraded() {
    let limits = json!({"period": "100ms", "timeout": "90ms", "degraded_above": "0"});
    let document = json!({"checks": {"application": limits}});
    let mut checks = Checks::start(document, None, Some(black_hole()));
    checks.says("application", HealthStatus::Degraded, "Application connection slow").await;
}

#[tokio::test]
async fn without_settings_all_but_the_application_are_not_configured() {
    let nobody = Port::reserve();
    let mut checks = Checks::start(json!({}), None, Some(nobody.address()));
    checks.says("application", HealthStatus::Unhealthy, "Application check failed: refused").await;
    let reports = checks.reader.borrow().clone();
    let names: Vec<&str> = reports.iter().map(|report| report.name.as_str()).collect();
    assert_eq!(names, ["database", "redis", "external_api", "ai_services", "application"]);
    for report in &reports[..4] {
        assert_eq!((report.status, report.message.as_str()), (HealthStatus::Unknown, "not configured"));
    }
}
