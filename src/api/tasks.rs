//! `/api/v1/monitoring/tasks`: tasks are begun, ended and told of; and their description.
//!
//! A body is small and of a few texts. What is wrong with it is said in words of our own, never in the client's.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::api::reply::{JSON, error, respond};
use crate::model::task::{EndedTask, OpenTask, TaskId, TaskLists, TaskState};
use crate::model::trace::{TraceId, TraceParent, parse_traceparent};
use crate::redact::Clean;
use crate::tasks::{BeginError, Beginning, EndError, Ending, Success, Tasks};

/// Of a body: some hundred bytes are enough.
const LARGEST: usize = 16 << 10;
/// For the whole of a body, which comes with its head.
const READING: Duration = Duration::from_secs(5);
const NAME: &str = "name: a text of 1 to 100 characters, none of them a control character";
const TASK_ID: &str = "task_id: a text of 1 to 100 of the characters a-z A-Z 0-9 - _ . : /, or none";
const STATE: &str = "state: succeeded or failed";
const ERROR_TYPE: &str = "error_type: the name of a class, such as ValueError, at most 100 characters, or none";
const DURATION: &str = "duration_seconds: a number that is not negative, or none";
const BODY: &str = "a JSON object of at most 16 KiB";

/// What is wrong with a request.
#[derive(Debug)]
struct Wrong {
    status: StatusCode,
    found: &'static str,
    expected: &'static str,
}

const fn wrong(found: &'static str, expected: &'static str) -> Wrong {
    Wrong { status: StatusCode::BAD_REQUEST, found, expected }
}

/// Begins a task.
pub(super) async fn begin(tasks: &Tasks, request: Request) -> Response {
    let trace = traceparent(request.headers());
    answer(StatusCode::CREATED, fields(request).await.and_then(|fields| begun(tasks, &fields, trace)))
}

fn begun(tasks: &Tasks, fields: &Map<String, Value>, trace: Option<TraceParent>) -> Result<Value, Wrong> {
    let name = text(fields, "name", NAME)?.ok_or(wrong("no name", NAME))?;
    let beginning = Beginning { name, task_id: text(fields, "task_id", TASK_ID)?, trace };
    let id = tasks.begin(&beginning).map_err(|error| match error {
        BeginError::Name => wrong("no name of a task", NAME),
        BeginError::TaskId => wrong("no id of a task", TASK_ID),
        BeginError::TooMany => Wrong {
            status: StatusCode::SERVICE_UNAVAILABLE,
            found: "as many open tasks as there may be",
            expected: "fewer than tasks.max_open",
        },
    })?;
    Ok(json!({ "id": id.to_string() }))
}

/// Ends the task that the path names.
pub(super) async fn end(tasks: &Tasks, request: Request) -> Response {
    let id = request.uri().path().rsplit('/').next().and_then(TaskId::parse);
    answer(StatusCode::OK, fields(request).await.and_then(|fields| ended(tasks, id, &fields)))
}

fn ended(tasks: &Tasks, id: Option<TaskId>, fields: &Map<String, Value>) -> Result<Value, Wrong> {
    let success = match text(fields, "state", STATE)? {
        Some("succeeded") => Success::Succeeded,
        Some("failed") => Success::Failed,
        _ => return Err(wrong("no state of a task that has ended", STATE)),
    };
    let duration = match fields.get("duration_seconds") {
        None | Some(Value::Null) => None,
        Some(told) => {
            let seconds = told.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            Some(seconds.ok_or(wrong("no duration", DURATION))?)
        }
    };
    let ending = Ending { success, error_type: text(fields, "error_type", ERROR_TYPE)?, duration };
    let unknown = Wrong {
        status: StatusCode::NOT_FOUND,
        found: "no such task",
        expected: "the id of one that is open, or has ended lately",
    };
    let Some(id) = id else { return Err(unknown) };
    let state = tasks.end(id, &ending).map_err(|error| match error {
        EndError::ErrorType => wrong("no class of an error", ERROR_TYPE),
        EndError::Unknown => unknown,
    })?;
    Ok(json!({ "id": id.to_string(), "state": state.label() }))
}

fn answer(good: StatusCode, outcome: Result<Value, Wrong>) -> Response {
    let mut response = match outcome {
        Ok(body) => respond(JSON, body.to_string()),
        Err(Wrong { status, found, expected }) => return error(status, found, expected),
    };
    *response.status_mut() = good;
    response
}

/// The fields of a body. Only JSON by its name: a browser asks first before it sends that to another site.
async fn fields(request: Request) -> Result<Map<String, Value>, Wrong> {
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case(JSON) {
        let (found, expected) = ("another Content-Type", "application/json");
        return Err(Wrong { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, found, expected });
    }
    let body = timeout(READING, to_bytes(request.into_body(), LARGEST)).await;
    let body = body.map_err(|_| wrong("a body that did not come within 5 s", BODY))?;
    let body = body.map_err(|_| wrong("a body that broke off or is too large", BODY))?;
    // serde_json gives up beyond 128 levels, so that depth costs no stack
    match serde_json::from_slice(&body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(wrong("JSON that is no object", BODY)),
        Err(_) => Err(wrong("a body that is no JSON, or too deep", BODY)),
    }
}

