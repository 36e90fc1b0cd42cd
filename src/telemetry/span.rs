//! The spans of a request as OTLP bytes: SERVER, and CLIENT for the exchange with the application.
//!
//! Pure, and without allocation for ordinary requests. Attributes follow the semantic conventions 1.44 for HTTP;
//! the query, the client's address and the user agent may identify people: they are there as far as `privacy` lets them.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::model::request::{Hop, Method, Outcome, Protocol, RecordTrace, RequestRecord};
use crate::model::trace::{Sampled, Sampling, SpanId};
use crate::redact::{Clean, Outlet, Redactor};
use crate::semconv;
use crate::telemetry::limits::{Limits, NAME_LIMIT};
use crate::telemetry::privacy::Personal;
use crate::telemetry::tail::Reason;
use crate::telemetry::wire;

/// In `ScopeSpans`.
const SPANS: u32 = 2;
/// In `Span`.
const ATTRIBUTES: u32 = 9;
const KIND_SERVER: u64 = 2;
const KIND_CLIENT: u64 = 3;
const STATUS_ERROR: u64 = 2;
/// Sampled at the head.
const FLAG_SAMPLED: u32 = 1;
/// Known to have a local parent or none.
const FLAGS_LOCAL: u32 = 0x100;
/// Known to have a parent elsewhere.
const FLAGS_REMOTE: u32 = 0x300;

/// The application as CLIENT spans name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// `server.address`: host name or address.
    pub host: String,
    /// `server.port`
    pub port: u16,
}

/// Writes spans. Holds the attributes that are the same for many requests, encoded.
#[derive(Debug)]
pub(crate) struct SpanEncoder {
    redactor: Arc<Redactor>,
    limits: Limits,
    /// `None` when nothing that may identify people leaves.
    personal: Option<Personal>,
    methods: [Vec<u8>; Method::ALL.len()],
    protocols: [Vec<u8>; 3],
    scheme: Vec<u8>,
    server: Vec<u8>,
    origin: Vec<u8>,
    /// By `Reason`.
    reasons: [Vec<u8>; Reason::ALL.len()],
    /// Where the head keeps all, it goes without saying.
    says_head: Arc<AtomicBool>,
    /// Values cut since they were taken; a cell, as the encoder belongs to one thread.
    truncated: Cell<u64>,
}

impl SpanEncoder {
    pub(crate) fn new(upstream: &Upstream, redactor: Arc<Redactor>, sampling: Sampling) -> Self {
        let text = |key, value: &str| {
            let mut out = Vec::new();
            wire::text_attribute(&mut out, ATTRIBUTES, key, value.as_bytes());
            out
        };
        let mut server = text(semconv::SERVER_ADDRESS, &upstream.host);
        wire::int_attribute(&mut server, ATTRIBUTES, semconv::SERVER_PORT, upstream.port.into());
        let host = if upstream.host.contains(':') { format!("[{}]", upstream.host) } else { upstream.host.clone() };
        Self {
            redactor,
            limits: Limits::default(),
            personal: None,
            methods: Method::ALL.map(|method| text(semconv::HTTP_REQUEST_METHOD, method.label())),
            protocols: [Protocol::Http10, Protocol::Http11, Protocol::Http2]
                .map(|protocol| text(semconv::NETWORK_PROTOCOL_VERSION, protocol.label())),
            scheme: text(semconv::URL_SCHEME, "http"),
            server,
            origin: format!("http://{host}:{}", upstream.port).into_bytes(),
            reasons: Reason::ALL.map(|reason| text(semconv::SAMPLING_REASON, reason.label())),
            says_head: Arc::new(AtomicBool::new(!sampling.keeps_all())),
            truncated: Cell::default(),
        }
    }

    /// The same with these limits, and with what of people may leave.
    pub(crate) fn within(self, limits: Limits, personal: Option<Personal>) -> Self {
        Self { limits, personal, ..self }
    }

    /// The same, and says by this flag, which may change, that the head keeps a request.
    pub(crate) fn saying(self, says_head: Arc<AtomicBool>) -> Self {
        Self { says_head, ..self }
    }

    /// How many values and names were cut since this was asked last.
    pub(crate) fn take_truncated(&self) -> u64 {
        self.truncated.take()
    }

    /// Counts one when it is longer than its limit.
    fn measure(&self, length: usize, limit: usize) {
        if length > limit {
            self.truncated.set(self.truncated.get() + 1);
        }
    }

