//! An application that speaks HTTP/2 in clear text and answers as its paths say: for tests of gRPC through the proxy.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::h2_world::push;
use crate::proxy_world::spawn;

/// What a connection is told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Word {
    #[default]
    Serve,
    /// Take no more, and say so by GOAWAY.
    Leave,
    /// Be gone, without a word.
    Vanish,
}

/// The application, and what it has seen.
pub(crate) struct Application {
    pub(crate) address: SocketAddr,
    /// Connections that have greeted by HTTP/2.
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    /// Requests at once on one connection.
    pub(crate) most_at_once: AtomicUsize,
    /// One permit for each request that is held.
    pub(crate) held: Semaphore,
    /// One permit for each request that was given up by the other side, by CANCEL.
    pub(crate) cancelled: Semaphore,
    /// One permit for each connection that has ended.
    pub(crate) ended: Semaphore,
    /// Bytes of bodies that it has been able to write.
    pub(crate) written: AtomicU64,
    word: watch::Sender<Word>,
    /// Requests at once that it allows on one connection.
    streams: Option<u32>,
    /// Requests that are still to be refused.
    refusals: AtomicUsize,
}

/// How it differs from one that allows everything.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) streams: Option<u32>,
    pub(crate) refusals: usize,
}

impl Application {
    pub(crate) async fn start() -> Arc<Self> {
        Self::start_with(Manner::default()).await
    }

    pub(crate) async fn start_with(manner: Manner) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let this = Arc::new(Self {
            address: listener.local_addr().expect("bound"),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            held: Semaphore::new(0),
            cancelled: Semaphore::new(0),
            ended: Semaphore::new(0),
            written: AtomicU64::new(0),
            word: watch::Sender::default(),
            streams: manner.streams,
            refusals: AtomicUsize::new(manner.refusals),
        });
        let serving = Arc::clone(&this);
        spawn(async move {
            let mut word = serving.word.subscribe();
            while *word.borrow() != Word::Vanish {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.expect("a listener").0,
                    _ = word.changed() => continue,
                };
                spawn(Arc::clone(&serving).serve(stream));
            }
        });
        this
    }

    /// Tells all connections of now.
    pub(crate) fn tell(&self, word: Word) {
        self.word.send_replace(word);
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let mut builder = Builder::new();
        if let Some(streams) = self.streams {
            builder.max_concurrent_streams(streams);
        }
        let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut word = self.word.subscribe();
        let mut calls = JoinSet::new();
        loop {
            let next = tokio::select! {
                next = connection.accept() => next,
                _ = word.changed() => {
                    match *word.borrow_and_update() {
                        Word::Vanish => break,
                        Word::Leave => connection.graceful_shutdown(),
                        Word::Serve => {}
                    }
                    continue;
                }
            };
            let Some(Ok((request, respond))) = next else { break };
            while calls.try_join_next().is_some() {}
            calls.spawn(Arc::clone(&self).answer(request, respond));
            self.most_at_once.fetch_max(calls.len(), Ordering::SeqCst);
        }
        drop(connection);
        self.ended.add_permits(1);
    }

    async fn answer(self: Arc<Self>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let refused = self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if refused.is_ok() {
            return respond.send_reset(Reason::REFUSED_STREAM);
        }
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_start_matches('/').to_owned();
        let _the_other_side_may_go_at_any_time = match path.split('/').next().unwrap_or_default() {
            "hold" => self.hold(respond).await,
            "open" => self.open(respond).await,
            "source" => self.pour(respond).await,
            // takes nothing of what it is sent
            "sink" => self.ignore(body, respond).await,
            "bare" => respond.send_response(bare(), true).map(drop),
            "reset" => reset(respond, path.rsplit('/').next().unwrap_or_default()).await,
            "plain" => plain(respond, body).await,
            _ => echo(respond, body, &parts.headers).await,
        };
    }

    async fn hold(&self, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
        self.held.add_permits(1);
        let reason = poll_fn(|cx| respond.poll_reset(cx)).await?;
        self.note(reason);
        Ok(())
    }

    /// Answers with a head and one message, and nothing more.
    async fn open(&self, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
        let mut send = respond.send_response(head(), false)?;
        push(&mut send, Bytes::from_static(b"one message")).await?;
        self.held.add_permits(1);
        let reason = poll_fn(|cx| send.poll_reset(cx)).await?;
        self.note(reason);
        Ok(())
    }

    async fn ignore(&self, body: RecvStream, respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
        let held = self.hold(respond).await;
        drop(body);
        held
    }

    async fn pour(&self, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
        let mut send = respond.send_response(head(), false)?;
        let piece = Bytes::from(vec![b'x'; 16 << 10]);
        loop {
            // not by `push`: its patience would end while nobody reads
            send.reserve_capacity(piece.len());
            let room = poll_fn(|cx| match send.poll_reset(cx) {
                Poll::Ready(reason) => Poll::Ready(Err(reason)),
                Poll::Pending => send.poll_capacity(cx).map(Ok),
            });
            match room.await {
                Err(reason) => {
                    self.note(reason?);
                    return Ok(());
                }
                Ok(room) => {
                    let room = room.ok_or(Reason::CANCEL)??;
                    send.send_data(piece.slice(..room.min(piece.len())), false)?;
                    self.written.fetch_add(room.min(piece.len()) as u64, Ordering::SeqCst);
                }
            }
        }
    }

    fn note(&self, reason: Reason) {
        if reason == Reason::CANCEL {
            self.cancelled.add_permits(1);
        }
    }
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").header("x-initial", "first").body(()).expect("valid")
}

