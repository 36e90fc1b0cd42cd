//! An OTLP receiver for tests: gRPC and HTTP, scripted, decoding by prost what our encoders wrote.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response as HttpResponse};
use opentelemetry_proto::tonic::collector::logs::v1 as logs;
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::trace::v1 as trace;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

/// What the receiver does with one request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Accept,
    Partial(i64, &'static str),
    /// gRPC: the code; HTTP: the status.
    Fail(Code, u16),
    /// The same with `RetryInfo` or `Retry-After`.
    FailFor(Code, u16, Duration),
    /// HTTP: the status, and `Retry-After` with the date of then.
    FailUntil(u16, SystemTime),
    Slow(Duration),
    /// A success in words that nobody can read (HTTP; over gRPC see `garbled`).
    Garbage,
}

/// The transport under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Grpc,
    Http,
}

impl Over {
    pub(crate) const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    /// Its word in settings.
    pub(crate) fn protocol(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// The codings that the receiver knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Codings {
    All,
    Gzip,
    None,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) script: VecDeque<Reply>,
    pub(crate) otherwise: Option<Reply>,
    /// A request above this is too large.
    pub(crate) limit: Option<usize>,
    /// The only `api-key` that is let in.
    pub(crate) wanted_key: Option<String>,
    pub(crate) calls: u64,
    pub(crate) spans: Vec<Span>,
    pub(crate) metrics: Vec<Metric>,
    pub(crate) logs: Vec<LogRecord>,
    /// `service.name` of each resource.
    pub(crate) services: Vec<String>,
    /// The names of the resources' attributes.
    pub(crate) resource_names: BTreeSet<String>,
    pub(crate) codings: Vec<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) paths: Vec<String>,
}

pub(crate) type SharedSeen = Arc<Mutex<Seen>>;

/// A receiver; ends when dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) seen: SharedSeen,
    _tasks: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn over(over: Over, codings: Codings, seen: SharedSeen) -> Self {
        match over {
            Over::Grpc => Self::grpc(codings, seen).await,
            Over::Http => Self::http(codings, seen).await,
        }
    }

    pub(crate) async fn grpc(codings: Codings, seen: SharedSeen) -> Self {
        Self::grpc_on(free_listener().await, codings, seen).await
    }

    pub(crate) async fn grpc_on(listener: TcpListener, codings: Codings, seen: SharedSeen) -> Self {
        Self::grpc_by(Server::builder(), listener, codings, seen).await
    }

    /// Says GOAWAY to connections of that age.
    pub(crate) async fn grpc_aging(listener: TcpListener, age: Duration) -> Self {
        Self::grpc_by(Server::builder().max_connection_age(age), listener, Codings::All, Default::default()).await
    }

    /// Says yes over gRPC, in words that nobody can read; keeps nothing.
    pub(crate) async fn garbled() -> Self {
        let listener = free_listener().await;
        let address = listener.local_addr().expect("a listener has an address");
        let seen = SharedSeen::default();
        let router = Router::new().fallback(answer_garbage).with_state(Arc::clone(&seen));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let server = Server::builder().add_routes(tonic::service::Routes::from(router));
            server.serve_with_incoming(TcpIncoming::from(listener)).await.expect("the receiver serves");
        });
        Self { address, seen, _tasks: tasks }
    }

    async fn grpc_by(mut server: Server, listener: TcpListener, codings: Codings, seen: SharedSeen) -> Self {
        let address = listener.local_addr().expect("a listener has an address");
        let service = Service { seen: Arc::clone(&seen) };
        let mut traces = trace::trace_service_server::TraceServiceServer::new(service.clone());
        let mut metrics = metrics::metrics_service_server::MetricsServiceServer::new(service.clone());
        let mut logs = logs::logs_service_server::LogsServiceServer::new(service);
        let known: &[CompressionEncoding] = match codings {
            Codings::All => &[CompressionEncoding::Zstd, CompressionEncoding::Gzip],
            Codings::Gzip => &[CompressionEncoding::Gzip],
            Codings::None => &[],
        };
        for coding in known {
            traces = traces.accept_compressed(*coding);
            metrics = metrics.accept_compressed(*coding);
            logs = logs.accept_compressed(*coding);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let server = server.add_service(traces).add_service(metrics).add_service(logs);
            server.serve_with_incoming(TcpIncoming::from(listener)).await.expect("the receiver serves");
        });
        Self { address, seen, _tasks: tasks }
    }

    pub(crate) async fn http(codings: Codings, seen: SharedSeen) -> Self {
        let listener = free_listener().await;
        let address = listener.local_addr().expect("a listener has an address");
        let router = Router::new().fallback(answer_http).with_state((codings, Arc::clone(&seen)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("the receiver serves") });
        Self { address, seen, _tasks: tasks }
    }

    pub(crate) fn with<T>(&self, read: impl FnOnce(&mut Seen) -> T) -> T {
        read(&mut self.seen.lock().expect("no test panics while it holds what was seen"))
    }
}

