//! What is longer than vendors take is cut, and each cut is counted.

use std::sync::Arc;
use std::time::Duration;

use content_factory_sidecar::model::request::{Method, RequestRecord, RequestSink};
use content_factory_sidecar::model::route::{Route, RouteId};
use content_factory_sidecar::model::sample::{LabelValue, SampleValue};
use content_factory_sidecar::model::telemetry::Signal;
use content_factory_sidecar::model::trace::TraceId;
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::telemetry::Reader;
use content_factory_sidecar::telemetry::logging::{LogConfig, LogFormat};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use serde_json::json;

use crate::telemetry_receiver::{Codings, Receiver};
use crate::telemetry_setup::{Running, record};

const SOON: Duration = Duration::from_secs(30);

/// `content_factory.telemetry.truncated` of a signal.
fn truncated(reader: &Reader, signal: Signal) -> u64 {
    let mut samples = Vec::new();
    reader.samples(&mut samples);
    let of_signal = |label: &LabelValue| matches!(label, LabelValue::Text(text) if text.as_str() == signal.label());
    let sample = samples.iter().find(|sample| {
        sample.metric.name == "content_factory.telemetry.truncated"
            && sample.labels.iter().any(|(_, label)| of_signal(label))
    });
    match sample.map(|sample| &sample.value) {
        Some(SampleValue::Count(count)) => *count,
        other => panic!("{other:?}"),
    }
}

fn longest(attributes: &[KeyValue]) -> usize {
    let texts = attributes.iter().filter_map(|pair| match pair.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.len()),
        _ => None,
    });
    texts.max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_in_spans_is_counted() {
    let path = |length: usize| format!("/{}", "p".repeat(length - 1));
    let route = |length: usize| format!("/{}", "r".repeat(length - 1));
    // the path, the route's template and the method; how many values and names of the two spans are cut
    let rows = [
        (path(4_000), route(200), 200, 0),
        (path(4_095), route(200), 200, 1), // url.full
        (path(4_096), route(200), 200, 2), // url.path, too
        (path(10), route(256), 200, 2),    // both names
        (path(10), route(4_096), 200, 3),  // http.route, too
        (path(10), route(10), 256, 2),     // http.request.method_original of both
    ];
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let endpoint = format!("http://{}", receiver.address);
    let mut running = Running::start(json!({"endpoint": endpoint}), 1, Vec::new());
    let mut sum = 0;
    for (path, route, method, cut) in &rows {
        running.writers[0].end(&RequestRecord {
            target: path.as_bytes(),
            route: Some(Route { id: RouteId(0), template: route }),
            method: Method::Other,
            method_text: "M".repeat(*method).as_bytes(),
            ..record(TraceId([7; 16]))
        });
        sum += cut;
        assert_eq!(truncated(&running.reader, Signal::Traces), sum, "{} {} {method}", path.len(), route.len());
    }
    running.stop(SOON).await;
    receiver.with(|seen| {
        assert_eq!(seen.spans.len(), 2 * rows.len());
        assert!(seen.spans.iter().all(|span| span.name.len() <= 255 && longest(&span.attributes) <= 4_095));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_in_the_sidecars_own_telemetry_is_counted() {
    let receiver = Receiver::http(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "protocol": "http/protobuf"});
    let log = LogConfig { level: "error".into(), format: LogFormat::Text };
    let mut running = Running::start(settings, 0, Vec::new());
    let subscriber = running.subscriber(&log, &Arc::new(Redactor::new([])));
    let long = "ä".repeat(2_048); // 4,096 bytes, and the last character would begin within the limit
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!("refresh_routes", url = long).in_scope(|| {});
        tracing::info!(body = long, "an answer");
    });
    running.stop(SOON).await;
    receiver.with(|seen| {
        assert_eq!((seen.spans.len(), seen.logs.len()), (1, 1), "{:?} {:?}", seen.spans, seen.logs);
        assert_eq!(longest(&seen.spans[0].attributes), 4_094);
        assert_eq!(longest(&seen.logs[0].attributes), 4_094);
    });
    assert_eq!(
        [Signal::Traces, Signal::Metrics, Signal::Logs].map(|signal| truncated(&running.reader, signal)),
        [1, 0, 1]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_make_the_limits_of_spans_lower_and_never_higher_than_vendors_take() {
    let path = format!("/{}", "é".repeat(3_000));
    // the settings; the longest value that there is then, the length of url.path, and the most attributes of a span
    let rows = [
        (("100", "3"), 100, 99, 3),
        (("1", "128"), 64, 63, 128),
        (("4095", "0"), 0, 0, 0),
        (("1000000", "1000000"), 4_095, 4_095, 128),
    ];
    for ((value, attributes), longest_value, length, most) in rows {
        let receiver = Receiver::grpc(Codings::All, Default::default()).await;
        let limits = json!({"value": value, "attributes": attributes});
        let settings = json!({"endpoint": format!("http://{}", receiver.address), "limits": limits});
        let mut running = Running::start(settings, 1, Vec::new());
        running.writers[0].end(&RequestRecord { target: path.as_bytes(), ..record(TraceId([7; 16])) });
        let cut = truncated(&running.reader, Signal::Traces);
        running.stop(SOON).await;
        receiver.with(|seen| {
            assert_eq!(seen.spans.len(), 2);
            let of_path = seen.spans.iter().flat_map(|span| &span.attributes).find(|pair| pair.key == "url.path");
            assert_eq!(longest(of_path.cloned().as_slice()), length, "{value} {attributes}");
            let mut dropped = 0;
            for span in &seen.spans {
                assert!(span.attributes.len() <= most && longest(&span.attributes) <= longest_value);
                assert_eq!(span.dropped_attributes_count > 0, most < 6, "{value} {attributes}");
                dropped += u64::from(span.dropped_attributes_count);
            }
            assert!(cut >= dropped && cut > 0, "{cut} {dropped}");
        });
    }
}
