//! WebSockets through the egress port, as the realtime interface of an AI service has them: byte by byte on both sides.

use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;

use tokio::time::Instant;

use crate::egress::{DURATIONS, becomes, sidecar};
use crate::raw::{Client, PATIENCE, echo_all, origin};

const REALTIME: &str = "gen_ai_operation_name=\"realtime\"";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";

/// Asks for a WebSocket.
fn asking(egress: SocketAddr) -> Client {
    let mut client = Client::new(egress);
    client.send(
        "GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nHost: ai\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: the key\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer k\r\n\r\n",
    );
    client
}

/// A service that agrees, and then sends back what comes.
fn echoing(_: usize, mut client: Client) {
    let Some(asked) = client.try_message() else { return };
    if asked.field("upgrade").is_none() {
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        return echo_all(&mut client);
    }
    client.send(format!("{AGREED}\r\n"));
    while let Some(byte) = client.bytes(1) {
        client.send(byte);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_byte_for_byte_both_ways_and_its_handshake_is_counted() {
    let service = origin(|_, mut client| {
        let head = client.message().head.to_ascii_lowercase();
        let asked =
            ["upgrade: websocket", "connection: upgrade", "sec-websocket-key: the key", "authorization: bearer k"];
        let asked = asked.iter().filter(|field| head.contains(&format!("\r\n{field}\r\n"))).count();
        // the first word may stand right behind the agreement
        client.send(format!("{AGREED}Sec-WebSocket-Accept: yes\r\nX-Asked: {asked}\r\n\r\nfirst"));
        let bytes = client.bytes(256).unwrap_or_default();
        client.send(&bytes);
        let end = client.is_closed();
        client.send(if end { "closed" } else { "more" });
    });
    let (sidecar, egress) = sidecar(service, &[]).await;
    let mut client = asking(egress);
    let agreed = client.message();
    assert_eq!(agreed.status(), 101, "{}", agreed.head);
    for (name, value) in
        [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-accept", "yes"), ("x-asked", "4")]
    {
        assert_eq!(agreed.field(name), Some(value), "{}", agreed.head);
    }
    assert_eq!(client.bytes(5).as_deref(), Some(&b"first"[..]));
    becomes(&sidecar, DURATIONS, &[REALTIME, "gen_ai_request_model=\"gpt-realtime\""], "1").await;
    let all: Vec<u8> = (0..=255).collect();
    client.send(&all);
    assert_eq!(client.bytes(256), Some(all));
    client.stream.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(client.rest(), b"closed", "an end is passed on, and the other side may have a last word");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_refuses_a_websocket_is_heard_and_counted() {
    let service = origin(|_, mut client| {
        client.message();
        client.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 9\r\n\r\n{\"no\": 1}");
    });
    let (sidecar, egress) = sidecar(service, &[]).await;
    let refused = asking(egress).message();
    assert_eq!((refused.status(), refused.text()), (401, "{\"no\": 1}".to_owned()));
    becomes(&sidecar, DURATIONS, &[REALTIME, "gen_ai_request_model=\"other\"", "error_type=\"401\""], "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agreement_that_nobody_asked_for_is_no_answer() {
    let service = origin(|_, mut client| {
        client.message();
        client.send(format!("{AGREED}\r\n"));
    });
    let (sidecar, egress) = sidecar(service, &[]).await;
    assert_eq!(Client::new(egress).get("/v1/models").status(), 502);
    becomes(&sidecar, DURATIONS, &["error_type=\"protocol\""], "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_side_breaks_off_the_other_hears_of_it() {
    let (gone, service_saw_it) = mpsc::channel();
    let service = origin(move |number, mut client| {
        client.message();
        client.send(format!("{AGREED}\r\n"));
        if number == 0 {
            let _ = gone.send(client.is_closed());
        }
    });
    let (_sidecar, egress) = sidecar(service, &[]).await;
    let mut leaving = asking(egress);
    assert_eq!(leaving.message().status(), 101);
    drop(leaving);
    assert_eq!(service_saw_it.recv_timeout(PATIENCE), Ok(true));
    let mut left = asking(egress);
    assert_eq!(left.message().status(), 101);
    assert!(left.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_websocket_has_a_place_among_the_connections_until_it_ends() {
    let (sidecar, egress) = sidecar(origin(echoing), &[("SIDECAR_EGRESS__CONNECTIONS", "1")]).await;
    let mut open = asking(egress);
    assert_eq!(open.message().status(), 101);
    assert!(Client::new(egress).is_closed(), "there is no place for a second one");
    becomes(&sidecar, "content_factory_egress_connections_refused_total", &[], "1").await;
    open.send("x");
    assert_eq!(open.bytes(1).as_deref(), Some(&b"x"[..]));
    open.stream.shutdown(Shutdown::Write).expect("it is open");
    assert!(open.is_closed());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut next = Client::new(egress);
        next.send("GET /v1/models HTTP/1.1\r\nHost: ai\r\n\r\n");
        if next.try_message().is_some_and(|answer| answer.status() == 200) {
            break;
        }
        assert!(Instant::now() < deadline, "the place was never given back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_websocket_does_not_keep_the_process() {
    let (mut sidecar, egress) = sidecar(origin(echoing), &[]).await;
    let mut open = asking(egress);
    assert_eq!(open.message().status(), 101);
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.line().await, None, "it has ended");
    assert!(open.is_closed());
}
