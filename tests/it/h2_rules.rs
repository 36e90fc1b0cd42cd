//! What only HTTP/2 can get wrong on the way to HTTP/1.1 (RFC 9113, sections 8.1.1 to 8.3.1): the application sees
//! none of it, and the connection goes on.

use std::sync::atomic::Ordering;

use crate::h2_world::{DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, Raw, block};
use crate::proxy_world::Application;
use crate::rig::Sidecar;

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "h.example")];

/// PROTOCOL_ERROR.
const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];

/// A request with one pseudo field in another's place.
fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    GET.into_iter().map(|(found, old)| (found, if found == name { value } else { old })).collect()
}

/// A request with further fields.
fn and(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    GET.into_iter().chain(fields.iter().copied()).collect()
}

fn without(name: &'static str) -> Vec<(&'static str, &'static str)> {
    GET.into_iter().filter(|(found, _)| *found != name).collect()
}

/// Whether this is a refusal: a reset because of the protocol, of the stream or (RFC 9113, section 5.4.2) of all, or an
/// answer with a status of 400 or more.
fn is_refusal(frame: &Frame) -> bool {
    match frame.kind {
        RST_STREAM => frame.payload == PROTOCOL_ERROR,
        GOAWAY => frame.payload[4..8] == PROTOCOL_ERROR,
        // 200 of the static table is all that the application says
        HEADERS => frame.payload[0] != 0x88,
        _ => false,
    }
}

async fn refused(cases: Vec<(&str, Vec<(&str, &str)>)>) {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let mut stream = 1;
    for (what, fields) in cases {
        raw.frame((HEADERS, END_HEADERS | END_STREAM), stream, &block(&fields)).await;
        let frame = raw.next_of(stream).await.unwrap_or_else(|| panic!("{what}: the connection was closed"));
        assert!(is_refusal(&frame), "{what}: {frame:?}");
        stream += 2;
        if frame.kind == GOAWAY {
            (raw, stream) = (Raw::greet(sidecar.proxy).await, 1);
        }
    }
    assert_eq!(application.requests.load(Ordering::Relaxed), 0, "the application saw one");
    raw.frame((HEADERS, END_HEADERS | END_STREAM), stream, &block(&GET)).await;
    let frame = raw.next_of(stream).await.expect("the connection goes on");
    assert_eq!((frame.kind, frame.payload[0]), (HEADERS, 0x88), "200 of the static table");
}

/// RFC 9113, section 8.2.1.
#[tokio::test]
async fn fields_with_bytes_that_are_not_of_fields_are_refused() {
    refused(vec![
        ("an upper-case name", and(&[("X-Upper", "1")])),
        ("a blank in a name", and(&[("x y", "1")])),
        ("a colon in a name", and(&[("x:y", "1")])),
        ("a line break in a name", and(&[("x\r\ny", "1")])),
        ("an empty name", and(&[("", "1")])),
        ("CR in a value", and(&[("x", "1\r2")])),
        ("LF in a value", and(&[("x", "1\n2")])),
        ("a field in a value", and(&[("x", "1\r\nhost: evil")])),
        ("NUL in a value", and(&[("x", "1\x002")])),
        ("a control character in a value", and(&[("x", "1\x012")])),
        ("a blank before a value", and(&[("x", " 1")])),
        ("a tab behind a value", and(&[("x", "1\t")])),
    ])
    .await;
}

/// RFC 9113, section 8.2.2.
#[tokio::test]
async fn fields_of_one_hop_are_refused() {
    refused(vec![
        ("connection", and(&[("connection", "close")])),
        ("keep-alive", and(&[("keep-alive", "5")])),
        ("proxy-connection", and(&[("proxy-connection", "close")])),
        ("transfer-encoding", and(&[("transfer-encoding", "chunked")])),
        ("upgrade", and(&[("upgrade", "websocket")])),
        ("te with another value than trailers", and(&[("te", "trailers, gzip")])),
    ])
    .await;
}

