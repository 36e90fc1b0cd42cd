//! `proxy.limits.connection_rate`: how often one address may connect.

use crate::proxy_world::{Application, Client};
use crate::rig::{PATIENCE, Sidecar};
use tokio::time::Instant;

const ONE: (&str, &str) = ("SIDECAR_PROXY__LIMITS__CONNECTION_RATE", "1");

/// Whether a new connection gets an answer; a refused one gets none.
async fn is_answered(sidecar: &Sidecar) -> bool {
    // the reset may be faster than whatever we do with the socket
    let Ok(mut client) = Client::connect(sidecar.proxy).await else { return false };
    client.get("/x").await.is_ok() && client.answer().await == Some((200, true))
}

/// Connects until one is refused.
async fn until_refused(sidecar: &Sidecar) {
    let deadline = Instant::now() + PATIENCE;
    while is_answered(sidecar).await {
        assert!(Instant::now() < deadline, "none was refused");
    }
}

/// Connects until one is answered; gives how many were refused before.
async fn until_answered(sidecar: &Sidecar) -> usize {
    let (deadline, mut refused) = (Instant::now() + PATIENCE, 0);
    while !is_answered(sidecar).await {
        refused += 1;
        assert!(Instant::now() < deadline, "all were refused");
    }
    refused
}

fn refused(page: &str) -> usize {
    let series = "content_factory_proxy_connections_cut_off_total{error_type=\"connection_rate\"} ";
    let value = page.lines().find_map(|line| line.strip_prefix(series)).expect("the series is there");
    value.parse().expect("a number")
}

#[tokio::test]
async fn who_connects_too_often_is_closed_without_an_answer_until_he_slows_down() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[ONE]).await;
    assert!(is_answered(&sidecar).await, "the first is free");
    until_refused(&sidecar).await;
    let more = until_answered(&sidecar).await;
    assert_eq!(refused(&sidecar.metrics().await), 1 + more, "each is counted");
}

#[tokio::test]
async fn a_trusted_proxy_connects_as_often_as_it_likes() {
    let application = Application::start().await;
    let trusted = ("SIDECAR_PROXY__TRUSTED_PROXIES", "127.0.0.0/8");
    let sidecar = Sidecar::start(application.address, &[], &[ONE, trusted]).await;
    for _ in 0..50 {
        assert!(is_answered(&sidecar).await);
    }
    assert_eq!(refused(&sidecar.metrics().await), 0);
}

#[tokio::test]
async fn without_the_setting_nobody_is_refused() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    for _ in 0..200 {
        assert!(is_answered(&sidecar).await);
    }
    assert_eq!(refused(&sidecar.metrics().await), 0);
}
