//! An admin port for tests, with values of our own behind it, and a client that shows every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use content_factory_sidecar::api::config::Config;
use content_factory_sidecar::api::{Rulebook, State, Traffic, bind};
use content_factory_sidecar::checks::{Desk, Reader, samples};
use content_factory_sidecar::lifecycle::{Conductor, Latch, Pulse, drain};
use content_factory_sidecar::model::application::About;
use content_factory_sidecar::model::export::ExportState;
use content_factory_sidecar::model::health::{CheckHistory, CheckReport, Criticality, HealthStatus};
use content_factory_sidecar::model::traffic::{Failure, RouteTraffic, Totals, Window};
use content_factory_sidecar::model::usage::SystemUsage;
use content_factory_sidecar::redact::{Clean, Redactor};
use content_factory_sidecar::settings::{Place, Settings, Tree};
use content_factory_sidecar::tasks;
use content_factory_sidecar::tasks::celery::reader::Reader as CeleryReader;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::database_values::database;

/// Longer than any answer takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running admin port; ends with its test.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    pub(crate) conductor: Conductor,
    _end: Conductor,
    pub(crate) latch: Latch,
    pub(crate) rulebook: Rulebook,
    server: JoinHandle<()>,
}

/// An answer, with nothing hidden.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A report of a check that was just run.
pub(crate) fn report(name: &str, status: HealthStatus, message: &'static str) -> CheckReport {
    CheckReport {
        name: name.into(),
        status,
        message: Clean::literal(message),
        criticality: Criticality::Critical,
        latency: Some(Duration::from_millis(2)),
        checked_at: Some(1_640_995_200.0),
        expires_at: Some(Instant::now() + Duration::from_secs(600)),
        kind: "tcp",
        period: Duration::from_secs(10),
        history: CheckHistory::default(),
    }
}

/// The services of a healthy application.
pub(crate) fn healthy() -> Vec<CheckReport> {
    [
        ("database", "Database connection successful"),
        ("redis", "Redis connection successful"),
        ("external_api", "External API connection successful"),
        ("ai_services", "OpenAI API key configured, AI Avatar service configured"),
        ("application", "Application connection successful"),
    ]
    .map(|(name, message)| report(name, HealthStatus::Healthy, message))
    .into()
}

fn traffic() -> Traffic {
    let totals = Totals {
        requests: 1_250,
        completed: 1_248,
        errors: 3,
        upstream_refused: 0,
        in_flight: 2,
        duration_sum_seconds: 306.25,
        duration_count: 1_250,
    };
    let window = |minutes: u64| Window {
        length: Duration::from_secs(60 * minutes),
        requests: 100 * minutes,
        errors: minutes,
        p50_seconds: Some(0.012),
        p95_seconds: Some(0.25),
        p99_seconds: Some(1.5),
    };
    let failure = || Failure {
        at: 1_640_995_190.0,
        method: content_factory_sidecar::model::request::Method::Post,
        route: Some(Clean::literal("/videos/{id}")),
        status: 503,
        error_type: Clean::literal("upstream_refused"),
        duration: Duration::from_millis(3),
        trace_id: Some(content_factory_sidecar::model::trace::TraceId([0xab; 16])),
        span_id: None,
    };
    Traffic {
        totals: Arc::new(move || totals),
        windows: Arc::new(move || [1, 5, 15].map(window)),
        routes: Arc::new(move || {
            let known = RouteTraffic { route: Some(Clean::literal("/videos/{id}")), window: window(5) };
            vec![known, RouteTraffic { route: None, window: Window { errors: 0, p99_seconds: None, ..window(5) } }]
        }),
        failures: Arc::new(move || vec![failure()]),
        settled: Arc::new(|| Box::pin(async {})),
    }
}

fn system() -> SystemUsage {
    SystemUsage {
        read_at: Some(Instant::now()),
        cpu_ratio: 0.152,
        memory_total_bytes: 16 << 30,
        memory_available_bytes: 8_841_164_718,
        disk_total_bytes: 512 << 30,
        disk_used_bytes: (512 << 30) - 411_833_677_414,
        disk_free_bytes: 411_833_677_414,
        platform: "Linux-6.1.0-x86_64".into(),
        ..SystemUsage::default()
    }
}

