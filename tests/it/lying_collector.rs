//! A collector that is away, lies, stalls or breaks off touches no request, and the endpoints say how it stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::Code;

use crate::proxy_world::{Application, Client};
use crate::rig::{PATIENCE, Sidecar, own_loopback};
use crate::telemetry_receiver::{Codings, Over, Receiver, Reply, eventually, free_listener};

const CLIENTS: u64 = 4;
const ASKS: u64 = 50;

/// What is on the other end of a connection instead of a collector.
#[derive(Clone, Copy, Debug)]
enum Liar {
    /// Accepts, and never says a word.
    Silent,
    /// Hangs up at once.
    HangsUp,
    /// Speaks nothing that is known.
    Babbles,
    /// Begins an answer, and never ends it.
    BreaksOff,
    /// Sends without end.
    Endless,
}

/// A liar at work; ends when dropped.
struct Lying {
    address: SocketAddr,
    taken: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Liar {
    const ALL: [Self; 5] = [Self::Silent, Self::HangsUp, Self::Babbles, Self::BreaksOff, Self::Endless];

    async fn start(self) -> Lying {
        let listener: TcpListener = free_listener().await;
        let (address, taken) = (listener.local_addr().expect("an address"), Arc::new(AtomicU64::new(0)));
        let (mut tasks, count) = (JoinSet::new(), Arc::clone(&taken));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                connections.spawn(self.lie(stream));
            }
        });
        Lying { address, taken, _tasks: tasks }
    }

    async fn lie(self, mut stream: TcpStream) {
        match self {
            Self::Silent => {}
            Self::HangsUp => return,
            Self::Babbles => drop(stream.write_all(b"\x15\x03\x01\0\x02\x02\x28 220 ready\r\n\0\0\0\0").await),
            Self::BreaksOff => {
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this").await);
            }
            Self::Endless => while stream.write_all(&[b'x'; 4_096]).await.is_ok() {},
        }
        let mut read = [0; 4_096];
        while stream.read(&mut read).await.is_ok_and(|count| count > 0) {}
    }
}

/// A sidecar that exports there, four times a second, and has answered each of its clients.
async fn unharmed(endpoint: SocketAddr, over: Over, told: &str) -> Sidecar {
    let application = Application::start().await;
    let endpoint = format!("http://{endpoint}");
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", over.protocol()),
        ("SIDECAR_TELEMETRY__METRICS__INTERVAL", "250ms"),
    ];
    let sidecar = Sidecar::start(application.address, &[], &environment).await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(ask(sidecar.proxy));
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap_or_else(|error| panic!("{told}, {over:?}: {error}"));
    }
    let (_, counts) = sidecar.ask("/api/v1/monitoring/metrics").await;
    assert!(counts.contains(&format!("\"request_count\":{},", CLIENTS * ASKS)), "{told}, {over:?}: {counts}");
    sidecar
}

async fn ask(proxy: SocketAddr) {
    let mut client = Client::connect(proxy).await.expect("it listens");
    for _ in 0..ASKS {
        client.get("/x").await.expect("the connection is kept");
        assert_eq!(client.answer().await, Some((200, true)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_sits_where_the_collector_should_no_request_fails() {
    for over in Over::ALL {
        for liar in Liar::ALL {
            let lying = liar.start().await;
            let sidecar = unharmed(lying.address, over, &format!("{liar:?}")).await;
            eventually("a connection to the liar", PATIENCE, || lying.taken.load(Ordering::Relaxed) > 0).await;
            ask(sidecar.proxy).await;
            let page = sidecar.metrics().await;
            assert!(
                page.contains("content_factory_telemetry_delivered_total{signal=\"traces\"} 0\n"),
                "{liar:?}: {page}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_collector_answers_no_request_fails() {
    let replies = [
        Reply::Partial(7, "a part of it is refused"),
        Reply::Slow(Duration::from_secs(3_600)),
        Reply::Fail(Code::Internal, 500),
        Reply::Fail(Code::PermissionDenied, 403),
        Reply::FailFor(Code::ResourceExhausted, 429, Duration::from_secs(3_600)),
        Reply::Garbage,
    ];
    for over in Over::ALL {
        for reply in &replies {
            if matches!((over, reply), (Over::Grpc, Reply::Garbage)) {
                continue; // a gRPC server cannot be made to write it; what does is a liar above
            }
            let receiver = Receiver::over(over, Codings::All, Arc::default()).await;
            receiver.with(|seen| seen.otherwise = Some(reply.clone()));
            let sidecar = unharmed(receiver.address, over, &format!("{reply:?}")).await;
            eventually("a request to the receiver", PATIENCE, || receiver.with(|seen| seen.calls) > 0).await;
            ask(sidecar.proxy).await;
        }
    }
}

/// What became of the spans.
async fn traces(sidecar: &Sidecar) -> (Value, Value) {
    let (status, body) = sidecar.ask("/api/v1/monitoring/export").await;
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    (body["condition"].clone(), body["signals"]["traces"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoints_tell_of_a_collector_that_is_away_and_of_its_return() {
    let address = TcpListener::bind((own_loopback(), 0)).await.unwrap().local_addr().unwrap();
    let sidecar = unharmed(address, Over::Grpc, "away").await;
    sidecar.eventually("/api/v1/monitoring/export", |_, page| page.contains("\"condition\":\"failing\"")).await;
    let spans = 2 * CLIENTS * ASKS;
    sidecar
        .eventually("/metrics", |_, page| {
            page.contains(&format!("content_factory_telemetry_produced_total{{signal=\"traces\"}} {spans}\n"))
        })
        .await;
    let (condition, account) = traces(&sidecar).await;
    assert_eq!(condition, "failing");
    assert_eq!((&account["delivered"], &account["dropped"]), (&0.into(), &serde_json::json!({})), "{account}");
    let waiting = ["memory", "disk"].map(|place| account["queued"][place].as_u64().expect("a count"));
    assert_eq!(waiting.iter().sum::<u64>(), spans, "{account}");
    assert!(account["problem"].is_string() && account["last_delivered_at"].is_null(), "{account}");
    assert!(sidecar.ask("/dashboard").await.1.contains("Failing: telemetry waits and is sent later"));
    // whoever is asked about the application does not speak of the collector
    assert!(!sidecar.ask("/health").await.1.contains("unhealthy"));
    assert_eq!(sidecar.ask("/readyz").await.0, 200);

    let listener = TcpListener::bind(address).await.expect("its port is still free");
    let receiver = Receiver::grpc_on(listener, Codings::All, Arc::default()).await;
    let is_back = |_, page: &str| page.contains(&format!("\"delivered\":{spans},")) && page.contains("\"delivering\"");
    sidecar.eventually("/api/v1/monitoring/export", is_back).await;
    assert_eq!(receiver.with(|seen| seen.spans.len()) as u64, spans);
    assert!(traces(&sidecar).await.1["problem"].is_null());
    assert!(sidecar.ask("/dashboard").await.1.contains("<p>Delivering"));
}
