//! The configuration is read again while the sidecar works: whole or not at all, and what waits for a restart is named.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::lease::Broker;
use crate::proxy_world::{Application, Client};
use crate::publish_answers;
use crate::raw;
use crate::rig::{PATIENCE, Sidecar, echo_application};
use crate::tasks::{TASKS, tell};
use crate::telemetry_receiver::{Codings, Receiver, eventually};

const STATUS: &str = "/status";

/// A file of settings, and the sidecar that has read it.
struct Configured {
    folder: TempDir,
    sidecar: Sidecar,
}

impl Configured {
    async fn start(settings: &str) -> Self {
        Self::start_with(settings, &[]).await
    }

    async fn start_with(settings: &str, environment: &[(&str, &str)]) -> Self {
        Self::before(echo_application().await, settings, environment).await
    }

    /// The same before this application.
    async fn before(application: SocketAddr, settings: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("sidecar.yaml");
        fs::write(&file, settings).expect("a file");
        let arguments = ["--config", file.to_str().expect("a path")];
        let sidecar = Sidecar::start(application, &arguments, environment).await;
        Self { folder, sidecar }
    }

    fn write(&self, settings: &str) {
        // as editors do it, and whole
        let (next, file) = (self.folder.path().join("next"), self.folder.path().join("sidecar.yaml"));
        fs::write(&next, settings).expect("a file");
        fs::rename(next, file).expect("it takes its place");
    }

    /// Writes and says so; gives what became of it.
    async fn reload(&self, settings: &str) -> Value {
        let before = self.state().await["reloads"].as_u64().unwrap_or_default();
        self.write(settings);
        self.sidecar.signal("HUP").await;
        self.after(before).await
    }

    /// What became of the next one after so many.
    async fn after(&self, before: u64) -> Value {
        let seen = |body: &str| state_of(body)["reloads"].as_u64().is_some_and(|reloads| reloads > before);
        state_of(&self.sidecar.eventually(STATUS, |_, body| seen(body)).await)
    }

    async fn state(&self) -> Value {
        state_of(&self.sidecar.ask(STATUS).await.1)
    }

    /// A connection to the egress port.
    async fn egress(&mut self) -> raw::Client {
        raw::Client::new(self.sidecar.egress().await)
    }

    async fn services(&self) -> Vec<String> {
        let health: Value = serde_json::from_str(&self.sidecar.ask("/health").await.1).expect("JSON");
        health["services"].as_object().expect("services").keys().cloned().collect()
    }
}

