//! Clients of HTTP/2 for tests of the data path, one by a library and one of raw frames, and an application that
//! looks at bodies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::proxy_world::spawn;
use crate::rig::PATIENCE;

/// The largest windows: a test that wants a slow reader says so.
const WINDOW: u32 = 1 << 24;

/// A client's connection by prior knowledge.
pub(crate) async fn connect(proxy: SocketAddr) -> Result<SendRequest<Bytes>, h2::Error> {
    connect_with(proxy, WINDOW).await
}

/// The same with windows of this size for each stream.
pub(crate) async fn connect_with(proxy: SocketAddr, window: u32) -> Result<SendRequest<Bytes>, h2::Error> {
    let stream = TcpStream::connect(proxy).await.map_err(|error| {
        let _ = error; // the library makes no error of its own from one
        h2::Error::from(h2::Reason::REFUSED_STREAM)
    })?;
    stream.set_nodelay(true).expect("a socket");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(WINDOW);
    let (sender, connection) = builder.handshake(stream).await?;
    spawn(async move {
        let _its_end_is_seen_by_its_streams = connection.await;
    });
    Ok(sender)
}

/// A request to this path, without fields.
pub(crate) fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://h.example{path}");
    Request::builder().method(method).uri(uri).body(()).expect("a valid request")
}

/// Sends a request without body.
pub(crate) async fn send(sender: &SendRequest<Bytes>, request: Request<()>) -> Result<ResponseFuture, h2::Error> {
    Ok(ready(sender).await?.send_request(request, true)?.0)
}

/// Sends the head of a request whose body follows.
pub(crate) async fn open(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    ready(sender).await?.send_request(request, false)
}

async fn ready(sender: &SendRequest<Bytes>) -> Result<SendRequest<Bytes>, h2::Error> {
    timeout(PATIENCE, sender.clone().ready()).await.expect("room for a stream in time")
}

/// Sends a request without body and gives its answer, read to the end.
pub(crate) async fn ask(sender: &SendRequest<Bytes>, request: Request<()>) -> Result<Answer, h2::Error> {
    read(send(sender, request).await?).await
}

/// One GET: its status.
pub(crate) async fn get(sender: &SendRequest<Bytes>, path: &str) -> Result<u16, h2::Error> {
    ask(sender, request("GET", path)).await.map(|answer| answer.status)
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads an answer to its end.
pub(crate) async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let response: Response<RecvStream> = timeout(PATIENCE, answer).await.expect("an answer in time")?;
    let (parts, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = timeout(PATIENCE, stream.data()).await.expect("more of the body in time") {
        let piece = piece?;
        stream.flow_control().release_capacity(piece.len())?;
        body.extend_from_slice(&piece);
    }
    let trailers = timeout(PATIENCE, stream.trailers()).await.expect("the end in time")?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// Sends a piece of a body as the other side takes it.
pub(crate) async fn push(stream: &mut SendStream<Bytes>, mut piece: Bytes) -> Result<(), h2::Error> {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        let room = timeout(PATIENCE, room).await.expect("room in time").ok_or(h2::Reason::CANCEL)??;
        stream.send_data(piece.split_to(room.min(piece.len())), false)?;
    }
    Ok(())
}

/// An application that reads bodies and makes them, and tells what it saw.
#[derive(Debug)]
pub(crate) struct Bodies {
    pub(crate) address: SocketAddr,
    /// Bytes of bodies that it has been able to write.
    pub(crate) written: AtomicU64,
    /// One permit for each connection that was closed on it in the middle of a message.
    pub(crate) cut_off: Semaphore,
}

impl Bodies {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let this = Arc::new(Self { address, written: AtomicU64::new(0), cut_off: Semaphore::new(0) });
        let serving = Arc::clone(&this);
        spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = Arc::clone(&serving);
                spawn(async move {
                    if serving.serve(BufReader::new(stream)).await.is_err() {
                        serving.cut_off.add_permits(1);
                    }
                });
            }
        });
        this
    }

    async fn serve(&self, mut stream: BufReader<TcpStream>) -> std::io::Result<()> {
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).await? == 0 {
                    return Ok(());
                }
            }
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            match path.split_once('/').map_or("", |(_, rest)| rest) {
                "hasty" => {
                    stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno").await?;
                    return Ok(());
                }
                "hints" => stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await?,
                "continued" => stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?,
                _ => {}
            }
            let (bytes, trailers) = read_body(&mut stream, &head.to_ascii_lowercase()).await?;
            if let Some(size) = path.strip_prefix("/source/").and_then(|size| size.parse().ok()) {
                self.pour(&mut stream, size).await?;
                continue;
            }
            let told = format!("{bytes} bytes, trailers: {}", trailers.escape_default());
            let answer = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\nKeep-Alive: 5\r\n\r\n\
                 {:x}\r\n{told}\r\n0\r\ngrpc-status: 7\r\nX-Steers: 1\r\n\r\n",
                told.len()
            );
            stream.write_all(answer.as_bytes()).await?;
        }
    }

    async fn pour(&self, stream: &mut BufReader<TcpStream>, size: u64) -> std::io::Result<()> {
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await?;
        let (piece, mut rest) = ([b'x'; 16 << 10], size);
        while rest > 0 {
            let count = rest.min(piece.len() as u64);
            stream.write_all(&piece[..count as usize]).await?;
            self.written.fetch_add(count, Ordering::Relaxed);
            rest -= count;
        }
        Ok(())
    }
}

