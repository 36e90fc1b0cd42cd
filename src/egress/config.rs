//! The settings below `egress`: where the application calls its AI service, and where that really is.

use std::net::SocketAddr;
use std::time::Duration;

use url::{Host, Url};

use crate::egress::prices::Prices;
use crate::redact::Secret;
use crate::settings::{Section, show_duration};
use crate::trust;

/// The way out to an AI service; only there when it is switched on.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the application calls.
    pub listen: SocketAddr,
    /// Where the calls go: scheme, host, port, and what stands before each path.
    pub upstream: Url,
    /// Whom to trust in place of the system's authorities, in PEM.
    pub ca: Option<Secret<String>>,
    /// The service's name in telemetry.
    pub provider: String,
    /// For a connection to the service, its handshake included.
    pub connect_timeout: Duration,
    /// Without a byte of an answer, also of the first one.
    pub read_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Models that are counted apart.
    pub max_models: usize,
    /// What tokens cost.
    pub prices: Prices,
}

/// Beside the proxy's port.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 18_001);
const UPSTREAM: &str = "https://api.openai.com";
/// A service that is there answers a handshake in a moment.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As long as the `openai` package waits itself: a long answer that is no stream comes after minutes, all at once.
const READ_TIMEOUT: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_millis(10);

impl Config {
    /// Reads the section `egress`; `None` when it is switched off.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let about =
            "whether there is a port by which the application calls its AI service, so that its calls are measured";
        let enabled = section.flag("enabled", false, about);
        let about =
            "address of that port; the application's base URL names it (OPENAI_BASE_URL=http://127.0.0.1:18001/v1)";
        let listen = section.address("listen", LISTEN, about);
        let about =
            "where the calls go; the path of a call is added, so it has no /v1 when the application's base URL has one";
        let written = section.text("upstream", UPSTREAM, about);
        let upstream = upstream(&written);
        if upstream.is_none() {
            section.problem(
                "upstream",
                &written,
                "a URL such as https://api.openai.com, without user, query and fragment",
            );
        }
        if enabled && upstream.as_ref().is_some_and(|upstream| leads_to(upstream, listen)) {
            section.problem(
                "upstream",
                &written,
                "another address than that of egress.listen, or each call would come in again",
            );
        }
        let ca = trust::read(section);
        let about = "the name of the service in telemetry (`gen_ai.provider.name`)";
        let provider = section.text("provider", "openai", about);
        let about = "how long a connection to the service may take, its handshake included";
        let connect_timeout = positive(section, "connect_timeout", CONNECT_TIMEOUT, about);
        let about = "how long the service may send nothing, also before its answer; the openai package gives up after 600s itself";
        let read_timeout = positive(section, "read_timeout", READ_TIMEOUT, about);
        let about = "connections of the application at once; further ones are closed, and counted";
        let connections = section.number("connections", 128, 1..=65_536, about);
        let about = "models that are counted apart; further ones, and those that the service does not know, are counted as `other`";
        let max_models = section.number("max_models", 50, 1..=1_000, about);
        let prices = Prices::read(section);
        Some(Self {
            listen,
            upstream: upstream?,
            ca,
            provider,
            connect_timeout,
            read_timeout,
            connections: connections as usize,
            max_models: max_models as usize,
            prices,
        })
        .filter(|_| enabled)
    }
}

fn upstream(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain =
        url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain).then_some(url)
}

fn leads_to(upstream: &Url, listen: SocketAddr) -> bool {
    let is_here = match upstream.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        None => false,
    };
    is_here && upstream.port_or_known_default() == Some(listen.port())
}

fn positive(section: &mut Section<'_>, name: &'static str, default: Duration, about: &'static str) -> Duration {
    let found = section.duration(name, default, about);
    if found < SHORTEST {
        section.problem(name, show_duration(found), "at least 10ms");
    }
    found.max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::settings::{Place, Settings, Tree};

    fn read(document: Value) -> (Option<Config>, Vec<String>) {
        let mut tree = Tree::default();
        tree.merge(json!({ "egress": document }), &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err(String::new()));
        let config = Config::read(&mut settings.section("egress"));
        let (_, problems, _) = settings.finish();
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_a_word_there_is_no_port_and_one_word_is_enough() {
        assert!(read(json!({})).0.is_none());
        let (config, problems) = read(json!({"enabled": true}));
        let config = config.expect("it is switched on");
        assert_eq!((config.upstream.as_str(), config.listen.port()), ("https://api.openai.com/", 18_001));
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn a_port_that_leads_to_itself_is_refused() {
        for upstream in ["http://localhost:18001/v1", "http://127.0.0.1:18001"] {
            let problems = read(json!({"enabled": true, "upstream": upstream})).1;
            assert!(matches!(&problems[..], [one] if one.contains("egress.listen")), "{problems:?}");
        }
        assert_eq!(read(json!({"enabled": true, "upstream": "http://127.0.0.1:18002"})).1, [""; 0]);
    }

    #[test]
    fn wrong_values_are_named_with_what_would_be_right() {
        let wrong = json!({"enabled": true, "upstream": "ftp://x", "connect_timeout": "1ms", "max_models": 0,
            "prices": {"gpt-5": "cheap", "gpt-4.1": "2/8"}, "ca": "none"});
        let (config, problems) = read(wrong);
        assert!(config.is_none());
        assert_eq!(
            problems,
            [
                "egress.upstream: ftp://x, expected a URL such as https://api.openai.com, without user, query and fragment (set in sidecar.yaml)",
                "egress.ca: ***, expected certificates in PEM (set in sidecar.yaml)",
                "egress.connect_timeout: 1ms, expected at least 10ms (set in sidecar.yaml)",
                "egress.max_models: 0, expected a whole number from 1 to 1000 (set in sidecar.yaml)",
                "egress.prices.gpt-5: cheap, expected prices of a million tokens of input and of output such as 0.25/2 (set in sidecar.yaml)",
            ]
        );
    }
}
