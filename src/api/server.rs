//! Sockets of the admin port: bound first, served later; every connection and every wait is bounded.

use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::api::access::Peer;
use crate::api::config::Config;
use crate::api::places::Places;
use crate::api::router::router;
use crate::api::state::State;
use crate::lifecycle::Drain;
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
}

/// The admin port, open and not yet served. Cheap to clone; `serve` may be called again after a panic.
#[derive(Clone, Debug)]
pub struct Bound {
    listeners: Arc<[TcpListener]>,
    config: Config,
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
    Ok(Bound { listeners, config })
}

impl Bound {
    /// The addresses, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `end` begins to drain: the end of all rooms, not the proxy's drain, in which probes need answers.
    ///
    /// # Panics
    /// When a listener cannot be registered with the runtime.
    pub async fn serve(&self, state: State, mut end: Drain) {
        let router = router(Arc::new(state), &self.config);
        let places = Places::new(self.config.connections);
        let mut accepting = JoinSet::new();
        for number in 0..self.listeners.len() {
            let (listeners, router, places) = (Arc::clone(&self.listeners), router.clone(), places.clone());
            accepting.spawn(async move { accept(&listeners[number], &router, &places).await });
        }
        tokio::select! {
            _ = end.begun() => {}
            Some(ended) = accepting.join_next() => ended.expect("the accept loop has no end"),
        }
    }
}

/// Accepts for ever; its connections end with it.
async fn accept(listener: &TcpListener, router: &Router, places: &Places) {
    let admit = |place, stream, peer: SocketAddr| {
        let place = places.take(place, peer.ip())?;
        let router = router.clone();
        Some(async move {
            serve_connection(stream, peer, router).await;
            drop(place);
        })
    };
    serve::accept(("admin", listener), || places.free(), admit, pending()).await;
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, router: Router) {
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        name_host(&mut request);
        request.extensions_mut().insert(Peer(peer.ip()));
        inner.call(request)
    });
    serve::connection(stream, service, BOUNDS, pending()).await;
}

/// HTTP/2 names the host in `:authority`; what judges it reads `Host` (RFC 9113, section 8.3.1).
fn name_host(request: &mut Request<Incoming>) {
    let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(authority) = authority {
        request.headers_mut().insert(header::HOST, authority);
    }
}