pub(crate) async fn free_listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + limit;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Clone)]
struct Service {
    seen: SharedSeen,
}

impl Service {
    /// The scripted reply, and what a partial success says; `take` keeps the request when it is accepted.
    async fn reply(
        &self,
        head: &MetadataMap,
        size: usize,
        take: impl FnOnce(&mut Seen),
    ) -> Result<(i64, String), Status> {
        let reply = {
            let mut seen = self.seen.lock().expect("no test panics while it holds what was seen");
            seen.calls += 1;
            let text = |name| head.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned();
            seen.codings.push(text("grpc-encoding"));
            seen.keys.push(text("api-key"));
            next_reply(&mut seen, size)
        };
        match reply {
            Reply::FailUntil(..) => unreachable!("a date is of HTTP"),
            Reply::Fail(code, _) => return Err(Status::new(code, "as scripted")),
            Reply::FailFor(code, _, delay) => return Err(with_retry_info(code, delay)),
            Reply::Slow(delay) => tokio::time::sleep(delay).await,
            Reply::Accept | Reply::Partial(..) | Reply::Garbage => {}
        }
        take(&mut self.seen.lock().expect("no test panics while it holds what was seen"));
        Ok(match reply {
            Reply::Partial(rejected, message) => (rejected, message.to_owned()),
            _ => (0, String::new()),
        })
    }
}

fn next_reply(seen: &mut Seen, size: usize) -> Reply {
    if seen.wanted_key.as_ref().is_some_and(|wanted| seen.keys.last() != Some(wanted)) {
        return Reply::Fail(Code::Unauthenticated, 401);
    }
    if seen.limit.is_some_and(|limit| size > limit) {
        return Reply::Fail(Code::ResourceExhausted, 413);
    }
    seen.script.pop_front().or_else(|| seen.otherwise.clone()).unwrap_or(Reply::Accept)
}

fn with_retry_info(code: Code, delay: Duration) -> Status {
    let duration = prost_duration(delay);
    let mut info = vec![0x0a, duration.len() as u8];
    info.extend(duration);
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let mut any = vec![0x0a, url.len() as u8];
    any.extend(url);
    any.extend([0x12, info.len() as u8]);
    any.extend(info);
    let mut details = vec![0x1a, any.len() as u8];
    details.extend(any);
    Status::with_details(code, "wait", details.into())
}

fn prost_duration(delay: Duration) -> Vec<u8> {
    let mut out = vec![0x08];
    prost::encoding::encode_varint(delay.as_secs(), &mut out);
    out.push(0x10);
    prost::encoding::encode_varint(u64::from(delay.subsec_nanos()), &mut out);
    out
}

fn take_traces(seen: &mut Seen, request: trace::ExportTraceServiceRequest) {
    for resource in request.resource_spans {
        take_resource(seen, resource.resource);
        seen.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
}

fn take_metrics(seen: &mut Seen, request: metrics::ExportMetricsServiceRequest) {
    for resource in request.resource_metrics {
        take_resource(seen, resource.resource);
        seen.metrics.extend(resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics));
    }
}

fn take_logs(seen: &mut Seen, request: logs::ExportLogsServiceRequest) {
    for resource in request.resource_logs {
        take_resource(seen, resource.resource);
        seen.logs.extend(resource.scope_logs.into_iter().flat_map(|scope| scope.log_records));
    }
}

fn take_resource(seen: &mut Seen, resource: Option<opentelemetry_proto::tonic::resource::v1::Resource>) {
    for pair in resource.into_iter().flat_map(|resource| resource.attributes) {
        if let ("service.name", Some(Value::StringValue(text))) = (&*pair.key, pair.value.and_then(|any| any.value)) {
            seen.services.push(text);
        }
        seen.resource_names.insert(pair.key);
    }
}

