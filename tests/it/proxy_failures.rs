//! What goes wrong around a request: malformed clients, a broken application, overload, the end of the process.

use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use content_factory_sidecar::model::request::{CutOff, Outcome, Refusal, RequestKind, UpstreamFault};
use content_factory_sidecar::proxy;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::port::Port;
use crate::proxy_room::{Moment, Room, config, echo};
use crate::raw::{PATIENCE, origin};

/// An address where nothing listens.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn error_type(text: &str) -> String {
    let body: Value = serde_json::from_str(text).expect("a JSON body");
    body["error"]["type"].as_str().expect("a type").to_owned()
}

#[test]
fn malformed_requests_are_refused_closed_and_counted_without_reaching_the_application() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let room = Room::start(origin(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    }));
    let long = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(20_000));
    let large = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}\r\n\r\n", "x".repeat(70_000));
    let table: &[(&str, Refusal)] = &[
        ("GET / HTTP/1.1\r\n\r\n", Refusal::Malformed),
        ("GET / HTTP/1.1\nHost: h\n\n", Refusal::Malformed),
        ("\u{16}\u{3}\u{1}", Refusal::Malformed),
        ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::Malformed),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", Refusal::Malformed),
        ("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::MethodNotAllowed),
        ("GET / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n", Refusal::ExpectationFailed),
        ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Refusal::UnknownCoding),
        ("PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n", Refusal::VersionNotSupported),
        (&long, Refusal::TargetTooLong),
        (&large, Refusal::HeadTooLarge),
    ];
    for (number, (request, refusal)) in table.iter().enumerate() {
        let mut client = room.client();
        client.send(request);
        let answer = client.message();
        assert_eq!((answer.status(), answer.field("connection")), (refusal.status(), Some("close")), "{refusal:?}");
        assert_eq!(error_type(&answer.text()), refusal.label());
        assert!(client.is_closed());
        let last = room.ledger.ended(number + 1).pop().expect("at least one");
        assert_eq!((last.status, last.outcome), (refusal.status(), Outcome::Refused(*refusal)));
    }
    assert_eq!(seen.load(Ordering::Relaxed), 0, "the application saw no connection");
}

#[test]
fn an_application_that_is_down_is_said_to_be_and_found_when_it_is_back() {
    let port = Port::reserve();
    let room = Room::start(port.address());
    let mut client = room.client();
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")));
    assert_eq!(error_type(&answer.text()), "upstream_refused");
    let listener = TcpListener::bind(port.address()).expect("the port is ours");
    let application = std::thread::spawn(move || listener.accept().map(drop));
    let answer = client.get("/");
    assert_eq!(answer.status(), 502, "the connection is used again, and the application reached");
    assert_eq!((error_type(&answer.text()).as_str(), answer.field("retry-after")), ("upstream_broken", Some("1")));
    application.join().expect("no panic").expect("a connection");
    let outcomes: Vec<Outcome> = room.ledger.ended(2).iter().map(|ended| ended.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed(UpstreamFault::Refused), Outcome::Failed(UpstreamFault::Broken)]);
}

#[test]
fn a_broken_answer_never_looks_whole() {
    for head in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let room = Room::start(origin(move |_, mut client| {
            client.try_message();
            client.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n5\r\nhello\r\n"));
        }));
        let mut client = room.client();
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(client.try_message().is_none(), "the body is cut off, and seen to be");
        let ended = room.ledger.ended(1);
        assert_eq!((ended[0].status, ended[0].outcome), (200, Outcome::Failed(UpstreamFault::Broken)));
    }
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let (tell, told) = mpsc::channel();
    let room = Room::start(origin(move |_, mut client| {
        client.try_message();
        let closed = client.is_closed(); // waits for the proxy to cancel
        tell.send(closed).expect("the test waits");
    }));
    let mut client = room.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.stream.shutdown(Shutdown::Write).expect("still connected");
    assert!(told.recv_timeout(PATIENCE).expect("cancelled at once"));
    let ended = room.ledger.ended(1);
    assert_eq!((ended[0].status, ended[0].outcome), (0, Outcome::ClientGone));
}

#[test]
fn with_half_close_a_client_that_only_stops_sending_is_answered() {
    let room = Room::with(echo(), json!({"half_close": true}));
    let mut client = room.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.stream.shutdown(Shutdown::Write).expect("still connected");
    assert_eq!(client.message().status(), 200);
    assert_eq!(room.ledger.ended(1)[0].outcome, Outcome::Answered);
}

