//! Point 7: a chunk is 1 to 16 hex digits, its data, and CR LF; extensions are read over.

use crate::house::{House, MALFORMED, post, target};

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// RFC 9112, section 7.1: what is no size, no data of that size, or no end of a line.
const BROKEN: [&str; 19] = [
    "\r\n",
    "x\r\n\r\n",
    "+1\r\nx\r\n0\r\n\r\n",
    "-1\r\nx\r\n0\r\n\r\n",
    "0x1\r\nx\r\n0\r\n\r\n",
    "1_0\r\nxxxxxxxxxxxxxxxx\r\n0\r\n\r\n",
    " 1\r\nx\r\n0\r\n\r\n",
    "1 \r\nx\r\n0\r\n\r\n",
    "1\t\r\nx\r\n0\r\n\r\n",
    ";a=b\r\n\r\n",
    "1 ;a\r\nx\r\n0\r\n\r\n",
    "1;a\u{1}\r\nx\r\n0\r\n\r\n",
    "1;a\rb\r\nx\r\n0\r\n\r\n",
    "00000000000000001\r\nx\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "1\r\nxx\r\n0\r\n\r\n",
    "2\r\nx\r\n0\r\n\r\n",
    "1\r\nx0\r\n\r\n",
    "1\r\nx\r\n\r\n0\r\n\r\n",
];

/// RFC 9112, section 7.1: a broken chunk of a request is refused, and the application never sees any of it.
#[tokio::test]
async fn a_broken_chunk_of_a_request_is_refused() {
    let house = House::echoing(&[]).await;
    house.refuses(MALFORMED, &BROKEN.map(chunked)).await;
}

/// RFC 9112, section 7.1: chunks that break later break the application's connection, without a last chunk.
#[tokio::test]
async fn a_chunk_that_breaks_on_the_way_never_ends_the_body() {
    let (tell, told) = std::sync::mpsc::channel();
    let house = House::scripted(&[], move |_, mut client| {
        client.head();
        tell.send(client.bytes(6)).expect("the test waits");
        client.rest();
    })
    .await;
    let mut client = house.client();
    client.send(chunked("1\r\na\r\n"));
    assert_eq!(told.recv().expect("the application has the first chunk").as_deref(), Some(&b"1\r\na\r\n"[..]));
    client.send("0x1\r\nb\r\n0\r\n\r\n");
    let answer = client.message();
    assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")));
    assert!(client.is_closed());
    assert!(house.seen().ends_with("\r\n\r\n1\r\na\r\n"), "{}", house.seen());
}

/// RFC 9112, section 7.1.1: extensions are for one hop; unknown ones are ignored.
#[tokio::test]
async fn extensions_are_never_sent_on() {
    let house = House::scripted(&[], |_, mut client| {
        while client.try_message().is_some() {
            client
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;secret=\"1\"\r\nok\r\n0;secret\r\n\r\n");
        }
    })
    .await;
    let mut client = house.client();
    let record = client.record();
    client.send(chunked("2;secret=1\r\nab\r\n3 ;secret\r\n"));
    assert_eq!(client.message().status(), 400, "a blank before the semicolon is no part of the grammar");
    let mut client = house.client();
    client.send(chunked("2;secret=1\r\nab\r\n3;secret=\"a;b\"\r\ncde\r\n000;secret\r\n\r\n"));
    let answered = client.record();
    assert_eq!(client.message().text(), "ok");
    for record in [record, answered] {
        let bytes = record.lock().expect("nobody panicked").clone();
        assert!(!String::from_utf8_lossy(&bytes).contains("secret"));
    }
    assert!(!house.seen().contains("secret"), "{}", house.seen());
    assert!(house.seen().ends_with("0\r\n\r\n"), "{}", house.seen());
}

/// RFC 9112, section 7.1.1: a recipient ought to limit the length of extensions; ours takes 16 KiB in a body.
#[tokio::test]
async fn extensions_without_end_are_refused() {
    let house = House::echoing(&[]).await;
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(17 << 10));
    let many = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(100)).repeat(200));
    for body in [long, many] {
        let mut client = house.client();
        client.send(chunked(&body));
        let answer = client.message();
        assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")));
        assert!(client.is_closed());
        assert!(!house.seen().contains("\r\n0\r\n"), "the application must not see an end: {}", house.seen());
    }
    house.counted("malformed_request", 2).await;
    let seen = house.passed(chunked(&format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(1 << 10))));
    assert!(seen.ends_with("\r\n\r\nx"));
}

/// RFC 9112, section 7.1: leading zeros and either case are lawful.
#[tokio::test]
async fn sizes_of_up_to_16_digits_in_either_case_are_read() {
    let house = House::echoing(&[]).await;
    let seen = house.passed(chunked("000000000000000A\r\n0123456789\r\na\r\n0123456789\r\n0000000000000000\r\n\r\n"));
    assert!(seen.ends_with("01234567890123456789"), "{seen}");
}

/// RFC 9112, sections 7.1 and 8: an answer whose chunks break is broken off, however far it was.
#[tokio::test]
async fn a_broken_chunk_of_an_answer_breaks_the_answer_off() {
    let house = House::scripted(&[], |_, mut client| {
        let Some(message) = client.try_message() else { return };
        let place: usize = target(&message)[1..].parse().expect("a number");
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        client.send(BROKEN[place]);
        client.rest();
    })
    .await;
    for (place, broken) in BROKEN.iter().enumerate() {
        let mut client = house.client();
        client.send(format!("GET /{place} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(client.try_message().is_none(), "{broken:?} looked whole");
    }
    house.counted("upstream_bad_answer", BROKEN.len() as u64).await;
}

/// RFC 9112, section 7.1.1: extensions of an answer are bounded too: it breaks off, in whichever chunk they stand.
#[tokio::test]
async fn extensions_without_end_break_an_answer_off() {
    let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(17 << 10));
    let many = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "a".repeat(100)).repeat(200));
    let endless = format!("1;{}", "a".repeat(1 << 20));
    let bodies = [long, many, endless];
    let count = bodies.len();
    let house = House::scripted(&[], move |_, mut client| {
        let Some(message) = client.try_message() else { return };
        let place: usize = target(&message)[1..].parse().expect("a number");
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        client.send(&bodies[place]);
        client.rest();
    })
    .await;
    for place in 0..count {
        let mut client = house.client();
        let record = client.record();
        client.send(format!("GET /{place} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(client.try_message().is_none(), "number {place} looked whole");
        assert!(
            !record.lock().expect("nobody panicked").windows(3).any(|part| part == b"aaa"),
            "number {place} was sent on"
        );
    }
    house.counted("upstream_bad_answer", count as u64).await;
}
