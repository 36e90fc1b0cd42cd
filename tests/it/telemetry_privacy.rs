//! What may identify people stays behind, unless a setting asks for it; then as little of it leaves as was asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use content_factory_sidecar::model::request::{Client as Who, RecordTrace, RequestRecord, RequestSink};
use content_factory_sidecar::model::trace::TraceId;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value as Json, json};

use crate::proxy_world::{Application, Client};
use crate::raw_receiver::RawReceiver;
use crate::rig::{PATIENCE, Sidecar};
use crate::telemetry_receiver::{Codings, Receiver, eventually};
use crate::telemetry_setup::{Running, record};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// A request of a person: an address, a browser, and a query that tells what was looked for.
fn personal() -> RequestRecord<'static> {
    RequestRecord {
        target: b"/products/7?q=ointment&token=abc&sort=price",
        client: Who { peer: ([198, 51, 100, 7], 5_000).into(), address: [203, 0, 113, 77].into() },
        user_agent: Some(b"Firefox/140.0 (hunter2-secret)"),
        ..record(TraceId([7; 16]))
    }
}

/// The attributes of the spans of these requests, by kind, with these settings of privacy.
async fn attributes(privacy: Json, records: &[RequestRecord<'_>]) -> Vec<(i32, BTreeMap<String, String>)> {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "privacy": privacy, "shutdown": "30s"});
    let mut running = Running::start(settings, 1, Vec::new());
    records.iter().for_each(|record| running.writers[0].end(record));
    running.stop(Duration::from_secs(30)).await;
    let spans = receiver.with(|seen| std::mem::take(&mut seen.spans));
    spans.iter().map(|span| (span.kind, texts(span))).collect()
}

fn texts(span: &Span) -> BTreeMap<String, String> {
    let text = |value: &Option<Value>| match value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs = span.attributes.iter();
    pairs.map(|pair| (pair.key.clone(), text(&pair.value.as_ref().expect("a value").value))).collect()
}

fn of(kind: i32, spans: &[(i32, BTreeMap<String, String>)]) -> &BTreeMap<String, String> {
    &spans.iter().find(|(found, _)| *found == kind).expect("a span of this kind").1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_no_address_query_or_user_agent_leaves() {
    let spans = attributes(json!({}), &[personal()]).await;
    assert_eq!(spans.len(), 2);
    let all = format!("{spans:?}");
    for personal in
        ["203.0.113", "198.51.100", "ointment", "sort", "Firefox", "client.", "network.peer", "query", "agent"]
    {
        assert!(!all.contains(personal), "{personal}: {all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_leaves_redacted_when_it_is_asked_for() {
    let spans = attributes(json!({"query": true}), &[personal()]).await;
    assert_eq!(of(SERVER, &spans)["url.query"], "q=ointment&token=REDACTED&sort=price");
    assert_eq!(of(SERVER, &spans)["url.path"], "/products/7");
    assert_eq!(of(CLIENT, &spans)["url.full"], "http://127.0.0.1:8000/products/7?q=ointment&token=REDACTED&sort=price");
    let all = format!("{spans:?}");
    assert!(!all.contains("203.0.113") && !all.contains("Firefox"), "{all}");
    for target in [&b"/products/7"[..], b"/products/7?"] {
        let spans = attributes(json!({"query": true}), &[RequestRecord { target, ..personal() }]).await;
        assert!(!of(SERVER, &spans).contains_key("url.query"));
        assert_eq!(of(CLIENT, &spans)["url.full"], "http://127.0.0.1:8000/products/7");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_agent_leaves_redacted_when_it_is_asked_for() {
    let spans = attributes(json!({"user_agent": true}), &[personal()]).await;
    assert_eq!(of(SERVER, &spans)["user_agent.original"], "Firefox/140.0 ([REDACTED:secret])");
    let all = format!("{spans:?}");
    assert!(!all.contains("203.0.113") && !all.contains("ointment"), "{all}");
    let without = RequestRecord { user_agent: None, ..personal() };
    let spans = attributes(json!({"user_agent": true}), &[without]).await;
    assert!(!of(SERVER, &spans).contains_key("user_agent.original"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_leaves_whole_or_cut_to_its_network_as_it_is_asked_for() {
    let names = ["client.address", "network.peer.address", "network.peer.port", "content_factory.client.hash"];
    let found = |spans: &[(i32, BTreeMap<String, String>)]| names.map(|name| of(SERVER, spans).get(name).cloned());
    let text = |text: &str| Some(text.to_owned());
    let spans = attributes(json!({"address": "full"}), &[personal()]).await;
    assert_eq!(found(&spans), [text("203.0.113.77"), text("198.51.100.7"), text("5000"), None]);
    let spans = attributes(json!({"address": "truncate"}), &[personal()]).await;
    assert_eq!(found(&spans), [text("203.0.113.0"), text("198.51.100.0"), None, None]);
    assert!(!of(CLIENT, &spans).contains_key("client.address"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hash_tells_the_clients_of_a_day_apart_and_of_two_days_not() {
    let tomorrow = personal().started_unix_nanos + 86_400 * 1_000_000_000;
    let other = Who { address: [203, 0, 113, 78].into(), ..personal().client };
    let requests = [
        personal(),
        personal(),
        RequestRecord { client: other, ..personal() },
        RequestRecord { started_unix_nanos: tomorrow, ..personal() },
    ];
    let spans = attributes(json!({"address": "hash"}), &requests).await;
    let all = format!("{spans:?}");
    assert!(!all.contains("203.0.113") && !all.contains("client.address") && !all.contains("peer"), "{all}");
    let servers = spans.iter().filter(|(kind, _)| *kind == SERVER);
    let hashes: Vec<&String> = servers.map(|(_, attributes)| &attributes["content_factory.client.hash"]).collect();
    assert!(hashes.iter().all(|hash| hash.len() == 16), "{hashes:?}");
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
    assert_ne!(hashes[0], hashes[3]);
    let of_another_process = attributes(json!({"address": "hash"}), &[personal()]).await;
    assert_ne!(&of(SERVER, &of_another_process)["content_factory.client.hash"], hashes[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracestate_with_a_secret_in_it_is_left_out_and_any_other_leaves() {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let settings = json!({"endpoint": format!("http://{}", receiver.address), "shutdown": "30s"});
    let mut running = Running::start(settings, 1, Vec::new());
    for tracestate in [&b"dd=s:1;t.dm:-0,33@nr=0-0-33"[..], b"a=hunter2-secret", b"token=abc"] {
        let trace = personal().trace.map(|trace| RecordTrace { tracestate, ..trace });
        running.writers[0].end(&RequestRecord { trace, ..personal() });
    }
    running.stop(Duration::from_secs(30)).await;
    let states = receiver.with(|seen| seen.spans.iter().map(|span| span.trace_state.clone()).collect::<Vec<_>>());
    assert_eq!(states, ["dd=s:1;t.dm:-0,33@nr=0-0-33", "dd=s:1;t.dm:-0,33@nr=0-0-33", "", "", "", ""]);
}

/// The whole process: the address is the client's by the rules of trusted proxies, not the proxy's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_is_that_of_the_client_behind_a_trusted_proxy_and_never_one_that_a_stranger_claims() {
    for (trusted, expected) in [("127.0.0.0/8", "203.0.113.77"), ("10.0.0.0/8", "127.0.0.1")] {
        let receiver = RawReceiver::start().await;
        let endpoint = format!("http://{}", receiver.address);
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("SIDECAR_PROXY__TRUSTED_PROXIES", trusted),
            ("SIDECAR_TELEMETRY__PRIVACY__ADDRESS", "full"),
        ];
        let application = Application::start().await;
        let sidecar = Sidecar::start(application.address, &[], &environment).await;
        let mut client = Client::connect(sidecar.proxy).await.expect("the proxy listens");
        let head =
            "GET /x HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 198.51.100.1, 203.0.113.77\r\nConnection: close\r\n\r\n";
        client.send(head.as_bytes()).await.expect("the proxy reads");
        client.closed_by_fin().await;
        let spans =
            || receiver.resource_spans().into_iter().flat_map(|part| part.scope_spans).flat_map(|part| part.spans);
        let server = || spans().find(|span| span.kind == SERVER);
        eventually("the span arrives", PATIENCE, || server().is_some()).await;
        let found = texts(&server().expect("a span"));
        assert_eq!(found["client.address"], expected, "{trusted}");
        assert_eq!(found["network.peer.address"], "127.0.0.1", "{trusted}");
    }
}