#[tonic::async_trait]
impl trace::trace_service_server::TraceService for Service {
    async fn export(
        &self,
        request: Request<trace::ExportTraceServiceRequest>,
    ) -> Result<Response<trace::ExportTraceServiceResponse>, Status> {
        let (head, _, body) = request.into_parts();
        let size = body.encoded_len();
        let (rejected_spans, error_message) = self.reply(&head, size, |seen| take_traces(seen, body)).await?;
        let partial_success = Some(trace::ExportTracePartialSuccess { rejected_spans, error_message });
        Ok(Response::new(trace::ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl metrics::metrics_service_server::MetricsService for Service {
    async fn export(
        &self,
        request: Request<metrics::ExportMetricsServiceRequest>,
    ) -> Result<Response<metrics::ExportMetricsServiceResponse>, Status> {
        let (head, _, body) = request.into_parts();
        let size = body.encoded_len();
        self.reply(&head, size, |seen| take_metrics(seen, body)).await?;
        Ok(Response::new(metrics::ExportMetricsServiceResponse { partial_success: None }))
    }
}

#[tonic::async_trait]
impl logs::logs_service_server::LogsService for Service {
    async fn export(
        &self,
        request: Request<logs::ExportLogsServiceRequest>,
    ) -> Result<Response<logs::ExportLogsServiceResponse>, Status> {
        let (head, _, body) = request.into_parts();
        let size = body.encoded_len();
        self.reply(&head, size, |seen| take_logs(seen, body)).await?;
        Ok(Response::new(logs::ExportLogsServiceResponse { partial_success: None }))
    }
}

async fn answer_garbage(Shared(seen): Shared<SharedSeen>) -> HttpResponse {
    seen.lock().expect("no test panics while it holds what was seen").calls += 1;
    ([("content-type", "application/grpc")], "\0\0\0\0\x06<html>").into_response()
}

async fn answer_http(
    Shared((codings, seen)): Shared<(Codings, SharedSeen)>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> HttpResponse {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned();
    let coding = text("content-encoding");
    let known = match codings {
        Codings::All => true,
        Codings::Gzip => coding != "zstd",
        Codings::None => coding == "none",
    };
    let reply = {
        let mut seen = seen.lock().expect("no test panics while it holds what was seen");
        seen.calls += 1;
        seen.codings.push(coding.clone());
        seen.keys.push(text("api-key"));
        seen.paths.push(uri.path().to_owned());
        if !known {
            return (StatusCode::BAD_REQUEST, "unsupported Content-Encoding").into_response();
        }
        next_reply(&mut seen, decoded(&coding, &body).len())
    };
    let status = |status| StatusCode::from_u16(status).expect("a status");
    match reply {
        Reply::Fail(_, code) => return status(code).into_response(),
        Reply::FailFor(_, code, delay) => {
            return (status(code), [("retry-after", delay.as_secs().to_string())]).into_response();
        }
        Reply::FailUntil(code, then) => {
            return (status(code), [("retry-after", httpdate::fmt_http_date(then))]).into_response();
        }
        Reply::Slow(delay) => tokio::time::sleep(delay).await,
        Reply::Garbage => return "<html>welcome to the hotel</html>".into_response(),
        Reply::Accept | Reply::Partial(..) => {}
    }
    let bytes = decoded(&coding, &body);
    let mut seen = seen.lock().expect("no test panics while it holds what was seen");
    match uri.path().rsplit('/').next() {
        Some("traces") => take_traces(&mut seen, Message::decode(&*bytes).expect("spans")),
        Some("metrics") => take_metrics(&mut seen, Message::decode(&*bytes).expect("metrics")),
        _ => take_logs(&mut seen, Message::decode(&*bytes).expect("logs")),
    }
    let (rejected_spans, error_message) = match reply {
        Reply::Partial(rejected, message) => (rejected, message.to_owned()),
        _ => (0, String::new()),
    };
    let partial_success = Some(trace::ExportTracePartialSuccess { rejected_spans, error_message });
    let answer = trace::ExportTraceServiceResponse { partial_success }.encode_to_vec();
    ([("content-type", "application/x-protobuf")], answer).into_response()
}

fn decoded(coding: &str, body: &[u8]) -> Vec<u8> {
    match coding {
        "zstd" => zstd::stream::decode_all(body).expect("zstd"),
        "gzip" => {
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(body).read_to_end(&mut out).expect("gzip");
            out
        }
        _ => body.to_vec(),
    }
}
