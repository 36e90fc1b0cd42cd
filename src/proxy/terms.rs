//! The terms on which requests are served, as far as they may change while the proxy runs: limits, deadlines, lists.
//!
//! Workers take them over as they take over routes. A request is judged by those that were in force when its head came; a
//! wait ends by the deadline that was in force when it began.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::reload::Retune;
use crate::proxy::cidr::Cidr;
use crate::proxy::config::{Config, Timeouts};

/// All of them.
#[derive(Clone, Debug)]
pub struct Terms {
    pub(crate) admission: Admission,
    pub(crate) timeouts: Timeouts,
    pub(crate) lists: Arc<Lists>,
}

/// By what is admitted, of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    /// Requests in flight.
    pub(crate) in_flight: usize,
    /// The body of a request; 0 is without limit.
    pub(crate) body_bytes: u64,
    /// New client connections per second and address; 0 is without limit.
    pub(crate) connection_rate: usize,
}

/// What a request is looked up in.
#[derive(Debug)]
pub(crate) struct Lists {
    /// Whose forwarding headers are believed.
    pub(crate) trusted_proxies: Vec<Cidr>,
    /// Paths that are counted apart, without spans.
    pub(crate) probe_paths: Vec<String>,
    /// Templates of routes whose answers' bodies are copied for the record.
    pub(crate) taps: Vec<String>,
}

/// Where other terms are handed in while the proxy runs.
#[derive(Clone, Debug)]
pub struct Tuner(watch::Sender<Terms>);

impl Terms {
    /// Of this configuration.
    fn of(config: &Config) -> Self {
        let Config { limits, trusted_proxies, probe_paths, taps, .. } = config;
        let (in_flight, connection_rate) = (limits.in_flight, limits.connection_rate);
        let lists =
            Lists { trusted_proxies: trusted_proxies.clone(), probe_paths: probe_paths.clone(), taps: taps.clone() };
        Self {
            admission: Admission { in_flight, body_bytes: limits.body_bytes, connection_rate },
            timeouts: config.timeouts,
            lists: Arc::new(lists),
        }
    }
}

impl Admission {
    /// The share of one of so many workers.
    pub(crate) fn shared_by(self, workers: usize) -> Self {
        let share = |number: usize| number.div_ceil(workers);
        Self { in_flight: share(self.in_flight), connection_rate: share(self.connection_rate), ..self }
    }
}

impl Tuner {
    /// Begins with the terms of this configuration; gives where workers find those in force.
    #[must_use]
    pub fn new(config: &Config) -> (Self, watch::Receiver<Terms>) {
        let (sender, receiver) = watch::channel(Terms::of(config));
        (Self(sender), receiver)
    }
}

impl Retune for Tuner {
    type Config = Config;
    const LIVE: &'static [&'static str] = &[
        "proxy.limits.in_flight",
        "proxy.limits.body",
        "proxy.limits.connection_rate",
        "proxy.timeouts.",
        "proxy.trusted_proxies",
        "proxy.probe_paths",
        "proxy.taps",
    ];

    fn retune(&self, config: &Config) -> Result<(), String> {
        self.0.send_replace(Terms::of(config));
        Ok(())
    }
}
