//! Point 15: the four forms of a target.

use crate::house::{House, MALFORMED, Refused, values};

/// RFC 9112, section 3.2.2: the authority of the target replaces `Host`, and origin-form goes on.
#[tokio::test]
async fn the_authority_of_an_absolute_target_replaces_the_host() {
    let house = House::echoing(&[]).await;
    for (target, line, host) in [
        ("http://shop.example/a?b", "GET /a?b HTTP/1.1", "shop.example"),
        ("HTTP://shop.example:81/", "GET / HTTP/1.1", "shop.example:81"),
        ("https://shop.example", "GET / HTTP/1.1", "shop.example"),
        ("http://shop.example?a=b", "GET /?a=b HTTP/1.1", "shop.example"),
        ("http://[::1]:8/a", "GET /a HTTP/1.1", "[::1]:8"),
    ] {
        let seen = house.passed(format!("GET {target} HTTP/1.1\r\nHost: evil\r\n\r\n"));
        assert_eq!(seen.lines().next(), Some(line));
        assert_eq!((values(&seen, "host"), values(&seen, "x-forwarded-host")), (vec![host], vec![host]), "{seen}");
        assert!(!seen.contains("evil"), "{seen}");
    }
    let seen = house.passed("GET http://shop.example/ HTTP/1.0\r\n\r\n");
    assert_eq!(values(&seen, "host"), ["shop.example"], "{seen}");
}

/// RFC 9110, section 4.2, and RFC 9112, section 3.2: other schemes, users and texts are no target of ours.
#[tokio::test]
async fn a_target_of_no_lawful_form_is_refused() {
    let house = House::echoing(&[]).await;
    let targets = [
        "http://",
        "http:///a",
        "http://user:secret@h/",
        "http://user@h/",
        "http://h:99999/",
        "http://a b/",
        "http:/h/",
        "http:h",
        "ftp://h/",
        "file:///etc/passwd",
        "gopher://h",
        "h:80",
        "h",
        "a/b",
        "?a",
        "",
        "\\",
        "javascript:1",
        "*",
        "/\u{e4}",
    ];
    house.refuses(MALFORMED, &targets.map(|target| format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))).await;
}

/// RFC 9112, section 3.2.4: the asterisk is for OPTIONS alone, also when the absolute form has no path.
#[tokio::test]
async fn the_asterisk_is_for_options_alone() {
    let house = House::echoing(&[]).await;
    for target in ["*", "http://h", "http://h:80"] {
        let seen = house.passed(format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(seen.starts_with("OPTIONS * HTTP/1.1\r\n"), "{target}: {seen}");
    }
    let methods = ["GET", "POST", "PUT", "DELETE", "PATCH", "PROPFIND"];
    house.refuses(MALFORMED, &methods.map(|method| format!("{method} * HTTP/1.1\r\nHost: h\r\n\r\n"))).await;
    house
        .refuses(MALFORMED, &["OPTIONS ** HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS h:80 HTTP/1.1\r\nHost: h\r\n\r\n"])
        .await;
}

/// RFC 9110, section 9.3.6: a gateway that opens tunnels to where the client wants would be an open proxy.
#[tokio::test]
async fn connect_is_never_forwarded() {
    let house = House::echoing(&[]).await;
    let targets = ["example.com:443", "127.0.0.1:22", "[::1]:80", "/", "http://h/", "*"];
    let requests = targets.map(|target| format!("CONNECT {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    house.refuses(Refused(405, "method_not_allowed"), &requests).await;
    let mut client = house.client();
    client.send(&requests[0]);
    let allow = client.message().field("allow").expect("RFC 9110, section 15.5.6").to_owned();
    assert!(allow.contains("GET") && !allow.contains("CONNECT"), "{allow}");
}
