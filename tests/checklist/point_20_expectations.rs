//! Point 20: expectations and interim answers.

use std::time::Duration;

use tokio::time::Instant;

use crate::house::{House, Refused, answer_all, get, post, values};

const CREATED: &str = "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n";

/// RFC 9110, section 10.1.1: the expectation goes on, and so does the word that fulfils it, before the body.
#[tokio::test]
async fn a_client_that_waits_for_100_gets_the_applications() {
    let house = House::scripted(&[], |_, mut client| {
        let head = client.head().expect("a head before its body");
        assert_eq!(values(&head, "expect"), ["100-continue"]);
        client.send("HTTP/1.1 100 Continue\r\nX-Interim: 1\r\n\r\n");
        assert_eq!(client.bytes(5).as_deref(), Some(&b"hello"[..]));
        client.send(CREATED);
        client.rest();
    })
    .await;
    let mut client = house.client();
    client.send(post("Expect: 100-continue\r\nContent-Length: 5\r\n", ""));
    let interim = client.message();
    assert_eq!((interim.status(), interim.field("x-interim")), (100, Some("1")));
    client.send("hello");
    assert_eq!(client.message().status(), 201);
    house.client().stream.shutdown(std::net::Shutdown::Both).expect("connected");
}

/// RFC 9110, section 10.1.1: an application that knows no 100 must not hang a client that waits for it.
#[tokio::test]
async fn a_client_that_waits_in_vain_gets_ours() {
    let house = House::scripted(&[], |_, mut client| {
        // answers late with its own 100, which by then nobody needs
        client.head();
        assert_eq!(client.bytes(5).as_deref(), Some(&b"hello"[..]));
        client.send(format!("HTTP/1.1 100 Continue\r\n\r\n{CREATED}"));
        client.rest();
    })
    .await;
    let mut client = house.client();
    client.send(post("Expect: 100-Continue\r\nContent-Length: 5\r\n", ""));
    assert_eq!(client.message().status(), 100);
    client.send("hello");
    assert_eq!(client.message().status(), 201, "and no second 100");
}

/// RFC 9110, section 10.1.1: nor for long. What is long is told by what others are sent meanwhile, at a pace of the application's.
#[tokio::test]
async fn a_client_that_waits_in_vain_does_not_wait_for_long() {
    const PACE: Duration = Duration::from_millis(50);
    let house = House::scripted(&[], |_, mut client| {
        while let Some(head) = client.head() {
            if !values(&head, "expect").is_empty() {
                client.bytes(5);
                client.send(CREATED);
                continue; // the connection is free for whoever asks next
            }
            std::thread::park_timeout(PACE);
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    })
    .await;
    let (mut waiting, mut other, begun) = (house.client(), house.client(), Instant::now());
    waiting.send(post("Expect: 100-continue\r\nContent-Length: 5\r\n", ""));
    let waited = std::thread::spawn(move || {
        let (status, waited) = (waiting.message().status(), begun.elapsed());
        waiting.send("hello");
        (status, waiting.message().status(), waited)
    });
    let mut answers = 0;
    while !waited.is_finished() {
        assert_eq!(other.get("/").status(), 200);
        answers += 1;
        assert!(answers < 100, "a hundred others were answered first");
    }
    let (interim, last, waited) = waited.join().expect("the client does not panic");
    assert_eq!((interim, last), (100, 201));
    assert!(waited >= Duration::from_millis(500), "the application was not given its time, but {waited:?}");
}

/// RFC 9110, section 10.1.1: an application that wants no body says so, and the connection ends behind it.
#[tokio::test]
async fn an_application_that_declines_the_body_is_heard() {
    for status in ["417 Expectation Failed", "413 Content Too Large", "401 Unauthorized"] {
        let house = House::scripted(&[], move |_, mut client| {
            client.head();
            client.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
            client.rest();
        })
        .await;
        let mut client = house.client();
        client.send(post("Expect: 100-continue\r\nContent-Length: 5\r\n", ""));
        let answer = client.message();
        assert_eq!((answer.status().to_string().as_str(), answer.field("connection")), (&status[..3], Some("close")));
        assert!(client.is_closed());
    }
}

/// RFC 9110, section 10.1.1: the one expectation that is defined is `100-continue`.
#[tokio::test]
async fn another_expectation_is_417() {
    let house = House::echoing(&[]).await;
    let expectations =
        ["tea", "", "100", "100-continue, tea", "100-continue\r\nExpect: tea", "101-continue", "100-continue;a"];
    let requests = expectations.map(|text| post(&format!("Content-Length: 1\r\nExpect: {text}\r\n"), "x"));
    house.refuses(Refused(417, "expectation_failed"), &requests).await;
}

/// RFC 9110, section 10.1.1: HTTP/1.0 knows no expectation: it is ignored, and nobody waits for the body.
#[tokio::test]
async fn an_expectation_of_http_1_0_is_ignored() {
    let house = House::echoing(&[]).await;
    let seen = house.passed("POST / HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    assert!(values(&seen, "expect").is_empty() && seen.ends_with("hello"), "{seen}");
}

/// RFC 9110, section 15.2: interim answers go on, unless the client speaks HTTP/1.0 and knows none.
#[tokio::test]
async fn interim_answers_go_on_but_not_to_http_1_0() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer =
        format!("{}HTTP/1.1 102 Processing\r\n\r\n{CREATED}", answer.replace("Transfer-Encoding: chunked\r\n", ""));
    let house = House::scripted(&[], move |_, mut client| answer_all(&mut client, &answer)).await;
    let mut client = house.client();
    client.send(get(""));
    let hints = client.message();
    assert_eq!((hints.status(), hints.field("link"), hints.field("content-length")), (103, Some("a"), None));
    assert_eq!((client.message().status(), client.message().status()), (102, 201));
    let mut old = house.client();
    old.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n");
    assert_eq!(old.message().status(), 201);
    assert!(old.is_closed());
}
