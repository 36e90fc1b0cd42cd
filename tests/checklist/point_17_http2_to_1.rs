//! Point 17: from HTTP/2 to HTTP/1.1. What only HTTP/2 can get wrong is refused: the application sees none of it, and a
//! connection whose framing holds goes on.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use crate::h2_fate::{Fate, GET, cut_off, errors, others_are_served, refusals};
use crate::h2_world::{DATA, END_HEADERS, END_STREAM, HEADERS, Raw, block};
use crate::proxy_world::Application;
use crate::rig::{Sidecar, echo_application};

/// What it is, the fields of a request, and what becomes of it.
type Case = (&'static str, Vec<(&'static str, &'static str)>, Fate);

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

/// What is malformed in HTTP/2 already: an error of the stream.
fn reset() -> Fate {
    Fate::Reset("protocol_error")
}

/// The same where the header block is none: an error of the stream that is told as one of the connection, as RFC 9113,
/// section 5.4.2, allows.
fn away() -> Fate {
    Fate::Away("protocol_error")
}

/// What would be malformed in HTTP/1.1.
fn malformed() -> Fate {
    Fate::answer(400, "malformed_request")
}

fn no_method() -> Fate {
    Fate::answer(405, "method_not_allowed")
}

/// Each of these has its fate and is counted by it, and none reaches the application.
async fn refused(cases: Vec<Case>) {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let (mut counted, mut lawful, mut wrong) = (BTreeMap::new(), 0, Vec::new());
    for (what, fields, fate) in cases {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.asks(1, &fields).await;
        let found = raw.fate(1).await;
        if !matches!(found, Fate::Away(_)) {
            raw.asks(3, &GET).await;
            assert_eq!(raw.fate(3).await, Fate::answer(200, ""), "behind {what}");
            lawful += 1;
        }
        let series = match &fate {
            Fate::Answer(_, reason) => ("answer", reason.clone()),
            Fate::Reset(code) => ("rst_stream", (*code).to_owned()),
            Fate::Away(code) => ("goaway", (*code).to_owned()),
        };
        *counted.entry(series).or_insert(0) += 1;
        if found != fate {
            wrong.push(format!("{what}: {found:?}, expected {fate:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(application.requests.load(Ordering::Relaxed), lawful, "the application saw one");
    let page = sidecar.metrics().await;
    for ((kind, name), count) in counted {
        let found = if kind == "answer" { refusals(&page, &name) } else { errors(&page, kind, &name) };
        assert_eq!(found, count, "{kind} {name} in {page}");
    }
    assert_eq!(cut_off(&page, "flood") + cut_off(&page, "header_timeout"), 0);
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 8.2.1.
#[tokio::test]
async fn fields_with_bytes_that_are_not_of_fields_are_refused() {
    refused(vec![
        ("an upper-case name", and(&[("X-Upper", "1")]), away()),
        ("a blank in a name", and(&[("x y", "1")]), away()),
        ("a colon in a name", and(&[("x:y", "1")]), away()),
        ("a line break in a name", and(&[("x\r\ny", "1")]), away()),
        ("an empty name", and(&[("", "1")]), away()),
        ("CR in a value", and(&[("x", "1\r2")]), away()),
        ("LF in a value", and(&[("x", "1\n2")]), away()),
        ("a field in a value", and(&[("x", "1\r\nhost: evil")]), away()),
        ("NUL in a value", and(&[("x", "1\x002")]), away()),
        ("a control character in a value", and(&[("x", "1\x012")]), away()),
        ("a blank before a value", and(&[("x", " 1")]), malformed()),
        ("a tab behind a value", and(&[("x", "1\t")]), malformed()),
    ])
    .await;
}

/// RFC 9113, section 8.2.2.
#[tokio::test]
async fn fields_of_one_hop_are_refused() {
    refused(vec![
        ("connection", and(&[("connection", "close")]), reset()),
        ("keep-alive", and(&[("keep-alive", "5")]), reset()),
        ("proxy-connection", and(&[("proxy-connection", "close")]), reset()),
        ("transfer-encoding", and(&[("transfer-encoding", "chunked")]), reset()),
        ("upgrade", and(&[("upgrade", "websocket")]), reset()),
        ("te with another value than trailers", and(&[("te", "trailers, gzip")]), reset()),
    ])
    .await;
}

/// RFC 9113, sections 8.3 and 8.3.1.
#[tokio::test]
async fn pseudo_fields_that_name_no_request_are_refused() {
    let behind = vec![(":method", "GET"), (":scheme", "http"), ("x", "1"), (":path", "/"), (":authority", "h")];
    refused(vec![
        ("no :method", without(":method"), reset()),
        ("no :scheme", without(":scheme"), reset()),
        ("no :path", without(":path"), reset()),
        ("no authority at all", without(":authority"), malformed()),
        ("two of :path", and(&[(":path", "/")]), reset()),
        ("an unknown one", and(&[(":other", "1")]), away()),
        ("one of answers", and(&[(":status", "200")]), reset()),
        ("one behind a field", behind, reset()),
        ("an empty :path", with(":path", ""), reset()),
        ("a blank in :path", with(":path", "/a b"), reset()),
        ("a request in :path", with(":path", "/ HTTP/1.1\r\nhost: evil\r\n\r\n"), reset()),
        ("a control character in :path", with(":path", "/\x01"), reset()),
        ("no slash in :path", with(":path", "a"), reset()),
        ("a query without path", with(":path", "?a"), malformed()),
        ("an absolute form in :path", with(":path", "http://evil/"), reset()),
        ("a star without OPTIONS", with(":path", "*"), malformed()),
        ("a blank in :method", with(":method", "GET /x HTTP/1.1\r\nx:"), away()),
        ("a user in :authority", with(":authority", "user@h.example"), malformed()),
        ("a blank in :authority", with(":authority", "h example"), reset()),
        ("Host unlike :authority", and(&[("host", "other.example")]), malformed()),
        ("two of Host", and(&[("host", "h.example"), ("host", "h.example")]), malformed()),
    ])
    .await;
}

/// RFC 9110, section 9.3.6; extended CONNECT (RFC 8441) is not offered.
#[tokio::test]
async fn connect_in_either_form_and_trace_are_refused() {
    let extended = and(&[]).into_iter().map(|(name, value)| (name, if name == ":method" { "CONNECT" } else { value }));
    let extended = [(":protocol", "websocket")].into_iter().chain(extended).collect();
    refused(vec![
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "h.example:443")], no_method()),
        ("extended CONNECT", extended, reset()),
        ("TRACE", with(":method", "TRACE"), no_method()),
    ])
    .await;
}

/// RFC 9113, section 8.1.1.
#[tokio::test]
async fn a_content_length_unlike_the_body_is_refused_and_never_looks_whole() {
    let lengths = |value| and(&[("content-length", value)]);
    refused(vec![
        ("a length without a body", lengths("5"), reset()),
        ("no number", lengths("x"), reset()),
        ("two lengths", and(&[("content-length", "0"), ("content-length", "0")]), malformed()),
    ])
    .await;
    for data in ["fiv", "five and more"] {
        let application = Application::start().await;
        let sidecar = Sidecar::start(application.address, &[], &[]).await;
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.frame((HEADERS, END_HEADERS), 1, &block(&lengths("5"))).await;
        raw.frame((DATA, END_STREAM), 1, data.as_bytes()).await;
        assert_eq!(raw.fate(1).await, reset(), "{data:?}");
        assert_eq!(application.requests.load(Ordering::Relaxed), 0, "the application saw a whole request");
        assert_eq!(errors(&sidecar.metrics().await, "rst_stream", "protocol_error"), 1);
        others_are_served(&sidecar).await;
    }
}

/// RFC 9113, section 8.2.3: the application is to see one `cookie`, however many crumbs came.
#[tokio::test]
async fn crumbs_of_cookies_are_joined() {
    let sidecar = Sidecar::start(echo_application().await, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let crumbs = [("cookie", "a=1"), ("x", "between"), ("cookie", "b=2; c=3"), ("cookie", ""), ("cookie", "d=4")];
    raw.frame((HEADERS, END_HEADERS | END_STREAM), 1, &block(&and(&crumbs))).await;
    let seen = String::from_utf8(raw.body(1).await).expect("text");
    let cookies: Vec<&str> = seen.lines().filter(|line| line.to_ascii_lowercase().starts_with("cookie:")).collect();
    assert_eq!(cookies, ["cookie: a=1; b=2; c=3; ; d=4"], "{seen}");
}

/// RFC 9113, section 8.1.1: what the engine refuses is counted with its reason and the client's protocol, as a request.
#[tokio::test]
async fn a_refusal_is_counted_as_a_request_of_http_2() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    raw.asks(1, &and(&[("host", "other.example")])).await;
    raw.asks(3, &with(":method", "TRACE")).await;
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
