//! The dashboard in a browser where there are tokens: it asks for one, and with it reads and does nothing else.

use content_factory_sidecar::model::reload::Retune;
use serde_json::json;

use crate::api_port::{Answer, Port, config, healthy};

const READER: &str = "canary-reader-0123456789";
const WRITER: &str = "canary-writer-0123456789";
const PAGE: &str = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
const CHALLENGE: &str = "basic realm=\"content-factory-sidecar\", charset=\"utf-8\"";

async fn guarded(rate_per_peer: u32) -> Port {
    let tokens = format!("{READER}\n{WRITER} write");
    Port::start_with(healthy(), json!({"admin": {"tokens": tokens, "rate_per_peer": rate_per_peer}})).await
}

async fn ask(port: &Port, request: &str, fields: &str) -> Answer {
    let head = format!("Host: {}\r\n{fields}Content-Length: 0\r\nConnection: close\r\n", port.address);
    port.ask(&format!("{request} HTTP/1.1\r\n{head}\r\n")).await
}

/// As a browser sends it once somebody has typed it.
fn typed(password: &str) -> String {
    use content_factory_sidecar::model::base64;
    format!("{PAGE}Authorization: Basic {}\r\n", base64::encode(format!("anybody:{password}").as_bytes()))
}

#[tokio::test]
async fn a_browser_is_asked_for_a_token_and_a_program_is_told_in_json() {
    let port = guarded(100).await;
    for path in ["/", "/dashboard", "/status", "/metrics", "/nothing"] {
        let page = ask(&port, &format!("GET {path}"), PAGE).await;
        assert_eq!((page.status, page.header("www-authenticate")), (401, CHALLENGE), "{path}");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert!(page.body.contains("<h1>A token is needed</h1>"), "{}", page.body);
        assert_eq!((page.header("cache-control"), page.header("x-content-type-options")), ("no-store", "nosniff"));
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"), "{}", page.head);
        for accept in ["", "Accept: */*\r\n", "Accept: application/json\r\n"] {
            let told = ask(&port, &format!("GET {path}"), accept).await;
            assert_eq!((told.status, told.header("www-authenticate")), (401, "bearer"), "{path} {accept}");
            assert_eq!(told.json()["error"], "not allowed from this address");
        }
    }
    let written = ask(&port, "POST /api/v1/monitoring/checks/redis/run", PAGE).await;
    assert_eq!(
        (written.status, written.header("www-authenticate")),
        (401, "bearer"),
        "a page that only posts asks for nothing"
    );
}

#[tokio::test]
async fn with_a_token_as_the_password_the_page_and_all_that_it_leads_to_are_read() {
    let port = guarded(100).await;
    for token in [READER, WRITER] {
        for path in ["/dashboard", "/dashboard.css", "/status", "/metrics", "/openapi.json"] {
            let answer = ask(&port, &format!("GET {path}"), &typed(token)).await;
            assert_eq!(answer.status, 200, "{path}");
            assert!(!answer.body.contains(token) && !answer.head.contains(token), "{path}");
        }
        assert!(ask(&port, "GET /health", &typed(token)).await.json()["services"].is_object());
    }
    for wrong in ["", "canary-nobody-0123456789", "canary-reader-012345678"] {
        let refused = ask(&port, "GET /dashboard", &typed(wrong)).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, CHALLENGE), "asked again: {wrong}");
    }
}

#[tokio::test]
async fn what_a_browser_was_told_changes_nothing_whichever_page_has_it_do_so() {
    let port = guarded(100).await;
    let run = "POST /api/v1/monitoring/checks/redis/run";
    let own = format!("Origin: http://{}\r\n", port.address);
    for origin in ["", own.as_str(), "Origin: http://evil.example\r\n"] {
        let refused = ask(&port, run, &format!("{}{origin}", typed(WRITER))).await;
        assert_eq!(refused.status, 403, "{origin}");
    }
    let refused = ask(&port, run, &typed(WRITER)).await;
    assert_eq!(refused.json()["error"], "a token by Basic, which only reads");
    for path in ["/api/v1/monitoring/checks?refresh=1", "/api/v1/monitoring/checks/redis?refresh=1"] {
        assert_eq!(ask(&port, &format!("GET {path}"), &typed(WRITER)).await.status, 403, "{path}");
    }
    // the port of this test runs no check, so one that may be run is not there
    let meant = ask(&port, run, &format!("Authorization: Bearer {WRITER}\r\n")).await;
    assert_ne!(meant.status, 403, "{}", meant.body);
}

#[tokio::test]
async fn who_guesses_is_slowed_down() {
    let port = guarded(1).await;
    let mut answers = Vec::new();
    for number in 0..5 {
        answers.push(ask(&port, "GET /dashboard", &typed(&format!("canary-guess-{number:012}"))).await.status);
    }
    assert!(answers[..2].iter().all(|status| *status == 401) && answers.contains(&429), "{answers:?}");
}

#[tokio::test]
async fn a_token_that_is_taken_away_ends_what_a_browser_reads_by_it() {
    let port = guarded(100).await;
    assert_eq!(ask(&port, "GET /dashboard", &typed(READER)).await.status, 200);
    assert_eq!(port.rulebook.retune(&config(json!({"admin": {"tokens": WRITER}}))), Ok(()));
    let refused = ask(&port, "GET /dashboard", &typed(READER)).await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, CHALLENGE));
}

#[tokio::test]
async fn a_password_of_somebody_elses_is_not_minded_where_the_address_may_read() {
    let tokens = json!({"admin": {"tokens": READER, "allow": ["127.0.0.0/8"]}});
    let port = Port::start_with(healthy(), tokens).await;
    for fields in [PAGE.to_owned(), typed(READER), typed("of-the-ingress")] {
        assert_eq!(ask(&port, "GET /dashboard", &fields).await.status, 200, "{fields}");
    }
}
