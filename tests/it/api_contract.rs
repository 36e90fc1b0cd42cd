//! The contract of the application's own monitoring to the letter: the bodies that its guide shows, and `application/health+json`.

use content_factory_sidecar::model::health::{CheckReport, HealthStatus};
use serde_json::{Value, json};

use crate::api_port::{Answer, Port, healthy, report};

/// The guide's bodies, as it writes them.
const HEALTH: &str = r#"{"status":"healthy","services":{"database":{"status":"healthy","message":"Database connection successful"},"redis":{"status":"healthy","message":"Redis connection successful"},"external_api":{"status":"healthy","message":"External API connection successful"},"ai_services":{"status":"healthy","message":"OpenAI API key configured, AI Avatar service configured"}}}"#;
const SYSTEM: &str = r#""system":{"cpu_usage":"15.2%","memory_total":"16.00 GB","memory_available":"8.23 GB","memory_used":"7.77 GB","memory_percent":"48.5%","disk_total":"512.00 GB","disk_used":"128.45 GB","disk_free":"383.55 GB","disk_percent":"25.09%""#;
const ROWS: &str = r#""database_stats":{"products":42,"videos":18,"social_media_posts":56}"#;
const METRICS: &str = r#"{"request_count":1250,"error_count":3,"average_response_time":0.245,"active_tasks":"#;
const ACTIVITY: &str = r#""recent_requests":100},"status":"operational"}"#;

/// The services of the guide, without what we add.
fn of_the_guide() -> Vec<CheckReport> {
    healthy().into_iter().take(4).collect()
}

