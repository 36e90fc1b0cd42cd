//! A client's connection that speaks HTTP/2: one task that moves its frames, and one for each of its streams.
//!
//! It ends when the client ends it, when nothing has been asked for `proxy.timeouts.client_idle`, and at a drain;
//! the last two are told by GOAWAY, twice (RFC 9113, section 6.8), so that no request on its way is lost. A client that
//! floods it with frames, or does not bring a head to its end in time, is told at once and loses what is under way.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use tokio::task::JoinSet;

use crate::model::request::{Method, RequestSink};
use crate::proxy::client::ClientSide;
use crate::proxy::connection::{DRAIN_LINGER, Next};
use crate::proxy::counters::Breach;
use crate::proxy::forwarded::Peer;
use crate::proxy::http2::conduct::Conduct;
use crate::proxy::http2::frames::PREFACE;
use crate::proxy::http2::socket::Socket;
use crate::proxy::http2::stream::Stream;
use crate::proxy::http2::translate;
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

/// Serves a connection whose preface is in the inbox, to its end.
pub(crate) async fn serve<S: RequestSink + 'static>(client: &mut ClientSide<S>) {
    let (worker, peer) = (Rc::clone(&client.worker), client.peer.clone());
    let deadline = Deadline::new(&worker.timers);
    let until = worker.timers.after(worker.config.timeouts.header);
    let conduct = Rc::new(Conduct::new(PREFACE.len(), (worker.timers.now(), until)));
    let mut handshake = pin!(settings().handshake::<_, Bytes>(Socket::new(client, Rc::clone(&conduct))));
    let shaken = poll_fn(|cx| {
        let result = handshake.as_mut().poll(cx).map(Result::ok);
        if result.is_pending() && worker.timers.now() >= until {
            return Poll::Ready(None);
        }
        deadline.set(until, cx);
        result
    });
    let Some(connection) = shaken.await else { return };
    let until = worker.timers.after(worker.config.timeouts.client_idle);
    let streams = JoinSet::new();
    let session = Session { worker, peer, conduct, connection, streams, deadline, until, stage: Stage::Open };
    session.run().await;
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

type Incoming = (http::Request<RecvStream>, SendResponse<Bytes>);

struct Session<'c, S: RequestSink> {
    worker: Rc<Worker<S>>,
    peer: Peer,
    conduct: Rc<Conduct>,
    connection: Connection<Socket<'c, S>, Bytes>,
    streams: JoinSet<()>,
    deadline: Deadline,
    /// How long it may go on without a stream.
    until: Tick,
    stage: Stage,
}

impl<S: RequestSink + 'static> Session<'_, S> {
    async fn run(mut self) {
        while let Some((request, respond)) = poll_fn(|cx| self.poll(cx)).await {
            let stream = serve_stream((Rc::clone(&self.worker), self.peer.clone()), request, respond);
            self.streams.spawn_local(stream);
        }
        let Self { worker, connection, mut streams, .. } = self;
        // each of them sees that its client has gone, and reports it
        drop(connection);
        while let Some(ended) = streams.join_next().await {
            note(&worker, &ended);
        }
    }

    /// The next request; `None` at the end of the connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        while let Poll::Ready(Some(ended)) = self.streams.poll_join_next(cx) {
            note(&self.worker, &ended);
        }
        loop {
            if self.worker.draining.get() && self.stage == Stage::Open {
                self.leave();
            }
            if let Poll::Ready(accepted) = pin!(self.connection.accept()).poll(cx) {
                // an error has been told to the client by GOAWAY
                let accepted = accepted.and_then(Result::ok);
                if let Some((_, respond)) = &accepted {
                    self.conduct.takes(respond.stream_id().as_u32());
                }
                return Poll::Ready(accepted);
            }
            if let Some(breach) = self.breach() {
                self.cut_off(breach);
                continue;
            }
            let now = self.worker.timers.now();
            if !self.streams.is_empty() && self.stage != Stage::CutOff {
                self.until = self.worker.timers.after(match self.stage {
                    Stage::Open => self.worker.config.timeouts.client_idle,
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
                    Stage::CutOff => return Poll::Ready(None),
                }
            }
            let head_until = if self.stage == Stage::CutOff { NEVER } else { self.conduct.head_until() };
            self.deadline.set(self.until.min(head_until), cx);
            return Poll::Pending;
        }
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

/// A panic ends its stream, and no other.
fn note<S>(worker: &Worker<S>, ended: &Result<(), tokio::task::JoinError>) {
    if ended.as_ref().is_err_and(tokio::task::JoinError::is_panic) {
        worker.counters.connection_panics.fetch_add(1, Ordering::Relaxed);
        worker.has_panicked.set(true);
    }
}

async fn serve_stream<S: RequestSink>(
    (worker, peer): (Rc<Worker<S>>, Peer),
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    let method = Method::parse(parts.method.as_str().as_bytes());
    let coding = translate::body_of(&parts.headers, &body);
    let (head, refusal) = match translate::request(&parts, coding) {
        Ok(head) => (head, None),
        Err(refusal) => (Vec::new(), Some(refusal)),
    };
    let stream = Stream::new(method, (head, coding), body, respond);
    let mut client = ClientSide::new(worker, stream, peer);
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
}
