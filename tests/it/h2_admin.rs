//! HTTP/2 in clear text on the admin port: the same answers by the same rules.

use crate::h2_world::{GOAWAY, PREFACE, Raw, SETTINGS, ask, connect, get, request};
use crate::proxy_world::Application;
use crate::rig::Sidecar;

#[tokio::test]
async fn the_admin_port_answers_over_http2_by_the_same_rules() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let client = connect(sidecar.admin).await.unwrap();
    assert_eq!(get(&client, "/livez").await.unwrap(), 200);
    // a page on another site that sends its browser to loopback is refused by its host, in whichever field it stands
    let foreign = ask(&client, request("GET", "/status")).await.unwrap();
    assert_eq!((foreign.status, foreign.text().contains("a foreign Host")), (403, true), "{}", foreign.text());
    let own = http::Request::get(format!("http://{}/status", sidecar.admin)).body(()).unwrap();
    assert_eq!(ask(&client, own).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_preface_in_pieces_is_known_and_half_of_one_is_a_bad_request() {
    let application = Application::start().await;
    let sidecar = Sidecar::start(application.address, &[], &[]).await;
    let mut raw = Raw::connect(sidecar.admin).await;
    for piece in PREFACE.chunks(5) {
        raw.bytes(piece).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await; // so that it is not one segment
    }
    raw.frame((SETTINGS, 0), 0, b"").await;
    assert_eq!(raw.next_of(0).await.expect("settings").kind, SETTINGS);
    raw.frame((SETTINGS, 0), 1, b"").await; // settings of a stream: an error of the connection
    while raw.next_of(0).await.expect("GOAWAY comes before the end").kind != GOAWAY {}
    let mut raw = Raw::connect(sidecar.admin).await;
    raw.bytes(b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n").await;
    let answer = raw.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
}
