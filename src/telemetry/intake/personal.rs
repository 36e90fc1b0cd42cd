//! What may identify people in what an SDK made: `telemetry.privacy` holds for it as for our own spans.
//!
//! By the names of OpenTelemetry's conventions, the older ones too, which SDKs still write by default. Pure. A hash is made in
//! our own spans alone: the copy of the same address in the application's would tell nothing more.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::telemetry::intake::recorded::{self, About};
use crate::telemetry::privacy::{AddressForm, PrivacyConfig, network};

/// Addresses of clients, whatever they stand in.
const CLIENTS: &[&str] = &["client.address", "client.socket.address", "http.client_ip"];
const CLIENT_PORTS: &[&str] = &["client.port", "client.socket.port"];
/// The other end of a connection: a client, unless the span is of a call that the application made.
const PEERS: &[&str] = &["network.peer.address", "net.peer.ip", "net.sock.peer.addr"];
const PEER_PORTS: &[&str] = &["network.peer.port", "net.peer.port", "net.sock.peer.port"];
const USER_AGENTS: &[&str] = &["user_agent.original", "http.user_agent"];
const QUERY: &str = "url.query";
/// URLs with whatever query they had.
const URLS: &[&str] = &["url.full", "http.url", "http.target"];

/// What becomes of an attribute.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage<'t> {
    /// It is not about people, or was asked for.
    Whole,
    /// This much of it.
    Part(Cow<'t, str>),
    /// Nobody asked for it.
    LeftOut,
}

/// Whom a connection leads to that an attribute tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherEnd {
    /// A client, or nobody knows.
    Client,
    /// A server that the application asked.
    Server,
}

/// Decides on an attribute; `text` is empty when its value is no text.
pub(super) fn passage<'t>(config: &PrivacyConfig, key: &str, text: &'t str, other_end: OtherEnd) -> Passage<'t> {
    let has_client = other_end == OtherEnd::Client;
    let is_in = |keys: &[&str]| keys.contains(&key);
    let kept = |is_asked: bool| if is_asked { Passage::Whole } else { Passage::LeftOut };
    if is_in(CLIENTS) || has_client && is_in(PEERS) {
        return match config.address {
            AddressForm::Full => Passage::Whole,
            AddressForm::Truncate => text
                .parse::<IpAddr>()
                .map_or(Passage::LeftOut, |address| Passage::Part(network(address).to_string().into())),
            AddressForm::None | AddressForm::Hash => Passage::LeftOut,
        };
    }
    if is_in(CLIENT_PORTS) || has_client && is_in(PEER_PORTS) {
        return kept(config.address == AddressForm::Full);
    }
    if is_in(USER_AGENTS) {
        return kept(config.user_agent);
    }
    if key == QUERY {
        return kept(config.query);
    }
    if let Some(header) = recorded::header(key) {
        return kept(is_asked(config, recorded::tells(&header)));
    }
    match text.split_once('?') {
        Some((path, _)) if is_in(URLS) && !config.query => Passage::Part(path.into()),
        _ => Passage::Whole,
    }
}

/// Whether what a header tells may leave: several values are no text, so it does whole or not at all.
fn is_asked(config: &PrivacyConfig, about: About) -> bool {
    match about {
        About::Nobody => true,
        About::Address => config.address == AddressForm::Full,
        About::Agent => config.user_agent,
        About::Query => config.query,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: PrivacyConfig = PrivacyConfig { address: AddressForm::None, query: false, user_agent: false };

    #[test]
    fn nothing_about_people_passes_unless_it_was_asked_for() {
        let all = PrivacyConfig { address: AddressForm::Full, query: true, user_agent: true };
        for key in [CLIENTS, CLIENT_PORTS, PEERS, PEER_PORTS, USER_AGENTS, &[QUERY]].concat() {
            assert_eq!(passage(&NOTHING, key, "203.0.113.77", OtherEnd::Client), Passage::LeftOut, "{key}");
            assert_eq!(passage(&all, key, "203.0.113.77", OtherEnd::Client), Passage::Whole, "{key}");
        }
        for key in ["http.route", "server.address", "network.protocol.version", "url.path", "net.host.port"] {
            assert_eq!(passage(&NOTHING, key, "203.0.113.77", OtherEnd::Client), Passage::Whole, "{key}");
        }
    }

    #[test]
    fn a_header_that_tells_the_same_as_an_attribute_needs_the_same_wish() {
        let by_address = PrivacyConfig { address: AddressForm::Full, ..NOTHING };
        let networks = PrivacyConfig { address: AddressForm::Truncate, ..NOTHING };
        let by_agent = PrivacyConfig { user_agent: true, ..NOTHING };
        let by_query = PrivacyConfig { query: true, ..NOTHING };
        let with = |header: &str| [NOTHING, networks, by_address, by_agent, by_query].map(|config| of(&config, header));
        for header in recorded::tests::DOCUMENTED {
            assert_eq!(with(header), [false, false, true, false, false], "{header}");
        }
        for header in ["User-Agent", "Sec-CH-UA", "Sec-CH-UA-Platform-Version"] {
            assert_eq!(with(header), [false, false, false, true, false], "{header}");
        }
        for header in ["Referer", "Location"] {
            assert_eq!(with(header), [false, false, false, false, true], "{header}");
        }
        for header in ["Content-Type", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id", "Retry-After"] {
            assert_eq!(with(header), [true; 5], "{header} tells of nobody");
        }
    }

    /// Whether a header passes with these settings, spelled in any way, in a request and in an answer: all alike.
    fn of(config: &PrivacyConfig, header: &str) -> bool {
        let (lower, python) = (header.to_lowercase(), header.to_lowercase().replace('-', "_"));
        let spellings = [header, &lower, &python];
        let keys = ["http.request.header.", "http.response.header."];
        let keys = keys.iter().flat_map(|before| spellings.map(|name| format!("{before}{name}")));
        // a list of values is no text
        let passages: Vec<bool> =
            keys.map(|key| passage(config, &key, "", OtherEnd::Client) == Passage::Whole).collect();
        assert!(passages.iter().all(|passes| *passes == passages[0]), "{header}: {passages:?}");
        passages[0]
    }

    #[test]
    fn the_peer_of_a_call_is_a_server() {
        assert_eq!(passage(&NOTHING, "network.peer.address", "10.0.0.7", OtherEnd::Server), Passage::Whole);
        assert_eq!(passage(&NOTHING, "client.address", "10.0.0.7", OtherEnd::Server), Passage::LeftOut);
    }

    #[test]
    fn a_url_loses_its_query_and_an_address_what_tells_one_client_from_another() {
        for (key, text, expected) in [
            ("http.target", "/find?q=anna", "/find"),
            ("url.full", "http://shop/find?q=anna", "http://shop/find"),
            ("http.url", "http://shop/?", "http://shop/"),
        ] {
            assert_eq!(passage(&NOTHING, key, text, OtherEnd::Client), Passage::Part(expected.into()));
        }
        assert_eq!(passage(&NOTHING, "http.target", "/find", OtherEnd::Client), Passage::Whole);
        let networks = PrivacyConfig { address: AddressForm::Truncate, ..NOTHING };
        assert_eq!(
            passage(&networks, "net.peer.ip", "203.0.113.77", OtherEnd::Client),
            Passage::Part("203.0.113.0".into())
        );
        assert_eq!(passage(&networks, "client.address", "somebody", OtherEnd::Client), Passage::LeftOut);
    }
}
