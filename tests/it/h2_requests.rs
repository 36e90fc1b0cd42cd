//! HTTP/2 in clear text on the proxy's port: translated for the application, both ways, and counted as what it is.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use tokio::time::{Duration, timeout};

use crate::h2_world::{
    Bodies, PREFACE, Raw, SETTINGS, ask, connect, connect_with, get, open, push, read, request, send,
};
use crate::proxy_world::Application;
use crate::rig::{PATIENCE, Sidecar, echo_application};

/// How many requests a page of metrics counts with all of these labels.
pub(crate) fn counted(page: &str, labels: &[&str]) -> u64 {
    let series = page.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
    let wanted = series.filter(|line| labels.iter().all(|label| line.contains(label)));
    wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

const HTTP2: &str = r#"network_protocol_version="2""#;

#[tokio::test]
async fn a_request_is_translated_and_counted_as_http2() {
    let sidecar = Sidecar::start(echo_application().await, &[], &[("SIDECAR_PROXY__VIA", "edge")]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let mut request = request("GET", "/a%20b?c=d");
    for (name, value) in [("x-first", "1"), ("cookie", "a=1"), ("te", "trailers"), ("cookie", "b=2"), ("x-last", "2")] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = ask(&client, request).await.unwrap();
    assert_eq!(answer.status, 200);
    let head = answer.text();
    assert!(head.starts_with("GET /a%20b?c=d HTTP/1.1\r\nhost: h.example\r\nx-first: 1\r\nx-last: 2\r\n"), "{head}");
    for line in ["cookie: a=1; b=2\r\n", "X-Forwarded-For: 127.0.0.1\r\n", "traceparent: 00-", "Via: 2.0 edge\r\n"] {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    assert!(!head.contains("te: "), "{head}");
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string());
    assert_eq!(counted(&sidecar.metrics().await, &[HTTP2, r#"method="GET""#, r#"status_code="200""#]), 1);
    assert_eq!(counted(&sidecar.metrics().await, &[]), 1);
}

#[tokio::test]
async fn a_preface_is_known_however_it_is_cut_and_nothing_else_is_one() {
    let sidecar = Sidecar::start(echo_application().await, &[], &[]).await;
    for cut in 1..PREFACE.len() {
        let mut raw = Raw::connect(sidecar.proxy).await;
        raw.bytes(&PREFACE[..cut]).await;
        tokio::time::sleep(Duration::from_millis(2)).await; // so that it is not one segment
        raw.bytes(&PREFACE[cut..]).await;
        raw.frame((SETTINGS, 0), 0, b"").await;
        assert_eq!(raw.next_of(0).await.expect("an answer").kind, SETTINGS, "cut at {cut}");
    }
    for other in [&b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n"[..], b"PRI * HTTP/2.0\r\nHost: h\r\n\r\n"] {
        let mut raw = Raw::connect(sidecar.proxy).await;
        raw.bytes(other).await;
        let answer = raw.rest().await;
        assert!(answer.starts_with(b"HTTP/1.1 505 "), "{}", String::from_utf8_lossy(&answer));
    }
    // behind a request of HTTP/1.1 it is no preface any more
    let mut raw = Raw::connect(sidecar.proxy).await;
    raw.bytes(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    raw.bytes(PREFACE).await;
    let answers = String::from_utf8_lossy(&raw.rest().await).into_owned();
    assert!(answers.starts_with("HTTP/1.1 200 ") && answers.contains("HTTP/1.1 505 "), "{answers}");
}

#[tokio::test]
async fn by_setting_it_is_not_spoken() {
    let off = [("SIDECAR_PROXY__HTTP2__ENABLED", "false")];
    let sidecar = Sidecar::start(echo_application().await, &[], &off).await;
    let mut raw = Raw::connect(sidecar.proxy).await;
    raw.bytes(PREFACE).await;
    let answer = raw.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 505 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn trailers_that_may_pass_do_both_ways_and_an_unsized_body_is_chunked() {
    let application = Bodies::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (answer, mut body) = open(&client, request("POST", "/")).await.unwrap();
    push(&mut body, Bytes::from(vec![b'x'; 300_000])).await.unwrap();
    let trailers = [("etag", "e"), ("host", "evil"), ("x-forwarded-for", "1.1.1.1")];
    let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
    let answer = read(answer).await.unwrap();
    assert_eq!(answer.text(), "300000 bytes, trailers: etag: e");
    let trailers = answer.trailers.expect("trailers");
    assert_eq!((trailers.len(), &trailers["grpc-status"]), (1, &"7".parse().unwrap()));
    // what is of one hop has no place in HTTP/2 (RFC 9113, section 8.2.2)
    for name in ["transfer-encoding", "connection", "keep-alive"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn bodies_of_any_size_pass_in_bounded_memory() {
    const SIZE: u64 = 96 << 20;
    let application = Bodies::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    get(&client, "/warm").await.unwrap();
    let before = sidecar.resident_kib();
    let (answer, mut body) = open(&client, request("PUT", "/sized")).await.unwrap();
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    for _ in 0..SIZE / piece.len() as u64 {
        push(&mut body, piece.clone()).await.unwrap();
    }
    body.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(answer).await.unwrap().text(), format!("{SIZE} bytes, trailers: "));
    let answer = send(&client, request("GET", &format!("/source/{SIZE}"))).await.unwrap();
    let mut body = timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    let mut received = 0;
    while let Some(piece) = timeout(PATIENCE, body.data()).await.expect("more in time") {
        let piece = piece.unwrap();
        received += piece.len() as u64;
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    assert_eq!(received, SIZE);
    let grown = sidecar.resident_kib().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_application_back_and_nobody_else() {
    let application = Bodies::start().await;
    let stall = [("SIDECAR_PROXY__TIMEOUTS__WRITE_STALL", "1s")];
    let sidecar = Sidecar::start(application.address, &[], &stall).await;
    let client = connect_with(sidecar.proxy, 40_000).await.unwrap();
    let answer = send(&client, request("GET", "/source/1000000000")).await.unwrap();
    let mut stalled = timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    for _ in 0..20 {
        assert_eq!(get(&client, "/other").await.unwrap(), 200);
    }
    let error = loop {
        // its window is never given back
        match timeout(PATIENCE, stalled.data()).await.expect("an end in time") {
            Some(Ok(_)) => {}
            end => break end.expect("no whole body").unwrap_err(),
        }
    };
    assert_eq!((error.is_reset(), error.reason()), (true, Some(Reason::CANCEL)));
    let written = application.written.load(Ordering::Relaxed);
    assert!(written < 16 << 20, "{written} bytes were taken from the application");
    timeout(PATIENCE, application.cut_off.acquire()).await.expect("the application is told").unwrap().forget();
    let page = sidecar.metrics().await;
    assert_eq!((counted(&page, &[HTTP2, "client_gone"]), counted(&page, &[HTTP2])), (1, 21));
}

#[tokio::test]
async fn answers_without_a_body_early_ones_and_interim_ones_pass() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let head = ask(&client, request("HEAD", "/")).await.unwrap();
    assert_eq!((head.status, head.headers["content-length"].to_str().unwrap(), head.body.len()), (200, "6", 0));
    let bodies = Bodies::start().await;
    let sidecar = Sidecar::start(bodies.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    // the rest of the request is not asked for: RFC 9113, section 8.1
    let (answer, mut body) = open(&client, request("POST", "/hasty")).await.unwrap();
    push(&mut body, Bytes::from_static(b"begun")).await.unwrap();
    let answer = read(answer).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "no"));
    let reset = std::future::poll_fn(|cx| body.poll_reset(cx));
    assert_eq!(timeout(PATIENCE, reset).await.expect("told in time").unwrap(), Reason::NO_ERROR);
    for (path, status) in [("/hints", 103), ("/continued", 100)] {
        let (mut answer, mut body) = open(&client, request("POST", path)).await.unwrap();
        let interim = std::future::poll_fn(|cx| answer.poll_informational(cx));
        let interim = timeout(PATIENCE, interim).await.expect("in time").expect("an interim answer").unwrap();
        assert_eq!(interim.status().as_u16(), status);
        body.send_data(Bytes::from_static(b"the rest"), true).unwrap();
        assert_eq!(read(answer).await.unwrap().text(), "8 bytes, trailers: ");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_a_reset_and_the_connection_goes_on() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let error = get(&client, "/cut").await.unwrap_err();
    assert_eq!((error.is_reset(), error.reason()), (true, Some(Reason::INTERNAL_ERROR)));
    for path in ["/garbage", "/vanish"] {
        assert_eq!(get(&client, path).await.unwrap(), 502);
    }
    assert_eq!(get(&client, "/after").await.unwrap(), 200);
    let page = sidecar.metrics().await;
    for (label, count) in [("upstream_broken", 2), ("upstream_bad_answer", 1), ("", 4)] {
        assert_eq!(counted(&page, &[HTTP2, label]), count, "{label}");
    }
}

#[tokio::test]
async fn a_client_that_resets_a_stream_cancels_it_at_the_application_and_no_other() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let answer = send(&client, request("GET", "/hold")).await.unwrap();
    timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
    drop(answer); // by which the library resets the stream
    timeout(PATIENCE, application.abandoned.acquire()).await.expect("it is told").unwrap().forget();
    assert_eq!(get(&client, "/meanwhile").await.unwrap(), 200);
    let (_answer, mut body) = open(&client, request("POST", "/half")).await.unwrap();
    push(&mut body, Bytes::from_static(b"half of it")).await.unwrap();
    assert_eq!(get(&client, "/meanwhile").await.unwrap(), 200);
    body.send_reset(Reason::CANCEL);
    timeout(PATIENCE, application.broken_off.acquire()).await.expect("it is told").unwrap().forget();
    assert_eq!(get(&client, "/after").await.unwrap(), 200);
    let gone = |_, page: &str| counted(page, &[HTTP2, "client_gone"]) == 2;
    let page = sidecar.eventually("/metrics", gone).await;
    assert_eq!(counted(&page, &[]), 5);
}

#[tokio::test]
async fn a_connection_that_ends_cancels_all_of_its_streams() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(send(&client, request("GET", "/hold")).await.unwrap());
    }
    timeout(PATIENCE, application.held.acquire_many(10)).await.expect("they arrive").unwrap().forget();
    drop((client, answers));
    timeout(PATIENCE, application.abandoned.acquire_many(10)).await.expect("all are told").unwrap().forget();
    let gone = |_, page: &str| counted(page, &[HTTP2, "client_gone"]) == 10 && page.contains("active_requests");
    sidecar.eventually("/metrics", gone).await;
}

#[tokio::test]
async fn requests_beyond_the_limit_in_flight_are_refused_on_their_stream() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[("SIDECAR_PROXY__LIMITS__IN_FLIGHT", "1")]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let _held = send(&client, request("GET", "/hold")).await.unwrap();
    timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
    let refused = ask(&client, request("GET", "/more")).await.unwrap();
    assert_eq!((refused.status, refused.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(counted(&sidecar.metrics().await, &[HTTP2, "overload"]), 1);
}
