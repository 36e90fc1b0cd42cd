//! The settings of the admin port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::api::access::Network;
use crate::settings::Section;

/// How the admin port is served.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses; a loopback address, or one that includes it, is always among them.
    pub listen: Vec<SocketAddr>,
    /// Who may read besides loopback.
    pub allow: Vec<Network>,
    /// Reads in a second that each peer may do.
    pub rate_per_peer: u32,
    /// Reads in a second of all peers together.
    pub rate: u32,
    /// Connections at once.
    pub connections: usize,
    /// What `/readyz` looks at besides the process itself.
    pub readiness: Readiness,
}

/// What `/readyz` looks at besides the process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Nothing: a dependency that all replicas share must not empty the Service.
    Own,
    /// The application and the critical checks as well.
    Critical,
}

const LISTEN: &str = "127.0.0.1:18090";

impl Config {
    /// Reads `admin.*` and `readyz.*` below the root of the settings.
    pub fn read(root: &mut Section<'_>) -> Self {
        let mut admin = root.section("admin");
        let listen = admin.list(
            "listen",
            &[LISTEN],
            "Addresses of the admin port. Loopback by default, because its answers tell much; it is always added.",
        );
        let listen = addresses(&listen, &mut admin);
        let allow = admin.list(
            "allow",
            &[],
            "Networks besides loopback that may read everything, such as 10.0.0.0/8 for scrapers. Others get probes and the word of /health.",
        );
        let allow = networks(&allow, &mut admin);
        let rate_per_peer = admin.number(
            "rate_per_peer",
            500,
            1..=1_000_000,
            "Reads in a second of one peer, twice that at once. Probes are exempt.",
        );
        let rate = admin.number(
            "rate",
            2_000,
            1..=1_000_000,
            "Reads in a second of all peers together: about a tenth of a core.",
        );
        let connections = admin.number(
            "connections",
            128,
            1..=65_536,
            "Connections at once; a scraper needs one, a browser a few. Further ones wait.",
        );
        let words = [("own", Readiness::Own), ("critical", Readiness::Critical)];
        let readiness = root.section("readyz").choice(
            "checks",
            Readiness::Own,
            &words,
            "What /readyz looks at: the process alone, or also the critical checks. A dependency that all replicas share would empty the Service.",
        );
        Self {
            listen,
            allow,
            rate_per_peer: bounded(rate_per_peer),
            rate: bounded(rate),
            connections: connections as usize,
            readiness,
        }
    }
}

fn addresses(texts: &[String], admin: &mut Section<'_>) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => admin.problem("listen", text, "addresses with a port such as 127.0.0.1:18090"),
        }
    }
    let port = addresses.first().map_or(18_090, SocketAddr::port);
    let reachable = |address: &SocketAddr| address.ip().is_loopback() || address.ip().is_unspecified();
    if !addresses.iter().any(reachable) {
        addresses.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    addresses
}

fn networks(texts: &[String], admin: &mut Section<'_>) -> Vec<Network> {
    let mut networks = Vec::new();
    for text in texts {
        match Network::parse(text) {
            Some(network) => networks.push(network),
            None => admin.problem("allow", text, "networks such as 10.0.0.0/8 or 192.0.2.7"),
        }
    }
    networks
}

/// The range of the key fits.
fn bounded(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Place, Settings, Tree};
    use serde_json::{Value, json};

    fn read(document: Value) -> (Config, Vec<String>) {
        let mut tree = Tree::default();
        tree.merge(document, &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let config = Config::read(&mut settings.section(""));
        let (_, problems, _) = settings.finish();
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn loopback_is_always_among_the_addresses() {
        let listen = |value: Value| read(json!({"admin": {"listen": value}})).0.listen;
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(read(json!({})).0.listen, parse(&["127.0.0.1:18090"]));
        assert_eq!(listen(json!("0.0.0.0:18090")), parse(&["0.0.0.0:18090"]));
        assert_eq!(listen(json!(["10.0.0.1:9000"])), parse(&["10.0.0.1:9000", "127.0.0.1:9000"]));
        assert_eq!(listen(json!("10.0.0.1:1,[::1]:2")), parse(&["10.0.0.1:1", "[::1]:2"]));
    }

    #[test]
    fn each_wrong_item_of_a_list_is_named() {
        let (_, problems) = read(json!({"admin": {"listen": ["x"], "allow": ["10.0.0.0/40", "10.0.0.0/8"]}}));
        assert_eq!(
            problems,
            [
                "admin.listen: x, expected addresses with a port such as 127.0.0.1:18090 (set in sidecar.yaml)",
                "admin.allow: 10.0.0.0/40, expected networks such as 10.0.0.0/8 or 192.0.2.7 (set in sidecar.yaml)",
            ]
        );
    }
}
