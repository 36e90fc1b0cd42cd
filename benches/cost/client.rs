//! One connection that asks and reads its answer, over HTTP/1.1 or HTTP/2; it blocks, and knows no more than it needs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::request::{Body, Protocol};

/// A request that takes longer than that, under valgrind too, is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
const HOST: &str = "app.example";
const AGENT: &str = "cost/1";
const ACCEPT: &str = "application/json";

/// A connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    body: Body,
    /// The next stream of HTTP/2; none on a connection of HTTP/1.1.
    next: Option<u32>,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to a proxy that listens.
    pub(crate) fn connect(address: SocketAddr, protocol: Protocol, body: Body) -> Self {
        let mut stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        if protocol == Protocol::H2c {
            stream.write_all(&opening()).expect("it is open");
        }
        let next = (protocol == Protocol::H2c).then_some(1);
        Self { stream: BufReader::with_capacity(32 << 10, stream), body, next, buffer: Vec::new() }
    }

    /// Asks once and reads the whole answer, whose length must be right.
    pub(crate) fn ask(&mut self) {
        match self.next {
            None => self.ask_http1(),
            Some(id) => {
                self.next = Some(id + 2);
                self.ask_http2(id);
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("the connection is kept");
    }

    fn ask_http1(&mut self) {
        let path = self.body.path();
        self.send(
            format!("GET {path}?page=2 HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: {AGENT}\r\nAccept: {ACCEPT}\r\n\r\n")
                .as_bytes(),
        );
        self.buffer.clear();
        let end = loop {
            let read = self.stream.fill_buf().expect("an answer in time");
            assert!(!read.is_empty(), "the proxy closed the connection");
            let count = read.len();
            self.buffer.extend_from_slice(read);
            self.stream.consume(count);
            if let Some(end) = self.buffer.windows(4).position(|part| part == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..end]);
        assert!(text.starts_with("HTTP/1.1 200 "), "answered with {}", text.lines().next().unwrap_or_default());
        let fields = text.lines().filter_map(|line| line.split_once(": "));
        let length = fields
            .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .find_map(|(_, value)| value.parse().ok());
        let end: usize = end + length.unwrap_or_else(|| self.body.length());
        self.skip(end.checked_sub(self.buffer.len()).expect("no more than the body"));
    }

    fn ask_http2(&mut self, id: u32) {
        let block = field_block(self.body.path());
        self.send(&frame(HEADERS, END_HEADERS | END_STREAM, id, &block));
        let mut received = 0;
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).expect("a frame in time");
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    self.skip(length);
                    self.send(&frame(SETTINGS, ACK, 0, &[]));
                }
                RST_STREAM | GOAWAY => panic!("stream {id} was broken off by a frame of type {kind}"),
                _ => {
                    self.skip(length);
                    received += if kind == DATA { length } else { 0 };
                }
            }
            if stream == id && matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                assert_eq!(received, self.body.length(), "the body's bytes");
                return;
            }
        }
    }

    fn skip(&mut self, length: usize) {
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer).expect("an answer in time");
    }
}

// RFC 9113, section 6
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
const FIRST_WINDOW: u32 = (1 << 16) - 1;

/// The preface, and windows so large that none is ever waited for.
fn opening() -> Vec<u8> {
    let window = [&[0, 4][..], &LARGEST_WINDOW.to_be_bytes()].concat();
    let more = (LARGEST_WINDOW - FIRST_WINDOW).to_be_bytes();
    [PREFACE, &frame(SETTINGS, 0, 0, &window), &frame(WINDOW_UPDATE, 0, 0, &more)].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET`, `http`, and literals without an entry in the table (RFC 7541, section 6.2.2), by names of the static table.
fn field_block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    let path = format!("{path}?page=2");
    for (name, value) in [(&[4][..], path.as_str()), (&[1], HOST), (&[15, 43], AGENT), (&[15, 4], ACCEPT)] {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).expect("below 127 bytes"));
        block.extend_from_slice(value.as_bytes());
    }
    block
}
