//! What is held for clients is counted and bounded: requests by `proxy.limits.memory`, connections of HTTP/2 by
//! `proxy.http2.connections`.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::h2_fate::{CALM, Fate, GET, cut_off, errors, refusals, value};
use crate::h2_world::{
    Bodies, DATA, END_HEADERS, END_STREAM, HEADERS, Raw, ask, block, connect, connect_with, encode, request, send,
};
use crate::proxy_world::{Application, Client, spawn};
use crate::rig::{PATIENCE, Sidecar};

const TWO: [(&str, &str); 1] = [("SIDECAR_PROXY__HTTP2__CONNECTIONS", "2")];
const HOLD: [(&str, &str); 4] = [GET[0], GET[1], (":path", "/hold"), GET[3]];

/// The least that can be set.
const MEBIBYTE: [(&str, &str); 1] = [("SIDECAR_PROXY__LIMITS__MEMORY", "1MiB")];

/// Bytes that the sidecar holds for its clients.
fn held(page: &str) -> u64 {
    value(page, "content_factory_proxy_memory_held_bytes")
}

/// Whether so many requests have got as far as they get: to the application, or to a refusal.
fn is_settled(page: &str, application: &Application, all: usize) -> bool {
    refusals(page, "memory_limit") as usize + application.held.available_permits() == all
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_gets_that_of_the_connection_that_is_idle() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &TWO).await;
    let mut busy = Raw::greet(sidecar.proxy).await;
    busy.asks(1, &HOLD).await;
    application.held.acquire().await.expect("open").forget();
    let mut idle = Raw::greet(sidecar.proxy).await;
    idle.asks(1, &GET).await;
    assert_eq!(idle.fate(1).await, Fate::answer(200, ""));
    let mut new = Raw::greet(sidecar.proxy).await;
    new.asks(1, &GET).await;
    assert_eq!(new.fate(1).await, Fate::answer(200, ""));
    assert_eq!(idle.farewell().await, "no_error", "it may come again");
    let page = sidecar.metrics().await;
    assert_eq!((cut_off(&page, "http2_idle"), cut_off(&page, "http2_connections")), (1, 0));
    busy.asks(3, &GET).await;
    assert_eq!(busy.fate(3).await, Fate::answer(200, ""), "who has something to wait for stays");
}

#[tokio::test]
async fn where_no_connection_is_idle_who_comes_is_told_to_calm_down() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &TWO).await;
    let mut busy = [Raw::greet(sidecar.proxy).await, Raw::greet(sidecar.proxy).await];
    for client in &mut busy {
        client.asks(1, &HOLD).await;
        application.held.acquire().await.expect("open").forget();
    }
    let mut new = Raw::greet(sidecar.proxy).await;
    assert_eq!(new.farewell().await, CALM);
    let page = sidecar.metrics().await;
    assert_eq!((cut_off(&page, "http2_idle"), cut_off(&page, "http2_connections")), (0, 1));
    assert_eq!(errors(&page, "goaway", CALM), 1);
    for client in &mut busy {
        client.asks(3, &GET).await;
        assert_eq!(client.fate(3).await, Fate::answer(200, ""));
    }
    let mut other = Client::connect(sidecar.proxy).await.expect("a connection");
    other.get("/x").await.expect("it holds");
    assert_eq!(other.answer().await, Some((200, true)), "HTTP/1.1 takes no such place");
    drop(busy);
    sidecar.eventually("/metrics", |_, page| held(page) == 0).await;
    let mut late = Raw::greet(sidecar.proxy).await;
    late.asks(1, &GET).await;
    assert_eq!(late.fate(1).await, Fate::answer(200, ""));
}

