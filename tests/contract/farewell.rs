//! The end of the process as the clients of tunnels see it: a close frame where one can stand, and never within another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::origin::{Head, Origin, Site, Stream, connect};
use crate::restarts::cut_off;
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::among_others;
use crate::streams::limits;
use crate::telemetry_receiver::{Codings, Receiver};

/// A frame of 70,000 bytes, up to its third byte.
const WITHIN: &[u8] = b"\x82\x7f\x00\x00\x00\x00\x00\x01\x11\x70abc";

/// An application that never closes a tunnel by itself.
#[derive(Default)]
struct Host {
    /// Whose close frames said 1001.
    told: AtomicUsize,
}

impl Site for Host {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let (protocol, key) = (head.field("upgrade").unwrap_or_default(), head.field("sec-websocket-key"));
        let accept = key.map(|key| derive_accept_key(key.as_bytes())).unwrap_or_default();
        let fields = format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Accept: {accept}\r\n");
        stream.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").as_bytes()).await?;
        match head.path() {
            "/within" => stream.write_all(WITHIN).await?,
            "/talking" => return talk(stream).await,
            "/silent" => {
                let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits())).await;
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Close(Some(frame)) = message {
                        assert_eq!(frame.code, CloseCode::Away, "the client's answer to what it was told");
                        self.told.fetch_add(1, Ordering::Relaxed);
                    }
                }
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            _ => {}
        }
        stream.read_to_end(&mut Vec::new()).await?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    }
}

/// Numbers its messages, which have about as many digits as each form of length begins with, until nobody listens.
async fn talk(stream: &mut Stream) -> std::io::Result<()> {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits())).await;
    for number in 0.. {
        let length = [5, 120, 130, 70_000][number % 4];
        let message = format!("{}{number}", "0".repeat(length - 5));
        socket.send(Message::text(message)).await.map_err(std::io::Error::other)?;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn socket(proxy: SocketAddr, path: &str) -> WebSocketStream<Stream> {
    let stream = connect(proxy).await.expect("the proxy is there");
    let address = format!("ws://{proxy}{path}");
    client_async_with_config(address, stream, Some(limits())).await.expect("the handshake passes through").0
}

/// A tunnel without a library.
async fn raw(proxy: SocketAddr, path: &str, protocol: &str) -> Stream {
    let mut stream = connect(proxy).await.expect("the proxy is there");
    let fields = format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes()).await.expect("it is taken");
    let head = timeout(PATIENCE, Head::read(&mut stream)).await.expect("an answer in time").expect("an answer");
    assert_eq!(head.map(|head| head.status()), Some(101));
    stream
}

/// All that still comes.
async fn rest(mut stream: Stream) -> Vec<u8> {
    let mut all = Vec::new();
    // what is broken off may end by a reset
    let _ = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end in time");
    all
}

/// Reads until the close frame; gives its code, and how many messages came before it.
async fn until_closed(mut socket: WebSocketStream<Stream>) -> (CloseCode, usize) {
    let mut messages = 0;
    loop {
        let message = timeout(PATIENCE, socket.next()).await.expect("a message in time");
        match message.expect("a close frame before the end").expect("valid frames") {
            Message::Text(text) => {
                assert_eq!(text.parse(), Ok(messages), "none is missing");
                messages += 1;
            }
            Message::Close(Some(frame)) => {
                let next = timeout(PATIENCE, socket.next()).await.expect("an end in time");
                assert!(next.is_none(), "behind a close frame: {next:?}");
                return (frame.code, messages);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Row 6: near the end of the drain a WebSocket is closed with 1001, between two frames; what has no such place is cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_is_told_that_the_process_ends_and_no_other_bytes_are_touched() {
    let _machine = among_others().await;
    let host = Arc::new(Host::default());
    let application = Origin::start(Arc::clone(&host)).await;
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let endpoint = format!("http://{}", receiver.address);
    let settings = [("SIDECAR_PROXY__DRAIN_TIMEOUT", "6s"), ("SIDECAR_PROXY__UPGRADES", "websocket,other")];
    let mut sidecar = Sidecar::start(application.address, &["--otlp", &endpoint], &settings).await;
    let silent = socket(sidecar.proxy, "/silent").await;
    let talking = socket(sidecar.proxy, "/talking").await;
    let within = raw(sidecar.proxy, "/within", "websocket").await;
    let other = raw(sidecar.proxy, "/other", "other").await;
    sidecar.signal("TERM").await;
    let (silent, talking, within, other) =
        tokio::join!(until_closed(silent), until_closed(talking), rest(within), rest(other));
    assert_eq!(silent, (CloseCode::Away, 0));
    assert_eq!(talking.0, CloseCode::Away);
    println!("{} messages before the close frame", talking.1);
    assert_eq!((within.as_slice(), other.as_slice()), (WITHIN, &[][..]), "no byte of ours");
    assert_eq!(sidecar.ended().await, Some(0));
    assert_eq!(host.told.load(Ordering::Relaxed), 1, "the client's answer reaches the application");
    let stream = "content_factory.http.server.stream.duration";
    assert_eq!(cut_off(&receiver, stream), 4, "each of them was broken off by the end of the process");
}
