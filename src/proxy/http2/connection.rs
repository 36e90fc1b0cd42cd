//! A client's connection that speaks HTTP/2: one task that moves its frames and serves its streams.
//!
//! In one task, by turns: what a stream says is written to the socket at once. With a task for each, the streams of all
//! connections would fill their buffers before the first of them is written.
//!
//! It ends when the client ends it, when nothing has been asked for `proxy.timeouts.client_idle`, and at a drain;
//! the last two are told by GOAWAY, twice (RFC 9113, section 6.8), so that no request on its way is lost. A client that
//! floods it with frames, or does not bring a head to its end in time, is told at once and loses what is under way.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_core::Stream as _;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};

use crate::model::request::{Method, Refusal, RequestSink};
use crate::proxy::client::ClientSide;
use crate::proxy::connection::{DRAIN_LINGER, Next, Pace};
use crate::proxy::counters::Breach;
use crate::proxy::forwarded::Peer;
use crate::proxy::http2::bell::Bells;
use crate::proxy::http2::conduct::Conduct;
use crate::proxy::http2::frames::{Frames, Kind, PREFACE};
use crate::proxy::http2::places::{Came, Place};
use crate::proxy::http2::socket::Socket;
use crate::proxy::http2::stream::Stream;
use crate::proxy::http2::translate;
use crate::proxy::stream_body::Piece;
use crate::proxy::timers::{Deadline, NEVER, Tick};
use crate::proxy::wire::Wire;
use crate::proxy::worker::Worker;

/// Requests at once. All other limits that are not set here are the protocol's defaults: to raise one is to help
/// an attacker.
const STREAMS: u32 = 100;

/// The header section of a request, uncompressed.
const HEADER_LIST_BYTES: u32 = 16 << 10;

/// What of an answer may wait for the connection, per stream.
const SEND_BUFFER_BYTES: usize = 32 << 10;

/// Memory for pieces of bodies that nobody has read yet, where these are much smaller than what the library keeps of each: a
/// thousand of them. By its own measure a hundred messages of gRPC in one segment would end the connection.
const SMALL_PIECES_BYTES: usize = 256 << 10;

/// Streams that the client resets before they are looked at; beyond it the connection ends (CVE-2023-44487).
const RESET_BEFORE_ACCEPT: usize = 20;

/// Streams that the client makes us reset; beyond it the connection ends (CVE-2025-8671).
const RESET_BY_US: usize = 1_024;

/// What a connection takes beside its streams, most of it the library's buffers. As measured.
const CONNECTION_BYTES: usize = 20 << 10;

/// SETTINGS, with which a server begins, and GOAWAY with ENHANCE_YOUR_CALM: no stream was looked at.
const TURNED_AWAY: [u8; 26] = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];

/// The parts of a connection's task, each with a bell.
const FRAMES: usize = 0;
const STREAM: usize = 1;
const PARTS: usize = 2;

/// How often each part may have its turn before other connections have theirs.
const TURNS: u32 = 8;

/// Serves a connection whose preface is in the inbox, to its end; gives how what still comes is to be read.
pub(crate) async fn serve<S: RequestSink + 'static>(client: &mut ClientSide<S>) -> Pace {
    if is_gone(client) {
        return Pace::Swift;
    }
    let Some(place) = take_place(client) else { return Pace::Calm };
    let _counted = client.worker.buffers.count(CONNECTION_BYTES);
    // on the heap: what greets is as large as what follows, and would be kept beside it
    let Some(mut session) = Box::pin(begin(client, place, serve_stream::<S>)).await else { return Pace::Calm };
    let pace = session.run().await;
    let Session { connection, mut streams, .. } = session;
    // each of them sees that its client has gone, and reports it
    drop(connection);
    while poll_fn(|cx| pin!(&mut streams).poll_next(cx)).await.is_some() {}
    pace
}

/// Whether the client has closed already and asked nothing: nobody is there to be greeted, for which most memory is taken.
fn is_gone<S: RequestSink>(client: &mut ClientSide<S>) -> bool {
    if !client.inbox.has_room() {
        return false;
    }
    let mut cx = Context::from_waker(Waker::noop());
    let filled = client.inbox.poll_fill(&mut client.stream, &mut cx);
    let is_closed = matches!(filled, Poll::Ready(Ok(0) | Err(_)));
    let mut asks = false;
    Frames::behind(PREFACE.len()).advance(client.inbox.filled(), |frame| asks |= frame.kind == Kind::Headers);
    is_closed && !asks
}

