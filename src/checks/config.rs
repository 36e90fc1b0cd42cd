//! The settings of the checks: where the services are, and how each is checked.

use std::borrow::Cow;
use std::path::PathBuf;

use ::redis::Client;
use url::Url;

use crate::checks::kinds::env::Key;
use crate::checks::kinds::{http, redis};
use crate::checks::own::{self, Own};
use crate::checks::plan::{Commands, Surroundings};
use crate::checks::service::{Pace, Service};
use crate::model::health::Criticality;
use crate::redact::Secret;
use crate::settings::Section;

/// What is checked, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Redis behind the application.
    pub redis: Option<Secret<Client>>,
    /// An API that the application needs.
    pub(super) external_api: Option<Secret<Url>>,
    /// The keys of the AI services; empty when nobody said that there should be any.
    pub(super) keys: Vec<Key>,
    /// A file that may hold them.
    pub(super) env_file: Option<PathBuf>,
    /// How each built-in service is checked, in the order in which they are shown.
    pub(super) services: [Service; 5],
    /// The checks that the configuration adds, in its order.
    pub(super) own: Vec<Own>,
    /// Checks at once.
    pub(super) concurrency: usize,
    /// The path of the page on which the application tells of itself; `None` when it is not to be asked.
    pub(super) status_path: Option<String>,
}

/// The seed's four services in their order, then the application; each with the kind of its check.
const DEFAULTS: [(Service, &str); 5] = [
    (service("database", Criticality::Critical, Pace::seconds(10, 2)), "sql"),
    (service("redis", Criticality::Critical, Pace::seconds(10, 2)), "redis"),
    // somebody else's server: asked seldom, and given more time
    (service("external_api", Criticality::Optional, Pace::seconds(30, 5)), "http"),
    // a key does not come and go like a packet, so each look counts
    (service("ai_services", Criticality::Optional, Pace::seconds(30, 2).at_once()), "env"),
    (service("application", Criticality::Critical, Pace::seconds(5, 2)), "application"),
];

const fn service(name: &'static str, criticality: Criticality, pace: Pace) -> Service {
    Service::new(Cow::Borrowed(name), criticality, pace)
}

/// The names of the built-in checks, in their order.
pub(super) const BUILT_IN: [&str; 5] = ["database", "redis", "external_api", "ai_services", "application"];

/// The keys that are looked for unless others are named.
const KEYS: [&str; 2] = ["OPENAI_API_KEY", "AI_AVATAR_API_KEY"];

impl Config {
    /// Takes over all but what other rooms look at, too: the application's Redis, and where it tells of itself.
    pub(super) fn take_checks(&mut self, other: &Self) {
        let (redis, status_path) = (self.redis.take(), std::mem::take(&mut self.status_path));
        *self = Self { redis, status_path, ..other.clone() };
    }

    /// The names of the heartbeats that are waited for.
    pub(super) fn heartbeats(&self) -> impl Iterator<Item = String> {
        let heartbeats = self.own.iter().filter(|own| own.kind == "heartbeat");
        heartbeats.map(|own| own.service.name.to_string())
    }

    /// Reads `redis.*`, `external_api.*`, `ai_services.*`, `health.*`, `checks.*` and `application.*` below the root of the
    /// settings.
    ///
    /// `in_environment` tells whether a variable is set; only names are asked.
    pub fn read(root: &mut Section<'_>, in_environment: &dyn Fn(&str) -> bool) -> Self {
        let about = "The Redis of the application, as redis://[:password@]host:port/db; rediss:// with TLS.";
        let redis = redis::read_url(&mut root.section("redis"), about);
        let about =
            "A URL that the application depends on; a GET of it is checked. May hold a key, so it is never shown.";
        let external_api = http::read_url(&mut root.section("external_api"), about);
        let (keys, env_file) = keys(&mut root.section("ai_services"), in_environment);
        let (concurrency, commands) = limits(&mut root.section("health"));
        let (services, own) = checks(&mut root.section("checks"), in_environment, commands);
        let status_path = status_path(&mut root.section("application").section("status"));
        Self { redis, external_api, keys, env_file, services, own, concurrency, status_path }
    }

    /// The page on which the application at `upstream`, such as `http://127.0.0.1:8000`, tells of itself.
    #[must_use]
    pub fn status_url(&self, upstream: &str) -> Option<String> {
        self.status_path.as_ref().map(|path| format!("{}{path}", upstream.trim_end_matches('/')))
    }
}

fn status_path(section: &mut Section<'_>) -> Option<String> {
    let about = "Whether the application is asked for its platform and versions, once each time it has started; without \
                 them /status shows the sidecar's own.";
    let is_asked = section.flag("enabled", true, about);
    let about = "The page that tells them. It is never asked on a schedule: an answer may hold the application up for a second.";
    let path = section.text("path", "/status", about);
    if !path.starts_with('/') {
        section.problem("path", &path, "a path that begins with a slash, such as /status");
    }
    is_asked.then_some(path)
}

fn limits(section: &mut Section<'_>) -> (usize, Commands) {
    let about = "Checks at once; those beyond wait for a place. Checks that hang hold one until their timeout, so there are plenty.";
    let concurrency = section.number("concurrency", 32, 1..=1_000, about);
    let about =
        "Whether checks of kind exec may run commands. Off: whoever may write the configuration could run anything.";
    let commands = if section.flag("allow_exec", false, about) { Commands::Allowed } else { Commands::Refused };
    (usize::try_from(concurrency).unwrap_or(1), commands)
}

