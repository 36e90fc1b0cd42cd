//! The checks, made from what was read and from what other rooms know: which looks at which service, and in which words.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::checks::beats::Beats;
use crate::checks::check::{Check, Reader};
use crate::checks::config::Config;
use crate::checks::kinds::ai_calls::AiServices;
use crate::checks::kinds::application::Application;
use crate::checks::kinds::env::Env;
use crate::checks::kinds::http::Http;
use crate::checks::kinds::redis::Redis;
use crate::checks::kinds::sql::Sql;
use crate::checks::own::Own;
use crate::checks::plan::Means;
use crate::checks::runner::{Entry, Runner};
use crate::model::ai_outcomes::AiOutcomes;
use crate::model::dsn::DatabaseAddress;
use crate::model::traffic::{RouteTraffic, Totals};
use crate::redact::{Clean, Outlet, Redactor};
use crate::trust::Trust;

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
    /// How calls of the AI service ended; `None` when they do not pass the egress port.
    pub calls: Option<AiOutcomes>,
    /// The traffic of each route of late.
    pub routes: Arc<dyn Fn() -> Vec<RouteTraffic> + Send + Sync>,
    /// How busy the node's cores are, 0 to 1, where that is known.
    pub cpu: Arc<dyn Fn() -> Option<f64> + Send + Sync>,
}

/// Makes the checks. Does no I/O but the reading of the system's authorities; the runner does, once it runs.
#[must_use]
pub fn build(config: &Config, targets: Targets, redactor: Arc<Redactor>) -> (Runner, Reader) {
    let (reports, reader) = watch::channel(Arc::from([]));
    let means = Means {
        name: String::new(),
        reports: reader.clone(),
        beats: Beats::default(),
        trust: Trust::default(),
        redactor: redactor.clone(),
        application: targets.application.clone(),
        calls: targets.calls.clone(),
        routes: targets.routes.clone(),
        cpu: targets.cpu.clone(),
    };
    let make = move |config: &Config, beats: &Beats| {
        let mut entries = built_in(config, targets.clone(), &means.trust);
        entries.extend(own(config, &Means { beats: beats.clone(), ..means.clone() }));
        entries
    };
    (Runner::new(config.clone(), Box::new(make), reports, redactor), reader)
}

/// The words for a service, the kind of its check, and the check; `None` when it is not configured.
type BuiltIn = (&'static str, &'static str, Option<Box<dyn Check>>);

fn built_in(config: &Config, targets: Targets, trust: &Trust) -> Vec<Entry> {
    let Targets { database, application, totals, refused, calls, .. } = targets;
    let redis = config.redis.as_ref().map(|client| client.expose().clone());
    let url = config.external_api.as_ref().map(|url| url.expose().clone());
    let keys = Some(config.keys.clone()).filter(|keys| !keys.is_empty());
    let checks: [BuiltIn; 5] = [
        ("Database", "sql", database.map(|address| Box::new(Sql::new(address)) as _)),
        ("Redis", "redis", redis.map(|client| Box::new(Redis::new(client)) as _)),
        ("External API", "http", url.and_then(|url| Http::new(url, trust)).map(|check| Box::new(check) as _)),
        ai_services(keys.map(|keys| Env::new(keys, config.env_file.clone())), calls),
        (
            "Application",
            "application",
            application.map(|target| Box::new(Application::new(target, totals, refused)) as _),
        ),
    ];
    let entry = |(service, (subject, kind, check))| Entry {
        service,
        kind,
        subject: Clean::literal(subject),
        noun: "connection",
        check,
    };
    config.services.iter().cloned().zip(checks).map(entry).collect()
}

/// Keys that are there prove little: where real calls pass us, their ends count.
fn ai_services(keys: Option<Env>, calls: Option<AiOutcomes>) -> BuiltIn {
    let (kind, check) = match (keys, calls) {
        (keys, Some(calls)) => ("ai_calls", Some(Box::new(AiServices::new(keys, calls)) as _)),
        (keys, None) => ("env", keys.map(|keys| Box::new(keys) as _)),
    };
    ("AI services", kind, check)
}

fn own(config: &Config, means: &Means) -> Vec<Entry> {
    let entry = |own: &Own| {
        let name = own.service.name.to_string();
        let subject = means.redactor.text(Outlet::Endpoint, name.as_bytes()).into_owned();
        let check = own.plan.make(&Means { name, ..means.clone() });
        Entry { service: own.service.clone(), kind: own.kind, subject, noun: "check", check }
    };
    config.own.iter().map(entry).collect()
}
