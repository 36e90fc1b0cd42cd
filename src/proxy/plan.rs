//! From a head to what is to be done: the request that goes on, with its context, and the record it will leave.

use std::borrow::Cow;
use std::rc::Rc;

use crate::model::request::{Method, Outcome, Protocol, Refusal, RequestKind, RequestSink};
use crate::model::trace::SpanModel;
use crate::proxy::buffers::{Inbox, Outbox};
use crate::proxy::config::UpstreamProtocol;
use crate::proxy::forwarded::Peer;
use crate::proxy::framing::{Coding, Framing, Tap, Transfer};
use crate::proxy::head::fields::Field;
use crate::proxy::head::request::{Request, parse, storage};
use crate::proxy::head::write::{self, Additions};
use crate::proxy::hop::HopProtocol;
use crate::proxy::ids::{Caller, TraceContext};
use crate::proxy::in_flight::{Counting, Facts, InFlight, Kept};
use crate::proxy::worker::Worker;

/// A request that is being served.
pub(crate) struct Plan<S: RequestSink> {
    /// Taken where the request ends; the report is made at that moment.
    pub(crate) in_flight: Option<InFlight<S>>,
    pub(crate) method: Method,
    pub(crate) protocol: Protocol,
    /// The body, on its way to the application.
    pub(crate) body: Transfer,
    /// What is to be written to the application. Without a body it stays until an answer begins, for a resend.
    pub(crate) out: Outbox,
    pub(crate) keeps_alive: bool,
    /// The protocol that 101 may change to: a place in `config.upgrades`.
    pub(crate) upgrade: Option<usize>,
    pub(crate) expects_continue: bool,
    /// Whether it may be sent again although the application may have seen it.
    pub(crate) is_replayable: bool,
    /// An OPTIONS request whose last hop is here.
    pub(crate) is_last_hop: bool,
    /// Whether the client speaks gRPC, and reads its status behind or instead of an answer.
    pub(crate) is_grpc: bool,
    pub(crate) hop: HopProtocol,
    /// How often it was sent again.
    pub(crate) resends: u8,
    /// How long its body may be; 0 is without limit.
    pub(crate) body_limit: u64,
}

impl<S: RequestSink> Plan<S> {
    /// What is known of the request; absent only behind its end.
    pub(crate) fn facts(&mut self) -> Option<&mut Facts> {
        self.in_flight.as_mut().map(|in_flight| &mut *in_flight.facts)
    }

    /// Ends the request: reported at once.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        let bytes = self.body.bytes;
        if let Some(mut in_flight) = self.in_flight.take() {
            in_flight.facts.request_bytes = bytes;
            in_flight.end(outcome);
        }
    }
}

/// Judges the head of this length at the front of the inbox, and consumes it.
///
/// `carried` is the client's protocol where the head only translates it.
///
/// # Errors
/// The reason to refuse it; nothing is consumed then, and nothing counted.
pub(crate) fn plan<S: RequestSink>(
    worker: &Rc<Worker<S>>,
    peer: &Peer,
    (inbox, length): (&mut Inbox, usize),
    carried: Option<Protocol>,
) -> Result<Plan<S>, Refusal> {
    let mut room = storage();
    let mut request = parse(&inbox.filled()[..length], &mut room)?;
    if let Some(protocol) = carried {
        request.protocol = protocol;
    }
    check(worker, &request)?;
    let mut out = Outbox::default();
    match request.framing {
        Framing::Empty => worker.buffers.lend_head(&mut out),
        _ => worker.buffers.lend_outbox(&mut out),
    }
    let counting = counting_of(peer, &request);
    let facts = facts_of(worker, peer, &request, counting);
    let upgrade = request.upgrade.and_then(|name| allowed_upgrade(worker, name));
    let tracestate = tracestate_of(&request, facts.trace.as_ref());
    let additions = Additions {
        config: &worker.config,
        upstream: worker.upstream.text.as_bytes(),
        peer,
        client: &facts.client,
        trace: facts.trace.as_ref(),
        tracestate: &tracestate,
        sentry_trace: worker.policy.get().sentry_trace,
        upgrade: request.upgrade.filter(|_| upgrade.is_some()),
    };
    write::request(&request, &additions, out.bytes());
    out.count_growth();
    let coding = if request.framing == Framing::Chunked { Coding::Chunked } else { Coding::Plain };
    let is_grpc = carried == Some(Protocol::Http2) && request.is_grpc();
    let hop = match worker.config.upstream_protocol {
        UpstreamProtocol::Auto if is_grpc => HopProtocol::H2c,
        UpstreamProtocol::Auto | UpstreamProtocol::Http1 => HopProtocol::Http1,
        UpstreamProtocol::H2c => HopProtocol::H2c,
    };
    let is_safe = matches!(request.method, Method::Get | Method::Head | Method::Options);
    let mut body = Transfer::new(request.framing, coding);
    if is_grpc {
        body.count_messages();
    }
    let plan = Plan {
        in_flight: Some(InFlight::begin(worker, facts, counting)),
        method: request.method,
        protocol: request.protocol,
        body,
        out,
        keeps_alive: request.keeps_alive(),
        upgrade,
        expects_continue: request.expects_continue && request.framing != Framing::Empty,
        is_replayable: is_safe && request.framing == Framing::Empty && upgrade.is_none(),
        is_last_hop: request.max_forwards == Some(0),
        is_grpc,
        hop,
        resends: 0,
        body_limit: worker.admission.get().body_bytes,
    };
    inbox.consume(length);
    Ok(plan)
}