/// A place for the connection; who gets none is told to calm down before anything is read.
fn take_place<S: RequestSink>(client: &ClientSide<S>) -> Option<Place> {
    let worker = &client.worker;
    let taken = worker.places.take(worker.timers.now());
    match &taken {
        Some((_, Came::Free)) => {}
        Some((_, Came::InsteadOfAnother)) => worker.counters.breaches.count(Breach::Idle),
        None => {
            worker.counters.breaches.count(Breach::Crowd);
            worker.counters.go_aways.count(u32::from(Reason::ENHANCE_YOUR_CALM));
            let _ = client.stream.try_write(&TURNED_AWAY); // nothing was written before: the socket has room
        }
    }
    taken.map(|(place, _)| place)
}

/// Greets; `None` if the client does not. `serve` is what serves one of its streams.
async fn begin<'c, S: RequestSink, F: Future<Output = ()>>(
    client: &'c mut ClientSide<S>,
    place: Place,
    serve: fn(ClientSide<S, Stream>, Option<Refusal>) -> F,
) -> Option<Session<'c, S, F>> {
    let (worker, peer) = (Rc::clone(&client.worker), client.peer.clone());
    let deadline = Deadline::new(&worker.timers);
    let until = worker.timers.after(worker.timeouts.get().header);
    let conduct = Rc::new(Conduct::new(PREFACE.len(), (worker.timers.now(), until)));
    let mut handshake = pin!(settings().handshake::<_, Piece>(Socket::new(client, Rc::clone(&conduct))));
    let shaken = poll_fn(|cx| {
        let result = handshake.as_mut().poll(cx).map(Result::ok);
        if result.is_pending() && worker.timers.now() >= until {
            return Poll::Ready(None);
        }
        deadline.set(until, cx);
        result
    });
    let connection = shaken.await?;
    let until = worker.timers.after(worker.timeouts.get().client_idle);
    let (streams, stage) = (FuturesUnordered::new(), Stage::Open);
    Some(Session { worker, peer, place, conduct, connection, streams, serve, deadline, until, stage })
}

fn settings() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_LIST_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .data_frame_budget(SMALL_PIECES_BYTES)
        .max_pending_accept_reset_streams(RESET_BEFORE_ACCEPT)
        .max_local_error_reset_streams(Some(RESET_BY_US));
    builder
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Requests may come.
    Open,
    /// The client was told that no more will be taken.
    Leaving,
    /// The client was told that all is over, and why.
    CutOff,
}

/// A connection past its greeting; each of its streams is an `F`.
struct Session<'c, S: RequestSink, F> {
    worker: Rc<Worker<S>>,
    peer: Peer,
    place: Place,
    conduct: Rc<Conduct>,
    connection: Connection<Socket<'c, S>, Piece>,
    streams: FuturesUnordered<F>,
    serve: fn(ClientSide<S, Stream>, Option<Refusal>) -> F,
    deadline: Deadline,
    /// How long it may go on without a stream.
    until: Tick,
    stage: Stage,
}

