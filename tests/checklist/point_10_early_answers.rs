//! Point 10: after an answer that came before its request's end, nothing else uses the connection.

use std::sync::mpsc;

use crate::house::{House, answer_all, get, post};
use crate::raw::PATIENCE;

/// RFC 9112, section 9.3: what is left of the body must not be taken for a request, by us or by the application.
#[tokio::test]
async fn the_rest_of_a_body_is_no_request() {
    let (tell, told) = mpsc::channel();
    let house = House::scripted(&[], move |number, mut client| {
        if number > 0 {
            return answer_all(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        client.head();
        client.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
        tell.send(client.rest()).expect("the test waits");
    })
    .await;
    let mut client = house.client();
    client.send(post("Content-Length: 100\r\n", "begin"));
    let answer = client.message();
    assert_eq!((answer.status(), answer.field("connection")), (413, Some("close")));
    client.send("GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.is_closed(), "no second answer");
    told.recv_timeout(PATIENCE).expect("the application's connection has ended, too");
    assert_eq!(house.client().get("/next").status(), 200);
    assert_eq!(house.connections(), 2, "it was not used again");
    assert!(!house.seen().contains("GET /smuggled"), "{}", house.seen());
}

/// RFC 9112, section 9.6: a client that says `close` has sent its last request.
#[tokio::test]
async fn bytes_behind_close_are_ignored() {
    let house = House::echoing(&[]).await;
    let mut client = house.client();
    client.send(format!("{}{}", get("Connection: close\r\n"), "GET /behind HTTP/1.1\r\nHost: h\r\n\r\n"));
    let answer = client.message();
    assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
    assert!(client.is_closed());
    let mut client = house.client();
    client.send("GET / HTTP/1.0\r\nHost: h\r\n\r\nGET /behind HTTP/1.0\r\nHost: h\r\n\r\n");
    assert_eq!(client.message().status(), 200);
    assert!(client.is_closed());
    assert!(!house.seen().contains("/behind"), "{}", house.seen());
}

/// RFC 9112, section 9.6: an application that says `close`, or speaks HTTP/1.0 without `keep-alive`, gets no second one.
#[tokio::test]
async fn a_connection_that_the_application_ends_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nConnection: keep-alive, CLOSE\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let house = House::scripted(&[], move |_, mut client| answer_all(&mut client, answer)).await;
        let mut client = house.client();
        for _ in 0..3 {
            let got = client.get("/");
            assert_eq!((got.status(), got.field("connection")), (200, None), "the client's connection is its own");
        }
        assert_eq!(house.connections(), 3, "{answer:?}");
    }
}

/// RFC 9112, section 9.3: and one that it does not end is.
#[tokio::test]
async fn a_connection_that_stays_is_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        let house = House::scripted(&[], move |_, mut client| answer_all(&mut client, answer)).await;
        for _ in 0..3 {
            assert_eq!(house.client().get("/").text(), "ok");
        }
        assert_eq!(house.connections(), 1, "{answer:?}");
    }
}