/// What the settings, not the protocol, refuse.
fn check<S: RequestSink>(worker: &Worker<S>, request: &Request<'_, '_>) -> Result<(), Refusal> {
    let limit = worker.admission.get().body_bytes;
    if limit > 0 && matches!(request.framing, Framing::Length(length) if length > limit) {
        return Err(Refusal::BodyTooLarge);
    }
    if let Some(name) = &worker.config.via {
        let mut hops = request.fields().filter(|(class, ..)| *class == Field::Via);
        if hops.any(|(_, _, value)| value.split(|byte| *byte == b',').any(|hop| is_by(hop, name.as_bytes()))) {
            return Err(Refusal::Loop);
        }
    }
    if worker.in_flight.get() >= worker.admission.get().in_flight {
        return Err(Refusal::Overload);
    }
    if worker.buffers.is_full() { Err(Refusal::Memory) } else { Ok(()) }
}

/// Whether an element of `Via` is of this proxy: `1.1 name`, perhaps with a comment.
fn is_by(hop: &[u8], name: &[u8]) -> bool {
    hop.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty()).nth(1) == Some(name)
}

/// What the sidecar itself asks through its own port is no traffic of the application.
fn counting_of(peer: &Peer, request: &Request<'_, '_>) -> Counting {
    let own = request.user_agent.is_some_and(|agent| agent.starts_with(b"content-factory-sidecar/"));
    if own && peer.address.ip().is_loopback() { Counting::Own } else { Counting::Counted }
}

fn facts_of<S: RequestSink>(
    worker: &Worker<S>,
    peer: &Peer,
    request: &Request<'_, '_>,
    counting: Counting,
) -> Box<Facts> {
    let lists = worker.lists();
    let path = request.path();
    let is_probe = lists.probe_paths.iter().any(|probe| probe.as_bytes() == path);
    let policy = worker.policy.get();
    let traced = counting == Counting::Counted && !is_probe && policy.spans != SpanModel::PropagateOnly;
    let caller = Caller { traceparent: request.traceparent, is_trusted: peer.is_trusted };
    let trace = if traced { worker.ids.borrow_mut().context(&policy, &caller) } else { None };
    let tracestate = tracestate_of(request, trace.as_ref());
    let routes = worker.routes();
    let route = routes.lookup(path);
    let tapped = route.is_some_and(|route| lists.taps.iter().any(|tap| tap == route.template));
    let mut facts = Facts::unknown(peer.client(request, &lists.trusted_proxies));
    (facts.method, facts.protocol) = (request.method, request.protocol);
    facts.kind = if is_probe { RequestKind::Probe } else { RequestKind::Ordinary };
    facts.route = route.map(|route| route.id);
    facts.tap = tapped.then(|| Tap { copy: Vec::new(), limit: worker.config.limits.tap_bytes });
    facts.kept = Kept::of(request, &tracestate, worker.copy_memory());
    facts.trace = trace;
    facts
}

/// The caller's `tracestate`, if its trace goes on: several fields are one list.
fn tracestate_of<'b>(request: &Request<'_, 'b>, trace: Option<&TraceContext>) -> Cow<'b, [u8]> {
    let Some(trace) = trace.filter(|trace| trace.parent.is_some()) else { return Cow::Borrowed(b"") };
    let mut fields = request.fields().filter(|(class, ..)| *class == Field::Tracestate).map(|(_, _, value)| value);
    let Some(first) = fields.next() else { return Cow::Borrowed(b"") };
    let mut joined = Cow::Borrowed(first);
    for next in fields {
        let joined = joined.to_mut();
        joined.push(b',');
        joined.extend_from_slice(next);
    }
    if trace.keeps_state(&joined) { joined } else { Cow::Borrowed(b"") }
}

fn allowed_upgrade<S: RequestSink>(worker: &Worker<S>, name: &[u8]) -> Option<usize> {
    worker.config.upgrades.iter().position(|allowed| allowed.as_bytes().eq_ignore_ascii_case(name))
}
