//! Own checks of the kinds that judge more than a connection: gRPC's own word, AI services, commands, the application itself, and
//! checks of checks.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use content_factory_sidecar::fetch::provide_cryptography;
use content_factory_sidecar::model::health::HealthStatus;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::checks_own::{answers, quick, says, with_body};
use crate::checks_services::{Checks, black_hole};
use crate::grpc_tonic::{Later, Plain};
use crate::port::Port;
use crate::proxy_world::spawn;
use crate::telemetry_certificates::Authority;

/// `grpc.health.v1.Health` of a server whose services are well, sick or unknown by their names.
#[derive(Clone, Copy, Debug)]
struct Health;

impl NamedService for Health {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl UnaryService<Bytes> for Health {
    type Response = Bytes;
    type Future = Later<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        Box::pin(async move {
            match request.get_ref().as_ref() {
                b"" => Ok(Response::new(Bytes::from_static(&[8, 1]))),
                b"\n\x04sick" => Ok(Response::new(Bytes::from_static(&[8, 2]))),
                b"\n\x05shut!" => Err(Status::unauthenticated("canary-canary")),
                _ => Err(Status::not_found("no such service")),
            }
        })
    }
}

impl Service<http::Request<Body>> for Health {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Later<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(tonic::server::Grpc::new(Plain).unary(Self, request).await) })
    }
}

async fn grpc_server() -> SocketAddr {
    grpc_server_by(Server::builder()).await
}

async fn grpc_server_by(mut server: Server) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    spawn(async move {
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        server.add_service(Health).serve_with_incoming(incoming).await.expect("it serves");
    });
    address
}

#[tokio::test]
async fn a_grpc_server_is_as_well_as_it_says() {
    let url = format!("http://{}", grpc_server().await);
    for (service, message, status) in [
        ("", "own check successful", HealthStatus::Healthy),
        ("sick", "own check failed: not_serving", HealthStatus::Unhealthy),
        ("shut!", "own check failed: auth", HealthStatus::Unhealthy),
        ("other", "own check failed: not_found", HealthStatus::Unhealthy),
    ] {
        let check = json!({"kind": "grpc", "url": url, "service": service});
        assert_eq!(says(check, message).await, status, "{service}");
    }
    let nobody = Port::reserve();
    let refused = json!({"kind": "grpc", "url": format!("http://{}", nobody.address())});
    assert_eq!(says(refused, "own check failed: refused").await, HealthStatus::Unhealthy);
    let silent = json!({"kind": "grpc", "url": format!("http://{}", black_hole())});
    assert_eq!(says(silent, "own check failed: timeout").await, HealthStatus::Unhealthy);
}

#[tokio::test]
async fn a_grpc_server_is_asked_by_tls_and_one_that_nobody_vouches_for_is_told_apart() {
    provide_cryptography();
    let (authority, other) = (Authority::new(), Authority::new());
    for (name, trusted, message, status) in [
        ("127.0.0.1", &authority, "own check successful", HealthStatus::Healthy),
        ("127.0.0.1", &other, "own check failed: tls", HealthStatus::Unhealthy),
        ("grpc.example", &authority, "own check failed: tls", HealthStatus::Unhealthy),
    ] {
        let identity = authority.server(name);
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(&identity.certificate, &identity.key));
        let address = grpc_server_by(Server::builder().tls_config(tls).expect("a certificate and its key")).await;
        let check = json!({"kind": "grpc", "url": format!("https://{address}"), "ca": trusted.certificate});
        assert_eq!(says(check, message).await, status, "{name} {message}");
    }
    // in clear text nobody answers there
    let clear = json!({"kind": "grpc", "url": format!("https://{}", grpc_server().await), "ca": authority.certificate});
    assert_eq!(says(clear, "own check failed: tls").await, HealthStatus::Unhealthy);
}

/// Answers with 200 to whoever shows this key, as its header has it, and with 401 to all others.
fn ai_server(header: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4_096];
            let length = stream.read(&mut head).unwrap_or_default();
            let is_known = String::from_utf8_lossy(&head[..length]).contains(header);
            let answer = with_body(if is_known { "200 OK" } else { "401 Unauthorized" }, r#"{"data":[]}"#);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[tokio::test]
async fn a_revoked_key_a_forbidden_one_a_quota_and_an_outage_are_told_apart() {
    let ai = |address: SocketAddr| json!({"kind": "ai", "url": format!("http://{address}/v1/models"), "key": "canary-canary"});
    let bearer = ai_server("authorization: Bearer canary-canary\r\n");
    assert_eq!(says(ai(bearer), "own check successful").await, HealthStatus::Healthy);
    let mut revoked = ai(bearer);
    revoked["key"] = json!("another-canary");
    assert_eq!(says(revoked, "own check failed: key_revoked").await, HealthStatus::Unhealthy);
    let mut own_header = ai(ai_server("x-api-key: canary-canary\r\n"));
    own_header["header"] = json!("x-api-key");
    assert_eq!(says(own_header, "own check successful").await, HealthStatus::Healthy);
    for (answer, message) in [
        ("403 Forbidden", "own check failed: forbidden"),
        ("429 Too Many Requests", "own check failed: quota"),
        ("503 Service Unavailable", "own check failed: status_503"),
    ] {
        assert_eq!(says(ai(answers(with_body(answer, ""))), message).await, HealthStatus::Unhealthy);
    }
    let nobody = Port::reserve();
    assert_eq!(says(ai(nobody.address()), "own check failed: refused").await, HealthStatus::Unhealthy);
}

/// Runs this command as a check, where that is allowed.
fn command(command: Value) -> Checks {
    let check = quick(json!({"kind": "exec", "command": command, "period": "1s", "timeout": "900ms"}));
    Checks::start(json!({"health": {"allow_exec": true}, "checks": {"own": check}}), None, None)
}

/// The arguments of the processes that run now.
fn processes() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/proc").expect("procfs").flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok()).collect()
}

