//! A proxied request as the rooms see it: its head, its record at the end, and the seam between them.
//!
//! The record borrows raw bytes of the head; each outlet cleans what it keeps.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::model::route::Route;
use crate::model::trace::{Sampled, SpanId, TraceId};

/// A request method that telemetry knows by name; all others are `Other` (`_OTHER`).
///
/// The methods of RFC 9110 and PATCH, as the semantic conventions have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT
    Connect,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
    /// Any other token, and a request that was refused before its method was known.
    Other,
}

impl Method {
    /// All methods, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Connect,
        Self::Options,
        Self::Trace,
        Self::Patch,
        Self::Other,
    ];

    /// Reads a token, which is case-sensitive (RFC 9110, section 9.1).
    #[must_use]
    pub fn parse(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// The value of `http.request.method`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "_OTHER",
        }
    }
}

/// The protocol that the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Protocol {
    /// The value of `network.protocol.version`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// What kind of exchange it turned out to be; each kind has its own series of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RequestKind {
    /// An ordinary request.
    Ordinary,
    /// A probe by its path (`proxy.probe_paths`): counted apart, without spans.
    Probe,
    /// An event stream (`text/event-stream`): its length is no latency.
    Stream,
    /// An upgraded connection, after 101.
    Tunnel,
}

/// Why a request was refused without reaching the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// 400: the head or the framing is malformed.
    Malformed,
    /// 405: CONNECT or TRACE.
    MethodNotAllowed,
    /// 408: the head did not arrive in time.
    HeaderTimeout,
    /// 408: the body stopped for too long. The application may have seen a part of the request.
    BodyTimeout,
    /// 413: the body is larger than allowed.
    BodyTooLarge,
    /// 414: the request line is too long.
    TargetTooLong,
    /// 417: an expectation other than `100-continue`.
    ExpectationFailed,
    /// 431: the header section is too large.
    HeadTooLarge,
    /// 501: an unknown transfer coding.
    UnknownCoding,
    /// 502: the request has come through this proxy before.
    Loop,
    /// 503: too many connections or requests at once.
    Overload,
    /// 503: too much memory is held for clients.
    Memory,
    /// 505: a version of HTTP that is not spoken.
    VersionNotSupported,
}

impl Refusal {
    /// All refusals, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::MethodNotAllowed,
        Self::HeaderTimeout,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::TargetTooLong,
        Self::ExpectationFailed,
        Self::HeadTooLarge,
        Self::UnknownCoding,
        Self::Loop,
        Self::Overload,
        Self::Memory,
        Self::VersionNotSupported,
    ];

    /// The status that the client gets.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::MethodNotAllowed => 405,
            Self::HeaderTimeout | Self::BodyTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::HeadTooLarge => 431,
            Self::UnknownCoding => 501,
            Self::Loop => 502,
            Self::Overload | Self::Memory => 503,
            Self::VersionNotSupported => 505,
        }
    }

    /// The value of `error.type`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed_request",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::HeaderTimeout => "header_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::ExpectationFailed => "expectation_failed",
            Self::HeadTooLarge => "head_too_large",
            Self::UnknownCoding => "unknown_transfer_coding",
            Self::Loop => "proxy_loop",
            Self::Overload => "overload",
            Self::Memory => "memory_limit",
            Self::VersionNotSupported => "version_not_supported",
        }
    }
}

/// What went wrong between the proxy and the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum UpstreamFault {
    /// The connection was refused: nothing listens. 503.
    Refused,
    /// No connection within the connect timeout. 503.
    ConnectTimeout,
    /// The name of the application has no address. 503.
    Unresolved,
    /// The connection broke before the answer was complete. 502, or a broken answer.
    Broken,
    /// The answer is not valid HTTP. 502.
    BadAnswer,
    /// No answer within the first-byte timeout. 504.
    Timeout,
    /// It was spoken to in HTTP/2, and does not know it. 502.
    NotHttp2,
}

impl UpstreamFault {
    /// All faults, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::ConnectTimeout,
        Self::Unresolved,
        Self::Broken,
        Self::BadAnswer,
        Self::Timeout,
        Self::NotHttp2,
    ];

    /// The status that the client gets when no answer has begun yet.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Refused | Self::ConnectTimeout | Self::Unresolved => 503,
            Self::Broken | Self::BadAnswer | Self::NotHttp2 => 502,
            Self::Timeout => 504,
        }
    }

    /// The value of `error.type`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "upstream_refused",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::Unresolved => "upstream_unresolved",
            Self::Broken => "upstream_broken",
            Self::BadAnswer => "upstream_bad_answer",
            Self::Timeout => "upstream_timeout",
            Self::NotHttp2 => "upstream_not_http2",
        }
    }
}

/// Why the sidecar itself broke a request off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CutOff {
    /// It was still under way when the drain was over.
    Shutdown,
    /// The part of the sidecar that carried it panicked.
    Panic,
}

