//! Sockets of the admin port: bound first, served later; every connection and every wait is bounded.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::api::access::Peer;
use crate::api::config::Config;
use crate::api::guard::Guard;
use crate::api::handshake::{Gate, Wire};
use crate::api::places::Places;
use crate::api::refusals::{Refusal, Refusals};
use crate::api::router::router;
use crate::api::rulebook::Rulebook;
use crate::api::state::State;
use crate::lifecycle::Drain;
use crate::model::sample::SampleSource;
use crate::serve::{self, Bounds};

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error("{0} is in use, expected a free port; choose another by admin.listen (--admin)")]
    InUse(SocketAddr),
    /// The kernel refused, for the reason that is the source.
    #[error("cannot listen on {0} (admin.listen)")]
    Refused(SocketAddr, #[source] io::Error),
    /// Its tokens or its certificates cannot be used.
    #[error("the admin port cannot be served: {0}")]
    Rules(String),
}

/// The admin port, open and not yet served. Cheap to clone; `serve` may be called again after a panic.
#[derive(Clone, Debug)]
pub struct Bound {
    listeners: Arc<[TcpListener]>,
    connections: usize,
    rulebook: Rulebook,
    refusals: Arc<Refusals>,
}

/// A head comes in one packet, and scrapers come every few seconds and keep a connection; a longer life would only hold a
/// place, also a shorter one that no wait for a head can end. Each request is answered from memory.
const BOUNDS: Bounds = Bounds {
    head: Duration::from_secs(5),
    http1_life: Duration::from_secs(300),
    http2_life: Duration::from_secs(30),
    streams: 100,
};

/// Opens all addresses of the admin port.
///
/// # Errors
/// The first address that cannot be opened.
pub fn bind(config: Config) -> Result<Bound, BindError> {
    let open = |address: &SocketAddr| {
        let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(*address),
            _ => BindError::Refused(*address, error),
        })?;
        listener.set_nonblocking(true).map_err(|error| BindError::Refused(*address, error))?;
        Ok(listener)
    };
    let listeners = config.listen.iter().map(open).collect::<Result<Arc<[_]>, _>>()?;
    let connections = config.connections;
    let rulebook = Rulebook::new(config).map_err(BindError::Rules)?;
    Ok(Bound { listeners, connections, rulebook, refusals: Arc::default() })
}

impl Bound {
    /// The addresses, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// How it is spoken to: `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.rulebook.in_force().acceptor.is_some() { "https" } else { "http" }
    }

    /// Where the rules in force are replaced, by whoever reads the configuration again.
    #[must_use]
    pub fn rulebook(&self) -> Rulebook {
        self.rulebook.clone()
    }

    /// What it refused.
    #[must_use]
    pub fn samples(&self) -> SampleSource {
        let refusals = Arc::clone(&self.refusals);
        Arc::new(move |out| refusals.samples(out))
    }

    /// Serves until `end` begins to drain: the end of all rooms, not the proxy's drain, in which probes need answers.
    ///
    /// # Panics
    /// When a listener cannot be registered with the runtime.
    pub async fn serve(&self, state: State, mut end: Drain) {
        let guard = Guard::new(self.rulebook.clone(), Arc::clone(&self.refusals));
        let way_in = WayIn {
            gate: Gate::new(self.rulebook.clone(), Arc::clone(&self.refusals)),
            router: router(Arc::new(state), guard),
            places: Places::new(self.connections),
            refusals: Arc::clone(&self.refusals),
        };
        let mut accepting = JoinSet::new();
        for number in 0..self.listeners.len() {
            let (listeners, way_in) = (Arc::clone(&self.listeners), way_in.clone());
            accepting.spawn(async move { way_in.accept(&listeners[number]).await });
        }
        tokio::select! {
            _ = end.begun() => {}
            () = self.rulebook.follow_files() => {}
            Some(ended) = accepting.join_next() => ended.expect("the accept loop has no end"),
        }
    }
}

/// What each connection passes. Cheap to clone.
#[derive(Clone)]
struct WayIn {
    gate: Gate,
    router: Router,
    places: Places,
    refusals: Arc<Refusals>,
}

impl WayIn {
    /// Accepts for ever; its connections end with it.
    async fn accept(&self, listener: &TcpListener) {
        let admit = |permit, stream, peer: SocketAddr| {
            let Some(place) = self.places.take(permit, peer.ip()) else {
                self.refusals.count(Refusal::Connections);
                return None;
            };
            let way_in = self.clone();
            Some(async move {
                way_in.serve(stream, peer.ip()).await;
                drop(place);
            })
        };
        serve::accept(("admin", listener), || self.places.free(), admit, pending()).await;
    }

    async fn serve(self, stream: TcpStream, address: IpAddr) {
        match self.gate.open(stream, address).await {
            Some(Wire::Plain(stream)) => {
                let service = self.service(Peer { address, is_certified: false });
                serve::connection(stream, service, BOUNDS, pending()).await;
            }
            Some(Wire::Tls(stream)) => {
                let is_certified = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
                let service = self.service(Peer { address, is_certified });
                serve::halves(tokio::io::split(*stream), service, BOUNDS, pending()).await;
            }
            None => {}
        }
    }

    /// The router, told who asks.
    fn service(
        self,
        peer: Peer,
    ) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static> + Send {
        let inner = TowerToHyperService::new(self.router);
        service_fn(move |mut request: Request<Incoming>| {
            name_host(&mut request);
            request.extensions_mut().insert(peer);
            inner.call(request)
        })
    }
}

/// HTTP/2 names the host in `:authority`; what judges it reads `Host` (RFC 9113, section 8.3.1).
fn name_host(request: &mut Request<Incoming>) {
    let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(authority) = authority {
        request.headers_mut().insert(header::HOST, authority);
    }
}
