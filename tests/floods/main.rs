//! Floods of HTTP/2 (RFC 9113, section 10.5): who asks in peace is served on, and memory stays bounded.
//!
//! A program of its own, so that nothing else is tried beside it. The long form (`CONTRACT=full`) asks for half of the
//! throughput of a release build, which `SIDECAR_BIN` names, on a machine with a core for each who takes part. What is
//! compared are counts of one run.

#![expect(clippy::disallowed_methods, reason = "tests choose their size by the environment and take real time")]
#![expect(clippy::print_stdout, reason = "the figures of a run are its result")]

mod cost;
mod flood;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/h2_world.rs"]
mod h2_world;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../contract/memory.rs"]
mod memory;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../contract/origin.rs"]
mod origin;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../contract/page.rs"]
mod page;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/proxy_world.rs"]
mod proxy_world;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../it/rig.rs"]
mod rig;
#[expect(dead_code, reason = "shared with the other black-box tests, which use all of it")]
#[path = "../contract/scale.rs"]
mod scale;

use std::sync::OnceLock;

use flood::{Flood, Then, withstands};
use h2_world::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
    encode,
};

/// The kind of a frame that gives a priority, which we ignore.
const PRIORITY: u8 = 2;

/// The program that is tried: the release build when `make` names it.
fn binary() -> &'static str {
    static BINARY: OnceLock<String> = OnceLock::new();
    BINARY.get_or_init(|| {
        let chosen = std::env::var("SIDECAR_BIN").ok().filter(|path| !path.is_empty());
        chosen.unwrap_or_else(|| env!("CARGO_BIN_EXE_content-factory-sidecar").to_owned())
    })
}

/// What begins a connection.
fn greeting(settings: &[u8], more: &[u8]) -> Vec<u8> {
    [PREFACE, &encode((SETTINGS, 0), 0, settings), more].concat()
}

/// A request whose body is to come.
fn upload() -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/upload"), (":authority", "h")];
    encode((HEADERS, END_HEADERS), 1, &block(&fields))
}

/// A request without a body.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "h")];
    encode((HEADERS, END_HEADERS | END_STREAM), stream, &block(&fields))
}

/// On each of the next streams a request, and behind it a frame.
fn requests_with(next: &mut u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..100 {
        bytes.extend(get(*next, "/given-up"));
        bytes.extend(encode((kind, 0), *next, payload));
        *next += 2;
    }
    bytes
}

/// CVE-2023-44487 (RFC 9113, section 10.5): requests that are given up at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets() {
    let again: fn(&mut u32) -> Vec<u8> = |next: &mut u32| requests_with(next, RST_STREAM, &[0, 0, 0, 8]);
    withstands(Flood { name: "rapid reset", begin: greeting(b"", b""), then: Then::Again(again) }).await;
}

/// The same (RFC 9113, section 10.5), when each request is on its way to the application.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_resets() {
    let again: fn(&mut u32) -> Vec<u8> = |next: &mut u32| {
        let mut bytes = Vec::new();
        for _ in 0..15 {
            bytes.extend(get(*next, "/given-up"));
            if *next > 30 {
                bytes.extend(encode((RST_STREAM, 0), *next - 30, &[0, 0, 0, 8]));
            }
            *next += 2;
        }
        bytes
    };
    withstands(Flood { name: "later reset", begin: greeting(b"", b""), then: Then::Again(again) }).await;
}

/// CVE-2025-8671 (RFC 9113, sections 5.4.2 and 6.9): windows beyond all measure make us reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_that_we_are_made_to_send() {
    let again: fn(&mut u32) -> Vec<u8> = |next: &mut u32| requests_with(next, WINDOW_UPDATE, &[0x7f, 0xff, 0xff, 0xff]);
    withstands(Flood { name: "made to reset", begin: greeting(b"", b""), then: Then::Again(again) }).await;
}

/// RUSTSEC-2024-0332 (RFC 9113, sections 6.10 and 10.5): a header block without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuations() {
    let begin = greeting(b"", &encode((HEADERS, 0), 1, &block(&[(":method", "GET")])));
    let again: fn(&mut u32) -> Vec<u8> =
        |_: &mut u32| encode((CONTINUATION, 0), 1, &block(&[("x", "y")])).repeat(2_000);
    withstands(Flood { name: "CONTINUATION", begin, then: Then::Again(again) }).await;
}

/// RFC 9113, section 6.7: frames that ask for an answer each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings() {
    let again: fn(&mut u32) -> Vec<u8> = |_: &mut u32| encode((PING, 0), 0, b"12345678").repeat(2_000);
    withstands(Flood { name: "PING", begin: greeting(b"", b""), then: Then::Again(again) }).await;
}

/// RFC 9113, section 6.5.3: frames that ask for an answer each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings() {
    let again: fn(&mut u32) -> Vec<u8> = |_: &mut u32| encode((SETTINGS, 0), 0, &[0, 3, 0, 0, 0, 100]).repeat(2_000);
    withstands(Flood { name: "SETTINGS", begin: greeting(b"", b""), then: Then::Again(again) }).await;
}

/// Frames that are ignored (RFC 9113, section 5.3.2).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn priorities() {
    let again: fn(&mut u32) -> Vec<u8> = |_: &mut u32| encode((PRIORITY, 0), 1, &[0, 0, 0, 0, 16]).repeat(2_000);
    withstands(Flood { name: "PRIORITY", begin: greeting(b"", b""), then: Then::Again(again) }).await;
}

/// RFC 9113, sections 6.1 and 10.5: DATA that carries nothing is free of flow control.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data() {
    let again: fn(&mut u32) -> Vec<u8> = |_: &mut u32| encode((DATA, 0), 1, b"").repeat(2_000);
    withstands(Flood { name: "empty DATA", begin: greeting(b"", &upload()), then: Then::Again(again) }).await;
}

/// RFC 9113, section 4.1: a body byte by byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_one_byte() {
    let again: fn(&mut u32) -> Vec<u8> = |_: &mut u32| encode((DATA, 0), 1, b"x").repeat(2_000);
    withstands(Flood { name: "DATA of one byte", begin: greeting(b"", &upload()), then: Then::Again(again) }).await;
}

/// RFC 9113, section 6.9: windows that grow byte by byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_updates() {
    let again: fn(&mut u32) -> Vec<u8> = |_: &mut u32| encode((WINDOW_UPDATE, 0), 1, &[0, 0, 0, 1]).repeat(2_000);
    withstands(Flood { name: "WINDOW_UPDATE", begin: greeting(b"", &upload()), then: Then::Again(again) }).await;
}

/// RFC 9113, sections 5.2 and 10.5: large answers that are never taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_that_stay_shut() {
    let requests: Vec<u8> = (0..25).flat_map(|number| get(2 * number + 1, "/big")).collect();
    let begin = greeting(&[0, 4, 0, 0, 0, 0], &requests);
    withstands(Flood { name: "stalled windows", begin, then: Then::Stay }).await;
}

/// RFC 9113, section 9.1: connections that come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_ask_for_nothing() {
    withstands(Flood { name: "connections that greet and go", begin: greeting(b"", b""), then: Then::Leave }).await;
}
