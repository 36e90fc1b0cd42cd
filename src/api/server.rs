//! Sockets of the admin port: bound first, served later; every connection and every wait is bounded.

use std::future::Future;
use std::io::{self, Cursor};
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::api::access::Peer;
use crate::api::config::Config;
use crate::api::places::Places;
use crate::api::router::router;
use crate::api::state::State;
use crate::lifecycle::Drain;

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

/// A head comes in one packet; who takes longer, or lets a connection idle, is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Scrapers come every few seconds and keep a connection; a longer life would only hold a place.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// Larger than any head that a browser or scraper sends.
const HEAD_BYTES: usize = 16 * 1024;
/// A connection of HTTP/2 cannot be cut off by the wait for a head, so it holds its place for less.
const HTTP2_LIFE: Duration = Duration::from_secs(30);
/// Requests at once on a connection of HTTP/2; each is answered from memory.
const STREAMS: u32 = 100;
/// By what a client that knows says that it speaks HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// After a failed accept: out of descriptors, and trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
        for listener in self.listeners.iter() {
            let copy = listener.try_clone().expect("a listener can be duplicated");
            let listener = tokio::net::TcpListener::from_std(copy).expect("a listener that does not block registers");
            accepting.spawn(accept(listener, router.clone(), places.clone()));
        }
        tokio::select! {
            _ = end.begun() => {}
            Some(ended) = accepting.join_next() => ended.expect("the accept loop has no end"),
        }
    }
}

/// Accepts for ever; its connections end with it.
async fn accept(listener: tokio::net::TcpListener, router: Router, places: Places) {
    let mut connections = JoinSet::new();
    loop {
        let place = places.free().await;
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(place) = places.take(place, peer.ip()) else { continue };
                let router = router.clone();
                connections.spawn(async move {
                    serve_connection(stream, peer, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error.kind(), "the admin port cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(mut stream: TcpStream, peer: SocketAddr, router: Router) {
    let _ = stream.set_nodelay(true); // an answer is one write; without it nothing breaks
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        name_host(&mut request);
        request.extensions_mut().insert(Peer(peer.ip()));
        inner.call(request)
    });
    let Ok(Ok(greeting)) = timeout(HEAD_TIMEOUT, greeting(&mut stream)).await else { return };
    let is_http2 = greeting == PREFACE;
    let (rest, writer) = stream.into_split();
    let io = TokioIo::new(tokio::io::join(Cursor::new(greeting).chain(rest), writer));
    if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_BYTES as u32)
            .serve_connection(io, service);
        live(connection, HTTP2_LIFE, |connection| connection.graceful_shutdown()).await;
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(io, service);
        live(connection, CONNECTION_LIFE, |connection| connection.graceful_shutdown()).await;
    }
}

/// Runs a connection to its end, or for this long and then to the end of what is under way.
///
/// A client that breaks off or sends nonsense is its own problem: its error is nobody's news.
async fn live<C: Future>(connection: C, life: Duration, leave: impl Fn(Pin<&mut C>)) {
    let mut connection = pin!(connection);
    if timeout(life, connection.as_mut()).await.is_err() {
        leave(connection.as_mut());
        let _ = timeout(HEAD_TIMEOUT, connection).await;
    }
}

/// What is read until it is known whether the preface of HTTP/2 begins the connection: that, or what came instead.
async fn greeting(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut greeting = Vec::with_capacity(PREFACE.len());
    while greeting.len() < PREFACE.len() && PREFACE.starts_with(&greeting) {
        let missing = (PREFACE.len() - greeting.len()) as u64;
        if (&mut *stream).take(missing).read_buf(&mut greeting).await? == 0 {
            break;
        }
    }
    Ok(greeting)
}

/// HTTP/2 names the host in `:authority`; what judges it reads `Host` (RFC 9113, section 8.3.1).
fn name_host(request: &mut Request<Incoming>) {
    let authority = request.uri().authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(authority) = authority {
        request.headers_mut().insert(header::HOST, authority);
    }
}
