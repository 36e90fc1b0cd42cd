//! Point 25: a caller's trace goes on if it is valid; else a new one begins, and nobody gets 400 for it.

use crate::house::{House, get, values};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The trace id, the parent and the flags that the application was given.
fn given(seen: &str) -> [String; 3] {
    let fields = values(seen, "traceparent");
    assert_eq!(fields.len(), 1, "{seen}");
    let parts: Vec<&str> = fields[0].split('-').collect();
    assert_eq!((parts.len(), parts[0], fields[0].len()), (4, "00", 55), "{seen}");
    [parts[1].to_owned(), parts[2].to_owned(), parts[3].to_owned()]
}

/// W3C Trace Context, section 3.2.2: version 00, and higher ones by the prefix that is known of them.
#[tokio::test]
async fn a_valid_traceparent_is_continued() {
    let house = House::echoing(&[]).await;
    for value in [
        format!("00-{TRACE}-{PARENT}-01"),
        format!("00-{TRACE}-{PARENT}-00"),
        format!("00-{TRACE}-{PARENT}-ff"),
        format!("01-{TRACE}-{PARENT}-01"),
        format!("cc-{TRACE}-{PARENT}-01-what-the-future-brings"),
        format!("  00-{TRACE}-{PARENT}-01 "),
    ] {
        let [trace, parent, _] = given(&house.passed(get(&format!("TraceParent: {value}\r\n"))));
        assert_eq!(trace, TRACE, "{value}");
        assert_ne!(parent, PARENT, "{value}: the application's parent is our span");
    }
}

/// W3C Trace Context, sections 3.2.2 and 4.3: anything else restarts the trace.
#[tokio::test]
async fn anything_else_begins_a_new_trace() {
    let house = House::echoing(&[]).await;
    let upper = TRACE.to_ascii_uppercase();
    for value in [
        String::new(),
        "garbage".to_owned(),
        format!("00-{TRACE}-{PARENT}"),
        format!("00-{TRACE}-{PARENT}-01-more"),
        format!("00-{TRACE}-{PARENT}-1"),
        format!("00-{upper}-{PARENT}-01"),
        format!("00-{TRACE}-{PARENT}-0G"),
        format!("ff-{TRACE}-{PARENT}-01"),
        format!("FF-{TRACE}-{PARENT}-01"),
        format!("0-{TRACE}-{PARENT}-01"),
        format!("01-{TRACE}-{PARENT}-01x"),
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00_{TRACE}_{PARENT}_01"),
        format!("00-{TRACE}-{PARENT}-01\r\ntraceparent: 00-{TRACE}-{PARENT}-01"),
        format!("00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01"),
    ] {
        let seen = house.passed(get(&format!("traceparent: {value}\r\ntracestate: a=1\r\n")));
        let [trace, ..] = given(&seen);
        assert_ne!(trace, TRACE, "{value}");
        assert!(values(&seen, "tracestate").is_empty(), "section 3.3.1: it belongs to the trace that ended: {value}");
    }
}

/// The `tracestate` that the application was given beside a valid `traceparent`.
fn state_given(house: &House, fields: &str) -> Option<String> {
    let seen = house.passed(get(&format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n{fields}")));
    values(&seen, "tracestate").first().map(|value| (*value).to_owned())
}

/// W3C Trace Context, section 3.3.1: up to 32 members and 512 characters must be kept; several fields are one list.
#[tokio::test]
async fn a_tracestate_of_32_members_and_512_characters_is_kept() {
    let house = House::echoing(&[]).await;
    let members: Vec<String> = (0..32).map(|number| format!("k{number:02}=v")).collect();
    let long = format!("a={},b={}", "x".repeat(255), "y".repeat(252));
    assert_eq!(long.len(), 512);
    for state in
        [members.join(","), long, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE".to_owned(), "1a-_*/@b=c".to_owned()]
    {
        assert_eq!(state_given(&house, &format!("tracestate: {state}\r\n")), Some(state));
    }
    assert_eq!(state_given(&house, "tracestate: a=1\r\nTraceState: b=2\r\n").as_deref(), Some("a=1,b=2"));
}

/// W3C Trace Context, section 3.3: a malformed list is dropped whole, and the trace goes on.
#[tokio::test]
async fn a_malformed_tracestate_is_dropped_whole() {
    let house = House::echoing(&[]).await;
    let many: Vec<String> = (0..33).map(|number| format!("k{number}=v")).collect();
    let many = many.join(",");
    for state in ["a", "A=1", "=1", "a=", "a=1,b", "a=b=c", "a=1;b=2,c d", "\u{e4}=1", "-a=1", &many] {
        assert_eq!(state_given(&house, &format!("tracestate: {state}\r\n")), None, "{state}");
    }
    assert_eq!(
        state_given(&house, "tracestate: a=1\r\ntracestate: B=2\r\n"),
        None,
        "one of two makes the list malformed"
    );
}

/// W3C Baggage, section 3.3.2: 8192 bytes and 64 members pass, together; more is dropped.
#[tokio::test]
async fn baggage_is_bounded() {
    let house = House::echoing(&[]).await;
    let members = |count: usize| (0..count).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
    let long = |bytes: usize| format!("k={}", "v".repeat(bytes - 2));
    for kept in [members(64), long(8_192), "a=1;meta, b=2".to_owned()] {
        let seen = house.passed(get(&format!("baggage: {kept}\r\n")));
        assert_eq!(values(&seen, "baggage"), [kept.as_str()]);
    }
    let two = house.passed(get("baggage: a=1\r\nBaggage: b=2\r\n"));
    assert_eq!(values(&two, "baggage"), ["a=1", "b=2"]);
    for dropped in [
        members(65),
        long(8_193),
        format!("{}\r\nbaggage: b=2", members(64)),
        format!("{}\r\nbaggage: b=2", long(8_192)),
    ] {
        let seen = house.passed(get(&format!("baggage: {dropped}\r\n")));
        assert!(values(&seen, "baggage").is_empty(), "{} bytes", dropped.len());
    }
}

/// W3C Trace Context, section 6.3: a stranger's sampled flag does not decide what is exported; a trusted proxy's does.
#[tokio::test]
async fn only_a_trusted_caller_decides_about_the_export() {
    const NONE: (&str, &str) = ("SIDECAR_TELEMETRY__SAMPLING__RATIO", "0");
    const ALL: (&str, &str) = ("SIDECAR_TELEMETRY__SAMPLING__RATIO", "1");
    const TRUSTED: (&str, &str) = ("SIDECAR_PROXY__TRUSTED_PROXIES", "127.0.0.1");
    for (settings, flag, sent_on) in
        [(&[NONE][..], "01", "00"), (&[ALL], "00", "01"), (&[NONE, TRUSTED], "01", "01"), (&[ALL, TRUSTED], "00", "00")]
    {
        let house = House::echoing(settings).await;
        let [trace, _, flags] = given(&house.passed(get(&format!("traceparent: 00-{TRACE}-{PARENT}-{flag}\r\n"))));
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, sent_on), "{settings:?}");
    }
}
