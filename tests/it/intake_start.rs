//! The intake opens when it is asked to, says where, and refuses settings that make no sense.

use std::net::TcpListener;

use crate::intake_world::{PROTOBUF, post, sidecar, span, traces};
use crate::rig::{Sidecar, echo_application, output};
use prost::Message;

const ENABLED: (&str, &str) = ("SIDECAR_TELEMETRY__INTAKE__ENABLED", "true");

#[tokio::test]
async fn without_being_asked_to_it_does_not_listen() {
    let mut sidecar = Sidecar::start(echo_application().await, &[], &[]).await;
    assert!(!sidecar.metrics().await.contains("content_factory_intake"));
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));
    assert_eq!(sidecar.line().await, None, "no address but those of proxy and admin port");
}

#[tokio::test]
async fn it_says_where_it_listens_and_ends_with_the_process() {
    let (mut sidecar, [grpc, http]) = sidecar(&[]).await;
    assert!(grpc.ip().is_loopback() && http.ip().is_loopback() && grpc.port() != http.port());
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));
    assert!(TcpListener::bind(http).is_ok());
}

#[tokio::test]
async fn a_taken_port_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let environment = [
        ENABLED,
        ("SIDECAR_TELEMETRY__INTAKE__GRPC", "127.0.0.1:0"),
        ("SIDECAR_TELEMETRY__INTAKE__HTTP", &address),
        ("SIDECAR_TELEMETRY__ENDPOINT", "http://127.0.0.1:1"),
    ];
    let output = output(&["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &environment).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, format!("{address} is in use, expected a free port; choose another by telemetry.intake.http\n"));
}

#[tokio::test]
async fn an_intake_that_takes_in_what_it_sends_is_refused_and_what_to_change_is_said() {
    for (environment, key, address) in [
        (vec![ENABLED], "grpc", "127.0.0.1:4317"),
        (vec![ENABLED, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")], "http", "127.0.0.1:4318"),
        (
            vec![
                ENABLED,
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
                ("SIDECAR_TELEMETRY__LOGS__ENDPOINT", "http://[::1]:99"),
                ("SIDECAR_TELEMETRY__INTAKE__HTTP", "[::1]:99"),
            ],
            "http",
            "[::1]:99",
        ),
    ] {
        let output = output(&["check-config"], &environment).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(&format!("telemetry.intake.{key}: {address}, expected another address")), "{said}");
        assert!(said.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

#[tokio::test]
async fn settings_that_make_no_sense_are_named() {
    let environment = [
        ENABLED,
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
        ("SIDECAR_TELEMETRY__INTAKE__GRPC", "0.0.0.0:4317"),
        ("SIDECAR_TELEMETRY__INTAKE__MEMORY", "1MiB"),
        ("SIDECAR_TELEMETRY__INTAKE__SERVER_METRICS", "twice"),
    ];
    let output = output(&["check-config"], &environment).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{said}");
    for key in ["grpc: 0.0.0.0:4317", "memory: ", "server_metrics: twice"] {
        assert!(said.contains(&format!("telemetry.intake.{key}")), "{key}: {said}");
    }
}

#[tokio::test]
async fn what_another_way_leads_back_is_refused_and_said_once() {
    let (sidecar, [_, http]) = sidecar(&[]).await;
    for _ in 0..3 {
        let headers = [("content-type", PROTOBUF), ("user-agent", "content-factory-sidecar/0.0.1 tonic/0.14")];
        let answer = post(http, "/v1/traces", &headers, traces("x", vec![span(1)]).encode_to_vec()).await;
        assert_eq!(answer.status, 503);
    }
    assert_eq!(sidecar.log().matches("leads into telemetry.intake").count(), 1, "{}", sidecar.log());
}
