//! Point 19: a connection changes its protocol only by a 101 that was asked for, to a protocol that is allowed.

use std::sync::mpsc;

use crate::h2_fate::{Fate, GET, errors, refusals};
use crate::h2_world::{Raw, SETTINGS};
use crate::house::{House, MALFORMED, answer_all, get, values};
use crate::raw::PATIENCE;
use crate::rig;

const ASKED: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n";

/// RFC 9110, section 7.8: behind 101, and only there, bytes pass raw in both directions.
#[tokio::test]
async fn bytes_pass_raw_after_101_and_not_before() {
    let (go, allowed) = mpsc::channel::<()>();
    let allowed = std::sync::Mutex::new(allowed);
    let (tell, told) = mpsc::channel();
    let house = House::scripted(&[], move |_, mut client| {
        client.head();
        tell.send(()).expect("the test waits");
        allowed.lock().expect("one user").recv().expect("the test goes on");
        client.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n\0first");
        let seen = client.rest();
        client.send(seen);
    })
    .await;
    let mut client = house.client();
    client.send(get(ASKED));
    client.send("GET /raw HTTP/1.1\r\n\0");
    told.recv_timeout(PATIENCE).expect("the application has the request");
    assert!(house.seen().ends_with("\r\n\r\n") && !house.seen().contains("/raw"), "{}", house.seen());
    assert_eq!(
        (values(&house.seen(), "connection"), values(&house.seen(), "upgrade")),
        (vec!["Upgrade"], vec!["websocket"])
    );
    go.send(()).expect("the application waits");
    let head = client.head().expect("an answer");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!((values(&head, "connection"), values(&head, "upgrade")), (vec!["Upgrade"], vec!["WebSocket"]));
    client.send("behind");
    client.stream.shutdown(std::net::Shutdown::Write).expect("still connected");
    assert_eq!(client.rest(), b"\0firstGET /raw HTTP/1.1\r\n\0behind");
}

