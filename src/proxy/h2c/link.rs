//! One connection to the application: opened once, used by many requests at a time, closed when nobody has used it.
//!
//! Its task moves the frames; whoever has a seat on it opens streams. Both know its state, only the task opens it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::model::request::UpstreamFault;
use crate::proxy::h2c::socket::Socket;
use crate::proxy::http2::conduct::Conduct;
use crate::proxy::stream_body::Piece;
use crate::proxy::timers::{Tick, Timers};
use crate::proxy::upstream::Upstream;

/// Requests at once on one connection, however many the application allows: more of them share the next connection.
pub(crate) const STREAMS: usize = 100;

/// What of one answer may wait for a slow client.
const STREAM_WINDOW: u32 = 32 << 10;

/// All streams together: none can take the window of another, so a client that does not read holds up nobody else.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// What of one request may wait for the connection.
const SEND_BUFFER_BYTES: usize = 32 << 10;

/// Memory for pieces of answers that nobody has read yet, where these are much smaller than what the library keeps of each: some
/// clients that do not read their streams of small messages must not end the connection for all others.
const SMALL_PIECES_BYTES: usize = 4 << 20;

/// Streams that were cancelled and whose last frames may still come.
const REMEMBERED_RESETS: usize = 1_000;

/// A connection, as everyone who has to do with it knows it.
pub(crate) struct Link {
    state: RefCell<State>,
    /// How many requests it takes at once.
    room: Cell<usize>,
    taken: Cell<usize>,
    /// Requests that wait for it to open.
    waiting: Cell<usize>,
    has_carried: Cell<bool>,
    /// When the last request left it.
    idle_since: Cell<Tick>,
    /// What the application's frames have cost and earned.
    conduct: Rc<Conduct>,
    changed: Notify,
    timers: Rc<Timers>,
}

enum State {
    Opening,
    Open(SendRequest<Piece>),
    Closed(UpstreamFault),
}

/// The task's hold on its connection: whatever ends the task, nobody goes on waiting for it.
pub(crate) struct Life(pub(crate) Rc<Link>);

/// A place on a connection, for one request.
pub(crate) struct Seat {
    link: Rc<Link>,
    sender: SendRequest<Piece>,
    /// Whether the connection has carried a request before this one.
    pub(crate) is_reused: bool,
}

impl Link {
    /// A connection that somebody is about to open, and that is expected to take so many requests.
    pub(crate) fn new(room: usize, timers: Rc<Timers>) -> Rc<Self> {
        Rc::new(Self {
            state: RefCell::new(State::Opening),
            room: Cell::new(room),
            taken: Cell::new(0),
            waiting: Cell::new(0),
            has_carried: Cell::new(false),
            idle_since: Cell::new(timers.now()),
            conduct: Rc::new(Conduct::of_application(timers.now())),
            changed: Notify::new(),
            timers,
        })
    }

    /// Waits until it is open.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub(crate) async fn opened(&self) -> Result<(), UpstreamFault> {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let changed = self.changed.notified();
            let settled = match &*self.state.borrow() {
                State::Opening => None,
                State::Open(_) => Some(Ok(())),
                State::Closed(fault) => Some(Err(*fault)),
            };
            if let Some(result) = settled {
                return result;
            }
            changed.await; // at most until the task has given up: it has deadlines
        }
    }

    /// A place on it, if it is open and has one.
    pub(crate) fn seat(self: &Rc<Self>) -> Option<Seat> {
        let State::Open(sender) = &*self.state.borrow() else { return None };
        if self.taken.get() >= self.room.get() {
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        let is_reused = self.has_carried.replace(true);
        Some(Seat { link: Rc::clone(self), sender: sender.clone(), is_reused })
    }

    /// Whether a request that comes now would find a place on it, as far as one can know.
    pub(crate) fn has_room(&self) -> bool {
        let used = match &*self.state.borrow() {
            State::Opening => self.waiting.get(),
            State::Open(_) => self.taken.get(),
            State::Closed(_) => return false,
        };
        used < self.room.get()
    }

    /// Whether it is of no more use: closed, told by GOAWAY, or unused since before this tick.
    pub(crate) fn is_over(&self, idle_before: Tick) -> bool {
        match &mut *self.state.borrow_mut() {
            State::Opening => false,
            State::Closed(_) => true,
            State::Open(sender) => {
                let ready = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
                let is_idle = self.taken.get() == 0 && self.idle_since.get() < idle_before;
                is_idle || matches!(ready, Poll::Ready(Err(_)))
            }
        }
    }

    /// How many requests it takes at once.
    pub(crate) fn room(&self) -> usize {
        self.room.get()
    }

    /// Takes no more requests. The connection ends, by GOAWAY, behind those that are under way.
    pub(crate) fn leave(&self) {
        self.close(UpstreamFault::Broken);
    }

    fn close(&self, fault: UpstreamFault) {
        let mut state = self.state.borrow_mut();
        if !matches!(*state, State::Closed(_)) {
            *state = State::Closed(fault);
            self.changed.notify_waiters();
        }
    }

    /// What the application allows now.
    fn note(&self, allowed: usize) {
        self.room.set(allowed.min(STREAMS));
    }
}

