//! The settings of the data path. Each default has its reason in the text that the documentation shows.

use std::net::SocketAddr;
use std::time::Duration;

use crate::proxy::cidr::Cidr;
use crate::settings::{Described, Section};

/// How the proxy behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether there is a proxy at all.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The application.
    pub upstream: Authority,
    /// What it is spoken to in.
    pub upstream_protocol: UpstreamProtocol,
    /// How many worker threads.
    pub workers: usize,
    /// Whether it joins other listeners on the port.
    pub reuse_port: bool,
    /// Whether clients may speak HTTP/2 at once, without an upgrade.
    pub http2: bool,
    /// Connections of HTTP/2 of the process.
    pub http2_connections: usize,
    /// Sizes and numbers.
    pub limits: Limits,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// How long new connections are still taken once the process is to end.
    pub drain_delay: Duration,
    /// How long requests under way may take after that.
    pub drain_timeout: Duration,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Whether a client may close its sending side and still wait for the answer.
    pub half_close: bool,
    /// Paths that are counted apart, without spans.
    pub probe_paths: Vec<String>,
    /// Protocols that a connection may be upgraded to, in lower case.
    pub upgrades: Vec<String>,
    /// Our name in `Via`; `None` writes none.
    pub via: Option<String>,
    /// Templates of routes whose answers' bodies are copied for the record.
    pub taps: Vec<String>,
}

/// What the application is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// gRPC of clients that speak HTTP/2 goes on as that, all else as HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in clear text, by prior knowledge.
    H2c,
}

/// The application's address as configured: a host, which may be a name, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// An address or a name, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Sizes and numbers that bound what one process holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The header section of a message, with its first line.
    pub head_bytes: usize,
    /// The first line of a request.
    pub request_line_bytes: usize,
    /// The body of a request; 0 is without limit.
    pub body_bytes: u64,
    /// Client connections of the process.
    pub connections: usize,
    /// New client connections per second and address; 0 is without limit.
    pub connection_rate: usize,
    /// Requests in flight of the process.
    pub in_flight: usize,
    /// Memory for requests under way and connections of HTTP/2, in bytes, of the process.
    pub memory: usize,
    /// Idle connections to the application, per worker.
    pub pool: usize,
    /// How much of a tapped body is copied.
    pub tap_bytes: usize,
}

/// Deadlines, all on the monotonic clock, kept to about a tenth of a second; zero is without one.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a head to its end.
    pub header: Duration,
    /// Between two pieces of a request's body.
    pub body_idle: Duration,
    /// To connect to the application.
    pub connect: Duration,
    /// From the request sent, or the last interim answer, to the end of the answer's head.
    pub first_byte: Duration,
    /// Between two requests of a client's connection.
    pub client_idle: Duration,
    /// While the other side takes no bytes.
    pub write_stall: Duration,
    /// How long a connection to the application is kept unused.
    pub pool_idle: Duration,
}

/// At most this many fields in a header section: a constant, because their table lives on the stack.
pub const MAX_FIELDS: usize = 100;

impl Config {
    /// Reads the section `proxy`; mistakes are collected there.
    pub fn read(section: &mut Section<'_>) -> Self {
        let enabled = section.flag("enabled", true, "`false` beside a Celery worker or beat, which serve no HTTP");
        let listen = section.address(
            "listen",
            SocketAddr::from(([0, 0, 0, 0], 18_000)),
            "where the proxy listens; port 0 takes any free one",
        );
        let (http2, http2_connections) = read_http2(&mut section.section("http2"));
        Self {
            enabled,
            listen,
            upstream: read_upstream(section),
            upstream_protocol: section.choice(
                "upstream_protocol",
                UpstreamProtocol::Auto,
                &[
                    ("auto", UpstreamProtocol::Auto),
                    ("http1", UpstreamProtocol::Http1),
                    ("h2c", UpstreamProtocol::H2c),
                ],
                "`auto`: HTTP/1.1, as uvicorn speaks, and gRPC by HTTP/2 in clear text; `http1` or `h2c`: everything so",
            ),
            workers: read_workers(section),
            reuse_port: section.flag(
                "reuse_port",
                false,
                "joins a listener that is on the port already, for a handover; else it is an error",
            ),
            http2,
            http2_connections,
            limits: Limits::read(&mut section.section("limits")),
            timeouts: Timeouts::read(&mut section.section("timeouts")),
            drain_delay: section.duration(
                "drain_delay",
                Duration::ZERO,
                "for new connections at SIGTERM; 0: it comes after the application's end, as a native sidecar is told; \
                 5s where it comes with the application's, as to an ordinary container of its pod",
            ),
            drain_timeout: section.duration(
                "drain_timeout",
                Duration::from_secs(20),
                "for requests under way after that; with telemetry.shutdown below the grace period of the pod (30s)",
            ),
            trusted_proxies: read_networks(section),
            half_close: section.flag(
                "half_close",
                false,
                "a client that closes its sending side still gets its answer; off, because that is how most hang up",
            ),
            probe_paths: section.list(
                "probe_paths",
                &["/livez", "/readyz", "/healthz"],
                "counted apart and without spans; the application's own /health is ordinary traffic",
            ),
            upgrades: read_upgrades(section),
            via: read_via(section),
            taps: section.list("taps", &[], "route templates whose answers are copied, to count their `results` as publishes, such as /social-media/publish-video/{video_id}; none"),
        }
    }
}

