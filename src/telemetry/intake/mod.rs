//! The intake: what the application's own SDKs send by OTLP takes our way out, with the same redaction, limits, disk and sender.
//!
//! Only with `telemetry.intake.enabled`; without it nothing here runs or holds memory. Loopback only, because nobody is asked
//! who he is. Bounded in connections, in bytes under way, and in each wait; what is refused is counted by reason, and the
//! sender is told whether to come again. HTTP is hyper's, and gRPC five bytes more: no server of tonic's is linked in.

mod answer;
pub(crate) mod cleaner;
pub mod config;
mod counts;
mod entry;
mod exceptions;
mod json;
mod personal;
mod read;
mod recorded;
mod relay;
mod schema;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::lifecycle::Drain;
use crate::model::incident::IncidentSink;
use crate::model::sample::Sample;
use crate::redact::Redactor;
use crate::serve::{self, Bounds};
use crate::telemetry::intake::config::IntakeConfig;
use crate::telemetry::intake::relay::Relay;
use crate::telemetry::resource::Resource;

pub use crate::telemetry::intake::entry::{Delivery, Intake, NotOtlp};
pub use crate::telemetry::intake::relay::Policy;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it, perhaps a collector.
    #[error("{0} is in use, expected a free port; choose another by telemetry.intake.{1}")]
    InUse(SocketAddr, &'static str),
    /// The kernel refused, for the reason that is the source.
    #[error("cannot listen on {0} (telemetry.intake.{1})")]
    Refused(SocketAddr, &'static str, #[source] io::Error),
}

/// The ports, open and not yet served.
#[derive(Debug)]
pub struct Bound {
    /// By the name of its key.
    listeners: [(&'static str, TcpListener); 2],
    config: IntakeConfig,
}

/// The ports and what is done behind them. `serve` may be called again after a panic.
#[derive(Debug)]
pub struct Door {
    listeners: [(&'static str, TcpListener); 2],
    places: Arc<Semaphore>,
    relay: Arc<Relay>,
}

/// SDKs keep a connection and send each few seconds, metrics once a minute. A life ends so that no place is held for ever.
const BOUNDS: Bounds = Bounds {
    head: Duration::from_secs(75),
    http1_life: Duration::from_secs(300),
    http2_life: Duration::from_secs(300),
    streams: 16,
};
/// For requests that are under way when the process ends.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// Opens both ports.
///
/// # Errors
/// The first that cannot be opened.
pub fn bind(config: &IntakeConfig) -> Result<Bound, BindError> {
    let open = |name, address: SocketAddr| {
        let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address, name),
            _ => BindError::Refused(address, name, error),
        })?;
        listener.set_nonblocking(true).map_err(|error| BindError::Refused(address, name, error))?;
        Ok((name, listener))
    };
    let listeners = [open("grpc", config.grpc)?, open("http", config.http)?];
    Ok(Bound { listeners, config: config.clone() })
}

impl Bound {
    /// What is expected at which address, with its real port.
    #[must_use]
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.listeners.iter().filter_map(|(name, listener)| Some((*name, listener.local_addr().ok()?))).collect()
    }

    /// Says what is done behind the ports: what comes in is completed by `identity`, and goes on by `intake`; exceptions in log
    /// records are told to `incidents`, if there is one.
    #[must_use]
    pub fn door(
        self,
        policy: Policy,
        identity: Resource,
        redactor: Arc<Redactor>,
        (intake, incidents): (Intake, Option<IncidentSink>),
    ) -> Door {
        let places = Arc::new(Semaphore::new(self.config.connections));
        let relay = Arc::new(Relay::new(self.config, policy, identity, redactor, (intake, incidents)));
        Door { listeners: self.listeners, places, relay }
    }
}

impl Door {
    /// When a worker of Celery last told of a task that it had run.
    #[must_use]
    pub fn celery(&self) -> watch::Receiver<Option<Instant>> {
        self.relay.celery()
    }

    /// What came in and what did not, as metrics.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        self.relay.samples(out);
    }

    /// Serves until `end` begins to drain, and then what is under way, for a second at most.
    ///
    /// # Panics
    /// When a listener cannot be registered with the runtime.
    pub async fn serve(&self, end: Drain) {
        let [one, other] = self.listeners.each_ref().map(|(_, listener)| self.accept(listener, end.clone()));
        tokio::join!(one, other);
    }

    async fn accept(&self, listener: &TcpListener, end: Drain) {
        let relay = Arc::clone(&self.relay);
        let answer = move |request| {
            let relay = Arc::clone(&relay);
            async move { relay.answer(request).await }
        };
        let places = (&self.places, || self.relay.turned_away());
        serve::answer(("intake", listener), places, (BOUNDS, LAST_REQUESTS), answer, || end.over()).await;
    }
}
