//! The settings of the admin port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::api::access::Network;
use crate::api::tls::TlsConfig;
use crate::api::tokens::{self, Tokens};
use crate::redact::Secret;
use crate::settings::Section;

/// How the admin port is served.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The addresses; a loopback address, or one that includes it, is always among them.
    pub listen: Vec<SocketAddr>,
    /// Who may read everything without a token.
    pub allow: Vec<Network>,
    /// Bearer tokens, one a line, that were found to be right; `None` without any.
    pub tokens: Option<Secret<String>>,
    /// Where the tokens are read from again; they stay when there is no file.
    tokens_file: Option<PathBuf>,
    /// `None` serves clear text.
    pub tls: Option<TlsConfig>,
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
            "Networks that may read everything without a token, such as 10.0.0.0/8 for scrapers. Others get probes and the word of /health; \
             loopback reads all as long as there are no tokens.",
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
        let (tokens, tokens_file) = read_tokens(&mut admin);
        let tls = TlsConfig::read(&mut admin.section("tls"));
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
            tokens,
            tokens_file,
            tls,
            rate_per_peer: bounded(rate_per_peer),
            rate: bounded(rate),
            connections: connections as usize,
            readiness,
        }
    }
}

impl Config {
    /// Whether anything comes from files that may change.
    pub(super) fn is_of_files(&self) -> bool {
        self.tokens_file.is_some() || self.tls.as_ref().is_some_and(TlsConfig::is_of_files)
    }

    /// The same with what its files hold now; `read` gives the content of one.
    ///
    /// # Errors
    /// A file cannot be read, or what it holds is wrong: which, and what was expected.
    pub(super) fn reread(&self, read: impl Fn(&Path) -> Result<String, String>) -> Result<Self, String> {
        let mut again = self.clone();
        if let Some(file) = &self.tokens_file {
            let text = read(file)?;
            Tokens::parse(&text).map_err(|expected| format!("{}: expected {expected}", file.display()))?;
            again.tokens = Some(Secret::new(text));
        }
        again.tls = self.tls.as_ref().map(|tls| tls.reread(read)).transpose()?;
        Ok(again)
    }
}

fn read_tokens(admin: &mut Section<'_>) -> (Option<Secret<String>>, Option<PathBuf>) {
    let about = "Bearer tokens, one a line: TOKEN, or TOKEN write for one that may also change something. With them loopback needs one too, \
                 but to tell of tasks and heartbeats.";
    let tokens = admin.secret("tokens", about);
    let Some(text) = &tokens else { return (None, None) };
    if let Err(mistake) = Tokens::parse(text.expose()) {
        admin.wrong_secret("tokens", &mistake);
    }
    // a line holds more than its token, and a log may hold the token alone
    tokens::words(text.expose()).for_each(|token| admin.remember_secret(token));
    let file = admin.secret_file("tokens");
    (tokens, file)
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
