//! The connections to an application that speaks HTTP/2: how many there are, and what their ends mean to a call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::grpc_calls::status;
use crate::grpc_world::{Application, Manner, Word, call, until};
use crate::h2_requests::counted;
use crate::h2_world::{
    Answer, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE, SETTINGS, ask, block, connect, encode, open, push, read,
    send,
};
use crate::proxy_world::spawn;
use crate::rig::{PATIENCE, Sidecar};

/// A call that sends one message and gets it back.
async fn echoed(proxy: SocketAddr) -> Result<Answer, h2::Error> {
    let client = connect(proxy).await?;
    let (answer, mut body) = open(&client, call("/echo")).await?;
    body.send_data(Bytes::from_static(b"hello"), true)?;
    read(answer).await
}

fn is_whole(answer: &Answer) -> bool {
    answer.body == b"hello" && answer.trailers.as_ref().is_some_and(|trailers| trailers["grpc-status"] == "9")
}

#[tokio::test]
async fn as_many_calls_share_a_connection_as_the_application_allows() {
    let application = Application::start_with(Manner { streams: Some(3), refusals: 0 }).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(send(&client, call("/hold")).await.unwrap());
    }
    timeout(PATIENCE, application.held.acquire_many(10)).await.expect("all of them arrive").unwrap().forget();
    assert_eq!(application.most_at_once.load(Ordering::SeqCst), 3);
    let connections = application.connections.load(Ordering::SeqCst);
    assert!((4..=10).contains(&connections), "{connections} connections for ten calls");
    drop(held);
    timeout(PATIENCE, application.cancelled.acquire_many(10)).await.expect("all are told").unwrap().forget();
}

#[tokio::test]
async fn one_connection_carries_calls_one_after_the_other() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[("SIDECAR_PROXY__TIMEOUTS__POOL_IDLE", "1h")]).await;
    for _ in 0..20 {
        assert!(is_whole(&echoed(sidecar.proxy).await.unwrap()));
    }
    assert_eq!(application.connections.load(Ordering::SeqCst), 1);
    let page = sidecar.metrics().await;
    assert!(page.contains("\ncontent_factory_proxy_upstream_connections_total 1\n"), "{page}");
}

#[tokio::test]
async fn a_connection_that_nobody_needs_is_closed_and_the_next_call_opens_another() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[("SIDECAR_PROXY__TIMEOUTS__POOL_IDLE", "200ms")]).await;
    for connections in 1..=2 {
        assert!(is_whole(&echoed(sidecar.proxy).await.unwrap()));
        assert_eq!(application.connections.load(Ordering::SeqCst), connections);
        timeout(PATIENCE, application.ended.acquire()).await.expect("it is closed").unwrap().forget();
    }
}

#[tokio::test]
async fn no_call_fails_while_the_application_leaves_its_connections() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (answer, mut body) = open(&client, call("/echo")).await.unwrap();
    let mut under_way = timeout(PATIENCE, answer).await.expect("in time").unwrap().into_body();
    let mut callers = JoinSet::new();
    let proxy = sidecar.proxy;
    for _ in 0..4 {
        callers.spawn(async move {
            for _ in 0..100 {
                // whole in its head, so that its bytes are still here when it was never looked at
                let client = connect(proxy).await.expect("it listens");
                let answer = ask(&client, call("/bare")).await.expect("an answer");
                assert_eq!(status(&answer), ("5", "not%20here"), "{answer:?}");
            }
        });
    }
    for _ in 0..10 {
        let before = application.requests.load(Ordering::SeqCst);
        application.tell(Word::Leave);
        until("some calls more", || application.requests.load(Ordering::SeqCst) > before + 10).await;
    }
    while let Some(caller) = callers.join_next().await {
        caller.expect("no call fails");
    }
    assert!(application.connections.load(Ordering::SeqCst) > 10);
    // what was under way when the first one was left is finished on it
    push(&mut body, Bytes::from_static(b"to the end")).await.unwrap();
    body.send_data(Bytes::new(), true).unwrap();
    let piece = timeout(PATIENCE, under_way.data()).await.expect("in time").expect("a piece").unwrap();
    assert_eq!(piece, "to the end");
    assert_eq!(counted(&sidecar.eventually("/metrics", |_, page| counted(page, &[]) == 401).await, &["error_type"]), 0);
}

