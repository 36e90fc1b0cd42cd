//! Targets of checks that send without end: each costs its own check a failure, and nobody memory.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use crate::checks_endpoints::until;
use crate::rig::{Sidecar, echo_application};

/// What all of them together may take, in KiB: in a tenth of a second loopback brings more.
const MOST_KIB: u64 = 64 << 10;

/// Answers each connection with this, and then with one letter for as long as anybody reads.
fn flood(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is free");
    let address = listener.local_addr().expect("a bound listener");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4_096]);
                let mut next = answer.as_bytes();
                while stream.write_all(next).is_ok() {
                    next = &[b'x'; 64 << 10];
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn targets_that_send_without_end_cost_their_own_check_a_failure_and_no_memory() {
    let text = "$200000000000\r\n";
    let http = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
    let targets = [
        ("text", format!("kind: redis, url: \"redis://{}/0\"", flood(text)), "timeout"),
        ("unasked", format!("kind: redis, url: \"redis://{}/0\"", flood("+PONG\r\n$200000000000\r\n")), "timeout"),
        ("word", format!("kind: redis, url: \"redis://{}/0\"", flood("+PO")), "protocol"),
        ("list", format!("kind: redis, url: \"redis://{}/0\"", flood("*2000000000\r\n")), "protocol"),
        ("head", format!("kind: http, url: \"http://{}/\"", flood("HTTP/1.1 200 OK\r\nx: ")), "protocol"),
        (
            "body",
            format!(
                "kind: http, url: \"http://{}/\", expect: {{json: {{/a: b}}}}",
                flood("HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n")
            ),
            "body_too_large",
        ),
        ("grpc", format!("kind: grpc, url: \"http://{}\"", flood(http)), "protocol"),
        ("tls", format!("kind: tls, address: \"{}\", server_name: localhost", flood(http)), "tls"),
    ];
    let mut yaml = String::from("checks:\n");
    for (name, check, _) in &targets {
        yaml += &format!("  {name}: {{{check}, period: 1s, timeout: 900ms, failure_threshold: 1}}\n");
    }
    yaml += &format!("  live: {{kind: tcp, address: \"{}\", period: 200ms, timeout: 190ms}}\n", flood(""));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sidecar.yaml");
    std::fs::write(&file, yaml).expect("a file in a new folder");
    let config = file.display().to_string();
    let sidecar = Sidecar::start(echo_application().await, &["--config", &config], &[]).await;
    let before = sidecar.resident_kib();
    for (name, _, word) in &targets {
        let message = format!("{name} check failed: {word}");
        // the one that answers first and floods afterwards is well each second time
        let runs = if *name == "unasked" { 1 } else { 3 };
        let is_found = |check: &Value| check["message"] == message.as_str() && check["streak"].as_u64() >= Some(runs);
        until(&sidecar, name, is_found).await;
    }
    until(&sidecar, "live", |check| check["status"] == "healthy" && check["streak"].as_u64() >= Some(10)).await;
    let grown = sidecar.peak_kib().saturating_sub(before);
    assert!(grown < MOST_KIB, "{grown} KiB more than the {before} KiB of the start");
}
