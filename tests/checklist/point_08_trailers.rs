//! Point 8: a trailer never becomes a header, and only harmless ones pass.

use crate::house::{House, MALFORMED, post, target};

/// RFC 9110, section 6.5.1: none of these may stand in a trailer section.
const STEERING: [&str; 16] = [
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Host: evil",
    "Authorization: Basic x",
    "Cookie: a=b",
    "Set-Cookie: a=b",
    "Content-Type: text/html",
    "Content-Encoding: gzip",
    "Content-Range: bytes 0-1/2",
    "Cache-Control: no-store",
    "Connection: close",
    "Trailer: ETag",
    "Expect: 100-continue",
    "X-Forwarded-For: 1.2.3.4",
    "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "X-Unknown: 1",
];

/// RFC 9110, section 6.5.2: trailers that pass stay trailers, in both directions.
#[tokio::test]
async fn a_trailer_that_passes_stays_behind_the_body() {
    let house = House::scripted(&[], |_, mut client| {
        while client.try_message().is_some() {
            let fields = "Trailer: Server-Timing\r\nTransfer-Encoding: chunked\r\n";
            client.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n2\r\nok\r\n0\r\nServer-Timing: a;dur=1\r\n\r\n"));
        }
    })
    .await;
    let mut client = house.client();
    let record = client.record();
    client.send(post("Trailer: ETag\r\nTransfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\nETag: \"1\"\r\n\r\n"));
    let answer = client.message();
    assert_eq!((answer.field("trailer"), answer.field("server-timing")), (Some("Server-Timing"), None));
    let bytes = record.lock().expect("nobody panicked").clone();
    assert!(bytes.ends_with(b"\r\n2\r\nok\r\n0\r\nServer-Timing: a;dur=1\r\n\r\n"), "{bytes:?}");
    assert!(house.seen().ends_with("\r\n1\r\nx\r\n0\r\nETag: \"1\"\r\n\r\n"), "{}", house.seen());
}

/// RFC 9110, section 6.5.1: what steers framing, routing or access is dropped from a trailer section.
#[tokio::test]
async fn trailers_that_steer_are_dropped_from_a_request() {
    let house = House::echoing(&[]).await;
    for trailer in STEERING {
        house.passed(post("Transfer-Encoding: chunked\r\n", &format!("1\r\nx\r\n0\r\n{trailer}\r\n\r\n")));
        let seen = house.seen();
        assert!(seen.ends_with("\r\n\r\n1\r\nx\r\n0\r\n\r\n"), "{trailer}: {seen}");
    }
}

/// RFC 9110, section 6.5.1: nor does the application slip a field past the head.
#[tokio::test]
async fn trailers_that_steer_are_dropped_from_an_answer() {
    let section = STEERING.join("\r\n");
    let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{section}\r\n\r\n");
    let house = House::answering(&[&answer]).await;
    let mut client = house.client();
    let record = client.record();
    assert_eq!(client.get("/0").text(), "ok");
    let bytes = record.lock().expect("nobody panicked").clone();
    assert!(bytes.ends_with(b"\r\n\r\n2\r\nok\r\n0\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
}

/// RFC 9112, section 7.1.2: a trailer section is made of fields like any other, and is bounded.
#[tokio::test]
async fn a_malformed_trailer_section_is_refused() {
    let house = House::echoing(&[]).await;
    let sections = ["no colon", "ETag : 1", " ETag: 1", "ETag: 1\r\n folded", "ETag: a\0b", ": 1"];
    let requests: Vec<String> = sections
        .iter()
        .map(|section| post("Transfer-Encoding: chunked\r\n", &format!("1\r\nx\r\n0\r\n{section}\r\n\r\n")))
        .collect();
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9112, section 7.1.2: so is that of an answer, which then never looks whole.
#[tokio::test]
async fn a_malformed_or_endless_trailer_section_of_an_answer_breaks_it_off() {
    let many = "ETag: 1\r\n".repeat(100);
    let sections = ["no colon", "ETag : 1", " ETag: 1", "ETag: 1\r\n folded", "ETag: a\0b", ": 1", "ETag: a\rb"]
        .map(str::to_owned);
    let sections: Vec<String> = sections.into_iter().chain([format!("ETag: {}", "x".repeat(17 << 10)), many]).collect();
    let count = sections.len();
    let played = sections.clone();
    let house = House::scripted(&[], move |_, mut client| {
        let Some(message) = client.try_message() else { return };
        let place: usize = target(&message)[1..].parse().expect("a number");
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        client.send(format!("0\r\n{}\r\n\r\n", played[place]));
        client.rest();
    })
    .await;
    for (place, section) in sections.iter().enumerate() {
        let mut client = house.client();
        client.send(format!("GET /{place} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let shown: String = section.chars().take(40).collect();
        assert!(client.try_message().is_none_or(|answer| answer.status() == 502), "{shown:?} looked whole");
    }
    house.counted("upstream_bad_answer", count as u64).await;
}

/// RFC 9112, section 7.1.2: it is longer than one read, so the head and the chunk may be with the application already; the body's end never is.
#[tokio::test]
async fn an_endless_trailer_section_is_refused() {
    let house = House::echoing(&[]).await;
    let endless = format!("1\r\nx\r\n0\r\nETag: {}\r\n\r\n", "x".repeat(17 << 10));
    let mut client = house.client();
    client.send(post("Transfer-Encoding: chunked\r\n", &endless));
    let answer = client.try_message().expect("an answer");
    assert_eq!((answer.status(), answer.field("connection")), (400, Some("close")), "{}", answer.text());
    assert!(client.is_closed(), "more behind the answer");
    assert!(!house.seen().contains("\r\n0\r\n"), "{}", house.seen());
}
