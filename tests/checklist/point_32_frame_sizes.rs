//! Point 32: frames of one byte, and those beyond what may be.
//!
//! What they cost us, compared to what they cost the client, is measured by `tests/floods` (`cost.rs`).

use std::sync::atomic::Ordering;

use crate::h2_fate::{CALM, Fate, cut_off, errors, others_are_served};
use crate::h2_world::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, encode,
};
use crate::hostile::{House, Then, answer, data, of_all};
use crate::proxy_world::Application;
use crate::rig::Sidecar;

/// One more than we allow (RFC 9113, section 4.2).
const TOO_LARGE: usize = (16 << 10) + 1;

fn upload(length: &str) -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/upload"), (":authority", "h.example")];
    let fields = [&fields[..], &[("content-length", length)]].concat();
    encode((HEADERS, END_HEADERS), 1, &block(&fields))
}

/// RFC 9113, section 6.1: DATA of one byte each is a body like any other, and arrives whole.
#[tokio::test]
async fn a_body_byte_by_byte_arrives() {
    let house = crate::house::House::echoing(&[]).await;
    let mut raw = Raw::greet(house.sidecar.proxy).await;
    let text: String = (0..20_000).map(|number| char::from(b'a' + (number % 26) as u8)).collect();
    raw.bytes(&upload("20000")).await;
    for piece in text.as_bytes().chunks(1_000) {
        raw.bytes(&piece.iter().flat_map(|byte| encode((DATA, 0), 1, &[*byte])).collect::<Vec<u8>>()).await;
    }
    raw.frame((DATA, END_STREAM), 1, b"").await;
    assert_eq!(raw.fate(1).await, Fate::answer(200, ""));
    let seen = house.seen();
    assert!(seen.ends_with(&text), "{} bytes", seen.len());
    assert_eq!(cut_off(&house.sidecar.metrics().await, "flood"), 0);
}

/// RFC 9113, section 4.1: frames in pieces of one byte are the same frames.
#[tokio::test]
async fn frames_in_pieces_of_one_byte_are_read() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let all = [upload("5"), encode((DATA, 0), 1, b"hello"), encode((DATA, END_STREAM), 1, b"")].concat();
    for byte in &all {
        raw.bytes(&[*byte]).await;
    }
    assert_eq!(raw.fate(1).await, Fate::answer(200, ""));
    others_are_served(&sidecar).await;
}

/// RFC 9113, sections 4.2 and 6.4 to 6.9: a frame that is too large, or not of the size of its kind, ends the connection. For the
/// latter the library has the more general word.
#[tokio::test]
async fn a_frame_of_a_wrong_size_ends_the_connection() {
    const LARGE: &str = "frame_size_error";
    const WRONG: &str = "protocol_error";
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let large = vec![b'x'; TOO_LARGE];
    let cases = [
        ("too much DATA", LARGE, [upload("20000"), encode((DATA, END_STREAM), 1, &large)].concat()),
        ("a head that is too large", LARGE, encode((HEADERS, END_HEADERS | END_STREAM), 1, &large)),
        ("a frame that nobody knows and that is too large", LARGE, encode((0xbb, 0), 0, &large)),
        ("the head of the largest frame", LARGE, vec![255, 255, 255, DATA, 0, 0, 0, 0, 1]),
        ("SETTINGS of five bytes", WRONG, encode((SETTINGS, 0), 0, &[0; 5])),
        ("an answer to SETTINGS that says something", WRONG, encode((SETTINGS, 1), 0, &[0, 3, 0, 0, 0, 1])),
        ("PING of seven bytes", WRONG, encode((PING, 0), 0, &[0; 7])),
        ("PING of nine bytes", WRONG, encode((PING, 0), 0, &[0; 9])),
        ("WINDOW_UPDATE of three bytes", WRONG, encode((WINDOW_UPDATE, 0), 0, &[0; 3])),
        ("RST_STREAM of three bytes", WRONG, [upload("20000"), encode((RST_STREAM, 0), 1, &[0; 3])].concat()),
        ("GOAWAY of seven bytes", WRONG, encode((GOAWAY, 0), 0, &[0; 7])),
    ];
    let mut wrong = Vec::new();
    for (what, expected, bytes) in &cases {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(bytes).await;
        let told = raw.farewell().await;
        if told != *expected {
            wrong.push(format!("{what}: {told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let page = sidecar.metrics().await;
    assert_eq!((errors(&page, "goaway", LARGE), errors(&page, "goaway", WRONG)), (4, 7));
    assert_eq!(application.requests.load(Ordering::Relaxed), 0, "the application saw one");
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 6.1: an answer byte by byte arrives whole, whatever the application thinks of frames.
#[tokio::test]
async fn an_answer_byte_by_byte_arrives() {
    let house = House::start(b"", &[]).await;
    let mut pieces = vec![answer(0, &[])];
    pieces.extend((0..20_000).map(|_| data(0, b"x")));
    pieces.push(data(END_STREAM, b""));
    house.play((pieces, Then::Serve));
    let answer = house.ask().await.expect("an answer");
    assert_eq!((answer.status, answer.body), (200, vec![b'x'; 20_000]));
    house.counted("", 1).await;
    assert_eq!(house.connections(), 1);
}

/// RFC 9113, section 4.2: an application's frame of a wrong size is told, and its request fails.
#[tokio::test]
async fn a_frame_of_a_wrong_size_from_the_application_becomes_a_break() {
    let house = House::start(b"", &[]).await;
    let large = vec![b'x'; TOO_LARGE];
    let cases = [
        ("too much DATA", vec![answer(0, &[]), data(END_STREAM, &large)]),
        ("SETTINGS of five bytes", vec![of_all((SETTINGS, 0), &[0; 5])]),
        ("PING of nine bytes", vec![of_all((PING, 0), &[0; 9])]),
        ("a frame that nobody knows and that is too large", vec![of_all((0xbb, 0), &large)]),
    ];
    let count = cases.len();
    for (what, pieces) in cases {
        house.never_whole(what, (pieces, Then::Serve)).await;
    }
    house.counted("upstream_bad_answer", count as u64).await;
    let told = house.told();
    let times = |wanted: &str| told.iter().filter(|code| **code == wanted).count();
    assert_eq!((times("frame_size_error"), times("protocol_error")), (2, 2), "{told:?}");
    assert!(!told.contains(&CALM), "{told:?}");
}
