//! Own checks by the binary: read from a file, shown and run over the admin port, and never in each other's way.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Sender, channel};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::checks_services::black_hole;
use crate::port::Port;
use crate::rig::{PATIENCE, Sidecar, echo_application, output};

/// A sidecar of this file.
async fn sidecar(yaml: &str) -> (Sidecar, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, yaml).expect("a file in a new folder");
    let path = file.display().to_string();
    (Sidecar::start(echo_application().await, &["--config", &path], &[]).await, folder)
}

/// A POST without a body: the status and the answer.
async fn post(address: SocketAddr, target: &str, headers: &str) -> (u16, Value) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("the admin port accepts");
        let head = format!("POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n");
        stream.write_all(format!("{head}{headers}\r\n").as_bytes()).await.expect("the admin port reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the admin port answers");
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer in time");
    let status = answer.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").expect("a whole head").1;
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until a check is as wanted.
pub(crate) async fn until(sidecar: &Sidecar, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let target = format!("/api/v1/monitoring/checks/{name}");
    json(&sidecar.eventually(&target, |status, body| status == 200 && wanted(&json(body))).await)
}

/// The value of a series on the page of metrics.
fn series(page: &str, start: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(start));
    line.and_then(|rest| rest.split(' ').next_back()?.parse().ok()).unwrap_or(0.0)
}

/// A server that holds each request until it is let go.
struct Holding {
    address: SocketAddr,
    /// Requests so far.
    asked: watch::Receiver<usize>,
    release: Sender<()>,
}

impl Holding {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
        let address = listener.local_addr().expect("a bound listener");
        let ((release, released), (count, asked)) = (channel(), watch::channel(0));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4_096]);
                count.send_modify(|asked| *asked += 1);
                if released.recv().is_err() {
                    return;
                }
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            }
        });
        Self { address, asked, release }
    }
}

#[tokio::test]
async fn own_checks_stand_behind_the_application_in_the_order_of_the_file_in_both_forms() {
    let hole = black_hole();
    let map = format!(
        "checks:\n  zebra: {{kind: tcp, address: \"{hole}\"}}\n  redis: {{period: 7s}}\n  ant: {{kind: dns, host: localhost}}\n"
    );
    let list = format!(
        "checks:\n  - {{name: zebra, kind: tcp, address: \"{hole}\"}}\n  - {{name: redis, period: 7s}}\n  - name: ant\n    kind: dns\n    host: localhost\n"
    );
    for yaml in [map, list] {
        let (sidecar, _folder) = sidecar(&yaml).await;
        let healthy = |body: &str, name: &str| json(body)["services"][name]["status"] == "healthy";
        let body = sidecar.eventually("/health", |_, body| healthy(body, "zebra") && healthy(body, "ant")).await;
        let health = json(&body);
        let names: Vec<&String> = health["services"].as_object().expect("services").keys().collect();
        let expected = ["database", "redis", "external_api", "ai_services", "application", "zebra", "ant"];
        assert_eq!(names, expected);
        assert_eq!(health["services"]["zebra"]["message"], "zebra check successful");
        let redis = json(&sidecar.ask("/api/v1/monitoring/checks/redis").await.1);
        assert_eq!((&redis["period_seconds"], &redis["kind"]), (&Value::from(7.0), &Value::from("redis")));
    }
}

