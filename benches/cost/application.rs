//! The application behind the proxy: answers each request with 1 KiB, as fast as it can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// What an application under uvicorn answers, and 1 KiB of it.
fn response() -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 1024\r\n\
                content-type: application/json\r\n\r\n";
    [head.as_bytes(), &[b'x'; 1024]].concat()
}

/// Starts it on a free port; it lasts as long as this process.
pub(crate) fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// One answer for each empty line: the load has no bodies.
fn serve(mut stream: TcpStream) {
    let _best_effort = stream.set_nodelay(true);
    let (response, mut buffer, mut used) = (response(), vec![0; 16 * 1024], 0);
    while let Ok(count) = stream.read(&mut buffer[used..]) {
        if count == 0 {
            return;
        }
        used += count;
        while let Some(end) = buffer[..used].windows(4).position(|part| part == b"\r\n\r\n") {
            if stream.write_all(&response).is_err() {
                return;
            }
            buffer.copy_within(end + 4..used, 0);
            used -= end + 4;
        }
    }
}
