//! Connections of HTTP/1.1 or HTTP/2, accepted and served: for ports of our own, never for the proxy, whose engine is another.
//!
//! Which of the two one is, its first bytes tell. Bounded in each wait for a head, in life, and in requests at once; how many
//! there may be, and of whom, the port itself decides.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, ready};
use std::io::{self, Cursor};
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The wait for the next head, and so also how long a connection of HTTP/1.1 may idle.
    pub head: Duration,
    /// The life of a connection of HTTP/1.1, and then of its last request as long as its head may take.
    pub http1_life: Duration,
    /// The same of HTTP/2, where nothing cuts off a client that does not go on with a head.
    pub http2_life: Duration,
    /// Requests at once on a connection of HTTP/2.
    pub streams: u32,
}

/// What a connection goes on with when HTTP has ended on it, a tunnel for instance: an extension of each request at a port of
/// `answer`. While it lasts the connection keeps its place.
#[derive(Clone, Default)]
pub struct Afterwards(Arc<Mutex<Option<Tail>>>);

type Tail = Pin<Box<dyn Future<Output = ()> + Send>>;

/// After a failed accept: out of descriptors, and trying again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first bytes come in one packet; who takes longer is cut off.
const GREETING: Duration = Duration::from_secs(5);
/// What is under way when a connection is told to end.
const LAST_REQUEST: Duration = Duration::from_secs(5);
/// Larger than any head that a browser, a scraper or an SDK sends.
const HEAD_BYTES: usize = 16 * 1024;
/// What may come of a body before it is asked for: as much as RFC 9113 begins with, and so bounded for all streams together.
const WINDOW: u32 = 65_535;
/// By what a client that knows says that it speaks HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Afterwards {
    /// Goes on with this. It must end by itself, and ends at the latest with the life of the connection or the process.
    pub fn go_on(&self, tail: impl Future<Output = ()> + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(tail));
    }

    fn take(&self) -> Option<Tail> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Accepts at the port of this room until `end`, and then gives what is still served; let go, that ends too.
///
/// Each time it waits for a `place` first: whoever comes meanwhile waits in the kernel's backlog. A connection is served by what
/// `admit` makes of it and of its place, and closed if that is nothing.
///
/// # Panics
/// When the listener cannot be registered with the runtime.
pub async fn accept<P: Future, S: Future<Output = ()> + Send + 'static>(
    (room, listener): (&str, &TcpListener),
    place: impl Fn() -> P,
    admit: impl Fn(P::Output, TcpStream, SocketAddr) -> Option<S>,
    end: impl Future<Output = ()>,
) -> JoinSet<()> {
    let copy = listener.try_clone().expect("a listener can be duplicated");
    let listener = tokio::net::TcpListener::from_std(copy).expect("a listener that does not block registers");
    let mut connections = JoinSet::new();
    let mut end = pin!(end);
    loop {
        let (place, accepted) = tokio::select! {
            next = async { (place().await, listener.accept().await) } => next,
            () = end.as_mut() => return connections,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                if let Some(served) = admit(place, stream, peer) {
                    connections.spawn(served);
                }
            }
            Err(error) => {
                warn!(room, error = %error.kind(), "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers at the port of this room until `end`, a maker of futures that are over at the drain, and then what is under way, for
/// `last` at most. Each connection has a place or is closed at once, and `turned_away` hears of it.
///
/// # Panics
/// When the listener cannot be registered with the runtime.
pub async fn answer<A, R, B, E>(
    port: (&str, &TcpListener),
    (places, turned_away): (&Arc<Semaphore>, impl Fn()),
    (bounds, last): (Bounds, Duration),
    answer: A,
    end: impl Fn() -> E,
) where
    A: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    E: Future<Output = ()> + Send + 'static,
{
    let admit = |(), stream, _| {
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            turned_away();
            return None;
        };
        let (answer, over, afterwards) = (answer.clone(), end(), Afterwards::default());
        let told = afterwards.clone();
        Some(async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(told.clone());
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            connection(stream, service, bounds, over).await;
            if let Some(tail) = afterwards.take() {
                let _ = timeout(bounds.http1_life, tail).await;
            }
            drop(place);
        })
    };
    let mut connections = accept(port, || ready(()), admit, end()).await;
    let _ = timeout(last, async { while connections.join_next().await.is_some() {} }).await;
}

/// Serves a connection until it ends, has lived long enough, or `end` comes; then to the end of what is under way.
///
/// A client that breaks off or sends nonsense is its own problem: its error is nobody's news.
pub async fn connection<S, B>(stream: TcpStream, service: S, bounds: Bounds, end: impl Future<Output = ()>)
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    let _ = stream.set_nodelay(true); // an answer is one write; without it nothing breaks
    halves(stream.into_split(), service, bounds, end).await;
}

/// The same of any connection, given as what it reads and what it writes, such as one of TLS.
pub async fn halves<R, W, S, B>((mut reader, writer): (R, W), service: S, bounds: Bounds, end: impl Future<Output = ()>)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    let Ok(Ok(greeting)) = timeout(GREETING, greeting(&mut reader)).await else { return };
    let is_http2 = greeting == PREFACE;
    let io = TokioIo::new(tokio::io::join(Cursor::new(greeting).chain(reader), writer));
    if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(bounds.streams)
            .max_header_list_size(HEAD_BYTES as u32)
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .serve_connection(io, service);
        live(connection, bounds.http2_life, end, |connection| connection.graceful_shutdown()).await;
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(io, service)
            .with_upgrades();
        live(connection, bounds.http1_life, end, |connection| connection.graceful_shutdown()).await;
    }
}

async fn live<C: Future>(connection: C, life: Duration, end: impl Future<Output = ()>, leave: impl Fn(Pin<&mut C>)) {
    let mut connection = pin!(connection);
    let over = async { drop(timeout(life, end).await) };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = over => leave(connection.as_mut()),
    }
    let _ = timeout(LAST_REQUEST, connection).await;
}

/// What is read until it is known whether the preface of HTTP/2 begins the connection: that, or what came instead.
async fn greeting(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut greeting = Vec::with_capacity(PREFACE.len());
    while greeting.len() < PREFACE.len() && PREFACE.starts_with(&greeting) {
        let missing = (PREFACE.len() - greeting.len()) as u64;
        if (&mut *reader).take(missing).read_buf(&mut greeting).await? == 0 {
            break;
        }
    }
    Ok(greeting)
}