    /// Appends the spans of a request that are kept for this reason; returns how many.
    pub(crate) fn append(
        &self,
        out: &mut Vec<u8>,
        record: &RequestRecord<'_>,
        trace: &RecordTrace<'_>,
        reason: Reason,
    ) -> u64 {
        let without_state;
        let trace = if self.is_clean_state(trace.tracestate) {
            trace
        } else {
            without_state = RecordTrace { tracestate: b"", ..trace.clone() };
            &without_state
        };
        let raw = record.path();
        let cleaned;
        let path = if raw.len() <= self.limits.value && self.redactor.is_clean_path(raw) {
            raw
        } else {
            cleaned = self.cut(self.redactor.text(Outlet::Telemetry, raw));
            cleaned.as_str().as_bytes()
        };
        let query = self.personal.as_ref().and_then(|personal| personal.query(record, &self.redactor));
        let server = out.len();
        wire::message(out, SPANS, |out| {
            self.server_span(out, record, trace, (path, query.as_ref()));
            if reason != Reason::Head || self.says_head.load(Ordering::Relaxed) {
                out.extend_from_slice(&self.reasons[reason as usize]);
            }
        });
        self.apply_limits(out, server);
        let Some((hop, span_id)) = record.hop.as_ref().and_then(|hop| Some((hop, hop.span_id?))) else { return 1 };
        let target = match &query {
            Some(query) => Cow::Owned([path, b"?", query.as_str().as_bytes()].concat()),
            None => Cow::Borrowed(path),
        };
        let client = out.len();
        wire::message(out, SPANS, |out| {
            let start = record.started_unix_nanos.saturating_add(nanos(hop.offset));
            ids(out, trace, span_id, Some(trace.span_id));
            self.name(out, record);
            wire::varint_field(out, 6, KIND_CLIENT);
            times(out, start, hop.duration);
            self.client_attributes(out, record, hop, &target);
            flags(out, trace.sampled, FLAGS_LOCAL);
        });
        self.apply_limits(out, client);
        2
    }

    /// Whether a `tracestate` may leave: receivers that sample need it as it is, but a caller may put anything there.
    fn is_clean_state(&self, state: &[u8]) -> bool {
        state.is_empty() || self.redactor.is_clean_state(Outlet::Telemetry, state)
    }

    /// Of the span that was appended last, which begins here.
    fn apply_limits(&self, out: &mut Vec<u8>, start: usize) {
        self.truncated.set(self.truncated.get() + self.limits.apply(out, start));
    }

