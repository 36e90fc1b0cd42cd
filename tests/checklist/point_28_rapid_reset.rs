//! Point 28: requests that are given up at once, by the client (CVE-2023-44487) or by us because it makes us (CVE-2025-8671).
//!
//! What such floods leave of the throughput of others is measured by `tests/floods`.

use std::sync::atomic::Ordering;

use crate::h2_fate::{CALM, Fate, GET, code, cut_off, errors, others_are_served};
use crate::h2_world::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE, block, encode,
};
use crate::hostile::{House, Then, answer, data, piece};
use crate::proxy_world::Application;
use crate::rig::Sidecar;

/// A request for what is never answered.
const HOLD: [(&str, &str); 4] = [GET[0], GET[1], (":path", "/hold"), GET[3]];

/// An increment beyond any window, which makes us reset the stream.
const OVERFLOW: [u8; 4] = [0x7f, 0xff, 0xff, 0xff];

/// CANCEL, as in a frame.
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn given_up(stream: u32) -> Vec<u8> {
    let request = encode((HEADERS, END_HEADERS | END_STREAM), stream, &block(&HOLD));
    [request, encode((RST_STREAM, 0), stream, &CANCEL)].concat()
}

/// RFC 9113, section 10.5: more than 20 requests that were given up before anyone looked at them end the connection.
#[tokio::test]
async fn requests_that_are_given_up_at_once_end_the_connection() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    assert_eq!(raw.next_of(0).await.expect("settings").kind, SETTINGS);
    raw.bytes(&(0..30).flat_map(|number| given_up(2 * number + 1)).collect::<Vec<u8>>()).await;
    assert_eq!(raw.farewell().await, CALM);
    let page = sidecar.metrics().await;
    assert_eq!((errors(&page, "goaway", CALM), cut_off(&page, "flood")), (1, 0), "by the library's limit");
    assert!(application.requests.load(Ordering::Relaxed) <= 20, "the application saw most of them");
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 10.5: the same when each is on its way to the application: its credit ends it.
#[tokio::test]
async fn requests_that_are_given_up_later_end_the_connection() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let mut rounds = 0;
    let ended = 'rounds: loop {
        let streams = (0..10).map(|place| 2 * (10 * rounds + place) + 1);
        let requests =
            streams.clone().flat_map(|stream| encode((HEADERS, END_HEADERS | END_STREAM), stream, &block(&HOLD)));
        raw.bytes(&[requests.collect(), encode((PING, 0), 0, b"accepted")].concat()).await;
        // what is answered behind them tells that they have been taken
        loop {
            let frame = raw.next_of(0).await.expect("a word before the end");
            match frame.kind {
                GOAWAY => break 'rounds code(&frame.payload[4..]),
                PING => break,
                _ => {}
            }
        }
        raw.bytes(&streams.flat_map(|stream| encode((RST_STREAM, 0), stream, &CANCEL)).collect::<Vec<u8>>()).await;
        rounds += 1;
        assert!(rounds < 1_000, "10,000 of them were let in");
    };
    assert_eq!(ended, CALM);
    let page = sidecar.metrics().await;
    assert_eq!((errors(&page, "goaway", CALM), cut_off(&page, "flood")), (1, 1));
    others_are_served(&sidecar).await;
}