#[tokio::test]
async fn every_mistake_of_own_checks_is_told_at_once_with_what_was_found_and_expected() {
    let yaml = "checks:\n  a: {kind: htp, url: http://x/}\n  b: {kind: tcp, address: nowhere, period: 1}\n  c: {kind: http}\n  \
                d: {kind: heartbeat, max_silence: soon}\n  e: {kind: sql, url: \"mysql://root:canary-canary@x/y\"}\n  \
                f: {kind: tcp, address: \"x:1\", depends_on: [g]}\n  \
                h: {kind: tcp, address: \"x:1\", depends_on: [i]}\n  i: {kind: tcp, address: \"x:1\", depends_on: [h]}\n  \
                \"j k\": {kind: tcp}\n  l: {kind: tcp, address: \"x:1\", maintenance: [always], adress: x}\n  \
                m: {kind: exec, command: [\"true\"]}\n  n: {kind: app, period: 10s, timeout: 1s}\n  o: {kind: composite, all: [zz]}\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, yaml).expect("a file in a new folder");
    let output = output(&["check-config", "--config", &file.display().to_string()], &[]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    for expected in [
        "the configuration has 14 mistakes:",
        "checks.a.kind: htp, expected one of http, tcp, tls, dns, grpc, sql, redis, ai, ai_calls, heartbeat, env, composite, exec, app, loop_lag",
        "checks.b.address: nowhere, expected a host and a port such as db.internal:5432",
        "checks.b.period: 1, expected a duration such as 250ms, 2s or 5m",
        "checks.c.url: nothing, expected a URL such as https://api.example.com/health, not of a link-local address",
        "checks.d.max_silence: soon, expected a duration",
        "checks.e.url: ***, expected a URL such as postgresql://",
        "checks.f.depends_on: g, expected names of other checks",
        "checks.h.depends_on: i, expected checks that do not wait for each other",
        "checks.j k: j k, expected a name of letters, digits, _ and - that begins with a letter, at most 64",
        "checks.l.maintenance: always, expected times in UTC such as 02:00-03:30 or Sun 23:00-01:00",
        "checks.m.kind: exec, expected health.allow_exec: true, or another kind",
        "checks.n.period: 10s, expected 60s or more: each call holds the application up",
        "checks.o.all: zz, expected names of other checks",
        "checks.l.adress: unknown key, expected no such key, perhaps checks.l.address",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing in:\n{said}");
    }
    assert!(!said.contains("canary-canary"), "{said}");
}

#[tokio::test]
async fn every_example_of_the_pages_is_a_configuration() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = |name: &str| std::fs::read_to_string(root.join(name)).expect("a page");
    let readme = page("README.md");
    let recipe = readme.split("\n## Checks of your own\n").nth(1).and_then(|rest| rest.split("```").nth(1));
    let mut yaml = recipe.and_then(|block| block.strip_prefix("yaml\n")).expect("a block of YAML").to_owned();
    yaml += "  cache-a: {kind: tcp, address: \"a:1\"}\n  cache-b: {kind: tcp, address: \"b:1\"}\n";
    let table = page("docs/checks.md");
    let examples = table.split('`').filter(|part| part.starts_with("{kind: ") && !part.contains("_file: /run"));
    let examples: Vec<&str> = examples.filter(|part| !part.contains('…')).collect();
    assert!(examples.len() >= 10, "{examples:?}");
    for (turn, example) in examples.iter().enumerate() {
        yaml += &format!("  example{turn}: {example}\n");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, format!("health: {{allow_exec: true}}\n{yaml}")).expect("a file in a new folder");
    let output = output(&["check-config", "--config", &file.display().to_string()], &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn what_is_in_force_of_own_checks_is_printed_without_secrets_and_read_again() {
    let yaml = "checks:\n  pay: {kind: http, url: \"https://x:canary-canary@pay.example/\", expect: {status: [200], json: {/a.b: \"on\"}}}\n  \
                job: {kind: heartbeat, max_silence: 25h, depends_on: [pay]}\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, yaml).expect("a file in a new folder");
    let printed = output(&["print-config", "--config", &file.display().to_string()], &[]).await;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(
        printed.contains("  pay:\n") && printed.contains("url: \"***\"") && !printed.contains("canary"),
        "{printed}"
    );
    // the one value that a person has to put back is the secret
    std::fs::write(&file, printed.replace("url: \"***\"", "url: http://pay.example/")).expect("a file");
    let again = output(&["print-config", "--config", &file.display().to_string()], &[]).await;
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(String::from_utf8_lossy(&again.stdout), printed);
}

#[tokio::test]
async fn a_heartbeat_is_awaited_taken_and_missed() {
    let yaml = "checks:\n  import: {kind: heartbeat, max_silence: 3s, period: 200ms, timeout: 100ms}\n";
    let (sidecar, _folder) = sidecar(yaml).await;
    let beat = "/api/v1/monitoring/heartbeat/import";
    until(&sidecar, "import", |check| check["message"] == "no heartbeat yet" && check["status"] == "unknown").await;
    assert_eq!(post(sidecar.admin, beat, "").await.0, 200);
    until(&sidecar, "import", |check| check["status"] == "healthy").await;
    let silent = until(&sidecar, "import", |check| check["status"] == "unhealthy").await;
    assert_eq!(silent["message"], "import check failed: silent");
    assert_eq!(json(&sidecar.ask("/health").await.1)["services"]["import"]["message"], "import check failed: silent");
    assert_eq!(post(sidecar.admin, beat, "").await.0, 200);
    until(&sidecar, "import", |check| check["status"] == "healthy").await;
    let (status, body) = post(sidecar.admin, "/api/v1/monitoring/heartbeat/export", "").await;
    assert_eq!((status, &body["error"]), (404, &Value::from("no such heartbeat")));
    assert_eq!(post(sidecar.admin, beat, "Origin: http://evil.example\r\n").await.0, 403);
    assert_eq!(sidecar.ask(beat).await.0, 405);
}

/// Who asks for a run, and who asks while the peer holds it; then it is let go.
async fn two_who_ask(
    sidecar: &Sidecar,
    run: &str,
    asked: &mut watch::Receiver<usize>,
    release: &Sender<()>,
) -> [(u16, Value); 2] {
    let before = *asked.borrow();
    let second = async {
        timeout(PATIENCE, asked.wait_for(|asked| *asked > before))
            .await
            .expect("a run in time")
            .expect("the peer is there");
        let let_go = async {
            for _ in 0..10 {
                sidecar.ask("/livez").await; // the second is on its way by then
            }
            release.send(()).expect("the peer holds the request");
        };
        tokio::join!(post(sidecar.admin, run, ""), let_go).0
    };
    <[_; 2]>::from(tokio::join!(post(sidecar.admin, run, ""), second))
}

#[tokio::test]
async fn a_run_that_is_asked_for_is_made_once_for_all_who_ask() {
    let Holding { address, mut asked, release } = Holding::start();
    let yaml = format!(
        "checks:\n  pay: {{kind: http, url: \"http://{address}/\", period: 1h, timeout: 15s, initial_delay: 30m}}\n"
    );
    let (sidecar, _folder) = sidecar(&yaml).await;
    let before = json(&sidecar.ask("/api/v1/monitoring/checks/pay").await.1);
    assert_eq!((&before["status"], &before["age_seconds"]), (&Value::from("unknown"), &Value::Null));
    let run = "/api/v1/monitoring/checks/pay/run";
    for runs in 1.. {
        let [first, second] = two_who_ask(&sidecar, run, &mut asked, &release).await;
        assert_eq!(
            (first.0, &first.1["run"], &first.1["status"]),
            (200, &Value::from("made"), &Value::from("healthy"))
        );
        assert_eq!(
            (second.0, *asked.borrow(), &second.1["streak"]),
            (200, runs, &Value::from(runs)),
            "one run for both"
        );
        if second.1["run"] == "joined" {
            break;
        }
        // a machine so busy that the second was read when the run had just ended
        assert!(second.1["run"] == "recent" && runs < 5, "nobody joined a run: {}", second.1);
        until(&sidecar, "pay", |check| check["age_seconds"].as_f64() > Some(1.5)).await;
    }
    assert_eq!(post(sidecar.admin, "/api/v1/monitoring/checks/nobody/run", "").await.0, 404);
    assert_eq!(post(sidecar.admin, "/api/v1/monitoring/checks/database/run", "").await.0, 409);
    assert_eq!(sidecar.ask(run).await.0, 405);
    assert_eq!(sidecar.ask("/api/v1/monitoring/checks/nobody").await.0, 404);
}

#[tokio::test]
async fn peers_that_never_answer_leave_all_other_checks_and_health_on_time() {
    let hole = black_hole();
    let mut yaml = String::from("checks:\n");
    for number in 0..20 {
        let url = if number % 2 == 0 { format!("redis://{hole}/0") } else { format!("postgresql://u@{hole}/x") };
        let kind = if number % 2 == 0 { "redis" } else { "sql" };
        yaml += &format!("  hang{number}: {{kind: {kind}, url: \"{url}\", period: 1100ms, timeout: 1s}}\n");
    }
    yaml += &format!("  live: {{kind: tcp, address: \"{hole}\", period: 100ms, timeout: 90ms}}\n");
    let (sidecar, _folder) = sidecar(&yaml).await;
    let failures = |page: &str| series(page, "content_factory_check_runs_total{check=\"hang19\",status=\"unhealthy\"}");
    let page = sidecar.eventually("/metrics", |_, page| failures(page) >= 4.0).await;
    // each of those four runs took a second, and in a second there are ten turns
    let turns: f64 = ["healthy", "degraded", "unhealthy"]
        .iter()
        .map(|status| series(&page, &format!("content_factory_check_runs_total{{check=\"live\",status=\"{status}\"}}")))
        .sum();
    assert!(turns >= 12.0, "{turns} runs of the live check meanwhile");
    assert_eq!(sidecar.ask("/health").await.0, 200);
    let live = json(&sidecar.ask("/api/v1/monitoring/checks/live").await.1);
    assert!(live["age_seconds"].as_f64().expect("it has run") < 10.0, "{live}");
}

#[tokio::test]
async fn a_check_whose_dependency_is_down_waits_and_alarms_nobody() {
    let nobody = Port::reserve();
    let pace = "period: 200ms, timeout: 190ms";
    let yaml = format!(
        "checks:\n  net: {{kind: tcp, address: \"{address}\", {pace}}}\n  \
         pay: {{kind: tcp, address: \"{address}\", depends_on: [net], {pace}, failure_threshold: 1}}\n  \
         far: {{kind: tcp, address: \"{address}\", depends_on: [pay], {pace}, initial_delay: 3s}}\n",
        address = nobody.address()
    );
    let (sidecar, _folder) = sidecar(&yaml).await;
    until(&sidecar, "net", |check| check["status"] == "unhealthy").await;
    let pay = until(&sidecar, "pay", |check| check["waits_for"] == "net").await;
    assert_eq!((&pay["status"], &pay["message"]), (&Value::from("unknown"), &Value::from("waits for net")));
    let far = until(&sidecar, "far", |check| check["waits_for"] == "pay").await;
    assert_eq!((&far["result"], &far["checked_at"]), (&Value::from("unknown"), &Value::Null), "it was never run");
    let _back = TcpListener::bind(nobody.address()).expect("the port is kept for us");
    for name in ["net", "pay", "far"] {
        let check = until(&sidecar, name, |check| check["status"] == "healthy").await;
        assert_eq!(check["waits_for"], Value::Null);
    }
}

#[tokio::test]
async fn results_that_change_too_often_are_flapping_and_in_maintenance_nothing_alarms() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        for (turn, mut stream) in listener.incoming().flatten().enumerate() {
            let _ = stream.read(&mut [0; 4_096]);
            let status = if turn % 2 == 0 { "204 No Content" } else { "503 Service Unavailable" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    let nobody = Port::reserve();
    let yaml = format!(
        "checks:\n  moody: {{kind: http, url: \"http://{address}/\", period: 500ms, timeout: 490ms, failure_threshold: 20}}\n  \
         away: {{kind: tcp, address: \"{}\", period: 200ms, timeout: 190ms, failure_threshold: 1, maintenance: [\"00:00-24:00\"]}}\n",
        nobody.address()
    );
    let (sidecar, _folder) = sidecar(&yaml).await;
    let moody = until(&sidecar, "moody", |check| check["flapping"] == true).await;
    assert_eq!(moody["status"], "degraded", "{moody}");
    assert!(moody["message"].as_str().expect("words").ends_with(", but its results change too often"), "{moody}");
    let away = until(&sidecar, "away", |check| check["streak"].as_u64() >= Some(3)).await;
    assert_eq!((&away["status"], &away["result"]), (&Value::from("unknown"), &Value::from("unhealthy")));
    assert_eq!((&away["message"], &away["in_maintenance"]), (&Value::from("in maintenance"), &Value::from(true)));
    assert_eq!((&away["uptime_24h_ratio"], &away["last_ok"]), (&Value::Null, &Value::Null));
    let page = sidecar.metrics().await;
    assert!(page.contains("content_factory_check_flapping{check=\"moody\"} 1"), "{page}");
}
