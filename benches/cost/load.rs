//! The clients: keep-alive connections, each of which asks again when it has its answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const REQUEST: &[u8] = b"GET /api/v1/products?page=2 HTTP/1.1\r\nHost: app.example\r\nUser-Agent: cost/1\r\n\
                         Accept: application/json\r\n\r\n";
/// A request that takes longer than that, under valgrind too, is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the proxy listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, buffer: vec![0; 16 * 1024] }
    }

    /// Asks once and reads the whole answer, which must be a 200 with 1 KiB.
    fn ask(&mut self) {
        self.stream.write_all(REQUEST).expect("the connection is kept");
        let mut used = 0;
        loop {
            let count = self.stream.read(&mut self.buffer[used..]).expect("an answer in time");
            assert!(count > 0, "the proxy closed the connection");
            used += count;
            let head = self.buffer[..used].windows(4).position(|part| part == b"\r\n\r\n");
            if head.is_some_and(|end| used >= end + 4 + 1024) {
                break;
            }
        }
        let text = String::from_utf8_lossy(&self.buffer[..used]);
        assert!(text.starts_with("HTTP/1.1 200 "), "answered with {}", text.lines().next().unwrap_or_default());
    }
}

/// Asks `count` times on each of `connections` connections.
pub(crate) fn ask(address: SocketAddr, connections: usize, count: usize) {
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(move || {
                let mut client = Client::connect(address);
                (0..count).for_each(|_| client.ask());
            });
        }
    });
}

/// Asks on all connections for this long; returns the number of answers.
pub(crate) fn press(address: SocketAddr, connections: usize, time: Duration) -> usize {
    let until = Instant::now() + time;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                scope.spawn(move || {
                    let (mut client, mut answers) = (Client::connect(address), 0);
                    while Instant::now() < until {
                        client.ask();
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client does not fail")).sum()
    })
}

/// Connects as soon as somebody listens, asks, and returns at the first byte of the answer.
pub(crate) fn first_byte(address: SocketAddr, patience: Duration) {
    let until = Instant::now() + patience;
    loop {
        assert!(Instant::now() < until, "nothing was proxied within {patience:?}");
        if let Ok(mut stream) = TcpStream::connect(address) {
            stream.set_read_timeout(Some(patience)).expect("a socket");
            let mut start = [0; 12];
            if stream.write_all(REQUEST).and_then(|()| stream.read_exact(&mut start)).is_ok() {
                assert_eq!(&start, b"HTTP/1.1 200");
                return;
            }
        }
        thread::park_timeout(Duration::from_micros(200));
    }
}
