//! Bearer tokens of the admin port, by the binary: who gets in, files that change, and that no token is told anywhere.

use std::net::SocketAddr;
use std::path::Path;

use content_factory_sidecar::model::reload::Retune;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::api_port::{Port, config, healthy};
use crate::raw_receiver::RawReceiver;
use crate::rig::{PATIENCE, Sidecar, echo_application, get, output};
use crate::secrets::{assert_silent, end};

const READER: &str = "canary-reader-0123456789";
const WRITER: &str = "canary-writer-0123456789";
const CHANGED: &str = "have changed: the new ones are used";
const WRONG: &str = "is wrong: what was in use stays";
const TASKS: &str = "/api/v1/monitoring/tasks";

/// As a mounted secret changes: at once.
fn write(folder: &Path, name: &str, content: &str) {
    let new = folder.join("new");
    std::fs::write(&new, content).expect("a file in a folder of ours");
    std::fs::rename(new, folder.join(name)).expect("a file in the same folder");
}

/// Sends one request with this token, and gives the status, the head and the body.
async fn call(address: SocketAddr, request: &str, token: Option<&str>, body: &str) -> (u16, String, String) {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    let request = format!(
        "{request} HTTP/1.1\r\nHost: {address}\r\n{token}Content-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("the port accepts");
        stream.write_all(request.as_bytes()).await.expect("the port reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the port answers");
        String::from_utf8(answer).expect("answers are UTF-8")
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (answer[9..12].parse().expect("a status"), head.to_ascii_lowercase(), body.to_owned())
}

async fn status(sidecar: &Sidecar, request: &str, token: Option<&str>) -> u16 {
    call(sidecar.admin, request, token, "").await.0
}

/// Waits until a page answers a token in this way.
async fn until(sidecar: &Sidecar, token: &str, wanted: u16) {
    let deadline = Instant::now() + PATIENCE;
    while status(sidecar, "GET /status", Some(token)).await != wanted {
        assert!(Instant::now() < deadline, "{}", sidecar.log());
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn tokens_read_or_write_and_who_has_none_gets_the_word() {
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), "tokens", &format!("{READER}\n{WRITER} write # the cron job\n"));
    let file = folder.path().join("tokens").display().to_string();
    let yaml = "checks:\n  import: {kind: heartbeat, max_silence: 1h}\n  port: {kind: tcp, address: \"127.0.0.1:1\", period: 1h, initial_delay: 30m}\n";
    write(folder.path(), "sidecar.yaml", yaml);
    let config = folder.path().join("sidecar.yaml").display().to_string();
    let environment = [("SIDECAR_ADMIN__TOKENS_FILE", file.as_str())];
    let sidecar = Sidecar::start(echo_application().await, &["--config", &config], &environment).await;
    for (request, [nobody, reader, writer]) in [
        ("GET /status", [401, 200, 200]),
        ("GET /metrics", [401, 200, 200]),
        ("GET /api/v1/monitoring/checks", [401, 200, 200]),
        ("GET /api/v1/monitoring/checks/port?refresh=1", [401, 403, 200]),
        ("POST /api/v1/monitoring/checks/port/run", [401, 403, 200]),
        ("POST /api/v1/monitoring/heartbeat/import", [200, 200, 200]),
        ("GET /health", [200, 200, 200]),
        ("GET /readyz", [200, 200, 200]),
    ] {
        for (token, expected) in [(None, nobody), (Some(READER), reader), (Some(WRITER), writer)] {
            assert_eq!(status(&sidecar, request, token).await, expected, "{request} {token:?}");
        }
    }
    let (code, head, body) = call(sidecar.admin, "GET /status", Some("nobody-0123456789abcdef"), "").await;
    assert_eq!(code, 401);
    assert!(head.contains("www-authenticate: bearer error=\"invalid_token\"\r\n"), "{head}");
    assert_eq!(serde_json::from_str::<Value>(&body).expect("JSON")["expected"], "one of those in admin.tokens");
    let (_, _, page) = call(sidecar.admin, "GET /metrics", Some(READER), "").await;
    assert!(page.contains("content_factory_admin_refusals_total{reason=\"token\"} 1\n"), "{page}");
    assert!(page.contains("content_factory_admin_refusals_total{reason=\"read_only\"} 1\n"), "{page}");
    assert!(page.contains("content_factory_admin_refusals_total{reason=\"stranger\"} 5\n"), "{page}");
}

#[tokio::test]
async fn an_address_in_a_header_is_nobodys_address() {
    let port = Port::start_with(healthy(), json!({"admin": {"tokens": READER, "allow": ["192.0.2.0/24"]}})).await;
    let headers =
        ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "X-Real-IP: 192.0.2.1", "True-Client-IP: 192.0.2.1"];
    for header in headers {
        let request =
            format!("GET /status HTTP/1.1\r\nHost: {}\r\n{header}\r\nConnection: close\r\n\r\n", port.address);
        assert_eq!(port.ask(&request).await.status, 401, "{header}");
    }
    assert_eq!(port.rulebook.retune(&config(json!({"admin": {"tokens": READER, "allow": ["127.0.0.1"]}}))), Ok(()));
    assert_eq!(port.get("/status").await.status, 200, "the socket's own peer is in the list");
    let network = config(json!({"admin": {"tokens": READER, "allow": ["127.0.0.4/30"]}}));
    assert_eq!(port.rulebook.retune(&network), Ok(()));
    let request = format!("GET /status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", port.address);
    for (last, expected) in [(3, 401), (4, 200), (7, 200), (8, 401)] {
        assert_eq!(port.ask_from([127, 0, 0, last], &request).await.status, expected, "127.0.0.{last}");
    }
}

