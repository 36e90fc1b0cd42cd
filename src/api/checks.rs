//! `/api/v1/monitoring/checks`: each health check with what it went through, and its description. Pure: reports in, JSON out.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::checks::Ran;
use crate::model::health::{CheckReport, Criticality, overall};

/// All checks, in their order.
pub(super) fn all(reports: &[CheckReport], now: f64) -> Vec<u8> {
    #[derive(Serialize)]
    struct All<'a> {
        status: &'static str,
        timestamp: f64,
        checks: Vec<Check<'a>>,
    }
    let checks = reports.iter().map(|report| Check::of(report, None, now)).collect();
    json_of(&All { status: overall(reports).label(), timestamp: now, checks })
}

/// One check, and what became of the wish for a run.
pub(super) fn one(report: &CheckReport, asked: Option<Ran>, now: f64) -> Vec<u8> {
    json_of(&Check::of(report, asked, now))
}

#[derive(Serialize)]
struct Check<'a> {
    /// Only in the answer to the wish for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'static str>,
    name: &'a str,
    kind: &'static str,
    status: &'static str,
    message: &'a str,
    critical: bool,
    period_seconds: f64,
    result: &'static str,
    streak: u32,
    checked_at: Option<f64>,
    age_seconds: Option<f64>,
    since: Option<f64>,
    last_ok: Option<f64>,
    latency_seconds: Option<f64>,
    percentiles_seconds: Option<Percentiles>,
    uptime_24h_ratio: Option<f64>,
    flapping: bool,
    in_maintenance: bool,
    waits_for: Option<&'a str>,
}

#[derive(Serialize)]
struct Percentiles {
    p50: f64,
    p95: f64,
    p99: f64,
}

impl<'a> Check<'a> {
    fn of(report: &'a CheckReport, asked: Option<Ran>, now: f64) -> Self {
        let history = &report.history;
        Self {
            run: asked.map(Ran::label),
            name: &report.name,
            kind: report.kind,
            status: report.status.label(),
            message: report.message.as_str(),
            critical: report.criticality == Criticality::Critical,
            period_seconds: report.period.as_secs_f64(),
            result: history.result.label(),
            streak: history.streak,
            checked_at: report.checked_at,
            age_seconds: report.checked_at.map(|at| (now - at).max(0.0)),
            since: history.since,
            last_ok: history.last_ok,
            latency_seconds: report.latency.map(|latency| latency.as_secs_f64()),
            percentiles_seconds: history.latencies.map(|latencies| {
                let [p50, p95, p99] = latencies.map(|latency: Duration| latency.as_secs_f64());
                Percentiles { p50, p95, p99 }
            }),
            uptime_24h_ratio: history.uptime_ratio,
            flapping: history.flapping,
            in_maintenance: history.in_maintenance,
            waits_for: history.waits_for.as_deref(),
        }
    }
}

fn json_of(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("strings and numbers serialise")
}

/// One check, for `/openapi.json`.
pub(super) fn schema() -> Value {
    let number = |about: &str| json!({ "type": ["number", "null"], "description": about });
    let word = |about: &str| json!({ "type": "string", "description": about });
    let flag = |about: &str| json!({ "type": "boolean", "description": about });
    let statuses = json!({ "type": "string", "enum": ["unknown", "healthy", "degraded", "unhealthy"] });
    let run = json!({ "type": "string", "enum": [Ran::Made.label(), Ran::Joined.label(), Ran::Recent.label()],
        "description": "after a wish for a run: made for it, joined in flight, or the last one, a second old at most" });
    json!({
        "type": "object",
        "required": ["name", "kind", "status", "message"],
        "properties": {
            "run": run,
            "name": word("its key under `services` in /health"),
            "kind": word("http, tcp, sql and so on"),
            "status": statuses.clone(),
            "message": word("fixed words and a class; never the text of an error"),
            "critical": flag("whether readiness may look at it"),
            "period_seconds": { "type": "number" },
            "result": statuses,
            "streak": { "type": "integer", "description": "results in a row like the last one" },
            "checked_at": number("end of the last run, Unix seconds"),
            "age_seconds": number("since the end of the last run"),
            "since": number("begin of the status, Unix seconds"),
            "last_ok": number("last run that found it working, Unix seconds"),
            "latency_seconds": number("duration of the last run"),
            "percentiles_seconds": {
                "type": ["object", "null"],
                "description": "of the last 128 runs",
                "properties": { "p50": { "type": "number" }, "p95": { "type": "number" }, "p99": { "type": "number" } },
            },
            "uptime_24h_ratio": number("share of results of the last 24 h that were no failure; maintenance does not count"),
            "flapping": flag("5 changes in the last 20 results, until 2 are left"),
            "in_maintenance": flag("expected not to work now"),
            "waits_for": { "type": ["string", "null"], "description": "a check it depends on that is down" },
        },
    })
}
