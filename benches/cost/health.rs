//! How soon `/health` is answered: one question after the other on a kept connection to the admin port.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Questions before those that are timed.
const WARM_UP: usize = 20;
/// Longer than any answer from memory takes.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long each of so many answers took, in milliseconds.
///
/// # Panics
/// When an answer is none with a length, or not 200.
pub(crate) fn milliseconds(admin: &str, count: usize) -> Vec<f64> {
    let stream = TcpStream::connect(admin).expect("the admin port answers");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut stream = BufReader::new(stream);
    let request = format!("GET /health HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    let times = (0..WARM_UP + count).map(|_| {
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
