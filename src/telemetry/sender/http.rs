//! OTLP over HTTP with protobuf bodies, by reqwest.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use reqwest::{Client, Response, Url, redirect};
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::fetch::{USER_AGENT, provide_cryptography};
use crate::model::telemetry::Signal;
use crate::telemetry::config::{Compression, ConnectionConfig, DestinationConfig, Transport};
use crate::telemetry::resolver::Resolver;
use crate::telemetry::sender::answer::{self, Answer};
use crate::telemetry::sender::compression::FRAME;
use crate::telemetry::sender::connections::{Broken, CONNECT_TIMEOUT, Connections};
use crate::telemetry::sender::grpc::{ANSWER_LIMIT, PING_TIMEOUT, TCP_KEEPALIVE, with_causes};
use crate::telemetry::sender::{rate_limits, tls};

/// Idle connections go before usual servers close them.
const IDLE: Duration = Duration::from_secs(50);

/// One receiver's HTTP endpoint. A client of its own, with its pool, for each address.
#[derive(Debug)]
pub(crate) struct Http {
    /// `None` for plain HTTP.
    tls: Option<ClientConfig>,
    /// In each URL: what TLS asks for and expects.
    name: String,
    /// Whether that stands in for the endpoint's host.
    is_renamed: bool,
    connection: ConnectionConfig,
    connections: Connections<Client>,
    transport: Transport,
    /// Until then the receiver asked, in an answer, for nothing more.
    held: Mutex<Option<Instant>>,
}

impl Http {
    /// # Errors
    /// When there is nobody to trust, neither in the settings nor on the system.
    pub(crate) fn new(
        config: &DestinationConfig,
        connection: ConnectionConfig,
        resolver: Resolver,
    ) -> Result<Self, rustls::Error> {
        provide_cryptography();
        let is_tls = config.endpoint.scheme() == "https";
        let tls = is_tls.then(|| tls::client(config)).transpose()?;
        let other_name = config.tls.server_name.clone().filter(|_| is_tls);
        let connections = Connections::new(config.host(), config.port(), resolver, connection);
        Ok(Self {
            tls,
            is_renamed: other_name.is_some(),
            name: other_name.unwrap_or_else(|| config.host()),
            connection,
            connections,
            transport: config.transport,
            held: Mutex::default(),
        })
    }

    /// A client that knows one address.
    fn open(&self, address: SocketAddr) -> Client {
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .resolve(&self.name, address)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            .tcp_keepalive(TCP_KEEPALIVE);
        if let Some(ping) = self.connection.ping {
            builder = builder
                .http2_keep_alive_interval(ping)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .http2_keep_alive_while_idle(true);
        }
        builder = match &self.tls {
            Some(tls) => builder.tls_backend_preconfigured(tls.clone()),
            // no redirect is followed, so TLS is never spoken: the system's certificates are not read and kept for nothing
            None => builder.tls_certs_only([]),
        };
        builder.build().expect("a client whose TLS is made already")
    }

    fn named(&self, url: &Url) -> Url {
        let mut url = url.clone();
        if self.is_renamed {
            url.set_host(Some(&self.name)).expect("the settings take only DNS names");
        }
        url
    }

    /// The headers of each request.
    pub(crate) fn headers(&self, own: &HeaderMap, compression: Compression) -> HeaderMap {
        let mut headers = own.clone();
        let media = match self.transport {
            Transport::Envelopes => "application/x-sentry-envelope",
            Transport::Grpc | Transport::HttpProtobuf => "application/x-protobuf",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        if let Some(coding) = compression.coding() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        headers
    }

    /// Sends a framed request, without its frame.
    pub(crate) async fn send(&self, url: &Url, framed: &Bytes, headers: &HeaderMap, limit: Duration) -> Answer {
        let url = self.named(url);
        let ask = |client: Client| {
            let request = client.post(url.clone()).headers(headers.clone()).body(framed.slice(FRAME..));
            async move {
                let broken = |error: reqwest::Error| Broken(with_causes(&error.without_url()));
                let mut response = request.send().await.map_err(broken)?;
                let body = limited_body(&mut response).await.map_err(broken)?;
                Ok(self.read(&response, &body))
            }
        };
        self.connections.exchange(limit, |address| self.open(address), ask).await
    }

    fn read(&self, response: &Response, body: &[u8]) -> Answer {
        if self.transport == Transport::Envelopes {
            return self.of_sentry(response, body);
        }
        if !response.status().is_success() {
            return answer::of_http_error(response.status(), response.headers(), body, SystemTime::now());
        }
        let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if content_type.starts_with(b"application/json") {
            return answer::of_json_success(body);
        }
        answer::of_success(body)
    }

    /// Until when the receiver, which took the last request, wants no other.
    pub(crate) fn held_until(&self) -> Option<Instant> {
        let held = self.held.lock().expect("no code panics while it holds the instant");
        held.filter(|until| *until > Instant::now())
    }

    fn of_sentry(&self, response: &Response, body: &[u8]) -> Answer {
        let limit = rate_limits::of_errors(response.headers());
        if !response.status().is_success() {
            return rate_limits::of_error(response.status(), response.headers(), body, limit);
        }
        if let Some(limit) = limit {
            *self.held.lock().expect("no code panics while it holds the instant") = Some(Instant::now() + limit);
        }
        Answer::Accepted { rejected: 0, message: String::new() }
    }
}

/// Where a signal goes below a generic endpoint.
pub(crate) fn signal_path(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "v1/traces",
        Signal::Metrics => "v1/metrics",
        Signal::Logs => "v1/logs",
        Signal::Envelopes => "envelope/",
    }
}

/// The body as far as it is of use.
async fn limited_body(response: &mut Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_LIMIT - body.len())]);
        if body.len() == ANSWER_LIMIT {
            break;
        }
    }
    Ok(body)
}
