//! One request and its answer: both directions side by side, in one poll of the connection's task.
//!
//! An early answer, a client that hangs up and a slow reader are ordinary events here. Nothing is collected:
//! what is read is written before more is read, so a slow side slows the other.

use std::io;
use std::task::{Context, Poll};

use crate::model::request::{Outcome, Protocol, Refusal, RequestKind, RequestSink, UpstreamFault};
use crate::proxy::client::ClientSide;
use crate::proxy::framing::{Coding, Framing, Transfer};
use crate::proxy::head::request::storage;
use crate::proxy::head::response::{self, Response};
use crate::proxy::head::scan::{Scan, ScanLimits};
use crate::proxy::head::write::{self, ConnectionWord, Reply};
use crate::proxy::hop::{Hop, HopProtocol, HopStream};
use crate::proxy::in_flight::InFlight;
use crate::proxy::plan::Plan;
use crate::proxy::waits::{Wait, Waits};
use crate::proxy::wire::Wire;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The answer was passed on whole, and is reported.
    Complete {
        /// Whether the client's connection may carry another request.
        reusable: bool,
    },
    /// The kept connection was closed before it carried anything: to be sent again on a fresh one.
    Resend,
    /// 101 was passed on.
    Tunnel,
    /// No answer has begun.
    Failed(UpstreamFault),
    /// The rest of the request is not valid; no answer has begun.
    Refused(Refusal),
    /// The answer stopped within.
    BrokenOff(UpstreamFault),
    /// The client left.
    ClientGone,
}

/// More interim answers than this to one request are an attack.
const MAX_INTERIM: u8 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The final head has not come.
    Head,
    Body,
    /// All of the answer is in the client's outbox.
    Whole,
    /// 101 is in the client's outbox.
    Switching,
}

/// A request on its way, and its answer back.
pub(crate) struct Exchange<'c, S: RequestSink, W: Wire> {
    client: &'c mut ClientSide<S, W>,
    plan: &'c mut Plan<S>,
    hop: Option<Hop>,
    stage: Stage,
    scan: Scan,
    body: Transfer,
    /// Whether the client's connection ends with this answer.
    closes: bool,
    hop_keeps_alive: bool,
    /// The application takes no more of the request; its answer may still come.
    is_write_broken: bool,
    is_client_done: bool,
    interim: u8,
    /// 100 (Continue) went out in the application's place.
    has_sent_continue: bool,
    waits: Waits,
    moved: bool,
}

impl<'c, S: RequestSink, W: Wire> Exchange<'c, S, W> {
    /// Ready to send what the plan holds.
    pub(crate) fn new(client: &'c mut ClientSide<S, W>, plan: &'c mut Plan<S>, hop: Hop) -> Self {
        Self {
            client,
            plan,
            hop: Some(hop),
            stage: Stage::Head,
            scan: Scan::default(),
            body: Transfer::new(Framing::Empty, Coding::Plain),
            closes: false,
            hop_keeps_alive: false,
            is_write_broken: false,
            is_client_done: false,
            interim: 0,
            has_sent_continue: false,
            waits: Waits::default(),
            moved: false,
        }
    }

