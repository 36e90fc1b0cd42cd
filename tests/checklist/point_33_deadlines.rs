//! Point 33: every wait has a deadline.
//!
//! Short settings instead of the real ones, and no upper bounds on the clock: that the end comes at all is the fact.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use crate::house::{House, MALFORMED, Refused, answer_all, get, post, target};
use crate::raw::{Client, PATIENCE};
use crate::rig::Sidecar;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn first_byte() -> [(&'static str, &'static str); 1] {
    [("SIDECAR_PROXY__TIMEOUTS__FIRST_BYTE", "300ms")]
}

/// RFC 9110, section 15.5.9: a head that does not arrive whole is 408, whether its client stops or trickles.
#[tokio::test]
async fn a_head_that_does_not_arrive_is_408() {
    let house = House::echoing(&[("SIDECAR_PROXY__TIMEOUTS__HEADER", "1s")]).await;
    let requests =
        ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: h\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r", "GET /\r\n"];
    house.refuses(Refused(408, "header_timeout"), &requests).await;
    let mut client = house.client();
    client.send("GET / HTTP/1.1\r\nX: ");
    client.stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
    // a byte each twentieth of a second would keep a deadline between bytes away for ever
    let answered = (0..1_000).any(|_| {
        client.send("a");
        client.stream.peek(&mut [0]).is_ok()
    });
    assert!(answered, "it was let in for 50 s");
    client.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    assert_eq!(client.message().status(), 408);
    house.refuses(MALFORMED, &["GET / HTTP/1.1\r\n\r\n"]).await;
}

/// RFC 9110, section 15.5.9: so is a body that stops, and the application is not left with half of it.
#[tokio::test]
async fn a_body_that_stops_is_408_and_broken_off_at_the_application() {
    let (tell, told) = mpsc::channel();
    let house = House::scripted(&[("SIDECAR_PROXY__TIMEOUTS__BODY_IDLE", "300ms")], move |_, mut client| {
        client.head();
        tell.send(client.rest()).expect("the test waits");
    })
    .await;
    for (fields, body) in [("Content-Length: 10\r\n", "half"), ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n")] {
        let mut client = house.client();
        client.send(post(fields, body));
        let answer = client.message();
        assert_eq!((answer.status(), answer.field("connection")), (408, Some("close")));
        assert!(answer.text().contains("body_timeout"), "{}", answer.text());
        assert!(client.is_closed());
        assert_eq!(told.recv_timeout(PATIENCE).expect("the application is told"), body.as_bytes());
    }
    house.counted("body_timeout", 2).await;
}

/// RFC 9112, section 9.5: an idle client is let go without a word.
#[tokio::test]
async fn an_idle_client_is_closed_without_a_word() {
    let house = House::echoing(&[("SIDECAR_PROXY__TIMEOUTS__CLIENT_IDLE", "1500ms")]).await;
    let mut silent = house.client();
    assert!(silent.is_closed());
    let mut used = house.client();
    assert_eq!(used.get("/").status(), 200);
    assert!(used.is_closed());
}

