//! SIGTERM: whoever asked gets an answer, whoever comes late is told to come elsewhere, and the process ends.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::{Duration, Instant, timeout};

use crate::press::{Load, over_sigterm};
use crate::proxy_world::{Application, Client};
use crate::rig::{PATIENCE, Sidecar};

/// How long an idle connection may still bring a request.
const LINGER: Duration = Duration::from_secs(1);

/// Asks on kept connections until connections are refused.
async fn press(proxy: SocketAddr, load: Arc<Load>) {
    'connecting: loop {
        let Ok(mut client) = Client::connect(proxy).await else { return load.ends("refused") };
        let mut idle_since = Instant::now();
        loop {
            let answer = match client.get("/pressed").await {
                Ok(()) => client.answer().await,
                Err(_) => None,
            };
            match answer {
                Some((200, goes_on)) => {
                    load.answered();
                    if !goes_on {
                        continue 'connecting;
                    }
                }
                // this client had no turn for longer than a connection may idle then
                None if idle_since.elapsed() >= LINGER => {
                    load.excused();
                    continue 'connecting;
                }
                other => panic!("{other:?} {:?} after the answer before", idle_since.elapsed()),
            }
            idle_since = Instant::now();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_over_a_sigterm_under_load() {
    over_sigterm(32, 20_000, press).await;
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_sigterm() {
    let application = Application::start().await;
    let mut sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut client = Client::connect(sidecar.proxy).await.unwrap();
    client.get("/told").await.unwrap();
    timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
    sidecar.signal("TERM").await;
    sidecar.says(&["draining"]).await;
    application.told.add_permits(1);
    assert_eq!(client.answer().await, Some((200, false)));
    assert!(client.closed_by_fin().await);
    assert_eq!(sidecar.ended().await, Some(0));
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end_up() {
    let application = Application::start().await;
    let for_ever = [("SIDECAR_PROXY__DRAIN_TIMEOUT", "10m")];
    let mut sidecar = Sidecar::start(application.address, &[], &for_ever).await;
    let mut idle = Client::connect(sidecar.proxy).await.unwrap();
    idle.get("/once").await.unwrap();
    assert_eq!(idle.answer().await, Some((200, true)));
    sidecar.signal("TERM").await;
    assert!(idle.closed_by_fin().await);
    // the collector is away: the last deliveries take all of their own time, and none of the drain's
    assert_eq!(sidecar.ended().await, Some(0));
}

#[tokio::test]
async fn what_is_under_way_gets_the_time_that_is_set_and_no_more() {
    let application = Application::start().await;
    let limit = [("SIDECAR_PROXY__DRAIN_TIMEOUT", "500ms"), ("SIDECAR_TELEMETRY__SHUTDOWN", "1s")];
    let mut sidecar = Sidecar::start(application.address, &[], &limit).await;
    let mut client = Client::connect(sidecar.proxy).await.unwrap();
    client.get("/hold").await.unwrap();
    timeout(PATIENCE, application.held.acquire()).await.expect("it arrives").unwrap().forget();
    let told = Instant::now();
    sidecar.signal("TERM").await;
    assert_eq!(client.head().await, None, "it is broken off without an answer");
    assert!(told.elapsed() >= Duration::from_millis(500), "broken off after {:?}", told.elapsed());
    timeout(PATIENCE, application.abandoned.acquire()).await.expect("the application is told").unwrap().forget();
    assert_eq!(sidecar.ended().await, Some(0));
}
