//! Point 34: whatever the application sends, the client gets HTTP or a clear end, and the sidecar lives.

use crate::house::{House, answer_all, target};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Nothing has panicked, and the next request is served.
async fn lives(house: &House) {
    let page = house.sidecar.metrics().await;
    let panics: Vec<&str> =
        page.lines().filter(|line| line.starts_with("content_factory_proxy_panics_total{")).collect();
    assert!(!panics.is_empty() && panics.iter().all(|line| line.ends_with("} 0")), "{panics:?}");
}

/// RFC 9112, section 2.1: what does not begin with a status line is no answer.
#[tokio::test]
async fn garbage_before_the_status_becomes_502() {
    House::replaces(&[
        "garbage\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\0\0\0HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "<html>HTTP/1.1 200 OK\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "\u{16}\u{3}\u{1}\r\n\r\n",
    ])
    .await;
}

/// RFC 9112, section 2.3, in spirit of RFC 6585, section 5: heads are bounded, in bytes and in fields.
#[tokio::test]
async fn a_huge_head_becomes_502() {
    let field = "X: 1\r\n";
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70 << 10));
    let reason = format!("HTTP/1.1 200 {}\r\n\r\n", "x".repeat(70 << 10));
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", field.repeat(101));
    House::replaces(&[&large, &reason, &many]).await;
    let house = House::answering(&[&format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", field.repeat(99))]).await;
    assert_eq!(house.client().get("/0").status(), 200, "100 fields are none too many");
}

/// RFC 9110, section 15.2: interim answers without end are an attack.
#[tokio::test]
async fn endless_interim_answers_become_502() {
    for interim in ["HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let endless = interim.repeat(1_000);
        let house = House::scripted(&[], move |_, mut client| answer_all(&mut client, &endless)).await;
        let mut client = house.client();
        let mut answer = client.get("/");
        let mut count = 0;
        while answer.status() < 200 {
            count += 1;
            answer = client.message();
        }
        assert_eq!(answer.status(), 502);
        assert!((1..100).contains(&count), "{count} of them passed");
        house.counted("upstream_bad_answer", 1).await;
        lives(&house).await;
    }
}

/// RFC 9112, section 6.3: too short an answer breaks off, too long a one is cut, and neither connection is used again.
#[tokio::test]
async fn a_wrong_length_is_seen_and_poisons_nobody() {
    let house = House::scripted(&[], |_, mut client| {
        while let Some(message) = client.try_message() {
            client.send(match target(&message) {
                "/long" => {
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
                }
                "/short" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
                _ => OK,
            });
            if target(&message) == "/short" {
                return;
            }
        }
    })
    .await;
    let mut client = house.client();
    for _ in 0..5 {
        assert_eq!(client.get("/long").text(), "ok");
        assert_eq!(client.get("/next").text(), "ok", "not what stood behind the last answer");
    }
    client.send("GET /short HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(client.try_message().is_none(), "short of its length");
    house.counted("upstream_broken", 1).await;
    lives(&house).await;
}

/// RFC 9112, sections 6.1 and 6.3: several codings, or one beside another framing, are no framing.
#[tokio::test]
async fn several_codings_become_502() {
    House::replaces(&[
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ])
    .await;
}

/// RFC 9112, section 6.3: an answer that ends with its connection is lawful, also of HTTP/1.0, and gets an end of its own.
#[tokio::test]
async fn an_answer_that_ends_with_the_connection_gets_an_end_of_its_own() {
    for head in
        ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n"]
    {
        let house = House::scripted(&[], move |_, mut client| {
            client.try_message();
            client.send(format!("{head}until the end"));
        })
        .await;
        let mut client = house.client();
        for round in 1..=2 {
            let answer = client.get("/");
            assert_eq!((answer.field("transfer-encoding"), answer.text().as_str()), (Some("chunked"), "until the end"));
            assert_eq!(house.connections(), round, "{head:?}");
        }
        let mut old = house.client();
        old.send("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n");
        let answer = old.message();
        assert_eq!((answer.field("connection"), answer.text().as_str()), (Some("close"), "until the end"));
        lives(&house).await;
    }
}

/// RFC 9110, section 15.2.2: a change of protocol that nobody asked for is no answer.
#[tokio::test]
async fn a_101_unasked_becomes_502() {
    House::replaces(&[
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ])
    .await;
}
