//! What stands before every answer: the rate limit, the rule of access, and the headers of safety.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use crate::api::access::{Peer, Reach, is_local_host, peer_key};
use crate::api::limit::Limiter;
use crate::api::presented::{Scheme, presented};
use crate::api::refusals::{Refusal, Refusals};
use crate::api::reply::{HTML, error, respond};
use crate::api::routes::{Access, find};
use crate::api::rulebook::{Rulebook, Rules};

/// Where the rules are found, the buckets of the rate limit, and the count of what is refused.
#[derive(Debug)]
pub(super) struct Guard {
    rulebook: Rulebook,
    limiter: Limiter,
    refusals: Arc<Refusals>,
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
    /// 401: somebody who may not read this.
    Stranger,
    /// 401: somebody who may not write.
    Unwritten,
    /// 401: a token that nobody gave out.
    UnknownToken,
    /// 403: a token that may only read.
    ReadOnly,
    /// 403: a token that a browser sends.
    OnlyReadsByBasic,
}

/// Who is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// Told what was expected, as JSON.
    Program,
    /// A person before a browser, which asks for a password where the answer says so.
    Browser,
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
    /// Judges by these rules, with empty buckets.
    pub(super) fn new(rulebook: Rulebook, refusals: Arc<Refusals>) -> Self {
        Self { rulebook, limiter: Limiter::default(), refusals }
    }

    /// What the peer may do with this path.
    ///
    /// # Errors
    /// Why it may do nothing at all.
    fn admit(&self, rules: &Rules, peer: Peer, request: Asking<'_>) -> Result<Reach, Refused> {
        let Asking { method, path, headers } = request;
        let access = find(method, path).map_or(Access::Full, |route| route.access);
        if access == Access::Probe {
            return Ok(Reach::Bare);
        }
        self.limiter.admit(peer_key(peer.address), rules.rates(), Instant::now()).map_err(Refused::TooMany)?;
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let host = text(header::HOST);
        if peer.is_loopback() && !host.is_none_or(is_local_host) {
            return Err(Refused::ForeignHost);
        }
        let token = presented(headers).filter(|_| rules.has_tokens());
        let reach = rules.reach(peer, token.as_ref()).ok_or(Refused::UnknownToken)?;
        match access {
            Access::Word | Access::Probe => Ok(reach),
            Access::Full if reach >= Reach::Full => Ok(reach),
            Access::Full => Err(Refused::Stranger),
            // a browser names the page behind a POST, and a program sends no such header
            _ if headers.contains_key(header::ORIGIN) && !is_own_origin(text(header::ORIGIN), host) => {
                Err(Refused::ForeignOrigin)
            }
            Access::Told if peer.is_loopback() => Ok(reach),
            _ if reach == Reach::Write => Ok(reach),
            _ => Err(match token.filter(|_| reach == Reach::Full).map(|token| token.scheme) {
                Some(Scheme::Bearer) => Refused::ReadOnly,
                Some(Scheme::Basic) => Refused::OnlyReadsByBasic,
                None => Refused::Unwritten,
            }),
        }
    }
}

/// A request, as far as leave depends on it.
struct Asking<'r> {
    method: &'r Method,
    path: &'r str,
    headers: &'r HeaderMap,
}

impl Asker {
    /// A browser says that it wants a page; where there are no tokens it has none to ask for.
    fn of(request: &Request, rules: &Rules) -> Self {
        let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads && rules.has_tokens() && accept.contains("text/html") { Self::Browser } else { Self::Program }
    }
}

fn is_own_origin(origin: Option<&str>, host: Option<&str>) -> bool {
    let origin = origin.and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    origin.is_some() && origin == host
}

/// Admits a request or answers in its place, and sets the headers of safety on every answer.
pub(super) async fn guard(Shared(guard): Shared<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    // the server sets the peer on every request; one without it is a stranger
    let stranger = Peer { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), is_certified: false };
    let peer = request.extensions().get().copied().unwrap_or(stranger);
    let rules = guard.rulebook.in_force();
    let asking = Asking { method: request.method(), path: request.uri().path(), headers: request.headers() };
    let mut response = match guard.admit(&rules, peer, asking) {
        Ok(reach) => {
            request.extensions_mut().insert(reach);
            request.extensions_mut().insert(rules.config.readiness);
            next.run(request).await
        }
        Err(refused) => {
            guard.refusals.count(refused.reason());
            refused.answer(Asker::of(&request, &rules))
        }
    };
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

impl Refused {
    fn reason(self) -> Refusal {
        match self {
            Self::TooMany(_) => Refusal::Rate,
            Self::ForeignHost | Self::ForeignOrigin => Refusal::Foreign,
            Self::Stranger | Self::Unwritten => Refusal::Stranger,
            Self::UnknownToken => Refusal::Token,
            Self::ReadOnly | Self::OnlyReadsByBasic => Refusal::ReadOnly,
        }
    }

