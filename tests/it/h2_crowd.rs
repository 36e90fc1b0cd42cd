//! What is held for clients is counted and bounded: requests by `proxy.limits.memory`, connections of HTTP/2 by
//! `proxy.http2.connections`.

use crate::h2_fate::{CALM, Fate, GET, cut_off, errors, refusals, value};
use crate::h2_world::{Bodies, Raw, ask, connect, connect_with, request, send};
use crate::proxy_world::{Application, Client};
use crate::rig::Sidecar;

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