/// A text that may be absent, or null.
fn text<'f>(fields: &'f Map<String, Value>, name: &str, expected: &'static str) -> Result<Option<&'f str>, Wrong> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong("a value that is no text", expected)),
    }
}

/// The span that a task is begun in; one that cannot be read links to nothing (W3C Trace Context, section 4.3).
fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    parse_traceparent(headers.get("traceparent")?.as_bytes()).ok()
}

/// The body of what is told.
pub(super) fn json(lists: &TaskLists, now: f64) -> String {
    let totals = &lists.totals;
    let ended = |state: TaskState| totals.ended[state as usize];
    json!({
        "timestamp": now,
        "active_tasks": totals.active,
        "begun": totals.begun,
        "succeeded": ended(TaskState::Succeeded),
        "failed": ended(TaskState::Failed),
        "lost": ended(TaskState::Lost),
        "refused": { "too_many_open": totals.too_many_open, "too_many_names": totals.too_many_names },
        "running": lists.open.iter().map(running).collect::<Vec<_>>(),
        "recent": lists.recent.iter().map(recent).collect::<Vec<_>>(),
    })
    .to_string()
}

fn running(task: &OpenTask) -> Value {
    json!({
        "id": task.id.to_string(),
        "name": task.name.as_str(),
        "task_id": task.task_id.as_ref().map(Clean::as_str),
        "age_seconds": task.age.as_secs_f64(),
        "trace_id": task.trace_id.map(hex),
    })
}

fn recent(task: &EndedTask) -> Value {
    json!({
        "id": task.id.to_string(),
        "name": task.name.as_str(),
        "task_id": task.task_id.as_ref().map(Clean::as_str),
        "state": task.state.label(),
        "error_type": task.error_type.as_ref().map(Clean::as_str),
        "duration_seconds": task.duration.as_secs_f64(),
        "age_seconds": task.age.as_secs_f64(),
        "trace_id": task.trace_id.map(hex),
    })
}

fn hex(id: TraceId) -> String {
    id.to_string()
}

/// What is told, for `/openapi.json`.
pub(super) fn schema() -> Value {
    let count = |about: &str| json!({ "type": "integer", "description": about });
    let seconds = |about: &str| json!({ "type": "number", "description": about });
    let common = json!({
        "id": { "type": "string", "format": "uuid" },
        "name": { "type": "string" },
        "task_id": { "type": ["string", "null"], "description": "of Celery's task that it runs inside" },
        "trace_id": { "type": ["string", "null"] },
    });
    let list = |about: &str, more: Value| {
        let mut properties = common.clone();
        if let (Some(properties), Value::Object(more)) = (properties.as_object_mut(), more) {
            properties.extend(more);
        }
        json!({ "type": "array", "description": about, "items": { "type": "object", "properties": properties } })
    };
    let ended = json!({
        "state": { "type": "string", "enum": TaskState::ALL.map(TaskState::label) },
        "error_type": { "type": ["string", "null"], "description": "the class of the error, never its text" },
        "duration_seconds": seconds("how long it ran; of a lost one, tasks.max_runtime"),
        "age_seconds": seconds("since it ended"),
    });
    json!({
        "type": "object",
        "required": ["timestamp", "active_tasks", "begun", "succeeded", "failed", "lost", "refused", "running", "recent"],
        "properties": {
            "timestamp": seconds("when this was answered, since the Unix epoch"),
            "active_tasks": count("those that run; what runs inside the same task of Celery counts once"),
            "begun": count("since the start"),
            "succeeded": count("since the start"),
            "failed": count("since the start"),
            "lost": count("not ended within tasks.max_runtime, since the start"),
            "refused": { "type": "object", "additionalProperties": { "type": "integer" } },
            "running": list("those that have run longest, at most 100", json!({ "age_seconds": seconds("since it began") })),
            "recent": list("those that ended last, at most tasks.recent, the newest first", ended),
        },
    })
}

/// The body that begins a task, for `/openapi.json`.
pub(super) fn begin_schema() -> Value {
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 100 },
            "task_id": { "type": ["string", "null"], "description": "of Celery's task that it runs inside", "maxLength": 100 },
        },
    })
}

/// The body that ends a task, for `/openapi.json`.
pub(super) fn end_schema() -> Value {
    json!({
        "type": "object",
        "required": ["state"],
        "properties": {
            "state": { "type": "string", "enum": ["succeeded", "failed"] },
            "error_type": { "type": ["string", "null"], "description": "the class of the error, never its text", "maxLength": 100 },
            "duration_seconds": { "type": ["number", "null"], "minimum": 0, "description": "as the application measured it" },
        },
    })
}