    fn answer(self, asker: Asker) -> Response {
        match self {
            Self::Stranger | Self::UnknownToken if asker == Asker::Browser => asking_for_a_token(),
            Self::TooMany(wait) => too_many(wait),
            Self::ForeignHost => error(StatusCode::FORBIDDEN, "a foreign Host", "an address or localhost as Host"),
            Self::ForeignOrigin => {
                error(StatusCode::FORBIDDEN, "a foreign Origin", "no Origin, or that of the sidecar's own pages")
            }
            Self::Stranger => challenge(
                error(
                    StatusCode::UNAUTHORIZED,
                    "not allowed from this address",
                    "a token of admin.tokens, a loopback peer without tokens, or one of the networks in admin.allow",
                ),
                "Bearer",
            ),
            Self::Unwritten => challenge(
                error(
                    StatusCode::UNAUTHORIZED,
                    "no writing from this address",
                    "a token that writes, or a loopback peer without tokens",
                ),
                "Bearer",
            ),
            Self::UnknownToken => challenge(
                error(StatusCode::UNAUTHORIZED, "a token that is not known", "one of those in admin.tokens"),
                r#"Bearer error="invalid_token""#,
            ),
            Self::ReadOnly => challenge(
                error(StatusCode::FORBIDDEN, "a token that only reads", "one with the word write behind it"),
                r#"Bearer error="insufficient_scope""#,
            ),
            Self::OnlyReadsByBasic => challenge(
                error(StatusCode::FORBIDDEN, "a token by Basic, which only reads", "the same as a Bearer token"),
                r#"Bearer error="insufficient_scope""#,
            ),
        }
    }
}

/// What a person sees who gives no token: the browser has asked for it, and asks again when the page is loaded anew.
const NO_TOKEN: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
    content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>A token is \
    needed</title>\n</head>\n<body>\n<h1>A token is needed</h1>\n<p>Load this page anew, and give a token of \
    <code>admin.tokens_file</code> as the password. The name may be anything.</p>\n</body>\n</html>\n";