    /// Moves what can be moved.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some(mut hop) = self.hop.take() else { return Poll::Ready(Ended::ClientGone) };
        self.moved = false;
        let mut ended = self.overdue();
        // each direction goes on until it waits for a socket, and neither waits for the other: one turn is enough
        if ended.is_none() {
            ended = self.poll_request(&mut hop, cx);
        }
        if ended.is_none() {
            ended = self.poll_answer(&mut hop, cx);
        }
        self.hop = Some(hop);
        if ended.is_none() {
            self.client.deadline.set(self.waits.next(), cx);
        }
        ended.map_or(Poll::Pending, Poll::Ready)
    }

    /// Gives the connection back, or to the allocator.
    pub(crate) fn settle(mut self) {
        let Some(hop) = self.take_hop() else { return };
        let sent = self.plan.body.is_done() && self.plan.out.is_flushed() && !self.is_write_broken;
        // bytes behind the answer belong to no request: such a connection is not trusted again
        if self.stage == Stage::Whole
            && self.hop_keeps_alive
            && sent
            && hop.inbox.is_empty()
            && let HopStream::Socket(socket) = hop.stream
        {
            self.client.worker.pool.put(socket, self.client.worker.timers.now());
        }
    }

    /// The application's side, for a tunnel.
    pub(crate) fn into_hop(mut self) -> Hop {
        match self.hop.take() {
            Some(hop) => hop,
            None => unreachable!("the hop is only absent within a poll"),
        }
    }

    fn take_hop(&mut self) -> Option<Hop> {
        let mut hop = self.hop.take()?;
        hop.inbox.rest();
        Some(hop)
    }

    fn overdue(&mut self) -> Option<Ended> {
        match self.waits.over(self.client.worker.timers.now())? {
            Wait::Body if self.stage == Stage::Head => Some(Ended::Refused(Refusal::BodyTimeout)),
            Wait::Body | Wait::ClientWrite => Some(Ended::ClientGone),
            Wait::HopWrite | Wait::FirstByte => Some(self.broken(UpstreamFault::Timeout)),
            Wait::Continue => {
                // the application says nothing: the client shall not wait for ever (RFC 9110, section 10.1.1)
                self.waits.end(Wait::Continue);
                (self.plan.expects_continue, self.has_sent_continue) = (false, true);
                self.client.worker.buffers.lend_outbox(&mut self.client.outbox);
                self.client.outbox.bytes().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                None
            }
        }
    }

    fn broken(&self, fault: UpstreamFault) -> Ended {
        if self.stage == Stage::Head { Ended::Failed(fault) } else { Ended::BrokenOff(fault) }
    }

    /// Client to application.
    fn poll_request(&mut self, hop: &mut Hop, cx: &mut Context<'_>) -> Option<Ended> {
        loop {
            if !self.plan.out.is_flushed() && !self.is_write_broken {
                match self.poll_send(hop, cx) {
                    Poll::Ready(Some(ended)) => return Some(ended),
                    Poll::Ready(None) => {}
                    Poll::Pending => {
                        self.rest_request();
                        return None;
                    }
                }
            }
            if self.is_write_broken || self.plan.body.is_done() {
                if self.plan.hop == HopProtocol::Http1 && !self.plan.is_replayable {
                    self.plan.out.rest(); // some of it has been sent, so that it is never sent again
                }
                return self.watch_client(cx);
            }
            self.plan.out.clear();
            self.client.worker.buffers.lend_outbox(&mut self.plan.out);
            if self.plan.body.step(&mut self.client.inbox, &mut self.plan.out, None).is_err() {
                return Some(self.bad_body(Refusal::Malformed));
            }
            let limit = self.plan.body_limit;
            if limit > 0 && self.plan.body.bytes > limit {
                return Some(self.bad_body(Refusal::BodyTooLarge));
            }
            if self.plan.out.is_flushed() && !self.plan.body.is_done() {
                match self.poll_body(cx) {
                    Poll::Ready(Some(ended)) => return Some(ended),
                    Poll::Ready(None) => {}
                    Poll::Pending => {
                        self.rest_request();
                        return None;
                    }
                }
            }
        }
    }

    fn bad_body(&self, refusal: Refusal) -> Ended {
        if self.stage == Stage::Head { Ended::Refused(refusal) } else { Ended::ClientGone }
    }

    /// Ready when all is written, or the application takes no more.
    fn poll_send(&mut self, hop: &mut Hop, cx: &mut Context<'_>) -> Poll<Option<Ended>> {
        let before = self.plan.out.written();
        let flushed = self.plan.out.poll_flush(&mut hop.stream, cx);
        self.moved |= self.plan.out.written() != before;
        let worker = &self.client.worker;
        match flushed {
            Poll::Ready(Ok(())) => {
                self.waits.end(Wait::HopWrite);
                if self.plan.expects_continue {
                    self.waits.begin(Wait::Continue, worker.timers.after(CONTINUE_LIMIT));
                }
                if self.plan.body.is_done() && self.stage == Stage::Head {
                    self.waits.begin(Wait::FirstByte, worker.timers.after(worker.timeouts.get().first_byte));
                }
                Poll::Ready(None)
            }
            // what HTTP/1.1 can say and HTTP/2 cannot, such as some targets
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Poll::Ready(Some(self.bad_body(Refusal::Malformed)))
            }
            Poll::Ready(Err(_)) if hop.is_reused && self.is_unsent() => Poll::Ready(Some(Ended::Resend)),
            Poll::Ready(Err(_)) => {
                self.is_write_broken = true;
                Poll::Ready(None)
            }
            // nothing more is read from the client meanwhile, so it is asked
            Poll::Pending if self.client.stream.poll_given_up(cx).is_ready() => Poll::Ready(Some(Ended::ClientGone)),
            Poll::Pending => {
                let worker = &self.client.worker;
                if self.moved {
                    self.waits.end(Wait::HopWrite);
                }
                self.waits.begin(Wait::HopWrite, worker.timers.after(worker.timeouts.get().write_stall));
                Poll::Pending
            }
        }
    }

    /// Nothing of the request has left: it may be sent again whatever it is.
    fn is_unsent(&self) -> bool {
        self.plan.out.is_unsent()
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Ended>> {
        let client = &mut *self.client;
        client.worker.buffers.lend_inbox(&mut client.inbox);
        match client.inbox.poll_fill(&mut client.stream, cx) {
            Poll::Ready(Ok(1..)) => {
                self.moved = true;
                self.plan.expects_continue = false;
                self.waits.end(Wait::Body);
                self.waits.end(Wait::Continue);
                Poll::Ready(None)
            }
            // a body that is cut off must not look whole: the application's connection is broken too
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Some(Ended::ClientGone)),
            Poll::Pending => {
                // a stream of gRPC may be silent for as long as its ends agree
                if !self.plan.is_grpc {
                    let timeouts = client.worker.timeouts.get();
                    self.waits.begin(Wait::Body, client.worker.timers.after(timeouts.body_idle));
                }
                Poll::Pending
            }
        }
    }

    /// The request is sent: whether the client is still there. What it sends next is kept.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Option<Ended> {
        let client = &mut *self.client;
        if self.is_client_done || (client.inbox.is_lent() && !client.inbox.has_room()) {
            return None;
        }
        if !client.inbox.is_lent() {
            match client.stream.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => client.worker.buffers.lend_inbox(&mut client.inbox),
                Poll::Ready(Err(_)) => return Some(Ended::ClientGone),
                Poll::Pending => return None,
            }
        }
        match client.inbox.poll_fill(&mut client.stream, cx) {
            // until it waits: else nobody would be told that the client has left
            Poll::Ready(Ok(1..)) => self.watch_client(cx),
            Poll::Ready(Ok(0)) if client.worker.config.half_close || self.stage == Stage::Whole => {
                (self.is_client_done, self.closes) = (true, true);
                None
            }
            Poll::Ready(Ok(0) | Err(_)) => Some(Ended::ClientGone),
            Poll::Pending => None,
        }
    }

    /// Application to client.
    fn poll_answer(&mut self, hop: &mut Hop, cx: &mut Context<'_>) -> Option<Ended> {
        loop {
            if !self.client.outbox.is_flushed() || matches!(self.stage, Stage::Whole | Stage::Switching) {
                match self.poll_deliver(cx) {
                    Poll::Ready(Some(ended)) => return Some(ended),
                    Poll::Ready(None) => {}
                    Poll::Pending => {
                        self.rest_answer(hop);
                        return None;
                    }
                }
            }
            let result = match self.stage {
                Stage::Head => self.look_for_head(hop),
                _ => self.pass_body(hop),
            };
            if let Err(fault) = result {
                return Some(self.broken(fault));
            }
            let waits_for_more = matches!(self.stage, Stage::Head | Stage::Body);
            if waits_for_more && self.client.outbox.is_flushed() {
                match self.poll_hop(hop, cx) {
                    Poll::Ready(Some(ended)) => return Some(ended),
                    Poll::Ready(None) => {}
                    Poll::Pending => {
                        // an answer that has not begun holds nothing yet
                        if hop.inbox.is_lent() || self.stage != Stage::Head {
                            self.rest_answer(hop);
                        }
                        return None;
                    }
                }
            }
        }
    }

    fn pass_body(&mut self, hop: &mut Hop) -> Result<(), UpstreamFault> {
        self.client.worker.buffers.lend_outbox(&mut self.client.outbox);
        let tap = self.plan.in_flight.as_mut().and_then(|in_flight| in_flight.facts.tap.as_mut());
        let moved = self.body.step(&mut hop.inbox, &mut self.client.outbox, tap);
        moved.map_err(|_| UpstreamFault::BadAnswer)?;
        if self.plan.is_grpc {
            self.note_stream();
        }
        if self.body.is_done() {
            self.stage = Stage::Whole;
        }
        Ok(())
    }

    /// A call of several messages takes as long as there is something to say: that is no latency.
    fn note_stream(&mut self) {
        let is_stream = self.plan.body.is_stream() || self.body.is_stream();
        if let Some(facts) = self.plan.facts().filter(|facts| is_stream && facts.kind == RequestKind::Ordinary) {
            facts.kind = RequestKind::Stream;
        }
    }

    /// Writes to the client; the last write of an answer reports the request.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Option<Ended>> {
        let is_last = self.stage == Stage::Whole;
        if is_last {
            self.note_bytes();
            self.plan.in_flight.iter().for_each(InFlight::last_write);
        }
        let before = self.client.outbox.written();
        let flushed = self.client.outbox.poll_flush(&mut self.client.stream, cx);
        self.moved |= self.client.outbox.written() != before;
        match flushed {
            Poll::Ready(Ok(())) => {
                self.waits.end(Wait::ClientWrite);
                self.client.outbox.clear();
                Poll::Ready(match self.stage {
                    Stage::Whole => {
                        self.plan.end(Outcome::Answered);
                        let reusable = !self.closes && self.plan.body.is_done();
                        Some(Ended::Complete { reusable })
                    }
                    Stage::Switching => Some(Ended::Tunnel),
                    Stage::Head | Stage::Body => None,
                })
            }
            Poll::Ready(Err(_)) => Poll::Ready(Some(Ended::ClientGone)),
            Poll::Pending => {
                if is_last {
                    self.plan.in_flight.iter().for_each(InFlight::not_yet);
                }
                if self.moved {
                    self.waits.end(Wait::ClientWrite);
                }
                let worker = &self.client.worker;
                self.waits.begin(Wait::ClientWrite, worker.timers.after(worker.timeouts.get().write_stall));
                Poll::Pending
            }
        }
    }

    fn note_bytes(&mut self) {
        let sent = self.body.bytes;
        if let Some(facts) = self.plan.facts() {
            facts.response_bytes = sent;
        }
    }

    /// Reads from the application.
    fn poll_hop(&mut self, hop: &mut Hop, cx: &mut Context<'_>) -> Poll<Option<Ended>> {
        let buffers = &self.client.worker.buffers;
        if !hop.inbox.is_lent() {
            match hop.stream.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => buffers.lend_inbox(&mut hop.inbox),
                Poll::Ready(Err(error)) => return Poll::Ready(self.hop_closed(hop, Err(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        match hop.inbox.poll_fill(&mut hop.stream, cx) {
            Poll::Ready(Ok(1..)) => {
                self.moved = true;
                Poll::Ready(None)
            }
            Poll::Ready(closed) => Poll::Ready(self.hop_closed(hop, closed)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Nothing moves to the client: only what is on its way there holds a buffer, and a request that may have to be sent again.
    fn rest_answer(&mut self, hop: &mut Hop) {
        hop.inbox.rest();
        if self.stage != Stage::Head {
            self.client.outbox.rest();
            if self.plan.body.is_done() {
                self.plan.out.rest();
            }
        }
    }

    /// Nothing moves to the application.
    fn rest_request(&mut self) {
        self.client.inbox.rest();
        self.plan.out.rest();
    }

    /// The application has closed: its answer may end so, else it is broken.
    fn hop_closed(&mut self, hop: &Hop, closed: io::Result<usize>) -> Option<Ended> {
        self.moved = true;
        if self.stage == Stage::Body && closed.is_ok() && self.body.close(&mut self.client.outbox) {
            self.stage = Stage::Whole;
            return None;
        }
        let silent = self.stage == Stage::Head && hop.inbox.is_empty() && self.interim == 0;
        if silent && hop.is_reused && (self.plan.is_replayable || self.is_unsent()) {
            return Some(Ended::Resend);
        }
        if silent && self.plan.resends == 0 && hop.is_untouched() && self.plan.out.is_kept() {
            return Some(Ended::Resend);
        }
        self.client.stream.blame(hop.reason());
        let is_invalid = closed.is_err_and(|error| error.kind() == io::ErrorKind::InvalidData);
        Some(self.broken(if is_invalid { UpstreamFault::BadAnswer } else { UpstreamFault::Broken }))
    }

    fn look_for_head(&mut self, hop: &mut Hop) -> Result<(), UpstreamFault> {
        let head_bytes = self.client.worker.config.limits.head_bytes;
        let limits = ScanLimits { line: head_bytes, head: head_bytes };
        while self.stage == Stage::Head && !hop.inbox.is_empty() {
            match self.scan.advance(hop.inbox.filled(), &limits) {
                Ok(Some(length)) => self.take_head(hop, length)?,
                Ok(None) => {
                    if !hop.inbox.has_room() {
                        hop.inbox.grow(head_bytes + 1_024);
                    }
                    return Ok(());
                }
                Err(_) => return Err(UpstreamFault::BadAnswer),
            }
        }
        if self.stage == Stage::Body { self.pass_body(hop) } else { Ok(()) }
    }

    /// Judges a whole head and writes it for the client.
    fn take_head(&mut self, hop: &mut Hop, length: usize) -> Result<(), UpstreamFault> {
        let mut room = storage();
        let bytes = &hop.inbox.filled()[..length];
        let head = response::parse(bytes, self.plan.method, &mut room).map_err(|_| UpstreamFault::BadAnswer)?;
        self.scan = Scan::default();
        self.waits.end(Wait::FirstByte);
        self.client.worker.buffers.lend_outbox(&mut self.client.outbox);
        match head.status {
            101 => self.switch(&head)?,
            100..200 => self.pass_interim(&head)?,
            _ => self.begin_answer(&head),
        }
        hop.inbox.consume(length);
        Ok(())
    }

    fn switch(&mut self, head: &Response<'_, '_>) -> Result<(), UpstreamFault> {
        // a tunnel that nobody asked for, or for another protocol, would carry requests past all checks
        let asked = self.plan.upgrade.and_then(|place| self.client.worker.config.upgrades.get(place));
        let named = head.upgrade.filter(|_| head.options.upgrade);
        if !asked.zip(named).is_some_and(|(asked, named)| asked.as_bytes().eq_ignore_ascii_case(named)) {
            return Err(UpstreamFault::BadAnswer);
        }
        self.note_head(head, RequestKind::Tunnel);
        write::response(head, self.reply(Coding::Plain, ConnectionWord::Upgrade), self.client.outbox.bytes());
        self.stage = Stage::Switching;
        Ok(())
    }

    fn pass_interim(&mut self, head: &Response<'_, '_>) -> Result<(), UpstreamFault> {
        self.interim += 1;
        if self.interim > MAX_INTERIM {
            return Err(UpstreamFault::BadAnswer);
        }
        if self.plan.body.is_done() {
            // the application works: the wait for the answer itself begins anew
            let worker = &self.client.worker;
            self.waits.begin(Wait::FirstByte, worker.timers.after(worker.timeouts.get().first_byte));
        }
        // a client of HTTP/1.0 knows no interim answers, and one that has its 100 from us needs no second
        let wanted = head.status != 100 || !self.has_sent_continue;
        if head.status == 100 {
            self.plan.expects_continue = false;
            self.waits.end(Wait::Continue);
        }
        if self.plan.protocol != Protocol::Http10 && wanted {
            write::response(head, self.reply(Coding::Plain, ConnectionWord::Silent), self.client.outbox.bytes());
        }
        Ok(())
    }

    fn begin_answer(&mut self, head: &Response<'_, '_>) {
        let is_http10 = self.plan.protocol == Protocol::Http10;
        let delimited = matches!(head.framing, Framing::Empty | Framing::Length(_));
        let coding = if delimited || is_http10 { Coding::Plain } else { Coding::Chunked };
        // an answer before the request's end: the rest is not waited for, so nothing may follow it
        let sent = self.plan.body.is_done() && !self.is_write_broken;
        let open = self.plan.keeps_alive && sent && (delimited || !is_http10) && !self.closes;
        self.closes = !open || self.client.worker.draining.get();
        let word = match (self.closes, is_http10) {
            (true, _) => ConnectionWord::Close,
            (false, true) => ConnectionWord::KeepAlive,
            (false, false) => ConnectionWord::Silent,
        };
        let kind = if head.is_event_stream { RequestKind::Stream } else { RequestKind::Ordinary };
        self.note_head(head, kind);
        write::response(head, self.reply(coding, word), self.client.outbox.bytes());
        self.body = Transfer::new(head.framing, coding);
        if self.plan.hop == HopProtocol::H2c && self.plan.is_grpc && head.is_grpc() {
            self.body.let_metadata_pass();
            self.note_stream();
        }
        self.hop_keeps_alive = head.keeps_alive();
        self.stage = if self.body.is_done() { Stage::Whole } else { Stage::Body };
        self.waits.end(Wait::Continue);
    }

    fn reply(&self, coding: Coding, connection: ConnectionWord) -> Reply {
        Reply { method: self.plan.method, coding, connection }
    }

    fn note_head(&mut self, head: &Response<'_, '_>, kind: RequestKind) {
        let Some(in_flight) = self.plan.in_flight.as_mut() else { return };
        let elapsed = in_flight.elapsed();
        let facts = &mut in_flight.facts;
        facts.status = head.status;
        facts.first_byte = Some(elapsed);
        if facts.kind == RequestKind::Ordinary {
            facts.kind = kind;
        }
        if let Some(hop) = &mut facts.hop {
            hop.status = head.status;
        }
    }
}

/// How long a client waits for 100 (Continue) from the application before it gets ours.
const CONTINUE_LIMIT: std::time::Duration = std::time::Duration::from_secs(1);

impl<S: RequestSink, W: Wire> Drop for Exchange<'_, S, W> {
    fn drop(&mut self) {
        self.note_bytes();
    }
}