/// RFC 9113, sections 5.4.2 and 6.9: a frame that is wrong costs its client as much as its own reset would.
#[tokio::test]
async fn resets_that_we_are_made_to_send_end_the_connection() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let wrong = |stream: u32| {
        let request = encode((HEADERS, END_HEADERS | END_STREAM), stream, &block(&HOLD));
        [request, encode((WINDOW_UPDATE, 0), stream, &OVERFLOW)].concat()
    };
    let mut sent = 0;
    loop {
        raw.bytes(&wrong(2 * sent + 1)).await;
        sent += 1;
        match raw.fate(2 * sent - 1).await {
            Fate::Reset("flow_control_error") => {}
            Fate::Away(CALM) => break,
            other => panic!("{other:?} to number {sent}"),
        }
        assert!(sent < 10_000, "10,000 of them were let in");
    }
    let page = sidecar.metrics().await;
    assert_eq!((errors(&page, "goaway", CALM), cut_off(&page, "flood")), (1, 1));
    let resets = errors(&page, "rst_stream", "flow_control_error");
    assert!(resets == u64::from(sent) || resets + 1 == u64::from(sent), "{resets} resets of {sent}");
    assert_eq!(application.requests.load(Ordering::Relaxed), 0, "the application was bothered");
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 10.5: who earns its credit by requests of value between them may make us reset 1,024 streams, and no more.
#[tokio::test]
async fn no_connection_makes_us_reset_more_than_1024_streams() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let (mut stream, mut resets) = (1, 0);
    loop {
        raw.asks(stream, &GET).await;
        match raw.fate(stream).await {
            Fate::Answer(200, _) => {}
            Fate::Away(CALM) => break,
            other => panic!("{other:?} behind {resets}"),
        }
        let request = encode((HEADERS, END_HEADERS), stream + 2, &block(&HOLD));
        raw.bytes(&[request, encode((WINDOW_UPDATE, 0), stream + 2, &OVERFLOW)].concat()).await;
        match raw.fate(stream + 2).await {
            Fate::Reset("flow_control_error") => resets += 1,
            Fate::Away(CALM) => break,
            other => panic!("{other:?} behind {resets}"),
        }
        stream += 4;
        assert!(resets < 2_000, "as many as it likes");
    }
    // the one that is too much may be told before the end
    assert!((1_024..=1_025).contains(&resets), "{resets}");
    let page = sidecar.metrics().await;
    assert_eq!((errors(&page, "goaway", CALM), cut_off(&page, "flood")), (1, 0), "by the library's limit");
    assert_eq!(errors(&page, "rst_stream", "flow_control_error"), resets);
    others_are_served(&sidecar).await;
}

/// RFC 9113, section 10.5: an application that resets what is over is cut off, and costs one request.
#[tokio::test]
async fn an_application_that_floods_with_resets_is_cut_off() {
    let house = House::start(b"", &[]).await;
    house.serves("nothing").await;
    let flood = encode((RST_STREAM, 0), 1, &CANCEL);
    house.never_whole("resets of a stream that is over", (vec![], Then::Flood(flood))).await;
    house.counted("upstream_bad_answer", 1).await;
    assert_eq!(house.connections(), 2, "the flooded one and the next");
}

/// RFC 9113, section 5.1: what comes for a stream that is over makes us reset it, each time, but not for ever.
#[tokio::test]
async fn an_application_that_makes_us_reset_is_cut_off() {
    let house = House::start(b"", &[]).await;
    house.serves("nothing").await;
    let flood = encode((DATA, 0), 1, b"x");
    house.never_whole("data of a stream that is over", (vec![answer(0, &[]), data(0, b"x")], Then::Flood(flood))).await;
    house.counted("upstream_bad_answer", 1).await;
    let resets = house.told().iter().filter(|code| **code == "stream_closed").count();
    assert!(resets < 1_000, "{resets} resets");
}

/// RFC 9113, section 5.4.2: an error of a stream is one of its request, and of no other.
#[tokio::test]
async fn an_application_that_resets_every_request_costs_each_its_answer() {
    let house = House::start(b"", &[]).await;
    for _ in 0..50 {
        house.play((vec![piece((RST_STREAM, 0), &[0, 0, 0, 2])], Then::Serve));
        let answer = house.ask().await.expect("an answer");
        assert_eq!(answer.status, 502);
    }
    house.serves("fifty resets").await;
    house.counted("upstream_broken", 50).await;
    assert_eq!(house.connections(), 1, "one reset is no reason to leave a connection");
}