/// Has a browser ask for a token, which it then sends with all that it loads from here (RFC 7617).
fn asking_for_a_token() -> Response {
    let mut response = challenge(respond(HTML, NO_TOKEN), r#"Basic realm="content-factory-sidecar", charset="UTF-8""#);
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

/// Says by what one may come in (RFC 6750, section 3).
fn challenge(mut response: Response, challenge: &'static str) -> Response {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
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
    use crate::api::config::Config;
    use crate::settings::{Place, Settings, Tree};
    use serde_json::{Value, json};

    fn guard(admin: Value) -> Guard {
        let mut tree = Tree::default();
        tree.merge(json!({ "admin": admin }), &Place("test".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let rulebook = Rulebook::new(Config::read(&mut settings.section(""))).expect("rules");
        Guard::new(rulebook, Arc::default())
    }

    fn judge(guard: &Guard, peer: &str, method: &Method, path: &str, headers: &HeaderMap) -> Result<Reach, Refused> {
        let peer = Peer { address: peer.parse().expect("an address"), is_certified: false };
        guard.admit(&guard.rulebook.in_force(), peer, Asking { method, path, headers })
    }

    fn asks(peer: &str, path: &str, host: &'static str) -> Result<Reach, u16> {
        calls(Method::GET, peer, path, host)
    }

    fn calls(method: Method, peer: &str, path: &str, host: &'static str) -> Result<Reach, u16> {
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))]);
        judge(&guard(json!({"allow": "10.0.0.0/8"})), peer, &method, path, &headers)
            .map_err(|refused| refused.answer(Asker::Program).status().as_u16())
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
        assert_eq!(asks("127.0.0.1", "/status", "127.0.0.1:18090"), Ok(Reach::Write));
        assert_eq!(asks("127.0.0.1", "/status", "evil.example"), Err(403));
        assert_eq!(asks("127.0.0.1", "/livez", "evil.example"), Ok(Reach::Bare));
    }

    #[test]
    fn only_loopback_writes_and_not_by_a_foreign_name() {
        for (method, path) in
            [(Method::POST, "/api/v1/monitoring/tasks"), (Method::PATCH, "/api/v1/monitoring/tasks/1")]
        {
            let calls = |peer, host| calls(method.clone(), peer, path, host);
            assert_eq!(calls("127.0.0.1", "127.0.0.1:18090"), Ok(Reach::Write), "{path}");
            assert_eq!(calls("127.0.0.1", "evil.example"), Err(403), "{path}");
            assert_eq!(calls("10.9.9.9", "sidecar"), Err(401), "{path}");
            assert_eq!(calls("192.0.2.1", "sidecar"), Err(401), "{path}");
        }
        assert_eq!(asks("10.9.9.9", "/api/v1/monitoring/tasks", "sidecar"), Ok(Reach::Full));
    }

    #[test]
    fn only_loopback_writes_and_no_page_of_another_site_through_it() {
        for (peer, host, origin, expected) in [
            ("127.0.0.1", "127.0.0.1:18090", None, Ok(Reach::Write)),
            ("::1", "localhost", Some("http://localhost"), Ok(Reach::Write)),
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
                let admitted = judge(&guard(json!({"allow": "10.0.0.0/8"})), peer, &Method::POST, path, &headers);
                assert_eq!(
                    admitted.map_err(|refused| refused.answer(Asker::Program).status().as_u16()),
                    expected,
                    "{peer} {path}"
                );
            }
        }
    }

    #[test]
    fn a_peer_that_asks_too_often_is_told_when_to_come_back_and_probes_go_on() {
        let guard = guard(json!({"rate_per_peer": 5}));
        let ask = |path| judge(&guard, "127.0.0.1", &Method::GET, path, &HeaderMap::new());
        let refused = (0..50).find_map(|_| ask("/status").err()).expect("one of 50 is too many").answer(Asker::Program);
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        assert!((0..50).all(|_| ask("/readyz").is_ok()));
    }

    #[test]
    fn only_who_wants_a_page_is_asked_for_a_token_and_only_where_there_are_tokens() {
        let open = guard(json!({})).rulebook.in_force();
        let guarded = guard(json!({"tokens": "reader-0123456789abcdef"})).rulebook.in_force();
        for (rules, method, accept, expected) in [
            (&guarded, Method::GET, "text/html,*/*;q=0.8", Asker::Browser),
            (&guarded, Method::HEAD, "text/html", Asker::Browser),
            (&guarded, Method::POST, "text/html", Asker::Program),
            (&guarded, Method::GET, "*/*", Asker::Program),
            (&open, Method::GET, "text/html", Asker::Program),
        ] {
            let mut request = Request::new(axum::body::Body::empty());
            *request.method_mut() = method;
            request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Asker::of(&request, rules), expected, "{accept}");
        }
    }

    const READER: &str = "Bearer reader-0123456789abcdef";
    const WRITER: &str = "Bearer writer-0123456789abcdef";
    const NOBODY: &str = "Bearer nobody-0123456789abcdef";

    /// Status and challenge of what is refused.
    fn with_tokens(
        peer: &str,
        method: &Method,
        path: &str,
        token: Option<&'static str>,
    ) -> Result<Reach, (u16, String)> {
        let tokens = "reader-0123456789abcdef\nwriter-0123456789abcdef write";
        let token = token.map(|token| (header::AUTHORIZATION, HeaderValue::from_static(token)));
        let headers = token.into_iter().collect();
        judge(&guard(json!({"tokens": tokens, "allow": "10.0.0.0/8"})), peer, method, path, &headers).map_err(
            |refused| {
                let answer = refused.answer(Asker::Program);
                let challenge =
                    answer.headers().get(header::WWW_AUTHENTICATE).map(|value| value.to_str().expect("ASCII"));
                (answer.status().as_u16(), challenge.unwrap_or_default().to_owned())
            },
        )
    }

    #[test]
    fn a_token_reads_from_everywhere_and_one_that_nobody_gave_out_is_told_so() {
        let asks = |peer, path, token| with_tokens(peer, &Method::GET, path, token);
        for peer in ["127.0.0.1", "10.9.9.9", "192.0.2.1"] {
            assert_eq!(asks(peer, "/status", Some(READER)), Ok(Reach::Full), "{peer}");
            let unknown = Err((401, r#"Bearer error="invalid_token""#.to_owned()));
            assert_eq!(asks(peer, "/status", Some(NOBODY)), unknown, "{peer}");
            assert_eq!(asks(peer, "/health", Some(NOBODY)), unknown, "{peer}");
            assert_eq!(asks(peer, "/readyz", Some(NOBODY)), Ok(Reach::Bare), "{peer}");
        }
        for peer in ["127.0.0.1", "192.0.2.1"] {
            assert_eq!(asks(peer, "/status", None), Err((401, "Bearer".to_owned())), "{peer}");
            assert_eq!(asks(peer, "/health", None), Ok(Reach::Bare), "{peer}");
        }
        assert_eq!(asks("10.9.9.9", "/status", None), Ok(Reach::Full));
    }

    #[test]
    fn with_tokens_one_that_writes_is_needed_but_for_the_words_of_the_application_on_loopback() {
        let run = |peer, token| with_tokens(peer, &Method::POST, "/api/v1/monitoring/checks/redis/run", token);
        let begin = |peer, token| with_tokens(peer, &Method::POST, "/api/v1/monitoring/tasks", token);
        let read_only = Err((403, r#"Bearer error="insufficient_scope""#.to_owned()));
        for peer in ["127.0.0.1", "10.9.9.9", "192.0.2.1"] {
            assert_eq!(run(peer, Some(WRITER)), Ok(Reach::Write), "{peer}");
            assert_eq!(begin(peer, Some(WRITER)), Ok(Reach::Write), "{peer}");
            assert_eq!(run(peer, Some(READER)), read_only, "{peer}");
            assert_eq!(run(peer, None), Err((401, "Bearer".to_owned())), "{peer}");
        }
        assert_eq!(begin("127.0.0.1", None), Ok(Reach::Bare));
        assert_eq!(begin("127.0.0.1", Some(READER)), Ok(Reach::Full));
        assert_eq!(begin("192.0.2.1", None), Err((401, "Bearer".to_owned())));
        assert_eq!(begin("192.0.2.1", Some(READER)), read_only);
    }
}
