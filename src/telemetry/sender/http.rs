//! OTLP over HTTP with protobuf bodies, by reqwest.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Client, Identity, Response, Url, redirect};
use tokio::time::Instant;

use crate::fetch::{USER_AGENT, provide_cryptography};
use crate::model::telemetry::Signal;
use crate::telemetry::config::{Compression, DestinationConfig, Transport};
use crate::telemetry::sender::answer::{self, Answer};
use crate::telemetry::sender::compression::FRAME;
use crate::telemetry::sender::grpc::{ANSWER_LIMIT, CONNECT_TIMEOUT, TCP_KEEPALIVE, with_causes};
use crate::telemetry::sender::rate_limits;

/// Idle connections go before usual servers close them.
const IDLE: Duration = Duration::from_secs(50);

/// One receiver's HTTP endpoint.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    headers: HeaderMap,
    /// Stands in for the endpoint's host in each URL, so that TLS asks for this name and expects it.
    server_name: Option<String>,
    transport: Transport,
    /// Until then the receiver asked, in an answer, for nothing more.
    held: Mutex<Option<Instant>>,
}

/// Resolves the receiver's name to the addresses of the endpoint's host, anew for each connection.
struct Behind(String);

impl Resolve for Behind {
    fn resolve(&self, _server_name: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect(); // the URL tells the port
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

impl Http {
    /// # Errors
    /// When there is nobody to trust, neither in the settings nor on the system.
    pub(crate) fn new(config: &DestinationConfig, headers: HeaderMap) -> Result<Self, reqwest::Error> {
        provide_cryptography();
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            .tcp_keepalive(TCP_KEEPALIVE);
        if let Some(ca) = &config.tls.ca {
            builder = builder.tls_certs_only(Certificate::from_pem_bundle(ca.expose().as_bytes())?);
        } else if config.endpoint.scheme() != "https" {
            // no redirect is followed, so TLS is never spoken: the system's certificates are not read and kept for nothing
            builder = builder.tls_certs_only([]);
        }
        if let Some((certificate, key)) = &config.tls.identity {
            let pem = format!("{}\n{}", certificate.expose(), key.expose());
            builder = builder.identity(Identity::from_pem(pem.as_bytes())?);
        }
        let server_name = config.tls.server_name.clone().filter(|_| config.endpoint.scheme() == "https");
        if server_name.is_some() {
            builder = builder.dns_resolver(Behind(config.host()));
        }
        Ok(Self { client: builder.build()?, headers, server_name, transport: config.transport, held: Mutex::default() })
    }

    fn named(&self, url: &Url) -> Url {
        let mut url = url.clone();
        if let Some(name) = &self.server_name {
            url.set_host(Some(name)).expect("the settings take only DNS names");
        }
        url
    }

    /// Sends a framed request, without its frame.
    pub(crate) async fn send(&self, url: &Url, framed: &Bytes, compression: Compression) -> Answer {
        let mut headers = self.headers.clone();
        let media = match self.transport {
            Transport::Envelopes => "application/x-sentry-envelope",
            Transport::Grpc | Transport::HttpProtobuf => "application/x-protobuf",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        if let Some(coding) = compression.coding() {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        let request = self.client.post(self.named(url)).headers(headers).body(framed.slice(FRAME..));
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Answer::none(with_causes(&error.without_url())),
        };
        let body = match limited_body(&mut response).await {
            Ok(body) => body,
            Err(error) => return Answer::none(with_causes(&error.without_url())),
        };
        if self.transport == Transport::Envelopes {
            return self.of_sentry(&response, &body);
        }
        if !response.status().is_success() {
            return answer::of_http_error(response.status(), response.headers(), &body, SystemTime::now());
        }
        let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if content_type.starts_with(b"application/json") {
            return answer::of_json_success(&body);
        }
        answer::of_success(&body)
    }
}

impl Http {
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