/// How many bytes a body has, and the trailers behind it.
async fn read_body(stream: &mut BufReader<TcpStream>, head: &str) -> std::io::Result<(u64, String)> {
    if !head.contains("transfer-encoding: chunked") {
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        return skip(stream, length).await.map(|()| (length, String::new()));
    }
    let (mut bytes, mut trailers) = (0, String::new());
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let size = u64::from_str_radix(line.trim_end(), 16).map_err(|_| std::io::ErrorKind::UnexpectedEof)?;
        if size == 0 {
            break;
        }
        skip(stream, size + 2).await?;
        bytes += size;
    }
    while !trailers.ends_with("\r\n\r\n") && trailers != "\r\n" {
        if stream.read_line(&mut trailers).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((bytes, trailers.trim_end().to_owned()))
}

async fn skip(stream: &mut BufReader<TcpStream>, count: u64) -> std::io::Result<()> {
    let skipped = tokio::io::copy(&mut stream.take(count), &mut tokio::io::sink()).await?;
    if skipped == count { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// A client that writes frames by hand, to say what no library says.
pub(crate) struct Raw(TcpStream);

/// A frame: its type, flags, stream and payload.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn connect(proxy: SocketAddr) -> Self {
        let stream = TcpStream::connect(proxy).await.expect("the proxy accepts");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    /// Connects and greets.
    pub(crate) async fn greet(proxy: SocketAddr) -> Self {
        let mut raw = Self::connect(proxy).await;
        raw.bytes(PREFACE).await;
        raw.frame((SETTINGS, 0), 0, b"").await;
        raw
    }

    /// Writes bytes as they are.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the connection holds");
    }

    /// Writes a frame.
    pub(crate) async fn frame(&mut self, kind: (u8, u8), stream: u32, payload: &[u8]) {
        self.bytes(&encode(kind, stream, payload)).await;
    }

    /// Reads frames until one of this stream, or GOAWAY; `None` at the end of the connection.
    pub(crate) async fn next_of(&mut self, stream: u32) -> Option<Frame> {
        loop {
            let frame = timeout(PATIENCE, self.read()).await.expect("a frame in time")?;
            if frame.stream == stream || frame.kind == GOAWAY {
                return Some(frame);
            }
        }
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// All that comes until the end of the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _a_reset_is_an_end_too = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("an end in time");
        rest
    }
}

/// A frame's bytes.
pub(crate) fn encode((kind, flags): (u8, u8), stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of fields, each spelled out, with lengths below 127 (RFC 7541, section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