impl Life {
    /// Opens the connection and moves its frames to its end.
    pub(crate) async fn live(self, upstream: &Upstream, limits: LinkLimits, opened: impl FnOnce()) {
        let Self(link) = &self;
        let connection = async {
            let stream = upstream.connect().await?;
            opened();
            let limit = upstream.connect_limit();
            tokio::time::timeout(limit, link.shake(stream, limits)).await.unwrap_or(Err(UpstreamFault::ConnectTimeout))
        };
        match connection.await {
            Ok(mut connection) => {
                poll_fn(|cx| {
                    let ended = pin!(&mut connection).poll(cx);
                    link.note(connection.max_concurrent_send_streams());
                    // one that floods and does not read either would never come to its end
                    if link.conduct.is_flooding() { Poll::Ready(()) } else { ended.map(drop) } // its streams are told why
                })
                .await;
            }
            Err(fault) => link.close(fault),
        }
    }
}

/// The largest header section of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkLimits {
    pub(crate) head_bytes: usize,
}

impl Link {
    /// Exchanges prefaces: nothing is asked before it is known how much the application allows.
    async fn shake(&self, stream: TcpStream, limits: LinkLimits) -> Result<Connection<Socket, Piece>, UpstreamFault> {
        let socket = Socket::new(stream, Rc::clone(&self.conduct), Rc::clone(&self.timers));
        let (sender, mut connection) = settings(limits).handshake(socket).await.map_err(|error| fault_of(&error))?;
        let shaken = poll_fn(|cx| match pin!(&mut connection).poll(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Err(UpstreamFault::Broken)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(fault_of(&error))),
            Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        });
        shaken.await?;
        self.note(connection.max_concurrent_send_streams());
        *self.state.borrow_mut() = State::Open(sender);
        self.idle_since.set(self.timers.now());
        self.changed.notify_waiters();
        Ok(connection)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.0.close(UpstreamFault::Broken);
    }
}

impl Seat {
    /// Sends a request's head.
    ///
    /// # Errors
    /// The connection has just gone, and nothing was sent.
    pub(crate) fn ask(
        &mut self,
        request: http::Request<()>,
        is_whole: End,
    ) -> Result<(ResponseFuture, SendStream<Piece>), h2::Error> {
        self.sender.send_request(request, is_whole == End::Here)
    }
}

/// Whether a head is all of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is.
    Here,
    /// A body follows.
    Later,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.link.taken.set(self.link.taken.get() - 1);
        self.link.idle_since.set(self.link.timers.now());
    }
}

/// Counts who waits, for as long as it waits.
struct Waiting<'l>(&'l Cell<usize>);

impl<'l> Waiting<'l> {
    fn new(count: &'l Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn settings(limits: LinkLimits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(0)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .data_frame_budget(SMALL_PIECES_BYTES)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        // it counts over the life of a connection, and what comes behind a cancellation too: on one that lives for weeks, clients
        // that cancel would add up to an attack. What the application makes us reset is paid from its credit instead
        .max_local_error_reset_streams(None);
    builder
}

/// What an end before the application's preface means.
fn fault_of(error: &h2::Error) -> UpstreamFault {
    let is_another_language = error.is_library() || error.reason().is_some_and(|reason| reason != Reason::NO_ERROR);
    if is_another_language { UpstreamFault::NotHttp2 } else { UpstreamFault::Broken }
}
