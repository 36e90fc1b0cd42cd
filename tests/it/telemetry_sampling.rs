//! Head and tail of sampling: which requests leave spans behind, and what they say of the reason.

use std::collections::BTreeMap;
use std::time::Duration;

use content_factory_sidecar::model::request::{
    Outcome, RecordTrace, RequestKind, RequestRecord, RequestSink, UpstreamFault,
};
use content_factory_sidecar::model::route::{Route, RouteId};
use content_factory_sidecar::model::sample::{LabelValue, Sample, SampleValue};
use content_factory_sidecar::model::trace::{Sampled, TraceId};
use content_factory_sidecar::telemetry::SpanWriter;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value as Json, json};

use crate::telemetry_receiver::{Codings, Receiver};
use crate::telemetry_setup::{Running, record};

const SERVER: i32 = 2;
const REASON: &str = "content_factory.sampling.reason";

/// What the receiver got from one worker that saw these requests, and how many were over the budget, by reason.
async fn exported(sampling: Json, see: impl FnOnce(&mut SpanWriter)) -> (Vec<Span>, BTreeMap<String, u64>) {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "sampling": sampling, "shutdown": "30s"});
    let mut running = Running::start(settings, 1, Vec::new());
    see(&mut running.writers[0]);
    let mut samples = Vec::new();
    running.reader.samples(&mut samples);
    running.stop(Duration::from_secs(30)).await;
    let over = samples.iter().filter_map(over_budget).filter(|(_, count)| *count > 0).collect();
    (receiver.with(|seen| std::mem::take(&mut seen.spans)), over)
}

/// The reason and the count of a sample of that metric.
fn over_budget(sample: &Sample) -> Option<(String, u64)> {
    let (("reason", LabelValue::Text(reason)), SampleValue::Count(count)) = (sample.labels.first()?, &sample.value)
    else {
        return None;
    };
    let is_of_the_tail = sample.metric.name == "content_factory.telemetry.tail.over_budget";
    is_of_the_tail.then(|| (reason.as_str().to_owned(), *count))
}

/// The reasons of the requests exported, with their number; `-` stands for none.
fn reasons(spans: &[Span]) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for span in spans {
        let reason = span.attributes.iter().find(|pair| pair.key == REASON).map(|pair| pair.value.clone());
        let reason = reason.map(|value| match value.and_then(|value| value.value) {
            Some(Value::StringValue(text)) => text,
            other => panic!("{other:?}"),
        });
        if span.kind == SERVER {
            *reasons.entry(reason.unwrap_or_else(|| "-".to_owned())).or_default() += 1;
        } else {
            assert_eq!(reason, None, "a request says it once");
        }
    }
    reasons
}

fn counts<const N: usize>(pairs: [(&str, usize); N]) -> BTreeMap<String, usize> {
    pairs.into_iter().map(|(key, count)| (key.to_owned(), count)).collect()
}

fn sampled(head: Sampled) -> RequestRecord<'static> {
    let record = record(TraceId([7; 16]));
    RequestRecord { trace: record.trace.map(|trace| RecordTrace { sampled: head, ..trace }), ..record }
}

/// Of this route, taking so long, left out by the head.
fn left_out(route: u16, millis: u64) -> RequestRecord<'static> {
    let route = Some(Route { id: RouteId(route), template: "/r" });
    RequestRecord { route, duration: Duration::from_millis(millis), ..sampled(Sampled::No) }
}

fn failed(outcome: Outcome, status: u16) -> RequestRecord<'static> {
    RequestRecord { outcome, status, ..sampled(Sampled::No) }
}

