//! Point 9: a body that was cut off never looks complete.

use std::net::Shutdown;
use std::sync::mpsc;

use crate::house::{House, post, target};
use crate::raw::PATIENCE;

/// RFC 9112, section 8: the application's connection ends, without a last chunk and short of the length.
#[tokio::test]
async fn a_request_that_is_cut_off_is_cut_off_at_the_application() {
    for (fields, body) in [("Content-Length: 10\r\n", "begin"), ("Transfer-Encoding: chunked\r\n", "5\r\nbegin\r\n")] {
        let (tell, told) = mpsc::channel();
        let house = House::scripted(&[], move |_, mut client| {
            client.head();
            tell.send(client.rest()).expect("the test waits");
        })
        .await;
        let mut client = house.client();
        client.send(post(fields, body));
        client.stream.shutdown(Shutdown::Write).expect("still connected");
        let seen = told.recv_timeout(PATIENCE).expect("the application is not left waiting");
        assert_eq!(String::from_utf8_lossy(&seen), body, "{fields:?}");
        house.counted("client_gone", 1).await;
    }
}

/// RFC 9112, section 8: the client sees an end before the end, by its framing or, lacking one, by a reset.
#[tokio::test]
async fn an_answer_that_is_cut_off_is_cut_off_at_the_client() {
    let house = House::scripted(&[], |_, mut client| {
        let Some(message) = client.try_message() else { return };
        client.send(match target(&message) {
            "/length" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin",
            "/chunks" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n",
            "/last-chunk" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n0\r\n",
            _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbeg",
        });
    })
    .await;
    let targets = ["/length", "/chunks", "/last-chunk", "/within"];
    for target in targets {
        let mut client = house.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let record = client.record();
        assert!(client.try_message().is_none(), "{target} looked whole");
        assert!(!record.lock().expect("nobody panicked").ends_with(b"0\r\n\r\n"), "{target}");
    }
    house.counted("upstream_broken", targets.len() as u64).await;
}

/// RFC 9112, section 8: to HTTP/1.0 a body ends with the connection, so one that is cut off must end otherwise.
#[tokio::test]
async fn a_client_of_http_1_0_sees_a_reset_and_no_end() {
    use std::io::Read;
    let (go, allowed) = mpsc::channel::<()>();
    let allowed = std::sync::Mutex::new(allowed);
    let house = House::scripted(&[], move |_, mut client| {
        client.try_message();
        client.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n");
        let _the_test_goes_on = allowed.lock().expect("one user").recv();
    })
    .await;
    let mut client = house.client();
    client.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n");
    let head = client.head().expect("an answer");
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(client.bytes(5).as_deref(), Some(&b"begin"[..]));
    go.send(()).expect("the application waits");
    let end = client.stream.read(&mut [0; 16]);
    assert_eq!(end.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
}
