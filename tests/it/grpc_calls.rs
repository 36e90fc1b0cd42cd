//! Calls of gRPC between a client and an application that both speak HTTP/2: what passes, and what each side learns of the
//! other's end.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use h2::{Reason, RecvStream};
use tokio::time::{Duration, Instant, timeout};

use crate::grpc_world::{Application, call, until};
use crate::h2_requests::counted;
use crate::h2_world::{Answer, Raw, ask, connect, connect_with, open, push, read, send};
use crate::rig::{PATIENCE, Sidecar};

const HTTP2: &str = r#"network_protocol_version="2""#;

/// The fields by which our own answers say how a call ended.
pub(crate) fn status(answer: &Answer) -> (&str, &str) {
    let text = |name| answer.headers.get(name).map_or("", |value: &http::HeaderValue| value.to_str().expect("text"));
    (text("grpc-status"), text("grpc-message"))
}

async fn pair() -> (std::sync::Arc<Application>, Sidecar) {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    (application, sidecar)
}

/// The next piece of an answer's body.
async fn piece(body: &mut RecvStream) -> Bytes {
    let piece = timeout(PATIENCE, body.data()).await.expect("a piece in time").expect("more").expect("no reset");
    body.flow_control().release_capacity(piece.len()).expect("what was taken");
    piece
}

#[tokio::test]
async fn each_piece_passes_at_once_in_both_directions_and_metadata_before_and_behind_them() {
    let (_application, sidecar) = pair().await;
    let client = connect(sidecar.proxy).await.unwrap();
    let mut request = call("/echo");
    for (name, value) in [("grpc-timeout", "20S"), ("x-custom-bin", "q83v")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (answer, mut body) = open(&client, request).await.unwrap();
    // the head of the answer comes before anything of the request's body
    let answer = timeout(PATIENCE, answer).await.expect("in time").unwrap();
    let (head, mut echo) = answer.into_parts();
    for (name, value) in [("x-seen-te", "trailers"), ("x-seen-grpc-timeout", "20S"), ("x-seen-x-custom-bin", "q83v")] {
        assert_eq!(head.headers[name], value, "{name}");
    }
    assert!(head.headers.contains_key("x-seen-traceparent") && head.headers["x-seen-x-forwarded-for"] == "127.0.0.1");
    assert!(!head.headers.contains_key("content-length") && head.headers["x-initial"] == "first");
    for round in 0..50 {
        let message = Bytes::from(format!("message {round}"));
        push(&mut body, message.clone()).await.unwrap();
        assert_eq!(piece(&mut echo).await, message);
    }
    body.send_data(Bytes::new(), true).unwrap();
    assert!(timeout(PATIENCE, echo.data()).await.expect("an end in time").is_none());
    let trailers = timeout(PATIENCE, echo.trailers()).await.expect("in time").unwrap().expect("trailers");
    let mut found: Vec<_> = trailers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    found.sort_unstable();
    let expected = [
        ("grpc-message", "a%E2%98%BA"),
        ("grpc-status", "9"),
        ("grpc-status-details-bin", "CAk="),
        ("x-own-bin", "AAEC"),
        ("x-own-metadata", "behind"),
    ];
    assert_eq!(found, expected, "what steers is left behind");
    let page = sidecar.metrics().await;
    assert_eq!((counted(&page, &[HTTP2]), counted(&page, &[])), (1, 1));
}

#[tokio::test]
async fn an_answer_of_nothing_but_its_status_stays_one() {
    let (_application, sidecar) = pair().await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (answer, mut body) = open(&client, call("/bare")).await.unwrap();
    push(&mut body, Bytes::from_static(b"a message")).await.unwrap();
    body.send_data(Bytes::new(), true).unwrap();
    let response = timeout(PATIENCE, answer).await.expect("in time").unwrap();
    assert!(response.body().is_end_stream(), "its end stands in its head");
    let mut names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "grpc-message", "grpc-status", "x-own"]);
}

