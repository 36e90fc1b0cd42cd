//! Ordinary requests through the proxy: forwarded clean, answered whole, counted once.

use std::sync::Arc;

use content_factory_sidecar::model::request::{Outcome, RequestKind};
use serde_json::json;

use crate::proxy_room::{Room, config, echo};
use crate::raw::{PATIENCE, origin};

#[test]
fn a_get_is_forwarded_answered_and_counted() {
    let room = Room::start(echo());
    let mut client = room.client();
    for round in 1..=3 {
        client.send("GET /products/7?a=b HTTP/1.1\r\nHost: shop\r\nUser-Agent: test/1\r\nX-Case: Kept\r\n\r\n");
        let answer = client.message();
        assert_eq!((answer.status(), answer.field("connection")), (200, None));
        let seen = answer.text();
        assert!(
            seen.starts_with("GET /products/7?a=b HTTP/1.1\r\nHost: shop\r\nUser-Agent: test/1\r\nX-Case: Kept\r\n")
        );
        assert!(seen.contains("X-Forwarded-For: 127.0.0.1\r\n") && seen.contains("\r\ntraceparent: 00-"), "{seen}");
        let last = room.ledger.ended(round).pop().expect("at least one");
        assert_eq!((last.method.as_str(), last.target.as_str(), last.status), ("GET", "/products/7?a=b", 200));
        assert_eq!((last.outcome, last.route.as_deref()), (Outcome::Answered, Some("/products/{id}")));
        assert_eq!((last.user_agent.as_deref(), last.response_bytes), (Some("test/1"), answer.body.len() as u64));
        assert_eq!((last.client.as_str(), last.started_unix_nanos > 1_700_000_000_000_000_000), ("127.0.0.1", true));
        let (trace, span) = (last.trace_id.expect("traced"), last.hop_span.expect("a CLIENT span"));
        assert!(
            seen.contains(&format!("traceparent: 00-{trace}-{span}-01")),
            "the application's parent is the CLIENT span"
        );
    }
}

#[test]
fn bodies_pass_by_length_and_by_chunks() {
    let room = Room::start(echo());
    let mut client = room.client();
    let long = "x".repeat(200_000);
    client.send(format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{long}", long.len()));
    assert!(client.message().text().ends_with(&long));
    client.send("POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n");
    client.send(format!("{:x}\r\n{long}\r\n0\r\nEvil: 1\r\n\r\n", long.len()));
    let answer = client.message();
    assert!(answer.text().contains("Transfer-Encoding: chunked\r\n") && answer.text().ends_with(&format!("abc{long}")));
    let ended = room.ledger.ended(2);
    assert_eq!((ended[0].request_bytes, ended[1].request_bytes), (200_000, 200_003));
}

#[test]
fn a_caller_s_trace_goes_on() {
    let room = Room::start(echo());
    let mut client = room.client();
    client.send(
        "GET / HTTP/1.1\r\nHost: h\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
         tracestate: a=1\r\ntracestate: b=2\r\n\r\n",
    );
    let seen = client.message().text();
    assert!(seen.contains("\r\ntracestate: a=1,b=2\r\n"), "{seen}");
    let ended = room.ledger.ended(1);
    assert_eq!(ended[0].trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(ended[0].parent.as_deref(), Some("00f067aa0ba902b7"));
}

#[test]
fn pipelined_requests_are_answered_in_turn() {
    let room = Room::start(echo());
    let mut client = room.client();
    client.send((0..20).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: h\r\n\r\n")).collect::<String>());
    for i in 0..20 {
        assert!(client.message().text().starts_with(&format!("GET /{i} ")));
    }
    assert_eq!(room.ledger.ended(20).len(), 20);
}

#[test]
fn a_client_of_http_1_0_gets_what_it_understands() {
    let room = Room::start(origin(|_, mut client| {
        while client.try_message().is_some() {
            client.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
            client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        }
    }));
    let mut client = room.client();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = client.message();
    assert_eq!(
        (answer.status(), answer.field("transfer-encoding"), answer.field("connection")),
        (200, None, Some("close"))
    );
    assert_eq!(answer.text(), "hello");

    let room = Room::start(echo());
    let mut client = room.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.message().field("connection"), Some("keep-alive"));
    }
}

#[test]
fn events_are_passed_on_as_they_come() {
    let (allow, allowed) = std::sync::mpsc::channel::<()>();
    let allowed = std::sync::Mutex::new(allowed);
    let room = Room::start(origin(move |_, mut client| {
        client.try_message();
        client.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            client.send("6\r\ndata\n\n\r\n");
            // the next event only comes when the client has seen this one
            allowed.lock().expect("one user").recv().expect("the test goes on");
        }
        client.send("0\r\n\r\n");
    }));
    let mut client = room.client();
    client.send("GET /events HTTP/1.1\r\nHost: h\r\n\r\n");
    client.head().expect("an answer");
    for _ in 0..3 {
        assert_eq!(client.bytes(11).as_deref(), Some(&b"6\r\ndata\n\n\r\n"[..]));
        allow.send(()).expect("the origin waits");
    }
    assert_eq!(client.bytes(5).as_deref(), Some(&b"0\r\n\r\n"[..]));
    assert_eq!(room.ledger.ended(1)[0].kind, RequestKind::Stream);
}

/// Routes are read while requests come in: the log that says so must be true for whoever connects after it.
#[test]
fn who_connects_after_the_routes_have_changed_meets_the_new_ones() {
    let room = Room::start(echo());
    for round in 1..=20 {
        let template = format!("/version/{round}/{{id}}");
        room.routes.send_modify(|table| *table = Arc::new(table.with_templates([template.as_str()])));
        room.client().get(&format!("/version/{round}/7"));
        let ended = room.ledger.ended(round);
        assert_eq!(ended.last().and_then(|last| last.route.clone()), Some(template));
    }
    room.stop(PATIENCE);
}

#[test]
fn probes_are_apart_and_our_own_requests_are_nobody_s_traffic() {
    let room = Room::start(echo());
    let mut client = room.client();
    client.send("GET /openapi.json HTTP/1.1\r\nHost: h\r\nUser-Agent: content-factory-sidecar/0.1.0\r\n\r\n");
    assert_eq!(client.message().status(), 200);
    client.get("/livez");
    client.get("/health");
    let ended = room.ledger.ended(2);
    assert_eq!((ended[0].kind, ended[0].trace_id.is_some()), (RequestKind::Probe, false));
    assert_eq!((ended[1].kind, ended[1].trace_id.is_some()), (RequestKind::Ordinary, true));
}

#[test]
fn no_route_is_tapped_unless_it_is_named() {
    let config = config(echo(), json!({}));
    assert!(config.taps.is_empty(), "{:?}", config.taps);
    let room = Room::with_sink(&config, |ledger| ledger);
    let mut client = room.client();
    for (count, path) in ["/", "/products", "/products/7", "/tapped", "/unknown"].into_iter().enumerate() {
        assert_eq!(client.get(path).status(), 200);
        assert!(room.ledger.ended(count + 1).iter().all(|ended| ended.tapped.is_none()), "{path}");
    }
}

#[test]
fn a_tapped_route_gives_a_bounded_copy() {
    let room = Room::with(echo(), json!({"taps": ["/tapped"], "limits.tap": 20}));
    let mut client = room.client();
    let answer = client.get("/tapped");
    client.get("/products");
    let ended = room.ledger.ended(2);
    assert_eq!(ended[0].tapped.as_deref(), Some(&answer.body[..20]));
    assert_eq!(ended[1].tapped, None);
}
