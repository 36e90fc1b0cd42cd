//! No secret comes out anywhere: a whole sidecar that knows many, is asked with many, and is answered with many; then every
//! outlet is searched. Each outlet also has to tell something harmless, so that an empty one proves nothing.

use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use percent_encoding::percent_decode;
use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::proxy_world::Client;
use crate::raw_receiver::RawReceiver;
use crate::rig::{PATIENCE, Sidecar, output};
use crate::sentry_project::Project;
use crate::tasks::{TASKS, tell};
use crate::telemetry_receiver::{eventually, free_listener};

/// Part of every secret.
const CANARY: &str = "canary";
/// Of a secret that is told in many forms: with what encodings change, and as base64 of two alignments.
pub(crate) const ENCODED: &str = "canary/jwt secret+1";
pub(crate) const BASE64: [&str; 2] = ["Y2FuYXJ5L2p3dCBzZWNyZXQrMQ==", "OmNhbmFyeS9qd3Qgc2VjcmV0KzE="];
/// Stands in every outlet.
pub(crate) const HARMLESS: &str = "harmlessmarker";

/// Fails with many secrets.
struct Application {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Application {
    async fn start() -> Self {
        let listener = free_listener().await;
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(async |uri: Uri| {
            let mut headers = HeaderMap::new();
            headers.insert("x-api-key", HeaderValue::from_static("canary-answer"));
            headers.insert("set-cookie", HeaderValue::from_static("session=canary-session"));
            let (status, body) = match uri.path() {
                "/openapi.json" => (
                    StatusCode::OK,
                    r#"{"paths":{"/harmlessmarker/{id}":{"get":{}},"/canary-github/{id}":{"get":{}}}}"#,
                ),
                "/status" => (
                    StatusCode::OK,
                    r#"{"version":"1 canary-github","system":{"platform":"token=canary-told","python_version":"harmlessmarker"}}"#,
                ),
                _ => (StatusCode::INTERNAL_SERVER_ERROR, "postgresql://shop:canary-body@db/shop refused"),
            };
            (status, headers, body)
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("the application serves") });
        Self { address, _tasks: tasks }
    }
}

/// What clients send, on a connection each; strangers' nonsense among it.
fn requests() -> Vec<Vec<u8>> {
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").into_bytes();
    let trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    let headers = "Authorization: Bearer canary-bearer\r\nCookie: session=canary-cookie\r\nX-Api-Key: canary-key\r\n\
                   Referer: http://h/?token=canary-referer\r\nUser-Agent: agent/1 canary-smtp\r\n";
    let posted = "POST /harmlessmarker/2 HTTP/1.1\r\nHost: h\r\nContent-Length: 22\r\nConnection: close\r\n\r\npassword=canary-posted";
    let with = |more: &str| {
        format!("GET /harmlessmarker/1 HTTP/1.1\r\nHost: h\r\n{headers}{more}Connection: close\r\n\r\n").into_bytes()
    };
    vec![
        with(&format!("{trace}tracestate: a=canary-github\r\n")),
        with(&format!("{trace}tracestate: token=canary-state\r\n")),
        with(&format!("{trace}tracestate: canary state\r\n")),
        with("traceparent: canary-traceparent\r\ntracestate: a=canary-orphan\r\n"),
        get("/x/canary-github/y"),
        get("/x/canary%2Fjwt%20secret%2B1/y"),
        get("/x/%63anary%2fjwt%2520secret%252B1/y"),
        get(&format!("/x/{}/y", BASE64[0])),
        get(&format!("/x/{}/y", BASE64[1])),
        get("/x;token=canary-matrix/y"),
        get("/x/http://u:canary-info@h/y"),
        get("/reset/eyJcanaryA1B2C3D4E5F6G7H8.I9J0canaryK1L2M3N4"),
        get("/harmlessmarker/3?token=canary-token&api%5Fkey=canary-key&X-Amz-Signature=canary-amz&page=harmlesspage"),
        get("/harmlessmarker/4?next=http://u:canary-next@h/?sig=canary-sig;code=canary-code"),
        get("/harmlessmarker/4?key=canary-github&next=http%3A%2F%2Fu%3Acanary-nested%40h%2F%3Ftoken%3Dcanary-nested"),
        get("http://u:canary-absolute@h/harmlessmarker/5"),
        b"canary-github /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /x HTTP/1.1\r\nHost: u:canary-host@h\r\nConnection: close\r\n\r\n".to_vec(),
        b"GET /x HTTP/1.1\r\nHost: h\r\ncanary header\r\n\r\n".to_vec(),
        b"canary nonsense\r\n\r\n".to_vec(),
        posted.as_bytes().to_vec(),
    ]
}

async fn ask_for_everything(sidecar: &Sidecar) {
    for request in requests() {
        let mut client = Client::connect(sidecar.proxy).await.expect("the proxy listens");
        client.send(&request).await.expect("the proxy reads");
        client.closed_by_fin().await;
    }
}

/// What the application says of its tasks.
async fn tell_of_tasks(sidecar: &Sidecar) {
    for name in ["harmlesstask of canary-github", "token=canary-task", "http://u:canary-task@h/"] {
        let (_, begun) = tell(sidecar.admin, "POST", TASKS, &json!({"name": name, "task_id": "canary-github"})).await;
        let path = format!("{TASKS}/{}", begun["id"].as_str().expect("an id"));
        let text = json!({"state": "failed", "error_type": "ValueError('canary-text')"});
        let (refused, answer) = tell(sidecar.admin, "PATCH", &path, &text).await;
        assert_eq!(refused, 400);
        assert_silent("an answer about a task", answer.to_string().as_bytes());
        let class = json!({"state": "failed", "error_type": "ValueError"});
        assert_eq!(tell(sidecar.admin, "PATCH", &path, &class).await.0, 200);
    }
    assert_tells(TASKS, sidecar.ask(TASKS).await.1.as_bytes(), "harmlesstask");
}

/// Panics when there is a secret in this, as it is or percent-encoded up to twice.
pub(crate) fn assert_silent(outlet: &str, bytes: &[u8]) {
    let once: Vec<u8> = percent_decode(bytes).collect();
    let twice: Vec<u8> = percent_decode(&once).collect();
    for text in [bytes, &once, &twice] {
        let text = String::from_utf8_lossy(text);
        for secret in [CANARY, BASE64[0], BASE64[1]] {
            let Some(at) = text.find(secret) else { continue };
            let (from, to) = (text.floor_char_boundary(at.saturating_sub(200)), text.ceil_char_boundary(at + 100));
            panic!("{outlet} tells a secret: …{}…", &text[from..to]);
        }
    }
}

fn assert_tells(outlet: &str, bytes: &[u8], harmless: &str) {
    assert!(String::from_utf8_lossy(bytes).contains(harmless), "{outlet} tells nothing of {harmless}");
    assert_silent(outlet, bytes);
}

/// Every page of the admin port, and answers to those who ask it with secrets.
async fn look_at_every_page(sidecar: &Sidecar) {
    let page = sidecar.eventually("/metrics", |_, page| page.contains(HARMLESS)).await;
    assert_tells("/metrics", page.as_bytes(), HARMLESS);
    let (_, description) = sidecar.ask("/openapi.json").await;
    let description: serde_json::Value = serde_json::from_str(&description).expect("JSON");
    let paths: Vec<String> = description["paths"].as_object().expect("paths").keys().cloned().collect();
    assert!(paths.len() > 8, "{paths:?}");
    for path in paths {
        let path = path.replace("{item}", "listener");
        for target in [path.clone(), format!("{path}?verbose&token=canary-admin"), format!("{path}/canary-github")] {
            assert_silent(&target, sidecar.ask(&target).await.1.as_bytes());
        }
    }
    let checks = "/api/v1/monitoring/checks";
    let pages =
        [("/dashboard", "<html"), ("/status", HARMLESS), ("/health", "models check failed"), (checks, "status_500")];
    for (page, harmless) in pages {
        let text = sidecar.eventually(page, |_, text| text.contains(harmless)).await;
        assert_silent(page, text.as_bytes());
    }
    let mut client = Client::connect(sidecar.admin).await.expect("the admin port listens");
    let strange = "GET /canary-github?token=canary-admin HTTP/1.1\r\nHost: u:canary-host@h\r\nAuthorization: Bearer canary-admin\r\n\r\n";
    client.send(strange.as_bytes()).await.expect("it reads");
    assert_silent("an answer of the admin port", client.head().await.unwrap_or_default().as_bytes());
}

/// What waits on disk, as it would be sent.
async fn spooled(folder: &Path) -> Vec<u8> {
    let url = format!("sqlite://{}", folder.join("spool.db").display());
    let mut file = SqliteConnection::connect(&url).await.expect("a file of SQLite");
    let rows: Vec<Vec<u8>> =
        sqlx::query_scalar("SELECT body FROM spool").fetch_all(&mut file).await.expect("the table of the spool");
    rows.iter().flat_map(|row| zstd::stream::decode_all(row.as_slice()).expect("zstd")).collect()
}

/// Ends it, and looks at what it wrote.
pub(crate) async fn end(mut sidecar: Sidecar) {
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));
    while let Some(line) = sidecar.line().await {
        assert_silent("standard output", line.as_bytes());
    }
    assert_tells("standard error", sidecar.log().as_bytes(), "draining");
}

