//! Point 5: Content-Length is digits, once.

use crate::house::{House, MALFORMED, post};

/// RFC 9110, section 8.6, and RFC 9112, section 6.3: digits only, within what can be counted, and one of them.
#[tokio::test]
async fn a_content_length_that_is_no_number_is_refused() {
    let house = House::echoing(&[]).await;
    let lengths = ["", "+1", "-1", "0x1", "1_0", "1.0", "1 1", "1, 1", "1,2", "one", "18446744073709551616", "1;"];
    let requests: Vec<String> =
        lengths.iter().map(|length| post(&format!("Content-Length: {length}\r\n"), "x")).collect();
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9112, section 6.3: different values must be refused, equal ones may be.
#[tokio::test]
async fn two_content_lengths_of_a_request_are_refused() {
    let house = House::echoing(&[]).await;
    let requests = [
        post("Content-Length: 1\r\nContent-Length: 2\r\n", "x"),
        post("Content-Length: 1\r\nContent-Length: 1\r\n", "x"),
        post("Content-Length: 0\r\nContent-Length: 1\r\n", "x"),
    ];
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9112, section 6.3: from a gateway's application this is 502, and the end of its connection.
#[tokio::test]
async fn an_answer_without_a_clear_length_becomes_502() {
    House::replaces(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nx",
    ])
    .await;
}

/// RFC 9110, section 8.6: equal values of an answer may become one.
#[tokio::test]
async fn equal_lengths_of_an_answer_become_one() {
    let house = House::answering(&["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"]).await;
    let answer = house.client().get("/0");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert_eq!(answer.head.matches("Content-Length").count(), 1, "{}", answer.head);
}
