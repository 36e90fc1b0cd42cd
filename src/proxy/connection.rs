//! Requests of a client's connection, one after the other: a head is waited for, the request is served.
//!
//! What carries the connection is no concern of it: a socket, or one stream of HTTP/2.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::model::request::{Client, CutOff, Method, Outcome, Protocol, Refusal, RequestSink, UpstreamFault};
use crate::proxy::answer::{After, Answer};
use crate::proxy::client::ClientSide;
use crate::proxy::exchange::{Ended, Exchange};
use crate::proxy::grpc;
use crate::proxy::h2c::stream::Stream;
use crate::proxy::head::fields::is_token;
use crate::proxy::head::scan::{Scan, ScanFault, ScanLimits};
use crate::proxy::hop::{Hop, HopProtocol};
use crate::proxy::in_flight::{Counting, Facts, HopFacts, InFlight};
use crate::proxy::plan::{Plan, plan};
use crate::proxy::timers::Tick;
use crate::proxy::tunnel::Tunnel;
use crate::proxy::wire::Wire;

/// What follows a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another request may come.
    Request,
    /// The end.
    Close,
    /// Closed in two steps: bytes that still come in must not make the kernel throw our answer away.
    Linger,
    /// Reset: the client must see that the answer is not whole.
    Break,
}

/// How long and how much is read after an answer that ends the connection.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 256 << 10);

/// How fast that is read of who was told to calm down, in bytes each tick: who goes on sending waits with us.
const CALM_PACE: usize = 4 << 10;

/// How fast a client's last bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As they come.
    Swift,
    /// A little at a time: it has broken the rules, and closed at once it would be back at once.
    Calm,
}

/// How long an idle connection may bring one more request when the process drains.
pub(crate) const DRAIN_LINGER: Duration = Duration::from_secs(1);

/// A head that is being waited for.
#[derive(Debug, Default)]
struct HeadWait {
    scan: Scan,
    until: Option<Tick>,
    begun: bool,
    drains: bool,
    skipped_blank: bool,
}

impl<S: RequestSink, W: Wire> ClientSide<S, W> {
    /// The length of the next head; `None` when the client is done.
    pub(crate) async fn next_head(&mut self) -> Result<Option<usize>, Refusal> {
        let mut wait = HeadWait::default();
        poll_fn(|cx| self.poll_head(&mut wait, cx)).await
    }