/// What the sidecar is given: the variables of an application and its own.
fn environment<'a>(
    (otlp, dsn, data_dir): (&'a str, &'a str, &'a str),
    privacy: &'a str,
) -> Vec<(&'static str, &'a str)> {
    vec![
        ("OPENAI_API_KEY", "sk-canary-openai"),
        ("JWT_SECRET", ENCODED),
        ("GITHUB_TOKEN", "canary-github"),
        ("SMTP_PASSWORD", "canary-smtp"),
        ("DATABASE_URL", "postgresql://shop:canary-database@127.0.0.1:1/shop?password=canary-parameter"),
        ("REDIS_URL", "redis://:canary-redis@127.0.0.1:1/0"),
        ("CELERY_BROKER_URL", "amqp://shop:canary-broker@mq//"),
        ("SIDECAR_EXTERNAL_API__URL", "http://u:canary-api@127.0.0.1:1/?key=canary-api-key"),
        ("SENTRY_DSN", dsn),
        ("OTEL_SERVICE_NAME", HARMLESS),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", otlp),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=canary-header"),
        ("OTEL_RESOURCE_ATTRIBUTES", "api_key=canary-resource,team=of%20canary-github,a.place=harmlessmarker"),
        ("SIDECAR_TELEMETRY__PRIVACY__QUERY", privacy),
        ("SIDECAR_TELEMETRY__PRIVACY__USER_AGENT", privacy),
        ("SIDECAR_LOG__LEVEL", "debug"),
        ("SIDECAR_DATA_DIR", data_dir),
    ]
}

