//! Heads written anew: what the proxy did not understand cannot be in them.

use crate::model::request::{Client, Method, Protocol};
use crate::model::trace::write_traceparent;
use crate::proxy::config::Config;
use crate::proxy::forwarded::Peer;
use crate::proxy::framing::{Coding, Framing};
use crate::proxy::head::fields::Field;
use crate::proxy::head::lines::{Lines, field};
use crate::proxy::head::request::Request;
use crate::proxy::head::response::Response;
use crate::proxy::ids::TraceContext;

/// Baggage of more bytes or members than this is dropped (W3C Baggage, section 3.3.2).
const MAX_BAGGAGE: (usize, usize) = (8_192, 64);

/// What is added to a request on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Additions<'a> {
    pub(crate) config: &'a Config,
    /// The application's authority, for a client that named no host.
    pub(crate) upstream: &'a [u8],
    pub(crate) peer: &'a Peer,
    pub(crate) client: &'a Client,
    /// `None` passes the caller's context untouched.
    pub(crate) trace: Option<&'a TraceContext>,
    /// The caller's, valid, or empty.
    pub(crate) tracestate: &'a [u8],
    /// Whether Sentry's SDKs are told of the trace in their own words.
    pub(crate) sentry_trace: bool,
    /// The protocol to change to, when that is allowed.
    pub(crate) upgrade: Option<&'a [u8]>,
}

