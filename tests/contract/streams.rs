//! Event streams and WebSockets: passed on at once and unchanged, and never mistaken for slow requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::body;
use crate::origin::{Head, Origin, Site, Stream, connect, say};
use crate::pace::Turns;
use crate::page::{self, Kind};
use crate::rig::{PATIENCE, Sidecar};
use crate::scale::{among_others, scaled};

/// Tells an event only when the test asks for one.
struct Teller {
    wanted: Mutex<mpsc::Receiver<()>>,
}

impl Site for Teller {
    async fn answer(&self, _: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await?;
        let mut wanted = self.wanted.lock().await;
        while wanted.recv().await.is_some() {
            stream.write_all(b"9\r\ndata: x\n\n\r\n").await?;
        }
        stream.write_all(b"0\r\n\r\n").await
    }
}

/// Who listens to such a stream.
struct Listener {
    want: mpsc::Sender<()>,
    stream: Stream,
    _application: Origin,
}

impl Listener {
    /// Of an application of its own, through what stands in front of it.
    async fn start(through: impl AsyncFnOnce(SocketAddr) -> SocketAddr) -> Self {
        let (want, wanted) = mpsc::channel(1);
        let application = Origin::start(Arc::new(Teller { wanted: Mutex::new(wanted) })).await;
        let mut stream = connect(through(application.address).await).await.expect("it listens");
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("it takes requests");
        let head = timeout(PATIENCE, Head::read(&mut stream)).await.expect("a head before any event");
        assert_eq!(head.expect("a head").expect("a head").field("content-type"), Some("text/event-stream"));
        Self { want, stream, _application: application }
    }

    /// From made to arrived.
    async fn event(&mut self) -> Duration {
        let made = Instant::now();
        self.want.send(()).await.expect("the application waits for it");
        let mut event = [0; 14];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut event)).await;
        read.expect("an event that is not held back").expect("an event");
        assert_eq!(&event, b"9\r\ndata: x\n\n\r\n", "and it is a chunk of its own");
        made.elapsed()
    }
}

/// Row 17: the next event is made only when the one before has arrived, so a proxy that collects would wait for ever; and half
/// of them take no longer than a millisecond more than without a proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_arrives_before_the_next_one_is_made() {
    let _machine = among_others().await;
    let (events, mut started) = (scaled(1_000, 20_000), None);
    let mut direct = Listener::start(async |application| application).await;
    let mut proxied = Listener::start(async |application| {
        let sidecar = started.insert(Sidecar::start(application, &[], &[]).await);
        sidecar.proxy
    })
    .await;
    let sidecar = started.expect("it was started");
    let mut turns = Turns::default();
    for _ in 0..events {
        turns.took(direct.event().await, proxied.event().await);
    }
    let page = sidecar.metrics().await;
    assert_eq!((page::in_flight(&page), page::total(&page)), (1.0, 0), "it is one request, and not over");
    let Listener { want, mut stream, _application } = proxied;
    drop(want);
    let mut end = [0; 5];
    stream.read_exact(&mut end).await.unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
    println!(
        "{events} events, from made to arrived, half of them without and with the sidecar: {:?}",
        turns.within(50)
    );
    let added = turns.stretches(50).map(|(without, with)| with.saturating_sub(without)).min();
    assert!(added <= Some(Duration::from_millis(1)), "half of the events of each stretch: {added:?} more");
    let page = page::settled(&sidecar, 1).await;
    assert_eq!(page::tally(&page), [((Kind::Stream, 200, String::new()), 1)].into(), "no ordinary request");
}

/// An application that echoes by a WebSocket library, and one half of whose paths speaks raw bytes.
struct Echo;

impl Site for Echo {
    async fn answer(&self, head: &Head, stream: &mut Stream) -> std::io::Result<()> {
        let Some(key) = head.field("sec-websocket-key") else { return say(stream, 200, "{}").await };
        let accept = derive_accept_key(key.as_bytes());
        let fields = format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n");
        stream.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n").as_bytes()).await?;
        if head.path() == "/half" {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await?;
            stream.write_all(&all).await?;
            return stream.shutdown().await;
        }
        if head.path() == "/limit" {
            stream.read_exact(&mut [0; 1_000]).await?;
            stream.write_all(TOO_BIG).await?;
            // with bytes that it has not read: the kernel sends a reset behind the frame
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits())).await;
        while let Some(Ok(message)) = socket.next().await {
            let answer = match message {
                Message::Text(text) if text.as_str() == "close me" => close(4_002, "as you wish"),
                message @ (Message::Text(_) | Message::Binary(_)) => message,
                _ => continue,
            };
            socket.send(answer).await.map_err(std::io::Error::other)?;
        }
        Err(std::io::ErrorKind::ConnectionAborted.into())
    }
}

/// The fields that ask for a WebSocket.
const ASKING: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

/// A close frame of 1009: too big.
const TOO_BIG: &[u8] = b"\x88\x02\x03\xf1";

pub(crate) fn limits() -> WebSocketConfig {
    WebSocketConfig::default().max_frame_size(Some(32 << 20)).max_message_size(Some(32 << 20))
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() }))
}

/// The client of the library, on a connection to the proxy.
pub(crate) async fn socket(sidecar: &Sidecar) -> WebSocketStream<Stream> {
    let stream = connect(sidecar.proxy).await.expect("the proxy is there");
    let address = format!("ws://{}/echo", sidecar.proxy);
    client_async_with_config(address, stream, Some(limits())).await.expect("the handshake passes through").0
}