impl CutOff {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Shutdown, Self::Panic];

    /// The value of `error.type`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::Panic => "panic",
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The answer of the application was passed on to its end.
    Answered,
    /// Answered by the proxy itself; the application never saw it, or not whole.
    Refused(Refusal),
    /// The application failed, before its answer or within it.
    Failed(UpstreamFault),
    /// The client left before the end; no error of the application.
    ClientGone,
    /// Broken off by the sidecar, before its answer or within it.
    CutOff(CutOff),
}

/// A head is complete, or was refused: what is known at the begin of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead {
    /// The method, `Other` when it was refused before it was known.
    pub method: Method,
}

/// A request at its end. Borrowed from the proxy for the time of one call.
#[derive(Clone, Debug)]
pub struct RequestRecord<'a> {
    /// As given to `begin`.
    pub method: Method,
    /// The method as the client wrote it; needed when `method` is `Other`.
    pub method_text: &'a [u8],
    /// Path and query as received; empty when the request was refused before it was known. Raw: may hold secrets.
    pub target: &'a [u8],
    /// The route template, when the path is known to the application.
    pub route: Option<Route<'a>>,
    /// Which series of durations it belongs to.
    pub kind: RequestKind,
    /// The client's protocol.
    pub protocol: Protocol,
    /// The status that the client was sent; 0 when it was sent none.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Start, in nanoseconds since the Unix epoch.
    pub started_unix_nanos: u64,
    /// From the complete head to the last byte.
    pub duration: Duration,
    /// From the complete head to the first byte of the answer; `None` without an answer of the application.
    pub first_byte: Option<Duration>,
    /// Body bytes received from the client, without framing.
    pub request_body_bytes: u64,
    /// Body bytes sent to the client, without framing.
    pub response_body_bytes: u64,
    /// The ids of its spans; `None` when the request makes none whatever happens (probe, refused, propagate-only).
    pub trace: Option<RecordTrace<'a>>,
    /// The exchange with the application, when there was one.
    pub hop: Option<Hop>,
    /// Who asked.
    pub client: Client,
    /// The `User-Agent` header, raw.
    pub user_agent: Option<&'a [u8]>,
    /// A bounded copy of the answer's body, when the route is tapped.
    pub tapped: Option<&'a [u8]>,
}

/// The trace context of a request.
#[derive(Clone, Debug)]
pub struct RecordTrace<'a> {
    /// The caller's trace, or a new one.
    pub trace_id: TraceId,
    /// The SERVER span.
    pub span_id: SpanId,
    /// The caller's span.
    pub parent: Option<SpanId>,
    /// The head decision; what is sampled out may still be wanted by tail-keep and by the log of failures.
    pub sampled: Sampled,
    /// The `tracestate` header, valid, raw; empty when there is none.
    pub tracestate: &'a [u8],
    /// Whether the spans are on their way out: false until the sink that writes them says so.
    ///
    /// Read by the sinks behind it; what points to a trace (an exemplar) must point to one that is there.
    pub kept: Cell<bool>,
}

/// The exchange with the application: what the CLIENT span tells.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// The CLIENT span; `None` with the span model `server-only`.
    pub span_id: Option<SpanId>,
    /// From the start of the request to the start of the exchange.
    pub offset: Duration,
    /// From the start of the exchange to its end.
    pub duration: Duration,
    /// The application's status; 0 when it gave none.
    pub status: u16,
    /// How often the request was sent again on a fresh connection.
    pub resends: u8,
}

/// The client of a request.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The peer of the socket.
    pub peer: SocketAddr,
    /// The client's address by the trusted-proxy rules; the peer's when no proxy is trusted.
    pub address: std::net::IpAddr,
}

impl RequestRecord<'_> {
    /// Whether the request counts as an error: an answer of 500 and above, a failure of the application, or one that
    /// the sidecar broke off. A stream or a tunnel that ends with the process is none: it has no end of its own.
    #[must_use]
    pub fn is_error(&self) -> bool {
        let is_endless = matches!(self.kind, RequestKind::Stream | RequestKind::Tunnel);
        match self.outcome {
            Outcome::Failed(_) | Outcome::CutOff(CutOff::Panic) => true,
            Outcome::CutOff(CutOff::Shutdown) => !is_endless,
            // not by the status that was sent: to a client of gRPC that is 200, whatever is said in it
            Outcome::Refused(refusal) => refusal.status() >= 500,
            Outcome::Answered | Outcome::ClientGone => self.status >= 500,
        }
    }

    /// The value of `error.type` where the proxy itself knows the reason; a plain 5xx has its status instead.
    #[must_use]
    pub fn error_type(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Refused(refusal) => Some(refusal.label()),
            Outcome::Failed(fault) => Some(fault.label()),
            Outcome::ClientGone => Some("client_gone"),
            Outcome::CutOff(reason) => Some(reason.label()),
            Outcome::Answered => None,
        }
    }

    /// The path without its query.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        let end = self.target.iter().position(|byte| *byte == b'?').unwrap_or(self.target.len());
        &self.target[..end]
    }
}

