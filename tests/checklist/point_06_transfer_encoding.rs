//! Point 6: the one transfer coding is `chunked`, once and alone.

use crate::house::{House, MALFORMED, Refused, post};

/// RFC 9112, section 6.3: where `chunked` is not the last coding, nobody knows where the body ends.
#[tokio::test]
async fn a_coding_of_a_request_that_does_not_end_in_chunked_is_refused() {
    let house = House::echoing(&[]).await;
    let fields = [
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;a=b\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: , chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
    ];
    house.refuses(MALFORMED, &fields.map(|field| post(field, "0\r\n\r\n"))).await;
}

/// RFC 9112, section 6.1: a coding that is not understood is answered with 501.
#[tokio::test]
async fn an_unknown_coding_before_chunked_is_answered_with_501() {
    let house = House::echoing(&[]).await;
    let fields = [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: what ever, Chunked\r\n",
    ];
    house.refuses(Refused(501, "unknown_transfer_coding"), &fields.map(|field| post(field, "0\r\n\r\n"))).await;
}

/// RFC 9112, section 6.1: HTTP/1.0 knows no transfer coding, so a message with one is faulty.
#[tokio::test]
async fn a_coding_in_http_1_0_is_refused() {
    let house = House::echoing(&[]).await;
    let request = "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    house.refuses(MALFORMED, &[request]).await;
    House::replaces(&["HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]).await;
}

/// RFC 9112, sections 6.1 and 6.3: the same of the application.
#[tokio::test]
async fn an_answer_in_another_coding_than_chunked_becomes_502() {
    House::replaces(&[
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: \r\n\r\n0\r\n\r\n",
    ])
    .await;
}

/// RFC 9112, section 6.1: codings are named in any case.
#[tokio::test]
async fn chunked_is_known_in_any_case() {
    let house = House::echoing(&[]).await;
    let seen = house.passed(post("transfer-ENCODING: ChunKed\r\n", "2\r\nok\r\n0\r\n\r\n"));
    assert!(seen.ends_with("\r\n\r\nok") && seen.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{seen}");
}
