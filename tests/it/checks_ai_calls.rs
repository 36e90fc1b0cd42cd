//! What real calls of an AI service tell the checks: the binary between an application and a service that the test makes fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::checks_endpoints::{json, until};
use crate::egress::{post, sidecar_of};
use crate::port::Port;
use crate::raw::{Client, origin};
use crate::rig::Sidecar;

/// A service, a sidecar before it whose checks look five times a second, and the application's port for calls.
struct World {
    sidecar: Sidecar,
    egress: SocketAddr,
    _folder: TempDir,
}

/// Says nothing to a call, but that the connection is over.
const HANGS_UP: u16 = 0;

/// A service that answers with this status, as it is then.
fn service(status: &Arc<AtomicU16>) -> SocketAddr {
    let status = Arc::clone(status);
    origin(move |_, mut client| {
        while client.try_message().is_some() {
            match status.load(Ordering::SeqCst) {
                HANGS_UP => return,
                status => client.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}")),
            }
        }
    })
}

impl World {
    /// Before this service; `more` are keys of the own check.
    async fn start(service: SocketAddr, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("sidecar.yaml");
        let pace = "period: 200ms, timeout: 190ms";
        let yaml = format!("checks:\n  ai_services: {{{pace}}}\n  openai: {{kind: ai_calls, {pace}{more}}}\n");
        std::fs::write(&file, yaml).expect("a file in a new folder");
        let path = file.display().to_string();
        let quick = [("SIDECAR_EGRESS__READ_TIMEOUT", "500ms")];
        let (sidecar, egress) = sidecar_of(service, &["--config", &path], &quick).await;
        Self { sidecar, egress, _folder: folder }
    }

    /// The application calls, so often, and gets this status from its side of the port.
    fn call(&self, times: usize, status: u16) {
        let mut client = Client::new(self.egress);
        for _ in 0..times {
            client.send(post("/v1/chat/completions", "Authorization: Bearer canary-canary\r\n", b"{}"));
            assert_eq!(client.message().status(), status);
        }
    }

    /// Waits until both checks say so.
    async fn becomes(&self, status: &str, words: [&str; 2]) {
        for (name, words) in ["openai", "ai_services"].into_iter().zip(words) {
            let check = until(&self.sidecar, name, |check| check["message"] == words).await;
            assert_eq!(check["status"], status, "{check}");
            assert_eq!(check["kind"], "ai_calls");
        }
    }

    /// The same of a failure of this class.
    async fn fails(&self, class: &str) {
        let words = ["openai", "AI services"].map(|subject| format!("{subject} check failed: {class}"));
        self.becomes("unhealthy", words.each_ref().map(String::as_str)).await;
    }

    async fn works(&self) {
        self.becomes("healthy", ["openai check successful", "AI services connection successful"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_calls_tell_a_revoked_key_a_quota_and_an_outage_apart_without_a_call_of_our_own() {
    let status = Arc::new(AtomicU16::new(200));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let behind = service(&status);
    // one more hop, so that what reaches the service is counted whoever sends it
    let door = origin(move |_, mut client| {
        while let Some(message) = client.try_message() {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut onward = Client::new(behind);
            onward.send(message.head);
            onward.send(message.body);
            let Some(answer) = onward.try_message() else { return };
            client.send(answer.head);
            client.send(answer.body);
        }
    });
    let world = World::start(door, "").await;
    let unseen = "no call of the AI service seen yet";
    world.becomes("unknown", [unseen; 2]).await;
    let mut made = 0;
    for (answered, times, seen, class) in [
        (200, 3, 200, None),
        (401, 1, 401, Some("key_revoked")),
        (200, 1, 200, None),
        (429, 3, 429, Some("quota")),
        (200, 30, 200, None),
        (503, 3, 503, Some("server_error")),
        (200, 30, 200, None),
        (HANGS_UP, 3, 502, Some("server_error")),
        (200, 60, 200, None),
        (403, 3, 403, Some("forbidden")),
    ] {
        status.store(answered, Ordering::SeqCst);
        world.call(times, seen);
        made += times;
        match class {
            Some(class) => world.fails(class).await,
            // what failed before is still a share of the last ten minutes
            None => drop(until(&world.sidecar, "openai", |check| check["result"] != "unhealthy").await),
        }
    }
    let health = json(&world.sidecar.ask("/health").await.1);
    assert_eq!(health["services"]["ai_services"]["status"], "unhealthy");
    assert_eq!(calls.load(Ordering::SeqCst), made, "nobody calls the service but the application");
    assert!(!world.sidecar.ask("/api/v1/monitoring/checks").await.1.contains("canary"), "a key is told nowhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_away_and_one_that_never_answers_are_outages() {
    let nobody = Port::reserve();
    let away = World::start(nobody.address(), "").await;
    away.call(3, 502);
    away.fails("unreachable").await;
    let silent = World::start(crate::checks_services::black_hole(), "").await;
    silent.call(3, 504);
    silent.fails("timeout").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_calls_that_fail_are_degraded_and_what_is_wrong_with_a_request_says_nothing() {
    let status = Arc::new(AtomicU16::new(404));
    let world = World::start(service(&status), "").await;
    world.call(5, 404);
    status.store(500, Ordering::SeqCst);
    world.call(2, 500);
    status.store(200, Ordering::SeqCst);
    world.call(8, 200);
    let words = "2 of 10 calls of the AI service failed, most by server_error";
    world.becomes("degraded", [words; 2]).await;
    world.call(11, 200);
    world.works().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nobody_calls_a_key_of_its_own_is_asked_with_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let own = origin(move |_, mut client| {
        while let Some(message) = client.try_message() {
            counted.fetch_add(1, Ordering::SeqCst);
            let status = if message.field("authorization") == Some("Bearer canary-canary") { 200 } else { 401 };
            client.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let status = Arc::new(AtomicU16::new(403));
    let more = format!(", url: \"http://{own}/v1/models\", key: canary-canary");
    let world = World::start(service(&status), &more).await;
    let many = |check: &Value| check["streak"].as_u64() >= Some(5);
    let check = until(&world.sidecar, "openai", many).await;
    assert_eq!(
        (&check["status"], asked.load(Ordering::SeqCst)),
        (&Value::from("healthy"), 1),
        "five runs, one question"
    );
    world.call(3, 403);
    world.fails("forbidden").await;
    assert_eq!(asked.load(Ordering::SeqCst), 1, "real calls are enough");
}

#[tokio::test]
async fn without_the_port_such_a_check_is_not_configured() {
    let document = serde_json::json!({"checks": {"own": {"kind": "ai_calls"}}});
    let checks = crate::checks_services::Checks::start(document, None, None);
    let reports = checks.reader.borrow().clone();
    let own = reports.iter().find(|report| report.name == "own").expect("a report");
    assert_eq!(own.message.as_str(), "not configured");
}
