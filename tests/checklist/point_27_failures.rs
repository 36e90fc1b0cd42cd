//! Point 27: what is tried again, and what is said when the application fails.

use std::net::SocketAddr;

use crate::house::{House, answer_all, get, post};
use crate::raw::Client;
use crate::rig::Sidecar;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// An application whose connections take a second request and close over it.
async fn tired() -> House {
    House::scripted(&[], |_, mut client| {
        client.try_message();
        client.send(OK);
        client.try_message();
    })
    .await
}

/// RFC 9110, section 9.2.2, and RFC 9112, section 9.3.1: a safe request, on a connection that had worked before.
#[tokio::test]
async fn a_safe_request_on_a_kept_connection_that_closes_is_sent_again_once() {
    let house = tired().await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        for _ in 0..2 {
            let mut client = house.client();
            client.send(format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert!(client.head().expect("an answer").starts_with("HTTP/1.1 200 "), "{method}");
        }
    }
}

/// RFC 9112, section 9.3.1: a repetition that fails like the first try is not repeated.
#[tokio::test]
async fn a_repetition_that_fails_again_is_502() {
    let house = House::scripted(&[], |number, mut client| {
        client.try_message();
        if number == 0 {
            client.send(OK);
            client.try_message();
        }
    })
    .await;
    let mut client = house.client();
    assert_eq!(client.get("/first").status(), 200);
    let answer = client.get("/second");
    assert_eq!((answer.status(), answer.field("retry-after")), (502, Some("1")));
    assert!(answer.text().contains("upstream_broken"), "{}", answer.text());
    house.counted("upstream_broken", 1).await;
    assert_eq!(house.connections(), 2, "the one that was kept, and one more");
}

/// RFC 9110, section 9.2.2: what may have had an effect is never repeated, nor what has a body.
#[tokio::test]
async fn what_may_have_had_an_effect_is_not_sent_again() {
    for request in [
        post("Content-Length: 1\r\n", "x"),
        post("Content-Length: 0\r\n", ""),
        "DELETE / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        "PROPFIND / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx".to_owned(),
    ] {
        let house = tired().await;
        let mut client = house.client();
        assert_eq!(client.get("/first").status(), 200);
        client.send(&request);
        let answer = client.message();
        assert_eq!(answer.status(), 502, "{request:?}");
        assert!(answer.text().contains("upstream_broken"), "{}", answer.text());
        assert_eq!(house.connections(), 1, "{request:?}");
        house.counted("upstream_broken", 1).await;
    }
}

/// RFC 9112, section 9.3.1: a new connection that closes is no race, and a repetition that fails is not repeated.
#[tokio::test]
async fn a_fresh_connection_that_closes_is_502_at_once() {
    let house = House::scripted(&[], |_, mut client| drop(client.try_message())).await;
    let answer = house.client().get("/");
    assert_eq!((answer.status(), answer.field("retry-after")), (502, Some("1")), "a GET may be repeated by its sender");
    assert_eq!(house.connections(), 1);
    let mut client = house.client();
    client.send(post("Content-Length: 0\r\n", ""));
    let answer = client.message();
    assert_eq!((answer.status(), answer.field("retry-after")), (502, None), "a POST may not");
}

/// RFC 9110, section 9.2.2: once the application has begun to answer, nothing is sent again.
#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    for begun in ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let house = House::scripted(&[], move |_, mut client| {
            client.try_message();
            client.send(OK);
            client.try_message();
            client.send(begun);
        })
        .await;
        let mut client = house.client();
        assert_eq!(client.get("/first").status(), 200);
        let mut answer = client.get("/second");
        while answer.status() < 200 {
            answer = client.message();
        }
        assert_eq!((answer.status(), house.connections()), (502, 1), "{begun:?}");
    }
}

/// RFC 9110, section 15.6.4: nobody listens: 503 at once, with the advice to come again.
#[tokio::test]
async fn an_application_that_is_gone_is_503() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1)); // port 1, which nobody takes
    let sidecar = Sidecar::start(nowhere, &[], &[]).await;
    let mut client = Client::new(sidecar.proxy);
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")));
        assert!(answer.text().contains("upstream_refused"), "{}", answer.text());
    }
}

/// RFC 9110, section 15.6.4: more at once than is allowed: 503, with the advice to come again.
#[tokio::test]
async fn an_overload_is_503_with_retry_after() {
    let (tell, told) = std::sync::mpsc::channel();
    let house = House::scripted(&[("SIDECAR_PROXY__LIMITS__IN_FLIGHT", "1")], move |_, mut client| {
        client.try_message();
        tell.send(()).expect("the test waits");
        client.rest();
    })
    .await;
    let mut first = house.client();
    first.send(get(""));
    told.recv_timeout(crate::raw::PATIENCE).expect("the application has it");
    let refused = crate::house::Refused(503, "overload");
    house.refuses(refused, &[get("X: 1\r\n"), post("Content-Length: 1\r\n", "x")]).await;
    let answer = house.client().get("/");
    assert_eq!(answer.field("retry-after"), Some("1"));
}

/// RFC 9112, section 9.3.1: a connection on which the application said nothing more is used again, one that it closed is not.
#[tokio::test]
async fn a_connection_that_closed_while_it_idled_costs_nobody_an_error() {
    let (tell, told) = std::sync::mpsc::channel();
    let house = House::scripted(&[], move |number, mut client| {
        if number > 0 {
            return answer_all(&mut client, OK);
        }
        client.try_message();
        client.send(OK);
        drop(client);
        tell.send(()).expect("the test waits");
    })
    .await;
    let mut client = house.client();
    assert_eq!(client.get("/first").status(), 200);
    told.recv_timeout(crate::raw::PATIENCE).expect("closed");
    client.send(post("Content-Length: 1\r\n", "x"));
    assert_eq!(client.message().status(), 200, "the end was seen before anything was written");
}