#[tokio::test]
async fn the_bodies_of_the_guide_come_out_as_it_writes_them_and_what_is_added_stands_at_the_end() {
    let port = Port::start(of_the_guide()).await;
    let health = port.get("/health").await.body;
    let begins = HEALTH.strip_suffix('}').expect("an object");
    let added = health.strip_prefix(begins).unwrap_or_else(|| panic!("{health}"));
    let timestamp = added.strip_prefix(r#","timestamp":"#).and_then(|rest| rest.strip_suffix('}'));
    assert!(timestamp.is_some_and(|number| number.contains('.') && number.parse::<f64>().is_ok()), "{added}");
    let status = port.get("/status").await.body;
    assert!(status.starts_with(&format!("{{\"health\":{begins},\"timestamp\":")), "{status}");
    assert!(status.contains(&format!(",{SYSTEM},\"platform\":")), "{status}");
    assert!(status.contains(&format!("}},{ROWS},\"version\":")), "{status}");
    let metrics = port.get("/api/v1/monitoring/metrics").await.body;
    assert!(metrics.starts_with(METRICS), "{metrics}");
    let dashboard = port.get("/api/v1/monitoring/dashboard").await.body;
    assert!(dashboard.starts_with(&format!("{{\"health\":{begins},\"timestamp\":")), "{dashboard}");
    assert!(dashboard.contains(&format!("\"metrics\":{METRICS}")), "{dashboard}");
    assert!(dashboard.contains(r#""activity":{"timestamp":"#) && dashboard.ends_with(ACTIVITY), "{dashboard}");
}

#[tokio::test]
async fn the_four_answer_200_whatever_the_health_and_strict_changes_the_code_alone() {
    for (worst, word, strict, verdict) in [
        (HealthStatus::Healthy, "healthy", 200, "operational"),
        (HealthStatus::Degraded, "degraded", 200, "degraded"),
        (HealthStatus::Unhealthy, "unhealthy", 503, "degraded"),
        (HealthStatus::Unknown, "healthy", 200, "operational"),
    ] {
        let mut reports = of_the_guide();
        reports[2] = report("external_api", worst, "words");
        let port = Port::start(reports).await;
        for path in ["/health", "/status", "/api/v1/monitoring/dashboard", "/api/v1/monitoring/metrics"] {
            let answer = port.get(path).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{path} {word}");
        }
        let (plain, minded) = (port.get("/health").await.json(), port.get("/health?x=1&strict=1").await);
        assert_eq!((minded.status, &plain["status"]), (strict, &json!(word)));
        assert_eq!(minded.json()["services"], plain["services"]);
        assert_eq!(port.get("/health?strict=0").await.status, 200);
        assert_eq!(port.get("/api/v1/monitoring/dashboard").await.json()["status"], verdict);
    }
    let nothing = Port::start(vec![report("database", HealthStatus::Unknown, "not configured")]).await;
    assert_eq!(nothing.get("/health").await.json()["status"], "unknown");
}

#[tokio::test]
async fn text_is_utf_8_and_not_escaped_and_a_head_has_no_body() {
    let mut reports = of_the_guide();
    reports[0] = report("database", HealthStatus::Degraded, "Grüße aus Zürich – \"2/3\" ☂");
    let port = Port::start(reports).await;
    let answer = port.get("/health").await;
    assert!(answer.body.contains(r#""message":"Grüße aus Zürich – \"2/3\" ☂""#), "{}", answer.body);
    let request = format!("HEAD /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", port.address);
    let head = port.ask(&request).await;
    assert_eq!((head.status, head.body.as_str(), head.header("content-type")), (200, "", "application/json"));
}

/// Asks in the draft's form.
async fn draft(port: &Port, path: &str) -> Answer {
    let accept = "Accept: application/health+json";
    port.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{accept}\r\nConnection: close\r\n\r\n", port.address)).await
}

#[tokio::test]
async fn who_asks_for_health_json_gets_the_draft_s_form_and_codes() {
    let mut reports = of_the_guide();
    reports[0].kind = "sql";
    reports[2] = report("external_api", HealthStatus::Unknown, "not configured");
    (reports[2].latency, reports[2].checked_at) = (None, None);
    reports[3] = report("ai_services", HealthStatus::Degraded, "OpenAI API key missing, AI Avatar service configured");
    let port = Port::start(reports.clone()).await;
    for path in ["/health", "/api/v1/monitoring/checks"] {
        let answer = draft(&port, path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/health+json"), "{path}");
        assert_eq!(answer.header("cache-control"), "private, max-age=10");
        let good = json!([{"componentType": "component", "observedValue": 2.0, "observedUnit": "ms", "status": "pass",
            "time": "2022-01-01T00:00:00.000Z"}]);
        let mut stored = good.clone();
        stored[0]["componentType"] = "datastore".into();
        let mut warned = good.clone();
        (warned[0]["status"], warned[0]["output"]) =
            ("warn".into(), "OpenAI API key missing, AI Avatar service configured".into());
        let expected = json!({"status": "warn", "version": "1.0.0", "releaseId": "1.0.0", "serviceId": "content-factory", "checks": {
            "database:responseTime": stored,
            "redis:responseTime": good,
            "external_api:responseTime": [{"componentType": "component", "output": "not configured"}],
            "ai_services:responseTime": warned,
        }});
        assert_eq!(answer.json(), expected, "{path}");
    }
    assert_eq!(port.get("/health").await.header("content-type"), "application/json");
    reports[1] = report("redis", HealthStatus::Unhealthy, "Redis check failed: timeout");
    let sick = draft(&Port::start(reports).await, "/health").await;
    assert_eq!((sick.status, &sick.json()["status"]), (503, &json!("fail")));
    assert_eq!(sick.json()["checks"]["redis:responseTime"][0]["output"], "Redis check failed: timeout");
}

#[tokio::test]
async fn a_stranger_gets_the_bare_word_in_either_form() {
    let settings = json!({"admin": {"tokens": "reader-0123456789abcdef"}});
    let port = Port::start_with(healthy(), settings).await;
    assert_eq!(port.get("/health").await.body, r#"{"status":"healthy"}"#);
    assert_eq!(draft(&port, "/health").await.body, r#"{"status":"pass"}"#);
    assert_eq!(draft(&port, "/api/v1/monitoring/checks").await.status, 401);
    let request = |host| {
        format!(
            "GET /health HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer reader-0123456789abcdef\r\nConnection: close\r\n\r\n"
        )
    };
    let known: Value = port.ask(&request(port.address)).await.json();
    assert_eq!(known["services"]["redis"]["message"], "Redis connection successful");
}
