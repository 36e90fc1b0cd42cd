//! The settings of the lease.

use std::time::Duration;

use redis::Client;

use crate::redact::Secret;
use crate::settings::{Section, show_duration};

/// Whether replicas agree on who speaks for the cluster, and how.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The Redis that all replicas share; `None` when this one is alone.
    pub(super) server: Option<Secret<Client>>,
    /// What the names of keys and of the channel begin with.
    pub(super) key: String,
    pub(super) duration: Duration,
    /// The replica by name, for people.
    pub(super) name: String,
}

/// With renewals each third of it, Redis may be away for ten seconds without a hand-over, and a killed holder is
/// followed within 18.
const DURATION: Duration = Duration::from_secs(15);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST_KEY: usize = 100;

impl Config {
    /// Reads `lease.*` below the root of the settings; `redis` is the server of `redis.url`, `host` the name of this one.
    pub fn read(root: &mut Section<'_>, redis: Option<&Secret<Client>>, host: Option<&str>) -> Self {
        let mut section = root.section("lease");
        let about = "Whether this is one of several sidecars on one Redis, of which one exports queues, tasks and tables: it is found \
                     through redis.url. Off for a single sidecar, which exports all; on for all of them or for none.";
        let is_shared = section.flag("enabled", false, about);
        let about = "What the names of the lease's two keys and of its channel begin with; replicas of one application have the same.";
        let key = section.text("key", "content-factory-sidecar", about);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if key.is_empty() || key.len() > LONGEST_KEY || !key.chars().all(plain) {
            section.problem("key", &key, "up to 100 letters, digits, dots, colons, hyphens and underscores");
        }
        let about = "After so long without a renewal another replica takes over; it is renewed each third of it.";
        let duration = section.duration("duration", DURATION, about);
        if duration < SHORTEST {
            section.problem("duration", show_duration(duration), "at least 1s");
        }
        if is_shared && redis.is_none() {
            section.problem("enabled", "true", "redis.url to be set, through which replicas find each other");
        }
        let server = redis.filter(|_| is_shared).cloned();
        let name = host.unwrap_or("sidecar").chars().filter(|c| plain(*c)).take(LONGEST_KEY).collect();
        Self { server, key, duration: duration.max(SHORTEST), name }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::settings::{Place, Settings, Tree};

    fn read(document: Value, redis: Option<&str>) -> (Config, Vec<String>) {
        let mut tree = Tree::default();
        tree.merge(document, &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let redis = redis.map(|url| Secret::new(Client::open(url).unwrap()));
        let config = Config::read(&mut settings.section(""), redis.as_ref(), Some("web-7d4f"));
        let (_, problems, _) = settings.finish();
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_sidecar_is_alone_unless_it_is_told_otherwise() {
        assert!(read(json!({}), Some("redis://h")).0.server.is_none());
        let (config, problems) = read(json!({"lease": {"enabled": true}}), Some("redis://h"));
        assert!(config.server.is_some() && problems.is_empty(), "{problems:?}");
        assert_eq!((config.name.as_str(), config.duration), ("web-7d4f", DURATION));
    }

    #[test]
    fn mistakes_are_told() {
        let wrong = json!({"lease": {"enabled": true, "key": "a*", "duration": "10ms"}});
        assert_eq!(
            read(wrong, None).1,
            [
                "lease.key: a*, expected up to 100 letters, digits, dots, colons, hyphens and underscores (set in sidecar.yaml)",
                "lease.duration: 10ms, expected at least 1s (set in sidecar.yaml)",
                "lease.enabled: true, expected redis.url to be set, through which replicas find each other (set in sidecar.yaml)",
            ]
        );
    }
}
