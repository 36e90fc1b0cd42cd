//! Slow and silent peers: every wait has a deadline, and nobody else waits along.

use tokio::time::{Duration, Instant, sleep, timeout};

use crate::proxy_world::{Application, Client};
use crate::rig::{PATIENCE, Sidecar};

/// Deadlines of a second, so that the tests need not wait for the real ones.
const SHORT: [(&str, &str); 4] = [
    ("SIDECAR_PROXY__TIMEOUTS__HEADER", "1s"),
    ("SIDECAR_PROXY__TIMEOUTS__BODY_IDLE", "1s"),
    ("SIDECAR_PROXY__TIMEOUTS__CLIENT_IDLE", "1s"),
    ("SIDECAR_PROXY__TIMEOUTS__FIRST_BYTE", "1s"),
];

/// What was opened to the application stays open to be seen.
const KEPT: (&str, &str) = ("SIDECAR_PROXY__TIMEOUTS__POOL_IDLE", "1h");

#[tokio::test]
async fn half_a_head_is_answered_with_408_and_closed() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[&SHORT[..], &[KEPT]].concat()).await;
    let mut client = Client::connect(sidecar.proxy).await.unwrap();
    client.send(b"GET /half HTTP/1.1\r\nHost: h\r\nX-A: ").await.unwrap();
    assert_eq!(client.answer().await, Some((408, false)));
    assert!(client.closed_by_fin().await);
    application.connections_become(0).await;
    client = Client::connect(sidecar.proxy).await.unwrap();
    client.get("/whole").await.unwrap();
    assert_eq!(client.answer().await, Some((200, true)));
    application.connections_become(1).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_work_of_the_application() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut took = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect(sidecar.proxy).await.unwrap();
        client.get("/hold").await.unwrap();
        application.held.acquire().await.unwrap().forget();
        let left = Instant::now();
        drop(client);
        timeout(PATIENCE, application.abandoned.acquire()).await.expect("it is told").unwrap().forget();
        took.push(left.elapsed());
    }
    // a wait of the sidecar's own would be in each of them, one of the machine is not
    assert!(took.iter().min() < Some(&Duration::from_millis(100)), "told after {took:?}");
}

#[tokio::test]
async fn silent_connections_do_not_slow_others_down() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        let mut client = Client::connect(sidecar.proxy).await.unwrap();
        client.send(b"GET / HTTP/1.1\r\nX:").await.unwrap();
        silent.push(client);
    }
    let mut client = Client::connect(sidecar.proxy).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..100 {
        let asked = Instant::now();
        client.get("/x").await.unwrap();
        assert_eq!(client.answer().await, Some((200, true)));
        took.push(asked.elapsed());
    }
    took.sort_unstable();
    // who waits for others does so each time, and a busy machine makes only some late
    assert!(took[25] < Duration::from_millis(20), "{took:?}");
}

/// Its memory once twenty looks in a row have found the same: what can be written is written then, and nothing moves.
async fn settled_kib(sidecar: &Sidecar) -> u64 {
    let (mut last, mut same, deadline) = (sidecar.resident_kib(), 0, Instant::now() + PATIENCE);
    while same < 20 {
        assert!(Instant::now() < deadline, "its memory never settles; last {last} KiB");
        sleep(Duration::from_millis(20)).await;
        let now = sidecar.resident_kib();
        // what runs by the clock may take a page or two
        same = if now.abs_diff(last) <= 16 { same + 1 } else { 0 };
        last = now;
    }
    last
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_the_application_and_costs_no_memory() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut clients = Vec::new();
    let mut resident = Vec::new();
    // the first ones pay for what all of them share
    for _ in 0..2 {
        for _ in 0..40 {
            let mut client = Client::connect(sidecar.proxy).await.unwrap();
            client.get("/endless").await.unwrap();
            client.bytes(1000).await;
            clients.push(client);
        }
        resident.push(settled_kib(&sidecar).await);
    }
    let grown = resident[1].saturating_sub(resident[0]);
    assert!(grown < 40 * 128, "{grown} KiB more for 40 clients that do not read");
}
