//! Point 14: a request of HTTP/1.1 names one host, and a valid one.

use crate::house::{House, MALFORMED, values};

/// RFC 9112, section 3.2: without a host, or with several, the request must be refused.
#[tokio::test]
async fn a_request_without_one_host_is_refused() {
    let house = House::echoing(&[]).await;
    let requests = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nX-Host: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nHost: evil\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nX: 1\r\nhOST:\r\n\r\n",
        "GET http://h/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n",
    ];
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9112, section 3.2, and RFC 3986, section 3.2.2: what is no host, perhaps with a port, is refused.
#[tokio::test]
async fn a_request_with_an_invalid_host_is_refused() {
    let house = House::echoing(&[]).await;
    let hosts = [
        "a b",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "user:pass@a",
        "a,b",
        "a:b",
        "a:-1",
        "a:65536",
        "a:80:80",
        ":80",
        "[::1",
        "::1",
        "[x]",
        "[::1]a",
        "http://a",
        "a\\b",
        "a\"b",
        "<a>",
        "a%4",
        "\u{e4}",
        "a\tb",
        "h, evil",
    ];
    house.refuses(MALFORMED, &hosts.map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))).await;
}

/// RFC 9110, section 7.2: names, addresses and ports pass as they are, and so does the empty host of a target without one.
#[tokio::test]
async fn a_valid_host_passes_as_it_is() {
    let house = House::echoing(&[]).await;
    for host in ["shop.example", "SHOP:8080", "127.0.0.1:1", "[::1]", "[2001:db8::1]:65535", "a_b", ""] {
        let seen = house.passed(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(seen.contains(&format!("\r\nHost: {host}\r\n")), "{seen}");
    }
}

/// RFC 9112, section 3.2: HTTP/1.0 needs none, but what goes on is HTTP/1.1.
#[tokio::test]
async fn a_request_of_http_1_0_without_a_host_gets_the_applications() {
    let house = House::echoing(&[]).await;
    let seen = house.passed("GET / HTTP/1.0\r\n\r\n");
    let hosts = values(&seen, "host");
    assert!(hosts.len() == 1 && hosts[0].starts_with("127.0.0.1:"), "{seen}");
}