#[test]
fn a_body_that_is_cut_off_is_cut_off_at_the_application_too() {
    let (tell, told) = mpsc::channel();
    let room = Room::start(origin(move |_, mut client| {
        let record = client.record();
        assert!(client.try_message().is_none(), "half a body");
        tell.send(record).expect("the test waits");
    }));
    let mut client = room.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
    client.stream.shutdown(Shutdown::Write).expect("still connected");
    let record = told.recv_timeout(PATIENCE).expect("cut off");
    assert!(record.lock().expect("nobody panicked").ends_with(b"\r\n\r\n3\r\nhel\r\n"), "no final chunk");
    assert_eq!(room.ledger.ended(1)[0].outcome, Outcome::ClientGone);
}

#[test]
fn a_kept_connection_that_has_closed_costs_a_safe_request_nothing() {
    // each connection answers once and says nothing of closing: the classic race of keep-alive
    let room = Room::start(origin(|_, mut client| {
        client.try_message();
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        client.try_message(); // takes the second request, and dies over it
    }));
    let mut client = room.client();
    assert_eq!(client.get("/1").status(), 200);
    assert_eq!(client.get("/2").status(), 200, "sent again on a fresh connection");
    client.send("POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    let post = client.message();
    assert_eq!(post.status(), 502, "what may have had an effect is never repeated");
    assert_eq!(post.field("retry-after"), None, "nor is it advised");
    let resends: Vec<Option<u8>> = room.ledger.ended(3).iter().map(|ended| ended.resends).collect();
    assert_eq!(resends, [Some(0), Some(1), Some(0)]);
    assert_eq!(room.counters.resends.load(Ordering::Relaxed), 1);
}

#[test]
fn too_much_at_once_is_refused_with_503() {
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (tell, told) = mpsc::channel();
    let application = origin(move |_, mut client| {
        client.try_message();
        tell.send(()).expect("the test waits");
        let _ = released.lock().expect("one user").recv();
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let room = Room::with(application, json!({"limits.in_flight": 1}));
    let mut first = room.client();
    first.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    told.recv().expect("the application has it");
    assert_eq!(room.ledger.in_flight(), 1);
    let refused = room.client().get("/");
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    release.send(()).expect("the application waits");
    assert_eq!(first.message().status(), 200);
    let outcomes: Vec<Outcome> = room.ledger.ended(2).iter().map(|ended| ended.outcome).collect();
    assert_eq!(outcomes, [Outcome::Refused(Refusal::Overload), Outcome::Answered]);
}

#[test]
fn a_connection_too_many_is_refused_before_it_says_anything() {
    let room = Room::with(echo(), json!({"limits.connections": 1}));
    let mut first = room.client();
    assert_eq!(first.get("/").status(), 200);
    let mut second = room.client();
    assert_eq!(second.message().status(), 503);
    assert_eq!(first.get("/").status(), 200, "who is in stays in");
    assert_eq!(room.counters.refused(Refusal::Overload), 1);
    assert_eq!(room.ledger.ended(3)[1].outcome, Outcome::Refused(Refusal::Overload));
}

#[test]
fn a_tunnel_opens_after_101_and_closes_side_by_side() {
    let room = Room::start(origin(|_, mut client| {
        let head = client.head().expect("a head");
        assert!(head.contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "{head}");
        client.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nfirst");
        assert_eq!(client.bytes(4).as_deref(), Some(&b"ping"[..]));
        client.send("pong");
        assert!(client.rest().is_empty());
        client.send("after the client's end");
    }));
    let mut client = room.client();
    client.send("GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().expect("an answer").contains("101 Switching Protocols\r\n"));
    assert_eq!(client.bytes(5).as_deref(), Some(&b"first"[..]));
    client.send("ping");
    assert_eq!(client.bytes(4).as_deref(), Some(&b"pong"[..]));
    client.stream.shutdown(Shutdown::Write).expect("still connected");
    assert_eq!(client.rest(), b"after the client's end");
    let ended = room.ledger.ended(1);
    assert_eq!((ended[0].kind, ended[0].status, ended[0].outcome), (RequestKind::Tunnel, 101, Outcome::Answered));
    assert_eq!((ended[0].request_bytes, ended[0].response_bytes), (4, 31));
}

#[test]
fn a_refused_head_request_gets_a_head_alone() {
    let room = Room::start(echo());
    let mut client = room.client();
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n");
    let head = client.head().expect("an answer");
    assert!(head.starts_with("HTTP/1.1 417 ") && !head.contains("Content-Length: 0"), "{head}");
    assert!(client.is_closed());
}

#[test]
fn a_drain_ends_every_connection_and_loses_no_request() {
    let room = Room::start(echo());
    let (mut idle, mut busy) = (room.client(), room.client());
    assert_eq!(idle.get("/1").field("connection"), None);
    busy.send("POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n");
    room.conductor.drain_within(Duration::from_secs(8));
    let (address, ledger) = (room.address, room.ledger.clone());
    let stopped = std::thread::spawn(move || room.stop(Duration::from_secs(8)));
    busy.send("hello");
    assert_eq!(busy.message().field("connection"), Some("close"));
    let last = idle.get("/3");
    assert_eq!((last.status(), last.field("connection")), (200, Some("close")), "one more request is served");
    stopped.join().expect("the drain ends before its deadline");
    assert!(std::net::TcpStream::connect(address).is_err(), "nothing listens any more");
    assert_eq!(ledger.ended(3).iter().filter(|ended| ended.outcome == Outcome::Answered).count(), 3);
}

#[test]
fn the_deadline_of_a_drain_breaks_off_what_is_left() {
    let (tell, told) = mpsc::channel();
    let room = Room::start(origin(move |_, mut client| {
        client.head();
        tell.send(()).expect("the test waits");
        client.rest();
    }));
    let mut client = room.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let ledger = room.ledger.clone();
    told.recv_timeout(PATIENCE).expect("the application has it");
    room.stop(Duration::from_millis(300));
    let ended = ledger.ended(1);
    assert_eq!(
        (ended[0].status, ended[0].outcome),
        (0, Outcome::CutOff(CutOff::Shutdown)),
        "the client was still there"
    );
}

#[test]
fn a_sink_that_panics_harms_no_request() {
    let room = Room::with_sink(&config(echo(), json!({})), |ledger| {
        ledger.and(|moment| {
            if let Moment::End(record) = moment {
                assert!(record.target != b"/panic", "a sink with a bug");
            }
        })
    });
    let mut client = room.client();
    for target in ["/panic", "/1", "/panic", "/2"] {
        assert_eq!(client.get(target).status(), 200);
    }
    room.ledger.ended(4);
    assert_eq!(room.counters.sink_panics.load(Ordering::Relaxed), 2);
}

#[test]
fn a_sink_is_told_that_time_passes_though_no_request_comes() {
    let (sender, ticks) = mpsc::channel();
    let _room = Room::with_sink(&config(NOWHERE, json!({})), |ledger| {
        let sender = sender.clone();
        ledger.and(move |moment| {
            if let Moment::Tick = moment {
                let _ = sender.send(()); // the test may have ended
            }
        })
    });
    for _ in 0..3 {
        ticks.recv_timeout(PATIENCE).expect("a tick: spans would wait in their chunk for ever");
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_port_and_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let port = taken.local_addr().expect("bound").port();
    let mut config = config(NOWHERE, json!({}));
    config.listen = SocketAddr::from(([127, 0, 0, 1], port));
    let error = proxy::bind(&config).expect_err("the port is taken").to_string();
    assert!(error.contains(&port.to_string()) && error.contains("proxy.listen"), "{error}");
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.reuse_port = true;
    let first = proxy::bind(&config).expect("a free port");
    config.listen = first.address();
    proxy::bind(&config).expect("joined on purpose");
    config.reuse_port = false;
    proxy::bind(&config).expect_err("not by accident");
}

#[test]
fn several_workers_share_the_port() {
    let room = Room::with(echo(), json!({"workers": 3}));
    for _ in 0..30 {
        assert_eq!(room.client().get("/").status(), 200);
    }
    room.ledger.ended(30);
}

#[test]
fn a_name_is_looked_up_off_the_data_path() {
    let port = echo().port();
    let room = Room::with(NOWHERE, json!({"upstream": format!("http://localhost:{port}")}));
    let mut client = room.client();
    let deadline = Instant::now() + PATIENCE;
    while client.get("/").status() != 200 {
        assert!(Instant::now() < deadline, "the name is not found");
    }
}