#[tokio::test]
async fn a_refresh_runs_a_check_and_loopback_without_tokens_may_ask_for_it() {
    let folder = TempDir::new().expect("a folder");
    let yaml = "checks:\n  port: {kind: tcp, address: \"127.0.0.1:1\", period: 1h, initial_delay: 30m}\n";
    write(folder.path(), "sidecar.yaml", yaml);
    let config = folder.path().join("sidecar.yaml").display().to_string();
    let sidecar = Sidecar::start(echo_application().await, &["--config", &config], &[]).await;
    let check = |body: &str| serde_json::from_str::<Value>(body).expect("JSON");
    let path = "/api/v1/monitoring/checks/port";
    assert_eq!(check(&sidecar.ask(path).await.1)["checked_at"], Value::Null);
    let run = check(&sidecar.ask(&format!("{path}?refresh=1")).await.1);
    assert_eq!((&run["run"], &run["result"], &run["streak"]), (&json!("made"), &json!("unhealthy"), &json!(1)));
    let (code, body) = sidecar.ask("/api/v1/monitoring/checks?refresh=1").await;
    let picture = format!(
        "GET {path}?refresh=1 HTTP/1.1\r\nHost: {}\r\nSec-Fetch-Site: cross-site\r\nConnection: close\r\n\r\n",
        sidecar.admin
    );
    let mut stream = TcpStream::connect(sidecar.admin).await.expect("the port accepts");
    stream.write_all(picture.as_bytes()).await.expect("the port reads");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time").expect("a text");
    assert!(answer.starts_with("HTTP/1.1 403 "), "a page of another site had a check run: {answer}");
    let all = check(&body);
    let port = all["checks"].as_array().expect("checks").iter().find(|check| check["name"] == "port");
    assert_eq!((code, port.expect("our check")["checked_at"].is_f64()), (200, true));
}

#[tokio::test]
async fn tokens_change_with_their_file_and_a_broken_file_changes_nothing() {
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), "tokens", READER);
    let file = folder.path().join("tokens").display().to_string();
    let environment = [("SIDECAR_ADMIN__TOKENS_FILE", file.as_str())];
    let sidecar = Sidecar::start(echo_application().await, &[], &environment).await;
    assert_eq!(status(&sidecar, "GET /status", Some(READER)).await, 200);
    write(folder.path(), "tokens", "canary-second-0123456789\n");
    until(&sidecar, "canary-second-0123456789", 200).await;
    until(&sidecar, READER, 401).await;
    for broken in ["", "canary", "canary-third-0123456789 everything"] {
        write(folder.path(), "tokens", broken);
    }
    sidecar.says(&[WRONG, "expected read or write behind the token of line 1"]).await;
    std::fs::remove_file(&file).expect("it is there");
    sidecar.says(&[WRONG, "expected a readable file"]).await;
    assert_eq!(status(&sidecar, "GET /status", Some("canary-second-0123456789")).await, 200);
    assert_eq!(status(&sidecar, "GET /status", Some("canary-third-0123456789")).await, 401);
    write(folder.path(), "tokens", &format!("{READER} write"));
    until(&sidecar, READER, 200).await;
    assert_eq!(sidecar.log().matches(CHANGED).count(), 2, "{}", sidecar.log());
    assert_silent("the log", sidecar.log().as_bytes());
}