    /// A value within its limit.
    fn cut<'t>(&self, value: Clean<'t>) -> Clean<'t> {
        self.measure(value.as_str().len(), self.limits.value);
        value.cut(self.limits.value)
    }

    fn server_span(
        &self,
        out: &mut Vec<u8>,
        record: &RequestRecord<'_>,
        trace: &RecordTrace<'_>,
        (path, query): (&[u8], Option<&Clean<'_>>),
    ) {
        ids(out, trace, trace.span_id, trace.parent);
        self.name(out, record);
        wire::varint_field(out, 6, KIND_SERVER);
        times(out, record.started_unix_nanos, record.duration);
        self.method(out, record);
        wire::text_attribute(out, ATTRIBUTES, semconv::URL_PATH, path);
        out.extend_from_slice(&self.scheme);
        out.extend_from_slice(&self.protocols[record.protocol as usize]);
        if let Some(route) = record.route {
            self.measure(route.template.len(), self.limits.value);
            let template = &route.template[..route.template.floor_char_boundary(self.limits.value)];
            wire::text_attribute(out, ATTRIBUTES, semconv::HTTP_ROUTE, template.as_bytes());
        }
        status_code(out, record.status);
        error_type(out, record.error_type(), record.status, 500);
        if let Some(personal) = &self.personal {
            let user_agent = personal.user_agent(record, &self.redactor);
            for (key, value) in [(semconv::URL_QUERY, query), (semconv::USER_AGENT_ORIGINAL, user_agent.as_ref())] {
                let Some(value) = value.map(|value| self.cut(value.clone())) else { continue };
                wire::text_attribute(out, ATTRIBUTES, key, value.as_str().as_bytes());
            }
            personal.append_addresses(out, record);
        }
        if record.is_error() {
            error_status(out);
        }
        flags(out, trace.sampled, if trace.parent.is_some() { FLAGS_REMOTE } else { FLAGS_LOCAL });
    }

    fn client_attributes(&self, out: &mut Vec<u8>, record: &RequestRecord<'_>, hop: &Hop, target: &[u8]) {
        self.method(out, record);
        out.extend_from_slice(&self.server);
        self.measure(self.origin.len() + target.len(), self.limits.value);
        let origin = &self.origin[..self.origin.len().min(self.limits.value)];
        let room = (self.limits.value - origin.len()).min(target.len());
        let end = (0..=room).rev().find(|end| target.get(*end).is_none_or(|byte| byte & 0xc0 != 0x80)).unwrap_or(0);
        wire::joined_text_attribute(out, ATTRIBUTES, semconv::URL_FULL, [origin, &target[..end]]);
        status_code(out, hop.status);
        if hop.resends > 0 {
            wire::int_attribute(out, ATTRIBUTES, semconv::HTTP_REQUEST_RESEND_COUNT, hop.resends.into());
        }
        let fault = match record.outcome {
            Outcome::Failed(fault) => Some(fault.label()),
            Outcome::Answered | Outcome::Refused(_) | Outcome::ClientGone | Outcome::CutOff(_) => None,
        };
        error_type(out, fault, hop.status, 400);
        if fault.is_some() || hop.status >= 400 {
            error_status(out);
        }
    }

    fn method(&self, out: &mut Vec<u8>, record: &RequestRecord<'_>) {
        out.extend_from_slice(&self.methods[record.method as usize]);
        if record.method == Method::Other && !record.method_text.is_empty() {
            let whole = self.redactor.text(Outlet::Telemetry, record.method_text);
            self.measure(whole.as_str().len(), NAME_LIMIT);
            let (key, original) = (semconv::HTTP_REQUEST_METHOD_ORIGINAL, whole.cut(NAME_LIMIT));
            wire::text_attribute(out, ATTRIBUTES, key, original.as_str().as_bytes());
        }
    }

    /// `{method} {route}`, or the method alone: never the path, which has no bound of its own.
    fn name(&self, out: &mut Vec<u8>, record: &RequestRecord<'_>) {
        let method = if record.method == Method::Other { "HTTP" } else { record.method.label() };
        let Some(route) = record.route else { return wire::bytes_field(out, 5, method.as_bytes()) };
        let room = NAME_LIMIT - method.len() - 1;
        self.measure(route.template.len(), room);
        let template = &route.template[..route.template.floor_char_boundary(room)];
        wire::tag(out, 5, wire::LENGTH);
        wire::varint(out, (method.len() + 1 + template.len()) as u64);
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(template.as_bytes());
    }
}

fn ids(out: &mut Vec<u8>, trace: &RecordTrace<'_>, span_id: SpanId, parent: Option<SpanId>) {
    wire::bytes_field(out, 1, &trace.trace_id.0);
    wire::bytes_field(out, 2, &span_id.0);
    if !trace.tracestate.is_empty() {
        wire::bytes_field(out, 3, trace.tracestate);
    }
    if let Some(parent) = parent {
        wire::bytes_field(out, 4, &parent.0);
    }
}

/// The head decision as it was sent on, and where the parent is.
fn flags(out: &mut Vec<u8>, sampled: Sampled, parent: u32) {
    let sampled = if sampled == Sampled::Yes { FLAG_SAMPLED } else { 0 };
    wire::fixed32_field(out, 16, parent | sampled);
}

fn times(out: &mut Vec<u8>, start: u64, duration: Duration) {
    wire::fixed64_field(out, 7, start);
    wire::fixed64_field(out, 8, start.saturating_add(nanos(duration)));
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn status_code(out: &mut Vec<u8>, status: u16) {
    if status > 0 {
        wire::int_attribute(out, ATTRIBUTES, semconv::HTTP_RESPONSE_STATUS_CODE, status.into());
    }
}

/// The reason that the proxy knows, else the status when it is an error from this one on.
fn error_type(out: &mut Vec<u8>, reason: Option<&str>, status: u16, from: u16) {
    if let Some(reason) = reason {
        wire::text_attribute(out, ATTRIBUTES, semconv::ERROR_TYPE, reason.as_bytes());
    } else if status >= from {
        let mut digits = itoa::Buffer::new();
        wire::text_attribute(out, ATTRIBUTES, semconv::ERROR_TYPE, digits.format(status).as_bytes());
    }
}

fn error_status(out: &mut Vec<u8>) {
    wire::message(out, 15, |out| wire::varint_field(out, 3, STATUS_ERROR));
}
