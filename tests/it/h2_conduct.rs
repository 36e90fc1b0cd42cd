//! Clients of HTTP/2 that do not greet, or break the protocol: told by GOAWAY or RST_STREAM, and counted by reason. Floods are
//! points 28 to 31 of the checklist.

use crate::h2_fate::{CALM, Fate, GET, cut_off, errors, refusals};
use crate::h2_world::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, Raw, WINDOW_UPDATE, block, encode,
};
use crate::proxy_world::{Application, Client};
use crate::rig::Sidecar;

const QUICK: [(&str, &str); 1] = [("SIDECAR_PROXY__TIMEOUTS__HEADER", "300ms")];

/// RFC 9113, section 3.4: SETTINGS are a part of the preface.
#[tokio::test]
async fn a_preface_that_does_not_come_to_its_end_has_the_deadline_of_a_head() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &QUICK).await;
    let mut raw = Raw::connect(sidecar.proxy).await;
    raw.bytes(PREFACE).await;
    assert_eq!(raw.farewell().await, CALM);
    let mut half = Client::connect(sidecar.proxy).await.unwrap();
    half.send(&PREFACE[..20]).await.unwrap();
    assert_eq!(half.answer().await, Some((408, false)), "it does not speak HTTP/2 yet");
    let page = sidecar.metrics().await;
    assert_eq!(cut_off(&page, "header_timeout"), 1);
    assert_eq!(refusals(&page, "header_timeout"), 1);
}

/// Clients that open windows and measure distances for each answer, and give some requests up, are ordinary.
#[tokio::test]
async fn who_asks_may_send_control_frames_as_long_as_it_likes() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    for stream in (1..1_000).step_by(2) {
        let control = [
            encode((PING, 0), 0, b"12345678"),
            encode((WINDOW_UPDATE, 0), 0, &[0, 0, 0, 6]),
            encode((2, 0), stream, &[0, 0, 0, 0, 16]),
        ];
        raw.bytes(&control.concat()).await;
        raw.frame((HEADERS, END_HEADERS | END_STREAM), stream, &block(&GET)).await;
        let frame = raw.next_of(stream).await.expect("an answer");
        assert_eq!(frame.kind, HEADERS, "{frame:?}");
        raw.frame((RST_STREAM, 0), stream, &[0, 0, 0, 8]).await;
    }
    assert_eq!(cut_off(&sidecar.metrics().await, "flood"), 0);
}

/// RFC 9113, section 5.4: what the library refuses is counted like what the engine refuses.
#[tokio::test]
async fn errors_that_clients_are_told_are_counted_by_code() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let page = sidecar.metrics().await;
    assert_eq!(errors(&page, "rst_stream", "protocol_error"), 0, "an alert on a series that is not there is none");
    let mut raw = Raw::greet(sidecar.proxy).await;
    let wrong = block(&[GET[0], GET[1], GET[2], ("connection", "x")]);
    raw.frame((HEADERS, END_HEADERS | END_STREAM), 1, &wrong).await;
    assert_eq!(raw.fate(1).await, Fate::Reset("protocol_error"));
    raw.frame((DATA, 0), 0, b"of no stream").await;
    assert_eq!(raw.farewell().await, "protocol_error");
    let page = sidecar.metrics().await;
    assert_eq!(errors(&page, "rst_stream", "protocol_error"), 1);
    assert_eq!(errors(&page, "goaway", "protocol_error"), 1);
    assert_eq!(cut_off(&page, "flood") + cut_off(&page, "header_timeout"), 0);
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
    raw.asks(1, &GET).await;
    assert_eq!(raw.fate(1).await, Fate::answer(200, ""), "the connection goes on");
    assert!(!sidecar.log().contains("PING"), "{}", sidecar.log());
}
