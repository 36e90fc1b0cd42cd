//! What stands before every answer: the rate limit, the rule of access, and the headers of safety.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use crate::api::access::{Network, Peer, Reach, is_local_host, peer_key, reach};
use crate::api::config::Config;
use crate::api::limit::{Limiter, Rate};
use crate::api::reply::error;
use crate::api::routes::{Access, find};

/// The rules, and the buckets of the rate limit.
#[derive(Debug)]
pub(super) struct Guard {
    allow: Vec<Network>,
    limiter: Limiter,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// 429: to come back after this time.
    TooMany(Duration),
    /// 403: a name that is not ours, on loopback.
    ForeignHost,
    /// 403: a page of another site would change something.
    ForeignOrigin,
    /// 401: an address that may not read this.
    Stranger,
    /// 401: an address that may not write.
    Remote,
}

/// The page has no script and loads nothing but its own style; its icon is a `data:` picture.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Sent with every answer.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

impl Guard {
    /// The rules of this configuration, with empty buckets.
    pub(super) fn new(config: &Config) -> Self {
        let rate = |per_second: u32| Rate { per_second, burst: per_second.saturating_mul(2) };
        let limiter = Limiter::new(rate(config.rate_per_peer), rate(config.rate));
        Self { allow: config.allow.clone(), limiter }
    }

    /// What the peer may do with this path.
    ///
    /// # Errors
    /// Why it may do nothing at all.
    fn admit(&self, peer: IpAddr, (method, path): (&Method, &str), headers: &HeaderMap) -> Result<Reach, Refused> {
        let access = find(method, path).map_or(Access::Full, |route| route.access);
        if access == Access::Probe {
            return Ok(Reach::Bare);
        }
        self.limiter.admit(peer_key(peer), Instant::now()).map_err(Refused::TooMany)?;
        let reach = reach(peer, &self.allow);
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let (host, is_loopback) = (text(header::HOST), peer.to_canonical().is_loopback());
        if is_loopback && !host.is_none_or(is_local_host) {
            return Err(Refused::ForeignHost);
        }
        match (reach, access) {
            (_, Access::Write) if !is_loopback => Err(Refused::Remote),
            // a browser names the page behind a POST, and a program sends no such header
            (_, Access::Write)
                if headers.contains_key(header::ORIGIN) && !is_own_origin(text(header::ORIGIN), host) =>
            {
                Err(Refused::ForeignOrigin)
            }
            (Reach::Bare, Access::Full) => Err(Refused::Stranger),
            _ => Ok(reach),
        }
    }
}

fn is_own_origin(origin: Option<&str>, host: Option<&str>) -> bool {
    let origin = origin.and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    origin.is_some() && origin == host
}

