//! `traceparent` in the first line, `tracestate` in the second (W3C Trace Context, sections 3.2 and 3.3).

use content_factory_sidecar::model::trace::{
    Sampled, TRACEPARENT_LENGTH, is_valid_tracestate, parse_traceparent, write_traceparent,
};

use crate::targets::Fate;

/// What is accepted means one thing only, and what version 00 allows is accepted.
pub(crate) fn check(data: &[u8]) -> Fate {
    let mut lines = data.splitn(2, |&byte| byte == b'\n');
    let (value, state) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    // No head lets a control character through.
    if !state.iter().any(u8::is_ascii_control) && is_valid_tracestate(state) {
        assert!(state.len() <= 512, "{} bytes", state.len());
        let members = state.split(|&byte| byte == b',').filter(|member| !member.trim_ascii().is_empty());
        assert!(members.clone().count() <= 32, "{} members", members.count());
        assert!(members.clone().all(|member| member.contains(&b'=')), "{}", state.escape_ascii());
    }
    let Ok(parsed) = parse_traceparent(value) else {
        assert!(!is_version_00(value), "refused: {}", value.escape_ascii());
        return Fate::Refused;
    };
    assert_ne!(&value[..2], b"ff");
    assert!(value.len() == TRACEPARENT_LENGTH || &value[..2] != b"00", "{}", value.escape_ascii());
    assert!(parsed.trace_id.0 != [0; 16] && parsed.parent.0 != [0; 8], "{}", value.escape_ascii());
    let sampled = if parsed.sampled { Sampled::Yes } else { Sampled::No };
    let written = write_traceparent(parsed.trace_id, parsed.parent, sampled);
    assert_eq!(written[2..53], value[2..53], "{}", value.escape_ascii());
    assert_eq!(parse_traceparent(&written), Ok(parsed));
    Fate::Accepted
}

/// The grammar of version 00, once more and in other words.
fn is_version_00(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    let parts: Vec<&[u8]> = value.split(|&byte| byte == b'-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { return false };
    let lengths = (version.len(), trace.len(), parent.len(), flags.len());
    let none_is_zero = [trace, parent].iter().all(|id| id.iter().any(|&byte| byte != b'0'));
    *version == b"00" && lengths == (2, 32, 16, 2) && parts.iter().all(|part| hex(part)) && none_is_zero
}