fn seconds(writer: &mut SpanWriter, seconds: u32) {
    (0..seconds * 10).for_each(|_| writer.tick());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_kept_although_the_head_left_them_out() {
    let (spans, over) = exported(json!({"ratio": 0.1}), |writer| {
        writer.end(&failed(Outcome::Answered, 500));
        writer.end(&failed(Outcome::Failed(UpstreamFault::Timeout), 504));
        writer.end(&failed(Outcome::Failed(UpstreamFault::Broken), 200));
        writer.end(&failed(Outcome::Answered, 404));
        writer.end(&failed(Outcome::ClientGone, 0));
        writer.end(&sampled(Sampled::No));
        writer.end(&sampled(Sampled::Yes));
    })
    .await;
    assert_eq!(reasons(&spans), counts([("error", 3), ("head", 1)]));
    assert_eq!(spans.len(), 2 * 4, "SERVER and CLIENT");
    assert!(over.is_empty());
    let servers = spans.iter().filter(|span| span.kind == SERVER);
    let flags = servers.fold([0, 0], |[no, yes], span| if span.flags & 1 == 0 { [no + 1, yes] } else { [no, yes + 1] });
    assert_eq!(flags, [3, 1], "the flag tells what the head decided, which the application was told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_slow_for_its_route_is_kept() {
    let (spans, _) = exported(json!({"ratio": 0.1}), |writer| {
        for _ in 0..200 {
            writer.end(&left_out(1, 10));
            writer.end(&left_out(2, 1_000));
        }
        writer.end(&left_out(1, 1_000)); // too early: it is not known yet
        seconds(writer, 1);
        writer.end(&left_out(1, 10));
        writer.end(&left_out(1, 1_000));
        writer.end(&left_out(2, 1_000));
        writer.end(&RequestRecord { outcome: Outcome::ClientGone, ..left_out(1, 900) });
        writer.end(&left_out(3, 60_000)); // a route that was not seen before
        writer.end(&RequestRecord { kind: RequestKind::Stream, ..left_out(1, 60_000) });
        writer.end(&RequestRecord { kind: RequestKind::Tunnel, ..left_out(1, 60_000) });
    })
    .await;
    assert_eq!(reasons(&spans), counts([("slow", 2)]));
    let took = |span: &Span| (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000_000;
    let took: Vec<_> = spans.iter().filter(|span| span.kind == SERVER).map(took).collect();
    assert_eq!(took, [1_000, 900]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_do_not_teach_what_is_slow() {
    let (spans, _) = exported(json!({"ratio": 0.1, "keep_errors": false}), |writer| {
        for _ in 0..200 {
            writer.end(&left_out(1, 10));
            let fault = Outcome::Failed(UpstreamFault::Timeout);
            writer.end(&RequestRecord { outcome: fault, status: 504, ..left_out(1, 30_000) });
        }
        seconds(writer, 1);
        writer.end(&left_out(1, 100));
    })
    .await;
    assert_eq!(reasons(&spans), counts([("slow", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_kept_within_the_budget_and_the_rest_is_counted() {
    let (spans, over) = exported(json!({"ratio": 0.01, "keep_per_second": 20}), |writer| {
        for _ in 0..10 {
            for _ in 0..100 {
                writer.end(&failed(Outcome::Answered, 503));
            }
            seconds(writer, 1);
        }
    })
    .await;
    assert_eq!(reasons(&spans), counts([("error", 200)]));
    assert_eq!(over, [("error".to_owned(), 800)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_slow_leaves_half_of_the_budget_to_failures() {
    let (spans, over) = exported(json!({"ratio": 0.01, "keep_per_second": 20}), |writer| {
        (0..200).for_each(|_| writer.end(&left_out(1, 10)));
        seconds(writer, 1);
        (0..100).for_each(|_| writer.end(&left_out(1, 1_000)));
        (0..100).for_each(|_| writer.end(&failed(Outcome::Answered, 503)));
    })
    .await;
    assert_eq!(reasons(&spans), counts([("slow", 10), ("error", 10)]));
    assert_eq!(over, [("slow".to_owned(), 90), ("error".to_owned(), 90)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_part_of_the_tail_can_be_switched_off() {
    for (settings, expected) in [
        (json!({"ratio": 0, "keep_errors": false}), counts([("slow", 1)])),
        (json!({"ratio": 0, "keep_slow": false}), counts([("error", 1)])),
        (json!({"ratio": 0, "keep_errors": false, "keep_slow": false}), counts([])),
    ] {
        let (spans, over) = exported(settings.clone(), |writer| {
            (0..200).for_each(|_| writer.end(&left_out(1, 10)));
            seconds(writer, 1);
            writer.end(&left_out(1, 1_000));
            writer.end(&failed(Outcome::Answered, 500));
        })
        .await;
        assert_eq!(reasons(&spans), expected, "{settings}");
        assert!(over.is_empty(), "{settings}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_are_kept_the_reason_goes_without_saying() {
    let (spans, _) = exported(json!({"ratio": 1.0}), |writer| {
        writer.end(&sampled(Sampled::Yes));
        writer.end(&RequestRecord { status: 500, ..sampled(Sampled::Yes) });
        // a trusted caller had decided against it
        writer.end(&failed(Outcome::Answered, 500));
    })
    .await;
    assert_eq!(reasons(&spans), counts([("-", 2), ("error", 1)]));
}