/// Writes a request's head for the application.
pub(crate) fn request(request: &Request<'_, '_>, add: &Additions<'_>, out: &mut Vec<u8>) {
    let mut lines = Lines::new(request.bytes, out);
    lines.first([request.method_text, b" ", request.missing_slash(), request.target, b" HTTP/1.1\r\n"]);
    if !request.has_host() {
        lines.field(b"Host", request.host.unwrap_or(add.upstream));
    }
    for (class, name, value) in request.fields() {
        match class {
            Field::Other | Field::UserAgent | Field::ContentType | Field::Via | Field::SentryTrace => {
                lines.pass(name, value)
            }
            Field::Host if request.host.is_none_or(|host| host == value) => lines.pass(name, value),
            Field::Host => lines.field(name, request.host.unwrap_or(value)),
            _ => request_field(request, add, (class, name, value), &mut lines),
        }
    }
    drop(lines);
    // after the client's own fields, so that none of them can be taken for ours
    add.peer.write(request, add.client, out);
    if let Some(trace) = add.trace {
        let parent = write_traceparent(trace.trace_id, trace.outgoing(), trace.sampled);
        field(b"traceparent", &parent, out);
        if add.sentry_trace && !request.fields().any(|(class, ..)| class == Field::SentryTrace) {
            // both ids and no flag: whether Sentry samples is the SDK's own decision
            field(b"sentry-trace", &parent[3..52], out);
        }
        if !add.tracestate.is_empty() {
            field(b"tracestate", add.tracestate, out);
        }
    }
    if let Some(via) = &add.config.via {
        let version = match request.protocol {
            Protocol::Http10 => "1.0",
            Protocol::Http11 => "1.1",
            Protocol::Http2 => "2.0",
        };
        for part in ["Via: ", version, " ", via, "\r\n"].map(str::as_bytes) {
            out.extend_from_slice(part);
        }
    }
    if let Some(protocol) = add.upgrade {
        field(b"Connection", b"Upgrade", out);
        field(b"Upgrade", protocol, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields that need a thought.
fn request_field(request: &Request<'_, '_>, add: &Additions<'_>, named: (Field, &[u8], &[u8]), lines: &mut Lines<'_>) {
    let (class, name, value) = named;
    let passes = match class {
        Field::ContentLength => true,
        Field::TransferEncoding => return lines.field(name, b"chunked"),
        Field::Trailer => request.framing == Framing::Chunked,
        Field::Expect => request.expects_continue,
        Field::Traceparent | Field::Tracestate => add.trace.is_none(),
        Field::Baggage => has_bounded_baggage(request),
        Field::MaxForwards => {
            if let Some(forwards) = request.max_forwards {
                return lines.field(name, itoa::Buffer::new().format(forwards.saturating_sub(1)).as_bytes());
            }
            true
        }
        Field::ForwardedProto | Field::ForwardedHost | Field::ForwardedPort => add.peer.is_trusted,
        _ => false,
    };
    if passes {
        lines.pass(name, value);
    }
}

/// Whether the baggage is within its limits: several fields are one list.
fn has_bounded_baggage(request: &Request<'_, '_>) -> bool {
    let fields = request.fields().filter(|(class, ..)| *class == Field::Baggage);
    let (bytes, members) = fields.fold((0, 0), |(bytes, members), (_, _, value)| {
        (bytes + value.len(), members + 1 + memchr::memchr_iter(b',', value).count())
    });
    bytes <= MAX_BAGGAGE.0 && members <= MAX_BAGGAGE.1
}

/// How an answer goes to the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) method: Method,
    pub(crate) coding: Coding,
    /// What is said of the connection.
    pub(crate) connection: ConnectionWord,
}

/// What an answer says of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionWord {
    /// Nothing: HTTP/1.1 goes on.
    Silent,
    /// `keep-alive`, which HTTP/1.0 needs.
    KeepAlive,
    /// `close`.
    Close,
    /// `Upgrade`: only with 101.
    Upgrade,
}

/// Writes an answer's head for the client.
pub(crate) fn response(response: &Response<'_, '_>, reply: Reply, out: &mut Vec<u8>) {
    let mut status = itoa::Buffer::new();
    let mut lines = Lines::new(response.bytes, out);
    let status = status.format(response.status).as_bytes();
    lines.first([b"HTTP/1.1 ", status, b" ", response.reason.as_bytes(), b"\r\n"]);
    // who sends `Upgrade` must name it: it is for this hop (RFC 9110, section 7.8)
    let mut names_upgrade = reply.connection == ConnectionWord::Upgrade;
    for (class, name, value) in response.fields() {
        let passes = match class {
            // written below, from what was understood
            Field::ContentLength | Field::TransferEncoding | Field::Connection => false,
            Field::HopByHop | Field::ProxyAuth | Field::Te => false,
            Field::Upgrade => {
                names_upgrade |= response.status == 426;
                names_upgrade
            }
            Field::Trailer => reply.coding == Coding::Chunked,
            _ => true,
        };
        if passes {
            lines.pass(name, value);
        }
    }
    drop(lines);
    write_framing(response, reply, out);
    let connection: &[u8] = match (reply.connection, names_upgrade) {
        (ConnectionWord::Silent, false) => b"",
        (ConnectionWord::KeepAlive, false) => b"Connection: keep-alive\r\n",
        (ConnectionWord::Close, false) => b"Connection: close\r\n",
        (ConnectionWord::KeepAlive, true) => b"Connection: keep-alive, Upgrade\r\n",
        (ConnectionWord::Close, true) => b"Connection: close, Upgrade\r\n",
        (ConnectionWord::Silent | ConnectionWord::Upgrade, _) => b"Connection: Upgrade\r\n",
    };
    out.extend_from_slice(connection);
    out.extend_from_slice(b"\r\n");
}

fn write_framing(response: &Response<'_, '_>, reply: Reply, out: &mut Vec<u8>) {
    let silent = response.status < 200 || response.status == 204;
    if reply.coding == Coding::Chunked && !response.is_bodiless(reply.method) {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    } else if let Some(length) = response.content_length().filter(|_| !silent) {
        field(b"Content-Length", itoa::Buffer::new().format(length).as_bytes(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::head::request::{parse, storage};
    use crate::proxy::head::response;
    use crate::settings::{Settings, Tree};

    fn rewritten(text: &str) -> String {
        let mut settings = Settings::new(Tree::default(), |_: &str| Err(String::new()));
        let config = Config::read(&mut settings.section("proxy"));
        let mut room = storage();
        let head = parse(text.as_bytes(), &mut room).unwrap();
        let peer = Peer::new("203.0.113.9:5".parse().unwrap(), &[]);
        let client = peer.client(&head, &[]);
        let add = Additions {
            config: &config,
            upstream: b"app:8000",
            peer: &peer,
            client: &client,
            trace: None,
            tracestate: b"",
            sentry_trace: false,
            upgrade: None,
        };
        let mut out = Vec::new();
        request(&head, &add, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (ours, rest) = (text.find("X-Forwarded-For").unwrap(), "X-Forwarded-Proto: http\r\n");
        assert!(text[ours..].contains(rest));
        text[..ours].to_owned()
    }

    #[test]
    fn order_and_case_stay_and_what_ends_here_is_gone() {
        for (text, expected) in [
            (
                "GET /a?b HTTP/1.1\r\nhOSt: h\r\nX-b:  1 \r\nA: 2\r\n\r\n",
                "GET /a?b HTTP/1.1\r\nhOSt: h\r\nX-b: 1\r\nA: 2\r\n",
            ),
            ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: app:8000\r\n"),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: b\r\n"),
            ("GET http://b?x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?x HTTP/1.1\r\nHost: b\r\n"),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, x-own\r\nX-Own: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
                 Proxy-Authorization: x\r\nUpgrade: h2c\r\nX_Forwarded_For: 1\r\nX-Forwarded-Host: evil\r\nForwarded: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: h\r\n",
            ),
            (
                "POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: CHUNKED\r\nTrailer: ETag\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: h\r\ntransfer-encoding: chunked\r\nTrailer: ETag\r\n",
            ),
            (
                "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
                "POST / HTTP/1.1\r\nHost: app:8000\r\nContent-Length: 1\r\n",
            ),
            (
                "OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 3\r\n\r\n",
                "OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 2\r\n",
            ),
        ] {
            assert_eq!(rewritten(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_answer_is_framed_by_what_was_understood() {
        let keep = |coding| Reply { method: Method::Get, coding, connection: ConnectionWord::Silent };
        for (text, coding, expected) in [
            (
                "HTTP/1.0 200 Fine\r\nServer: u\r\ncontent-length: 007\r\nConnection: x, keep-alive\r\nX: 1\r\n\r\n",
                Coding::Plain,
                "HTTP/1.1 200 Fine\r\nServer: u\r\nContent-Length: 7\r\n\r\n",
            ),
            ("HTTP/1.1 204 \r\nContent-Length: 5\r\n\r\n", Coding::Plain, "HTTP/1.1 204 \r\n\r\n"),
            (
                "HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n",
                Coding::Plain,
                "HTTP/1.1 304 N\r\nContent-Length: 5\r\n\r\n",
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", Coding::Chunked, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ] {
            let (mut room, mut out) = (storage(), Vec::new());
            let head = response::parse(text.as_bytes(), Method::Get, &mut room).unwrap();
            crate::proxy::head::write::response(&head, keep(coding), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text:?}");
        }
    }
}