fn read_http2(section: &mut Section<'_>) -> (bool, usize) {
    let is_enabled = section.flag(
        "enabled",
        true,
        "HTTP/2 in clear text by prior knowledge (h2c), translated for the application; `false` refuses it by 505",
    );
    let about = "connections of HTTP/2, which take some 20 KiB each; beyond it the one that has been idle longest is told to go, by \
                 GOAWAY, and if none is idle the new one is";
    let connections = section.number("connections", 1_024, 1..=1_000_000, about);
    (is_enabled, usize::try_from(connections).unwrap_or(usize::MAX))
}

fn read_workers(section: &mut Section<'_>) -> usize {
    let about = "threads that carry traffic; one carries tens of thousands of requests a second";
    usize::try_from(section.number("workers", 1, 1..=64, about)).unwrap_or(1)
}

fn read_upstream(section: &mut Section<'_>) -> Authority {
    let key = Described {
        name: "upstream",
        default: Authority { host: "127.0.0.1".into(), port: 8_000 },
        default_text: "http://127.0.0.1:8000".into(),
        about: "the application; a name is looked up at start and every 30s",
    };
    section.parsed(key, "a URL of the form http://host:port", parse_upstream)
}

fn parse_upstream(text: &str) -> Option<Authority> {
    let url = url::Url::parse(text).ok().filter(|url| url.scheme() == "http")?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.path() == "/";
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    plain.then_some(Authority { host, port: url.port_or_known_default()? })
}

fn read_networks(section: &mut Section<'_>) -> Vec<Cidr> {
    let key = Described {
        name: "trusted_proxies",
        default: Vec::new(),
        default_text: String::new(),
        about: "networks whose X-Forwarded-*, Forwarded and sampled flag are believed; none: anyone could write them",
    };
    let parse = |text: &str| text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(|t| t.parse().ok()).collect();
    section.parsed(key, "a list of networks such as 10.0.0.0/8", parse)
}

fn read_upgrades(section: &mut Section<'_>) -> Vec<String> {
    let about = "protocols a connection may be upgraded to; h2c never, it would pass around the checks";
    let mut upgrades = section.list("upgrades", &["websocket"], about);
    upgrades.iter_mut().for_each(|name| name.make_ascii_lowercase());
    if upgrades.iter().any(|name| name.starts_with("h2c") || name.starts_with("http/")) {
        section.problem("upgrades", upgrades.join(","), "protocols other than HTTP itself");
    }
    upgrades
}

fn read_via(section: &mut Section<'_>) -> Option<String> {
    let key = Described {
        name: "via",
        default: None,
        default_text: String::new(),
        about: "our pseudonym in the requests' Via (RFC 9110, section 7.6.3), by which a loop is seen; none, because servers \
                that see one may stop compressing, and the application shall not notice us",
    };
    let token = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    section.parsed(key, "a name of letters, digits, dots and dashes", |text| {
        token(text).then(|| Some(text.to_owned()).filter(|text| !text.is_empty()))
    })
}

