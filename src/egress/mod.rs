//! The egress port: the application's calls of an AI service pass it, and are measured; nothing of what is said is kept.
//!
//! Only with `egress.enabled`; without it nothing here runs or holds memory. It runs on the control runtime, away from the
//! data path: what fails here fails no request to the application. Connections, waits and what is kept of each call are
//! bounded; a call that cannot be read passes all the same, and is counted as one whose tokens are not known.

mod call;
pub mod config;
mod desk;
pub mod events;
mod prices;
mod relay;
pub mod scan;
mod series;
mod told;
mod tunnel;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::egress::config::Config;
use crate::egress::desk::Desk;
use crate::egress::relay::Relay;
use crate::lifecycle::Drain;
use crate::model::ai::CallSink;
use crate::model::ai_outcomes::AiOutcomes;
use crate::model::reload::Retune;
use crate::model::sample::Sample;
use crate::model::trace::Sampling;
use crate::redact::Redactor;
use crate::serve::{self, Bounds};

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error("{0} is in use, expected a free port; choose another by egress.listen")]
    InUse(SocketAddr),
    /// The kernel refused, for the reason that is the source.
    #[error("cannot listen on {0} (egress.listen)")]
    Refused(SocketAddr, #[source] io::Error),
}

/// The port, open and not yet served.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    config: Config,
}

/// The port and what is done behind it. `serve` may be called again after a panic.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    desk: Arc<Desk>,
    relay: Arc<Relay>,
}

/// Takes other settings while calls pass.
#[derive(Clone, Debug)]
pub struct Tuner(Arc<Desk>, Arc<Relay>);

impl Retune for Tuner {
    type Config = Option<Config>;
    const LIVE: &'static [&'static str] =
        &["egress.prices", "egress.prices.", "egress.max_models", "egress.connect_timeout", "egress.read_timeout"];

    fn retune(&self, config: &Option<Config>) -> Result<(), String> {
        // switched off: that waits for a restart
        if let Some(config) = config {
            self.0.keep_by(config);
            self.1.wait_by(config);
        }
        Ok(())
    }
}

/// Clients keep connections between calls, and one call may take as long as the service likes: only who idles is cut off.
const BOUNDS: Bounds = Bounds {
    head: Duration::from_secs(75),
    http1_life: Duration::from_secs(24 * 3_600),
    http2_life: Duration::from_secs(24 * 3_600),
    streams: 100,
};
/// For calls that are under way when the process ends: the application, whose they are, has ended by then.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Opens the port.
///
/// # Errors
/// It cannot be opened.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let address = config.listen;
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        _ => BindError::Refused(address, error),
    })?;
    listener.set_nonblocking(true).map_err(|error| BindError::Refused(address, error))?;
    Ok(Bound { listener, config: config.clone() })
}

impl Bound {
    /// The address with its real port, and where it leads.
    #[must_use]
    pub fn address(&self) -> Option<(SocketAddr, String)> {
        let upstream = self.config.upstream.as_str().trim_end_matches('/').to_owned();
        Some((self.listener.local_addr().ok()?, upstream))
    }

    /// Says what is done behind the port: calls that are sampled go to a sink of spans, if there is one, and how each ended to the
    /// outcomes.
    #[must_use]
    pub fn door(
        self,
        sampling: watch::Receiver<Sampling>,
        redactor: Arc<Redactor>,
        told: (Option<CallSink>, AiOutcomes),
    ) -> Door {
        let places = Arc::new(Semaphore::new(self.config.connections));
        let desk = Arc::new(Desk::new(&self.config, sampling, redactor, told));
        let relay = Arc::new(Relay::new(self.config, Arc::clone(&desk)));
        Door { listener: self.listener, places, desk, relay }
    }
}

impl Door {
    /// Takes other settings.
    #[must_use]
    pub fn tuner(&self) -> Tuner {
        Tuner(Arc::clone(&self.desk), Arc::clone(&self.relay))
    }

    /// What was seen of the calls, as metrics.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        self.desk.samples(out);
    }

    /// Serves until `end` begins to drain, and then what is under way, for a second at most.
    ///
    /// # Panics
    /// When the listener cannot be registered with the runtime.
    pub async fn serve(&self, end: Drain) {
        let relay = Arc::clone(&self.relay);
        let answer = move |request| {
            let relay = Arc::clone(&relay);
            async move { relay.answer(request).await }
        };
        let places = (&self.places, || self.desk.turn_away());
        serve::answer(("egress", &self.listener), places, (BOUNDS, LAST_CALLS), answer, || end.over()).await;
    }
}
