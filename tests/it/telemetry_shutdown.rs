//! The end of the process while nobody takes its telemetry.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::rig::{PATIENCE, Sidecar, echo_application, get};
use crate::telemetry_receiver::{Codings, Over, Receiver, Reply, eventually, free_listener};

/// Twice what the sidecar promises: other tests run beside this one.
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_black_hole_does_not_hold_the_end_up() {
    for over in Over::ALL {
        let silent = free_listener().await; // its backlog accepts, nobody answers
        let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
        // room for several chunks: a smaller queue may be empty after it was full
        let environment = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", over.protocol()),
            ("SIDECAR_TELEMETRY__QUEUE__TRACES", "256KiB"),
            ("SIDECAR_TELEMETRY__SPOOL__ENABLED", "false"),
        ];
        let application = echo_application().await;
        let mut sidecar = Sidecar::start(application, &["--otlp", &endpoint], &environment).await;
        let full = r#"content_factory_telemetry_dropped_total{signal="traces",reason="queue_full"}"#;
        let mut asked = 0;
        while !sidecar.metrics().await.lines().any(|line| line.starts_with(full) && !line.ends_with(" 0")) {
            for _ in 0..100 {
                let (status, _) = get(sidecar.proxy, "/x").await.expect("the proxy answers");
                assert_eq!(status, 200);
            }
            asked += 100;
            // two spans of each are more than a hundred bytes
            assert!(asked < 10_000, "the queue is never full: {}", sidecar.metrics().await);
        }

        sidecar.signal("TERM").await;
        let code = timeout(LIMIT, sidecar.ended()).await.expect("it ends although nobody takes its telemetry");
        assert_eq!(code, Some(0));

        let log = sidecar.log();
        let said = log.lines().find(|line| line.contains("delivering what is left of telemetry"));
        let limit = said.and_then(|line| line.rsplit_once("limit_seconds=")?.1.parse::<f64>().ok());
        assert!(limit.is_some_and(|seconds| seconds <= 3.0), "{log}");
        for signal in ["traces", "logs"] {
            let left =
                |line: &str| line.contains("telemetry was left at the end, and is dropped") && line.contains(signal);
            assert!(log.lines().any(left), "{signal}: {log}");
        }
        assert!(!log.contains("rooms did not end in time"), "{log}");
    }
}

#[tokio::test]
async fn all_signals_are_tried_at_once_at_the_end_and_what_is_left_is_told_and_kept() {
    let (folder, receiver) =
        (TempDir::new().expect("a folder"), Receiver::http(Codings::All, Default::default()).await);
    receiver.with(|seen| seen.otherwise = Some(Reply::Slow(Duration::from_secs(3_600))));
    let endpoint = format!("http://{}", receiver.address);
    let data_dir = folder.path().display().to_string();
    let environment = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("SIDECAR_DATA_DIR", &*data_dir),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
    ];
    let application = echo_application().await;
    let mut sidecar = Sidecar::start(application, &["--otlp", &endpoint], &environment).await;
    get(sidecar.proxy, "/x").await.expect("the proxy answers");
    sidecar.signal("TERM").await;
    let code = timeout(LIMIT, sidecar.ended()).await.expect("it ends although nobody takes its telemetry");
    assert_eq!(code, Some(0));
    let log = sidecar.log();
    for signal in ["traces", "metrics", "logs"] {
        // one that waited for another would never have been sent: nothing is answered
        let path = format!("/v1/{signal}");
        receiver.with(|seen| assert!(seen.paths.contains(&path), "{path}: {:?}", seen.paths));
        let left = |line: &str| {
            line.contains("telemetry was left at the end: the next start delivers it") && line.contains(signal)
        };
        assert!(log.lines().any(left), "{signal}: {log}");
    }
    assert!(!log.contains("is dropped"), "{log}");

    receiver.with(|seen| seen.otherwise = None);
    let next = Sidecar::start(application, &["--otlp", &endpoint], &environment).await;
    eventually("what was left arrives", PATIENCE, || {
        receiver.with(|seen| seen.spans.iter().filter(|span| span.kind != SpanKind::Internal as i32).count() == 2)
    })
    .await;
    eventually("and the metrics", PATIENCE, || receiver.with(|seen| !seen.metrics.is_empty())).await;
    assert!(next.log().contains("telemetry that an earlier process left is delivered now"), "{}", next.log());
}