/// With a check of each kind that has a secret, and one that is answered with some.
const SETTINGS: &str = "
telemetry: {logs: {headers: 'x-key=canary-file'}}
checks:
  pay: {kind: http, url: 'http://u:canary-pay@127.0.0.1:1/?key=canary-pay-key', authorization: 'Bearer canary-authorization'}
  models: {kind: ai, url: 'http://127.0.0.1:1/v1/models', key: canary-models}
  reports: {kind: sql, url: 'postgresql://r:canary-reports@127.0.0.1:1/r'}
  cache: {kind: redis, url: 'redis://:canary-cache@127.0.0.1:1/0'}
  own-word: {kind: app}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_comes_out_of_any_outlet_whatever_is_asked_for() {
    let files = TempDir::new().expect("a folder");
    let file = files.path().join("sidecar.yaml");
    std::fs::write(&file, SETTINGS).expect("written");
    let file = file.display().to_string();
    for privacy in ["false", "true"] {
        let (application, project) = (Application::start().await, Project::start(&[]).await);
        let (receiver, folder) = (RawReceiver::away().await, TempDir::new().expect("a folder"));
        let (otlp, dsn) = (format!("http://{}", receiver.address), project.dsn());
        let data_dir = folder.path().display().to_string();
        let environment = environment((&otlp, &dsn, &data_dir), privacy);
        for command in ["print-config", "check-config"] {
            let written = output(&[command, "--config", &file], &environment).await;
            assert!(written.status.success(), "{command}");
            assert_tells(command, &written.stdout, if command == "print-config" { HARMLESS } else { "valid" });
            assert_silent(command, &written.stderr);
        }
        let arguments = ["--config", file.as_str()];

        let sidecar = Sidecar::start(application.address, &arguments, &environment).await;
        let deadline = Instant::now() + PATIENCE;
        while !sidecar.metrics().await.contains("/harmlessmarker/{id}") {
            assert!(Instant::now() < deadline, "the routes are never known");
            ask_for_everything(&sidecar).await; // a route is told once it is known and asked for
        }
        tell_of_tasks(&sidecar).await;
        look_at_every_page(&sidecar).await;
        eventually("events at Sentry", PATIENCE, || !project.events().is_empty()).await;
        end(sidecar).await;
        assert_tells("the spool", &spooled(folder.path()).await, HARMLESS);

        receiver.back();
        let sidecar = Sidecar::start(application.address, &arguments, &environment).await;
        ask_for_everything(&sidecar).await;
        let has = |signal: &str| receiver.arrivals().iter().any(|(path, _)| path.ends_with(signal));
        eventually("all signals", PATIENCE, || has("/traces") && has("/logs")).await;
        end(sidecar).await;
        for (path, body) in receiver.arrivals() {
            assert_tells(&path, &body, HARMLESS); // in each resource
        }
        let all: Vec<u8> = receiver.arrivals().into_iter().flat_map(|(_, body)| body).collect();
        let has_page = String::from_utf8_lossy(&all).contains("harmlesspage");
        assert_eq!(has_page.to_string(), privacy, "queries leave when they are asked for");
        for arrival in project.arrivals() {
            assert_tells("an envelope", arrival.text.as_bytes(), HARMLESS); // the service
        }
    }
}

#[tokio::test]
async fn a_mistake_in_the_configuration_is_told_without_secrets() {
    let environment = [
        ("GITHUB_TOKEN", "canary-github"),
        ("SIDECAR_PROXY__UPSTREAM", "http://u:canary-upstream@app:1"),
        ("SIDECAR_PROXY__LISTEN", "of canary-github"),
        ("SIDECAR_TELEMETRY__ENDPOINT", "http://u:canary-endpoint@collector:4317"),
        ("SIDECAR_REDIS__URL", "canary-redis"),
        ("OTEL_RESOURCE_ATTRIBUTES", "api_key=canary-resource,wrong"),
    ];
    for command in ["run", "check-config", "print-config"] {
        let written = output(&[command], &environment).await;
        assert_eq!(written.status.code(), Some(64));
        assert_tells(command, &written.stderr, "proxy.upstream: http://");
        assert_silent(command, &written.stdout);
    }
}
