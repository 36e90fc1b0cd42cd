//! Point 31: frames that move nothing, and windows that stay shut.
//!
//! Here that each connection ends, how, and that it is counted; `tests/floods` measures what is left for others meanwhile.

use std::time::Duration;

use tokio::time::timeout;

use crate::h2_fate::{CALM, Fate, GET, cut_off, errors, others_are_served};
use crate::h2_world::{
    Answer, DATA, END_HEADERS, HEADERS, PING, PREFACE, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, ask, block, connect,
    encode, open, request,
};
use crate::hostile::{House, Then, answer, data};
use crate::proxy_world::Application;
use crate::rig::{PATIENCE, Sidecar};

/// PRIORITY, which we read over.
const PRIORITY: u8 = 2;

/// A kind that nobody knows, which is to be read over (RFC 9113, section 5.5).
const UNKNOWN: u8 = 0xbb;

/// Memory that such frames may leave behind.
const GROWTH_KIB: u64 = 8 << 10;

/// SETTINGS_INITIAL_WINDOW_SIZE of nothing.
const SHUT: [u8; 6] = [0, 4, 0, 0, 0, 0];

/// An upload on stream 1 whose body is to come.
fn upload() -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/upload"), (":authority", "h.example")];
    encode((HEADERS, END_HEADERS), 1, &block(&fields))
}

