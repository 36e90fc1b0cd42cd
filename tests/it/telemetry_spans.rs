//! What the spans say: decoded by prost, for ordinary requests, failures, and any bytes a client may send.

use std::collections::BTreeMap;
use std::time::Duration;

use content_factory_sidecar::model::request::{
    Hop, Method, Outcome, RecordTrace, Refusal, RequestRecord, RequestSink, UpstreamFault,
};
use content_factory_sidecar::model::route::{Route, RouteId};
use content_factory_sidecar::model::trace::{Sampled, SpanId, TraceId};
use content_factory_sidecar::telemetry::SpanWriter;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use serde_json::json;

use crate::telemetry_receiver::{Codings, Receiver, eventually};
use crate::telemetry_setup::{Running, record};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

/// Writes the spans of requests and gives them as the receiver decoded them.
async fn spans(write: impl FnOnce(&mut SpanWriter)) -> Vec<Span> {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "shutdown": "30s"});
    let mut running = Running::start(settings, 1, Vec::new());
    write(&mut running.writers[0]);
    running.stop(Duration::from_secs(30)).await;
    receiver.with(|seen| std::mem::take(&mut seen.spans))
}

async fn spans_of(record: &RequestRecord<'_>) -> BTreeMap<i32, Span> {
    spans(|writer| writer.end(record)).await.into_iter().map(|span| (span.kind, span)).collect()
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let text = |value: &Option<Value>| match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs = span.attributes.iter();
    let pairs = pairs.map(|pair| (pair.key.clone(), text(&pair.value.as_ref().expect("a value").value)));
    let found: BTreeMap<_, _> = pairs.collect();
    assert_eq!(found.len(), span.attributes.len(), "no key twice");
    found
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_request_has_a_server_and_a_client_span() {
    let spans = spans_of(&record(TraceId([7; 16]))).await;
    let (server, client) = (&spans[&SERVER], &spans[&CLIENT]);
    assert_eq!((server.name.as_str(), client.name.as_str()), ("GET /products/{id}", "GET /products/{id}"));
    assert_eq!((&server.trace_id, &client.trace_id), (&vec![7; 16], &vec![7; 16]));
    assert_eq!((&server.span_id, &client.span_id, &client.parent_span_id), (&vec![2; 8], &vec![3; 8], &vec![2; 8]));
    assert_eq!((server.parent_span_id.len(), server.flags, client.flags), (0, 0x101, 0x101));
    assert_eq!((server.status.clone(), client.status.clone()), (None, None));
    assert_eq!(client.start_time_unix_nano - server.start_time_unix_nano, 1_000_000);
    assert_eq!(client.end_time_unix_nano - client.start_time_unix_nano, 10_000_000);
    assert_eq!(server.end_time_unix_nano - server.start_time_unix_nano, 12_000_000);
    let common = [("http.request.method", "GET"), ("http.response.status_code", "200")];
    let of_server = [
        ("url.path", "/products/7"),
        ("url.scheme", "http"),
        ("http.route", "/products/{id}"),
        ("network.protocol.version", "1.1"),
    ];
    let of_client =
        [("server.address", "127.0.0.1"), ("server.port", "8000"), ("url.full", "http://127.0.0.1:8000/products/7")];
    assert_eq!(attributes(server), expected(&[&common[..], &of_server[..]].concat()));
    assert_eq!(attributes(client), expected(&[&common[..], &of_client[..]].concat()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_told_as_the_conventions_have_it() {
    let ok = record(TraceId([7; 16]));
    let hop = ok.hop.expect("a hop");
    let fault = UpstreamFault::Timeout;
    let table = [
        ("404", 404, Outcome::Answered, 404, None, Some("404")),
        ("500", 500, Outcome::Answered, 500, Some("500"), Some("500")),
        ("timeout", 504, Outcome::Failed(fault), 0, Some(fault.label()), Some(fault.label())),
        ("client gone", 0, Outcome::ClientGone, 200, None, None),
    ];
    for (case, status, outcome, hop_status, server_error, client_error) in table {
        let hop = Some(Hop { status: hop_status, resends: 1, ..hop });
        let spans = spans_of(&RequestRecord { status, outcome, hop, ..ok.clone() }).await;
        for (kind, error) in [(SERVER, server_error), (CLIENT, client_error)] {
            let is_error = spans[&kind].status.as_ref().is_some_and(|status| status.code == ERROR);
            assert_eq!(is_error, error.is_some(), "{case} {kind}");
            let found = attributes(&spans[&kind]);
            if let Some(error) = error {
                assert_eq!(found["error.type"], error, "{case} {kind}");
            }
            let code = if kind == SERVER { status } else { hop_status };
            assert_eq!(found.get("http.response.status_code").cloned(), (code > 0).then(|| code.to_string()));
        }
        assert_eq!(attributes(&spans[&CLIENT])["http.request.resend_count"], "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sampled_or_not_traced_makes_no_span() {
    let sampled_out = |record: RequestRecord<'static>| {
        let trace = record.trace.map(|trace| RecordTrace { sampled: Sampled::No, ..trace });
        RequestRecord { trace, ..record }
    };
    let found = spans(|writer| {
        let ok = record(TraceId([7; 16]));
        writer.end(&sampled_out(ok.clone()));
        writer.end(&RequestRecord { trace: None, outcome: Outcome::Refused(Refusal::Malformed), ..ok.clone() });
        writer.end(&RequestRecord { hop: None, ..ok });
    });
    assert_eq!(found.await.iter().map(|span| span.kind).collect::<Vec<_>>(), [SERVER]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_tells_whether_its_spans_are_kept() {
    let is_kept = |record: &RequestRecord<'_>| record.trace.as_ref().is_some_and(|trace| trace.kept.get());
    let sampled = record(TraceId([7; 16]));
    let trace = sampled.trace.clone().map(|trace| RecordTrace { sampled: Sampled::No, ..trace });
    let sampled_out = RequestRecord { trace, ..record(TraceId([8; 16])) };
    let ended = [&sampled, &sampled_out];
    assert_eq!(ended.map(is_kept), [false, false], "nobody wrote them yet");
    let found = spans(|writer| ended.iter().for_each(|record| writer.end(record))).await;
    assert_eq!(ended.map(is_kept), [true, false]);
    assert!(found.iter().all(|span| span.trace_id == [7; 16]), "{found:?}");
    let (to_nobody, settings) = (record(TraceId([9; 16])), json!({"traces": {"enabled": false}}));
    let mut running = Running::start(settings, 1, Vec::new());
    running.writers[0].end(&to_nobody);
    assert!(!is_kept(&to_nobody), "traces are switched off");
    running.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_queries_and_lengths_stay_behind() {
    let long = format!("/{}", "é".repeat(4_000));
    let base = record(TraceId([7; 16]));
    let trace =
        base.trace.clone().map(|trace| RecordTrace { parent: Some(SpanId([9; 8])), tracestate: b"vendor=1", ..trace });
    let with = |target: &'static [u8]| RequestRecord { target, route: None, ..base.clone() };
    let odd =
        RequestRecord { method: Method::Other, method_text: b"BREW", trace, ..with(b"/x/hunter2-secret/y?token=1") };
    let spans_seen = spans_of(&odd).await;
    let server = &spans_seen[&SERVER];
    assert_eq!((server.name.as_str(), server.flags, server.trace_state.as_str()), ("HTTP", 0x301, "vendor=1"));
    assert_eq!(attributes(server)["url.path"], "/x/[REDACTED:secret]/y");
    assert_eq!(attributes(server)["http.request.method_original"], "BREW");
    assert_eq!(attributes(&spans_seen[&CLIENT])["url.full"], "http://127.0.0.1:8000/x/[REDACTED:secret]/y");
    let long_route = "/r".repeat(200);
    let cut = RequestRecord {
        target: long.as_bytes(),
        route: Some(Route { id: RouteId(0), template: &long_route }),
        ..record(TraceId([8; 16]))
    };
    let spans = spans_of(&cut).await;
    assert_eq!(spans[&SERVER].name.len(), 255);
    assert_eq!(attributes(&spans[&SERVER])["url.path"].len(), 4_095);
    assert_eq!(attributes(&spans[&CLIENT])["url.full"].len(), 4_094); // not within the last character
}

#[test]
fn prost_decodes_whatever_a_client_sends() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let any_text = || prop::collection::vec(any::<u8>(), 0..300);
    let requests = prop::collection::vec((any_text(), any_text(), any::<u16>(), any::<u64>(), any::<u64>()), 1..20);
    proptest!(ProptestConfig::with_cases(30), |(requests in requests)| {
        let found = runtime.block_on(spans(|writer| {
            for (target, method_text, status, start, nanos) in &requests {
                writer.end(&RequestRecord {
                    target,
                    method: Method::Other,
                    method_text,
                    status: *status,
                    started_unix_nanos: *start,
                    duration: Duration::from_nanos(*nanos),
                    ..record(TraceId([7; 16]))
                });
            }
        }));
        prop_assert_eq!(found.len(), 2 * requests.len());
        for span in found.iter().filter(|span| span.kind == SERVER) {
            prop_assert!(requests.iter().any(|request| request.3 == span.start_time_unix_nano));
            prop_assert!(attributes(span).contains_key("url.path"));
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_hands_its_last_spans_over() {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address)});
    let mut running = Running::start(settings, 1, Vec::new());
    running.writers[0].end(&record(TraceId([7; 16])));
    running.writers[0].tick();
    running.writers[0].tick();
    eventually("the spans arrive", Duration::from_secs(30), || receiver.with(|seen| seen.spans.len()) == 2).await;
    running.stop(Duration::from_secs(5)).await;
}
