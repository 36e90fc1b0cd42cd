//! Point 12: the request line, and how large a head may be.

use crate::house::{House, MALFORMED, Refused, get};

/// RFC 9112, section 3: one blank between the parts, and none around them.
#[tokio::test]
async fn a_request_line_with_other_blanks_than_two_is_refused() {
    let house = House::echoing(&[]).await;
    let lines = [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "GET / a HTTP/1.1",
        "GET /",
        "GET",
        "GET HTTP/1.1",
        "G\"T / HTTP/1.1",
        "G(T / HTTP/1.1",
    ];
    house.refuses(MALFORMED, &lines.map(|line| format!("{line}\r\nHost: h\r\n\r\n"))).await;
}

/// RFC 9112, section 3.2: a fragment is never sent, so none goes on.
#[tokio::test]
async fn a_fragment_is_refused() {
    let house = House::echoing(&[]).await;
    let targets = ["/#", "/a#b", "/a?b#c", "http://h/#a", "#a"];
    house.refuses(MALFORMED, &targets.map(|target| format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))).await;
}

/// RFC 9112, section 3: at least 8000 octets of a request line must work; beyond the limit it is 414.
#[tokio::test]
async fn a_request_line_of_8000_octets_works_and_one_beyond_the_limit_is_414() {
    let house = House::echoing(&[]).await;
    let line = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(length));
    assert!(house.passed(line(8_000)).starts_with(line(8_000).lines().next().expect("a line")));
    let refused = Refused(414, "target_too_long");
    house.refuses(refused, &[line(17 << 10), line(200 << 10), "G".repeat(17 << 10)]).await;
}

/// RFC 6585, section 5: too large a header section is 431, and so are too many fields.
#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let house = House::echoing(&[]).await;
    let fields = |count: usize| (0..count).map(|number| format!("F{number}: x\r\n")).collect::<String>();
    let size = |bytes: usize| format!("X: {}\r\n", "x".repeat(bytes));
    let seen = house.passed(get(&fields(99)));
    assert!(seen.contains("\r\nF98: x\r\n"), "100 fields, with Host");
    assert!(house.passed(get(&size(60 << 10))).contains(&"x".repeat(60 << 10)));
    let many = "X: 1\r\n".repeat(5_000);
    let requests = [get(&fields(100)), get(&size(70 << 10)), get(&size(1 << 20)), get(&many)];
    house.refuses(Refused(431, "head_too_large"), &requests).await;
}

/// RFC 9112, section 2.2: one empty line before the request line is read over, and no more.
#[tokio::test]
async fn one_leading_empty_line_is_tolerated() {
    let house = House::echoing(&[]).await;
    let seen = house.passed("\r\nGET /after HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(seen.starts_with("GET /after HTTP/1.1\r\n"), "{seen}");
    let request = get("");
    house.refuses(MALFORMED, &[format!("\r\n\r\n{request}"), format!("\r{request}"), format!("\r\n {request}")]).await;
}

/// RFC 9112, section 2.2: an empty line behind a body, as some clients send it, is no request that never ends.
#[tokio::test]
async fn an_empty_line_alone_is_an_idle_connection() {
    let house =
        House::echoing(&[("SIDECAR_PROXY__TIMEOUTS__HEADER", "200ms"), ("SIDECAR_PROXY__TIMEOUTS__CLIENT_IDLE", "1s")])
            .await;
    let mut client = house.client();
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx\r\n");
    assert_eq!(client.message().status(), 200);
    assert!(client.is_closed(), "closed without a word, as an idle connection is");
}
