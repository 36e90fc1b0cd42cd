//! Tasks over real sockets: begun, told of, ended; and what is wrong harms nothing but itself.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api_port::{Answer, PATIENCE, Port, healthy};
use crate::rig::{Sidecar, echo_application};

pub(crate) const TASKS: &str = "/api/v1/monitoring/tasks";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A request with this body, that calls itself JSON, from within a span.
fn request(method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let head = "Host: localhost\r\nContent-Type: Application/JSON; charset=utf-8\r\nConnection: close";
    let head = format!("{head}\r\ntraceparent: {PARENT}");
    format!("{method} {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Sends it to the admin port of a sidecar; the status and the body of the answer.
pub(crate) async fn tell(admin: SocketAddr, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect(admin).await.expect("the port accepts");
    stream.write_all(request(method, path, &body.to_string()).as_bytes()).await.expect("the port reads");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (head[9..12].parse().expect("a status"), serde_json::from_str(body).expect("JSON"))
}

async fn begin(port: &Port, body: &Value) -> Answer {
    port.ask(&request("POST", TASKS, &body.to_string())).await
}

async fn end(port: &Port, id: &str, body: &Value) -> Answer {
    port.ask(&request("PATCH", &format!("{TASKS}/{id}"), &body.to_string())).await
}

fn id(answer: &Answer) -> String {
    assert_eq!((answer.status, answer.header("content-type")), (201, "application/json"), "{}", answer.body);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_task_is_begun_told_of_and_ended_and_ended_again_without_harm() {
    let port = Port::start(healthy()).await;
    let task_id = "59226a2a-0c5b-4f0e-8d3a-3f1f6f1f6f1f";
    let id = id(&begin(&port, &json!({"name": "video_generation", "task_id": task_id, "unknown": [1]})).await);
    assert_eq!((id.len(), &id[14..15]), (36, "7"), "{id}");

    let page = port.get(TASKS).await.json();
    assert_eq!(
        (&page["active_tasks"], &page["begun"], page["recent"].as_array().map(Vec::len)),
        (&1.into(), &1.into(), Some(0))
    );
    let running = &page["running"][0];
    assert_eq!((&running["id"], &running["name"]), (&json!(id), &json!("video_generation")));
    assert_eq!(running["task_id"], task_id);
    assert_eq!(running["trace_id"], PARENT[3..35]);
    assert!(running["age_seconds"].is_f64(), "{running}");
    assert_eq!(port.get("/api/v1/monitoring/metrics").await.json()["active_tasks"], 1);

    let failed = json!({"state": "failed", "error_type": "ValueError", "duration_seconds": 0.25});
    for _ in 0..2 {
        let answer = end(&port, &id, &failed).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"id": id, "state": "failed"})));
    }
    let late = end(&port, &id, &json!({"state": "succeeded"})).await;
    assert_eq!((late.status, &late.json()["state"]), (200, &json!("failed")));

    let page = port.get(TASKS).await.json();
    let counts = ["active_tasks", "begun", "succeeded", "failed", "lost"].map(|key| page[key].as_u64());
    assert_eq!(counts, [0, 1, 0, 1, 0].map(Some));
    let recent = &page["recent"][0];
    assert_eq!((&recent["state"], &recent["error_type"]), (&json!("failed"), &json!("ValueError")));
    assert_eq!((&recent["duration_seconds"], &recent["trace_id"]), (&json!(0.25), &json!(PARENT[3..35])));
    let metrics = port.get("/api/v1/monitoring/metrics").await.json();
    assert_eq!((&metrics["active_tasks"], &metrics["error_count"]), (&0.into(), &4.into()), "three are of the traffic");
}

#[tokio::test]
async fn what_is_wrong_with_a_beginning_is_said_and_begins_nothing() {
    let port = Port::start(healthy()).await;
    let (deep, long) =
        (format!("{{\"name\":{}", "[".repeat(10_000)), format!("{{\"name\":\"{}\"}}", "x".repeat(20_000)));
    for (body, expected) in [
        ("", "a JSON object of at most 16 KiB"),
        ("nonsense", "a JSON object of at most 16 KiB"),
        ("[]", "a JSON object of at most 16 KiB"),
        ("\"name\"", "a JSON object of at most 16 KiB"),
        ("{\"name\":\"x\"", "a JSON object of at most 16 KiB"),
        ("{\"name\":\"\\ud800\"}", "a JSON object of at most 16 KiB"),
        (&deep, "a JSON object of at most 16 KiB"),
        (&long, "a JSON object of at most 16 KiB"),
        ("{}", "name: a text"),
        ("{\"name\":null}", "name: a text"),
        ("{\"name\":5}", "name: a text"),
        ("{\"name\":[\"x\"]}", "name: a text"),
        ("{\"name\":\"\"}", "name: a text"),
        ("{\"name\":\"a\\u0000b\"}", "name: a text"),
        (&format!("{{\"name\":\"{}\"}}", "x".repeat(101)), "name: a text"),
        ("{\"name\":\"x\",\"task_id\":7}", "task_id: a text"),
        ("{\"name\":\"x\",\"task_id\":\"a b\"}", "task_id: a text"),
    ] {
        let answer = port.ask(&request("POST", TASKS, body)).await;
        let told = answer.json()["expected"].as_str().unwrap_or_default().to_owned();
        assert!(
            answer.status == 400 && told.starts_with(expected),
            "{} for {:.40}: {}",
            answer.status,
            body,
            answer.body
        );
    }
    assert_eq!(port.get(TASKS).await.json()["begun"], 0);
    id(&begin(&port, &json!({"name": "x", "task_id": null})).await);
}

