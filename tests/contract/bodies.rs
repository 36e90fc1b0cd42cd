//! Huge bodies pass through, byte for byte, at the pace of the slower side, and are held nowhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::body::{self, Framing};
use crate::memory::Memory;
use crate::origin::{Head, Origin, Site, Stream, connect, say};
use crate::page::{self, Kind};
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::{among_others, scaled};

const GB: u64 = 1_000_000_000;

/// Takes bodies and gives them; whoever sends goes on only when the other side has the first bytes.
#[derive(Default)]
struct Store {
    has_begun: Notify,
}

impl Site for Store {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let (size, framing) = wanted(head.path());
        if head.method() == "POST" {
            let length = head.field("content-length").map(|length| length.parse().expect("a number"));
            assert_eq!(length.is_none(), framing == Framing::Chunked, "the framing arrives as it was sent: {head:?}");
            let received = body::receive(stream, length, &self.has_begun).await?;
            return say(stream, 200, &received.to_string()).await;
        }
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{}\r\n", framing.field(size)).as_bytes()).await?;
        body::send(stream, (size, framing), &self.has_begun).await
    }
}

/// `/chunked/7` is a body of 7 bytes in chunks.
fn wanted(path: &str) -> (u64, Framing) {
    let (framing, size) = path[1..].split_once('/').expect("two segments");
    let framing = if framing == "chunked" { Framing::Chunked } else { Framing::Length };
    (size.parse().expect("a size"), framing)
}

fn path(size: u64, framing: Framing) -> String {
    format!("/{}/{size}", if framing == Framing::Chunked { "chunked" } else { "length" })
}

async fn upload(store: &Store, stream: &mut Stream, (size, framing): (u64, Framing)) -> std::io::Result<()> {
    let (path, field) = (path(size, framing), framing.field(size));
    stream.write_all(format!("POST {path} HTTP/1.1\r\nHost: h\r\n{field}\r\n").as_bytes()).await?;
    body::send(stream, (size, framing), &store.has_begun).await?;
    let head = timeout(PATIENCE, Head::read(stream)).await.expect("an answer in time")?.expect("an answer");
    assert_eq!(head.status(), 200);
    let length = head.field("content-length").expect("a length").parse().expect("a number");
    let mut said = vec![0; length];
    tokio::io::AsyncReadExt::read_exact(stream, &mut said).await?;
    assert_eq!(String::from_utf8_lossy(&said), size.to_string(), "bytes that the application received");
    Ok(())
}

async fn download(store: &Store, stream: &mut Stream, (size, framing): (u64, Framing)) -> std::io::Result<()> {
    stream.write_all(format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", path(size, framing)).as_bytes()).await?;
    let head = timeout(PATIENCE, Head::read(stream)).await.expect("an answer in time")?.expect("an answer");
    assert_eq!(head.status(), 200);
    let length = head.field("content-length").map(|length| length.parse().expect("a number"));
    assert_eq!(length.is_none(), framing == Framing::Chunked, "{head:?}");
    assert_eq!(body::receive(stream, length, &store.has_begun).await?, size, "bytes that the client received");
    Ok(())
}

/// Row 14: memory grows by at most 8 MiB, the first byte is out before the last one is in, and every byte is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_bodies_pass_both_ways_and_cost_no_memory() {
    let _machine = among_others().await;
    let size = scaled(GB, 10 * GB);
    let store = Arc::new(Store::default());
    let application = Origin::start(Arc::clone(&store)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut stream = connect(sidecar.proxy).await.unwrap();
    for framing in [Framing::Length, Framing::Chunked] {
        upload(&store, &mut stream, (10_000_000, framing)).await.unwrap();
        download(&store, &mut stream, (10_000_000, framing)).await.unwrap();
    }
    let memory = Memory::watch(&sidecar);
    for framing in [Framing::Length, Framing::Chunked] {
        upload(&store, &mut stream, (size, framing)).await.unwrap();
        download(&store, &mut stream, (size, framing)).await.unwrap();
        let grown = memory.peak_growth_kib();
        println!("{size} bytes each way, {framing:?}: {grown} KiB more at the highest");
        assert!(grown <= 8 << 10, "{grown} KiB more for {size} bytes, {framing:?}");
    }
    let page = page::settled(&sidecar, 8).await;
    assert_eq!(page::tally(&page), [((Kind::Ordinary, 200, String::new()), 8)].into());
    let received = page::sum(&page, "http_server_request_body_size_bytes_sum", "");
    assert_eq!(received as u64, 2 * size + 20_000_000, "bytes that the metrics say were received");
}

/// Takes a body and gives one, both of so many pieces with a pause behind each.
struct Slow {
    pieces: u64,
}

/// Of a body that takes its time, one each tenth of a second.
const PIECE: u64 = 100;
const PAUSE: Duration = Duration::from_millis(100);

impl Slow {
    async fn send(&self, stream: &mut Stream) -> std::io::Result<()> {
        for number in 0..self.pieces {
            stream.write_all(body::piece(number * PIECE, PIECE)).await?;
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Site for Slow {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let length = self.pieces * PIECE;
        if head.method() == "POST" {
            let received = body::receive(stream, Some(length), &Notify::new()).await?;
            return say(stream, 200, &received.to_string()).await;
        }
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await?;
        self.send(stream).await
    }
}

/// Row 14: no deadline is one of the whole: a body that goes on may take longer than each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_goes_on_has_all_the_time_that_it_takes() {
    let _machine = among_others().await;
    let site = Arc::new(Slow { pieces: scaled(60, 600) });
    let application = Origin::start(Arc::clone(&site)).await;
    let limits = ["HEADER", "BODY_IDLE", "FIRST_BYTE", "WRITE_STALL", "CLIENT_IDLE"];
    let limits = limits.map(|name| (format!("SIDECAR_PROXY__TIMEOUTS__{name}"), "3s"));
    let limits: Vec<(&str, &str)> = limits.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let sidecar = Sidecar::start(application.address, &[], &limits).await;
    let (length, proxy) = (site.pieces * PIECE, sidecar.proxy);
    let up = async {
        let mut stream = connect(proxy).await.unwrap();
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        site.send(&mut stream).await.unwrap();
        Head::read(&mut stream).await.unwrap().expect("an answer").status()
    };
    let down = async {
        let mut stream = connect(proxy).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        assert_eq!(Head::read(&mut stream).await.unwrap().expect("an answer").status(), 200);
        body::receive(&mut stream, Some(length), &Notify::new()).await.unwrap()
    };
    assert_eq!(tokio::join!(up, down), (200, length));
}