fn state_of(body: &str) -> Value {
    serde_json::from_str::<Value>(body).map(|status| status["reload"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_right_configuration_is_taken_and_a_wrong_one_changes_nothing() {
    let one = Configured::start("checks: {pay: {kind: tcp, address: \"127.0.0.1:1\"}}\n").await;
    assert_eq!(one.state().await, Value::Null, "nothing to tell");
    let state = one.reload("checks: {ship: {kind: tcp, address: \"127.0.0.1:1\"}}\n").await;
    assert_eq!((&state["failures"], &state["restart_needed"], &state["problems"]), (&json!(0), &json!([]), &json!([])));
    one.sidecar.eventually("/health", |_, body| body.contains("\"ship\"") && !body.contains("\"pay\"")).await;

    let state = one.reload("checks: {other: {kind: tcp, address: 7}}\nlog: {format: loud}\nproxy: {workrs: 2}\n").await;
    let problems = state["problems"].to_string();
    assert_eq!(state["failures"], 1);
    for named in ["checks.other.address", "log.format", "proxy.workrs"] {
        assert!(problems.contains(named), "{problems}");
    }
    assert!(one.services().await.contains(&"ship".to_owned()), "what is in force is kept");
    let lines = one.sidecar.log();
    let lines: Vec<&str> = lines.lines().filter(|line| line.contains("the configuration is wrong")).collect();
    assert_eq!(lines.len(), 1, "one line: {lines:?}");
    let metrics = one.sidecar.metrics().await;
    for line in [
        "content_factory_config_reload_success 0",
        "content_factory_config_reload_failures_total 1",
        "content_factory_config_reloads_total 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    let state = one.reload("{}\n").await;
    assert_eq!((&state["failures"], &state["problems"]), (&json!(1), &json!([])));
    assert!(one.sidecar.metrics().await.contains("\ncontent_factory_config_reload_success 1\n"));
}

#[tokio::test]
async fn what_needs_a_restart_is_named_until_it_is_taken_back() {
    let one = Configured::start("proxy: {workers: 1}\n").await;
    let changed = "proxy: {workers: 1, via: me}\ntelemetry: {metrics: {interval: 7s}}\nlog: {level: debug}\n";
    let state = one.reload(changed).await;
    assert_eq!(state["restart_needed"], json!(["proxy.via", "telemetry.metrics.interval"]));
    one.sidecar.says(&["these settings were changed and need a restart", "proxy.via telemetry.metrics.interval"]).await;
    assert!(one.sidecar.metrics().await.contains("\ncontent_factory_config_restart_needed 2\n"));
    let state = one.reload("proxy: {workers: 1}\nlog: {level: debug}\n").await;
    assert_eq!(state["restart_needed"], json!([]));
}

#[tokio::test]
async fn a_changed_file_is_taken_without_a_signal() {
    let one = Configured::start("{}\n").await;
    one.write("checks: {pay: {kind: tcp, address: \"127.0.0.1:1\"}}\n");
    assert_eq!(one.after(0).await["failures"], 0);
    assert!(one.services().await.contains(&"pay".to_owned()));
}

/// As the kubelet swaps a ConfigMap: the file is a link into a folder that is a link.
#[tokio::test]
async fn a_configmap_whose_folder_is_swapped_is_taken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let version = |name: &str, settings: &str| {
        let version = folder.path().join(name);
        fs::create_dir(&version).expect("a folder");
        fs::write(version.join("sidecar.yaml"), settings).expect("a file");
        version
    };
    let swap = |version: &Path| {
        let next = folder.path().join("..data_tmp");
        symlink(version, &next).expect("a link");
        fs::rename(next, folder.path().join("..data")).expect("it takes its place");
    };
    swap(&version("..one", "{}\n"));
    let file: PathBuf = folder.path().join("sidecar.yaml");
    symlink("..data/sidecar.yaml", &file).expect("a link");
    let arguments = ["--config", file.to_str().expect("a path")];
    let sidecar = Sidecar::start(echo_application().await, &arguments, &[]).await;
    swap(&version("..two", "checks: {pay: {kind: tcp, address: \"127.0.0.1:1\"}}\n"));
    sidecar.eventually("/health", |_, body| body.contains("\"pay\"")).await;
}

#[tokio::test]
async fn the_level_of_the_log_is_taken() {
    let one = Configured::start("log: {level: warn}\n").await;
    one.reload("log: {level: \"info,content_factory_sidecar::app=debug\"}\n").await;
    one.reload("log: {level: \"info,content_factory_sidecar::app=debug\"}\n").await;
    one.sidecar.says(&["INFO", "SIGHUP"]).await;
    one.reload("log: {level: \"off\"}\n").await;
    let lines = one.sidecar.log().lines().count();
    one.reload("log: {level: \"off\"}\n").await;
    assert_eq!(one.sidecar.log().lines().count(), lines);
}

#[tokio::test]
async fn sampling_is_taken_between_two_requests() {
    let one = Configured::start("telemetry: {sampling: {ratio: 1.0}}\n").await;
    let produced = async || {
        let page = one.sidecar.metrics().await;
        let line =
            page.lines().find(|line| line.starts_with("content_factory_telemetry_produced_total{signal=\"traces\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).expect("a count")
    };
    let ask = async |times: usize| {
        for _ in 0..times {
            let mut client = Client::connect(one.sidecar.proxy).await.expect("it listens");
            client.get("/").await.expect("it reads");
            assert_eq!(client.answer().await.expect("an answer").0, 200);
        }
    };
    ask(5).await;
    let all = produced().await;
    assert!(all >= 10, "two spans of each request: {all}");
    one.reload("telemetry: {sampling: {ratio: 0.0, keep_slow: true}}\n").await;
    ask(5).await;
    let sampled = produced().await;
    assert!(sampled < all + 10, "none of five requests: {sampled} after {all}");
}

#[tokio::test]
async fn what_the_tail_keeps_is_taken() {
    let settings = |keep: bool| {
        format!("telemetry: {{sampling: {{ratio: 0.0, keep_errors: {keep}, keep_slow: false, keep_per_second: 7}}}}\n")
    };
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let one = Configured::before(nobody, &settings(false), &[]).await;
    let produced = async || {
        let page = one.sidecar.metrics().await;
        let start = "content_factory_telemetry_produced_total{signal=\"traces\"} ";
        page.lines().find_map(|line| line.strip_prefix(start)?.parse::<f64>().ok()).unwrap_or_default()
    };
    let fail = async || {
        let mut client = Client::connect(one.sidecar.proxy).await.expect("it listens");
        client.get("/").await.expect("it reads");
        assert_eq!(client.answer().await.expect("an answer").0, 503);
    };
    for _ in 0..5 {
        fail().await;
    }
    let before = produced().await;
    let state = one.reload(&settings(true)).await;
    assert_eq!(state["restart_needed"], json!([]));
    // a worker takes it with its next tick
    let deadline = Instant::now() + PATIENCE;
    while produced().await == before {
        assert!(Instant::now() < deadline, "no failure is kept");
        fail().await;
    }
    assert_eq!(before, 0.0, "and none was before");
}

#[tokio::test]
async fn a_check_that_stays_keeps_its_history_and_a_secret_that_comes_is_kept_out_of_the_log() {
    let pay = "pay: {kind: http, url: \"http://127.0.0.1:1/\", period: 1s, timeout: 500ms, failure_threshold: 1}";
    let one = Configured::start(&format!("checks: {{{pay}}}\n")).await;
    let runs = |body: &str| serde_json::from_str::<Value>(body).ok()?["streak"].as_u64();
    let page = "/api/v1/monitoring/checks/pay";
    one.sidecar.eventually(page, |_, body| runs(body).is_some_and(|runs| runs >= 2)).await;
    let secret = "ship: {kind: http, url: \"http://u:canary-of-reload@127.0.0.1:1/\", period: 1s, timeout: 500ms}";
    one.reload(&format!("log: {{level: debug}}\nchecks: {{{pay}, {secret}}}\n")).await;
    let body = one.sidecar.eventually("/health", |_, body| body.contains("\"ship\"")).await;
    assert!(body.contains("pay check failed"), "its result is there at once: {body}");
    assert!(runs(&one.sidecar.ask(page).await.1).is_some_and(|runs| runs >= 2), "and its runs");
    one.sidecar.eventually("/health", |_, body| body.contains("ship check failed")).await;
    let checks = one.sidecar.ask("/api/v1/monitoring/checks").await.1;
    assert!(!one.sidecar.log().contains("canary-of-reload") && !checks.contains("canary-of-reload"));
}

#[tokio::test]
async fn the_questions_to_a_database_are_taken() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("sqlite://{}", folder.path().join("shop.db").display());
    let run = async |statement: &'static str| {
        use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
        let options: SqliteConnectOptions = url.parse().expect("a URL");
        let mut file = options.create_if_missing(true).connect().await.expect("a file");
        sqlx::query(statement).execute(&mut file).await.expect("a statement");
        file.close().await.expect("it closes");
    };
    run("CREATE TABLE products (id INTEGER PRIMARY KEY, created_at TEXT)").await;
    let one = Configured::start_with("database: {period: 1h}\n", &[("DATABASE_URL", &url)]).await;
    let rows = |body: &str| serde_json::from_str::<Value>(body).ok()?["database_stats"]["products"].as_u64();
    one.sidecar.eventually(STATUS, |_, body| rows(body) == Some(0)).await;
    run("INSERT INTO products VALUES (1, '2026-11-30 12:00:00')").await;
    one.reload("database: {period: 1s}\n").await;
    one.sidecar.eventually(STATUS, |_, body| rows(body) == Some(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_of_celery_are_taken() {
    let broker = Broker::start();
    let one = Configured::start_with("celery: {queues: [celery]}\n", &[("REDIS_URL", &broker.sidecars_url())]).await;
    let shows = |body: &str, name: &str| body.contains(&format!("\"name\":\"{name}\""));
    let queues = "/api/v1/monitoring/queues";
    one.sidecar.eventually(queues, |_, body| shows(body, "celery")).await;
    let state = one.reload("celery: {queues: [celery, main-queue], period: 1s, event_exchange: other}\n").await;
    assert_eq!(state["restart_needed"], json!(["celery.event_exchange"]));
    one.sidecar.eventually(queues, |_, body| shows(body, "main-queue")).await;
    let page: Value = serde_json::from_str(&one.sidecar.ask(queues).await.1).expect("JSON");
    assert_eq!((&page["gaps"], &page["events"]["state"]), (&json!(0), &json!("up")), "what is heard goes on");
}

#[tokio::test]
async fn a_hangup_while_it_drains_harms_nothing() {
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut client = Client::connect(sidecar.proxy).await.expect("it listens");
    client.get("/hold").await.expect("it reads");
    application.connections_become(1).await;
    sidecar.signal("TERM").await;
    sidecar.says(&["draining"]).await;
    for _ in 0..3 {
        sidecar.signal("HUP").await;
    }
    drop(client);
    assert_eq!(sidecar.ended().await, Some(0));
}

#[tokio::test]
async fn without_a_file_a_hangup_reads_what_there_is_and_changes_nothing() {
    let sidecar = Sidecar::start(echo_application().await, &[], &[]).await;
    sidecar.signal("HUP").await;
    let state = state_of(&sidecar.eventually(STATUS, |_, body| !state_of(body).is_null()).await);
    assert_eq!((&state["failures"], &state["restart_needed"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn limits_of_the_proxy_hold_from_the_next_request_on() {
    let one = Configured::start("proxy: {limits: {body: 0}}\n").await;
    let post = async || {
        let mut client = Client::connect(one.sidecar.proxy).await.expect("it listens");
        client.send(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nabcdefgh").await.expect("it reads");
        client.answer().await.expect("an answer").0
    };
    assert_eq!(post().await, 200);
    let state = one.reload("proxy: {limits: {body: 4, in_flight: 7, head: 8KiB}}\n").await;
    assert_eq!(state["restart_needed"], json!(["proxy.limits.head"]));
    assert_eq!(post().await, 413);
    one.reload("proxy: {limits: {body: 8}}\n").await;
    assert_eq!(post().await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn privacy_holds_from_the_next_span_on() {
    let receiver = Receiver::grpc(Codings::All, Arc::default()).await;
    let otlp = format!("http://{}", receiver.address);
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.as_str())];
    let one = Configured::start_with("telemetry: {privacy: {query: true}}\n", &environment).await;
    let ask = async |target: &str| {
        let mut client = Client::connect(one.sidecar.proxy).await.expect("it listens");
        client.get(target).await.expect("it reads");
        assert_eq!(client.answer().await.expect("an answer").0, 200);
    };
    let queries = || {
        receiver.with(|seen| {
            let attributes = seen.spans.iter().filter(|span| span.kind == 2).flat_map(|span| &span.attributes);
            attributes
                .filter(|pair| pair.key == "url.query")
                .map(|pair| format!("{:?}", pair.value))
                .collect::<Vec<_>>()
        })
    };
    let spans = || receiver.with(|seen| seen.spans.iter().filter(|span| span.kind == 2).count());
    ask("/?told=1").await;
    one.reload("telemetry: {privacy: {query: false}}\n").await;
    ask("/?kept=1").await;
    eventually("both spans", PATIENCE, || spans() == 2).await;
    let queries = queries();
    assert!(queries.len() == 1 && queries[0].contains("told=1"), "{queries:?}");
}

#[tokio::test]
async fn access_to_the_admin_port_is_taken() {
    let one = Configured::start("{}\n").await;
    assert_eq!(one.sidecar.ask("/dashboard").await.0, 200);
    one.write("admin: {tokens: canary-of-the-admin-port}\n");
    one.sidecar.signal("HUP").await;
    one.sidecar.eventually("/dashboard", |status, _| status == 401).await;
    one.write("{}\n");
    one.sidecar.signal("HUP").await;
    one.sidecar.eventually("/dashboard", |status, _| status == 200).await;
    assert_eq!(one.state().await["restart_needed"], json!([]));
    assert!(!one.sidecar.log().contains("canary-of-the-admin-port"));
}

#[tokio::test]
async fn deadlines_of_the_proxy_hold_for_waits_that_begin_later() {
    let one = Configured::start("proxy: {timeouts: {header: 1h, client_idle: 1h}}\n").await;
    let state = one.reload("proxy: {timeouts: {header: 300ms, client_idle: 200ms}}\n").await;
    assert_eq!(state["restart_needed"], json!([]));
    let mut slow = Client::connect(one.sidecar.proxy).await.expect("it listens");
    slow.send(b"GET /a HTTP/1.1\r\nHo").await.expect("it reads");
    assert_eq!(slow.answer().await.expect("an answer").0, 408);
    let mut idle = Client::connect(one.sidecar.proxy).await.expect("it listens");
    idle.get("/once").await.expect("it reads");
    assert_eq!(idle.answer().await, Some((200, true)));
    assert!(idle.closed_by_fin().await, "and not an hour later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_taps_probes_and_the_words_of_publishes_are_taken() {
    let off = "traffic: {routes: {enabled: false}}\n";
    let one = Configured::before(publish_answers::application(), off, &[]).await;
    let ask = async |target: &str| {
        let mut client = Client::connect(one.sidecar.proxy).await.expect("it listens");
        client.get(target).await.expect("it reads");
        assert_eq!(client.answer().await.expect("an answer").0, 200);
    };
    ask("/social-media/publish-video/7").await;
    let page = one.sidecar.metrics().await;
    assert!(!page.contains("http_route=") && !page.contains(publish_answers::ANSWERS), "{page}");

    let route = publish_answers::ROUTE;
    let words = "database: {business: {published: [failed], failed: [published]}}";
    let state = one.reload(&format!("proxy: {{taps: [\"{route}\"], probe_paths: [/other/7]}}\n{words}\n")).await;
    assert_eq!(state["restart_needed"], json!([]));
    one.sidecar.says(&["route templates read"]).await;
    ask("/social-media/publish-video/7").await;
    ask("/other/7").await;
    let page = one.sidecar.metrics().await;
    let counted = |outcome: &str, count: u64| format!("{}{{outcome=\"{outcome}\"}} {count}", publish_answers::ANSWERS);
    for line in [counted("published", 1), counted("failed", 2)] {
        assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
    }
    assert!(page.contains(&format!("http_route=\"{route}\"")), "{page}");
    let probes = "content_factory_http_server_probe_duration_seconds_count";
    assert!(page.lines().any(|line| line.starts_with(probes) && line.ends_with(" 1")), "{page}");

    one.reload(off).await;
    let routed = async || {
        let page = one.sidecar.metrics().await;
        let counts = page.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count{"));
        let counts = counts.filter(|line| line.contains("http_route="));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = routed().await;
        ask("/social-media/publish-video/7").await;
        if routed().await == before {
            break; // it has no route any more
        }
        assert!(Instant::now() < deadline, "routes are known although they are switched off");
    }
}

#[tokio::test]
async fn the_bounds_of_tasks_are_taken_and_those_that_are_open_stay() {
    let one = Configured::start("tasks: {max_open: 1}\n").await;
    let begin = async || tell(one.sidecar.admin, "POST", TASKS, &json!({"name": "video_generation"})).await;
    let (status, first) = begin().await;
    assert_eq!((status, begin().await.0), (201, 503));
    let state = one.reload("tasks: {max_open: 2}\n").await;
    assert_eq!(state["restart_needed"], json!([]));
    assert_eq!((begin().await.0, begin().await.0), (201, 503));
    let path = format!("{TASKS}/{}", first["id"].as_str().expect("an id"));
    assert_eq!(tell(one.sidecar.admin, "PATCH", &path, &json!({"state": "succeeded"})).await.0, 200);
}

/// Calls the AI service by the egress port; the status of the answer.
fn chat(client: &mut raw::Client) -> u16 {
    let body = r#"{"model": "gpt-5"}"#;
    let fields = format!("Host: ai\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
    client.send(format!("POST /v1/chat/completions HTTP/1.1\r\n{fields}\r\n\r\n{body}"));
    client.message().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_hold_for_calls_that_end_later() {
    let service = raw::origin(|_, mut client| {
        while client.try_message().is_some() {
            let body = r#"{"model": "gpt-5", "usage": {"prompt_tokens": 1000000, "completion_tokens": 0}}"#;
            let fields = format!("Content-Type: application/json\r\nContent-Length: {}", body.len());
            client.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}"));
        }
    });
    let service = format!("http://{service}");
    let settings = |prices: &str| {
        format!("egress: {{enabled: true, listen: \"127.0.0.1:0\", upstream: \"{service}\", prices: {{{prices}}}}}\n")
    };
    let mut one = Configured::start(&settings("gpt-4: 1/1")).await;
    let mut client = one.egress().await;
    let mut call = || assert_eq!(chat(&mut client), 200);
    let calls = |page: &str, count: &str| {
        let durations = "gen_ai_client_operation_duration_seconds_count{";
        page.lines().any(|line| line.starts_with(durations) && line.ends_with(count))
    };
    call();
    let page = one.sidecar.eventually("/metrics", |_, page| calls(page, " 1")).await;
    assert!(!page.contains("estimated_cost"), "{page}");
    let state = one.reload(&settings("gpt-5: 2/8")).await;
    assert_eq!(state["restart_needed"], json!([]));
    call();
    let page = one.sidecar.eventually("/metrics", |_, page| calls(page, " 2")).await;
    let cost = page.lines().find(|line| line.starts_with("content_factory_gen_ai_estimated_cost_total{"));
    assert!(cost.is_some_and(|line| line.ends_with(" 2")), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_long_an_ai_service_may_take_and_which_of_its_calls_become_spans_is_taken() {
    let receiver = Receiver::grpc(Codings::All, Arc::default()).await;
    let otlp = format!("http://{}", receiver.address);
    let service = raw::origin(|_, mut client| {
        let mut calls = 0;
        while client.try_message().is_some() {
            calls += 1;
            if calls == 3 {
                client.rest(); // it has nothing to say any more, and keeps the connection
                return;
            }
            client.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
        }
    });
    let settings = |ratio: u8, rest: &str| {
        format!(
            "egress: {{enabled: true, listen: \"127.0.0.1:0\", upstream: \"http://{service}\"{rest}}}\n\
             telemetry: {{sampling: {{ratio: {ratio}}}}}\n"
        )
    };
    let mut one = Configured::start_with(&settings(0, ""), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &otlp)]).await;
    let mut client = one.egress().await;
    assert_eq!(chat(&mut client), 200);
    one.reload(&settings(1, "")).await;
    assert_eq!(chat(&mut client), 200);
    let calls = || receiver.with(|seen| seen.spans.iter().filter(|span| span.name.starts_with("chat")).count());
    eventually("a span of the second call", PATIENCE, || calls() > 0).await;
    assert_eq!(calls(), 1, "and of no other");
    let state = one.reload(&settings(1, ", read_timeout: 200ms, connect_timeout: 1s")).await;
    assert_eq!(state["restart_needed"], json!([]));
    // on a connection of the new way: its third call is the first one there, so it takes three of them
    let statuses = [chat(&mut client), chat(&mut client), chat(&mut client)];
    assert_eq!(statuses, [200, 200, 504], "a service that says nothing is given up after the time of now");
}
