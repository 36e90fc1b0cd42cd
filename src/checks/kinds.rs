//! The table of checks: which kind looks at which service, and in which words.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::checks::application::Application;
use crate::checks::check::Check;
use crate::checks::config::Config;
use crate::checks::env::Env;
use crate::checks::http::Http;
use crate::checks::redis::Redis;
use crate::checks::runner::{Entry, Reader, Runner};
use crate::checks::sql::Sql;
use crate::model::dsn::DatabaseAddress;
use crate::model::traffic::Totals;
use crate::redact::Redactor;

/// What other rooms know and a check needs.
#[derive(Clone)]
pub struct Targets {
    /// The application's database, if it is configured.
    pub database: Option<DatabaseAddress>,
    /// Host and port of the application; `None` when there is no proxy in front of one.
    pub application: Option<String>,
    /// What the proxy saw of the application.
    pub totals: Arc<dyn Fn() -> Totals + Send + Sync>,
    /// Takes the last moment after which the application turned a connection away.
    pub refused: watch::Sender<Option<Instant>>,
}

/// Makes the checks. Does no I/O; the runner does, once it runs.
#[must_use]
pub fn build(config: &Config, targets: Targets, redactor: Arc<Redactor>) -> (Runner, Reader) {
    let Targets { database, application, totals, refused } = targets;
    let redis = config.redis.as_ref().map(|client| client.expose().clone());
    let url = config.external_api.as_ref().map(|url| url.expose().clone());
    let keys = Some(config.keys.clone()).filter(|keys| !keys.is_empty());
    let kinds: [(&'static str, Option<Box<dyn Check>>); 5] = [
        ("Database", database.map(|address| Box::new(Sql::new(address)) as _)),
        ("Redis", redis.map(|client| Box::new(Redis::new(client)) as _)),
        ("External API", url.and_then(Http::new).map(|check| Box::new(check) as _)),
        ("AI services", keys.map(|keys| Box::new(Env::new(keys, config.env_file.clone())) as _)),
        ("Application", application.map(|target| Box::new(Application::new(target, totals, refused)) as _)),
    ];
    let entries = config.services.iter().cloned().zip(kinds);
    Runner::new(entries.map(|(service, (subject, check))| Entry { service, subject, check }).collect(), redactor)
}
