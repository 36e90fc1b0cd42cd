//! A request between its head and the last byte of its answer.
//!
//! Lives in the connection's task: its end, an error, a panic and a client that hung up all arrive in `drop`.
//! That is why there is no way to forget the report, and none to make it twice.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::request::{
    Client, CutOff, Hop, Method, Outcome, Protocol, RecordTrace, RequestHead, RequestKind, RequestRecord, RequestSink,
};
use crate::model::route::{Route, RouteId};
use crate::proxy::framing::Tap;
use crate::proxy::head::request::Request;
use crate::proxy::ids::TraceContext;
use crate::proxy::worker::Worker;

/// The request, as far as it has come.
pub(crate) struct InFlight<S: RequestSink> {
    worker: Rc<Worker<S>>,
    /// What is told at the end; boxed, because the request is handed on and these are many bytes.
    pub(crate) facts: Box<Facts>,
    /// False for what the sidecar itself asks: it passes, and is not the application's traffic.
    counted: bool,
    started: Instant,
}

/// What a record is made of.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) method: Method,
    pub(crate) protocol: Protocol,
    pub(crate) client: Client,
    pub(crate) kind: RequestKind,
    pub(crate) route: Option<RouteId>,
    pub(crate) status: u16,
    /// Cut off by a panic until it is known: a task that is dropped before was broken off, and the worker knows why.
    pub(crate) outcome: Outcome,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) hop: Option<HopFacts>,
    pub(crate) tap: Option<Tap>,
    /// The bytes of the head that the record shows: the buffer that held them is in use for the body.
    pub(crate) kept: Kept,
}

/// The exchange with the application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HopFacts {
    pub(crate) offset: Duration,
    pub(crate) duration: Option<Duration>,
    pub(crate) status: u16,
    pub(crate) resends: u8,
}

/// Copies of parts of the head, in one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    method: usize,
    target: usize,
    user_agent: Option<usize>,
}

impl Kept {
    /// Copies what the record shows of a head into `bytes`, whose memory is used again.
    pub(crate) fn of(request: &Request<'_, '_>, tracestate: &[u8], mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        let (slash, agent) = (request.missing_slash(), request.user_agent.unwrap_or_default());
        for part in [request.method_text, slash, request.target, agent, tracestate] {
            bytes.extend_from_slice(part);
        }
        Self {
            bytes,
            method: request.method_text.len(),
            target: slash.len() + request.target.len(),
            user_agent: request.user_agent.map(<[u8]>::len),
        }
    }

    fn parts(&self) -> Parts<'_> {
        let (method, rest) = self.bytes.split_at(self.method);
        let (target, rest) = rest.split_at(self.target);
        let (user_agent, tracestate) = rest.split_at(self.user_agent.unwrap_or(0));
        Parts { method, target, user_agent: self.user_agent.map(|_| user_agent), tracestate }
    }
}

/// The copies, apart.
struct Parts<'k> {
    method: &'k [u8],
    target: &'k [u8],
    user_agent: Option<&'k [u8]>,
    tracestate: &'k [u8],
}

impl Facts {
    /// What is known of a request that was refused before it was understood.
    pub(crate) fn unknown(client: Client) -> Box<Self> {
        Box::new(Self {
            method: Method::Other,
            protocol: Protocol::Http11,
            client,
            kind: RequestKind::Ordinary,
            route: None,
            status: 0,
            outcome: Outcome::CutOff(CutOff::Panic),
            first_byte: None,
            request_bytes: 0,
            response_bytes: 0,
            trace: None,
            hop: None,
            tap: None,
            kept: Kept::default(),
        })
    }
}

/// Whether a request is the application's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    /// It is.
    Counted,
    /// The sidecar asked it itself.
    Own,
}

impl<S: RequestSink> InFlight<S> {
    /// Begins: from now on the request counts.
    pub(crate) fn begin(worker: &Rc<Worker<S>>, facts: Box<Facts>, counting: Counting) -> Self {
        let counted = counting == Counting::Counted;
        let method = facts.method;
        worker.in_flight.set(worker.in_flight.get() + 1);
        let this = Self { worker: Rc::clone(worker), facts, counted, started: Instant::now() };
        this.tell(|sink| sink.begin(&RequestHead { method }));
        this
    }

    /// When it began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The next write may be the last: see the sink.
    pub(crate) fn last_write(&self) {
        self.tell(RequestSink::last_write);
    }

    /// It was not.
    pub(crate) fn not_yet(&self) {
        self.tell(RequestSink::not_yet);
    }

    /// Ends with this outcome.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.facts.outcome = outcome;
    }

    fn tell(&self, call: impl FnOnce(&mut S)) {
        if self.counted {
            self.worker.tell(call);
        }
    }

    fn record<'a>(&'a self, template: Option<&'a str>, duration: Duration) -> RequestRecord<'a> {
        let facts = &self.facts;
        let Parts { method: method_text, target, user_agent, tracestate } = facts.kept.parts();
        let route = facts.route.zip(template).map(|(id, template)| Route { id, template });
        let silent = facts.kind == RequestKind::Probe || matches!(facts.outcome, Outcome::Refused(_));
        RequestRecord {
            method: facts.method,
            method_text,
            target,
            route,
            kind: facts.kind,
            protocol: facts.protocol,
            status: facts.status,
            outcome: facts.outcome,
            started_unix_nanos: self.worker.clock.unix_nanos(self.started),
            duration,
            first_byte: facts.first_byte,
            request_body_bytes: facts.request_bytes,
            response_body_bytes: facts.response_bytes,
            trace: facts.trace.as_ref().filter(|_| !silent).map(|trace| RecordTrace {
                trace_id: trace.trace_id,
                span_id: trace.span_id,
                parent: trace.parent,
                sampled: trace.sampled,
                tracestate,
                kept: Cell::new(false),
            }),
            hop: facts.hop.map(|hop| Hop {
                span_id: facts.trace.as_ref().and_then(|trace| trace.client_span_id),
                offset: hop.offset,
                duration: hop.duration.unwrap_or_else(|| duration.saturating_sub(hop.offset)),
                status: hop.status,
                resends: hop.resends,
            }),
            client: facts.client,
            user_agent,
            tapped: facts.tap.as_ref().map(|tap| tap.copy.as_slice()),
        }
    }
}

impl<S: RequestSink> Drop for InFlight<S> {
    fn drop(&mut self) {
        self.worker.in_flight.set(self.worker.in_flight.get() - 1);
        if self.facts.outcome == Outcome::CutOff(CutOff::Panic) {
            self.facts.outcome = Outcome::CutOff(self.worker.cuts_off_by.get());
        }
        if self.counted {
            let duration = self.started.elapsed();
            let routes = self.worker.routes();
            let template = self.facts.route.and_then(|id| routes.template(id));
            let record = self.record(template, duration);
            self.worker.tell(|sink| sink.end(&record));
        }
        self.worker.keep(std::mem::take(&mut self.facts.kept.bytes));
    }
}