/// RFC 9113, sections 8.3 and 8.3.1.
#[tokio::test]
async fn pseudo_fields_that_name_no_request_are_refused() {
    let behind = vec![(":method", "GET"), (":scheme", "http"), ("x", "1"), (":path", "/"), (":authority", "h")];
    refused(vec![
        ("no :method", without(":method")),
        ("no :scheme", without(":scheme")),
        ("no :path", without(":path")),
        ("no authority at all", without(":authority")),
        ("two of :path", and(&[(":path", "/")])),
        ("an unknown one", and(&[(":other", "1")])),
        ("one of answers", and(&[(":status", "200")])),
        ("one behind a field", behind),
        ("an empty :path", with(":path", "")),
        ("a blank in :path", with(":path", "/a b")),
        ("a request in :path", with(":path", "/ HTTP/1.1\r\nhost: evil\r\n\r\n")),
        ("a control character in :path", with(":path", "/\x01")),
        ("no slash in :path", with(":path", "a")),
        ("a query without path", with(":path", "?a")),
        ("an absolute form in :path", with(":path", "http://evil/")),
        ("a star without OPTIONS", with(":path", "*")),
        ("a blank in :method", with(":method", "GET /x HTTP/1.1\r\nx:")),
        ("a user in :authority", with(":authority", "user@h.example")),
        ("a blank in :authority", with(":authority", "h example")),
        ("Host unlike :authority", and(&[("host", "other.example")])),
        ("two of Host", and(&[("host", "h.example"), ("host", "h.example")])),
    ])
    .await;
}

/// RFC 9110, section 9.3.6; extended CONNECT (RFC 8441) is not offered.
#[tokio::test]
async fn connect_in_either_form_and_trace_are_refused() {
    let extended = and(&[]).into_iter().map(|(name, value)| (name, if name == ":method" { "CONNECT" } else { value }));
    let extended = [(":protocol", "websocket")].into_iter().chain(extended).collect();
    refused(vec![
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "h.example:443")]),
        ("extended CONNECT", extended),
        ("TRACE", with(":method", "TRACE")),
    ])
    .await;
}

/// RFC 9113, section 8.1.1.
#[tokio::test]
async fn a_content_length_unlike_the_body_is_refused_and_never_looks_whole() {
    let lengths = |value| and(&[("content-length", value)]);
    refused(vec![
        ("a length without a body", lengths("5")),
        ("no number", lengths("x")),
        ("two lengths", and(&[("content-length", "0"), ("content-length", "0")])),
    ])
    .await;
    for data in ["fiv", "five and more"] {
        let application = Application::start().await;
        let sidecar = Sidecar::start(application.address, &[], &[]).await;
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.frame((HEADERS, END_HEADERS), 1, &block(&lengths("5"))).await;
        raw.frame((DATA, END_STREAM), 1, data.as_bytes()).await;
        let frame = raw.next_of(1).await.expect("a stream error, not one of the connection");
        assert!(frame.kind == RST_STREAM && frame.payload == PROTOCOL_ERROR, "{data:?}: {frame:?}");
        assert_eq!(application.requests.load(Ordering::Relaxed), 0, "the application saw a whole request");
    }
}

/// What the engine refuses is answered and counted as on HTTP/1.1, with its reason and the client's protocol.
#[tokio::test]
async fn a_refusal_is_counted_by_its_reason() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    raw.frame((HEADERS, END_HEADERS | END_STREAM), 1, &block(&and(&[("host", "other.example")]))).await;
    raw.frame((HEADERS, END_HEADERS | END_STREAM), 3, &block(&with(":method", "TRACE"))).await;
    let reasons = ["malformed_request", "method_not_allowed"];
    let counted = move |_, page: &str| {
        reasons.iter().all(|reason| {
            let of_reason = |line: &&str| line.contains(reason) && line.contains(r#"network_protocol_version="2""#);
            let mut series = page.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
            series.any(|line| of_reason(&line) && line.ends_with(" 1"))
        })
    };
    sidecar.eventually("/metrics", counted).await;
}

/// Frames that mean nothing are not worth a line each, or any client could fill the log from the proxy's own thread.
#[tokio::test]
async fn no_frame_of_a_client_writes_to_the_log() {
    const ACK: u8 = 1;
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    for _ in 0..50 {
        raw.frame((PING, ACK), 0, b"unasked.").await;
    }
    raw.frame((HEADERS, END_HEADERS | END_STREAM), 1, &block(&GET)).await;
    assert_eq!(raw.next_of(1).await.expect("the connection goes on").kind, HEADERS);
    assert!(!sidecar.log().contains("PING"), "{}", sidecar.log());
}