fn about() -> About {
    About {
        platform: Some(Clean::literal("Linux-6.1.0-x86_64-with-glibc2.36")),
        python_version: Some(Clean::literal("3.11.7")),
        version: Some(Clean::literal("1.0.0")),
    }
}

/// As large as by default.
fn tasks_config() -> tasks::config::Config {
    let mut settings = Settings::new(Tree::default(), |path: &str| Err(format!("no file {path}")));
    tasks::config::Config::read(&mut settings.section("tasks"))
}

/// The configuration that this document makes.
pub(crate) fn config(document: Value) -> Config {
    let mut tree = Tree::default();
    tree.merge(document, &Place("test".into()));
    if tree.get("admin.listen").is_none() {
        tree.set("admin.listen", json!("127.0.0.1:0"), &Place("test".into()));
    }
    let mut settings =
        Settings::new(tree, |path: &str| std::fs::read_to_string(path).map_err(|error| error.to_string()));
    let config = Config::read(&mut settings.section(""));
    let (_, problems, _) = settings.finish();
    assert!(problems.is_empty(), "{problems:?}");
    config
}

impl Port {
    /// Serves these reports with the defaults.
    pub(crate) async fn start(reports: Vec<CheckReport>) -> Self {
        Self::start_with(reports, json!({})).await
    }

    /// Serves these reports with these settings.
    pub(crate) async fn start_with(reports: Vec<CheckReport>, document: Value) -> Self {
        Self::start_reading(watch::channel(Arc::from(reports)).1, document).await
    }

    /// Serves a healthy application that says this of itself.
    pub(crate) async fn start_of(about: About) -> Self {
        Self::serve(watch::channel(Arc::from(healthy())).1, json!({}), about).await
    }

    /// Serves what these checks report.
    pub(crate) async fn start_reading(reports: Reader, document: Value) -> Self {
        Self::serve(reports, document, about()).await
    }

    async fn serve(reports: Reader, document: Value, about: About) -> Self {
        let bound = bind(config(document)).expect("port 0 is free");
        let (conductor, draining) = drain();
        let (end, ending) = drain();
        let latch = Latch::new("listener");
        let state = State {
            samples: vec![samples(reports.clone(), Arc::new(Redactor::new([])))],
            checks: reports,
            desk: Desk::default(),
            system: watch::channel(system()).1,
            about: watch::channel(about).1,
            database: watch::channel(database()).1,
            celery: CeleryReader::off(),
            standing: Arc::new(|| None),
            reloads: None,
            traffic: traffic(),
            tasks: tasks::open(&tasks_config(), Arc::new(Redactor::new([])), None, None),
            export: Arc::new(ExportState::default),
            latches: vec![latch.clone()],
            pulses: vec![Pulse::new("proxy"), Pulse::new("checks")],
            drain: draining,
            started: Instant::now(),
            proxy: Some(([127, 0, 0, 1], 18_000).into()),
            upstream: "http://127.0.0.1:8000".into(),
            service: Clean::literal("content-factory"),
        };
        let (address, rulebook) = (bound.addresses()[0], bound.rulebook());
        #[expect(clippy::disallowed_methods, reason = "a test has no supervisor; the handle is aborted in drop")]
        let server = tokio::spawn(async move { bound.serve(state, ending).await });
        Self { address, conductor, _end: end, latch, rulebook, server }
    }

    /// Asks with GET.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)).await
    }

    /// Sends these bytes and reads to the end.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        self.ask_from([127, 0, 0, 1], request).await
    }

    /// The same from this address, which is the peer's for the port.
    pub(crate) async fn ask_from(&self, peer: [u8; 4], request: &str) -> Answer {
        let exchange = async {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((peer, 0).into()).expect("all of 127/8 is ours");
            let mut stream = socket.connect(self.address).await.expect("the port accepts");
            stream.write_all(request.as_bytes()).await.expect("the port reads");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("the port answers");
            String::from_utf8(answer).expect("answers are UTF-8")
        };
        let answer = timeout(PATIENCE, exchange).await.expect("an answer in time");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Answer {
    /// The value of a header, lower case; empty without it.
    pub(crate) fn header(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}
