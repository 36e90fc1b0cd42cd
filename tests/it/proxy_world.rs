//! An application that behaves as its paths say, and clients that speak raw bytes: for tests of the data path.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::rig::PATIENCE;

/// What the sidecar asks of the application itself, as its routes, is no traffic.
const OWN_USER_AGENT: &str = "content-factory-sidecar/";

/// What the application has seen, and when it was left alone.
#[derive(Debug)]
pub(crate) struct Application {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// One permit for each `/hold` and `/told` that has arrived.
    pub(crate) held: Semaphore,
    /// One permit lets one `/told` be answered.
    pub(crate) told: Semaphore,
    /// One permit for each held request whose connection was then closed.
    pub(crate) abandoned: Semaphore,
    /// One permit for each request whose body was cut off.
    pub(crate) broken_off: Semaphore,
    /// Complete requests.
    pub(crate) requests: AtomicUsize,
    /// Connections that are not the sidecar's own: those neither brought a question of its own nor ended without a word,
    /// as its check does.
    strangers: AtomicUsize,
}

impl Application {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let application = Arc::new(Self {
            address: listener.local_addr().expect("bound"),
            held: Semaphore::new(0),
            told: Semaphore::new(0),
            abandoned: Semaphore::new(0),
            broken_off: Semaphore::new(0),
            requests: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&application);
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.strangers.fetch_add(1, Ordering::Relaxed);
                let connection = Arc::clone(&serving);
                spawn(async move {
                    let _the_peer_may_go_at_any_time = connection.serve(stream).await;
                });
            }
        });
        application
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut unread = Vec::new();
        let mut is_new = true;
        loop {
            let next = head(&mut stream, &mut unread).await?;
            if mem::take(&mut is_new) && next.as_ref().is_none_or(|head| head.contains(OWN_USER_AGENT)) {
                self.strangers.fetch_sub(1, Ordering::Relaxed);
            }
            let Some(head) = next else { return Ok(()) };
            if head.contains(OWN_USER_AGENT) {
                answer(&mut stream, &head).await?;
                continue;
            }
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            if let Err(error) = body(&mut stream, &mut unread, &head).await {
                self.broken_off.add_permits(1);
                return Err(error);
            }
            self.requests.fetch_add(1, Ordering::Relaxed);
            match path.split('?').next().unwrap_or_default() {
                "/hold" => return self.hold(&mut stream).await,
                "/cut" => return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this").await,
                "/garbage" => return stream.write_all(b"this is not HTTP\r\n\r\n").await,
                "/vanish" => return Ok(()),
                "/cut/chunked" => {
                    let part = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
                    return stream.write_all(part).await;
                }
                // says nothing, until the other side has had enough
                "/never" => return stream.read(&mut [0; 16]).await.map(|_| ()),
                "/missing" => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await?,
                "/error" => stream.write_all(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await?,
                "/endless" => return endless(&mut stream).await,
                "/events/endless" => return endless_events(&mut stream).await,
                "/events" => events(&mut stream).await?,
                "/socket" => return echo(&mut stream).await,
                "/told" => {
                    self.held.add_permits(1);
                    self.told.acquire().await.expect("open").forget();
                    answer(&mut stream, &head).await?;
                }
                "/late" => {
                    tokio::time::sleep(Duration::from_millis(700)).await;
                    answer(&mut stream, &head).await?;
                }
                _ => answer(&mut stream, &head).await?,
            }
        }
    }

    /// Answers nothing, and notices when nobody waits any more.
    async fn hold(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        self.held.add_permits(1);
        let ended = stream.read(&mut [0; 16]).await;
        self.abandoned.add_permits(1);
        ended.map(|_| ())
    }
}

async fn answer(stream: &mut TcpStream, head: &str) -> std::io::Result<()> {
    let body = if head.starts_with("HEAD ") { "" } else { "answer" };
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{body}").as_bytes()).await
}

async fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    loop {
        stream.write_all(format!("1000\r\n{}\r\n", "x".repeat(4096)).as_bytes()).await?;
    }
}

async fn events(stream: &mut TcpStream) -> std::io::Result<()> {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await?;
    for event in ["8\r\ndata: 1\n\r\n", "8\r\ndata: 2\n\r\n", "0\r\n\r\n"] {
        stream.write_all(event.as_bytes()).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn endless_events(stream: &mut TcpStream) -> std::io::Result<()> {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await?;
    loop {
        stream.write_all(b"8\r\ndata: 1\n\r\n").await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}

/// A head, taken from the front of what was read; `None` at the end of the connection.
async fn head(stream: &mut TcpStream, unread: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    loop {
        if let Some(end) = unread.windows(4).position(|part| part == b"\r\n\r\n") {
            let head: Vec<u8> = unread.drain(..end + 4).collect();
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads a body away, by its length or to the last chunk.
async fn body(stream: &mut TcpStream, unread: &mut Vec<u8>, head: &str) -> std::io::Result<()> {
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    let is_chunked = lower.contains("transfer-encoding: chunked");
    loop {
        let end = if is_chunked {
            unread.windows(5).position(|part| part == b"0\r\n\r\n").map(|at| at + 5)
        } else {
            Some(length.unwrap_or(0)).filter(|length| unread.len() >= *length)
        };
        if let Some(end) = end {
            unread.drain(..end);
            return Ok(());
        }
        if stream.read_buf(unread).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A client's connection.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    /// Connects to the proxy.
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Writes raw bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// One GET, written.
    pub(crate) async fn get(&mut self, path: &str) -> std::io::Result<()> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await
    }

    /// The head of the next answer.
    pub(crate) async fn head(&mut self) -> Option<String> {
        timeout(PATIENCE, head(&mut self.stream, &mut self.unread)).await.expect("a head in time").ok().flatten()
    }

    /// The next answer, which has a length: its status and whether the connection goes on.
    pub(crate) async fn answer(&mut self) -> Option<(u16, bool)> {
        let head = self.head().await?;
        timeout(PATIENCE, body(&mut self.stream, &mut self.unread, &head)).await.expect("a body in time").ok()?;
        let stays = !head.to_ascii_lowercase().contains("connection: close");
        Some((head.get(9..12)?.parse().ok()?, stays))
    }

    /// At least this many bytes, beyond what was read so far.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await.expect("bytes in time");
            assert!(read.expect("the connection holds") > 0, "it was closed after {} bytes", self.unread.len());
        }
        self.unread.drain(..count).collect()
    }

    /// Reads until the other side closes; whether it did so by FIN.
    pub(crate) async fn closed_by_fin(&mut self) -> bool {
        loop {
            match timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await.expect("an end in time") {
                Ok(0) => return true,
                Ok(_) => self.unread.clear(),
                Err(_) => return false,
            }
        }
    }

    /// Closes by RST.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("a socket");
    }
}

impl Application {
    /// Waits until so many connections came from the proxy, all told: the sidecar's own questions come at any time.
    pub(crate) async fn connections_become(&self, expected: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.strangers.load(Ordering::Relaxed) != expected {
            let found = self.strangers.load(Ordering::Relaxed);
            assert!(Instant::now() < deadline, "the proxy has opened {found} connections, expected {expected}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A task that ends with its test's runtime.
#[expect(clippy::disallowed_methods, reason = "the runtime of a test ends with the test")]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(future);
}