#[tokio::test]
async fn a_reload_is_in_force_for_the_next_request_of_a_connection_that_is_open() {
    let port = Port::start(healthy()).await;
    let mut stream = TcpStream::connect(port.address).await.expect("the port accepts");
    let mut ask = async |token: &str| {
        let request = format!("GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n{token}\r\n");
        stream.write_all(request.as_bytes()).await.expect("the port reads");
        let mut answer = Vec::new();
        loop {
            let mut chunk = vec![0; 64 << 10];
            let length = timeout(PATIENCE, stream.read(&mut chunk)).await.expect("in time").expect("an answer");
            assert!(length > 0, "the connection was closed");
            answer.extend_from_slice(&chunk[..length]);
            let text = String::from_utf8_lossy(&answer).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            if body.len() == length.parse::<usize>().expect("a number") {
                return text[9..12].to_owned();
            }
        }
    };
    assert_eq!(ask("").await, "200");
    let tokens = json!({"admin": {"tokens": READER}});
    assert_eq!(port.rulebook.retune(&config(tokens)), Ok(()));
    assert_eq!(ask("").await, "401");
    assert_eq!(ask(&format!("Authorization: Bearer {READER}\r\n")).await, "200");
    let limited = json!({"admin": {"rate": 1}});
    assert_eq!(port.rulebook.retune(&config(limited)), Ok(()));
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(ask("").await);
    }
    assert!(answers.contains(&"429".to_owned()), "{answers:?}");
}

#[tokio::test]
async fn a_wrong_file_of_tokens_is_a_mistake_at_start_that_names_its_line() {
    let folder = TempDir::new().expect("a folder");
    for (text, expected) in [
        ("\n# none\n", "expected at least one token"),
        ("canary-short", "expected 16 to 512 letters, digits and -._~+/ with = at the end (RFC 6750) in line 1"),
        ("canary-0123456789\ncanary-0123456789", "expected each token once, and not again in line 2"),
    ] {
        write(folder.path(), "tokens", text);
        let file = folder.path().join("tokens").display().to_string();
        let checked = output(&["check-config"], &[("SIDECAR_ADMIN__TOKENS_FILE", file.as_str())]).await;
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(64), "{said}");
        assert!(said.contains(&format!("admin.tokens_file: {file}, {expected}")), "{said}");
        assert_silent("what check-config says", said.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_comes_out_of_any_outlet_whoever_repeats_it() {
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), "tokens", &format!("{READER}\n{WRITER} write\n"));
    let file = folder.path().join("tokens").display().to_string();
    let receiver = RawReceiver::start().await;
    let endpoint = format!("http://{}", receiver.address);
    let environment = [
        ("SIDECAR_ADMIN__TOKENS_FILE", file.as_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("SIDECAR_TELEMETRY__PRIVACY__QUERY", "true"),
        ("SIDECAR_LOG__LEVEL", "debug"),
    ];
    let printed = output(&["print-config"], &environment).await;
    assert!(String::from_utf8_lossy(&printed.stdout).contains("tokens: \"***\""));
    assert_silent("print-config", &printed.stdout);
    let sidecar = Sidecar::start(echo_application().await, &[], &environment).await;
    let body = json!({"name": format!("harmlesstask {READER}"), "task_id": WRITER}).to_string();
    let (begun, _, answer) = call(sidecar.admin, &format!("POST {TASKS}"), Some(WRITER), &body).await;
    assert_eq!(begun, 201);
    assert_silent("the answer about a task", answer.as_bytes());
    for target in [format!("/{READER}/x"), format!("/harmless?note={WRITER}")] {
        get(sidecar.proxy, &target).await.expect("the proxy answers");
    }
    let (_, _, description) = call(sidecar.admin, "GET /openapi.json", Some(READER), "").await;
    let description: Value = serde_json::from_str(&description).expect("JSON");
    for path in description["paths"].as_object().expect("paths").keys() {
        for token in [Some(READER), Some(WRITER), Some("canary-nobody-0123456789"), None] {
            let target = format!("GET {}?{READER}", path.replace("{item}", WRITER));
            let (_, head, body) = call(sidecar.admin, &target, token, "").await;
            assert_silent(&target.replace("canary", "…"), head.as_bytes());
            assert_silent(&target.replace("canary", "…"), body.as_bytes());
        }
    }
    let (_, _, tasks) = call(sidecar.admin, &format!("GET {TASKS}"), Some(READER), "").await;
    assert!(tasks.contains("harmlesstask"), "{tasks}");
    end(sidecar).await;
    let arrivals = receiver.arrivals();
    assert!(arrivals.iter().any(|(_, body)| String::from_utf8_lossy(body).contains("/harmless")), "nothing left");
    for (path, body) in &arrivals {
        assert_silent(path, body);
    }
}
