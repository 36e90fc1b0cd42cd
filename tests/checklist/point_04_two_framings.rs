//! Point 4: Content-Length beside Transfer-Encoding is two bodies in one.

use crate::house::{House, MALFORMED, post};

/// RFC 9112, sections 6.1 and 6.3: this is how requests are smuggled.
#[tokio::test]
async fn a_request_with_both_framings_is_refused() {
    let house = House::echoing(&[]).await;
    let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let requests = [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", smuggled),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", smuggled),
        post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", smuggled),
        post("content-length: 5\r\nX: a\r\nTRANSFER-ENCODING: Chunked\r\n", smuggled),
    ];
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9112, sections 6.3 and 9.3.2: in the middle of a pipeline it ends the connection, and nothing behind it is read.
#[tokio::test]
async fn a_refused_request_is_the_last_of_its_pipeline() {
    let house = House::echoing(&[]).await;
    let both = post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n");
    let mut client = house.client();
    client.send(format!("GET /first HTTP/1.1\r\nHost: h\r\n\r\n{both}GET /behind HTTP/1.1\r\nHost: h\r\n\r\n"));
    assert_eq!((client.message().status(), client.message().status()), (200, 400));
    assert!(client.is_closed());
    assert!(house.seen().starts_with("GET /first ") && !house.seen().contains("POST"), "{}", house.seen());
    assert!(!house.seen().contains("/behind"), "{}", house.seen());
}

/// RFC 9112, section 6.3: an answer with both ought to be handled as an error, too.
#[tokio::test]
async fn an_answer_with_both_framings_becomes_502() {
    House::replaces(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    ])
    .await;
}