/// Trailers-Only: a status, and no message.
fn bare() -> Response<()> {
    let fields =
        [("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "not%20here"), ("x-own", "1")];
    let response = fields.into_iter().fold(Response::builder(), |all, (name, value)| all.header(name, value));
    response.body(()).expect("valid")
}

/// Sends each piece back as it comes, and then says what stood behind the head.
async fn echo(mut respond: SendResponse<Bytes>, mut body: RecvStream, asked: &HeaderMap) -> Result<(), h2::Error> {
    let mut response = head();
    for name in ["te", "grpc-timeout", "x-custom-bin", "traceparent", "x-forwarded-for"] {
        if let Some(value) = asked.get(name) {
            response
                .headers_mut()
                .insert(http::HeaderName::try_from(format!("x-seen-{name}")).expect("valid"), value.clone());
        }
    }
    let mut send = respond.send_response(response, false)?;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        push(&mut send, piece).await?;
    }
    let trailers = [
        ("grpc-status", "9"),
        ("grpc-message", "a%E2%98%BA"),
        ("grpc-status-details-bin", "CAk="),
        ("x-own-metadata", "behind"),
        ("x-own-bin", "AAEC"),
        ("set-cookie", "a=b"),
        ("content-type", "text/html"),
        ("x-forwarded-host", "evil"),
    ];
    send.send_trailers(
        trailers
            .map(|(name, value)| (name.parse().expect("valid"), value.parse().expect("valid")))
            .into_iter()
            .collect(),
    )
}

async fn reset(mut respond: SendResponse<Bytes>, reason: &str) -> Result<(), h2::Error> {
    let mut send: SendStream<Bytes> = respond.send_response(head(), false)?;
    push(&mut send, Bytes::from_static(b"half of a mess")).await?;
    // by the time that its window is whole again, what was sent has been read
    tokio::task::yield_now().await;
    send.send_reset(Reason::from(reason.parse::<u32>().expect("a number")));
    Ok(())
}

/// An answer that is not of gRPC, with a length.
async fn plain(mut respond: SendResponse<Bytes>, mut body: RecvStream) -> Result<(), h2::Error> {
    let mut length = 0;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        length += piece.len();
    }
    let text = format!("{length} bytes");
    let response =
        Response::builder().header("content-length", text.len()).header("etag", "e").body(()).expect("valid");
    let mut send = respond.send_response(response, false)?;
    send.send_data(Bytes::from(text), true)
}

/// A request of gRPC to this path.
pub(crate) fn call(path: &str) -> Request<()> {
    let mut request = crate::h2_world::request("POST", path);
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        request.headers_mut().insert(name, value.parse().expect("valid"));
    }
    request
}

/// Until this holds, within the patience of all tests.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut waited = pin!(tokio::time::sleep(crate::rig::PATIENCE));
    while !holds() {
        tokio::select! {
            () = &mut waited => panic!("never came to: {what}"),
            () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
        }
    }
}