#[tokio::test]
async fn what_is_wrong_with_an_end_is_said_and_ends_nothing() {
    let port = Port::start(healthy()).await;
    let id = id(&begin(&port, &json!({"name": "x"})).await);
    for (body, expected) in [
        (json!({}), "state: "),
        (json!({"state": "lost"}), "state: "),
        (json!({"state": true}), "state: "),
        (json!({"state": "failed", "error_type": 5}), "error_type: "),
        (json!({"state": "failed", "error_type": "ValueError('postgresql://u:p@h')"}), "error_type: "),
        (json!({"state": "failed", "error_type": "E".repeat(101)}), "error_type: "),
        (json!({"state": "succeeded", "duration_seconds": -1}), "duration_seconds: "),
        (json!({"state": "succeeded", "duration_seconds": 1e300}), "duration_seconds: "),
        (json!({"state": "succeeded", "duration_seconds": "1"}), "duration_seconds: "),
    ] {
        let answer = end(&port, &id, &body).await;
        let told = answer.json()["expected"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && told.starts_with(expected), "{} for {body}: {}", answer.status, answer.body);
        assert!(!answer.body.contains("postgresql"), "a client's words are not repeated: {}", answer.body);
    }
    for unknown in ["1", "017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "%00", &"x".repeat(1_000)] {
        assert_eq!(end(&port, unknown, &json!({"state": "succeeded"})).await.status, 404, "{unknown:.40}");
    }
    assert_eq!(port.get(TASKS).await.json()["active_tasks"], 1);
    assert_eq!(end(&port, &id, &json!({"state": "succeeded", "error_type": null})).await.status, 200);
}

/// A page on another site may send a form, but no JSON without asking first.
#[tokio::test]
async fn a_form_a_foreign_name_and_another_method_write_nothing() {
    let port = Port::start(healthy()).await;
    let body = r#"{"name":"x"}"#;
    let sent = |host, media| {
        let length = body.len();
        format!(
            "POST {TASKS} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{media}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    for media in ["", "Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        let answer = port.ask(&sent("localhost", media)).await;
        assert_eq!((answer.status, &answer.json()["expected"]), (415, &json!("application/json")), "{media}");
    }
    assert_eq!(port.ask(&sent("evil.example", "Content-Type: application/json\r\n")).await.status, 403);
    for (method, path, expected) in [
        ("PUT", TASKS.to_owned(), "GET or HEAD or POST"),
        ("DELETE", format!("{TASKS}/1"), "PATCH"),
        ("POST", "/status".to_owned(), "GET or HEAD"),
    ] {
        let answer = port.ask(&request(method, &path, body)).await;
        assert_eq!((answer.status, &answer.json()["expected"]), (405, &json!(expected)), "{method} {path}");
    }
    assert_eq!(port.get(TASKS).await.json()["begun"], 0);
}

#[tokio::test]
async fn a_body_that_never_ends_holds_up_nobody_and_one_that_breaks_off_begins_nothing() {
    let port = Port::start(healthy()).await;
    let unfinished = format!(
        "POST {TASKS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{\"name\":\"x\""
    );
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(port.address).await.expect("the port accepts");
        stream.write_all(unfinished.as_bytes()).await.expect("the port reads");
        open.push(stream);
    }
    id(&begin(&port, &json!({"name": "y"})).await);
    drop(open);
    let page = port.get(TASKS).await.json();
    assert_eq!((&page["begun"], &page["running"][0]["name"]), (&1.into(), &json!("y")));
}

#[tokio::test]
async fn the_page_shows_what_runs_and_what_failed_and_escapes_it() {
    let port = Port::start(healthy()).await;
    assert!(
        !port.get("/dashboard").await.body.contains("id=\"tasks\""),
        "nothing is told where there is nothing to tell"
    );
    id(&begin(&port, &json!({"name": "<b>render</b>"})).await);
    let failed = id(&begin(&port, &json!({"name": "publish"})).await);
    end(&port, &failed, &json!({"state": "failed", "error_type": "ValueError"})).await;
    let page = port.get("/dashboard").await.body;
    assert!(page.contains("<p>1 running; 0 succeeded, 1 failed, 0 lost since the start.</p>"), "{page}");
    assert!(page.contains("<th scope=\"row\">&lt;b&gt;render&lt;/b&gt;</th><td>running</td>"), "{page}");
    assert!(page.contains("<th scope=\"row\">publish</th><td>failed: ValueError</td>"), "{page}");
}

