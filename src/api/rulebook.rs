//! The rules in force at the admin port: who may ask, with which token or certificate, how often, and what TLS shows.
//!
//! Replaced as a whole: by whoever reads the configuration again, and here when a file of tokens or certificates changes.
//! What is wrong is told once and changes nothing; connections that are open stay.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::api::access::{Peer, Reach};
use crate::api::config::Config;
use crate::api::limit::{Rate, Rates};
use crate::api::presented::{Presented, Scheme};
use crate::api::tokens::{Role, Tokens};
use crate::credentials::{self, LOOK, PATIENCE};
use crate::model::reload::Retune;

/// Where the rules in force are found, and replaced. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rulebook(Arc<watch::Sender<Arc<Rules>>>);

/// The rules of one configuration, made ready.
pub(super) struct Rules {
    pub(super) config: Config,
    tokens: Option<Tokens>,
    /// `None` serves clear text.
    pub(super) acceptor: Option<TlsAcceptor>,
}

impl Retune for Rulebook {
    type Config = Config;
    const LIVE: &'static [&'static str] = &[
        "admin.allow",
        "admin.rate",
        "admin.rate_per_peer",
        "admin.tokens",
        "admin.tokens_file",
        "admin.tls.",
        "readyz.",
    ];

    /// Replaces the rules for requests that come from now on.
    fn retune(&self, config: &Config) -> Result<(), String> {
        let was = self.in_force();
        let mut config = config.clone();
        config.listen.clone_from(&was.config.listen);
        config.connections = was.config.connections;
        self.0.send_replace(Arc::new(Rules::of(config)?));
        Ok(())
    }
}

impl Rulebook {
    /// Begins with the rules of this configuration.
    ///
    /// # Errors
    /// Its tokens or certificates cannot be used.
    pub(super) fn new(config: Config) -> Result<Self, String> {
        Ok(Self(Arc::new(watch::Sender::new(Arc::new(Rules::of(config)?)))))
    }

    /// The rules of now.
    pub(super) fn in_force(&self) -> Arc<Rules> {
        Arc::clone(&self.0.borrow())
    }

    /// Looks at the files of tokens and certificates every two seconds, for ever.
    pub(super) async fn follow_files(&self) {
        let mut told = String::new();
        loop {
            sleep(LOOK).await;
            let used = self.in_force();
            if !used.config.is_of_files() {
                continue;
            }
            let mistake = match self.read_again(&used, &mut told).await {
                Ok(rules) => {
                    rules.into_iter().for_each(|rules| self.take_over(&used, rules));
                    String::new()
                }
                Err(mistake) => mistake,
            };
            tell(&mut told, mistake);
        }
    }

    /// The rules as the files have them now; `None` when nothing has changed.
    async fn read_again(&self, used: &Arc<Rules>, told: &mut String) -> Result<Option<Rules>, String> {
        let config = used.config.clone();
        let mut reading = pin!(tokio::task::spawn_blocking(move || config.reread(credentials::read)));
        let read = loop {
            match timeout(PATIENCE, reading.as_mut()).await {
                Ok(read) => break read,
                // a second one would wait for the same disk
                Err(_) => tell(told, format!("no answer from the disk within {PATIENCE:?}")),
            }
        };
        match read {
            Ok(Ok(config)) if config != used.config => Rules::of(config).map(Some),
            Ok(Ok(_)) | Err(_) => Ok(None), // the runtime ends, if it cannot be read at all
            Ok(Err(mistake)) => Err(mistake),
        }
    }

    fn take_over(&self, used: &Arc<Rules>, rules: Rules) {
        let is_new = self.0.send_if_modified(|current| {
            // what a reload has put there meanwhile is newer
            let is_unchanged = Arc::ptr_eq(current, used);
            if is_unchanged {
                *current = Arc::new(rules);
            }
            is_unchanged
        });
        if is_new {
            info!("the tokens or the certificates of the admin port have changed: the new ones are used");
        }
    }
}

/// Once for each mistake.
fn tell(told: &mut String, mistake: String) {
    if *told != mistake && !mistake.is_empty() {
        warn!(%mistake, "a file of the admin port's tokens or certificates is wrong: what was in use stays");
    }
    *told = mistake;
}

impl Rules {
    fn of(config: Config) -> Result<Self, String> {
        let tokens = config.tokens.as_ref().map(|text| Tokens::parse(text.expose()));
        let tokens = tokens.transpose().map_err(|expected| format!("admin.tokens: expected {expected}"))?;
        let server = config.tls.as_ref().map(|tls| tls.server()).transpose();
        let acceptor = server.map_err(|error| format!("admin.tls: {error}"))?.map(TlsAcceptor::from);
        Ok(Self { config, tokens, acceptor })
    }

    /// What a peer may do that presents this token, or none; `None` when it is a token that nobody gave out.
    ///
    /// By Basic no token does more than read, because a browser sends it for whoever has it do so. An unknown password is one of
    /// somebody else's, a proxy's on the way for instance, where the address alone may read.
    pub(super) fn reach(&self, peer: Peer, presented: Option<&Presented<'_>>) -> Option<Reach> {
        let (Some(tokens), Some(presented)) = (&self.tokens, presented) else { return Some(self.reach_of(peer)) };
        let reach = tokens.role(&presented.token).map(|role| match role {
            Role::Read => Reach::Full,
            Role::Write => Reach::Write,
        });
        match presented.scheme {
            Scheme::Bearer => reach,
            Scheme::Basic => reach.or(Some(self.reach_of(peer)).filter(|own| *own > Reach::Bare)).map(Reach::reading),
        }
    }

