//! The settings below `sentry`: which project at Sentry hears of failures, and how often of the same one.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use sentry::types::Dsn;

use crate::fetch::USER_AGENT;
use crate::redact::Secret;
use crate::settings::Section;
use crate::telemetry::config::DestinationConfig;

/// A key at least this long is no ordinary word, which would vanish from every text.
const KEY_LENGTH: usize = 16;

/// The project at Sentry; only there when it is configured.
#[derive(Clone, Debug)]
pub struct IssuesConfig {
    dsn: Secret<Dsn>,
    /// How many events of one issue may go at once.
    pub burst: u32,
    /// After those, one in this time.
    pub interval: Duration,
}

impl IssuesConfig {
    /// Reads the section `sentry`; `None` without a DSN.
    pub fn read(section: &mut Section<'_>) -> Option<Self> {
        let about = "the project at Sentry that hears of failures, as its settings show it under Client Keys: https://KEY@HOST/PROJECT";
        let text = section.secret("dsn", about);
        let about = "whether failures are reported to the project of sentry.dsn; false: the DSN is only kept out of every output";
        let is_on = section.flag("enabled", true, about);
        let about = "events of one issue (method, route and status; task and class; exception, logger and frame) that may go at once; of all issues twenty times as many";
        let burst = section.number("burst", 3, 1..=1_000, about);
        let about = "after those one event of an issue in this time; the next event tells how many were left out";
        let interval = section.duration("interval", Duration::from_secs(60), about).max(Duration::from_millis(100));
        let dsn = match text?.expose().trim().parse::<Dsn>() {
            Ok(dsn) => dsn,
            Err(_) => {
                section.wrong_secret("dsn", "https://KEY@HOST/PROJECT, as the project's settings at Sentry show it");
                return None;
            }
        };
        if dsn.public_key().len() >= KEY_LENGTH {
            section.remember_secret(dsn.public_key());
        }
        let burst = u32::try_from(burst).unwrap_or(u32::MAX);
        is_on.then_some(Self { dsn: Secret::new(dsn), burst, interval })
    }

    /// Where envelopes go; `None` when the key is no text of a header.
    #[must_use]
    pub fn destination(&self) -> Option<DestinationConfig> {
        let dsn = self.dsn.expose();
        let mut auth = HeaderValue::try_from(dsn.to_auth(Some(USER_AGENT)).to_string()).ok()?;
        auth.set_sensitive(true);
        let header = (HeaderName::from_static("x-sentry-auth"), auth);
        Some(DestinationConfig::envelopes(dsn.envelope_api_url(), header))
    }

    /// The address with its key, for the one client that needs it.
    pub(super) fn dsn(&self) -> Dsn {
        self.dsn.expose().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Problem;
    use crate::settings::{Place, Settings, Tree};
    use serde_json::{Value, json};

    fn read(sentry: Value) -> (Option<IssuesConfig>, Vec<Problem>, Vec<String>) {
        let mut tree = Tree::default();
        tree.merge(json!({"sentry": sentry}), &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Err("not read".to_owned()));
        let config = IssuesConfig::read(&mut settings.section("sentry"));
        let (_, problems, secrets) = settings.finish();
        (config, problems, secrets)
    }

    #[test]
    fn the_dsn_tells_address_and_key() {
        let (config, problems, secrets) = read(json!({"dsn": "https://0123456789abcdef@o1.ingest.example/prefix/42"}));
        assert_eq!(problems, []);
        let config = config.unwrap();
        let destination = config.destination().unwrap();
        assert_eq!(destination.endpoint.as_str(), "https://o1.ingest.example/prefix/api/42/envelope/");
        let (name, value) = &destination.headers.expose()[0];
        assert_eq!(name, "x-sentry-auth");
        assert!(value.to_str().unwrap().contains("sentry_key=0123456789abcdef"), "{value:?}");
        assert!(secrets.contains(&"0123456789abcdef".to_owned()));
        assert!(!format!("{config:?} {destination:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn nothing_is_reported_without_a_dsn_or_when_it_is_switched_off() {
        for sentry in [json!({"burst": 1}), json!({"dsn": "https://k@h/1", "enabled": false})] {
            let (config, problems, _) = read(sentry);
            assert!(config.is_none() && problems.is_empty(), "{problems:?}");
        }
    }

    #[test]
    fn a_wrong_dsn_is_named_without_its_text() {
        let (_, problems, _) = read(json!({"dsn": "https://hunter2@/no-project"}));
        assert_eq!(problems[0].path, "sentry.dsn");
        assert!(!problems[0].to_string().contains("hunter2"));
    }
}
