//! Hands calls on to the AI service and its answers back, both as they come.
//!
//! What belongs to one connection stays there (RFC 9110, section 7.6.1); all else passes as it was written, but for
//! `Accept-Encoding`: an answer that is not compressed can be read on its way. The service's certificate is verified.
//! Redirects are not followed, nothing is tried twice, and no key is known here: it is the caller's.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CONNECTION, HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Incoming};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

use crate::egress::call::{Answering, Call, trouble};
use crate::egress::config::Config;
use crate::egress::desk::Desk;
use crate::egress::tunnel;
use crate::fetch::provide_cryptography;
use crate::model::trouble::Trouble;
use crate::trust::Trust;

/// The service's answer, or one of ours.
pub(super) type Outgoing = Either<Answering, Full<Bytes>>;

/// The way to the service.
#[derive(Debug)]
pub(super) struct Relay {
    config: Config,
    desk: Arc<Desk>,
    /// The way of calls from now on; those under way keep theirs.
    way: Mutex<Arc<Way>>,
}

/// How long the service may take, and the connections on which that is minded.
#[derive(Debug)]
struct Way {
    connect_timeout: Duration,
    read_timeout: Duration,
    /// Made for the first call, because the system's authorities take a while to read; `None` when there are none.
    client: OnceLock<Option<Client>>,
}

impl Way {
    fn of(config: &Config) -> Arc<Self> {
        let Config { connect_timeout, read_timeout, .. } = *config;
        Arc::new(Self { connect_timeout, read_timeout, client: OnceLock::new() })
    }
}

/// Fields of one connection, besides those that `Connection` names.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

impl Relay {
    /// To the service of these settings.
    pub(super) fn new(config: Config, desk: Arc<Desk>) -> Self {
        let way = Mutex::new(Way::of(&config));
        Self { config, desk, way }
    }

    /// Calls wait so long from now on.
    pub(super) fn wait_by(&self, config: &Config) {
        let mut way = self.way();
        if (way.connect_timeout, way.read_timeout) != (config.connect_timeout, config.read_timeout) {
            *way = Way::of(config);
        }
    }

    fn way(&self) -> MutexGuard<'_, Arc<Way>> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a call with what the service says to it.
    pub(super) async fn answer(&self, mut request: Request<Incoming>) -> Response<Outgoing> {
        let tunnel = tunnel::Asked::of(&mut request);
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "this port leads to one service, and is no proxy");
        }
        let call = Call::begin(&self.desk, &head);
        let way = Arc::clone(&self.way());
        let Some(client) = way.client.get_or_init(|| client(&self.config, &way)) else {
            call.fail(Trouble::Tls);
            return refusal(StatusCode::BAD_GATEWAY, "tls: there are no certificates to trust, expected egress.ca");
        };
        let mut onward = reqwest::Request::new(head.method.clone(), self.url(&head.uri));
        if !body.is_end_stream() {
            *onward.body_mut() = Some(reqwest::Body::wrap(call.asking(&head, body)));
        }
        strip(&mut head.headers);
        head.headers.remove(HOST);
        head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if tunnel.is_some() {
            tunnel::name(&mut head.headers);
        }
        *onward.headers_mut() = head.headers;
        match client.execute(onward).await {
            Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => match tunnel {
                Some(tunnel) => switch(tunnel, answer, way.read_timeout, call),
                None => {
                    call.fail(Trouble::Protocol);
                    refusal(StatusCode::BAD_GATEWAY, Trouble::Protocol.word())
                }
            },
            Ok(answer) => {
                let (mut head, body) = Response::<reqwest::Body>::from(answer).into_parts();
                strip(&mut head.headers);
                let body = call.answering(head.status.as_u16(), &head.headers, body);
                Response::from_parts(head, Either::Left(body))
            }
            Err(error) => {
                let trouble = trouble(&error);
                call.fail(trouble);
                let status =
                    if trouble == Trouble::Timeout { StatusCode::GATEWAY_TIMEOUT } else { StatusCode::BAD_GATEWAY };
                refusal(status, trouble.word())
            }
        }
    }

    /// The service's URL of what the caller asks for here.
    fn url(&self, asked: &Uri) -> Url {
        let mut url = self.config.upstream.clone();
        let path = [url.path().trim_end_matches('/'), asked.path()].concat();
        url.set_path(&path);
        url.set_query(asked.query());
        url
    }
}

/// Agrees to a WebSocket to which the service has agreed; the call was the handshake.
fn switch(tunnel: tunnel::Asked, answer: reqwest::Response, idle: Duration, call: Call) -> Response<Outgoing> {
    let mut response = Response::new(Either::Right(Full::default()));
    *response.status_mut() = answer.status();
    response.headers_mut().clone_from(answer.headers());
    strip(response.headers_mut());
    tunnel::name(response.headers_mut());
    tunnel.carry(answer, idle);
    call.switched();
    response
}

fn client(config: &Config, way: &Way) -> Option<Client> {
    provide_cryptography();
    let builder = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(way.connect_timeout)
        .read_timeout(way.read_timeout);
    let builder = match config.upstream.scheme() {
        "https" => builder.tls_backend_preconfigured((*Trust::default().client(config.ca.as_ref())?).clone()),
        _ => builder.tls_certs_only([]),
    };
    builder.build().ok()
}

/// Takes away what belongs to the connection that it came by.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// An answer of ours, in the form of the service's errors, so that its package shows the reason.
fn refusal(status: StatusCode, reason: &'static str) -> Response<Outgoing> {
    let text =
        format!(r#"{{"error":{{"message":"the sidecar could not reach the AI service: {reason}","type":"sidecar"}}}}"#);
    let mut response = Response::new(Either::Right(Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("connection", "close, X-Own"),
            ("x-own", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-other", "2"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["authorization", "x-other"]);
    }
}
