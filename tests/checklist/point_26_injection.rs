//! Point 26: nothing that a client sends becomes a line of its own in what we write.

use crate::house::{House, get};

/// RFC 9112, section 11.1: encoded line ends stay encoded, wherever a value of the client's is used again.
#[tokio::test]
async fn no_value_of_a_client_becomes_a_line() {
    let house =
        House::echoing(&[("SIDECAR_PROXY__TRUSTED_PROXIES", "127.0.0.1"), ("SIDECAR_PROXY__VIA", "edge")]).await;
    let payloads = ["%0d%0aInjected:%201", "\\r\\nInjected: 1", "\u{e560}\u{e58d}Injected: 1", "\u{85}Injected: 1"];
    for payload in payloads {
        let escaped = payload.replace(' ', "%20").replace(|letter: char| !letter.is_ascii(), "");
        let mut client = house.client();
        let record = client.record();
        client.send(format!(
            "GET /{escaped}?{escaped} HTTP/1.1\r\nHost: h\r\nX-Request-ID: {payload}\r\nX-Forwarded-For: {payload}\r\n\
             X-Forwarded-Host: {payload}\r\nX-Forwarded-Proto: {payload}\r\nForwarded: {payload}\r\nUser-Agent: {payload}\r\n\
             Via: {payload}\r\ntracestate: {payload}\r\nbaggage: {payload}\r\nCookie: {payload}\r\n\r\n"
        ));
        let answer = client.message();
        assert_eq!(answer.status(), 200, "{payload:?}");
        let lines = |text: &str| text.lines().filter(|line| line.starts_with("Injected")).count();
        assert_eq!(lines(&answer.text()), 0, "{}", answer.text());
        let bytes = record.lock().expect("nobody panicked").clone();
        assert_eq!(lines(&String::from_utf8_lossy(&bytes)), 0);
        assert!(!answer.head.contains("Injected"), "nothing of a request is reflected in the head of its answer");
    }
}

/// RFC 9112, section 11.1: what would be a line is refused before anything is done with it, and not shown again.
#[tokio::test]
async fn a_refusal_shows_nothing_of_the_request() {
    let house = House::echoing(&[]).await;
    for request in [
        get("X-Request-ID: a\rInjected: 1\r\n"),
        get("X-Request-ID: a\nInjected: 1\r\n"),
        "GET /a\rInjected HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a\" Injected\r\n\r\n".to_owned(),
        get("Expect: Injected\r\n"),
        "Injected<script> / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
    ] {
        let mut client = house.client();
        client.send(&request);
        let answer = client.message();
        assert!(answer.status() >= 400, "{request:?}");
        assert!(!answer.head.contains("Injected") && !answer.text().contains("Injected"), "{}", answer.text());
    }
    assert_eq!(house.seen(), "");
}