/// An application that leaves so many connections as soon as they are there: its GOAWAY comes with its SETTINGS. On all others
/// it is the one behind. Gives where it is, and how many it has left.
async fn leaving(behind: SocketAddr, leaves: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (address, left) = (listener.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&left);
    spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let left = Arc::clone(&counted);
            spawn(async move {
                let mut preface = [0; PREFACE.len()];
                if stream.read_exact(&mut preface).await.is_err() || preface != PREFACE {
                    return; // a question of the sidecar's own
                }
                if left.load(Ordering::SeqCst) < leaves {
                    left.fetch_add(1, Ordering::SeqCst);
                    let both = [encode((SETTINGS, 0), 0, &[]), encode((GOAWAY, 0), 0, &[0; 8])].concat();
                    stream.write_all(&both).await.expect("it is open");
                    let _until_it_is_closed = stream.read_to_end(&mut Vec::new()).await;
                    return;
                }
                let mut next = TcpStream::connect(behind).await.expect("it listens");
                next.write_all(PREFACE).await.expect("it is open");
                let _either_may_end_it = tokio::io::copy_bidirectional(&mut stream, &mut next).await;
            });
        }
    });
    (address, left)
}

#[tokio::test]
async fn a_connection_that_the_application_leaves_before_anything_was_asked_costs_no_call() {
    let application = Application::start().await;
    let (address, left) = leaving(application.address, 1).await;
    let sidecar = Sidecar::start(address, &[], &[]).await;
    let answer = echoed(sidecar.proxy).await.unwrap();
    assert!(is_whole(&answer), "{answer:?}");
    assert_eq!((left.load(Ordering::SeqCst), application.requests.load(Ordering::SeqCst)), (1, 1));
    let (address, left) = leaving(application.address, 9).await;
    let sidecar = Sidecar::start(address, &[], &[]).await;
    assert_eq!(status(&echoed(sidecar.proxy).await.unwrap()).0, "14");
    assert_eq!(left.load(Ordering::SeqCst), 2, "not for ever");
}

#[tokio::test]
async fn a_call_that_was_refused_unseen_is_sent_again_once() {
    let application = Application::start_with(Manner { streams: None, refusals: 1 }).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let answer = ask(&client, call("/bare")).await.unwrap();
    assert_eq!(status(&answer), ("5", "not%20here"));
    assert_eq!(application.requests.load(Ordering::SeqCst), 2);
    let application = Application::start_with(Manner { streams: None, refusals: 9 }).await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    assert_eq!(status(&ask(&client, call("/bare")).await.unwrap()).0, "14");
    assert_eq!(application.requests.load(Ordering::SeqCst), 2, "not for ever");
}

#[tokio::test]
async fn an_application_that_vanishes_breaks_its_calls_and_never_hangs_one() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (unanswered, _body) = open(&client, call("/hold")).await.unwrap();
    let (within, _body) = open(&client, call("/open")).await.unwrap();
    timeout(PATIENCE, application.held.acquire_many(2)).await.expect("they arrive").unwrap().forget();
    let mut within = timeout(PATIENCE, within).await.expect("in time").unwrap().into_body();
    assert_eq!(timeout(PATIENCE, within.data()).await.expect("in time").expect("a piece").unwrap(), "one message");
    application.tell(Word::Vanish);
    let answer = read(unanswered).await.unwrap();
    let told = "upstream_broken: the application closed the connection before it had answered";
    assert_eq!((answer.status, status(&answer)), (200, ("14", told)));
    let end = timeout(PATIENCE, within.data()).await.expect("an end in time").expect("no whole answer");
    assert!(end.is_err_and(|error| error.is_reset()));
    // its port may go a moment after its connections
    let refused = |answer: &Answer| status(answer) == ("14", "upstream_refused: nothing listens at proxy.upstream");
    while !refused(&ask(&client, call("/more")).await.unwrap()) {}
    let page = sidecar.metrics().await;
    assert!(counted(&page, &["upstream_refused"]) >= 1);
}

