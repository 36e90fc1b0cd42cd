//! How soon `/health` is answered: one question after the other on a kept connection to the admin port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Questions before those that are timed.
const WARM_UP: usize = 20;
/// Longer than any answer from memory takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// A Redis or a PostgreSQL that takes every connection and never says a word; it lasts as long as this process.
pub(crate) struct Silent {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    taken: Arc<AtomicUsize>,
}

impl Silent {
    /// Starts it on a free port.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                held.push(stream);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { address, taken }
    }

    /// Waits until somebody waits for it.
    pub(crate) fn wait(&self) {
        let until = Instant::now() + PATIENCE * 4;
        while self.taken.load(Ordering::Relaxed) == 0 {
            assert!(Instant::now() < until, "nobody has asked it");
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// How long each of so many answers took, in milliseconds, with a pause before each question.
///
/// # Panics
/// When an answer is none with a length, or not 200.
pub(crate) fn milliseconds(admin: &str, count: usize, pause: Duration) -> Vec<f64> {
    let stream = TcpStream::connect(admin).expect("the admin port answers");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut stream = BufReader::new(stream);
    let request = format!("GET /health HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    let times = (0..WARM_UP + count).map(|_| {
        thread::park_timeout(pause);
        let begun = Instant::now();
        stream.get_mut().write_all(request.as_bytes()).expect("the connection is kept");
        answer(&mut stream);
        begun.elapsed().as_secs_f64() * 1000.0
    });
    times.skip(WARM_UP).collect()
}

fn answer(stream: &mut BufReader<TcpStream>) {
    let (mut line, mut length) = (String::new(), None);
    stream.read_line(&mut line).expect("an answer in time");
    assert!(line.starts_with("HTTP/1.1 200"), "answered with {line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("a head in time");
        let field = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        length = field.and_then(|(_, value)| value.trim().parse().ok()).or(length);
    }
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body).expect("a body in time");
}
