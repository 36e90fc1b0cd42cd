//! Clients of HTTP/2 that do not bring a head to its end, flood their connection, or break the protocol: told by GOAWAY
//! or RST_STREAM, and counted by reason.

use crate::h2_world::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, Raw, SETTINGS,
    WINDOW_UPDATE, block, encode,
};
use crate::proxy_world::{Application, Client};
use crate::rig::Sidecar;

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "h.example")];

/// The name of the last error code, and its number as in a frame.
const CALM: (&str, [u8; 4]) = ("enhance_your_calm", [0, 0, 0, 11]);

const QUICK: [(&str, &str); 1] = [("SIDECAR_PROXY__TIMEOUTS__HEADER", "300ms")];

/// The value of a series with these labels.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {page}")).parse().expect("a number")
}

fn cut_off(page: &str, reason: &str) -> f64 {
    value(page, &format!("content_factory_proxy_connections_cut_off_total{{error_type=\"{reason}\"}}"))
}

fn errors(page: &str, frame: &str, code: &str) -> f64 {
    value(page, &format!("content_factory_proxy_http2_errors_total{{frame=\"{frame}\",error_type=\"{code}\"}}"))
}

/// The code of the GOAWAY that ends a connection, behind whatever else came before it.
async fn farewell(raw: &mut Raw) -> Vec<u8> {
    let frame = raw.next_of(u32::MAX).await.expect("a GOAWAY before the end");
    assert_eq!(frame.kind, GOAWAY);
    frame.payload[4..8].to_vec()
}

/// RFC 9113, section 6.10: a header block has one end, which must come as soon as that of a head of HTTP/1.1.
#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_has_the_deadline_of_a_head() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &QUICK).await;
    let open = encode((HEADERS, END_STREAM), 1, &block(&GET));
    let more = encode((CONTINUATION, 0), 1, &block(&[("x", "y")]));
    let half = encode((HEADERS, END_HEADERS), 1, &block(&GET));
    let beginnings = [open.clone(), [&open[..], &more].concat(), half[..20].to_vec()];
    for beginning in &beginnings {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(beginning).await;
        assert_eq!(farewell(&mut raw).await, CALM.1);
        assert!(raw.rest().await.is_empty(), "it is closed");
    }
    let page = sidecar.metrics().await;
    assert_eq!(cut_off(&page, "header_timeout"), beginnings.len() as f64);
    assert_eq!(errors(&page, "goaway", CALM.0), beginnings.len() as f64);
    assert_eq!(cut_off(&page, "flood"), 0.0);
}

/// RFC 9113, section 3.4: SETTINGS are a part of the preface.
#[tokio::test]
async fn a_preface_that_does_not_come_to_its_end_has_the_deadline_of_a_head() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &QUICK).await;
    let mut raw = Raw::connect(sidecar.proxy).await;
    raw.bytes(PREFACE).await;
    assert_eq!(farewell(&mut raw).await, CALM.1);
    let mut half = Client::connect(sidecar.proxy).await.unwrap();
    half.send(&PREFACE[..20]).await.unwrap();
    assert_eq!(half.answer().await, Some((408, false)), "it does not speak HTTP/2 yet");
    let page = sidecar.metrics().await;
    assert_eq!(cut_off(&page, "header_timeout"), 1.0);
    assert_eq!(value(&page, "content_factory_proxy_refusals_total{error_type=\"header_timeout\"}"), 1.0);
}

/// RFC 9113, section 10.5.
#[tokio::test]
async fn who_sends_nothing_but_frames_that_move_nothing_is_told_to_calm_down() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let floods = [
        encode((PING, 0), 0, b"12345678"),
        encode((SETTINGS, 0), 0, b""),
        encode((WINDOW_UPDATE, 0), 0, &[0, 0, 0, 1]),
        encode((2, 0), 1, &[0, 0, 0, 0, 16]),
        encode((0xbb, 0), 1, b"unknown"),
    ];
    for flood in &floods {
        let mut raw = Raw::greet(sidecar.proxy).await;
        raw.bytes(&flood.repeat(600)).await;
        assert_eq!(farewell(&mut raw).await, CALM.1, "type {}", flood[3]);
    }
    let page = sidecar.metrics().await;
    assert_eq!(cut_off(&page, "flood"), floods.len() as f64);
    assert_eq!(errors(&page, "goaway", CALM.0), floods.len() as f64);
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
    assert_eq!(cut_off(&sidecar.metrics().await, "flood"), 0.0);
}

/// RFC 9113, section 5.4: what the library refuses is counted like what the engine refuses.
#[tokio::test]
async fn errors_that_clients_are_told_are_counted_by_code() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let page = sidecar.metrics().await;
    assert_eq!(errors(&page, "rst_stream", "protocol_error"), 0.0, "an alert on a series that is not there is none");
    let mut raw = Raw::greet(sidecar.proxy).await;
    let wrong = block(&[GET[0], GET[1], GET[2], ("connection", "x")]);
    raw.frame((HEADERS, END_HEADERS | END_STREAM), 1, &wrong).await;
    let frame = raw.next_of(1).await.expect("a frame");
    assert_eq!((frame.kind, &frame.payload[..]), (RST_STREAM, &[0, 0, 0, 1][..]));
    raw.frame((DATA, 0), 0, b"of no stream").await;
    assert_eq!(farewell(&mut raw).await, [0, 0, 0, 1]);
    let page = sidecar.metrics().await;
    assert_eq!(errors(&page, "rst_stream", "protocol_error"), 1.0);
    assert_eq!(errors(&page, "goaway", "protocol_error"), 1.0);
    assert_eq!(cut_off(&page, "flood") + cut_off(&page, "header_timeout"), 0.0);
}
