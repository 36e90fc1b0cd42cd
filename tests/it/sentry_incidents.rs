//! Tasks that failed, and exceptions that the application logged, as issues at Sentry: one for each kind, linked to its trace,
//! never too many, and never with the text of an exception.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::intake_world::{Answer, post, sidecar};
use crate::rig::Sidecar;
use crate::sentry_project::Project;
use crate::tasks::{TASKS, tell};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";
const ERROR: u64 = 17;

/// A sidecar that tells this project, and the address of its intake.
async fn telling(project: &Project, more: &[(&str, &str)]) -> (Sidecar, SocketAddr) {
    let dsn = project.dsn();
    let environment =
        [&[("SENTRY_DSN", dsn.as_str()), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")], more].concat();
    let (sidecar, [_, http]) = sidecar(&environment).await;
    (sidecar, http)
}

async fn delivered(sidecar: &Sidecar, count: usize) {
    let line = format!("content_factory_telemetry_delivered_total{{signal=\"envelopes\"}} {count}\n");
    sidecar.eventually("/metrics", move |_, page| page.contains(&line)).await;
}

async fn left_out(sidecar: &Sidecar, count: usize) {
    let line = format!("content_factory_sentry_left_out_total {count}\n");
    sidecar.eventually("/metrics", move |_, page| page.contains(&line)).await;
}

/// Begins a task and ends it.
async fn run_task(sidecar: &Sidecar, task: Value, end: Value) {
    let (status, begun) = tell(sidecar.admin, "POST", TASKS, &task).await;
    assert_eq!(status, 201, "{begun}");
    let path = format!("{TASKS}/{}", begun["id"].as_str().expect("an id"));
    assert_eq!(tell(sidecar.admin, "PATCH", &path, &end).await.0, 200);
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// A log record that tells of an exception.
fn record(severity: u64, class: &str, text: &str) -> Value {
    let stack = format!(
        "Traceback (most recent call last):\n  File \"/app/routes.py\", line 12, in publish\n    render(video)\n  \
         File \"/app/render.py\", line 31, in render\n    raise {class}(\"{text}\")\n{class}: {text}\n"
    );
    json!({
        "severityNumber": severity,
        "timeUnixNano": "1800000000000000000",
        "traceId": TRACE,
        "spanId": SPAN,
        "body": {"stringValue": text},
        "attributes": [
            attribute("exception.type", class),
            attribute("exception.message", text),
            attribute("exception.stacktrace", &stack),
        ],
    })
}

async fn log(intake: SocketAddr, records: &[Value]) -> Answer {
    let scope = json!({"name": "factory.render"});
    let request = json!({"resourceLogs": [{"scopeLogs": [{"scope": scope, "logRecords": records}]}]});
    post(intake, "/v1/logs", &[("content-type", "application/json")], request.to_string().into_bytes()).await
}

#[tokio::test]
async fn a_task_that_fails_is_one_issue_of_its_name_and_class_linked_to_its_trace() {
    let project = Project::start(&[]).await;
    let (sidecar, _) = telling(&project, &[]).await;
    let failed = |class: &str| json!({"state": "failed", "error_type": class});
    for _ in 0..5 {
        run_task(&sidecar, json!({"name": "video_generation"}), failed("ValueError")).await;
    }
    run_task(&sidecar, json!({"name": "video_generation"}), failed("KeyError")).await;
    run_task(&sidecar, json!({"name": "publishing"}), json!({"state": "failed"})).await;
    run_task(&sidecar, json!({"name": "publishing"}), json!({"state": "succeeded"})).await;
    delivered(&sidecar, 5).await;
    left_out(&sidecar, 2).await;
    let events = project.events();
    let prints: Vec<&Value> = events.iter().map(|event| &event["fingerprint"]).collect();
    let of = |name: &str, class: &str| json!(["task", name, "failed", class]);
    let first = of("video_generation", "ValueError");
    assert_eq!(prints, [&first, &first, &first, &of("video_generation", "KeyError"), &of("publishing", "")]);
    let event = &events[0];
    assert_eq!(
        (&event["exception"]["values"][0]["type"], &event["transaction"]),
        (&"ValueError".into(), &"video_generation".into())
    );
    assert_eq!(
        (&event["tags"]["task"], &event["tags"]["task.outcome"]),
        (&"video_generation".into(), &"failed".into())
    );
    // the request that began it was in this span
    assert_eq!(
        (&event["contexts"]["trace"]["trace_id"], &event["contexts"]["trace"]["span_id"]),
        (&TRACE.into(), &SPAN.into())
    );
    assert_eq!(events[4]["exception"]["values"][0]["type"], "task failed");
}

#[tokio::test]
async fn a_task_whose_end_nobody_tells_is_an_issue() {
    let project = Project::start(&[]).await;
    let (sidecar, _) = telling(&project, &[("SIDECAR_TASKS__MAX_RUNTIME", "1s")]).await;
    let (status, _) = tell(sidecar.admin, "POST", TASKS, &json!({"name": "publishing"})).await;
    assert_eq!(status, 201);
    delivered(&sidecar, 1).await;
    let event = &project.events()[0];
    assert_eq!(event["fingerprint"], json!(["task", "publishing", "lost", ""]));
    assert_eq!(event["exception"]["values"][0]["type"], "task lost");
}

#[tokio::test]
async fn a_logged_exception_is_one_issue_of_its_class_its_logger_and_its_frame_and_holds_no_text() {
    let project = Project::start(&[]).await;
    let (sidecar, intake) = telling(&project, &[]).await;
    // another text each time, and another line
    let records: Vec<Value> =
        (0..5).map(|number| record(ERROR, "ValueError", &format!("order {number} of canary"))).collect();
    assert_eq!(log(intake, &records).await.status, 200);
    let quiet = [
        record(13, "ValueError", "a warning"),
        json!({"severityNumber": ERROR, "body": {"stringValue": "no exception"}}),
    ];
    assert_eq!(log(intake, &quiet).await.status, 200);
    assert_eq!(log(intake, &[record(21, "KeyError", "of canary")]).await.status, 200);
    delivered(&sidecar, 4).await;
    left_out(&sidecar, 2).await;
    let events = project.events();
    let print = |class: &str| json!(["log", class, "factory.render", "render /app/render.py"]);
    let prints: Vec<Value> = events.iter().map(|event| event["fingerprint"].clone()).collect();
    assert_eq!(prints, [print("ValueError"), print("ValueError"), print("ValueError"), print("KeyError")]);
    let event = &events[0];
    let exception = &event["exception"]["values"][0];
    assert_eq!((&exception["type"], &event["logger"]), (&"ValueError".into(), &"factory.render".into()));
    let frame = &exception["stacktrace"]["frames"][0];
    assert_eq!((&frame["function"], &frame["filename"]), (&"render".into(), &"/app/render.py".into()));
    assert_eq!(
        (&event["contexts"]["trace"]["trace_id"], &event["contexts"]["trace"]["span_id"]),
        (&TRACE.into(), &SPAN.into())
    );
    assert_eq!(event["timestamp"].as_f64(), Some(1_800_000_000.0));
    for arrival in project.arrivals() {
        let event = arrival.event.to_string();
        assert!(!event.contains("canary") && !event.contains("order"), "{event}");
    }
}

#[tokio::test]
async fn however_many_kinds_fail_at_once_sentry_hears_of_a_few_and_all_others_are_counted() {
    let project = Project::start(&[]).await;
    let (sidecar, intake) = telling(&project, &[]).await;
    for batch in 0..20 {
        let records: Vec<Value> =
            (0..25).map(|number| record(ERROR, &format!("Error{batch}x{number}"), "text")).collect();
        assert_eq!(log(intake, &records).await.status, 200);
    }
    // three of each at once, and twenty times as many of all
    delivered(&sidecar, 60).await;
    left_out(&sidecar, 440).await;
    assert_eq!(project.events().len(), 60);
}

/// A Redis that says of a worker of Celery what a test wants said.
async fn redis(events: Vec<Value>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            clients.spawn(publish(stream, events.clone()));
        }
    });
    (address, tasks)
}

