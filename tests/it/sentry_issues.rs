//! Failures as issues at Sentry: grouped, linked to their traces, held while Sentry is away or asks for patience, and
//! without a secret in them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use content_factory_sidecar::model::telemetry::Signal;
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::settings::{Place, Settings, Tree};
use content_factory_sidecar::telemetry::issues::config::IssuesConfig;
use content_factory_sidecar::telemetry::logging::{LogConfig, LogFormat};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::proxy_world::{self, Client};
use crate::rig::{PATIENCE, Sidecar, get};
use crate::sentry_project::Project;
use crate::telemetry_receiver::{Codings, Receiver, eventually, free_listener};
use crate::telemetry_setup::{Running, assert_balanced, config};

const SPAN_KIND_SERVER: i32 = 2;

/// An application with one route that fails for each number, one that is well, and a description of both.
struct Application {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Application {
    async fn start() -> Self {
        let listener = free_listener().await;
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(async |uri: Uri| match uri.path() {
            "/openapi.json" => (StatusCode::OK, r#"{"paths":{"/videos/{id}":{"get":{}},"/well":{"get":{}}}}"#),
            "/well" => (StatusCode::OK, "well"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "password=hunter2-canary"),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("the application serves") });
        Self { address, _tasks: tasks }
    }

    /// A sidecar before it that knows its routes.
    async fn behind(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Sidecar {
        let sidecar = Sidecar::start(self.address, arguments, environment).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !sidecar.metrics().await.contains(r#"http_route="/well""#) {
            assert!(tokio::time::Instant::now() < deadline, "the routes are never known");
            assert_eq!(get(sidecar.proxy, "/well").await.expect("an answer").0, 200);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sidecar
    }
}

async fn fail(sidecar: &Sidecar, number: usize) {
    let target = format!("/videos/{number}?token=query-canary");
    assert_eq!(get(sidecar.proxy, &target).await.expect("an answer").0, 500);
}

fn account(name: &str, labels: &str, count: u64) -> impl Fn(u16, &str) -> bool + use<> {
    let line = format!("content_factory_telemetry_{name}{{signal=\"envelopes\"{labels}}} {count}\n");
    move |_, page| page.contains(&line)
}

#[tokio::test]
async fn failures_are_one_issue_linked_to_their_traces_and_hold_no_secret() {
    let (application, project) = (Application::start().await, Project::start(&[]).await);
    let collector = Receiver::http(Codings::All, Arc::default()).await;
    let (dsn, otlp) = (project.dsn(), format!("http://{}", collector.address));
    let environment = [
        ("SENTRY_DSN", dsn.as_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &otlp),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,service.version=1.2.3,deployment.environment.name=test"),
        ("DATABASE_URL", "postgresql://shop:database-canary@127.0.0.1:1/shop"),
    ];
    let sidecar = application.behind(&[], &environment).await;
    for number in 0..5 {
        fail(&sidecar, number).await;
    }
    let page = sidecar.eventually("/metrics", account("delivered_total", "", 3)).await;
    sidecar.eventually("/metrics", |_, page| page.contains("content_factory_sentry_left_out_total 2\n")).await;
    assert!(account("produced_total", "", 3)(200, &page), "{page}");

    let arrivals = project.arrivals();
    assert_eq!(arrivals.len(), 3, "the burst, and no more");
    for arrival in &arrivals {
        assert_eq!(arrival.path, "/api/42/envelope/");
        assert_eq!(arrival.content_type, "application/x-sentry-envelope");
        assert!(arrival.auth.starts_with("Sentry sentry_key=canary-0123456789abcdef, sentry_version=7"), "{arrival:?}");
        let event = &arrival.event;
        assert_eq!(event["fingerprint"], json!(["GET", "/videos/{id}", "500"]));
        assert_eq!(event["transaction"], "GET /videos/{id}");
        assert_eq!(event["exception"]["values"][0]["type"], "HTTP 500");
        assert_eq!((&event["release"], &event["environment"]), (&"shop@1.2.3".into(), &"test".into()));
        assert_eq!((&event["tags"]["service"], &event["tags"]["http.route"]), (&"shop".into(), &"/videos/{id}".into()));
        assert!(event["user"].is_null() && event["request"].is_null(), "{event}");
        assert!(!arrival.text.contains("canary"), "{}", arrival.text);
    }
    let linked: BTreeSet<(String, String)> = project.events().iter().map(trace_of).collect();
    assert_eq!(linked.len(), 3);
    let servers = || -> BTreeSet<(String, String)> {
        let is_server = |span: &&opentelemetry_proto::tonic::trace::v1::Span| span.kind == SPAN_KIND_SERVER;
        collector.with(|seen| {
            let spans = seen.spans.iter().filter(is_server);
            spans.map(|span| (hex(&span.trace_id), hex(&span.span_id))).collect()
        })
    };
    eventually("each event's trace is exported", PATIENCE, || linked.is_subset(&servers())).await;
    assert!(!sidecar.log().contains("canary") && !sidecar.metrics().await.contains("canary"));
}

#[tokio::test]
async fn no_issue_tells_who_the_client_was_even_where_spans_do() {
    let (application, project) = (Application::start().await, Project::start(&[]).await);
    let dsn = project.dsn();
    let environment = [
        ("SENTRY_DSN", dsn.as_str()),
        ("SIDECAR_PROXY__TRUSTED_PROXIES", "127.0.0.0/8"),
        ("SIDECAR_TELEMETRY__PRIVACY__ADDRESS", "full"),
        ("SIDECAR_TELEMETRY__PRIVACY__QUERY", "true"),
        ("SIDECAR_TELEMETRY__PRIVACY__USER_AGENT", "true"),
    ];
    let sidecar = application.behind(&[], &environment).await;
    let mut client = Client::connect(sidecar.proxy).await.expect("the proxy listens");
    let head = "GET /videos/7?q=query-canary HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.77\r\n\
                User-Agent: agent-canary\r\nReferer: http://x/?referer-canary\r\nCookie: id=cookie-canary\r\n\
                Connection: close\r\n\r\n";
    client.send(head.as_bytes()).await.expect("the proxy reads");
    client.closed_by_fin().await;
    sidecar.eventually("/metrics", account("delivered_total", "", 1)).await;
    let [arrival] = &project.arrivals()[..] else { panic!("one failure is one event") };
    assert_eq!(arrival.event["transaction"], "GET /videos/{id}");
    assert!(!arrival.text.contains("canary") && !arrival.text.contains("203.0.113"), "{}", arrival.text);
    assert!(arrival.event["user"].is_null() && arrival.event["request"].is_null(), "{}", arrival.text);
}

#[tokio::test]
async fn each_way_in_which_a_request_fails_is_an_issue_in_its_trace_and_what_the_client_did_is_none() {
    let (application, project) = (proxy_world::Application::start().await, Project::start(&[]).await);
    let dsn = project.dsn();
    let environment = [("SENTRY_DSN", dsn.as_str()), ("SIDECAR_PROXY__TIMEOUTS__FIRST_BYTE", "200ms")];
    let sidecar = Sidecar::start(application.address, &[], &environment).await;
    for path in ["/missing", "/error", "/never", "/garbage", "/vanish", "/cut"] {
        let mut client = Client::connect(sidecar.proxy).await.expect("the proxy listens");
        let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        client.send(head.as_bytes()).await.expect("the proxy reads");
        client.closed_by_fin().await;
    }
    sidecar.eventually("/metrics", account("delivered_total", "", 5)).await;
    let told = |event: &Value| {
        assert_eq!(event["fingerprint"].as_array().map(Vec::len), Some(3), "{event}");
        [&event["fingerprint"][2], &event["exception"]["values"][0]["type"]]
            .map(|text| text.as_str().expect("a text").to_owned())
    };
    let events = project.events();
    let mut found: Vec<_> = events.iter().map(told).collect();
    found.sort();
    let expected = [
        ["500", "HTTP 500"],
        ["502", "upstream_bad_answer"],
        ["502", "upstream_broken"],
        ["504", "upstream_timeout"],
        ["upstream_broken", "upstream_broken"],
    ];
    assert_eq!(found, expected.map(|pair| pair.map(str::to_owned)));
    assert_eq!(events.iter().map(trace_of).collect::<BTreeSet<_>>().len(), 5, "each in a trace of its own");
}

fn trace_of(event: &Value) -> (String, String) {
    let text = |key: &str| event["contexts"]["trace"][key].as_str().expect("a trace").to_owned();
    (text("trace_id"), text("span_id"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_outage_and_a_restart_lose_no_event() {
    let application = Application::start().await;
    let away = Project::start(&[(503, None); 1_000]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path().to_str().expect("a path of text");
    let mut sidecar = application.behind(&["--data-dir", folder], &[("SENTRY_DSN", &away.dsn())]).await;
    fail(&sidecar, 1).await;
    fail(&sidecar, 2).await;
    sidecar.eventually("/metrics", account("queued", ",place=\"disk\"", 2)).await;
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));
    assert!(away.events().is_empty());
    let back = Project::start(&[]).await;
    let sidecar = application.behind(&["--data-dir", folder], &[("SENTRY_DSN", &back.dsn())]).await;
    let page = sidecar.eventually("/metrics", account("delivered_total", "", 2)).await;
    assert!(account("queued", ",place=\"disk\"", 0)(200, &page), "{page}");
    let ids: BTreeSet<String> = back.events().iter().map(|event| event["event_id"].to_string()).collect();
    assert_eq!((back.events().len(), ids.len()), (2, 2), "each once, and each by itself");
}

#[tokio::test]
async fn what_sentry_says_of_its_limits_is_heeded_and_nothing_is_lost() {
    let limit = ("x-sentry-rate-limits", "2:error;default:organization");
    let script = [(429, Some(limit)), (200, Some(limit)), (429, Some(("retry-after", "1")))];
    let (application, project) = (Application::start().await, Project::start(&script).await);
    let sidecar = application.behind(&[], &[("SENTRY_DSN", &project.dsn())]).await;
    fail(&sidecar, 1).await;
    sidecar.eventually("/metrics", account("delivered_total", "", 1)).await;
    fail(&sidecar, 2).await;
    let page = sidecar.eventually("/metrics", account("delivered_total", "", 2)).await;
    assert!(account("produced_total", "", 2)(200, &page), "{page}");
    let arrivals = project.arrivals();
    assert_eq!(arrivals.iter().map(|arrival| arrival.status).collect::<Vec<_>>(), [429, 200, 429, 200]);
    for (pair, seconds) in arrivals.windows(2).zip([2, 2, 1]) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= Duration::from_millis(seconds * 1_000 - 20), "{pause:?}, asked for {seconds} s");
    }
    assert_eq!(arrivals[0].event, arrivals[1].event, "the same again");
}

#[tokio::test]
async fn without_a_dsn_there_is_nothing_of_it() {
    let application = Application::start().await;
    let project = Project::start(&[]).await;
    for environment in [&[][..], &[("SENTRY_DSN", project.dsn()), ("SIDECAR_SENTRY__ENABLED", "false".into())]] {
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let sidecar = application.behind(&[], &environment).await;
        fail(&sidecar, 1).await;
        let counted = |_, page: &str| page.contains(r#"error_type="500""#);
        let page = sidecar.eventually("/metrics", counted).await;
        assert!(!page.contains("envelopes") && !page.contains("sentry"), "{page}");
    }
    assert!(project.arrivals().is_empty());
}

#[tokio::test]
async fn the_sidecars_own_errors_are_issues_but_not_those_of_the_way_to_sentry() {
    let project = Project::start(&[]).await;
    let mut tree = Tree::default();
    tree.merge(json!({"dsn": project.dsn(), "burst": 2}), &Place("a test".into()));
    let mut settings = Settings::new(tree, |_: &str| Err("not read".to_owned()));
    let sentry = IssuesConfig::read(&mut settings.section("")).expect("a project");
    let mut way_out = config(json!({"enabled": false}));
    way_out.destinations[Signal::Envelopes as usize] = sentry.destination();
    let mut running = Running::start_with(way_out, 1, Vec::new());
    let redactor = Arc::new(Redactor::new(["hunter2-secret"]));
    let log = LogConfig { level: "error".into(), format: LogFormat::Text };
    let issues = running.issues(&sentry, &redactor);
    let subscriber = running.subscriber_to_sentry(&log, &redactor, &issues);
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("a step before, with hunter2-secret");
        for _ in 0..5 {
            tracing::error!(attempt = 7, "the disk said hunter2-secret");
        }
        tracing::error!(target: "content_factory_sidecar::telemetry::sender", "would feed itself");
        tracing::warn!("no error");
    });
    eventually("the burst has arrived", PATIENCE, || running.account(Signal::Envelopes).delivered == 2).await;
    running.stop(Duration::from_secs(5)).await;
    assert_balanced(&running.account(Signal::Envelopes));
    let arrivals = project.arrivals();
    assert_eq!(arrivals.len(), 2, "five alike, of which two may go");
    for arrival in arrivals {
        let event = arrival.event;
        assert_eq!(event["message"], "the disk said [REDACTED:secret]");
        assert_eq!(event["tags"]["service"], "content-factory-sidecar");
        assert!(event["release"].as_str().is_some_and(|release| release.starts_with("content-factory-sidecar@")));
        assert_eq!(event["breadcrumbs"]["values"][0]["message"], "a step before, with [REDACTED:secret]");
        assert!(!arrival.text.contains("hunter2") && !arrival.text.contains("canary"), "{}", arrival.text);
    }
}
