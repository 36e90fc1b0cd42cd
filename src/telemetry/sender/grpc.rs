//! OTLP over gRPC: bytes that are compressed already, through tonic's channels, one for each connection.
//!
//! tonic's own client would encode and compress on each attempt, and its channel goes back to the address that it knows
//! when a connection ends; ours connects once, so that the name is asked again.

use std::error::Error;
use std::future::{poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::Service;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::fetch::USER_AGENT;
use crate::model::telemetry::Signal;
use crate::telemetry::config::{Compression, ConnectionConfig, DestinationConfig};
use crate::telemetry::resolver::Resolver;
use crate::telemetry::sender::answer::{self, Answer};
use crate::telemetry::sender::compression::unframed;
use crate::telemetry::sender::connections::{Broken, CONNECT_TIMEOUT, Connections};

/// Finds peers that vanished; HTTP/2 PING, where it is asked for, does so sooner.
pub(crate) const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// How long the answer to a PING may take.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Servers without TCP_NODELAY stall large requests through small windows.
const WINDOW: u32 = 1 << 20;
/// Answers are tiny; a longer one is none.
pub(crate) const ANSWER_LIMIT: usize = 64 << 10;

/// One receiver's gRPC endpoint.
#[derive(Debug)]
pub(crate) struct Grpc {
    endpoint: Endpoint,
    connections: Connections<Channel>,
}

impl Grpc {
    /// # Errors
    /// When there is nobody to trust, neither in the settings nor on the system.
    pub(crate) fn new(
        config: &DestinationConfig,
        connection: ConnectionConfig,
        resolver: Resolver,
    ) -> Result<Self, tonic::transport::Error> {
        let mut endpoint = Endpoint::from_shared(config.endpoint.to_string())?
            .user_agent(USER_AGENT)?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        if let Some(ping) = connection.ping {
            endpoint =
                endpoint.http2_keep_alive_interval(ping).keep_alive_timeout(PING_TIMEOUT).keep_alive_while_idle(true);
        }
        if config.endpoint.scheme() == "https" {
            endpoint = endpoint.tls_config(tls(config))?;
            if let Some(origin) = named_origin(config) {
                endpoint = endpoint.origin(origin);
            }
        }
        Ok(Self { endpoint, connections: Connections::new(config.host(), config.port(), resolver, connection) })
    }

    /// Sends a framed request.
    pub(crate) async fn send(&self, signal: Signal, framed: &Bytes, headers: &HeaderMap, limit: Duration) -> Answer {
        let open = |address| self.endpoint.connect_with_connector_lazy(Dial { address, outcome: None });
        self.connections.exchange(limit, open, |channel| exchange(channel, request(signal, framed, headers))).await
    }
}

/// The headers of each request, but for those that are of HTTP/2 itself.
pub(crate) fn headers(own: &HeaderMap, compression: Compression) -> HeaderMap {
    let mut headers = own.clone();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(coding) = compression.coding() {
        headers.insert("grpc-encoding", HeaderValue::from_static(coding));
    }
    headers
}

fn request(signal: Signal, framed: &Bytes, headers: &HeaderMap) -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(framed.clone())));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_static(match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        Signal::Envelopes => unreachable!("Sentry is not asked over gRPC"),
    });
    request.headers_mut().clone_from(headers);
    request
}

/// Connects to an address, once; says what came of it to whoever asks again.
struct Dial {
    address: SocketAddr,
    /// Nothing before the first time; then why it failed, or that it had an end.
    outcome: Option<Arc<OnceLock<String>>>,
}

async fn dial(address: SocketAddr) -> io::Result<TokioIo<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    Ok(TokioIo::new(stream))
}

impl Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        if let Some(outcome) = &self.outcome {
            let reason = outcome.get().map_or("the receiver ended the connection", String::as_str);
            return Box::pin(ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.to_owned()))));
        }
        let (address, outcome) = (self.address, Arc::new(OnceLock::new()));
        self.outcome = Some(Arc::clone(&outcome));
        Box::pin(async move {
            dial(address).await.inspect_err(|error| {
                let _ = outcome.set(error.to_string()); // it is set here alone
            })
        })
    }
}

fn tls(config: &DestinationConfig) -> ClientTlsConfig {
    let mut tls = match &config.tls.ca {
        Some(ca) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca.expose())),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &config.tls.identity {
        tls = tls.identity(Identity::from_pem(certificate.expose(), key.expose()));
    }
    match &config.tls.server_name {
        Some(name) => tls.domain_name(name),
        None => tls,
    }
}

/// The authority of requests, when the receiver has another name than the endpoint: as over HTTP.
fn named_origin(config: &DestinationConfig) -> Option<Uri> {
    let name = config.tls.server_name.as_ref()?;
    let port = config.endpoint.port_or_known_default()?;
    format!("https://{name}:{port}").parse().ok()
}

async fn exchange(mut channel: Channel, request: Request<Body>) -> Result<Answer, Broken> {
    let broken = |error: tonic::transport::Error| Broken(with_causes(&error));
    poll_fn(|context| GrpcService::poll_ready(&mut channel, context)).await.map_err(broken)?;
    let (head, body) = GrpcService::call(&mut channel, request).await.map_err(broken)?.into_parts();
    if let Some(status) = Status::from_header_map(&head.headers).filter(|status| status.code() != Code::Ok) {
        return Ok(of_status(&status));
    }
    let body = match Limited::new(body, ANSWER_LIMIT).collect().await {
        Ok(body) => body,
        Err(error) => return Err(Broken(format!("the answer broke off: {error}"))),
    };
    let status = body.trailers().and_then(Status::from_header_map);
    let bytes = body.to_bytes();
    if !head.status.is_success() {
        return Ok(answer::of_http_error(head.status, &head.headers, &bytes, SystemTime::now()));
    }
    Ok(match status {
        Some(status) if status.code() != Code::Ok => of_status(&status),
        _ => match unframed(&bytes, head.headers.get("grpc-encoding").map(HeaderValue::as_bytes), ANSWER_LIMIT) {
            Some(message) => answer::of_success(&message),
            None => Answer::Unreadable(format!("an answer of {} bytes without a gRPC message", bytes.len())),
        },
    })
}

fn of_status(status: &Status) -> Answer {
    answer::of_grpc_error(status.code(), status.message(), status.details())
}

/// The message of an error and of what caused it, each said once.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
