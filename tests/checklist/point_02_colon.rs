//! Point 2: no blank between a field's name and its colon.

use crate::house::{House, MALFORMED, get, post, target};

/// RFC 9112, section 5.1: such a request must be refused with 400.
#[tokio::test]
async fn a_blank_before_the_colon_of_a_request_is_refused() {
    let house = House::echoing(&[]).await;
    let requests = [
        get("X : a\r\n"),
        get("X\t: a\r\n"),
        post("Content-Length : 1\r\n", "x"),
        post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost : h\r\n\r\n".to_owned(),
        get(": a\r\n"),
        get("X\r\n"),
        get("X Y: a\r\n"),
    ];
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9112, section 5.1: a proxy must remove it from an answer, and the field means what it says.
#[tokio::test]
async fn a_blank_before_the_colon_of_an_answer_is_removed() {
    let house = House::scripted(&[], |_, mut client| {
        while let Some(message) = client.try_message() {
            client.send(match target(&message) {
                "/length" => "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length \t: 2\r\n\r\nok",
                _ => "HTTP/1.1 200 OK\r\nX : a\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            });
        }
    })
    .await;
    for path in ["/length", "/chunks"] {
        let answer = house.client().get(path);
        assert_eq!((answer.status(), answer.field("x"), answer.text().as_str()), (200, Some("a"), "ok"), "{path}");
        assert!(!answer.head.contains(" :") && !answer.head.contains("\t:"), "{}", answer.head);
    }
}
