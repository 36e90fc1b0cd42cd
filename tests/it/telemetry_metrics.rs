//! Metrics and the sidecar's own telemetry over real sockets, to their last word at the end of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use content_factory_sidecar::model::catalogue;
use content_factory_sidecar::model::sample::{Sample, SampleSource};
use content_factory_sidecar::model::telemetry::Signal;
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::telemetry::intake::Delivery;
use content_factory_sidecar::telemetry::logging::{LogConfig, LogFormat};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use serde_json::json;

use crate::telemetry_receiver::{Codings, Receiver, eventually};
use crate::telemetry_setup::{Running, assert_balanced};

const SOON: Duration = Duration::from_secs(10);

fn produced(seen: &crate::telemetry_receiver::Seen) -> u64 {
    let metrics = seen.metrics.iter().filter(|metric| metric.name == "content_factory.telemetry.produced");
    let points = metrics.filter_map(|metric| match &metric.data {
        Some(Data::Sum(sum)) => Some(&sum.data_points),
        _ => None,
    });
    points
        .flatten()
        .map(|point| match point.value {
            Some(Value::AsInt(count)) => u64::try_from(count).expect("no count is negative"),
            _ => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_add_up_to_the_count_and_the_last_one_is_sent_at_the_end() {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let count = Arc::new(AtomicU64::new(3));
    let source: SampleSource = {
        let count = Arc::clone(&count);
        Arc::new(move |out: &mut Vec<Sample>| {
            let sample = Sample::count(&catalogue::TELEMETRY_PRODUCED, count.load(Ordering::Relaxed));
            out.push(sample.with_literal("signal", "traces"));
        })
    };
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "metrics": {"interval": "100ms"}});
    let mut running = Running::start(settings, 0, vec![source]);
    eventually("the first export", SOON, || receiver.with(|seen| produced(seen)) == 3).await;
    count.store(8, Ordering::Relaxed);
    eventually("the second export", SOON, || receiver.with(|seen| produced(seen)) == 8).await;
    count.store(9, Ordering::Relaxed);
    running.stop(SOON).await;
    assert_eq!(receiver.with(|seen| produced(seen)), 9);
    let account = running.account(Signal::Metrics);
    assert_balanced(&account);
    assert_eq!((account.delivered, account.queued), (3, 0));
    let mut samples = Vec::new();
    running.reader.samples(&mut samples);
    assert!(samples.iter().all(|sample| catalogue::ALL.contains(&sample.metric)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hands_over_hears_of_the_delivery_or_of_the_loss() {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address)});
    let mut running = Running::start(settings, 0, Vec::new());
    // one resource with one scope with two records
    let body = b"\x0a\x06\x12\x04\x12\x00\x12\x00".to_vec();
    let heard = running.intake.push_acknowledged(Signal::Logs, body.clone()).expect("a request");
    assert_eq!(heard.await, Ok(Delivery::Complete));
    assert_eq!(receiver.with(|seen| seen.logs.len()), 2);
    receiver
        .with(|seen| seen.otherwise = Some(crate::telemetry_receiver::Reply::Fail(tonic::Code::PermissionDenied, 403)));
    let heard = running.intake.push_acknowledged(Signal::Logs, body).expect("a request");
    assert_eq!(heard.await, Ok(Delivery::Incomplete));
    assert!(running.intake.push(Signal::Logs, b"<html>".to_vec()).is_err());
    running.stop(SOON).await;
    assert_balanced(&running.account(Signal::Logs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sidecars_own_spans_and_logs_leave_by_the_same_way_without_secrets() {
    let receiver = Receiver::http(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "protocol": "http/protobuf"});
    let log = LogConfig { level: "warn".into(), format: LogFormat::Text };
    let mut running = Running::start(settings, 0, Vec::new());
    let subscriber = running.subscriber(&log, &Arc::new(Redactor::new(["hunter2-secret"])));
    tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("refresh_routes", url = "http://user:hunter2-secret@app/openapi.json");
        let _entered = span.enter();
        tracing::info!(password = "x", "routes read with hunter2-secret");
        tracing::info!(target: "h2::client", "would loop");
    });
    running.stop(SOON).await;
    receiver.with(|seen| {
        assert_eq!((seen.spans.len(), seen.logs.len()), (1, 1), "{:?} {:?}", seen.spans, seen.logs);
        assert_eq!(seen.spans[0].name, "refresh_routes");
        assert_eq!(seen.logs[0].trace_id, seen.spans[0].trace_id, "a record knows its span");
        let all = format!("{:?} {:?}", seen.spans, seen.logs);
        assert!(
            !all.contains("hunter2") && all.contains("[REDACTED:secret]") && all.contains("[REDACTED:key]"),
            "{all}"
        );
        assert!(seen.services.iter().all(|name| name == "content-factory-sidecar"), "{:?}", seen.services);
    });
    for signal in [Signal::Traces, Signal::Logs] {
        assert_balanced(&running.account(signal));
        assert_eq!(running.account(signal).delivered, 1);
    }
}
