//! `/api/v1/monitoring/queues`: Celery's queues, workers and tasks as JSON; and its description.

use serde_json::{Map, Value, json};

use crate::model::celery::{CeleryState, Condition, QueueState, TaskState, WorkerState};
use crate::redact::Clean;

/// The body; `now` in seconds since the Unix epoch.
pub(super) fn json(celery: &CeleryState, now: f64) -> String {
    let active: u64 = celery.workers.iter().filter(|worker| worker.is_alive).map(|worker| worker.active).sum();
    let is_heard = matches!(celery.hearing, Condition::Up(_));
    let body = json!({
        "timestamp": now,
        "state": state(celery),
        "events": line(&celery.hearing),
        "queues_read": line(&celery.asking),
        "gap": celery.hearing != Condition::Off && !is_heard,
        "gaps": celery.gaps,
        "last_gap_seconds_ago": celery.last_gap_age.map(|age| age.as_secs_f64()),
        "not_allowed": celery.not_allowed,
        "messages": celery.messages,
        "refused": celery.refused.iter().map(|(reason, count)| ((*reason).to_owned(), (*count).into())).collect::<Map<_, _>>(),
        "missed": celery.missed,
        "uncertain": celery.uncertain,
        "active_tasks": if is_heard { active } else { 0 },
        "age_seconds": celery.queues_age.map(|age| age.as_secs_f64()),
        "stale": celery.is_stale,
        "consumers_age_seconds": celery.consumers_age.map(|age| age.as_secs_f64()),
        "queues": celery.queues.iter().map(queue).collect::<Vec<_>>(),
        "unacked": {
            "messages": celery.unacked,
            "oldest_seconds": celery.oldest_unacked_at.map(|at| (now - at).max(0.0)),
        },
        "workers": celery.workers.iter().map(worker).collect::<Vec<_>>(),
        "tasks": celery.tasks.iter().map(task).collect::<Vec<_>>(),
        "publishes": {
            "published": celery.publishes.published,
            "failed": celery.publishes.failed,
            "success_ratio": celery.publishes.success_ratio(),
        },
        "failures": celery.failures.iter().map(|(name, queue, class, count)| json!({
            "name": name.as_str(), "queue": queue.as_str(), "exception": class.as_str(), "count": count,
        })).collect::<Vec<_>>(),
    });
    body.to_string()
}

/// How the whole fares, in a word.
fn state(celery: &CeleryState) -> &'static str {
    match (celery.hearing, celery.asking) {
        (Condition::Off, _) => "off",
        (Condition::Up(_), Condition::Up(_)) if celery.is_found => "watching",
        (Condition::Up(_), Condition::Up(_)) => "nothing_found",
        (Condition::Connecting, _) | (_, Condition::Connecting) => "unknown",
        _ => "degraded",
    }
}

fn line(condition: &Condition) -> Value {
    match condition {
        Condition::Off => json!({ "state": "off", "since_seconds": null, "problem": null }),
        Condition::Connecting => json!({ "state": "connecting", "since_seconds": null, "problem": null }),
        Condition::Up(since) => json!({ "state": "up", "since_seconds": since.as_secs_f64(), "problem": null }),
        Condition::Down(since, problem) => {
            json!({ "state": "down", "since_seconds": since.as_secs_f64(), "problem": problem })
        }
    }
}

fn queue(queue: &QueueState) -> Value {
    json!({
        "name": queue.name.as_str(),
        "messages": queue.messages,
        "unacked": queue.unacked,
        "consumers": queue.consumers,
        "head_age_seconds": queue.head_age.as_secs_f64(),
        "unserved_seconds": queue.unserved.map(|age| age.as_secs_f64()),
    })
}

fn worker(worker: &WorkerState) -> Value {
    let names = |names: &Vec<Clean<'static>>| names.iter().map(|name| name.as_str().into()).collect::<Vec<Value>>();
    json!({
        "name": worker.name.as_str(),
        "version": worker.version.as_str(),
        "alive": worker.is_alive,
        "age_seconds": worker.age.as_secs_f64(),
        "active": worker.active,
        "processed": worker.processed,
        "sends_events": worker.sends_events,
        "consumes": worker.consumes.as_ref().map(names),
        "not_consuming_seconds": worker.not_consuming.map(|age| age.as_secs_f64()),
    })
}

