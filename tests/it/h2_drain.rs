//! SIGTERM with clients that speak HTTP/2: they are told by GOAWAY, and whoever asked before gets an answer.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::h2_world::{GOAWAY, Raw, connect, get, read, request, send};
use crate::press::{Load, over_sigterm};
use crate::proxy_world::Application;
use crate::rig::{PATIENCE, Sidecar};

/// Streams of a connection at once.
const STREAMS: usize = 8;

/// Asks on one stream after the other, on new connections when one is left, until none can be made.
async fn press(proxy: SocketAddr, load: Arc<Load>) {
    loop {
        let Ok(client) = connect(proxy).await else { return load.ends("refused") };
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            let (client, load) = (client.clone(), Arc::clone(&load));
            streams.spawn(async move {
                // an error here is a connection that takes no more requests: this one was never sent
                while let Ok(answer) = send(&client, request("GET", "/pressed")).await {
                    let answer = read(answer).await;
                    // a stream above the last one that GOAWAY names was not looked at, and the client may repeat it
                    let untouched = answer.as_ref().is_err_and(h2::Error::is_go_away);
                    if untouched {
                        return;
                    }
                    assert_eq!(answer.expect("an answer").status, 200);
                    load.answered();
                }
            });
        }
        while let Some(stream) = streams.join_next().await {
            stream.expect("no stream fails");
        }
        load.ends("left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_over_a_sigterm_under_load() {
    over_sigterm(8, 20_000, press).await;
}

#[tokio::test]
async fn a_request_under_way_is_answered_behind_goaway() {
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.proxy).await.unwrap();
    let answer = send(&client, request("GET", "/told")).await.unwrap();
    timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
    sidecar.signal("TERM").await;
    sidecar.says(&["draining"]).await;
    application.told.add_permits(1);
    assert_eq!(read(answer).await.unwrap().status, 200);
    assert!(get(&client, "/more").await.is_err(), "the connection takes no more");
    assert_eq!(sidecar.ended().await, Some(0));
}

#[tokio::test]
async fn an_idle_connection_is_told_and_does_not_hold_the_end_up() {
    let application = Application::start().await;
    let for_ever = [("SIDECAR_PROXY__DRAIN_TIMEOUT", "10m")];
    let mut sidecar = Sidecar::start(application.address, &[], &for_ever).await;
    // one that says nothing at all, not even that it has seen our PING
    let mut mute = Raw::greet(sidecar.proxy).await;
    mute.next_of(0).await.expect("settings");
    sidecar.signal("TERM").await;
    while mute.next_of(0).await.expect("GOAWAY comes before the end").kind != GOAWAY {}
    mute.rest().await;
    assert_eq!(sidecar.ended().await, Some(0));
}

#[tokio::test]
async fn a_connection_without_requests_ends_at_its_deadline() {
    let application = Application::start().await;
    let idle = [("SIDECAR_PROXY__TIMEOUTS__CLIENT_IDLE", "600ms")];
    let sidecar = Sidecar::start(application.address, &[], &idle).await;
    let client = connect(sidecar.proxy).await.unwrap();
    // a stream that takes longer than the deadline is no idle connection
    assert_eq!(get(&client, "/late").await.unwrap(), 200);
    let mut mute = Raw::greet(sidecar.proxy).await;
    // without the setting it would be 70 s
    while mute.next_of(0).await.expect("GOAWAY comes before the end").kind != GOAWAY {}
    mute.rest().await;
}