/// A client that begins and ends so many tasks over one connection; every second one fails.
async fn works(address: SocketAddr, name: String, count: u64) {
    let mut stream = TcpStream::connect(address).await.expect("the port accepts");
    let mut ask = async |method: &str, path: &str, body: Value| -> Value {
        let text = request(method, path, &body.to_string()).replace("close", "keep-alive");
        stream.write_all(text.as_bytes()).await.expect("the port reads");
        let mut answer = String::new();
        while !answer.ends_with('}') {
            let mut piece = [0; 4_096];
            let read = timeout(PATIENCE, stream.read(&mut piece)).await.expect("in time").expect("an answer");
            assert!(read > 0, "the connection ended after {answer:?}");
            answer.push_str(std::str::from_utf8(&piece[..read]).expect("UTF-8"));
        }
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        serde_json::from_str(body).expect("JSON")
    };
    for number in 0..count {
        let begun = ask("POST", TASKS, json!({"name": name})).await;
        let path = format!("{TASKS}/{}", begun["id"].as_str().unwrap_or_else(|| panic!("no id: {begun}")));
        let state = if number % 2 == 0 { "succeeded" } else { "failed" };
        assert_eq!(ask("PATCH", &path, json!({"state": state})).await["state"], state);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_tasks_at_once_is_counted_once_and_by_its_name() {
    let environment = [("SIDECAR_ADMIN__RATE_PER_PEER", "1000000"), ("SIDECAR_ADMIN__RATE", "1000000")];
    let sidecar = Sidecar::start(echo_application().await, &[], &environment).await;
    let mut clients = JoinSet::new();
    for client in 0..8 {
        clients.spawn(works(sidecar.admin, format!("kind-{}", client % 4), 100));
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client fails");
    }
    let page: Value = serde_json::from_str(&sidecar.ask(TASKS).await.1).expect("JSON");
    let counts = ["active_tasks", "begun", "succeeded", "failed", "lost"].map(|key| page[key].as_u64());
    assert_eq!(counts, [0, 800, 400, 400, 0].map(Some));
    let metrics = sidecar.metrics().await;
    for kind in 0..4 {
        for state in ["succeeded", "failed"] {
            let line =
                format!("content_factory_tasks_duration_seconds_count{{task=\"kind-{kind}\",state=\"{state}\"}} 100\n");
            assert!(metrics.contains(&line), "no {line} in {metrics}");
        }
    }
}

#[tokio::test]
async fn what_is_too_many_is_refused_or_counted_without_its_name_and_told() {
    let environment = [("SIDECAR_TASKS__MAX_OPEN", "2"), ("SIDECAR_TASKS__MAX_NAMES", "1")];
    let sidecar = Sidecar::start(echo_application().await, &[], &environment).await;
    let mut statuses = Vec::new();
    for name in ["one", "two", "three"] {
        statuses.push(tell(sidecar.admin, "POST", TASKS, &json!({ "name": name })).await.0);
    }
    assert_eq!(statuses, [201, 201, 503]);
    let metrics = sidecar.metrics().await;
    for line in [
        "content_factory_tasks_active{task=\"one\"} 1",
        "content_factory_tasks_active{otel_metric_overflow=\"true\"} 1",
        "content_factory_tasks_refused_total{reason=\"too_many_open\"} 1",
        "content_factory_tasks_refused_total{reason=\"too_many_names\"} 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "no {line} in {metrics}");
    }
    assert!(!metrics.contains("three") && !metrics.contains("\"two\""), "{metrics}");
}

#[tokio::test]
async fn a_task_that_nobody_ends_is_lost() {
    let environment = [("SIDECAR_TASKS__MAX_RUNTIME", "1s")];
    let sidecar = Sidecar::start(echo_application().await, &[], &environment).await;
    assert_eq!(tell(sidecar.admin, "POST", TASKS, &json!({"name": "one"})).await.0, 201);
    sidecar.eventually("/metrics", |_, page| page.contains("content_factory_tasks_lost_total{task=\"one\"} 1")).await;
    let page: Value = serde_json::from_str(&sidecar.ask(TASKS).await.1).expect("JSON");
    let recent = &page["recent"][0];
    assert_eq!((&recent["state"], &recent["duration_seconds"]), (&json!("lost"), &json!(1.0)));
    assert_eq!((&page["lost"], &page["active_tasks"]), (&1.into(), &0.into()));
}