async fn echoed(socket: &mut WebSocketStream<Stream>, message: Message) -> Message {
    socket.send(message).await.expect("it is taken");
    timeout(3 * PATIENCE, socket.next()).await.expect("an echo in time").expect("an echo").expect("a valid one")
}

/// Row 17: 0 bytes to 16 MiB, whole and in fragments with a ping between them, and thousands of small ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_echoes_messages_of_every_size_whole_and_in_fragments() {
    let _machine = among_others().await;
    let application = Origin::start(Arc::new(Echo)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut socket = socket(&sidecar).await;
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 16 << 20] {
        let bytes: Vec<u8> = (0..size).step_by(65_521).flat_map(|at| body::piece(at, size - at)).copied().collect();
        let bytes = bytes::Bytes::from(bytes).slice(..usize::try_from(size).unwrap());
        let echo = echoed(&mut socket, Message::Binary(bytes.clone())).await;
        assert!(echo == Message::Binary(bytes), "{size} bytes came back as others");
    }
    for (opcode, last) in [(Data::Text, false), (Data::Continue, false), (Data::Continue, true)] {
        socket.send(Message::Frame(Frame::message("abc", OpCode::Data(opcode), last))).await.unwrap();
        if !last {
            // a control frame may stand between fragments: RFC 6455, section 5.4
            assert_eq!(echoed(&mut socket, Message::Ping("p".into())).await, Message::Pong("p".into()));
        }
    }
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("abcabcabc"));
    for number in 0..scaled(2_000, 10_000) {
        let text = Message::text(format!("message {number}"));
        assert_eq!(echoed(&mut socket, text.clone()).await, text);
    }
    drop(socket);
    let page = page::settled(&sidecar, 1).await;
    assert_eq!(page::tally(&page), [((Kind::Stream, 101, String::new()), 1)].into(), "no ordinary request");
}

/// Row 17: the code and the reason arrive on the other side, whichever side closes.
#[tokio::test]
async fn close_codes_are_kept_both_ways() {
    let _machine = among_others().await;
    let application = Origin::start(Arc::new(Echo)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut by_client = socket(&sidecar).await;
    assert_eq!(echoed(&mut by_client, close(4_001, "enough")).await, close(4_001, "enough"));
    assert!(by_client.next().await.is_none(), "and then the connection ends");
    let mut by_application = socket(&sidecar).await;
    let said = echoed(&mut by_application, Message::text("close me")).await;
    assert_eq!(said, close(4_002, "as you wish"));
    assert!(by_application.next().await.is_none(), "and then the connection ends");
}

/// Row 17: a client that has said all still gets its answer.
#[tokio::test]
async fn half_a_tunnel_may_be_closed() {
    let _machine = among_others().await;
    let application = Origin::start(Arc::new(Echo)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut stream = connect(sidecar.proxy).await.unwrap();
    stream.write_all(format!("GET /half HTTP/1.1\r\nHost: h\r\n{ASKING}\r\n").as_bytes()).await.unwrap();
    assert_eq!(Head::read(&mut stream).await.unwrap().unwrap().status(), 101);
    stream.write_all(b"all that I have to say").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut said)).await.expect("an end in time").unwrap();
    assert_eq!(said, "all that I have to say");
}

/// Row 17: an application that has had enough says why and goes; the client is still sending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_an_application_that_stops_reading_arrive() {
    let _machine = among_others().await;
    let application = Origin::start(Arc::new(Echo)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    for round in 0..scaled(50, 500) {
        let mut stream = connect(sidecar.proxy).await.unwrap();
        stream.write_all(format!("GET /limit HTTP/1.1\r\nHost: h\r\n{ASKING}\r\n").as_bytes()).await.unwrap();
        assert_eq!(Head::read(&mut stream).await.unwrap().unwrap().status(), 101);
        let (mut from, mut to) = stream.into_inner().into_split();
        let talking = async { while to.write_all(&[0; 16 << 10]).await.is_ok() {} };
        let mut said = Vec::new();
        let listening =
            async { while let Ok(1..) = timeout(PATIENCE, from.read_buf(&mut said)).await.expect("an end in time") {} };
        tokio::join!(talking, listening);
        assert_eq!(said, TOO_BIG, "in round {round}");
    }
}

/// Row 17: as many streams and tunnels as are open are in flight, and the histogram of requests knows none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_streams_never_appear_among_the_durations_of_requests() {
    let _machine = among_others().await;
    let count = scaled(100, 1_000);
    let application = Origin::start(Arc::new(Echo)).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(socket(&sidecar).await);
    }
    let until = Instant::now() + Duration::from_secs(scaled(1, 60));
    while Instant::now() < until {
        for (number, socket) in open.iter_mut().enumerate() {
            let text = Message::text(number.to_string());
            assert_eq!(echoed(socket, text.clone()).await, text);
        }
    }
    let page = sidecar.metrics().await;
    assert_eq!(page::in_flight(&page) as usize, count);
    drop(open);
    let page = page::settled(&sidecar, count as u64).await;
    assert_eq!(page::tally(&page), [((Kind::Stream, 101, String::new()), count as u64)].into());
    let seconds = page::sum(&page, "content_factory_http_server_stream_duration_seconds_sum", "");
    assert!(seconds >= scaled(1.0, 60.0) * count as f64, "{seconds} s of {count} streams");
}
