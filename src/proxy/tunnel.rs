//! An upgraded connection: raw bytes both ways, after 101 and not before.
//!
//! One side that closes is passed on as such; the other may go on. The client of a WebSocket is told when the process ends,
//! by a close frame between two of the application's.

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::model::request::RequestSink;
use crate::proxy::buffers::{Buffers, Inbox};
use crate::proxy::client::ClientSide;
use crate::proxy::frames::Frames;
use crate::proxy::hop::Hop;
use crate::proxy::timers::{FAR, NEVER, Tick};
use crate::proxy::wire::Wire;

/// Two streams of bytes.
pub(crate) struct Tunnel<'c, S: RequestSink, W: Wire> {
    client: &'c mut ClientSide<S, W>,
    hop: Hop,
    up: Flow,
    down: Flow,
    /// Set while one side has closed: the other then has to go on or to close.
    half_closed_until: Tick,
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    bytes: u64,
    state: FlowState,
    /// Whether the receiver refused a part of it.
    is_refused: bool,
    /// What it is made of, where that is known: the frames of a WebSocket.
    frames: Option<Frames>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FlowState {
    #[default]
    Open,
    /// The sender has closed; what is left is still to be written.
    Ending,
    Closed,
}

impl<'c, S: RequestSink, W: Wire> Tunnel<'c, S, W> {
    /// A tunnel; bytes that have already come are part of it.
    pub(crate) fn new(client: &'c mut ClientSide<S, W>, hop: Hop) -> Self {
        Self { client, hop, up: Flow::default(), down: Flow::default(), half_closed_until: NEVER }
    }

    /// One whose bytes are the frames of a WebSocket.
    pub(crate) fn of_frames(client: &'c mut ClientSide<S, W>, hop: Hop) -> Self {
        let mut tunnel = Self::new(client, hop);
        tunnel.down.frames = Some(Frames::default());
        tunnel
    }

    /// Ready when both sides have closed, or one has broken.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let client = &mut *self.client;
        let worker = &client.worker;
        let before = self.up.bytes + self.down.bytes;
        let mut leaves_at = NEVER;
        if let Some(frames) = &mut self.down.frames {
            // far away until the process drains, which wakes whoever has a deadline
            leaves_at = worker.leaves_at.get().min(FAR);
            if worker.timers.now() >= leaves_at {
                frames.leave();
                leaves_at = NEVER;
            }
        }
        let up = self.up.poll(&worker.buffers, (&mut client.stream, &mut client.inbox), &mut self.hop.stream, cx);
        let down = self.down.poll(&worker.buffers, (&mut self.hop.stream, &mut self.hop.inbox), &mut client.stream, cx);
        let (Ok(up), Ok(down)) = (up, down) else { return Poll::Ready(()) };
        if up == FlowState::Closed && down == FlowState::Closed {
            return Poll::Ready(());
        }
        if up == FlowState::Closed || down == FlowState::Closed {
            let moved = before != self.up.bytes + self.down.bytes;
            if moved || self.half_closed_until == NEVER {
                self.half_closed_until = worker.timers.after(worker.timeouts.get().client_idle);
            }
            if worker.timers.now() >= self.half_closed_until {
                return Poll::Ready(());
            }
        }
        client.deadline.set(self.half_closed_until.min(leaves_at), cx);
        Poll::Pending
    }

    /// Ends both.
    pub(crate) fn settle(mut self) -> Settled {
        self.hop.inbox.give_back();
        let Self { up, down, .. } = self;
        Settled {
            received: up.bytes,
            sent: down.bytes,
            client_goes_on: up.is_refused && !down.is_refused,
            was_told_to_go: down.frames.is_some_and(|frames| frames.has_left()),
        }
    }
}

/// What a tunnel has carried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    /// Bytes from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
    /// The application took no more while the client was sending: to close at once would take its last words away.
    pub(crate) client_goes_on: bool,
    /// The process ends, and the client knows.
    pub(crate) was_told_to_go: bool,
}

/// One side has broken: the tunnel ends.
struct Broken;

impl Flow {
    fn poll(
        &mut self,
        buffers: &Buffers,
        (from, inbox): (&mut impl Wire, &mut Inbox),
        to: &mut impl Wire,
        cx: &mut Context<'_>,
    ) -> Result<FlowState, Broken> {
        while self.state != FlowState::Closed {
            if let Some(frames) = &mut self.frames
                && self.state == FlowState::Open
                && let Some(farewell) = frames.farewell()
            {
                if farewell.is_empty() {
                    // behind a close frame there is nothing: what the application still says is not passed on
                    inbox.consume(inbox.filled().len());
                    self.state = FlowState::Ending;
                    continue;
                }
                match Pin::new(&mut *to).poll_write(cx, farewell) {
                    Poll::Ready(Ok(count @ 1..)) => {
                        self.bytes += count as u64;
                        frames.said(count);
                    }
                    Poll::Ready(_) => self.refused(inbox),
                    Poll::Pending => break,
                }
            } else if !inbox.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, inbox.filled()) {
                    Poll::Ready(Ok(count @ 1..)) => {
                        self.bytes += count as u64;
                        if let Some(frames) = &mut self.frames {
                            frames.advance(&inbox.filled()[..count]);
                        }
                        inbox.consume(count);
                    }
                    Poll::Ready(_) => self.refused(inbox),
                    Poll::Pending => break,
                }
            } else if self.state == FlowState::Ending {
                match Pin::new(&mut *to).poll_shutdown(cx) {
                    Poll::Ready(_) => self.state = FlowState::Closed,
                    Poll::Pending => break,
                }
            } else if !self.poll_read(buffers, (&mut *from, &mut *inbox), cx)? {
                break;
            }
        }
        Ok(self.state)
    }

    /// The receiver takes no more. What it said last may still be on its way, so the other direction goes on.
    fn refused(&mut self, inbox: &mut Inbox) {
        self.state = FlowState::Closed;
        self.is_refused = true;
        inbox.consume(inbox.filled().len());
    }

    /// Whether something came, be it the end.
    fn poll_read(
        &mut self,
        buffers: &Buffers,
        (from, inbox): (&mut impl Wire, &mut Inbox),
        cx: &mut Context<'_>,
    ) -> Result<bool, Broken> {
        if !inbox.is_lent() {
            match from.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => buffers.lend_inbox(inbox),
                Poll::Ready(Err(_)) => return Err(Broken),
                Poll::Pending => return Ok(false),
            }
        }
        match inbox.poll_fill(from, cx) {
            Poll::Ready(Ok(0)) => self.state = FlowState::Ending,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return Err(Broken),
            Poll::Pending => {
                inbox.give_back(); // an idle tunnel owns no buffer
                return Ok(false);
            }
        }
        Ok(true)
    }
}