#[tokio::test]
async fn a_client_that_cancels_cancels_the_call_at_the_application_and_no_other() {
    let (application, sidecar) = pair().await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (_other, mut open_still) = open(&client, call("/open")).await.unwrap();
    timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
    // before the head of the answer, and within its body
    for path in ["/hold", "/open"] {
        let (answer, mut body) = open(&client, call(path)).await.unwrap();
        timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
        push(&mut body, Bytes::from_static(b"half")).await.unwrap();
        body.send_reset(Reason::CANCEL);
        drop(answer);
        timeout(PATIENCE, application.cancelled.acquire()).await.expect("it is told").unwrap().forget();
    }
    push(&mut open_still, Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(application.cancelled.available_permits(), 0);
    let gone = |_, page: &str| counted(page, &[HTTP2, "client_gone"]) == 2;
    let page = sidecar.eventually("/metrics", gone).await;
    assert_eq!(counted(&page, &[]), 2);
    assert_eq!(application.connections.load(Ordering::SeqCst), 1);
}

/// Row 18 of the contract: within 100 ms. By the fastest of many, as others may meet a busy machine.
#[tokio::test]
async fn a_cancellation_arrives_within_a_tenth_of_a_second() {
    let (application, sidecar) = pair().await;
    let client = connect(sidecar.proxy).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..21 {
        let (answer, mut body) = open(&client, call("/hold")).await.unwrap();
        timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
        let begun = tokio::time::Instant::now();
        body.send_reset(Reason::CANCEL);
        drop(answer);
        timeout(PATIENCE, application.cancelled.acquire()).await.expect("it is told").unwrap().forget();
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    assert!(took[0] < Duration::from_millis(100), "the fastest of {took:?}");
}

#[tokio::test]
async fn a_connection_that_ends_cancels_all_of_its_calls() {
    let (application, sidecar) = pair().await;
    let client = connect(sidecar.proxy).await.unwrap();
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(open(&client, call("/hold")).await.unwrap());
    }
    timeout(PATIENCE, application.held.acquire_many(20)).await.expect("they arrive").unwrap().forget();
    drop((client, calls));
    timeout(PATIENCE, application.cancelled.acquire_many(20)).await.expect("all are told").unwrap().forget();
    sidecar.eventually("/metrics", |_, page: &str| counted(page, &[HTTP2, "client_gone"]) == 20).await;
}

#[tokio::test]
async fn an_application_that_breaks_off_is_a_break_with_its_reason() {
    let (_application, sidecar) = pair().await;
    let client = connect(sidecar.proxy).await.unwrap();
    for (told, seen) in [
        (Reason::CANCEL, Reason::CANCEL),
        (Reason::ENHANCE_YOUR_CALM, Reason::ENHANCE_YOUR_CALM),
        (Reason::INTERNAL_ERROR, Reason::INTERNAL_ERROR),
        // what would say that the client has broken the rules, or that nothing is missing
        (Reason::PROTOCOL_ERROR, Reason::INTERNAL_ERROR),
        (Reason::NO_ERROR, Reason::INTERNAL_ERROR),
    ] {
        let answer = send(&client, call(&format!("/reset/{}", u32::from(told)))).await.unwrap();
        let error = read(answer).await.expect_err("no whole answer");
        assert_eq!((error.is_reset(), error.reason()), (true, Some(seen)), "{told}");
    }
    assert_eq!(counted(&sidecar.metrics().await, &[HTTP2, "upstream_broken"]), 5);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_application_back_and_no_other_call() {
    let (application, sidecar) = pair().await;
    let patient = connect_with(sidecar.proxy, 40_000).await.unwrap();
    let mut stalled = Vec::new();
    for _ in 0..30 {
        let answer = send(&patient, call("/source")).await.unwrap();
        stalled.push(timeout(PATIENCE, answer).await.unwrap().unwrap().into_body());
    }
    let client = connect(sidecar.proxy).await.unwrap();
    for _ in 0..20 {
        // on the connection to the application that the thirty share
        let (answer, mut body) = open(&client, call("/echo")).await.unwrap();
        body.send_data(Bytes::from(vec![b'x'; 100_000]), true).unwrap();
        assert_eq!(read(answer).await.unwrap().body.len(), 100_000);
    }
    assert_eq!(application.connections.load(Ordering::SeqCst), 1);
    let written = application.written.load(Ordering::SeqCst);
    // for each: its window at both ends, and the buffers between them
    assert!(written < 30 * (256 << 10), "{written} bytes were taken from the application");
    // who reads on gets on
    assert!(!piece(&mut stalled[0]).await.is_empty());
}

#[tokio::test]
async fn an_application_that_does_not_read_holds_the_client_back() {
    let (application, sidecar) = pair().await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (_answer, mut body) = open(&client, call("/sink")).await.unwrap();
    timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
    let piece = Bytes::from(vec![b'x'; 16 << 10]);
    let mut sent = 0;
    // until nothing has moved for a while: a slow machine makes it send less
    loop {
        body.reserve_capacity(piece.len());
        let room = std::future::poll_fn(|cx| body.poll_capacity(cx));
        let Ok(room) = timeout(Duration::from_millis(500), room).await else { break };
        let count = room.expect("it is open").unwrap().min(piece.len());
        body.send_data(piece.slice(..count), false).unwrap();
        sent += count;
        assert!(sent < 1 << 20, "{sent} bytes were taken from the client");
    }
    body.send_reset(Reason::CANCEL);
    timeout(PATIENCE, application.cancelled.acquire()).await.expect("it is told").unwrap().forget();
}

#[tokio::test]
async fn a_silent_stream_lives_as_long_as_its_ends_agree() {
    let application = Application::start().await;
    let idle = [("SIDECAR_PROXY__TIMEOUTS__BODY_IDLE", "200ms"), ("SIDECAR_PROXY__TIMEOUTS__CLIENT_IDLE", "200ms")];
    let sidecar = Sidecar::start(application.address, &[], &idle).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (answer, mut body) = open(&client, call("/echo")).await.unwrap();
    let mut echo = timeout(PATIENCE, answer).await.expect("in time").unwrap().into_body();
    for _ in 0..2 {
        let begun = Instant::now();
        // who says nothing at all is sent away at its deadline, and that is as long as either of this stream's
        Raw::greet(sidecar.proxy).await.rest().await;
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
        push(&mut body, Bytes::from_static(b"still here")).await.unwrap();
        assert_eq!(piece(&mut echo).await, "still here");
    }
}

#[tokio::test]
async fn what_we_refuse_is_said_in_the_words_of_grpc() {
    let application = Application::start().await;
    let limits = [("SIDECAR_PROXY__LIMITS__IN_FLIGHT", "1"), ("SIDECAR_PROXY__LIMITS__BODY", "1KiB")];
    let sidecar = Sidecar::start(application.address, &[], &limits).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (answer, mut body) = open(&client, call("/hold")).await.unwrap();
    timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
    let refused = ask(&client, call("/more")).await.unwrap();
    assert_eq!((refused.status, status(&refused)), (200, ("14", "overload: too many connections or requests at once")));
    push(&mut body, Bytes::from(vec![b'x'; 2_000])).await.unwrap();
    let refused = read(answer).await.unwrap();
    let told = "body_too_large: the body is larger than proxy.limits.body allows";
    assert_eq!((refused.status, status(&refused)), (200, ("8", told)));
    let page = sidecar.metrics().await;
    assert_eq!((counted(&page, &[HTTP2, "overload"]), counted(&page, &[HTTP2, "body_too_large"])), (1, 1));
    // the application is told that nobody waits
    until("a cancelled call", || application.cancelled.available_permits() == 1).await;
}
