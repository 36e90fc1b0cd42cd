//! A receiver of OTLP over HTTP that keeps the bytes of each request: for whoever looks for what must not be in them.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message;
use tokio::task::JoinSet;

use crate::telemetry_receiver::free_listener;

/// A request: its path, and its body before compression.
pub(crate) type Arrival = (String, Vec<u8>);

#[derive(Debug, Default)]
struct Seen {
    /// It refuses everything for now.
    is_away: AtomicBool,
    arrivals: Mutex<Vec<Arrival>>,
    /// The path and the bytes of each request as they came, taken or not.
    asked: Mutex<Vec<Arrival>>,
}

/// The receiver; ends when dropped.
pub(crate) struct RawReceiver {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

impl RawReceiver {
    pub(crate) async fn start() -> Self {
        let listener = free_listener().await;
        let address = listener.local_addr().expect("a listener has an address");
        let seen = Arc::new(Seen::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("the receiver serves") });
        Self { address, seen, _tasks: tasks }
    }

    /// One that takes nothing yet.
    pub(crate) async fn away() -> Self {
        let receiver = Self::start().await;
        receiver.seen.is_away.store(true, Ordering::Relaxed);
        receiver
    }

    /// Takes everything from now on.
    pub(crate) fn back(&self) {
        self.seen.is_away.store(false, Ordering::Relaxed);
    }

    /// What it was asked to take, as it came.
    pub(crate) fn asked(&self) -> Vec<Arrival> {
        self.seen.asked.lock().expect("no test panics while it holds what was seen").clone()
    }

    /// What it took.
    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.seen.arrivals.lock().expect("no test panics while it holds what was seen").clone()
    }

    /// The bodies of a signal, by the end of its path.
    fn bodies(&self, signal: &str) -> Vec<Vec<u8>> {
        let arrivals = self.arrivals().into_iter();
        arrivals.filter(|(path, _)| path.ends_with(signal)).map(|(_, body)| body).collect()
    }

    /// The spans, with their resources.
    pub(crate) fn resource_spans(&self) -> Vec<ResourceSpans> {
        let requests = self.bodies("/traces").into_iter();
        let requests = requests.map(|body| ExportTraceServiceRequest::decode(body.as_slice()).expect("a request"));
        requests.flat_map(|request| request.resource_spans).collect()
    }

    /// The requests of log records.
    pub(crate) fn logs(&self) -> Vec<ExportLogsServiceRequest> {
        let bodies = self.bodies("/logs").into_iter();
        bodies.map(|body| ExportLogsServiceRequest::decode(body.as_slice()).expect("a request")).collect()
    }
}

async fn answer(State(seen): State<Arc<Seen>>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let came = (uri.path().to_owned(), body.to_vec());
    seen.asked.lock().expect("no test panics while it holds what was seen").push(came);
    if seen.is_away.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let body = match headers.get("content-encoding").map(|coding| coding.as_bytes()) {
        Some(b"zstd") => zstd::stream::decode_all(&*body).expect("zstd"),
        Some(b"gzip") => {
            let mut out = Vec::new();
            // as many receivers do, it reads one member
            flate2::read::GzDecoder::new(&*body).read_to_end(&mut out).expect("gzip");
            out
        }
        None => body.to_vec(),
        other => panic!("{other:?}, expected zstd or gzip"),
    };
    seen.arrivals.lock().expect("no test panics while it holds what was seen").push((uri.path().to_owned(), body));
    StatusCode::OK
}
