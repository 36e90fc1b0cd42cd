//! The bodies of the admin port, compared with golden files to the byte; clocks are masked.
//!
//! `UPDATE_GOLDEN=1 cargo test --test it api_bodies` writes the files anew.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use content_factory_sidecar::api::openapi;
use content_factory_sidecar::model::application::About;
use content_factory_sidecar::model::health::{CheckHistory, Criticality, HealthStatus};
use content_factory_sidecar::redact::Clean;
use serde_json::json;

use crate::api_port::{Port, healthy, report};

/// Replaces the values that a clock makes: numbers behind these keys, ages on the page.
fn masked(body: &str) -> String {
    let mut out = body.to_owned();
    for key in ["timestamp", "uptime_seconds", "requests_per_second", "age_seconds"] {
        let pattern = format!("\"{key}\":");
        let mut from = 0;
        while let Some(start) = out[from..].find(&pattern).map(|at| from + at + pattern.len()) {
            let length = out[start..].find([',', '}']).expect("a value ends");
            let value = out[start..start + length].to_owned();
            assert!(value.parse::<f64>().is_ok() && value.contains('.'), "{key} is no float: {value}");
            out.replace_range(start..start + length, "0.5");
            from = start;
        }
    }
    mask_ages(&out)
}

/// `12 d ago` becomes `0 s ago`, and `up 1 s` becomes `up 0 s`.
fn mask_ages(body: &str) -> String {
    let words: Vec<&str> = body.split(' ').collect();
    let mut out: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    for index in 2..words.len() {
        if words[index].starts_with("ago") {
            let lead = words[index - 2].trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
            out[index - 2] = format!("{lead}0");
            out[index - 1] = "s".into();
        }
        if words[index - 2].ends_with("up") && words[index].starts_with('·') {
            (out[index - 2], out[index - 1]) = ("up".into(), "0 s".into());
        }
    }
    out.join(" ")
}