/// RFC 9110, section 7.8: any other answer leaves the connection as it was, and what follows is HTTP, with all its rules.
#[tokio::test]
async fn without_101_what_follows_is_http() {
    let house =
        House::scripted(&[], |_, mut client| answer_all(&mut client, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
            .await;
    let mut client = house.client();
    client.send(format!(
        "{}GET /next HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        get(ASKED)
    ));
    assert_eq!((client.message().text().as_str(), client.message().text().as_str()), ("ok", "ok"));
    assert_eq!(client.message().status(), 400, "without a host");
    assert!(!house.seen().contains("6.6.6.6"), "{}", house.seen());
}

/// RFC 9110, section 7.8, and RFC 9113, section 3.2: h2c by upgrade would carry requests past all checks.
#[tokio::test]
async fn a_protocol_that_is_not_allowed_is_not_asked_for() {
    let house = House::echoing(&[]).await;
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
        "Connection: Upgrade\r\nUpgrade: \r\n",
        "Upgrade: websocket\r\n",
    ] {
        let seen = house.passed(get(fields));
        for name in ["connection", "upgrade", "http2-settings"] {
            assert!(values(&seen, name).is_empty(), "{fields:?}: {seen}");
        }
    }
    let seen = house.passed("GET / HTTP/1.0\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(values(&seen, "upgrade").is_empty(), "RFC 9110, section 7.8: not of HTTP/1.0: {seen}");
    let fields = "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n";
    let seen = house.passed(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\nx"));
    assert!(values(&seen, "upgrade").is_empty(), "the body and the protocol would share one stream: {seen}");
    house.refuses(MALFORMED, &[get("Connection: upgrade, host\r\nUpgrade: websocket\r\n")]).await;
}

/// RFC 9113, section 3.2: nor can it be allowed by mistake.
#[tokio::test]
async fn h2c_cannot_be_configured() {
    for protocol in ["h2c", "HTTP/2.0", "websocket,h2c"] {
        let output = rig::output(&["check-config"], &[("SIDECAR_PROXY__UPGRADES", protocol)]).await;
        assert_eq!(output.status.code(), Some(64), "{protocol}");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(said.contains("proxy.upgrades"), "{said}");
    }
}

/// SETTINGS_ENABLE_CONNECT_PROTOCOL: RFC 8441, section 3.
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// RFC 8441, sections 3 to 5, and RFC 9113, section 8.5: over HTTP/2 a WebSocket is not offered, so browsers ask for it over
/// HTTP/1.1; who asks all the same is refused, and counted.
#[tokio::test]
async fn over_http_2_no_connection_changes_its_protocol() {
    let house = House::echoing(&[]).await;
    let mut raw = Raw::greet(house.sidecar.proxy).await;
    let settings = raw.next_of(0).await.expect("SETTINGS comes first");
    assert_eq!((settings.kind, settings.flags), (SETTINGS, 0));
    let offered: Vec<u16> = settings.payload.chunks(6).map(|entry| u16::from_be_bytes([entry[0], entry[1]])).collect();
    assert!(!offered.is_empty() && !offered.contains(&ENABLE_CONNECT_PROTOCOL), "{offered:?}");
    let extended = [(":method", "CONNECT"), (":protocol", "websocket"), GET[1], (":path", "/chat"), GET[3]];
    raw.asks(1, &[&extended[..], &[("sec-websocket-version", "13")]].concat()).await;
    assert_eq!(raw.fate(1).await, Fate::Reset("protocol_error"), "what was not offered is malformed");
    raw.asks(3, &[(":method", "CONNECT"), (":authority", "h.example:443")]).await;
    assert_eq!(raw.fate(3).await, Fate::answer(405, "method_not_allowed"));
    let page = house.sidecar.metrics().await;
    assert_eq!((errors(&page, "rst_stream", "protocol_error"), refusals(&page, "method_not_allowed")), (1, 1));
    assert_eq!((house.connections(), house.seen()), (0, String::new()), "the application sees nothing of it");
}

/// RFC 9110, sections 7.8 and 15.2.2: a change that nobody asked for, or to something else, is no answer.
#[tokio::test]
async fn a_101_that_was_not_asked_for_becomes_502() {
    for (asked, fields) in [
        ("", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ("Connection: Upgrade\r\nUpgrade: h2c\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        (ASKED, "Connection: Upgrade\r\nUpgrade: h2c\r\n"),
        (ASKED, "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"),
        (ASKED, "Connection: Upgrade\r\n"),
        (ASKED, "Upgrade: websocket\r\n"),
        (ASKED, ""),
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nPOISON");
        let house = House::scripted(&[], move |_, mut client| answer_all(&mut client, &answer)).await;
        let mut client = house.client();
        client.send(get(asked));
        let got = client.message();
        assert_eq!(got.status(), 502, "{asked:?} {fields:?}");
        assert!(!got.text().contains("POISON"));
        house.counted("upstream_bad_answer", 1).await;
    }
}

/// RFC 9110, sections 7.8 and 15.5.22: 426 names the protocol, and `Connection` must name the field that does.
#[tokio::test]
async fn an_answer_that_requires_an_upgrade_says_so_to_this_hop() {
    let answer =
        "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n";
    let house = House::answering(&[answer]).await;
    for (asked, connection) in [
        ("HTTP/1.1\r\nHost: h\r\n\r\n", "Upgrade"),
        ("HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "close, Upgrade"),
        ("HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", "keep-alive, Upgrade"),
    ] {
        let mut client = house.client();
        client.send(format!("GET /0 {asked}"));
        let got = client.message();
        assert_eq!((got.status(), got.field("upgrade")), (426, Some("websocket")), "{asked:?}");
        assert_eq!(values(&got.head, "connection"), [connection], "one field says all: {asked:?}");
    }
}
