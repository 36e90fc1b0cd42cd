//! What becomes of what a raw client of HTTP/2 sends, as the client is told and as the page of metrics counts it.

use crate::h2_world::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, Raw, WINDOW_UPDATE, block};
use crate::rig::Sidecar;

/// A lawful request.
pub(crate) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "h.example")];

/// The codes of RFC 9113, section 7, as the metrics name them.
const CODES: [&str; 14] = [
    "no_error",
    "protocol_error",
    "internal_error",
    "flow_control_error",
    "settings_timeout",
    "stream_closed",
    "frame_size_error",
    "refused_stream",
    "cancel",
    "compression_error",
    "connect_error",
    "enhance_your_calm",
    "inadequate_security",
    "http_1_1_required",
];

/// Told to who floods.
pub(crate) const CALM: &str = "enhance_your_calm";

/// How a stream ends for the client that has opened it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// An answer: its status, and the reason that an answer of the proxy's own names.
    Answer(u16, String),
    /// RST_STREAM, with the name of its code.
    Reset(&'static str),
    /// GOAWAY, with the name of its code, and the end of the connection.
    Away(&'static str),
}

impl Fate {
    /// An answer with this status and this reason.
    pub(crate) fn answer(status: u16, reason: &str) -> Self {
        Self::Answer(status, reason.to_owned())
    }
}

/// The name of an error code.
pub(crate) fn code(payload: &[u8]) -> &'static str {
    let number = u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
    CODES[number as usize]
}

impl Raw {
    /// Reads on until it is known what becomes of this stream.
    pub(crate) async fn fate(&mut self, stream: u32) -> Fate {
        loop {
            let frame = self.next_of(stream).await.expect("a word before the end");
            match frame.kind {
                RST_STREAM => return Fate::Reset(code(&frame.payload)),
                GOAWAY => {
                    self.rest().await;
                    return Fate::Away(code(&frame.payload[4..]));
                }
                HEADERS if status(&frame.payload) >= 200 => {
                    let body = if frame.flags & END_STREAM == 0 { self.body(stream).await } else { Vec::new() };
                    return Fate::Answer(status(&frame.payload), reason(&body));
                }
                _ => {}
            }
        }
    }

    /// What is left of an answer's body; it must come to its end.
    pub(crate) async fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let frame = self.next_of(stream).await.expect("the rest of a body");
            assert!(matches!(frame.kind, DATA | HEADERS | WINDOW_UPDATE), "{frame:?} within a body");
            if frame.kind == DATA {
                body.extend_from_slice(&frame.payload);
            }
            if frame.kind != WINDOW_UPDATE && frame.flags & END_STREAM != 0 {
                return body;
            }
        }
    }

    /// The code of the GOAWAY that ends a connection, behind whatever else came before it.
    pub(crate) async fn farewell(&mut self) -> &'static str {
        let frame = self.next_of(u32::MAX).await.expect("a GOAWAY before the end");
        self.rest().await;
        code(&frame.payload[4..])
    }

    /// Asks on this stream without a body.
    pub(crate) async fn asks(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.frame((HEADERS, END_HEADERS | END_STREAM), stream, &block(fields)).await;
    }
}

/// The status of an answer that is the first on its connection (RFC 7541, sections 5 and 6, appendices A and B).
pub(crate) fn status(block: &[u8]) -> u16 {
    /// Those of the static table, from its entry 8 on.
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [indexed @ 0x88..=0x8e, ..] => KNOWN[usize::from(indexed - 0x88)],
        [0x48 | 0x08 | 0x18, 3, digits @ ..] => {
            std::str::from_utf8(&digits[..3]).ok().and_then(|text| text.parse().ok()).expect("a number")
        }
        [0x48 | 0x08 | 0x18, coded, rest @ ..] if coded & 0x80 != 0 => digits(&rest[..usize::from(coded & 0x7f)]),
        other => panic!("{other:x?} does not begin with a status"),
    }
}

/// Three digits in the code of RFC 7541, appendix B: five bits for those up to 2, six for the others.
fn digits(coded: &[u8]) -> u16 {
    let bits: Vec<u16> = coded.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1))).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let value = |length: usize| bits[at..at + length].iter().fold(0, |all, bit| all << 1 | bit);
        let (digit, length) = if value(5) <= 2 { (value(5), 5) } else { (value(6) - 25 + 3, 6) };
        (number, at) = (number * 10 + digit, at + length);
    }
    number
}

/// The reason in an answer of the proxy's own; nothing for others.
fn reason(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let named = text.split_once("\"type\":\"").and_then(|(_, rest)| rest.split_once('"'));
    named.map_or_else(String::new, |(reason, _)| reason.to_owned())
}

/// The value of a series with these labels.
pub(crate) fn value(page: &str, series: &str) -> u64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {page}")).parse::<f64>().expect("a number") as u64
}

/// Connections that were cut off for this reason.
pub(crate) fn cut_off(page: &str, reason: &str) -> u64 {
    value(page, &format!("content_factory_proxy_connections_cut_off_total{{error_type=\"{reason}\"}}"))
}

/// Errors that clients were told by this frame and code.
pub(crate) fn errors(page: &str, frame: &str, code: &str) -> u64 {
    value(page, &format!("content_factory_proxy_http2_errors_total{{frame=\"{frame}\",error_type=\"{code}\"}}"))
}

/// Requests that were refused with an answer, for this reason.
pub(crate) fn refusals(page: &str, reason: &str) -> u64 {
    value(page, &format!("content_factory_proxy_refusals_total{{error_type=\"{reason}\"}}"))
}

/// A client of its own is served, nothing is left in flight, and nothing has panicked.
pub(crate) async fn others_are_served(sidecar: &Sidecar) {
    let mut other = Raw::greet(sidecar.proxy).await;
    other.asks(1, &GET).await;
    assert_eq!(other.fate(1).await, Fate::answer(200, ""), "another client");
    let idle = |_, page: &str| {
        let mut active = page.lines().filter(|line| line.starts_with("http_server_active_requests"));
        active.all(|line| line.ends_with(" 0"))
    };
    let page = sidecar.eventually("/metrics", idle).await;
    let panics = page.lines().filter(|line| line.starts_with("content_factory_proxy_panics_total{"));
    assert!(panics.clone().count() > 0 && panics.clone().all(|line| line.ends_with(" 0")), "{page}");
}
