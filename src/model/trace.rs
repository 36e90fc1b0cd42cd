//! Trace context: ids, the `traceparent` and `tracestate` headers, and the head decision of sampling.
//!
//! Pure: makes no ids and reads no clock; the proxy's workers own their generators.

use std::fmt;

/// The id of a trace: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span: 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// What a `traceparent` header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace that the caller is part of.
    pub trace_id: TraceId,
    /// The caller's span: parent of ours.
    pub parent: SpanId,
    /// Whether the caller keeps its spans of this trace.
    pub sampled: bool,
}

/// The length of a `traceparent` of version 00.
pub const TRACEPARENT_LENGTH: usize = 55;

/// Why a `traceparent` was not used; the request then starts a new trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceParentError {
    /// Not 55 bytes (version 00), or a longer form without a dash behind the flags.
    #[error("traceparent has another length than 55")]
    Length,
    /// A dash is missing or stands elsewhere.
    #[error("traceparent has no dash where one is expected")]
    Shape,
    /// Version `ff`, or not lower-case hex.
    #[error("traceparent has an invalid version")]
    Version,
    /// The trace id is not lower-case hex, or zero.
    #[error("traceparent has an invalid trace id")]
    TraceId,
    /// The parent id is not lower-case hex, or zero.
    #[error("traceparent has an invalid parent id")]
    Parent,
    /// The flags are not lower-case hex.
    #[error("traceparent has invalid flags")]
    Flags,
}

/// Parses the value of a `traceparent` header.
///
/// 55 bytes for version `00`; a higher version may be longer. Does not allocate.
/// Source: W3C Trace Context, section 3.2.
///
/// # Errors
/// Names the field that is wrong; the caller then starts a new trace.
pub fn parse_traceparent(value: &[u8]) -> Result<TraceParent, TraceParentError> {
    if value.len() < TRACEPARENT_LENGTH {
        return Err(TraceParentError::Length);
    }
    let [version] = hex::<1>(&value[..2]).ok_or(TraceParentError::Version)?;
    if version == 0xff {
        return Err(TraceParentError::Version);
    }
    // a higher version is read by the prefix that we know, if what follows is set apart by a dash
    let tail_is_foreign = version > 0 && value.get(TRACEPARENT_LENGTH) == Some(&b'-');
    if value.len() > TRACEPARENT_LENGTH && !tail_is_foreign {
        return Err(TraceParentError::Length);
    }
    if value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
        return Err(TraceParentError::Shape);
    }
    let trace_id = hex::<16>(&value[3..35]).filter(|id| id != &[0; 16]).ok_or(TraceParentError::TraceId)?;
    let parent = hex::<8>(&value[36..52]).filter(|id| id != &[0; 8]).ok_or(TraceParentError::Parent)?;
    let [flags] = hex::<1>(&value[53..55]).ok_or(TraceParentError::Flags)?;
    Ok(TraceParent { trace_id: TraceId(trace_id), parent: SpanId(parent), sampled: flags & 1 == 1 })
}

/// Writes a `traceparent` of version 00.
///
/// The random-trace-id flag (Trace Context level 2) is not claimed: the id may be the caller's.
#[must_use]
pub fn write_traceparent(trace_id: TraceId, span_id: SpanId, sampled: Sampled) -> [u8; TRACEPARENT_LENGTH] {
    let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&trace_id.0, &mut out[3..35]);
    write_hex(&span_id.0, &mut out[36..52]);
    if sampled == Sampled::Yes {
        out[54] = b'1';
    }
    out
}

/// Whether a `tracestate` header may be passed on; a malformed one is dropped whole.
///
/// At most 32 members and 512 bytes, each `key=value` with printable ASCII values. Does not allocate.
/// Source: W3C Trace Context, section 3.3.
#[must_use]
pub fn is_valid_tracestate(value: &[u8]) -> bool {
    value.len() <= 512
        && value.split(|byte| *byte == b',').count() <= 32
        && value.split(|byte| *byte == b',').all(|member| is_tracestate_member(member.trim_ascii()))
}

fn is_tracestate_member(member: &[u8]) -> bool {
    if member.is_empty() {
        return true; // empty members are allowed, section 3.3.1.1
    }
    let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let key_byte = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let value_byte = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'=' && *byte != b',';
    (1..=256).contains(&key.len())
        && key[0].is_ascii_alphanumeric()
        && key.iter().all(key_byte)
        && (1..=256).contains(&value.len())
        && value.iter().all(value_byte)
}

/// The head decision: whether the spans of a request are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampled {
    /// Spans are written, and the flag sent on is 01.
    Yes,
    /// The flag sent on is 00, and no span is written unless the end of the request asks for it.
    No,
}

/// How requests are sampled at their head: parent-based, else by the trace id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Trace ids whose last 7 bytes are at or above this are kept.
    threshold: u64,
    /// What is made of the caller's flag.
    pub parent: ParentFlag,
}

