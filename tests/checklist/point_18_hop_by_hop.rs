//! Point 18: what is meant for one hop ends here, and nobody erases what we add.

use crate::house::{House, MALFORMED, get, post, values};

/// RFC 9110, section 7.6.1: `Connection`, every field that it names, and those that are of one hop by definition.
#[tokio::test]
async fn fields_of_one_hop_do_not_reach_the_application() {
    let house = House::echoing(&[]).await;
    let seen = house.passed(get(
        "X-Own: 1\r\nConnection: keep-alive, X-Own\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
         Trailer: ETag\r\nUpgrade: h2c\r\nconnection: x-late ,, X-Quoted\r\nX-Late: 1\r\nX-QUOTED: 1\r\nX-Kept: 1\r\n",
    ));
    for name in
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "x-own", "x-late", "x-quoted"]
    {
        assert!(values(&seen, name).is_empty(), "{name} in {seen}");
    }
    assert_eq!(values(&seen, "x-kept"), ["1"]);
}

/// RFC 9110, sections 11.7.1 and 11.7.2: credentials for a proxy are not the application's.
#[tokio::test]
async fn credentials_for_a_proxy_stop_here() {
    let house = House::scripted(&[], |_, mut client| {
        crate::house::answer_all(
            &mut client,
            "HTTP/1.1 200 OK\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n",
        );
    })
    .await;
    let mut client = house.client();
    client.send(get("Proxy-Authorization: Basic c2VjcmV0\r\nAuthorization: Basic b3du\r\n"));
    assert_eq!(client.message().field("proxy-authenticate"), None);
    let seen = house.seen();
    assert!(!seen.contains("c2VjcmV0") && seen.contains("Authorization: Basic b3du"), "{seen}");
}

/// RFC 9110, section 7.6.1: our own fields are added behind that removal, so nobody erases them by naming them.
#[tokio::test]
async fn naming_our_fields_does_not_erase_them() {
    let house = House::echoing(&[("SIDECAR_PROXY__VIA", "edge")]).await;
    let names = "traceparent, X-Forwarded-For, x-forwarded-proto, x-forwarded-host, X-Real-IP, via";
    let claimed = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let seen =
        house.passed(get(&format!("Connection: {names}\r\ntraceparent: {claimed}\r\nX-Forwarded-For: 6.6.6.6\r\n")));
    for (name, expected) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("h")),
        ("via", Some("1.1 edge")),
        ("traceparent", None),
    ] {
        let found = values(&seen, name);
        assert_eq!(found.len(), 1, "{name} in {seen}");
        assert!(expected.is_none_or(|value| value == found[0]), "{name} in {seen}");
    }
    assert!(!seen.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "a named traceparent is of one hop: {seen}");
}

/// RFC 9110, section 7.6.1: a field that is meant for everybody must not be named; these would change the message.
#[tokio::test]
async fn naming_host_or_framing_is_refused() {
    let house = House::echoing(&[]).await;
    let many: String = (0..40).map(|number| format!("x-{number}, ")).collect();
    let requests = [
        get("Connection: Host\r\n"),
        get("Connection: close, hOST\r\n"),
        post("Content-Length: 1\r\nConnection: Content-Length\r\n", "x"),
        post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        get("Connection: a b\r\n"),
        get("Connection: \"x\"\r\n"),
        get("Connection: x;y\r\n"),
        get(&format!("Connection: {many}x\r\n")),
    ];
    house.refuses(MALFORMED, &requests).await;
}

/// RFC 9110, section 7.6.1: the same on the way back.
#[tokio::test]
async fn fields_of_one_hop_do_not_reach_the_client() {
    let house = House::scripted(&[], |_, mut client| {
        let fields = "X-Own: 1\r\nConnection: X-Own, keep-alive\r\nKeep-Alive: timeout=2\r\nProxy-Connection: close\r\nTE: a\r\n\
                      Upgrade: h2c\r\nTrailer: ETag\r\nX-Kept: 1\r\n";
        crate::house::answer_all(&mut client, &format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"));
    })
    .await;
    let mut client = house.client();
    let answer = client.get("/");
    for name in ["connection", "keep-alive", "proxy-connection", "te", "upgrade", "trailer", "x-own"] {
        assert_eq!(answer.field(name), None, "{name} in {}", answer.head);
    }
    assert_eq!(answer.field("x-kept"), Some("1"));
    assert_eq!(client.get("/").status(), 200, "the client's connection is its own affair");
    House::replaces(&[
        "HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ])
    .await;
}
