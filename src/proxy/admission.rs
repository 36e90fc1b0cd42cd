//! The limits by which requests and connections are admitted: those that may change while the proxy runs.
//!
//! Workers take them over as they take over routes. A request is judged by those that were in force when its head came.

use tokio::sync::watch;

use crate::model::reload::Retune;
use crate::proxy::config::Config;

/// By what is admitted, of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Requests in flight.
    pub in_flight: usize,
    /// The body of a request; 0 is without limit.
    pub body_bytes: u64,
    /// New client connections per second and address; 0 is without limit.
    pub connection_rate: usize,
}

/// Where other limits are handed in while the proxy runs.
#[derive(Clone, Debug)]
pub struct Admitting(watch::Sender<Admission>);

impl Admission {
    /// Of this configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let limits = &config.limits;
        let (in_flight, connection_rate) = (limits.in_flight, limits.connection_rate);
        Self { in_flight, body_bytes: limits.body_bytes, connection_rate }
    }

    /// The share of one of so many workers.
    pub(crate) fn shared_by(self, workers: usize) -> Self {
        let share = |number: usize| number.div_ceil(workers);
        Self { in_flight: share(self.in_flight), connection_rate: share(self.connection_rate), ..self }
    }
}

impl Admitting {
    /// Begins with the limits of this configuration; gives where workers find those in force.
    #[must_use]
    pub fn new(config: &Config) -> (Self, watch::Receiver<Admission>) {
        let (sender, receiver) = watch::channel(Admission::of(config));
        (Self(sender), receiver)
    }
}

impl Retune for Admitting {
    type Config = Config;
    const LIVE: &'static [&'static str] =
        &["proxy.limits.in_flight", "proxy.limits.body", "proxy.limits.connection_rate"];

    fn retune(&self, config: &Config) -> Result<(), String> {
        self.0.send_replace(Admission::of(config));
        Ok(())
    }
}