/// What is made of the sampled flag of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentFlag {
    /// Followed, when the caller is trusted.
    Followed,
    /// Only the trace id decides.
    Ignored,
}

impl Sampling {
    /// All that the last 56 bits of a trace id can be.
    pub const WHOLE: u64 = 1 << 56;

    /// Keeps this share of the traces; `ratio` from 0 to 1, clamped.
    #[must_use]
    pub fn ratio(ratio: f64, parent: ParentFlag) -> Self {
        let space = Self::WHOLE as f64;
        Self { threshold: (space * (1.0 - ratio.clamp(0.0, 1.0))) as u64, parent }
    }

    /// Whether the ratio keeps each trace.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        self.threshold == 0
    }

    /// The share of trace ids that are kept, of `WHOLE`.
    #[must_use]
    pub fn share(&self) -> u64 {
        Self::WHOLE - self.threshold
    }

    /// Decides for one request.
    ///
    /// `parent_sampled` is the flag of a caller that may be believed, else `None`. The same trace id gives the same
    /// answer everywhere (the last 56 bits decide, as OpenTelemetry's consistent probability sampling has it); so an id
    /// that a stranger chose may be made to be kept, and whoever asks bounds how often it is.
    #[must_use]
    pub fn decide(&self, trace_id: TraceId, parent_sampled: Option<bool>) -> Sampled {
        let kept = match (self.parent, parent_sampled) {
            (ParentFlag::Followed, Some(flag)) => flag,
            _ => {
                let mut last = [0; 8];
                last[1..].copy_from_slice(&trace_id.0[9..]);
                u64::from_be_bytes(last) >= self.threshold
            }
        };
        if kept { Sampled::Yes } else { Sampled::No }
    }
}

/// Which spans the proxy makes, and whose id goes on to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanModel {
    /// SERVER and CLIENT; the application's parent is the CLIENT span.
    Full,
    /// SERVER alone; the application's parent is the SERVER span.
    ServerOnly,
    /// None: the caller's context passes untouched, for an application with an SDK.
    PropagateOnly,
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn fmt_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALID: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_traceparent_is_read() {
        let parsed = parse_traceparent(VALID).unwrap();
        assert_eq!(parsed.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parsed.parent.to_string(), "00f067aa0ba902b7");
        assert!(parsed.sampled);
    }

    #[test]
    fn what_is_wrong_with_a_traceparent_is_named() {
        let table: &[(&[u8], TraceParentError)] = &[
            (b"", TraceParentError::Length),
            (b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", TraceParentError::Length),
            (b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceParentError::Version),
            (b"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceParentError::Shape),
            (b"00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", TraceParentError::TraceId),
            (b"00-00000000000000000000000000000000-00f067aa0ba902b7-01", TraceParentError::TraceId),
            (b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", TraceParentError::Parent),
            (b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x", TraceParentError::Flags),
            (b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x", TraceParentError::Length),
        ];
        for (value, expected) in table {
            assert_eq!(parse_traceparent(value), Err(*expected), "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn a_higher_version_is_read_by_its_known_prefix() {
        assert!(parse_traceparent(b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_ok());
    }

    #[test]
    fn a_malformed_tracestate_is_not_passed_on() {
        for good in ["", "a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1, b=2 ,,", "1t@v=x y"] {
            assert!(is_valid_tracestate(good.as_bytes()), "{good}");
        }
        for bad in
            ["a", "A=1", "=1", "a=", "a=1;b=\u{1}", "a=b=c", &"a=1,".repeat(40), &format!("a={}", "x".repeat(600))]
        {
            assert!(!is_valid_tracestate(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn the_ratio_is_kept_and_a_trusted_parent_decides() {
        let mut kept = 0;
        let tenth = Sampling::ratio(0.1, ParentFlag::Followed);
        for i in 0..10_000_u64 {
            let mut id = [7; 16];
            id[8..].copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            kept += u32::from(tenth.decide(TraceId(id), None) == Sampled::Yes);
        }
        assert!((900..1100).contains(&kept), "{kept}");
        assert_eq!(tenth.decide(TraceId([0; 16]), Some(true)), Sampled::Yes);
        assert_eq!(Sampling::ratio(1.0, ParentFlag::Ignored).decide(TraceId([0; 16]), Some(false)), Sampled::Yes);
        assert_eq!(Sampling::ratio(0.0, ParentFlag::Ignored).decide(TraceId([255; 16]), None), Sampled::No);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(trace in prop::array::uniform16(1_u8..), span in prop::array::uniform8(1_u8..), on: bool) {
            let sampled = if on { Sampled::Yes } else { Sampled::No };
            let written = write_traceparent(TraceId(trace), SpanId(span), sampled);
            let expected = TraceParent { trace_id: TraceId(trace), parent: SpanId(span), sampled: on };
            prop_assert_eq!(parse_traceparent(&written), Ok(expected));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_traceparent(&value);
            let _ = is_valid_tracestate(&value);
        }
    }
}