/// Takes the finished requests of one worker thread.
///
/// Called on the request path: must not block, await or fail, nor allocate without need.
/// `&mut self`: it belongs to one thread, so it needs no lock.
pub trait RequestSink {
    /// A head is complete, or was refused with an answer: from now on the request counts and is in flight.
    fn begin(&mut self, head: &RequestHead);

    /// The last bytes of the answer are about to be written: `end` or `not_yet` follows at once.
    ///
    /// Lets a reader wait for the few microseconds in which a client may already hold an answer
    /// whose end has not been counted yet.
    fn last_write(&mut self);

    /// The last bytes could not be written whole: the request goes on.
    fn not_yet(&mut self);

    /// The request is over, whatever its end; called once for each `begin`.
    fn end(&mut self, record: &RequestRecord<'_>);

    /// Some time has passed: called by the worker's timer about every 100 ms, also when no request comes.
    ///
    /// Lets a sink that gathers hand over what it holds, without a clock of its own.
    fn tick(&mut self) {}
}

/// Counts a request whose span writer panics: it was begun, and must not be in flight for ever.
struct CountedAnyway<'s, 'r, S: RequestSink> {
    counters: &'s mut S,
    record: &'s RequestRecord<'r>,
}

impl<S: RequestSink> Drop for CountedAnyway<'_, '_, S> {
    fn drop(&mut self) {
        // reached by a panic alone: a second one must not leave here, or the process ends
        let _ = catch_unwind(AssertUnwindSafe(|| self.counters.end(self.record)));
    }
}

/// Two sinks as one: `app` pairs the counters with the span writer, and the proxy knows neither.
impl<A: RequestSink, B: RequestSink> RequestSink for (A, B) {
    fn begin(&mut self, head: &RequestHead) {
        self.0.begin(head);
        self.1.begin(head);
    }

    fn last_write(&mut self) {
        self.0.last_write();
        self.1.last_write();
    }

    fn not_yet(&mut self) {
        self.0.not_yet();
        self.1.not_yet();
    }

    fn end(&mut self, record: &RequestRecord<'_>) {
        // the counters come last: whoever sees the count finds the span handed over
        let counted = CountedAnyway { counters: &mut self.0, record };
        self.1.end(record);
        ManuallyDrop::new(counted).counters.end(record);
    }

    fn tick(&mut self) {
        self.0.tick();
        self.1.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts ends, and panics over each of them if it is to.
    struct Sink {
        ended: u32,
        panics: bool,
    }

    impl RequestSink for Sink {
        fn begin(&mut self, _: &RequestHead) {}
        fn last_write(&mut self) {}
        fn not_yet(&mut self) {}
        fn end(&mut self, _: &RequestRecord<'_>) {
            self.ended += 1;
            assert!(!self.panics, "a sink with a bug");
        }
    }

    fn record(outcome: Outcome, kind: RequestKind) -> RequestRecord<'static> {
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        RequestRecord {
            method: Method::Get,
            method_text: b"GET",
            target: b"/",
            route: None,
            kind,
            protocol: Protocol::Http11,
            status: 0,
            outcome,
            started_unix_nanos: 0,
            duration: Duration::ZERO,
            first_byte: None,
            request_body_bytes: 0,
            response_body_bytes: 0,
            trace: None,
            hop: None,
            client: Client { peer: (address, 1).into(), address },
            user_agent: None,
            tapped: None,
        }
    }

    #[test]
    fn a_request_is_counted_once_though_either_of_two_sinks_panics() {
        for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut pair = (Sink { ended: 0, panics: first }, Sink { ended: 0, panics: second });
            let record = record(Outcome::Answered, RequestKind::Ordinary);
            let told = catch_unwind(AssertUnwindSafe(|| pair.end(&record)));
            assert_eq!(told.is_err(), first || second);
            assert_eq!((pair.0.ended, pair.1.ended), (1, 1), "{first} {second}");
        }
    }

    #[test]
    fn what_the_sidecar_breaks_off_is_an_error_unless_it_had_no_end_of_its_own() {
        for (reason, kind, is_error) in [
            (CutOff::Shutdown, RequestKind::Ordinary, true),
            (CutOff::Shutdown, RequestKind::Stream, false),
            (CutOff::Shutdown, RequestKind::Tunnel, false),
            (CutOff::Panic, RequestKind::Tunnel, true),
        ] {
            let record = record(Outcome::CutOff(reason), kind);
            assert_eq!((record.is_error(), record.error_type()), (is_error, Some(reason.label())));
        }
    }
}