fn assert_golden(name: &str, body: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::vars().any(|(key, _)| key == "UPDATE_GOLDEN") {
        fs::write(&path, body).expect("the golden file can be written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(body, expected, "{name}; UPDATE_GOLDEN=1 writes it anew");
}

#[tokio::test]
async fn the_four_endpoints_answer_to_the_byte() {
    let port = Port::start(healthy()).await;
    for (path, golden) in [
        ("/health", "api_health.json"),
        ("/status", "api_status.json"),
        ("/api/v1/monitoring/dashboard", "api_dashboard.json"),
        ("/api/v1/monitoring/metrics", "api_metrics.json"),
    ] {
        let answer = port.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{path}");
        assert_golden(golden, &masked(&answer.body));
    }
}

#[tokio::test]
async fn the_database_is_told_to_the_byte() {
    let port = Port::start(healthy()).await;
    let answer = port.get("/api/v1/monitoring/database").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_golden("api_database.json", &masked(&answer.body));
}

#[tokio::test]
async fn what_the_application_does_not_say_of_itself_is_the_sidecars_or_is_left_out() {
    let port = Port::start_of(About::default()).await;
    let answer = port.get("/status").await;
    // our own version changes with each release
    let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(answer.body.ends_with(&format!("{version}}}")), "{}", answer.body);
    assert_golden("api_status_own.json", &masked(&answer.body.replace(&version, "\"version\":\"0.0.0\"")));
    let python = About { python_version: Some(Clean::literal("3.11.7")), ..About::default() };
    let body = Port::start_of(python).await.get("/status").await.json();
    assert_eq!(body["system"]["python_version"], "3.11.7");
    assert_eq!(body["system"]["platform"], "Linux-6.1.0-x86_64");
}

#[tokio::test]
async fn a_sick_application_still_gets_200_and_is_told_of_in_the_same_shape() {
    let mut reports = healthy();
    reports[1] = report("redis", HealthStatus::Unhealthy, "Redis check failed: timeout");
    reports[2] = report("external_api", HealthStatus::Unknown, "not configured");
    reports[3] = report("ai_services", HealthStatus::Degraded, "OpenAI API key missing, AI Avatar service configured");
    let port = Port::start(reports).await;
    let answer = port.get("/health").await;
    assert_eq!(answer.status, 200);
    assert_golden("api_health_unhealthy.json", &masked(&answer.body));
    assert_eq!(port.get("/health?strict=1").await.status, 503);
    let dashboard = port.get("/api/v1/monitoring/dashboard").await.json();
    assert_eq!(dashboard["status"], "degraded");
}

#[tokio::test]
async fn the_checks_are_told_with_what_they_went_through_to_the_byte() {
    let mut reports = healthy();
    reports[0].history = CheckHistory {
        result: HealthStatus::Healthy,
        streak: 12,
        since: Some(1_640_990_000.5),
        last_ok: Some(1_640_995_200.0),
        latencies: Some([2, 5, 40].map(Duration::from_millis)),
        uptime_ratio: Some(0.9975),
        runs: [0, 400, 0, 1],
        flapping: true,
        in_maintenance: false,
        waits_for: None,
    };
    let mut waiting = report("payments", HealthStatus::Unknown, "waits for database");
    (waiting.criticality, waiting.kind) = (Criticality::Optional, "http");
    waiting.history =
        CheckHistory { waits_for: Some("database".into()), in_maintenance: true, ..CheckHistory::default() };
    reports.truncate(1);
    reports.push(waiting);
    let port = Port::start(reports).await;
    let answer = port.get("/api/v1/monitoring/checks").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_golden("api_checks.json", &masked(&answer.body));
    let one = port.get("/api/v1/monitoring/checks/payments").await;
    assert!(masked(&answer.body).contains(&masked(&one.body)), "{}", one.body);
}

#[tokio::test]
async fn strict_minds_only_what_is_unhealthy() {
    let mut reports = healthy();
    reports[0].status = HealthStatus::Degraded;
    let port = Port::start(reports).await;
    assert_eq!(port.get("/health?strict=1").await.status, 200);
    assert_eq!(port.get("/health?strict=1").await.json()["status"], "degraded");
}

#[tokio::test]
async fn a_result_that_nobody_renewed_is_unknown() {
    let mut reports = healthy();
    for report in &mut reports {
        report.expires_at = Some(tokio::time::Instant::now());
    }
    let port = Port::start(reports).await;
    let body = port.get("/health").await.json();
    assert_eq!(body["status"], "unknown");
    assert_eq!(body["services"]["redis"], json!({"status": "unknown", "message": "no fresh result"}));
}

#[tokio::test]
async fn the_page_tells_the_verdict_first_and_loads_nothing_foreign() {
    let port = Port::start(healthy()).await;
    let page = port.get("/dashboard").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_golden("api_dashboard.html", &masked(&page.body));
    let style = port.get("/dashboard.css").await;
    assert_eq!((style.status, style.header("content-type")), (200, "text/css; charset=utf-8"));
    assert!(!style.body.contains("url(") && !style.body.contains("@import"));
    let root = port.get("/").await;
    assert_eq!((root.status, root.header("location")), (308, "/dashboard"));
}

#[tokio::test]
async fn the_description_is_served_and_every_path_in_it_answers() {
    let port = Port::start(healthy()).await;
    port.latch.open();
    let document = port.get("/openapi.json").await;
    assert_eq!(document.body, openapi());
    let document = document.json();
    let paths = document["paths"].as_object().expect("paths");
    for (path, _) in paths.iter().filter(|(_, operations)| operations["get"].is_object()) {
        let item = match path.as_str() {
            path if path.starts_with("/livez") => "proxy",
            path if path.contains("/checks/") => "redis",
            _ => "listener",
        };
        let answer = port.get(&path.replace("{item}", item)).await;
        assert!([200, 308].contains(&answer.status), "{path}: {}", answer.status);
    }
}

#[tokio::test]
async fn a_page_of_metrics_that_is_large_arrives_whole_and_in_bounded_pieces() {
    const CHECKS: usize = 2_000;
    let named = |number| report(&format!("check-{number:04}"), HealthStatus::Healthy, "fine");
    let port = Port::start((0..CHECKS).map(named).collect()).await;
    let streamed = port.get("/metrics").await;
    assert_eq!((streamed.status, streamed.header("transfer-encoding")), (200, "chunked"));
    let mut page = String::new();
    let mut rest = streamed.body.as_str();
    while let Some((size, chunk)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        assert!(size < 64 << 10, "{size} bytes at once");
        page.push_str(&chunk[..size]);
        rest = chunk[size..].strip_prefix("\r\n").expect("the end of a chunk");
    }
    assert!(page.len() > 512 << 10, "{} bytes prove nothing", page.len());
    for number in 0..CHECKS {
        assert_eq!(page.matches(&format!("check-{number:04}\"")).count(), 5, "four statuses and a duration");
    }
    // HTTP/1.0 knows no chunks: the page ends with the connection
    let plain = port.ask("GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((plain.header("transfer-encoding"), plain.body.len()), ("", page.len()));
    let small = Port::start(healthy()).await.get("/metrics").await;
    assert_eq!(small.header("content-length"), small.body.len().to_string());
}
