//! Own checks of each kind, against real peers: what is found when these are well, and what when they are not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use content_factory_sidecar::model::health::HealthStatus;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::checks_services::{Checks, black_hole};
use crate::port::Port;
use crate::proxy_world::spawn;

/// A check by this name, run five times a second, each result of which counts.
pub(crate) fn quick(mut check: Value) -> Value {
    let pace = json!({"period": "200ms", "timeout": "190ms", "failure_threshold": 1, "success_threshold": 1});
    for (key, value) in pace.as_object().expect("a map") {
        check.as_object_mut().expect("a map").entry(key).or_insert(value.clone());
    }
    check
}

pub(crate) fn start(check: Value) -> Checks {
    Checks::start(json!({"checks": {"own": quick(check)}}), None, None)
}

/// Waits until the check says so, and gives its status.
pub(crate) async fn says(check: Value, message: &str) -> HealthStatus {
    let shown = check.to_string();
    let mut checks = start(check);
    let report = checks.until("own", |report| report.message.as_str() == message).await;
    assert!(report.history.runs.iter().any(|runs| *runs > 0), "{shown} has run");
    report.status
}

/// Answers every request with these bytes.
pub(crate) fn answers(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

pub(crate) fn with_body(status: &str, body: &str) -> String {
    let head = "Content-Type: application/json\r\nConnection: close\r\n";
    format!("HTTP/1.1 {status}\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A server of TLS whose own certificate lasts for so many days: its address, and that certificate in PEM.
pub(crate) async fn tls_server(days: u64) -> (SocketAddr, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + (now + Duration::from_secs(days * 86_400 + 3_600));
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("it signs itself").pem();
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).flatten().collect();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let answer = with_body("200 OK", "{}");
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 4_096]).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            });
        }
    });
    (address, certificate)
}