    /// What a peer may do that presents nothing.
    fn reach_of(&self, peer: Peer) -> Reach {
        let is_allowed = || self.config.allow.iter().any(|network| network.contains(peer.address));
        match (peer.is_loopback(), &self.tokens) {
            (true, None) => Reach::Write,
            _ if peer.is_certified || is_allowed() => Reach::Full,
            _ => Reach::Bare,
        }
    }

    /// Whether there are tokens that somebody could present.
    pub(super) fn has_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// The limits of rate.
    pub(super) fn rates(&self) -> Rates {
        let rate = |per_second: u32| Rate { per_second, burst: per_second.saturating_mul(2) };
        Rates { per_peer: rate(self.config.rate_per_peer), overall: rate(self.config.rate) }
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Place, Settings, Tree};
    use serde_json::{Value, json};

    const READER: &str = "reader-0123456789abcdef";
    const WRITER: &str = "writer-0123456789abcdef";

    fn config(admin: Value) -> Config {
        let mut tree = Tree::default();
        tree.merge(json!({ "admin": admin }), &Place("test".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        Config::read(&mut settings.section(""))
    }

    fn reach(rulebook: &Rulebook, address: &str, token: Option<&str>) -> Option<Reach> {
        reach_by(Scheme::Bearer, rulebook, address, token)
    }

    fn reach_by(scheme: Scheme, rulebook: &Rulebook, address: &str, token: Option<&str>) -> Option<Reach> {
        let peer = Peer { address: address.parse().unwrap(), is_certified: false };
        let presented = token.map(|token| Presented { token: token.as_bytes().into(), scheme });
        rulebook.in_force().reach(peer, presented.as_ref())
    }

    #[test]
    fn without_tokens_loopback_writes_the_allowed_read_and_a_token_means_nothing() {
        let open = Rulebook::new(config(json!({"allow": ["10.1.0.0/16", "2001:db8::/32"]}))).unwrap();
        for (address, expected) in [
            ("127.0.0.1", Reach::Write),
            ("127.9.9.9", Reach::Write),
            ("::1", Reach::Write),
            ("::ffff:127.0.0.1", Reach::Write),
            ("10.1.255.1", Reach::Full),
            ("::ffff:10.1.2.3", Reach::Full),
            ("2001:db8:1::1", Reach::Full),
            ("10.2.0.1", Reach::Bare),
            ("2001:db9::1", Reach::Bare),
            ("192.0.2.1", Reach::Bare),
        ] {
            assert_eq!(reach(&open, address, None), Some(expected), "{address}");
            assert_eq!(reach(&open, address, Some("whatever-it-is-1234")), Some(expected), "{address}");
        }
    }

    #[test]
    fn with_tokens_each_has_its_role_wherever_it_comes_from_and_loopback_alone_is_nobody() {
        let tokens = format!("{READER}\n{WRITER} write");
        let guarded = Rulebook::new(config(json!({"tokens": tokens, "allow": "10.0.0.0/8"}))).unwrap();
        for address in ["127.0.0.1", "::1", "10.1.1.1", "192.0.2.1"] {
            assert_eq!(reach(&guarded, address, Some(READER)), Some(Reach::Full), "{address}");
            assert_eq!(reach(&guarded, address, Some(WRITER)), Some(Reach::Write), "{address}");
            assert_eq!(reach(&guarded, address, Some("nobody-gave-this-out")), None, "{address}");
        }
        assert_eq!(reach(&guarded, "127.0.0.1", None), Some(Reach::Bare));
        assert_eq!(reach(&guarded, "10.1.1.1", None), Some(Reach::Full));
        let certified = Peer { address: "192.0.2.1".parse().unwrap(), is_certified: true };
        assert_eq!(guarded.in_force().reach(certified, None), Some(Reach::Full));
    }

    #[test]
    fn by_basic_each_token_reads_and_an_unknown_password_leaves_an_address_what_it_may() {
        let tokens = format!("{READER}\n{WRITER} write");
        let guarded = Rulebook::new(config(json!({"tokens": tokens, "allow": "10.0.0.0/8"}))).unwrap();
        let reach = |address, token| reach_by(Scheme::Basic, &guarded, address, Some(token));
        for address in ["127.0.0.1", "10.1.1.1", "192.0.2.1"] {
            assert_eq!(reach(address, READER), Some(Reach::Full), "{address}");
            assert_eq!(reach(address, WRITER), Some(Reach::Full), "{address}");
        }
        assert_eq!(reach("10.1.1.1", "of-another-proxy"), Some(Reach::Full));
        assert_eq!(reach("127.0.0.1", "of-another-proxy"), None);
        assert_eq!(reach("192.0.2.1", "of-another-proxy"), None);
        let open = Rulebook::new(config(json!({}))).unwrap();
        assert_eq!(reach_by(Scheme::Basic, &open, "127.0.0.1", Some(READER)), Some(Reach::Write));
    }

    #[test]
    fn a_reload_replaces_all_rules_but_not_where_it_listens() {
        let rulebook = Rulebook::new(config(json!({}))).unwrap();
        let other = config(json!({"tokens": READER, "allow": "192.0.2.0/24", "rate": 7, "listen": "127.0.0.1:1"}));
        assert_eq!(rulebook.retune(&other), Ok(()));
        assert_ne!(rulebook.in_force().config.listen, other.listen);
        assert_eq!(reach(&rulebook, "127.0.0.1", None), Some(Reach::Bare));
        assert_eq!(reach(&rulebook, "192.0.2.1", None), Some(Reach::Full));
        assert_eq!(rulebook.in_force().rates().overall.per_second, 7);
        assert_eq!(rulebook.retune(&config(json!({}))), Ok(()));
        assert_eq!(reach(&rulebook, "127.0.0.1", None), Some(Reach::Write));
    }
}
