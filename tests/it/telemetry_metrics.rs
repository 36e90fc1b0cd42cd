//! Metrics and the sidecar's own telemetry over real sockets, to their last word at the end of the process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use content_factory_sidecar::model::catalogue;
use content_factory_sidecar::model::sample::{Sample, SampleSource};
use content_factory_sidecar::model::telemetry::Signal;
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::telemetry::intake::Delivery;
use content_factory_sidecar::telemetry::logging::{LogConfig, LogFormat};
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use serde_json::json;

use crate::telemetry_receiver::{Codings, Receiver, Reply, Seen, eventually};
use crate::telemetry_setup::{Running, assert_balanced};

const SOON: Duration = Duration::from_secs(30);

fn produced(seen: &Seen) -> u64 {
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

/// A point of a sum: from when to when it counts, and its temporality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: u64,
    end: u64,
    temporality: i32,
}

const DELTA: i32 = 1;
const CUMULATIVE: i32 = 2;

/// Takes the points of a sum out of what was seen, in the order of time.
fn taken(receiver: &Receiver, name: &str) -> Vec<Span> {
    let span = |point: &NumberDataPoint, temporality| {
        let (start, end) = (point.start_time_unix_nano, point.time_unix_nano);
        Span { start, end, temporality }
    };
    let mut spans: Vec<Span> = receiver.with(|seen| {
        let metrics = seen.metrics.extract_if(.., |metric| metric.name == name);
        let sums = metrics.filter_map(|metric| match metric.data {
            Some(Data::Sum(sum)) => Some(sum),
            _ => None,
        });
        sums.flat_map(|sum| sum.data_points.into_iter().map(move |point| span(&point, sum.aggregation_temporality)))
            .collect()
    });
    spans.sort_unstable();
    spans
}

/// A counter that is higher by one each time it is read, and a level.
fn counter_and_level() -> SampleSource {
    let read = AtomicU64::new(0);
    Arc::new(move |out: &mut Vec<Sample>| {
        let count = read.fetch_add(1, Ordering::Relaxed) + 1;
        out.push(Sample::count(&catalogue::TELEMETRY_PRODUCED, count).with_literal("signal", "traces"));
        out.push(Sample::level(&catalogue::HTTP_SERVER_ACTIVE_REQUESTS, 4.0));
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intervals_have_no_gap_over_a_failed_export_and_begin_anew_after_a_restart() {
    let (counter, level) = (catalogue::TELEMETRY_PRODUCED.name, catalogue::HTTP_SERVER_ACTIVE_REQUESTS.name);
    for (word, temporality) in [("delta", DELTA), ("lowmemory", DELTA), ("cumulative", CUMULATIVE)] {
        let receiver = Receiver::grpc(Codings::All, Default::default()).await;
        let metrics = json!({"interval": "100ms", "temporality": word});
        let settings = json!({"endpoint": format!("http://{}", receiver.address), "metrics": metrics});
        let mut ended_before = 0;
        for life in 1..=2 {
            let refusal = Reply::Fail(tonic::Code::Unavailable, 503);
            receiver.with(|seen| seen.script = [Reply::Accept, refusal.clone(), refusal].into());
            let mut running = Running::start(settings.clone(), 0, vec![counter_and_level()]);
            let told = |seen: &Seen| seen.metrics.iter().filter(|metric| metric.name == counter).count() >= 4;
            eventually("points from before and after the failure", SOON, || receiver.with(|seen| told(seen))).await;
            assert!(receiver.with(|seen| seen.script.is_empty()), "the receiver refused");
            running.stop(SOON).await;
            let (counts, levels) = (taken(&receiver, counter), taken(&receiver, level));
            let context = format!("{word}, life {life}: {counts:?} {levels:?}");
            assert!(counts.iter().all(|span| span.temporality == temporality), "{context}");
            assert!(levels.iter().all(|span| span.temporality == CUMULATIVE), "{context}");
            let (first, start) = (counts[0], levels[0].start);
            assert!(first.start == start && start > ended_before, "{context}");
            for pair in counts.windows(2) {
                let follows = if temporality == DELTA { pair[0].end } else { start };
                assert_eq!(pair[1].start, follows, "{context}");
            }
            assert!(levels.iter().all(|span| span.start == start), "{context}");
            assert_eq!(levels.len(), counts.len(), "{context}");
            ended_before = counts[counts.len() - 1].end;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_just_after_an_export_makes_no_second_difference_in_the_same_second() {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "metrics": {"interval": "1s"}});
    let mut running = Running::start(settings, 0, vec![counter_and_level()]);
    eventually("an export", SOON, || receiver.with(|seen| !seen.metrics.is_empty())).await;
    running.stop(SOON).await;
    let counts = taken(&receiver, catalogue::TELEMETRY_PRODUCED.name);
    let seconds: BTreeSet<u64> = counts.iter().map(|span| span.end / 1_000_000_000).collect();
    assert!(counts.len() >= 2 && seconds.len() == counts.len(), "{counts:?}");
    assert!(counts.windows(2).all(|pair| pair[1].start == pair[0].end), "{counts:?}");
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
    receiver.with(|seen| seen.otherwise = Some(Reply::Fail(tonic::Code::PermissionDenied, 403)));
    let heard = running.intake.push_acknowledged(Signal::Logs, body).expect("a request");
    assert_eq!(heard.await, Ok(Delivery::Incomplete));
    assert!(running.intake.push(Signal::Logs, b"<html>".to_vec()).is_err());
    running.stop(SOON).await;
    assert_balanced(&running.account(Signal::Logs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_exported_record_of_our_own_tells_who_a_url_is_used_as_or_the_secrets_of_its_query() {
    let receiver = Receiver::http(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "protocol": "http/protobuf"});
    let log = LogConfig { level: "error".into(), format: LogFormat::Text };
    let mut running = Running::start(settings, 0, Vec::new());
    let subscriber = running.subscriber(&log, &Arc::new(Redactor::new([])));
    let url = "https://user:of-nobody@h:8443/v1?token=of-nobody&page=2&api_key=of-nobody";
    let failure = std::io::Error::other(format!("cannot ask {url}: refused"));
    tracing::subscriber::with_default(subscriber, || {
        let span = tracing::info_span!("ask", address = %url, what = url);
        let _entered = span.enter();
        tracing::info!("asking {url} now");
        tracing::warn!(%url, ?url, "as a field");
        tracing::warn!(error = &failure as &dyn std::error::Error, reason = ?failure, "as an error");
    });
    running.stop(SOON).await;
    receiver.with(|seen| {
        assert_eq!((seen.spans.len(), seen.logs.len()), (1, 3), "{:?} {:?}", seen.spans, seen.logs);
        let all = format!("{:?} {:?}", seen.spans, seen.logs);
        assert!(!all.contains("of-nobody") && !all.contains("user:"), "{all}");
        let told = all.matches("https://REDACTED:REDACTED@h:8443/v1?token=REDACTED&page=2&api_key=REDACTED").count();
        assert!(told >= 6, "all else of a URL stays: {told} times in {all}");
    });
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