impl<S: RequestSink, F: Future<Output = ()>> Session<'_, S, F> {
    /// To the end of the connection.
    async fn run(&mut self) -> Pace {
        let mut bells = None;
        poll_fn(|cx| {
            let bells = bells.get_or_insert_with(|| Bells::new(cx));
            bells.work();
            let ended = self.poll(bells);
            bells.rest();
            ended
        })
        .await
    }

    fn poll(&mut self, bells: &Bells<PARTS>) -> Poll<Pace> {
        for _ in 0..TURNS {
            let (frames, streams) = (bells.waker(FRAMES), bells.waker(STREAM));
            let streams_rang = bells.answer(STREAM);
            while streams_rang && pin!(&mut self.streams).poll_next(&mut Context::from_waker(&streams)).is_ready() {
                if self.streams.is_empty() {
                    frames.wake_by_ref(); // from now on the client's idle time counts
                    break;
                }
            }
            // after the streams: what they say goes out at once
            if bells.answer(FRAMES) {
                let known = self.streams.len();
                if let Poll::Ready(pace) = self.poll_frames(&mut Context::from_waker(&frames)) {
                    return Poll::Ready(pace);
                }
                if self.streams.len() > known {
                    streams.wake_by_ref();
                }
            } else if !streams_rang {
                break;
            }
        }
        Poll::Pending
    }

    /// Moves frames, and takes the requests among them; ready at the end of the connection.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Pace> {
        loop {
            if (self.worker.draining.get() || self.place.is_given_away()) && self.stage == Stage::Open {
                self.leave();
            }
            if let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
                let (request, respond) = match accepted {
                    Some(Ok(incoming)) => incoming,
                    Some(Err(_)) => return Poll::Ready(Pace::Calm), // it has been told to the client by GOAWAY
                    None => return Poll::Ready(if self.stage == Stage::CutOff { Pace::Calm } else { Pace::Swift }),
                };
                self.conduct.takes(respond.stream_id().as_u32());
                self.take(request, respond);
                continue;
            }
            if let Some(breach) = self.breach() {
                self.cut_off(breach);
                continue;
            }
            let now = self.worker.timers.now();
            if self.streams.is_empty() {
                self.place.is_idle(now, cx);
            } else {
                self.place.is_used();
            }
            if !self.streams.is_empty() && self.stage != Stage::CutOff {
                self.until = self.worker.timers.after(match self.stage {
                    Stage::Open => self.worker.timeouts.get().client_idle,
                    Stage::Leaving | Stage::CutOff => DRAIN_LINGER,
                });
            } else if now >= self.until {
                match self.stage {
                    Stage::Open => {
                        self.leave();
                        continue;
                    }
                    Stage::Leaving => {
                        self.end(Reason::NO_ERROR); // it has not said that it knows: the second word tells what was served
                        continue;
                    }
                    Stage::CutOff => return Poll::Ready(Pace::Calm),
                }
            }
            let head_until = if self.stage == Stage::CutOff { NEVER } else { self.conduct.head_until() };
            self.deadline.set(self.until.min(head_until).min(self.conduct.waits_until(now)), cx);
            return Poll::Pending;
        }
    }

    fn take(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Piece>) {
        let (client, refusal) = client_of((Rc::clone(&self.worker), self.peer.clone()), request, respond);
        self.streams.push((self.serve)(client, refusal));
    }

    /// Why the client is to be cut off now, if it is.
    fn breach(&self) -> Option<Breach> {
        match self.stage {
            Stage::CutOff => None,
            _ if self.conduct.is_flooding() => Some(Breach::Flood),
            _ if self.worker.timers.now() >= self.conduct.head_until() => Some(Breach::HeaderTimeout),
            _ => None,
        }
    }

    fn leave(&mut self) {
        self.connection.graceful_shutdown();
        (self.stage, self.until) = (Stage::Leaving, self.worker.timers.after(DRAIN_LINGER));
    }

    fn cut_off(&mut self, breach: Breach) {
        self.worker.counters.breaches.count(breach);
        self.end(Reason::ENHANCE_YOUR_CALM);
    }

    fn end(&mut self, reason: Reason) {
        self.connection.abrupt_shutdown(reason);
        (self.stage, self.until) = (Stage::CutOff, self.worker.timers.after(DRAIN_LINGER));
    }
}

/// A stream as the engine has it, and the reason to refuse its head.
fn client_of<S: RequestSink>(
    (worker, peer): (Rc<Worker<S>>, Peer),
    request: http::Request<RecvStream>,
    respond: SendResponse<Piece>,
) -> (ClientSide<S, Stream>, Option<Refusal>) {
    let (parts, body) = request.into_parts();
    let method = Method::parse(parts.method.as_str().as_bytes());
    let coding = translate::body_of(&parts.headers, &body);
    let (head, refusal) = match translate::request(&parts, coding) {
        Ok(head) => (head, None),
        Err(refusal) => (Vec::new(), Some(refusal)),
    };
    let stream = Stream::new(method, (head, coding), (body, respond), &worker.buffers);
    (ClientSide::new(worker, stream, peer), refusal)
}

/// Serves a stream. Its panic is its own: it ends the stream, and no other.
#[expect(clippy::manual_async_fn, reason = "each argument of an `async fn` is kept twice, and all streams would pay")]
fn serve_stream<S: RequestSink>(
    mut client: ClientSide<S, Stream>,
    refusal: Option<Refusal>,
) -> impl Future<Output = ()> {
    async move {
        let worker = Rc::clone(&client.worker);
        let mut request = pin!(async {
            let next = match refusal {
                Some(refusal) => client.refuse(refusal).await,
                None => match client.next_head().await {
                    Ok(Some(length)) => client.request(length).await,
                    Ok(None) => return,
                    Err(refusal) => client.refuse(refusal).await,
                },
            };
            if next == Next::Break {
                client.stream.break_off();
            }
        });
        let guarded = poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| request.as_mut().poll(cx)));
            polled.unwrap_or_else(|_| {
                worker.note_panics(1);
                Poll::Ready(())
            })
        });
        guarded.await;
    }
}