/// RFC 9110, section 15.6.5: an application that takes no connection is given up within the time to connect.
#[tokio::test]
async fn an_application_that_takes_no_connection_is_503() {
    // a queue of one that nobody empties: the kernel then answers no further attempt
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(0).expect("it listens");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
    let fill = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let _filling: Vec<_> = (0..4).map_while(fill).collect();
    let sidecar = Sidecar::start(address, &[], &[("SIDECAR_PROXY__TIMEOUTS__CONNECT", "300ms")]).await;
    let answer = Client::new(sidecar.proxy).get("/");
    assert_eq!((answer.status(), answer.field("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("upstream_connect_timeout"), "{}", answer.text());
}

/// RFC 9110, section 15.6.5: an answer that does not begin is 504; half a head or a hint is no beginning.
#[tokio::test]
async fn an_answer_that_does_not_begin_is_504() {
    let (tell, told) = mpsc::channel();
    let house = House::scripted(&first_byte(), move |_, mut client| {
        let Some(message) = client.try_message() else { return };
        client.send(match target(&message) {
            "/silent" => "",
            "/half" => "HTTP/1.1 200 OK\r\nX: ",
            _ => "HTTP/1.1 103 Early Hints\r\n\r\n",
        });
        tell.send(client.is_closed()).expect("the test waits");
    })
    .await;
    for target in ["/silent", "/half", "/hint"] {
        let mut client = house.client();
        let mut answer = client.get(target);
        while answer.status() < 200 {
            answer = client.message();
        }
        assert_eq!(answer.status(), 504, "{target}");
        assert!(answer.text().contains("upstream_timeout"), "{}", answer.text());
        assert!(told.recv_timeout(PATIENCE).expect("it works for nobody any more"), "{target}");
    }
    house.counted("upstream_timeout", 3).await;
}

/// RFC 9110, section 15.2: each interim answer says that the application works, and the wait begins anew.
#[tokio::test]
async fn an_application_that_says_that_it_works_is_waited_for() {
    let (pace, tick) = (Duration::from_millis(400), mpsc::channel::<()>());
    let (_never, silence) = tick;
    let silence = std::sync::Mutex::new(silence);
    let house = House::scripted(&[("SIDECAR_PROXY__TIMEOUTS__FIRST_BYTE", "3s")], move |_, mut client| {
        client.try_message();
        for _ in 0..10 {
            let _a_pause = silence.lock().expect("one user").recv_timeout(pace);
            client.send("HTTP/1.1 102 Processing\r\n\r\n");
        }
        client.send(OK);
        client.rest();
    })
    .await;
    let mut client = house.client();
    let mut answer = client.get("/");
    while answer.status() < 200 {
        answer = client.message();
    }
    assert_eq!(answer.text(), "ok", "after 4 s");
}

/// RFC 9112, section 9.5: a connection to the application is closed before the application would close it.
#[tokio::test]
async fn an_idle_connection_to_the_application_is_closed() {
    let (tell, told) = mpsc::channel();
    let house = House::scripted(&[("SIDECAR_PROXY__TIMEOUTS__POOL_IDLE", "300ms")], move |_, mut client| {
        answer_all(&mut client, OK);
        tell.send(()).expect("the test waits");
    })
    .await;
    let mut client = house.client();
    assert_eq!(client.get("/").text(), "ok");
    told.recv_timeout(PATIENCE).expect("it was closed");
    assert_eq!(client.get("/").text(), "ok", "and the client noticed nothing");
    assert_eq!(house.connections(), 2);
}

/// RFC 9110, section 15.6.5: an application that takes no bytes is given up.
#[tokio::test]
async fn an_application_that_stops_reading_is_504() {
    let house = House::scripted(&[("SIDECAR_PROXY__TIMEOUTS__WRITE_STALL", "300ms")], |_, mut client| {
        client.head();
        let _until_the_test_ends = std::net::TcpListener::bind("127.0.0.1:0").and_then(|nobody| nobody.accept());
    })
    .await;
    let mut client = house.client();
    client.send(post("Content-Length: 1000000000\r\n", ""));
    let mut writing = client.stream.try_clone().expect("a second handle");
    let writer = std::thread::spawn(move || while writing.write_all(&[b'x'; 65_536]).is_ok() {});
    assert_eq!(client.message().status(), 504);
    let _it_may_be_closed_by_now = client.stream.shutdown(std::net::Shutdown::Both);
    writer.join().expect("it ends with its connection");
    house.counted("upstream_timeout", 1).await;
}

/// RFC 9112, section 9.5: a client that takes no bytes is given up, and the application need not go on.
#[tokio::test]
async fn a_client_that_stops_reading_is_given_up() {
    let (tell, told) = mpsc::channel();
    let house = House::scripted(&[("SIDECAR_PROXY__TIMEOUTS__WRITE_STALL", "300ms")], move |_, mut client| {
        client.try_message();
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while client.stream.write_all(&[b'x'; 65_536]).is_ok() {}
        tell.send(()).expect("the test waits");
    })
    .await;
    let mut client = house.client();
    client.send(get(""));
    told.recv_timeout(PATIENCE).expect("the application is let go");
    house.counted("client_gone", 1).await;
}