    fn poll_head(&mut self, wait: &mut HeadWait, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, Refusal>> {
        loop {
            if !self.inbox.is_empty() {
                if let Some(result) = self.look_for_head(wait) {
                    return Poll::Ready(result);
                }
                if !self.inbox.has_room() {
                    self.inbox.grow(self.worker.config.limits.head_bytes + 1_024);
                }
            } else if !self.inbox.is_lent() {
                match self.stream.poll_read_ready(cx) {
                    Poll::Ready(Ok(())) => self.worker.buffers.lend_inbox(&mut self.inbox),
                    Poll::Ready(Err(_)) => return Poll::Ready(Ok(None)),
                    Poll::Pending => return self.poll_head_deadline(wait, cx),
                }
            }
            match self.inbox.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(1..)) => {}
                // the head is not whole: such a connection is no request
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(None)),
                Poll::Pending => {
                    self.inbox.rest();
                    return self.poll_head_deadline(wait, cx);
                }
            }
        }
    }

    fn look_for_head(&mut self, wait: &mut HeadWait) -> Option<Result<Option<usize>, Refusal>> {
        if !wait.skipped_blank {
            match self.inbox.filled() {
                [b'\r'] => return None,
                [b'\r', b'\n', ..] => self.inbox.consume(2), // one is tolerated: RFC 9112, section 2.2
                _ => {}
            }
            wait.skipped_blank = true;
            if self.inbox.is_empty() {
                return None; // behind a body some clients send an empty line: it begins no head
            }
        }
        if !wait.begun {
            (wait.begun, wait.until) = (true, None);
        }
        let limits = &self.worker.config.limits;
        let limits = ScanLimits { line: limits.request_line_bytes, head: limits.head_bytes };
        match wait.scan.advance(self.inbox.filled(), &limits) {
            Ok(Some(length)) => Some(Ok(Some(length))),
            Err(fault) => Some(Err(match fault {
                ScanFault::Malformed => Refusal::Malformed,
                ScanFault::Line => Refusal::TargetTooLong,
                ScanFault::Head => Refusal::HeadTooLarge,
            })),
            // what cannot become a request is not waited for, such as a TLS handshake
            Ok(None) => self.inbox.filled().first().filter(|first| !is_token(**first)).map(|_| Err(Refusal::Malformed)),
        }
    }

    fn poll_head_deadline(
        &mut self,
        wait: &mut HeadWait,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<usize>, Refusal>> {
        let (timers, timeouts) = (&self.worker.timers, self.worker.timeouts.get());
        if self.worker.draining.get() && !wait.begun && !wait.drains {
            (wait.drains, wait.until) = (true, Some(timers.after(DRAIN_LINGER)));
        }
        let limit = if wait.begun { timeouts.header } else { timeouts.client_idle };
        let until = *wait.until.get_or_insert_with(|| timers.after(limit));
        if timers.now() >= until {
            return Poll::Ready(if wait.begun { Err(Refusal::HeaderTimeout) } else { Ok(None) });
        }
        self.deadline.set(until, cx);
        Poll::Pending
    }

    /// Serves the request whose head has this length.
    pub(crate) async fn request(&mut self, length: usize) -> Next {
        let mut plan = match plan(&self.worker, &self.peer, (&mut self.inbox, length), W::CARRIES) {
            Ok(plan) => plan,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let next = self.forward(&mut plan).await;
        self.outbox.give_back();
        self.inbox.rest();
        next
    }

    async fn forward(&mut self, plan: &mut Plan<S>) -> Next {
        if plan.is_last_hop {
            return self.answer(plan, &Answer::last_hop(), Outcome::Answered).await;
        }
        // what is here of the body goes with the head; if it is broken, the application sees nothing
        if plan.body.step(&mut self.inbox, &mut plan.out, None).is_err() {
            return self.refuse_planned(plan, Refusal::Malformed).await;
        }
        if self.inbox.is_empty() && plan.body.is_done() {
            self.inbox.give_back();
        }
        if self.is_given_up() {
            return self.after(plan, Ended::ClientGone).await;
        }
        loop {
            // the first attempt begins with the request: the clock is not asked again
            let again = plan.in_flight.as_ref().filter(|_| plan.resends > 0);
            let offset = again.map(InFlight::elapsed).unwrap_or_default();
            let resends = plan.resends;
            if let Some(facts) = plan.facts() {
                facts.hop = Some(HopFacts { offset, duration: None, status: 0, resends });
            }
            let pooled = if resends == 0 && plan.hop == HopProtocol::Http1 {
                self.worker.pool.take(self.worker.timers.now())
            } else {
                None
            };
            let hop = match pooled {
                Some(stream) => Hop::kept(stream),
                None => match self.connect((plan.hop, plan.resends)).await {
                    Ok(hop) => hop,
                    Err(fault) => return self.fail(plan, fault).await,
                },
            };
            let mut exchange = Exchange::new(self, plan, hop);
            let ended = poll_fn(|cx| exchange.poll(cx)).await;
            match ended {
                Ended::Resend => {
                    drop(exchange);
                    plan.resends += 1;
                    self.worker.counters.resends.fetch_add(1, Ordering::Relaxed);
                    plan.out.rewind();
                }
                Ended::Tunnel => {
                    let hop = exchange.into_hop();
                    return self.tunnel(plan, hop).await;
                }
                ended => {
                    exchange.settle();
                    return self.after(plan, ended).await;
                }
            }
        }
    }

    /// A stream may be over before it is looked at, given up by its client or reset because of it (CVE-2025-8671): its way to the
    /// application would be for nothing.
    fn is_given_up(&mut self) -> bool {
        self.stream.poll_given_up(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    async fn connect(&self, (speaks, resends): (HopProtocol, u8)) -> Result<Hop, UpstreamFault> {
        if speaks == HopProtocol::H2c {
            // on the heap: a connection of HTTP/1.1 shall not hold room for it
            let seat = Box::pin(self.worker.links.seat()).await?;
            let stream = Stream::new(seat, Rc::clone(&self.worker.upstream), self.worker.buffers.clone());
            return Ok(if resends == 0 { Hop::stream(stream) } else { Hop::last_stream(stream) });
        }
        let stream = self.worker.upstream.connect().await?;
        self.worker.counters.upstream_connections.fetch_add(1, Ordering::Relaxed);
        Ok(Hop::fresh(stream))
    }

    async fn after(&mut self, plan: &mut Plan<S>, ended: Ended) -> Next {
        match ended {
            Ended::Complete { reusable: true } => Next::Request,
            Ended::Complete { reusable: false } => Next::Linger,
            Ended::Failed(fault) => self.fail(plan, fault).await,
            Ended::Refused(refusal) => self.refuse_planned(plan, refusal).await,
            Ended::BrokenOff(fault) => {
                plan.end(Outcome::Failed(fault));
                Next::Break
            }
            Ended::ClientGone | Ended::Resend | Ended::Tunnel => {
                plan.end(Outcome::ClientGone);
                Next::Close
            }
        }
    }

    async fn tunnel(&mut self, plan: &mut Plan<S>, hop: Hop) -> Next {
        let protocol = plan.upgrade.and_then(|place| self.worker.config.upgrades.get(place));
        let is_websocket = protocol.is_some_and(|protocol| protocol == "websocket");
        let mut tunnel = if is_websocket { Tunnel::of_frames(self, hop) } else { Tunnel::new(self, hop) };
        poll_fn(|cx| tunnel.poll(cx)).await;
        let settled = tunnel.settle();
        if let Some(facts) = plan.facts() {
            facts.response_bytes = settled.sent;
        }
        plan.body.bytes = settled.received;
        plan.end(if settled.was_told_to_go { Outcome::CutOff(CutOff::Shutdown) } else { Outcome::Answered });
        if settled.client_goes_on { Next::Linger } else { Next::Close }
    }

    /// Answers in the application's place.
    async fn fail(&mut self, plan: &mut Plan<S>, fault: UpstreamFault) -> Next {
        self.answer(plan, &Answer::fault(fault, plan.method), Outcome::Failed(fault)).await
    }

    async fn refuse_planned(&mut self, plan: &mut Plan<S>, refusal: Refusal) -> Next {
        plan.keeps_alive = false;
        self.worker.counters.refuse(refusal);
        self.answer(plan, &Answer::refusal(refusal), Outcome::Refused(refusal)).await
    }

    async fn answer(&mut self, plan: &mut Plan<S>, answer: &Answer, outcome: Outcome) -> Next {
        let whole = plan.body.is_done() && plan.keeps_alive && !self.worker.draining.get();
        // HTTP/1.0 would need more words to keep the connection, for an error that is not worth them
        let keeps = whole && plan.protocol != Protocol::Http10;
        let after = if keeps { After::KeepAlive } else { After::Close };
        let (method, received) = (plan.method, plan.body.bytes);
        let Some(mut in_flight) = plan.in_flight.take() else { return Next::Close };
        in_flight.facts.request_bytes = received;
        let answer = if plan.is_grpc { answer.in_grpc() } else { *answer };
        self.write_answer(in_flight, (method, &answer, after), outcome).await
    }

    /// Refuses what never became a request of the application.
    pub(crate) async fn refuse(&mut self, refusal: Refusal) -> Next {
        self.worker.counters.refuse(refusal);
        let address = self.peer.address;
        let mut facts = Facts::unknown(Client { peer: address, address: address.ip() });
        facts.protocol = W::CARRIES.unwrap_or(facts.protocol);
        let in_flight = InFlight::begin(&self.worker, facts, Counting::Counted);
        let mut answer = Answer::refusal(refusal);
        if W::CARRIES == Some(Protocol::Http2) && grpc::is_head(self.inbox.filled()) {
            answer = answer.in_grpc();
        }
        // not understood, but no answer to HEAD has a body (RFC 9110, section 9.3.2)
        let is_head = self.inbox.filled().starts_with(b"HEAD ");
        let method = if is_head { Method::Head } else { Method::Other };
        self.write_answer(in_flight, (method, &answer, After::Close), Outcome::Refused(refusal)).await
    }

    async fn write_answer(
        &mut self,
        mut in_flight: InFlight<S>,
        (method, answer, after): (Method, &Answer, After),
        outcome: Outcome,
    ) -> Next {
        self.worker.buffers.lend_head(&mut self.outbox);
        in_flight.facts.response_bytes = answer.write(method, after, self.outbox.bytes());
        in_flight.facts.status = answer.status;
        let until = self.worker.timers.after(self.worker.timeouts.get().write_stall);
        let written = poll_fn(|cx| {
            in_flight.last_write();
            let flushed = self.outbox.poll_flush(&mut self.stream, cx);
            if flushed.is_pending() {
                in_flight.not_yet();
                if self.worker.timers.now() >= until {
                    return Poll::Ready(false);
                }
                self.deadline.set(until, cx);
            }
            flushed.map(|result| result.is_ok())
        })
        .await;
        in_flight.end(if written { outcome } else { Outcome::ClientGone });
        self.outbox.clear();
        match (written, after) {
            (false, _) => Next::Close,
            (true, After::KeepAlive) => Next::Request,
            (true, After::Close) => Next::Linger,
        }
    }

    /// Ends our side and reads on for a moment, so that the client gets to read the answer.
    pub(crate) async fn linger(mut self, pace: Pace) {
        // who has been told to go and floods on would see the end, and come again at once
        if pace == Pace::Swift && self.stream.shutdown().await.is_err() {
            return;
        }
        self.inbox.give_back();
        let limit = if pace == Pace::Calm { LINGER.0 / 2 } else { LINGER.0 };
        let (begun, until) = (self.worker.timers.now(), self.worker.timers.after(limit));
        let mut read = 0;
        poll_fn(|cx| {
            while read < LINGER.1 {
                let now = self.worker.timers.now();
                if pace == Pace::Calm && now < until && read > CALM_PACE * usize::try_from(now - begun).unwrap_or(0) {
                    self.deadline.set(now + 1, cx);
                    return Poll::Pending;
                }
                self.worker.buffers.lend_inbox(&mut self.inbox);
                let filled = self.inbox.poll_fill(&mut self.stream, cx);
                let count = self.inbox.filled().len();
                self.inbox.give_back();
                match filled {
                    Poll::Ready(Ok(1..)) => read += count,
                    Poll::Ready(Ok(0) | Err(_)) => break,
                    Poll::Pending if self.worker.timers.now() >= until => break,
                    Poll::Pending => {
                        self.deadline.set(until, cx);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}