async fn publish(mut stream: TcpStream, events: Vec<Value>) {
    let mut bytes = vec![0; 4_096];
    let Ok(read) = stream.read(&mut bytes).await else { return };
    if String::from_utf8_lossy(&bytes[..read]).contains("PSUBSCRIBE") {
        let mut said: String =
            (1..=3).map(|count| format!("*3\r\n$10\r\npsubscribe\r\n$1\r\np\r\n:{count}\r\n")).collect();
        let payload = json!({"body": Value::from(events).to_string()}).to_string();
        let channel = "/0.celeryev/task.multi";
        said += &format!("*4\r\n$8\r\npmessage\r\n$1\r\np\r\n${}\r\n{channel}\r\n", channel.len());
        said += &format!("${}\r\n{payload}\r\n", payload.len());
        if stream.write_all(said.as_bytes()).await.is_err() {
            return;
        }
    }
    // until the other side has enough
    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

/// What a worker tells of a task from its reception to its end.
fn course(uuid: &str, name: &str, end: &Value) -> Vec<Value> {
    let told = |kind: &str, more: &Value| {
        let mut event = json!({"type": kind, "uuid": uuid, "hostname": "w@h", "pid": 7, "timestamp": 1.0});
        let more = more.as_object().expect("an object").clone();
        event.as_object_mut().expect("an object").extend(more);
        event
    };
    let kind = end["type"].as_str().expect("a kind");
    vec![told("task-received", &json!({"name": name})), told("task-started", &json!({})), told(kind, end)]
}

#[tokio::test]
async fn a_task_of_celery_that_ends_badly_is_one_issue_whoever_tells_of_it() {
    let failed = json!({"type": "task-failed", "exception": "ValueError('canary')"});
    let bad_result =
        json!({"type": "task-succeeded", "result": "{'status': 'error', 'error': 'canary'}", "runtime": 1.0});
    let good = json!({"type": "task-succeeded", "result": "{'status': 'success'}", "runtime": 1.0});
    let told_twice = "59226a2a-0c5b-4f0e-8d3a-3f1f6f1f6f10";
    let courses = [
        course("59226a2a-0c5b-4f0e-8d3a-3f1f6f1f6f11", "factory.render", &failed),
        course("59226a2a-0c5b-4f0e-8d3a-3f1f6f1f6f12", "factory.publish", &bad_result),
        course("59226a2a-0c5b-4f0e-8d3a-3f1f6f1f6f13", "factory.publish", &good),
        course(told_twice, "factory.render", &failed),
    ];
    let (address, _redis) = redis(courses.concat()).await;
    let project = Project::start(&[]).await;
    let (sidecar, _) = telling(&project, &[("REDIS_URL", &format!("redis://{address}/0"))]).await;
    delivered(&sidecar, 3).await;
    // the same once more, by the application itself; then another one, so that its turn has come
    let failed = json!({"state": "failed", "error_type": "RenderError"});
    run_task(&sidecar, json!({"name": "video_generation", "task_id": told_twice}), failed).await;
    run_task(&sidecar, json!({"name": "another"}), json!({"state": "failed"})).await;
    delivered(&sidecar, 4).await;
    // each to the trace of the span that we make of it: they came without one
    let events = project.events();
    for (end, print) in [("11", "factory.render"), ("12", "factory.publish"), ("10", "factory.render")] {
        let trace = json!(format!("59226a2a0c5b4f0e8d3a3f1f6f1f6f{end}"));
        let event = events.iter().find(|event| event["contexts"]["trace"]["trace_id"] == trace);
        let event = event.unwrap_or_else(|| panic!("an issue in {trace}: {events:?}"));
        assert_eq!(event["contexts"]["trace"]["span_id"], json!(format!("8d3a3f1f6f1f6f{end}")), "{event}");
        assert_eq!(event["transaction"], print, "{event}");
    }
    let mut prints: Vec<Value> = events.iter().map(|event| event["fingerprint"].clone()).collect();
    prints.sort_by_key(Value::to_string);
    let rendering = json!(["task", "factory.render", "failed", "ValueError"]);
    let publishing = json!(["task", "factory.publish", "result_error", ""]);
    assert_eq!(prints, [json!(["task", "another", "failed", ""]), publishing, rendering.clone(), rendering]);
    assert!(project.arrivals().iter().all(|arrival| !arrival.event.to_string().contains("canary")));
}

#[tokio::test]
async fn without_a_dsn_nobody_looks_for_exceptions() {
    let (sidecar, [_, http]) = sidecar(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]).await;
    assert_eq!(log(http, &[record(ERROR, "ValueError", "text")]).await.status, 200);
    run_task(&sidecar, json!({"name": "x"}), json!({"state": "failed"})).await;
    let page = sidecar.metrics().await;
    assert!(!page.contains("sentry") && !page.contains("envelopes"), "{page}");
}