#[tokio::test]
async fn the_exit_code_of_a_command_decides_and_no_shell_reads_it() {
    for (line, message) in [
        (json!(["true"]), "own check successful"),
        (json!(["false"]), "own check failed: exit_1"),
        (json!(["sh", "-c", "exit 7; echo a,b"]), "own check failed: exit_7"),
        (json!(["test", "$HOME", "=", "$HOME", "-a", "a,b", "=", "a,b"]), "own check successful"),
        (json!(["sh", "-c", "test -z \"$CARGO_MANIFEST_DIR$HOME\" || exit 9"]), "own check successful"),
        (json!(["sh", "-c", "kill -9 $$"]), "own check failed: killed"),
        (json!(["/nowhere/probe"]), "own check failed: not_found"),
    ] {
        let mut checks = command(line.clone());
        checks.until("own", |report| report.message.as_str() == message).await;
    }
}

#[tokio::test]
async fn a_command_that_does_not_end_is_killed_with_all_that_it_started() {
    // a length of its own tells these sleeps from everybody else's
    let line = json!(["sh", "-c", "sleep 86399.25 & sleep 86399.25"]);
    let is_ours = |line: &String| line.starts_with("sleep\0") && line.contains("86399.25");
    let mut checks = command(line);
    checks.until("own", |report| report.message.as_str() == "own check failed: timeout").await;
    drop(checks);
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes().iter().any(is_ours) {
        assert!(Instant::now() < deadline, "a sleep is still there");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_check_of_checks_is_as_well_as_the_worst_of_all_or_the_best_of_any() {
    let hole = black_hole();
    let nobody = Port::reserve();
    let document = json!({"checks": {
        "up": quick(json!({"kind": "tcp", "address": hole.to_string()})),
        "down": quick(json!({"kind": "tcp", "address": nobody.address().to_string()})),
        "both": quick(json!({"kind": "composite", "all": ["up", "down"]})),
        "one": quick(json!({"kind": "composite", "any": "up,down"})),
        "none": quick(json!({"kind": "composite", "all": ["database"]})),
    }});
    let mut checks = Checks::start(document, None, None);
    for (name, status, message) in [
        ("both", HealthStatus::Unhealthy, "up healthy, down unhealthy"),
        ("one", HealthStatus::Healthy, "up healthy, down unhealthy"),
        ("none", HealthStatus::Unknown, "database unknown"),
    ] {
        let report = checks.until(name, |report| report.message.as_str() == message).await;
        assert_eq!(report.status, status, "{name}");
    }
}

#[tokio::test]
async fn the_applications_own_word_is_passed_on_without_its_texts() {
    let sick = r#"{"status":"degraded","services":{"redis":{"status":"unhealthy","message":"canary-canary"}}}"#;
    let application = answers(with_body("200 OK", sick));
    let document = json!({"checks": {"own": {"kind": "app"}}});
    let mut checks = Checks::start(document, None, Some(application));
    let report = checks.until("own", |report| report.checked_at.is_some()).await;
    assert_eq!((report.status, report.message.as_str()), (HealthStatus::Degraded, "application says degraded: redis"));
}

#[tokio::test]
async fn a_held_up_event_loop_is_degraded_and_a_quick_one_well() {
    let lag = || json!({"checks": {"own": quick(json!({"kind": "loop_lag", "above": "500ms", "period": "1s", "timeout": "900ms"}))}});
    let mut held = Checks::start(lag(), None, Some(black_hole()));
    let words = "application accepts, but a cheap answer takes too long: its event loop is held up";
    held.says("own", HealthStatus::Degraded, words).await;
    let mut quick = Checks::start(lag(), None, Some(answers(with_body("404 Not Found", ""))));
    quick.says("own", HealthStatus::Healthy, "own check successful").await;
    let nobody = Port::reserve();
    let mut away = Checks::start(lag(), None, Some(nobody.address()));
    away.says("own", HealthStatus::Unhealthy, "own check failed: refused").await;
}
