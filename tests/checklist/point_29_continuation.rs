//! Point 29: header blocks without end (RUSTSEC-2024-0332).

use std::sync::atomic::Ordering;

use crate::h2_fate::{CALM, Fate, GET, cut_off, errors, others_are_served};
use crate::h2_world::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Raw, block, encode};
use crate::hostile::{House, Piece, Then, answer, piece};
use crate::proxy_world::Application;
use crate::rig::Sidecar;

/// A request that goes on in so many further frames.
fn in_frames(count: usize, last: u8) -> Vec<u8> {
    let mut bytes = encode((HEADERS, END_STREAM), 1, &block(&GET));
    for number in 1..=count {
        let flags = if number == count { last } else { 0 };
        bytes.extend(encode((CONTINUATION, flags), 1, &block(&[("x", "y")])));
    }
    bytes
}

/// RFC 9113, section 6.10: a block may come in several frames.
#[tokio::test]
async fn a_block_in_a_few_frames_is_a_head() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    for count in 1..=5 {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(&in_frames(count, END_HEADERS)).await;
        assert_eq!(raw.fate(1).await, Fate::answer(200, ""), "{count}");
    }
    assert_eq!(errors(&sidecar.metrics().await, "goaway", CALM), 0);
}

/// RFC 9113, section 10.5: the list of 16 KiB that we announce fits into a few frames of 16 KiB: more of them are a flood,
/// however small, and even if they were to end.
#[tokio::test]
async fn a_block_in_more_frames_ends_the_connection() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let empty =
        [encode((HEADERS, END_STREAM), 1, &block(&GET)), encode((CONTINUATION, 0), 1, b"").repeat(100)].concat();
    let floods = [in_frames(10, END_HEADERS), in_frames(2_000, 0), empty];
    for flood in &floods {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(flood).await;
        assert_eq!(raw.farewell().await, CALM, "{} bytes", flood.len());
    }
    assert_eq!(application.requests.load(Ordering::Relaxed), 0, "the application saw one");
    let page = sidecar.metrics().await;
    assert_eq!(errors(&page, "goaway", CALM), floods.len() as u64);
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 6.10: nothing may stand within a block, and no block begins with its continuation.
#[tokio::test]
async fn what_breaks_a_block_ends_the_connection() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let open = encode((HEADERS, END_STREAM), 1, &block(&GET));
    let more = |stream| encode((CONTINUATION, END_HEADERS), stream, b"");
    let cases = [
        ("a continuation of nothing", more(1)),
        ("a continuation of the connection", [&open[..], &more(0)].concat()),
        ("one of another stream", [&open[..], &more(3)].concat()),
        ("another request within", [&open[..], &open].concat()),
        ("data within", [&open[..], &encode((DATA, 0), 1, b"x")].concat()),
        ("a frame that nobody knows", [&open[..], &encode((0xbb, 0), 0, b"x")].concat()),
        ("one behind the end", [&open[..], &more(1), &more(1)].concat()),
    ];
    for (what, bytes) in &cases {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(bytes).await;
        assert_eq!(raw.farewell().await, "protocol_error", "{what}");
    }
    assert_eq!(errors(&sidecar.metrics().await, "goaway", "protocol_error"), cases.len() as u64);
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 6.10: a header block has one end, which must come as soon as that of a head of HTTP/1.1.
#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_has_the_deadline_of_a_head() {
    let application = Application::start().await;
    let quick = [("SIDECAR_PROXY__TIMEOUTS__HEADER", "300ms")];
    let sidecar = Sidecar::start(application.address, &[], &quick).await;
    let half = encode((HEADERS, END_HEADERS), 1, &block(&GET));
    let beginnings = [encode((HEADERS, END_STREAM), 1, &block(&GET)), in_frames(1, 0), half[..20].to_vec()];
    for beginning in &beginnings {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(beginning).await;
        assert_eq!(raw.farewell().await, CALM);
    }
    let page = sidecar.metrics().await;
    assert_eq!(cut_off(&page, "header_timeout"), beginnings.len() as u64);
    assert_eq!(errors(&page, "goaway", CALM), beginnings.len() as u64);
    assert_eq!(cut_off(&page, "flood"), 0);
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 10.5: an application whose head does not end is told so, and the next request has another connection.
#[tokio::test]
async fn a_head_of_the_application_without_end_becomes_502() {
    let house = House::start(b"", &[]).await;
    let open = || piece((HEADERS, 0), &block(&[(":status", "200")]));
    let more = |count: usize| (0..count).map(|_| piece((CONTINUATION, 0), &block(&[("x", "y")])));
    let endless: Vec<Piece> = [open()].into_iter().chain(more(20)).collect();
    house.never_whole("a head in many frames", (endless, Then::Serve)).await;
    house.never_whole("a head without end", (vec![open()], Then::Flood(encode((CONTINUATION, 0), 3, b"")))).await;
    let late: Vec<Piece> = [answer(0, &[]), open()].into_iter().chain(more(20)).collect();
    house.never_whole("trailers without end", (late, Then::Serve)).await;
    house.counted("upstream_b", 3).await;
    assert!(house.told().contains(&CALM), "{:?}", house.told());
}
