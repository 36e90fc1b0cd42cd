//! Floods of frames (RFC 9113, section 10.5): whoever else asks is still served, and memory stays bounded.
//!
//! One attacker sends as fast as one connection takes it, and comes again when it is cut off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout};

use crate::h2_world::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
    encode,
};
use crate::proxy_world::{Application, Client, spawn};
use crate::rig::{PATIENCE, Sidecar};

/// Clients that ask in peace.
const CLIENTS: usize = 16;

const WHILE: Duration = Duration::from_millis(1_200);

/// At least one in so many of the requests of peaceful times is answered. The attacker, the application and these clients
/// share the test's two threads, so that some of the difference is not the sidecar's.
const SHARE: u64 = 5;

/// Memory that an attack may take.
const GROWTH_KIB: u64 = 32 << 10;

/// A request that is not complete until more comes.
fn head(path: &str) -> Vec<u8> {
    block(&[(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "h")])
}

/// What is sent: once at the begin of a connection, and then again and again.
struct Flood {
    begin: Vec<u8>,
    again: fn(&mut u32) -> Vec<u8>,
}

/// Attacks until it is told to stop; counts the bytes that were taken.
#[derive(Default)]
struct Attack {
    over: AtomicBool,
    bytes: AtomicU64,
}

impl Attack {
    async fn run(&self, proxy: SocketAddr, flood: &Flood) {
        while !self.over.load(Ordering::Relaxed) {
            let Ok(stream) = TcpStream::connect(proxy).await else { continue };
            let (mut reader, mut writer) = stream.into_split();
            spawn(async move {
                let mut sink = vec![0; 64 << 10];
                while reader.read(&mut sink).await.is_ok_and(|count| count > 0) {}
            });
            let mut next = 1;
            let mut piece = [PREFACE, &encode((SETTINGS, 0), 0, b""), &flood.begin].concat();
            while !self.over.load(Ordering::Relaxed) && writer.write_all(&piece).await.is_ok() {
                self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                piece = (flood.again)(&mut next);
            }
        }
    }
}

/// How many requests some clients get answered in this time.
async fn served(proxy: SocketAddr) -> u64 {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(served_one(proxy));
    }
    clients.join_all().await.into_iter().sum()
}

async fn served_one(proxy: SocketAddr) -> u64 {
    let mut client = Client::connect(proxy).await.expect("the proxy accepts");
    let (begun, mut answers) = (Instant::now(), 0);
    while begun.elapsed() < WHILE {
        client.get("/other").await.expect("the connection holds");
        assert_eq!(client.answer().await, Some((200, true)));
        answers += 1;
    }
    answers
}

/// Attacks beside clients that ask in peace.
async fn withstands(flood: Flood) {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let in_peace = served(sidecar.proxy).await;
    let before = sidecar.resident_kib();
    let attack = Arc::new(Attack::default());
    let (attacker, proxy) = (Arc::clone(&attack), sidecar.proxy);
    let (ended, end) = tokio::sync::oneshot::channel();
    spawn(async move {
        attacker.run(proxy, &flood).await;
        let _the_test_waits = ended.send(());
    });
    let under_attack = served(sidecar.proxy).await;
    let grown = sidecar.resident_kib().saturating_sub(before);
    attack.over.store(true, Ordering::Relaxed);
    timeout(PATIENCE, end).await.expect("the attack ends").expect("the attacker lives");
    let bytes = attack.bytes.load(Ordering::Relaxed);
    assert!(under_attack * SHARE >= in_peace, "{under_attack} requests under attack, {in_peace} in peace");
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    assert!(bytes > 1_000, "no attack");
}

fn two_frames(next: &mut u32, first: (u8, u8, &[u8]), second: (u8, u8, &[u8])) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..100 {
        bytes.extend(encode((first.0, first.1), *next, first.2));
        bytes.extend(encode((second.0, second.1), *next, second.2));
        *next += 2;
    }
    bytes
}

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset() {
    let again = |next: &mut u32| {
        two_frames(next, (HEADERS, END_HEADERS | END_STREAM, &head("/reset")), (RST_STREAM, 0, &[0, 0, 0, 8]))
    };
    withstands(Flood { begin: Vec::new(), again }).await;
}

/// CVE-2025-8671: frames that are wrong make us reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_that_we_are_made_to_send() {
    let again =
        |next: &mut u32| two_frames(next, (HEADERS, END_HEADERS, &head("/made")), (WINDOW_UPDATE, 0, &[0, 0, 0, 0]));
    withstands(Flood { begin: Vec::new(), again }).await;
}

/// A header block without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuations() {
    let again = |_: &mut u32| encode((CONTINUATION, 0), 1, &block(&[("x", "y")])).repeat(500);
    withstands(Flood { begin: encode((HEADERS, 0), 1, &head("/")), again }).await;
}

/// Frames that ask for an answer each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_pings() {
    let again = |_: &mut u32| {
        let settings = encode((SETTINGS, 0), 0, &[0, 3, 0, 0, 0, 100]);
        [settings, encode((PING, 0), 0, b"12345678")].concat().repeat(200)
    };
    withstands(Flood { begin: Vec::new(), again }).await;
}

/// DATA that carries nothing is free of flow control.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_data() {
    let again = |_: &mut u32| encode((DATA, 0), 1, b"").repeat(500);
    withstands(Flood { begin: encode((HEADERS, END_HEADERS), 1, &head("/upload")), again }).await;
}