fn task(task: &TaskState) -> Value {
    let mut body = Map::new();
    body.insert("name".into(), task.name.as_str().into());
    body.insert("queue".into(), task.queue.as_str().into());
    let counts = task.steps.iter().chain(&task.outcomes);
    body.extend(counts.map(|(what, count)| ((*what).to_owned(), Value::from(*count))));
    body.insert("mean_seconds".into(), task.mean_seconds.into());
    body.insert("mean_wait_seconds".into(), task.mean_wait_seconds.into());
    Value::Object(body)
}

/// The body, for `/openapi.json`.
pub(super) fn schema() -> Value {
    let line = json!({
        "type": "object",
        "properties": {
            "state": word("up: open; down: tried again, with growing waits", &["off", "connecting", "up", "down"]),
            "since_seconds": seconds("for how long"),
            "problem": { "type": ["string", "null"], "description": "why it is down, in a word" },
        },
    });
    json!({
        "type": "object",
        "required": ["timestamp", "state", "gap", "gaps", "active_tasks", "age_seconds", "queues", "unacked", "workers", "tasks"],
        "properties": {
            "timestamp": seconds("when this was answered, since the Unix epoch"),
            "state": word("the whole", &["off", "unknown", "nothing_found", "watching", "degraded"]),
            "events": line.clone(),
            "queues_read": line,
            "gap": { "type": "boolean", "description": "events are not heard at present" },
            "gaps": count("times that the hearing was lost; what was told meanwhile is not known"),
            "last_gap_seconds_ago": seconds("when it was lost last"),
            "not_allowed": { "type": "array", "items": { "type": "string" }, "description": "what the server's ACL refuses" },
            "messages": count("messages heard"),
            "refused": { "type": "object", "additionalProperties": { "type": "integer" }, "description": "messages that were refused, by reason" },
            "missed": count("tasks that workers started, by their own count, and of which no event was heard"),
            "uncertain": count("tasks that a worker had received before a gap and that was not heard after it: they have run, or wait to be delivered again"),
            "active_tasks": count("tasks that live workers work on"),
            "age_seconds": seconds("age of the reading of the queues; null before the first"),
            "stale": { "type": "boolean", "description": "no reading of the queues, or one that three turns have not renewed" },
            "consumers_age_seconds": seconds("age of the workers' answers on what they consume"),
            "queues": { "type": "array", "items": queue_schema() },
            "unacked": {
                "type": "object",
                "description": "messages of all queues that workers have taken and not acknowledged",
                "properties": { "messages": { "type": ["integer", "null"] }, "oldest_seconds": seconds("since it was taken") },
            },
            "workers": { "type": "array", "items": worker_schema() },
            "tasks": { "type": "array", "items": { "type": "object" }, "description": "counts by name and queue since the start" },
            "publishes": {
                "type": "object",
                "description": "how the tasks that publish have ended since the start",
                "properties": {
                    "published": count("ended well"),
                    "failed": count("raised, said themselves that they failed, or were lost"),
                    "success_ratio": { "type": ["number", "null"], "description": "null before the first" },
                },
            },
            "failures": { "type": "array", "items": { "type": "object" }, "description": "failures by name, queue and class of exception" },
        },
    })
}

fn queue_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "messages": count("waiting, of all priorities"),
            "unacked": { "type": ["integer", "null"], "description": "taken by workers and not acknowledged; null when there are more of all queues than are looked at" },
            "consumers": { "type": ["integer", "null"], "description": "live workers that consume it; null when they could not be asked" },
            "head_age_seconds": seconds("how long the next message has been the next"),
            "unserved_seconds": seconds("how long it has held messages without a consumer; null when all is well, or nobody knows"),
        },
    })
}

fn worker_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "version": { "type": "string" },
            "alive": { "type": "boolean", "description": "whether its heartbeats come" },
            "age_seconds": seconds("since anything was heard of it"),
            "active": count("tasks that it works on"),
            "processed": count("tasks that it has started since it lives"),
            "sends_events": { "type": "boolean" },
            "consumes": { "type": ["array", "null"], "items": { "type": "string" } },
            "not_consuming_seconds": seconds("how long it has done nothing while a message waited that it could take; null when all is well"),
        },
    })
}

fn word(about: &str, words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words, "description": about })
}

fn count(about: &str) -> Value {
    json!({ "type": "integer", "description": about })
}

fn seconds(about: &str) -> Value {
    json!({ "type": ["number", "null"], "description": format!("{about}; in seconds") })
}