/// Something else that listens: it says this to whoever connects, and then nothing.
async fn stranger(says: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            spawn(async move {
                let _the_other_side_may_go = stream.write_all(says).await;
                while stream.read(&mut [0; 1_024]).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    address
}

#[tokio::test]
async fn an_application_that_does_not_speak_http2_is_told_from_one_that_is_away() {
    let not_http2 =
        "upstream_not_http2: the application does not speak HTTP/2 in clear text, see proxy.upstream_protocol";
    let mute = "upstream_connect_timeout: the application took no connection in time";
    let limit = [("SIDECAR_PROXY__TIMEOUTS__CONNECT", "300ms")];
    for (says, told) in [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".as_slice(), not_http2),
        (b"220 mail.example ESMTP\r\n", not_http2),
        (b"", mute),
    ] {
        let sidecar = Sidecar::start(stranger(says).await, &[], &limit).await;
        let client = connect(sidecar.proxy).await.unwrap();
        // all of them wait for one and the same connection
        let mut answers = Vec::new();
        for _ in 0..10 {
            answers.push(send(&client, call("/x")).await.unwrap());
        }
        for answer in answers {
            let answer = read(answer).await.unwrap();
            assert_eq!((answer.status, status(&answer)), (200, ("14", told)));
        }
    }
}

/// An application that answers one call, says that it takes no more, and keeps the connection: ready when that was
/// closed by the other side.
async fn farewell(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.expect("a listener");
        let mut preface = [0; PREFACE.len()];
        if stream.read_exact(&mut preface).await.is_err() || preface != *PREFACE {
            continue; // the sidecar's own questions
        }
        stream.write_all(&encode((SETTINGS, 0), 0, b"")).await.expect("it reads");
        let mut head = [0; 9];
        while head[3] != HEADERS {
            stream.read_exact(&mut head).await.expect("a frame");
            let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            stream.read_exact(&mut payload).await.expect("a frame");
        }
        let fields = block(&[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")]);
        let go_away = encode((GOAWAY, 0), 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
        let answer = encode((HEADERS, END_HEADERS | END_STREAM), 1, &fields);
        stream.write_all(&[go_away, answer].concat()).await.expect("it reads");
        while stream.read(&mut [0; 1_024]).await.is_ok_and(|count| count > 0) {}
        return;
    }
}

#[tokio::test]
async fn a_connection_that_takes_no_more_is_closed_behind_its_last_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut application = JoinSet::new();
    application.spawn(farewell(listener));
    let sidecar = Sidecar::start(address, &[], &[("SIDECAR_PROXY__TIMEOUTS__POOL_IDLE", "1h")]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    assert_eq!(status(&ask(&client, call("/x")).await.unwrap()).0, "0");
    timeout(PATIENCE, application.join_next()).await.expect("it is closed").expect("one task").expect("no panic");
}

#[tokio::test]
async fn a_call_under_way_is_finished_over_a_sigterm() {
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (answer, mut body) = open(&client, call("/echo")).await.unwrap();
    let mut echo = timeout(PATIENCE, answer).await.expect("in time").unwrap().into_body();
    sidecar.signal("TERM").await;
    // told by GOAWAY, and no new call is taken
    while ask(&client, call("/bare")).await.is_ok() {}
    for _ in 0..5 {
        push(&mut body, Bytes::from_static(b"on")).await.unwrap();
        assert_eq!(timeout(PATIENCE, echo.data()).await.expect("in time").expect("a piece").unwrap(), "on");
    }
    body.send_data(Bytes::new(), true).unwrap();
    assert!(timeout(PATIENCE, echo.data()).await.expect("in time").is_none());
    assert!(timeout(PATIENCE, echo.trailers()).await.expect("in time").unwrap().is_some());
    assert_eq!(sidecar.ended().await, Some(0));
    timeout(PATIENCE, application.ended.acquire()).await.expect("its connection is closed").unwrap().forget();
}

async fn http1(proxy: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.expect("it accepts");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end in time").expect("text");
    answer
}

#[tokio::test]
async fn everything_goes_on_by_http2_where_that_is_set() {
    let application = Application::start().await;
    let h2c = [("SIDECAR_PROXY__UPSTREAM_PROTOCOL", "h2c"), ("SIDECAR_PROXY__TIMEOUTS__POOL_IDLE", "1h")];
    let sidecar = Sidecar::start(application.address, &[], &h2c).await;
    let rest = "Host: h.example\r\nConnection: close\r\n";
    for (request, line, body) in [
        (format!("GET /plain?a=b HTTP/1.1\r\n{rest}\r\n"), "HTTP/1.1 200 OK", "0 bytes"),
        (format!("HEAD /plain HTTP/1.1\r\n{rest}\r\n"), "HTTP/1.1 200 OK", ""),
        (format!("POST /plain HTTP/1.1\r\n{rest}Content-Length: 5\r\n\r\nhello"), "HTTP/1.1 200 OK", "5 bytes"),
        (
            format!("POST /plain HTTP/1.1\r\n{rest}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nETag: x\r\n\r\n"),
            "HTTP/1.1 200 OK",
            "3 bytes",
        ),
        ("GET /plain HTTP/1.0\r\n\r\n".to_owned(), "HTTP/1.1 200 OK", "0 bytes"),
        (format!("GET /plain HTTP/1.1\r\n{rest}Upgrade: websocket\r\n\r\n"), "HTTP/1.1 200 OK", "0 bytes"),
        (format!("OPTIONS * HTTP/1.1\r\n{rest}\r\n"), "HTTP/1.1 200 OK", ""),
    ] {
        let answer = http1(sidecar.proxy, &request).await;
        let (head, found) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with(line), "{request}: {answer}");
        if request.contains("/plain") {
            assert!(found == body && head.to_lowercase().contains("etag: e"), "{request}: {answer}");
            let length = if body.is_empty() { "0 bytes" } else { body }.len();
            assert!(head.contains(&format!("Content-Length: {length}")), "{answer}");
        }
    }
    // a client of HTTP/1.1 gets no more trailers than from any application
    let answer = http1(sidecar.proxy, &format!("POST /echo HTTP/1.1\r\n{rest}Content-Length: 2\r\n\r\nhi")).await;
    let trailers = "\r\n0\r\ngrpc-status: 9\r\ngrpc-message: a%E2%98%BA\r\ngrpc-status-details-bin: CAk=\r\n\r\n";
    assert!(answer.ends_with(trailers), "{answer}");
    let client = connect(sidecar.proxy).await.unwrap();
    let answer = ask(&client, crate::h2_world::request("GET", "/plain")).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "0 bytes"));
    assert_eq!(application.connections.load(Ordering::SeqCst), 1);
    // what no application of HTTP/2 can be asked is refused, and no hang
    let answer = http1(sidecar.proxy, &format!("GET /a<b HTTP/1.1\r\n{rest}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(counted(&sidecar.metrics().await, &[]), 10);
}

#[tokio::test]
async fn a_grpc_call_goes_on_by_http1_where_that_is_set() {
    let application = crate::h2_world::Bodies::start().await;
    let http1 = [("SIDECAR_PROXY__UPSTREAM_PROTOCOL", "http1")];
    let sidecar = Sidecar::start(application.address, &[], &http1).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let (answer, mut body) = open(&client, call("/sized")).await.unwrap();
    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
    assert_eq!(read(answer).await.unwrap().text(), "5 bytes, trailers: ");
}