/// RFC 9113, section 10.5, with 6.5 (SETTINGS), 6.7 (PING), 6.9 (WINDOW_UPDATE), 6.1 (DATA), 5.3 (PRIORITY) and 5.5: who sends
/// nothing but frames that move nothing is told to calm down.
#[tokio::test]
async fn who_sends_nothing_but_frames_that_move_nothing_is_told_to_calm_down() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let floods = [
        ("PING", encode((PING, 0), 0, b"12345678")),
        ("answers to PING", encode((PING, 1), 0, b"12345678")),
        ("SETTINGS", encode((SETTINGS, 0), 0, b"")),
        ("SETTINGS that change", encode((SETTINGS, 0), 0, &[0, 4, 0, 0, 255, 255])),
        ("WINDOW_UPDATE", encode((WINDOW_UPDATE, 0), 0, &[0, 0, 0, 1])),
        ("WINDOW_UPDATE of a stream", encode((WINDOW_UPDATE, 0), 1, &[0, 0, 0, 1])),
        ("DATA of nothing", encode((DATA, 0), 1, b"")),
        ("DATA of nothing but padding", encode((DATA, 8), 1, &[0])),
        ("PRIORITY", encode((PRIORITY, 0), 1, &[0, 0, 0, 0, 16])),
        ("frames that nobody knows", encode((UNKNOWN, 0), 1, b"unknown")),
    ];
    others_are_served(&sidecar).await;
    let before = sidecar.resident_kib();
    for (what, flood) in &floods {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(&upload()).await;
        raw.bytes(&flood.repeat(900)).await;
        assert_eq!(raw.farewell().await, CALM, "{what}");
    }
    let grown = sidecar.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    let page = sidecar.metrics().await;
    // of DATA that carries nothing the library has had enough before
    assert_eq!(cut_off(&page, "flood"), floods.len() as u64 - 2);
    assert_eq!(errors(&page, "goaway", CALM), floods.len() as u64);
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 6.9: an answer that its client takes no byte of is given up, and the application is told.
#[tokio::test]
async fn a_window_that_stays_shut_has_a_deadline() {
    let application = Application::start().await;
    let stall = [("SIDECAR_PROXY__TIMEOUTS__WRITE_STALL", "300ms")];
    let sidecar = Sidecar::start(application.address, &[], &stall).await;
    let mut raw = Raw::connect(sidecar.proxy).await;
    raw.bytes(PREFACE).await;
    raw.frame((SETTINGS, 0), 0, &SHUT).await;
    for stream in [1, 3, 5] {
        raw.asks(stream, &[GET[0], GET[1], (":path", "/endless"), GET[3]]).await;
    }
    for stream in [1, 3, 5] {
        loop {
            let frame = raw.next_of(stream).await.expect("the connection goes on");
            match frame.kind {
                HEADERS => {}
                RST_STREAM => break assert_eq!(frame.payload, [0, 0, 0, 8], "CANCEL"),
                _ => panic!("{frame:?} through a shut window"),
            }
        }
    }
    let gone = |_, page: &str| {
        let series = page.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
        series.filter(|line| line.contains("client_gone")).any(|line| line.ends_with(" 3"))
    };
    sidecar.eventually("/metrics", gone).await;
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 10.5: whatever an application floods us with, it is cut off, the request is 502, and the next one has
/// another connection.
#[tokio::test]
async fn an_application_that_floods_is_cut_off() {
    let house = House::start(b"", &[]).await;
    house.serves("nothing").await;
    let before = house.sidecar.resident_kib();
    let floods = [
        ("PING", encode((PING, 0), 0, b"12345678")),
        ("answers to PING", encode((PING, 1), 0, b"12345678")),
        ("SETTINGS", encode((SETTINGS, 0), 0, b"")),
        ("WINDOW_UPDATE", encode((WINDOW_UPDATE, 0), 0, &[0, 0, 0, 1])),
        ("PRIORITY", encode((PRIORITY, 0), 1, &[0, 0, 0, 0, 16])),
        ("frames that nobody knows", encode((UNKNOWN, 0), 1, b"unknown")),
    ];
    for (number, (what, flood)) in (1..).zip(&floods) {
        house.never_whole(what, (vec![], Then::Flood(flood.clone()))).await;
        assert_eq!(house.connections(), 1 + number, "{what}: its connection was used again");
    }
    house.counted("upstream_bad_answer", floods.len() as u64).await;
    let grown = house.sidecar.resident_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
}

/// RFC 9113, sections 6.1 and 10.5: so is one whose answer has begun and goes on with nothing.
#[tokio::test]
async fn an_answer_of_nothing_without_end_is_cut_off() {
    let house = House::start(b"", &[]).await;
    // on a new connection the first request is stream 1
    let nothing = || (vec![answer(0, &[]), data(0, b"begun")], Then::Flood(encode((DATA, 0), 1, b"")));
    for number in 1..=3 {
        house.play(nothing());
        let error = house.ask().await.expect_err("no whole answer");
        assert!(error.is_reset(), "{error}");
        house.counted("upstream_bad_answer", number).await;
        house.sidecar.eventually("/metrics", |_, page| page.contains("http_server_active_requests")).await;
        assert_eq!(house.connections(), number as usize, "its connection was used again");
    }
    house.serves("three of them").await;
}

/// RFC 9113, section 6.9: an application that takes no byte of a request is 504, and its connection goes on for others.
#[tokio::test]
async fn an_application_whose_window_stays_shut_is_504() {
    let house = House::start(&SHUT, &[("SIDECAR_PROXY__TIMEOUTS__WRITE_STALL", "300ms")]).await;
    // reads to the next head, and answers none of an upload that it has no room for
    house.play((vec![], Then::Serve));
    let client = connect(house.sidecar.proxy).await.expect("a connection");
    let (answer, mut body) = open(&client, request("POST", "/upload")).await.expect("a stream");
    body.send_data(vec![b'x'; 60_000].into(), true).expect("the proxy has room");
    let answer: Answer = crate::h2_world::read(answer).await.expect("an answer");
    assert_eq!((answer.status, answer.text().contains("upstream_timeout")), (504, true), "{}", answer.text());
    let next = ask(&client, request("POST", "/next")).await.expect("an answer");
    assert_eq!((next.status, next.text().as_str()), (200, "good"));
    house.counted("upstream_timeout", 1).await;
    assert_eq!((house.connections(), house.told()), (1, vec!["cancel"]));
}

/// RFC 9113, section 9.1: a connection on which nothing is asked ends, by GOAWAY, however often it says PING.
#[tokio::test]
async fn a_connection_that_asks_nothing_ends_at_its_deadline() {
    let application = Application::start().await;
    let idle = [("SIDECAR_PROXY__TIMEOUTS__CLIENT_IDLE", "300ms")];
    let sidecar = Sidecar::start(application.address, &[], &idle).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let ended = async {
        loop {
            let frame = raw.next_of(0).await.expect("GOAWAY comes before the end");
            match frame.kind {
                crate::h2_world::GOAWAY => break,
                // each answer brings the next question, at a pace that its credit allows
                PING => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => {}
            }
            raw.frame((PING, 0), 0, b"12345678").await;
        }
    };
    timeout(PATIENCE, ended).await.expect("an end in time");
    assert_eq!(cut_off(&sidecar.metrics().await, "flood"), 0);
    assert_eq!(Fate::answer(200, ""), {
        let mut other = Raw::greet(sidecar.proxy).await;
        other.asks(1, &GET).await;
        other.fate(1).await
    });
}