impl Limits {
    fn read(section: &mut Section<'_>) -> Self {
        let mut count = |name, default, range, about| {
            usize::try_from(section.number(name, default, range, about)).unwrap_or(usize::MAX)
        };
        let connections = count(
            "connections",
            8_192,
            1..=1_000_000,
            "client connections; never more than half of the file descriptors, since each may need a second",
        );
        let connection_rate = count(
            "connection_rate",
            0,
            0..=1_000_000,
            "new connections per second and client address (IPv6: /64), a second's worth at once; beyond it they are reset; \
             0 is without limit, since many clients may share the address of an ingress, a node or a mesh; \
             proxy.trusted_proxies are exempt",
        );
        let in_flight = count("in_flight", 4_096, 1..=1_000_000, "requests at once; beyond it 503 with Retry-After");
        // with fewer than a crowd has under way at once, each of its turns closes connections only to open them again; none
        // stays longer than `pool_idle`
        let pool = count("pool", 1_024, 0..=10_000, "idle connections to the application, per worker");
        let mut size =
            |name, default, about| usize::try_from(section.bytes(name, default, about)).unwrap_or(usize::MAX);
        Self {
            connections,
            connection_rate,
            in_flight,
            pool,
            memory: size(
                "memory",
                32 << 20,
                "for requests under way and connections of HTTP/2; beyond it 503 with Retry-After. 9 MiB and 2.3 KiB for each idle \
                 connection come on top: with the defaults it stays below the 64 MiB that the container may take",
            )
            .max(1 << 20),
            head_bytes: size("head", 64 << 10, "a header section; beyond it 431").clamp(1 << 10, 1 << 20),
            request_line_bytes: size("request_line", 16 << 10, "the first line of a request; beyond it 414")
                .clamp(256, 1 << 20),
            tap_bytes: size("tap", 64 << 10, "how much of a tapped body is copied").min(1 << 20),
            body_bytes: section.bytes("body", 0, "a request's body; beyond it 413; 0 leaves it to the application"),
        }
    }
}

impl Timeouts {
    fn read(section: &mut Section<'_>) -> Self {
        let seconds = Duration::from_secs;
        Self {
            header: section.duration("header", seconds(10), "for a head to arrive whole: stops slow-header attacks"),
            body_idle: section.duration("body_idle", seconds(30), "between two pieces of a request's body"),
            connect: section.duration("connect", seconds(1), "to reach the application, which is near"),
            first_byte: section.duration(
                "first_byte",
                Duration::ZERO,
                "for an answer to begin; 0: the application's own limit rules",
            ),
            client_idle: section.duration(
                "client_idle",
                seconds(70),
                "between two requests; above the 60s of load balancers, so that they close first",
            ),
            write_stall: section.duration("write_stall", seconds(30), "while the other side takes no bytes"),
            pool_idle: section.duration(
                "pool_idle",
                Duration::from_millis(1_500),
                "below the application's keep-alive (gunicorn: 2s), or requests meet closed connections",
            ),
        }
    }
}

impl Authority {
    /// As it stands in a URL or in `Host`.
    #[must_use]
    pub fn text(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Place, Settings, Tree};
    use serde_json::{Value, json};

    fn read(document: Value) -> (Config, Vec<String>) {
        let mut tree = Tree::default();
        tree.merge(json!({ "proxy": document }), &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no files".into()));
        let config = Config::read(&mut settings.section("proxy"));
        (config, settings.finish().1.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_settings_the_defaults_hold() {
        let (config, problems) = read(json!({"enabled": true}));
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(config.listen.port(), 18_000);
        assert_eq!(config.upstream.text(), "127.0.0.1:8000");
        assert_eq!(config.timeouts.pool_idle, Duration::from_millis(1_500));
        assert!(!config.probe_paths.iter().any(|path| path == "/health"), "the application's /health is traffic");
    }

    #[test]
    fn mistakes_are_named_with_what_is_expected() {
        let (_, problems) = read(json!({
            "upstream": "127.0.0.1:8000", "workers": 0, "trusted_proxies": ["10.0.0.0/40"], "upgrades": ["h2c"]
        }));
        let expected = [
            "proxy.upstream: 127.0.0.1:8000, expected a URL of the form http://host:port (set in sidecar.yaml)",
            "proxy.workers: 0, expected a whole number from 1 to 64 (set in sidecar.yaml)",
            "proxy.trusted_proxies: 10.0.0.0/40, expected a list of networks such as 10.0.0.0/8 (set in sidecar.yaml)",
            "proxy.upgrades: h2c, expected protocols other than HTTP itself (set in sidecar.yaml)",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn an_upstream_is_a_plain_http_url() {
        for (text, expected) in [
            ("http://app:8000", Some("app:8000")),
            ("http://app", Some("app:80")),
            ("http://[::1]:9", Some("[::1]:9")),
            ("https://app:1", None),
            ("http://user:secret@app:1", None),
            ("http://app:1/path", None),
            ("app", None),
        ] {
            assert_eq!(parse_upstream(text).map(|authority| authority.text()).as_deref(), expected, "{text}");
        }
    }
}
