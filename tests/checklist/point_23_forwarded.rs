//! Point 23: who the client is, is told by us; what others say of it counts when they are trusted.

use std::net::SocketAddr;

use crate::house::{House, get, values};
use crate::raw::{Client, echo_all};

/// The peer of these tests is 127.0.0.1.
const TRUSTED: [(&str, &str); 1] = [("SIDECAR_PROXY__TRUSTED_PROXIES", "127.0.0.0/8,10.0.0.0/8")];

/// RFC 7239, section 8.1: anybody can write these fields, so a stranger's are replaced.
#[tokio::test]
async fn a_strangers_fields_are_overwritten() {
    let house = House::echoing(&[]).await;
    let seen = house.passed(get(
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
         X-Forwarded-Port: 666\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6;host=evil\r\n",
    ));
    assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&seen, "x-real-ip"), ["127.0.0.1"]);
    assert_eq!(values(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&seen, "x-forwarded-host"), ["h"]);
    assert!(!seen.contains("6.6.6") && !seen.contains("evil") && !seen.contains("666"), "{seen}");
}

/// RFC 7239, sections 4 and 7.1: a trusted proxy's fields stay, with the proxy itself behind them.
#[tokio::test]
async fn a_trusted_proxys_fields_are_continued() {
    let house = House::echoing(&TRUSTED).await;
    let seen = house.passed(get(
        "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nX-Forwarded-Port: 443\r\n\
         X-Real-IP: 6.6.6.6\r\nForwarded: for=203.0.113.9;proto=https\r\n",
    ));
    assert_eq!(values(&seen, "x-forwarded-for"), ["203.0.113.9, 127.0.0.1"]);
    assert_eq!(values(&seen, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&seen, "x-forwarded-host"), ["shop.example"]);
    assert_eq!(values(&seen, "x-forwarded-port"), ["443"]);
    assert_eq!(values(&seen, "x-real-ip"), ["203.0.113.9"], "this one is ours to say");
    assert_eq!(values(&seen, "forwarded"), ["for=203.0.113.9;proto=https, for=127.0.0.1;proto=http"]);
    let plain = house.passed(get(""));
    assert_eq!(values(&plain, "x-forwarded-for"), ["127.0.0.1"], "a trusted client of its own");
    assert_eq!((values(&plain, "x-forwarded-proto"), values(&plain, "x-forwarded-host")), (vec!["http"], vec!["h"]));
}

/// RFC 7239, section 8.1: the client is the right-most hop that is not trusted; left of it anything may stand.
#[tokio::test]
async fn the_client_is_the_right_most_hop_that_is_not_trusted() {
    let house = House::echoing(&TRUSTED).await;
    for (fields, client) in [
        ("X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.2.3\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.9,10.1.2.3\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 6.6.6.6, ::ffff:203.0.113.9, ::ffff:10.1.2.3\r\n", "203.0.113.9"),
        ("X-Forwarded-For: 203.0.113.9:4711, 10.1.2.3:80\r\n", "203.0.113.9"),
        ("X-Forwarded-For: [2001:db8::1]:4711, 10.1.2.3\r\n", "2001:db8::1"),
        ("X-Forwarded-For: 10.1.2.3, 10.1.2.4\r\n", "10.1.2.3"),
        ("X-Forwarded-For: 6.6.6.6, unknown, 10.1.2.3\r\n", "10.1.2.3"),
        ("X-Forwarded-For: garbage\r\n", "127.0.0.1"),
        ("X-Forwarded-For:\r\n", "127.0.0.1"),
    ] {
        assert_eq!(values(&house.passed(get(fields)), "x-real-ip"), [client], "{fields:?}");
    }
}

/// RFC 7239, section 4: a proxy that writes only `Forwarded` is understood, too.
#[tokio::test]
async fn forwarded_alone_tells_the_client() {
    let house = House::echoing(&TRUSTED).await;
    for (fields, client) in [
        ("Forwarded: for=203.0.113.9\r\n", "203.0.113.9"),
        ("Forwarded: for=6.6.6.6, For=\"203.0.113.9:47\";proto=https , proto=http;for=10.1.2.3\r\n", "203.0.113.9"),
        ("Forwarded: for=6.6.6.6\r\nForwarded: for=\"[2001:db8::1]:4711\"\r\n", "2001:db8::1"),
        ("Forwarded: for=6.6.6.6, for=_hidden, for=10.1.2.3\r\n", "10.1.2.3"),
        ("Forwarded: for=203.0.113.9, proto=https\r\n", "127.0.0.1"),
        ("Forwarded: garbage\r\n", "127.0.0.1"),
        ("Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
    ] {
        assert_eq!(values(&house.passed(get(fields)), "x-real-ip"), [client], "{fields:?}");
    }
}

/// RFC 4291, section 2.5.5.2: on a socket of both families an IPv4 peer is the same peer.
#[tokio::test]
async fn an_ipv4_peer_on_an_ipv6_socket_is_the_same_peer() {
    for (settings, expected) in [(&TRUSTED[..], "203.0.113.9, 127.0.0.1"), (&[][..], "127.0.0.1")] {
        let house = House::started(&["--listen", "[::]:0"], settings, |_, mut client| echo_all(&mut client)).await;
        let mut client = Client::new(SocketAddr::from(([127, 0, 0, 1], house.sidecar.proxy.port())));
        client.send(get("X-Forwarded-For: 203.0.113.9\r\n"));
        assert_eq!(values(&client.message().text(), "x-forwarded-for"), [expected]);
    }
}
