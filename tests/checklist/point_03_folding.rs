//! Point 3: no line continues the one before it.

use crate::house::{House, MALFORMED, get, post};

/// RFC 9112, section 5.2: a folded line is refused, or its fold becomes a blank; ours are refused.
#[tokio::test]
async fn a_folded_field_of_a_request_is_refused() {
    let house = House::echoing(&[]).await;
    let requests = [
        get("X: a\r\n b\r\n"),
        get("X: a\r\n\tb\r\n"),
        get("X:\r\n a\r\n"),
        get("X: a\r\n \r\n"),
        post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
        post("X: a\r\n Content-Length: 1\r\n", "x"),
    ];
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9112, section 2.2: what stands between the first line and the first field must not be taken for a field.
#[tokio::test]
async fn a_blank_before_the_first_field_is_refused() {
    let house = House::echoing(&[]).await;
    let requests = [
        "GET / HTTP/1.1\r\n Host: h\r\n\r\n",
        "GET / HTTP/1.1\r\n\tX: a\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\n \r\nHost: h\r\n\r\n",
    ];
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9112, section 5.2: a gateway discards such an answer with 502, or unfolds it; ours discards it.
#[tokio::test]
async fn a_folded_field_of_an_answer_becomes_502() {
    House::replaces(&[
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n\tContent-Length: 5\r\nContent-Length: 0\r\n\r\n",
    ])
    .await;
}
