//! The collector's place: takes OTLP over HTTP, counts what comes and throws it away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A running receiver.
pub(crate) struct Receiver {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    traces: Arc<AtomicU64>,
}

impl Receiver {
    /// Starts it on a free port; it lasts as long as this process.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let traces = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&traces);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                thread::spawn(move || serve(&stream, &counted));
            }
        });
        Self { address, traces }
    }

    /// Bytes of trace exports so far, as they came (compressed or not).
    pub(crate) fn trace_bytes(&self) -> u64 {
        self.traces.load(Ordering::Relaxed)
    }
}

fn serve(stream: &TcpStream, traces: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let (mut line, mut length, mut is_traces) = (String::new(), 0, false);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            is_traces |= line.contains("/v1/traces");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let read = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).ok()?;
        if is_traces {
            traces.fetch_add(read, Ordering::Relaxed);
        }
        writer
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
            .ok()?;
    }
}
