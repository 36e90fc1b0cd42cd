//! The settings that are taken while the sidecar works: the list of them all, and what `app` itself hands on.
//!
//! Each room says what it takes (`model::reload::Retune`); here are their words side by side, for the documentation. A room
//! that is told of changes and is not in the list fails a debug build.

use tokio::sync::watch;

use crate::model::reload::{Retune, is_within};
use crate::proxy::TracePolicy;
use crate::telemetry::Samplers;
use crate::traffic::publishes::Words;
use crate::{api, checks, database, egress, proxy, system, tasks, telemetry, traffic};

/// What each of the rooms takes.
const LIVE: &[&[&str]] = &[
    telemetry::logging::LogTuner::LIVE,
    telemetry::privacy::Privacy::LIVE,
    Tracing::LIVE,
    PublishWords::LIVE,
    proxy::Tuner::LIVE,
    traffic::routes::Tuner::LIVE,
    checks::Tuner::LIVE,
    checks::Page::LIVE,
    database::Tuner::LIVE,
    tasks::Tasks::LIVE,
    tasks::celery::Tuner::LIVE,
    system::Tuner::LIVE,
    egress::Tuner::LIVE,
    api::Rulebook::LIVE,
];

/// Whether a change of this setting is taken at once; any other one needs a restart.
#[must_use]
pub fn is_live(path: &str) -> bool {
    LIVE.iter().any(|live| is_within(path, live))
}

/// Whether a room that takes these is in the list.
pub(super) fn is_listed(live: &[&str]) -> bool {
    LIVE.contains(&live)
}

/// How requests are traced, while they are.
pub(super) struct Tracing {
    policy: watch::Sender<TracePolicy>,
    samplers: Samplers,
}

impl Tracing {
    /// Begins with these settings; gives where workers find those in force.
    pub(super) fn new(config: &telemetry::config::Config, samplers: Samplers) -> (Self, watch::Receiver<TracePolicy>) {
        let (policy, tracing) = watch::channel(policy_of(config));
        (Self { policy, samplers }, tracing)
    }
}

impl Retune for Tracing {
    type Config = telemetry::config::Config;
    const LIVE: &'static [&'static str] = &["telemetry.sampling.", "telemetry.sentry_trace"];

    fn retune(&self, config: &telemetry::config::Config) -> Result<(), String> {
        self.samplers.sample(config);
        self.policy.send_modify(|policy| *policy = TracePolicy { spans: policy.spans, ..policy_of(config) });
        Ok(())
    }
}

fn policy_of(config: &telemetry::config::Config) -> TracePolicy {
    TracePolicy { sampling: config.sampling, spans: config.spans, sentry_trace: config.sentry_trace }
}

/// The words by which an answer tells how a publish went: those that the rows have.
pub(super) struct PublishWords(watch::Sender<Words>);

impl PublishWords {
    /// Begins with these settings; gives where answers are judged by those in force.
    pub(super) fn new(config: &database::config::Config) -> (Self, watch::Receiver<Words>) {
        let (words, in_force) = watch::channel(words_of(config));
        (Self(words), in_force)
    }
}

impl Retune for PublishWords {
    type Config = database::config::Config;
    const LIVE: &'static [&'static str] = &["database.business.published", "database.business.failed"];

    fn retune(&self, config: &database::config::Config) -> Result<(), String> {
        self.0.send_replace(words_of(config));
        Ok(())
    }
}

fn words_of(config: &database::config::Config) -> Words {
    let questions = &config.questions;
    Words { published: questions.published.clone(), failed: questions.failed.clone() }
}