fn checks(
    section: &mut Section<'_>,
    in_environment: &dyn Fn(&str) -> bool,
    commands: Commands,
) -> ([Service; 5], Vec<Own>) {
    let mut names: Vec<String> = BUILT_IN.map(str::to_owned).into();
    names.extend(section.names().into_iter().filter(|name| !BUILT_IN.contains(&name.as_str())));
    let services = DEFAULTS.map(|(default, kind)| {
        let mut section = section.section(&default.name);
        section.choice("kind", kind, &[(kind, kind)], "What kind of check it is; a built-in check has but one.");
        Service::read(&mut section, default, &names)
    });
    let own = own::read(section, &BUILT_IN, &Surroundings { names: &names, in_environment, commands });
    own::refuse_circles(section, &services, &own);
    (services, own)
}

fn keys(section: &mut Section<'_>, in_environment: &dyn Fn(&str) -> bool) -> (Vec<Key>, Option<PathBuf>) {
    let names = section.list("keys", &KEYS, "Variables that the AI services need; only their presence is looked at.");
    let about = "A file of NAME=value lines that may hold these keys, as the application's own .env.";
    let file = section.optional_text("env_file", about).map(PathBuf::from);
    let keys: Vec<Key> = names.into_iter().map(|name| Key::new(name, in_environment)).collect();
    // the sidecar need not share the application's environment: without any trace of the keys nothing is known
    let is_expected = file.is_some() || keys.iter().any(|key| key.in_environment || !KEYS.contains(&key.name.as_str()));
    (if is_expected { keys } else { Vec::new() }, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::{Outlet, Redactor};
    use crate::settings::{Place, Settings, Tree};
    use serde_json::{Value, json};

    fn read(document: Value, environment: &[&str]) -> (Config, Vec<String>) {
        let mut tree = Tree::default();
        tree.merge(document, &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let config = Config::read(&mut settings.section(""), &|name| environment.contains(&name));
        let (_, problems, _) = settings.finish();
        (config, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_settings_nothing_is_configured_and_nothing_is_wrong() {
        let (config, problems) = read(json!({}), &[]);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(config.redis.is_none() && config.external_api.is_none() && config.keys.is_empty());
    }

    #[test]
    fn one_key_in_the_environment_makes_both_expected() {
        let (config, _) = read(json!({}), &["OPENAI_API_KEY"]);
        let found: Vec<bool> = config.keys.iter().map(|key| key.in_environment).collect();
        assert_eq!(found, [true, false]);
        let (config, _) = read(json!({"ai_services": {"keys": ["HEYGEN_KEY"]}}), &[]);
        assert_eq!(config.keys[0].words.as_str(), "HEYGEN_KEY");
    }

    #[test]
    fn of_the_external_url_only_what_is_secret_is_kept_out_of_texts() {
        let url = "https://monitor:hunter%402@api.example.com/health?page=page-4711&api%5Fkey=hunter3&sig=hunter4";
        let mut tree = Tree::default();
        tree.merge(json!({"external_api": {"url": url}}), &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let _ = Config::read(&mut settings.section(""), &|_| false);
        let (keys, _, secrets) = settings.finish();
        let shown = keys.iter().find(|key| key.path == "external_api.url").map(|key| key.value.as_str());
        assert_eq!(shown, Some("***"), "it may hold a key in its path");
        let redactor = Redactor::new(secrets.iter().map(String::as_str));
        let harmless = "https://api.example.com/health?page=page-4711 of monitor";
        assert_eq!(redactor.text(Outlet::OwnLog, harmless.as_bytes()).as_str(), harmless);
        for secret in ["hunter%402", "hunter@2", "hunter3", "hunter4"] {
            let told = format!("said {secret}.");
            assert!(!redactor.text(Outlet::OwnLog, told.as_bytes()).as_str().contains("hunter"), "{secret}");
        }
        let whole = redactor.text(Outlet::OwnLog, url.as_bytes()).into_owned();
        assert!(whole.as_str().contains("@api.example.com/health") && !whole.as_str().contains("hunter"), "{whole}");
    }

    #[test]
    fn the_password_of_redis_alone_is_known_to_the_redactor() {
        let mut tree = Tree::default();
        tree.merge(json!({"redis": {"url": "redis://:hunter2x@redis:6379/0"}}), &Place("REDIS_URL".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("no file".into()));
        let _ = Config::read(&mut settings.section(""), &|_| false);
        let (_, _, secrets) = settings.finish();
        let redactor = Redactor::new(secrets.iter().map(String::as_str));
        let told = redactor.text(Outlet::OwnLog, b"WRONGPASS hunter2x for redis:6379").into_owned();
        assert_eq!(told.as_str(), "WRONGPASS [REDACTED:secret] for redis:6379");
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        let (config, problems) = read(
            json!({
                "redis": {"url": "http://:hunter2@redis"},
                "external_api": {"url": "http://169.254.169.254/latest?key=hunter2"},
                "checks": {"redis": {"timeout": "10s"}, "database": {"perod": "1s"}},
                "application": {"status": {"path": "status"}},
            }),
            &[],
        );
        assert_eq!(
            problems,
            [
                "redis.url: ***, expected a URL such as redis://:password@127.0.0.1:6379/0 (set in sidecar.yaml)",
                "external_api.url: ***, expected a URL such as https://api.example.com/health, not of a link-local address (set in sidecar.yaml)",
                "checks.redis.timeout: 10s, expected a duration above 0 and below the period (set in sidecar.yaml)",
                "application.status.path: status, expected a path that begins with a slash, such as /status (set in sidecar.yaml)",
                "checks.database.perod: unknown key, expected no such key, perhaps checks.database.period (set in sidecar.yaml)",
            ]
        );
        assert!(config.redis.is_none());
        let (config, _) = read(json!({"redis": {"url": "redis://:hunter2@redis:6379/0"}}), &[]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
