//! The rules of the admin port: probes, limits, headers, and what is refused.

use std::time::Duration;

use content_factory_sidecar::api::{BindError, bind};
use content_factory_sidecar::model::health::HealthStatus;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api_port::{PATIENCE, Port, config, healthy, report};

#[tokio::test]
async fn readiness_comes_with_the_latch_and_goes_with_the_drain() {
    let port = Port::start(healthy()).await;
    let before = port.get("/readyz").await;
    assert_eq!(
        (before.status, before.body.as_str()),
        (503, "[-]listener failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n")
    );
    assert_eq!(port.get("/startupz").await.status, 503);
    port.latch.open();
    let open = port.get("/readyz").await;
    assert_eq!(
        (open.status, open.body.as_str(), open.header("content-type")),
        (200, "ok", "text/plain; charset=utf-8")
    );
    assert_eq!(port.get("/startupz?verbose").await.body, "[+]listener ok\nstartupz check passed\n");
    port.conductor.drain_within(Duration::from_secs(60));
    let draining = port.get("/readyz").await;
    assert_eq!(draining.status, 503);
    assert!(draining.body.contains("[-]shutdown failed: reason withheld"), "{}", draining.body);
    assert_eq!(port.get("/livez").await.body, "ok");
    assert_eq!(port.get("/startupz").await.status, 200);
}

#[tokio::test]
async fn probes_have_kubernetes_forms() {
    let port = Port::start(healthy()).await;
    assert_eq!(port.get("/livez?verbose").await.body, "[+]proxy ok\n[+]checks ok\nlivez check passed\n");
    assert_eq!(port.get("/livez/proxy").await.body, "ok");
    let item = port.get("/readyz/listener").await;
    assert_eq!((item.status, item.body.as_str()), (503, "[-]listener failed: reason withheld\n"));
    assert_eq!(port.get("/readyz/mars").await.status, 404);
    let excluded = port.get("/readyz?verbose&exclude=listener").await;
    assert_eq!(excluded.status, 200);
    assert_eq!(excluded.body, "[+]listener excluded: ok\n[+]shutdown ok\nreadyz check passed\n");
}

#[tokio::test]
async fn a_sick_database_fails_readiness_only_when_asked_for_and_never_liveness() {
    let mut reports = healthy();
    reports[0] = report("database", HealthStatus::Unhealthy, "Database check failed: refused");
    let own = Port::start(reports.clone()).await;
    own.latch.open();
    assert_eq!(own.get("/readyz").await.status, 200);
    let critical = Port::start_with(reports, json!({"readyz": {"checks": "critical"}})).await;
    critical.latch.open();
    let answer = critical.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("[-]database failed: reason withheld\n"), "{}", answer.body);
    assert_eq!(critical.get("/livez").await.status, 200);
}

#[tokio::test]
async fn every_answer_carries_the_headers_of_safety() {
    let port = Port::start(healthy()).await;
    for path in ["/health", "/dashboard", "/livez", "/nothing"] {
        let answer = port.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert!(
            answer.header("content-security-policy").starts_with("default-src 'none'; style-src 'self';"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_small_json() {
    let port = Port::start(healthy()).await;
    let missing = port.get("/nothing").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json(), json!({"error": "no such path", "expected": "one of the paths in /openapi.json"}));
    let head = format!("Host: {}\r\nConnection: close\r\n", port.address);
    let post = port.ask(&format!("POST /health HTTP/1.1\r\n{head}Content-Length: 0\r\n\r\n")).await;
    assert_eq!(post.status, 405);
    assert_eq!(post.json()["expected"], "GET or HEAD");
    assert_eq!(post.header("allow"), "get,head");
    let rebound = port.ask("GET /status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    assert_eq!(rebound.status, 403);
    let only_head = port.ask(&format!("HEAD /health HTTP/1.1\r\n{head}\r\n")).await;
    assert_eq!((only_head.status, only_head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn a_hundred_reads_at_once_are_welcome_by_default() {
    let port = Port::start(healthy()).await;
    for _ in 0..100 {
        assert_eq!(port.get("/health").await.status, 200);
    }
}

#[tokio::test]
async fn a_flood_is_told_when_to_come_back_and_probes_are_exempt() {
    let port = Port::start_with(healthy(), json!({"admin": {"rate_per_peer": 1}})).await;
    let one = format!("GET /health HTTP/1.1\r\nHost: {}\r\n", port.address);
    let probe = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", port.address);
    // in one write, so that all come within the second that admits the next one
    let flood = format!("{}{}{one}Connection: close\r\n\r\n", format!("{one}\r\n").repeat(9), probe.repeat(5));
    let answers = port.ask(&flood).await;
    let all = format!("{}\r\n\r\n{}", answers.head, answers.body.to_ascii_lowercase());
    assert_eq!(all.matches("http/1.1 200 ok").count(), 2 + 5, "{all}");
    assert_eq!(all.matches("http/1.1 429 too many requests").count(), 8, "{all}");
    assert_eq!(all.matches("retry-after: 1\r\n").count(), 8, "each refusal says when: {all}");
    let other = port.ask_from([127, 0, 0, 2], &format!("{one}Connection: close\r\n\r\n")).await;
    assert_eq!(other.status, 200, "another client does not pay for it");
}

#[tokio::test]
async fn all_clients_together_have_a_limit_too_and_probes_are_exempt_from_it() {
    let port = Port::start_with(healthy(), json!({"admin": {"rate_per_peer": 1_000, "rate": 1}})).await;
    let one = format!("GET /health HTTP/1.1\r\nHost: {}\r\n", port.address);
    let answers = port.ask(&format!("{}{one}Connection: close\r\n\r\n", format!("{one}\r\n").repeat(9))).await;
    let all = format!("{}\r\n\r\n{}", answers.head, answers.body.to_ascii_lowercase());
    assert_eq!(all.matches("http/1.1 429 too many requests").count(), 8, "{all}");
    assert_eq!(all.matches("retry-after: ").count(), 8, "{all}");
    for probe in ["/livez", "/readyz/shutdown", "/startupz"] {
        assert_ne!(port.get(probe).await.status, 429, "{probe}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_setting() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = holder.local_addr().expect("a bound listener");
    let error = bind(config(json!({"admin": {"listen": address.to_string()}}))).expect_err("the port is taken");
    assert!(matches!(error, BindError::InUse(found) if found == address));
    let expected = format!("{address} is in use, expected a free port; choose another by admin.listen (--admin)");
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_connection_stays_for_the_next_scrape_and_a_head_that_never_ends_does_not_hold_it() {
    let port = Port::start_with(healthy(), json!({"admin": {"connections": 2}})).await;
    let mut stream = TcpStream::connect(port.address).await.expect("the port accepts");
    for _ in 0..3 {
        let request = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", port.address);
        stream.write_all(request.as_bytes()).await.expect("the port reads");
        let mut answer = [0; 4_096];
        let length = timeout(PATIENCE, stream.read(&mut answer)).await.expect("in time").expect("an answer");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
    }
    let mut slow = TcpStream::connect(port.address).await.expect("the port accepts");
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.expect("the port reads");
    // both places are taken: the third is served once the slow one is cut off
    let third = timeout(PATIENCE * 3, port.get("/livez")).await;
    assert_eq!(third.expect("the slow head was cut off").status, 200);
}