/// Admits a request or answers in its place, and sets the headers of safety on every answer.
pub(super) async fn guard(Shared(guard): Shared<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    // the server sets the peer on every request; one without it is a stranger
    let peer = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
    let asked = (request.method(), request.uri().path());
    let mut response = match guard.admit(peer, asked, request.headers()) {
        Ok(reach) => {
            request.extensions_mut().insert(reach);
            next.run(request).await
        }
        Err(refused) => refused.answer(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Refused {
    fn answer(&self) -> Response {
        match self {
            Self::TooMany(wait) => too_many(*wait),
            Self::ForeignHost => error(StatusCode::FORBIDDEN, "a foreign Host", "an address or localhost as Host"),
            Self::ForeignOrigin => {
                error(StatusCode::FORBIDDEN, "a foreign Origin", "no Origin, or that of the sidecar's own pages")
            }
            Self::Remote => error(StatusCode::UNAUTHORIZED, "no writing from this address", "a loopback peer"),
            Self::Stranger => error(
                StatusCode::UNAUTHORIZED,
                "not allowed from this address",
                "a loopback peer, or one of the networks in admin.allow",
            ),
        }
    }
}

fn too_many(wait: Duration) -> Response {
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, "too many requests", "fewer than admin.rate_per_peer");
    // whole seconds, rounded up: earlier would be refused again
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let network = Network::parse("10.0.0.0/8").expect("a network");
        Guard { allow: vec![network], limiter: limiter(10) }
    }

    fn limiter(per_peer: u32) -> Limiter {
        let rate = |per_second| Rate { per_second, burst: per_second };
        Limiter::new(rate(per_peer), rate(1_000))
    }

    fn asks(peer: &str, path: &str, host: &'static str) -> Result<Reach, u16> {
        calls(Method::GET, peer, path, host)
    }

    fn calls(method: Method, peer: &str, path: &str, host: &'static str) -> Result<Reach, u16> {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
        let peer = peer.parse().expect("an address");
        guard().admit(peer, (&method, path), &headers).map_err(|refused| refused.answer().status().as_u16())
    }

    #[test]
    fn a_stranger_gets_probes_and_the_word_and_nothing_else() {
        for path in ["/livez", "/readyz", "/startupz", "/readyz/listener", "/health"] {
            assert_eq!(asks("192.0.2.1", path, "sidecar"), Ok(Reach::Bare), "{path}");
        }
        for path in ["/", "/status", "/dashboard", "/openapi.json", "/api/v1/monitoring/metrics", "/nothing"] {
            assert_eq!(asks("192.0.2.1", path, "sidecar"), Err(401), "{path}");
        }
    }

    #[test]
    fn an_allowed_network_and_loopback_see_all_but_not_by_a_foreign_name() {
        assert_eq!(asks("10.9.9.9", "/status", "sidecar.default.svc"), Ok(Reach::Full));
        assert_eq!(asks("::ffff:10.9.9.9", "/status", "sidecar.default.svc"), Ok(Reach::Full));
        assert_eq!(asks("127.0.0.1", "/status", "127.0.0.1:18090"), Ok(Reach::Full));
        assert_eq!(asks("127.0.0.1", "/status", "evil.example"), Err(403));
        assert_eq!(asks("127.0.0.1", "/livez", "evil.example"), Ok(Reach::Bare));
    }

    #[test]
    fn only_loopback_writes_and_not_by_a_foreign_name() {
        for (method, path) in
            [(Method::POST, "/api/v1/monitoring/tasks"), (Method::PATCH, "/api/v1/monitoring/tasks/1")]
        {
            let calls = |peer, host| calls(method.clone(), peer, path, host);
            assert_eq!(calls("127.0.0.1", "127.0.0.1:18090"), Ok(Reach::Full), "{path}");
            assert_eq!(calls("127.0.0.1", "evil.example"), Err(403), "{path}");
            assert_eq!(calls("10.9.9.9", "sidecar"), Err(401), "{path}");
            assert_eq!(calls("192.0.2.1", "sidecar"), Err(401), "{path}");
        }
        assert_eq!(asks("10.9.9.9", "/api/v1/monitoring/tasks", "sidecar"), Ok(Reach::Full));
    }

    #[test]
    fn only_loopback_writes_and_no_page_of_another_site_through_it() {
        for (peer, host, origin, expected) in [
            ("127.0.0.1", "127.0.0.1:18090", None, Ok(Reach::Full)),
            ("::1", "localhost", Some("http://localhost"), Ok(Reach::Full)),
            ("127.0.0.1", "127.0.0.1:18090", Some("http://127.0.0.1:3000"), Err(403)),
            ("127.0.0.1", "127.0.0.1:18090", Some("null"), Err(403)),
            ("127.0.0.1", "evil.example", Some("http://evil.example"), Err(403)),
            ("10.9.9.9", "sidecar.default.svc", None, Err(401)),
            ("192.0.2.1", "sidecar", None, Err(401)),
        ] {
            let origin = origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin)));
            let host = (header::HOST, HeaderValue::from_static(host));
            let headers = [host].into_iter().chain(origin).collect();
            for path in ["/api/v1/monitoring/checks/redis/run", "/api/v1/monitoring/heartbeat/import"] {
                let admitted = guard().admit(peer.parse().expect("an address"), (&Method::POST, path), &headers);
                assert_eq!(admitted.map_err(|refused| refused.answer().status().as_u16()), expected, "{peer} {path}");
            }
        }
    }

    #[test]
    fn a_peer_that_asks_too_often_is_told_when_to_come_back_and_probes_go_on() {
        let guard = guard();
        let peer = "127.0.0.1".parse().expect("an address");
        let refused =
            (0..50).filter_map(|_| guard.admit(peer, (&Method::GET, "/status"), &HeaderMap::new()).err()).last();
        let refused = refused.expect("one of 50 is too many").answer();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        assert!((0..50).all(|_| guard.admit(peer, (&Method::GET, "/readyz"), &HeaderMap::new()).is_ok()));
    }
}
