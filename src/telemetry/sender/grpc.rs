//! OTLP over gRPC: bytes that are compressed already, through tonic's channel.
//!
//! tonic's own client would encode and compress on each attempt. One connection; a fresh one, resolved anew, after
//! any failure and after a few minutes, so that traffic moves with the addresses of a gateway.

use std::error::Error;
use std::future::poll_fn;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::fetch::USER_AGENT;
use crate::model::telemetry::Signal;
use crate::telemetry::config::{Compression, DestinationConfig};
use crate::telemetry::sender::answer::{self, Answer};
use crate::telemetry::sender::compression::unframed;

/// How long a connection may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Finds peers that vanished; HTTP/2 PING would make stock Go servers hang up.
pub(crate) const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// Servers without TCP_NODELAY stall large requests through small windows.
const WINDOW: u32 = 1 << 20;
/// A connection's age, drawn from these, so that senders do not move all at once.
const LIFETIME: std::ops::Range<u64> = 270..330;
/// Answers are tiny; a longer one is none.
pub(crate) const ANSWER_LIMIT: usize = 64 << 10;

/// One receiver's gRPC endpoint.
#[derive(Debug)]
pub(crate) struct Grpc {
    endpoint: Endpoint,
    headers: HeaderMap,
    /// Held for moments, never across an await.
    connection: Mutex<Option<Connection>>,
}

#[derive(Clone, Debug)]
struct Connection {
    channel: Channel,
    end_of_life: Instant,
    /// An answer came through it: when it breaks, the receiver may only have closed it.
    proven: bool,
}

/// The connection broke before an answer came.
struct Broken(String);

impl Grpc {
    /// # Errors
    /// When there is nobody to trust, neither in the settings nor on the system.
    pub(crate) fn new(config: &DestinationConfig, headers: HeaderMap) -> Result<Self, tonic::transport::Error> {
        let mut endpoint = Endpoint::from_shared(config.endpoint.to_string())?
            .user_agent(USER_AGENT)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(TCP_KEEPALIVE))
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        if config.endpoint.scheme() == "https" {
            endpoint = endpoint.tls_config(tls(config))?;
            if let Some(origin) = named_origin(config) {
                endpoint = endpoint.origin(origin);
            }
        }
        Ok(Self { endpoint, headers, connection: Mutex::default() })
    }

    /// Sends a framed request. A connection that broke and had worked is replaced once, at once.
    pub(crate) async fn send(&self, signal: Signal, framed: &Bytes, compression: Compression) -> Answer {
        let mut connection = self.connection();
        loop {
            match exchange(connection.channel, self.request(signal, framed, compression)).await {
                Ok(answer) => {
                    self.proven();
                    return answer;
                }
                Err(Broken(reason)) => {
                    self.forget();
                    if !connection.proven {
                        return Answer::none(reason);
                    }
                    connection = self.connection();
                }
            }
        }
    }

    /// The next request makes a connection of its own, and resolves the name again.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    fn connection(&self) -> Connection {
        let now = Instant::now();
        let mut slot = self.lock();
        if let Some(connection) = slot.as_ref().filter(|connection| connection.end_of_life > now) {
            return connection.clone();
        }
        let end_of_life = now + Duration::from_secs(fastrand::u64(LIFETIME));
        slot.insert(Connection { channel: self.endpoint.connect_lazy(), end_of_life, proven: false }).clone()
    }

    fn proven(&self) {
        if let Some(connection) = self.lock().as_mut() {
            connection.proven = true;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.connection.lock().expect("no code panics while it holds the connection")
    }

    fn request(&self, signal: Signal, framed: &Bytes, compression: Compression) -> Request<Body> {
        let mut request = Request::new(Body::new(Full::new(framed.clone())));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_static(match signal {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Signal::Envelopes => unreachable!("Sentry is not asked over gRPC"),
        });
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Some(coding) = compression.coding() {
            headers.insert("grpc-encoding", HeaderValue::from_static(coding));
        }
        request
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
        Err(error) => return Ok(Answer::none(format!("the answer broke off: {error}"))),
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
