//! Point 11: some answers have no body whatever they say, and bytes that nobody asked for answer nobody.

use crate::house::{House, answer_all, target};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// RFC 9112, section 6.3: 204, 304 and answers to HEAD end with their head, with or without a framing.
#[tokio::test]
async fn answers_that_have_no_body_end_with_their_head() {
    let house = House::scripted(&[], |_, mut client| {
        while let Some(message) = client.try_message() {
            client.send(match target(&message) {
                "/204" => "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                "/204-chunked" => "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                "/head-chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "/head-unframed" => "HTTP/1.1 200 OK\r\n\r\n",
                "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                _ => OK,
            });
        }
    })
    .await;
    let cases = [
        ("GET", "/204", 204, None),
        ("GET", "/204-chunked", 204, None),
        ("GET", "/304", 304, Some("5")),
        ("HEAD", "/head-chunked", 200, None),
        ("HEAD", "/head-unframed", 200, None),
        ("HEAD", "/head", 200, Some("5")),
    ];
    let mut client = house.client();
    for (method, path, status, length) in cases {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n"));
        let head = client.head().unwrap_or_else(|| panic!("no answer to {method} {path}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(crate::house::values(&head, "content-length").first().copied(), length, "{head}");
        assert!(status != 204 || !head.contains("Transfer-Encoding"), "RFC 9112, section 6.1: not in 204: {head}");
        assert_eq!(client.message().text(), "ok", "the next answer follows at once");
    }
}

/// RFC 9112, section 6.3: a body behind such an answer is no answer to the next request.
#[tokio::test]
async fn a_body_where_none_may_be_ends_the_connection_and_answers_nobody() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (request, head) in [
        ("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", poison.len())),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n".to_owned()),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", OK.to_owned()),
    ] {
        let first = format!("{head}{poison}");
        let house = House::scripted(&[], move |number, mut client| {
            if number > 0 {
                return answer_all(&mut client, OK);
            }
            client.try_message();
            client.send(&first);
            client.rest();
        })
        .await;
        let mut client = house.client();
        client.send(request);
        let got = client.head().expect("an answer");
        if head == OK {
            assert_eq!(client.bytes(2).as_deref(), Some(&b"ok"[..]));
        }
        let next = client.get("/next");
        assert_eq!(next.text(), "ok", "behind {got:?}");
        assert_eq!(house.connections(), 2, "behind {got:?}");
    }
}

/// RFC 9112, section 9.3: bytes on an idle connection answer no request; whoever sends them is not asked again there.
#[tokio::test]
async fn bytes_on_an_idle_connection_end_it() {
    let (sent, has_sent) = std::sync::mpsc::channel();
    let (go, allowed) = std::sync::mpsc::channel::<()>();
    let allowed = std::sync::Mutex::new(allowed);
    let house = House::scripted(&[], move |number, mut client| {
        if number > 0 {
            return answer_all(&mut client, OK);
        }
        client.try_message();
        client.send(OK);
        allowed.lock().expect("one user").recv().expect("the test goes on");
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
        sent.send(()).expect("the test waits");
        client.rest();
    })
    .await;
    let mut client = house.client();
    assert_eq!(client.get("/first").text(), "ok");
    go.send(()).expect("the application waits");
    has_sent.recv().expect("it is on its way");
    assert_eq!(client.get("/second").text(), "ok");
    assert_eq!(house.connections(), 2);
}