#[tokio::test]
async fn an_answer_over_http_must_meet_each_condition() {
    let up = |expect: Value| (with_body("200 OK", r#"{"state":"up","jobs":[3]}"#), expect);
    let large = with_body("200 OK", &format!(r#"{{"state":"{}"}}"#, "x".repeat(64 * 1024)));
    for ((answer, expect), message, status) in [
        (up(json!({})), "own check successful", HealthStatus::Healthy),
        (
            up(json!({"status": [200], "json": {"/state": "up", "/jobs/0": 3}, "header": {"content-type": "json"}})),
            "own check successful",
            HealthStatus::Healthy,
        ),
        (up(json!({"status": [204]})), "own check failed: status_200", HealthStatus::Unhealthy),
        (up(json!({"json": {"/state": "down"}})), "own check failed: json", HealthStatus::Unhealthy),
        (up(json!({"header": {"content-type": "html"}})), "own check failed: header", HealthStatus::Unhealthy),
        (up(json!({"latency": "1ms"})), "own check failed: latency", HealthStatus::Unhealthy),
        ((large, json!({"json": {"/state": "up"}})), "own check failed: body_too_large", HealthStatus::Unhealthy),
        (
            (with_body("503 Service Unavailable", ""), json!({"status": "2xx,503"})),
            "own check successful",
            HealthStatus::Healthy,
        ),
    ] {
        let url = format!("http://{}/health", answers(answer));
        // a peer on another thread answers within a millisecond now and then: then it met the condition
        assert_eq!(says(json!({"kind": "http", "url": url, "expect": expect}), message).await, status, "{message}");
    }
}

#[tokio::test]
async fn a_secret_for_the_authorization_is_sent_and_told_nowhere() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    let check = json!({"kind": "http", "url": format!("http://{address}/"), "authorization": "Bearer canary-canary"});
    let mut checks = start(check);
    let mut head = [0; 4_096];
    let length = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().expect("the check connects");
        let length = stream.read(&mut head).expect("the check asks");
        stream.write_all(with_body("401 Unauthorized", "canary-canary").as_bytes()).expect("the check reads");
        (length, head)
    });
    let (length, head) = length.await.expect("no panic");
    assert!(String::from_utf8_lossy(&head[..length]).contains("authorization: Bearer canary-canary\r\n"));
    let report = checks.until("own", |report| report.status == HealthStatus::Unhealthy).await;
    assert_eq!(report.message.as_str(), "own check failed: auth");
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_degraded_and_one_of_a_stranger_is_a_failure() {
    let (address, certificate) = tls_server(5).await;
    let pace = json!({"period": "2s", "timeout": "1900ms"});
    let tls = |own: Value| {
        let mut check = json!({"kind": "tls", "address": format!("localhost:{}", address.port())});
        for (key, value) in pace.as_object().into_iter().chain(own.as_object()).flatten() {
            check[key] = value.clone();
        }
        check
    };
    let ends = says(tls(json!({"ca": certificate})), "certificate ends in 5 days").await;
    assert_eq!(ends, HealthStatus::Degraded);
    let lasts = says(tls(json!({"ca": certificate, "certificate_days": 4})), "own check successful").await;
    assert_eq!(lasts, HealthStatus::Healthy);
    let (_, stranger) = tls_server(5).await;
    assert_eq!(says(tls(json!({"ca": stranger})), "own check failed: tls").await, HealthStatus::Unhealthy);
    let other_name = tls(json!({"ca": certificate, "server_name": "other.example"}));
    assert_eq!(says(other_name, "own check failed: tls").await, HealthStatus::Unhealthy);
    let url = format!("https://localhost:{}/", address.port());
    let https = |expect: Value| json!({"kind": "http", "url": url, "ca": certificate, "expect": expect, "period": "2s", "timeout": "1900ms"});
    let ends = says(https(json!({"certificate_days": 14})), "certificate ends in 5 days").await;
    assert_eq!(ends, HealthStatus::Degraded);
    assert_eq!(says(https(json!({})), "own check successful").await, HealthStatus::Healthy);
}

#[tokio::test]
async fn a_port_and_a_name_are_found_or_not() {
    let address = black_hole().to_string();
    assert_eq!(says(json!({"kind": "tcp", "address": address}), "own check successful").await, HealthStatus::Healthy);
    let nobody = Port::reserve();
    let refused = json!({"kind": "tcp", "address": nobody.address().to_string()});
    assert_eq!(says(refused, "own check failed: refused").await, HealthStatus::Unhealthy);
    let localhost = json!({"kind": "dns", "host": "localhost", "addresses": ["127.0.0.1", "::1"]});
    assert_eq!(says(localhost, "own check successful").await, HealthStatus::Healthy);
    let elsewhere = json!({"kind": "dns", "host": "localhost", "addresses": "192.0.2.1"});
    assert_eq!(says(elsewhere, "own check failed: address").await, HealthStatus::Unhealthy);
    let unknown = json!({"kind": "dns", "host": "name.invalid", "period": "10s", "timeout": "9s"});
    assert_eq!(says(unknown, "own check failed: dns").await, HealthStatus::Unhealthy);
}

#[tokio::test]
async fn databases_and_keys_of_ones_own_are_looked_at_like_the_built_in_ones() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("own.db");
    let sqlite = || json!({"kind": "sql", "url": format!("sqlite:///{}", file.display())});
    assert_eq!(says(sqlite(), "own check failed: not_found").await, HealthStatus::Unhealthy);
    std::fs::write(&file, "").expect("an empty file is an empty database");
    assert_eq!(says(sqlite(), "own check successful").await, HealthStatus::Healthy);
    let hole = black_hole();
    for url in [format!("postgresql://u:canary-canary@{hole}/x"), format!("postgres://{hole}/x")] {
        assert_eq!(
            says(json!({"kind": "sql", "url": url}), "own check failed: timeout").await,
            HealthStatus::Unhealthy
        );
    }
    let redis = json!({"kind": "redis", "url": format!("redis://:canary-canary@{hole}/0")});
    assert_eq!(says(redis, "own check failed: timeout").await, HealthStatus::Unhealthy);
    let keys = folder.path().join(".env");
    std::fs::write(&keys, "STRIPE_KEY=canary-canary\n").expect("a file");
    let env = json!({"kind": "env", "keys": ["STRIPE_KEY", "OTHER"], "env_file": keys.display().to_string()});
    assert_eq!(says(env, "STRIPE_KEY configured, OTHER missing").await, HealthStatus::Degraded);
}

#[tokio::test]
async fn the_wait_for_a_place_is_nobodys_latency() {
    let hole = black_hole();
    let pace = |check: Value| {
        let mut check = quick(check);
        (check["period"], check["timeout"], check["degraded_above"]) = (json!("1s"), json!("900ms"), json!("800ms"));
        check
    };
    let document = json!({"health": {"concurrency": 1}, "checks": {
        "hang": pace(json!({"kind": "redis", "url": format!("redis://{hole}/0")})),
        "live": pace(json!({"kind": "tcp", "address": hole.to_string()})),
    }});
    let mut checks = Checks::start(document, None, None);
    checks.until("hang", |report| report.history.runs[HealthStatus::Unhealthy as usize] >= 3).await;
    let live = checks.until("live", |report| report.history.runs.iter().sum::<u64>() >= 3).await;
    assert_eq!(live.history.runs, [0, live.history.runs[1], 0, 0], "it waited for the other's place, and was not slow");
}

#[tokio::test]
async fn no_more_checks_run_at_once_than_are_allowed_and_the_next_begins_when_one_ends() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port 0 is free");
    let url = format!("http://{}/", listener.local_addr().expect("a bound listener"));
    let check = json!({"kind": "http", "url": url, "period": "1h", "timeout": "30s"});
    let own: Value =
        (0..5).map(|number| (format!("own-{number}"), check.clone())).collect::<serde_json::Map<_, _>>().into();
    let _checks = Checks::start(json!({"health": {"concurrency": 2}, "checks": own}), None, None);
    let asked =
        async |limit| tokio::time::timeout(limit, listener.accept()).await.map(|taken| taken.expect("a connection").0);
    let (soon, never) = (Duration::from_secs(10), Duration::from_secs(1));
    let mut first = asked(soon).await.expect("one runs");
    let _second = asked(soon).await.expect("two run");
    assert!(asked(never).await.is_err(), "a third one runs");
    let answer = with_body("200 OK", "{}");
    tokio::io::AsyncWriteExt::write_all(&mut first, answer.as_bytes()).await.expect("an open connection");
    let _third = asked(soon).await.expect("the third begins");
}
