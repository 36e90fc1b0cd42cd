//! The data path: listeners, connections to the application, timers, admission.
//!
//! HTTP/1.1 by an engine of our own: a head is validated and written anew, bodies pass by their validated framing,
//! so what was not understood is never passed on. A client that speaks HTTP/2 is translated for the same engine, stream by
//! stream, and so is an application that does. Deliberately absent: buffering of bodies, retries of anything
//! that may have had an effect, locks shared between workers, and any knowledge of what is done with a record.
//!
//! Each worker is one thread with its own listener, pool, timers and sink; nothing on it needs `Send`.

mod answer;
mod arrivals;
mod buffers;
mod chunked;
mod cidr;
mod client;
mod clock;
mod config;
mod connection;
mod counters;
mod exchange;
mod forwarded;
mod frames;
mod framing;
mod grpc;
mod h2c;
mod head;
mod hop;
mod http2;
mod ids;
mod in_flight;
mod listener;
mod plan;
mod pool;
mod run;
mod serve;
mod stream_body;
mod terms;
mod timers;
mod tunnel;
mod upstream;
mod waits;
mod wire;
mod worker;

use std::cell::RefCell;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::lifecycle::{Drain, Pulse};
use crate::model::request::RequestSink;
use crate::model::route::RouteTable;
use crate::proxy::worker::{Sources, Worker};

pub use cidr::{Cidr, CidrError};
pub use config::{Authority, Config, Limits, MAX_FIELDS, Timeouts, UpstreamProtocol};
pub use counters::Counters;
pub use ids::TracePolicy;
pub use listener::BindError;
pub use terms::{Terms, Tuner};

/// What the proxy takes from others. All of it may change while it runs.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The routes of the application, as last read.
    pub routes: watch::Receiver<Arc<RouteTable>>,
    /// How requests are traced.
    pub tracing: watch::Receiver<TracePolicy>,
    /// On which terms requests are served.
    pub terms: watch::Receiver<Terms>,
    /// Tells when to stop.
    pub drain: Drain,
    /// One sign of life per worker; may be fewer.
    pub pulses: Vec<Pulse>,
}

/// A port that is ours, and not served yet.
#[derive(Debug)]
pub struct Bound {
    config: Arc<Config>,
    listeners: Vec<TcpListener>,
    address: SocketAddr,
}

/// A proxy at work.
#[derive(Debug)]
pub struct Running {
    counters: Arc<Counters>,
    ends: Vec<oneshot::Receiver<()>>,
}

/// Opens the port.
///
/// # Errors
/// It is taken, or not ours to take; the message names the setting.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let listeners = listener::bind(config)?;
    let address = listeners.first().and_then(|first| first.local_addr().ok()).unwrap_or(config.listen);
    Ok(Bound { config: Arc::new(config.clone()), listeners, address })
}

impl Bound {
    /// Where it listens, with the real port where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves, in one thread per worker with a sink each; further sinks are dropped.
    ///
    /// There must be one sink for each of `workers`: a worker without a sink does not start.
    #[must_use]
    pub fn serve<S: RequestSink + Send + 'static>(self, deps: Deps, sinks: Vec<S>) -> Running {
        let counters = Arc::new(Counters::default());
        let limit = connection_limit(&self.config);
        let mut ends = Vec::new();
        let mut pulses = deps.pulses.into_iter();
        for (index, (listener, sink)) in self.listeners.into_iter().zip(sinks).enumerate() {
            let (end, ended) = oneshot::channel();
            let (routes, policy, terms) = (deps.routes.clone(), deps.tracing.clone(), deps.terms.clone());
            let sources = Sources { routes, policy, terms, pulse: pulses.next() };
            let seat = Seat { config: Arc::clone(&self.config), counters: Arc::clone(&counters), sources, limit };
            let drain = deps.drain.clone();
            let work = move || {
                seat.work(sink, &listener, &drain);
                drop(end);
            };
            match std::thread::Builder::new().name(format!("proxy-{index}")).spawn(work) {
                Ok(_) => ends.push(ended),
                Err(error) => tracing::error!(%error, "a proxy worker has no thread"),
            }
        }
        Running { counters, ends }
    }
}

/// What one worker's thread is given.
struct Seat {
    config: Arc<Config>,
    counters: Arc<Counters>,
    sources: Sources,
    /// Client connections that it may hold.
    limit: usize,
}

/// How many client connections each worker may hold; says so if that is fewer than configured.
fn connection_limit(config: &Config) -> usize {
    let (configured, workers) = (config.limits.connections, config.workers);
    let limit = run::connection_limit(configured, workers);
    if limit < configured.div_ceil(workers) {
        tracing::warn!(
            found = limit * workers,
            expected = configured,
            "open files allow fewer client connections than proxy.limits.connections; raise their hard limit \
             (ulimit -n, LimitNOFILE=) to twice as many and some more, or lower the setting"
        );
    }
    limit
}

impl Seat {
    fn work<S: RequestSink + 'static>(self, sink: S, listener: &TcpListener, drain: &Drain) {
        // shared, because a worker that panicked begins again with the same sink
        let sink = Rc::new(RefCell::new(sink));
        let make = || {
            let (config, counters) = (Arc::clone(&self.config), Arc::clone(&self.counters));
            (Worker::new(config, counters, self.sources.clone(), Rc::clone(&sink)), self.limit)
        };
        run::thread(make, listener, drain, &self.counters);
    }
}

impl Running {
    /// What the data path tells of itself.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Waits until all workers have ended: after a drain, or its deadline.
    pub async fn finished(self) {
        for ended in self.ends {
            let _ = ended.await; // the sender is dropped at the thread's end, however it ends
        }
    }
}