#[tokio::test]
async fn requests_beyond_the_memory_for_clients_are_refused_until_some_of_it_is_free() {
    const STREAMS: usize = 100;
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &MEBIBYTE).await;
    let clients = [connect(sidecar.proxy).await.expect("greeted"), connect(sidecar.proxy).await.expect("greeted")];
    let mut waiting = Vec::new();
    for client in &clients {
        for _ in 0..STREAMS {
            waiting.push(send(client, request("GET", "/hold")).await.expect("a stream"));
        }
    }
    let page = sidecar.eventually("/metrics", |_, page| is_settled(page, &application, 2 * STREAMS)).await;
    let refused = refusals(&page, "memory_limit");
    assert!((20..=80).contains(&refused), "{refused} of 200, where each takes some 6 KiB");
    // what was refused has left a remainder that is too small for a stream
    let mut others = Vec::new();
    let page = loop {
        let mut other = Client::connect(sidecar.proxy).await.expect("a connection");
        other.get("/hold").await.expect("it holds");
        others.push(other);
        assert!(others.len() <= 5, "each takes 2 KiB");
        let all = 2 * STREAMS + others.len();
        let is_settled = |_, page: &str| is_settled(page, &application, all);
        let page = sidecar.eventually("/metrics", is_settled).await;
        if refusals(&page, "memory_limit") > refused {
            break page;
        }
    };
    let head = others.last_mut().expect("one at least").head().await.expect("an answer");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nRetry-After: 1\r\n"), "{head}");
    assert_eq!(refusals(&page, "memory_limit"), refused + 1);
    drop(others);
    drop((clients, waiting));
    sidecar.eventually("/metrics", |_, page| held(page) == 0).await;
    let again = connect(sidecar.proxy).await.expect("greeted");
    let answer = ask(&again, request("GET", "/x")).await.expect("an answer");
    assert_eq!(answer.text(), "answer");
}

/// What waits within the library is held for its client as much as what waits before it.
#[tokio::test]
async fn an_answer_that_its_client_does_not_read_is_counted_as_held_wherever_it_waits() {
    let application = Bodies::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect_with(sidecar.proxy, 1 << 10).await.expect("greeted");
    let unread = send(&client, request("GET", "/source/100000000")).await.expect("a stream").await.expect("a head");
    // 20 KiB of the connection, 4 of the stream, and an outbox
    sidecar.eventually("/metrics", |_, page| held(page) >= (20 + 4 + 16) << 10).await;
    drop(unread);
    // the connection alone
    sidecar.eventually("/metrics", |_, page| held(page) == 20 << 10).await;
    drop(client);
    sidecar.eventually("/metrics", |_, page| held(page) == 0).await;
}

/// An application that tells each body in chunks as it came, with its framing.
async fn listener_of_chunks() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (tell, told) = mpsc::channel(1);
    spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            spawn(async move {
                let mut bytes = Vec::new();
                while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
                    if bytes.starts_with(b"POST ") && bytes.ends_with(b"\r\n0\r\n\r\n") {
                        let text = String::from_utf8_lossy(&bytes);
                        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                        let _the_test_may_be_over = tell.send(body.to_owned()).await;
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        let _so_may_the_connection = stream.write_all(answer).await;
                    }
                }
            });
        }
    });
    (address, told)
}

/// RFC 9113, section 10.5: small frames cost a client next to nothing, and each was a write of ours and a read of the application.
#[tokio::test]
async fn a_body_byte_by_byte_reaches_the_application_in_few_pieces() {
    const BYTES: usize = 300;
    let (address, mut told) = listener_of_chunks().await;
    let sidecar = Sidecar::start(address, &[], &[]).await;
    let mut raw = Raw::greet(sidecar.proxy).await;
    let head = [(":method", "POST"), (":scheme", "http"), (":path", "/upload"), (":authority", "h")];
    let mut upload = encode((HEADERS, END_HEADERS), 1, &block(&head));
    upload.extend(encode((DATA, 0), 1, b"x").repeat(BYTES));
    upload.extend(encode((DATA, END_STREAM), 1, b""));
    raw.bytes(&upload).await;
    let body = timeout(PATIENCE, told.recv()).await.expect("the body in time").expect("the application lives");
    assert_eq!(body.matches('x').count(), BYTES, "{body}");
    let chunks = body.matches("\r\nx").count() + 1;
    assert!(chunks <= BYTES / 10, "{chunks} chunks");
    assert_eq!(raw.fate(1).await, Fate::answer(200, ""));
}
