//! The cleaner against what prost encodes and decodes.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Proto;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::telemetry::intake::json;
use crate::telemetry::privacy::AddressForm;
use crate::telemetry::resource::ServiceConfig;

fn identity() -> Resource {
    let service = ServiceConfig {
        name: "shop".into(),
        namespace: None,
        version: None,
        instance_id: Some("i-1".into()),
        environment: Some("test".into()),
        attributes: BTreeMap::new(),
    };
    Resource::new(&service, &BTreeMap::new())
}

fn clean(signal: Signal, request: &[u8]) -> Result<Cleaned, Unfit> {
    clean_within(Limits::default(), signal, request)
}

fn clean_within(limits: Limits, signal: Signal, request: &[u8]) -> Result<Cleaned, Unfit> {
    let (identity, redactor) = (identity(), Redactor::new(["hunter2-secret"]));
    let privacy = PrivacyConfig { address: AddressForm::None, query: false, user_agent: false };
    let host = Host { identity: &identity, server_metrics: ServerMetrics::LeftOut, privacy };
    let cleaner = Cleaner { redactor: &redactor, outlet: Outlet::Telemetry, limits, host: Some(host) };
    cleaner.clean(signal, request, 2 * request.len() + 10_000)
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(Proto::StringValue(text.into())) }
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn span() -> Span {
    Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: "work".into(), ..Span::default() }
}

fn request(service: &str, spans: Vec<Span>) -> Vec<u8> {
    let attributes = vec![pair("service.name", text(service))];
    let resource = Some(ProtoResource { attributes, ..ProtoResource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let part = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![part] }.encode_to_vec()
}

fn spans(cleaned: &Cleaned) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(&*cleaned.body).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|part| part.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

fn resource(cleaned: &Cleaned) -> Vec<(String, String)> {
    let request = ExportTraceServiceRequest::decode(&*cleaned.body).unwrap();
    let attributes = request.resource_spans[0].resource.clone().unwrap().attributes;
    let shown = |pair: KeyValue| match pair.value.unwrap().value {
        Some(Proto::StringValue(text)) => (pair.key, text),
        other => panic!("{other:?}"),
    };
    attributes.into_iter().map(shown).collect()
}

#[test]
fn a_secret_leaves_in_no_part_of_a_span() {
    let secret = || text("x hunter2-secret y");
    let list = Proto::ArrayValue(ArrayValue { values: vec![secret()] });
    let map = Proto::KvlistValue(KeyValueList { values: vec![pair("inner", text("plain")), pair("b", secret())] });
    let attributes = || {
        vec![
            pair("a", secret()),
            pair("list", AnyValue { value: Some(list.clone()) }),
            pair("password", AnyValue { value: Some(map.clone()) }),
            pair("bytes", AnyValue { value: Some(Proto::BytesValue(b"\xffhunter2-secret".to_vec())) }),
            pair("hunter2-secret", text("key")),
        ]
    };
    let sent = Span {
        name: "GET hunter2-secret".into(),
        trace_state: "a=hunter2-secret".into(),
        attributes: attributes(),
        events: vec![Event { name: "hunter2-secret".into(), attributes: attributes(), ..Event::default() }],
        links: vec![Link { trace_id: vec![1; 16], span_id: vec![1; 8], attributes: attributes(), ..Link::default() }],
        status: Some(Status { message: "hunter2-secret".into(), code: 2 }),
        ..span()
    };
    let cleaned = clean(Signal::Traces, &request("hunter2-secret", vec![sent])).unwrap();
    let shown = String::from_utf8_lossy(&cleaned.body);
    assert!(!shown.contains("hunter2-secret") && shown.contains("[REDACTED:secret]"), "{shown}");
    assert!(!shown.contains("plain"), "what is below a secret's key is a secret");
    let found = &spans(&cleaned)[0];
    assert_eq!((found.attributes.len(), found.events.len(), found.links.len()), (5, 1, 1));
}

#[test]
fn a_resource_is_completed_and_keeps_what_it_says() {
    let found = resource(&clean(Signal::Traces, &request("other", vec![span()])).unwrap());
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["deployment.environment.name", "service.instance.id", "service.name"]);
    assert_eq!(found[2].1, "other");
    for unnamed in ["", "unknown_service", "unknown_service:python"] {
        let found = resource(&clean(Signal::Traces, &request(unnamed, vec![span()])).unwrap());
        let names: Vec<_> = found.iter().filter(|(name, _)| name == "service.name").collect();
        assert_eq!(names, [&("service.name".to_owned(), "shop".to_owned())], "{unnamed}");
    }
}

#[test]
fn what_is_long_is_cut_and_what_is_dropped_is_told() {
    let many = (0..200).map(|number| pair(&format!("k{number}"), text("v")));
    let long = pair(&"k".repeat(300), text(&"é".repeat(4_000)));
    let values = vec![text("v"); 100];
    let list = pair("list", AnyValue { value: Some(Proto::ArrayValue(ArrayValue { values })) });
    let attributes = [long, list].into_iter().chain(many).collect();
    let sent = Span { attributes, dropped_attributes_count: 5, ..span() };
    let cleaned = clean(Signal::Traces, &request("x", vec![sent])).unwrap();
    let found = &spans(&cleaned)[0];
    assert_eq!((found.attributes.len(), found.dropped_attributes_count, cleaned.truncated), (128, 5 + 74, 4));
    assert_eq!(found.attributes[0].key.len(), 255);
    assert_eq!(found.attributes[0].value, Some(text(&"é".repeat(2_047))));
    assert!(
        matches!(&found.attributes[1].value.as_ref().unwrap().value, Some(Proto::ArrayValue(list)) if list.values.len() == 64)
    );
}

#[test]
fn lower_limits_hold_for_attributes_of_items_and_not_for_what_tells_whose_they_are() {
    let long = || pair("long", text(&"é".repeat(100)));
    let list = || Proto::ArrayValue(ArrayValue { values: vec![text(&"l".repeat(200)), text("l")] });
    let attributes = || vec![long(), pair("list", AnyValue { value: Some(list()) }), pair("c", text("3"))];
    let sent = Span {
        name: "n".repeat(200),
        attributes: attributes(),
        dropped_attributes_count: 5,
        events: vec![Event { attributes: attributes(), ..Event::default() }; 3],
        links: vec![Link { trace_id: vec![1; 16], span_id: vec![1; 8], attributes: attributes(), ..Link::default() }],
        status: Some(Status { message: "m".repeat(200), code: 2 }),
        ..span()
    };
    let service = "s".repeat(200);
    let limits = Limits { value: 65, attributes: 2 };
    let cleaned = clean_within(limits, Signal::Traces, &request(&service, vec![sent.clone()])).unwrap();
    let found = spans(&cleaned).remove(0);
    let cut = [
        pair("long", text(&"é".repeat(32))),
        pair(
            "list",
            AnyValue { value: Some(Proto::ArrayValue(ArrayValue { values: vec![text(&"l".repeat(65)), text("l")] })) },
        ),
    ];
    assert_eq!((&found.attributes[..], found.dropped_attributes_count), (&cut[..], 5 + 1));
    assert_eq!((&found.events[2].attributes[..], found.events[2].dropped_attributes_count), (&cut[..], 1));
    assert_eq!((&found.links[0].attributes[..], found.links[0].dropped_attributes_count), (&cut[..], 1));
    assert_eq!((found.events.len(), found.name, found.status), (3, sent.name, sent.status));
    // two values and a list of each of five
    assert_eq!(cleaned.truncated, 5 * 3);
    let whole = resource(&cleaned);
    assert_eq!((whole.len(), whole[2].1.as_str()), (3, service.as_str()));
}

#[test]
fn a_url_that_loses_its_query_is_cut_and_counted_like_another() {
    let url = format!("/{}?q=anna", "p".repeat(200));
    let sent = Span { attributes: vec![pair("http.target", text(&url))], ..span() };
    let limits = Limits { value: 100, attributes: 128 };
    let cleaned = clean_within(limits, Signal::Traces, &request("x", vec![sent])).unwrap();
    assert_eq!(spans(&cleaned)[0].attributes, [pair("http.target", text(&url[..100]))]);
    assert_eq!(cleaned.truncated, 1);
}

#[test]
fn a_span_without_ids_is_left_out_and_the_others_stay() {
    let broken = [
        Span { trace_id: vec![1; 15], ..span() },
        Span { trace_id: vec![0; 16], ..span() },
        Span { span_id: Vec::new(), ..span() },
    ];
    let parent = Span { parent_span_id: vec![1; 3], ..span() };
    let cleaned = clean(Signal::Traces, &request("x", broken.into_iter().chain([parent, span()]).collect())).unwrap();
    assert_eq!((cleaned.left_out, spans(&cleaned)), (3, vec![span(), span()]));
}

#[test]
fn a_server_span_with_a_parent_is_seen_under_our_own_name_only() {
    let sent = Span { kind: 2, parent_span_id: vec![3; 8], ..span() };
    let seen =
        |service: &str, span: Span| clean(Signal::Traces, &request(service, vec![span])).unwrap().has_server_span;
    assert!(seen("shop", sent.clone()) && seen("", sent.clone()));
    assert!(!seen("other", sent.clone()) && !seen("shop", Span { kind: 3, ..sent.clone() }));
    assert!(!seen("shop", Span { parent_span_id: Vec::new(), ..sent }));
}

#[test]
fn what_needs_no_change_is_read_as_it_was_and_every_field_is_known() {
    let examples = [
        (Signal::Traces, include_str!("../../../../tests/data/otlp/traces.json")),
        (Signal::Metrics, include_str!("../../../../tests/data/otlp/metrics.json")),
        (Signal::Logs, include_str!("../../../../tests/data/otlp/logs.json")),
    ];
    for (signal, json) in examples {
        let sent = json::to_protobuf(signal, json.as_bytes(), 1 << 20).unwrap();
        let redactor = Redactor::new([]);
        let limits = Limits::default();
        let cleaner = Cleaner { redactor: &redactor, outlet: Outlet::Telemetry, limits, host: None };
        let cleaned = cleaner.clean(signal, &sent, 1 << 20).unwrap();
        let read = |bytes: &[u8]| match signal {
            Signal::Traces => format!("{:?}", ExportTraceServiceRequest::decode(bytes).unwrap()),
            Signal::Metrics => format!("{:?}", ExportMetricsServiceRequest::decode(bytes).unwrap()),
            _ => format!("{:?}", ExportLogsServiceRequest::decode(bytes).unwrap()),
        };
        assert_eq!(read(&sent), read(&cleaned.body));
        assert_eq!((cleaned.truncated, cleaned.left_out), (0, 0));
    }
    let all = examples.map(|(_, json)| json).concat();
    let known = Signal::OTLP.map(|signal| names(schema::request(signal).unwrap(), 6)).concat();
    let absent: Vec<_> = known.into_iter().filter(|name| !all.contains(&format!("\"{name}\""))).collect();
    assert!(absent.is_empty(), "the examples lack {absent:?}");
}

/// The names of the fields of a message and of what is in it; of values, which hold values, only some floors.
fn names(message: &Message, floors: usize) -> Vec<&'static str> {
    let inner = |known: &Known| match known.kind {
        Kind::Message(message) if floors > 0 && message.role != Role::Any => names(message, floors - 1),
        _ => Vec::new(),
    };
    message.fields.iter().flat_map(|known| [vec![known.name], inner(known)].concat()).collect()
}

#[test]
fn values_that_are_nested_too_deeply_are_refused() {
    let nested = |depth| {
        (0..depth)
            .fold(text("v"), |value, _| AnyValue { value: Some(Proto::ArrayValue(ArrayValue { values: vec![value] })) })
    };
    let sent = |depth| request("x", vec![Span { attributes: vec![pair("k", nested(depth))], ..span() }]);
    assert!(clean(Signal::Traces, &sent(NESTING)).is_ok());
    assert_eq!(clean(Signal::Traces, &sent(NESTING + 1)), Err(Unfit::TooDeep));
}

#[test]
fn a_value_that_is_deeper_than_a_stack_is_refused() {
    let around = |inner: &[u8], numbers: &[u32]| {
        numbers.iter().fold(inner.to_vec(), |inner, number| {
            let mut outer = Vec::new();
            wire::bytes_field(&mut outer, *number, &inner);
            outer
        })
    };
    let deep = (0..3_000).fold(Vec::new(), |inner, _| around(&inner, &[1, 5]));
    assert_eq!(clean(Signal::Logs, &around(&deep, &[5, 2, 2, 1])), Err(Unfit::TooDeep));
}

#[test]
fn a_resource_without_items_is_left_out() {
    assert_eq!(clean(Signal::Logs, &[0x0a, 0x00].repeat(10_000)), Ok(Cleaned::default()));
}

#[test]
fn a_resource_for_each_item_does_not_grow_without_end() {
    let parts = [0x0a, 0x02, 0x12, 0x00].repeat(10_000);
    assert_eq!(clean(Signal::Logs, &parts), Err(Unfit::TooLarge));
}

proptest! {
    #[test]
    fn whatever_comes_in_every_receiver_reads_what_leaves(
        name in ".{0,20}", at in 0_usize..400, byte: u8, cut in 0_usize..400,
    ) {
        let attributes = vec![pair(&name, text(&name)), pair("n", AnyValue { value: Some(Proto::IntValue(-5)) })];
        let sent = Span { name: name.clone(), attributes, kind: 2, start_time_unix_nano: 7, flags: 1, ..span() };
        let mut bytes = request("x", vec![sent, span()]);
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - cut % length / 4);
        if let Ok(cleaned) = clean(Signal::Traces, &bytes) {
            let read = ExportTraceServiceRequest::decode(&*cleaned.body);
            prop_assert!(read.is_ok(), "{read:?}");
            prop_assert!(spans(&cleaned).iter().all(|span| span.trace_id.len() == 16 && span.span_id.len() == 8));
        }
    }
}

#[test]
fn what_is_about_people_is_left_out_of_spans_and_the_peer_of_a_call_stays() {
    let attributes = vec![
        pair("client.address", text("203.0.113.77")),
        pair("net.peer.ip", text("203.0.113.77")),
        pair("net.peer.port", AnyValue { value: Some(Proto::IntValue(4711)) }),
        pair("http.user_agent", text("anna's browser")),
        pair(
            "http.request.header.user_agent",
            AnyValue { value: Some(Proto::ArrayValue(ArrayValue { values: vec![text("anna's browser")] })) },
        ),
        pair("http.target", text("/find?q=anna")),
        pair("http.route", text("/find")),
    ];
    let left = |kind| {
        let span = Span { kind, attributes: attributes.clone(), ..span() };
        let cleaned = clean(Signal::Traces, &request("shop", vec![span, Span { kind: 2, ..self::span() }])).unwrap();
        let keys = spans(&cleaned)[0].attributes.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>();
        let whole = String::from_utf8_lossy(&cleaned.body).into_owned();
        assert!(!whole.contains("anna"), "{whole}");
        keys
    };
    assert_eq!(left(2), ["http.target", "http.route"]);
    assert_eq!(left(3), ["net.peer.ip", "net.peer.port", "http.target", "http.route"]);
}

#[test]
fn the_value_of_a_recorded_header_is_gone_when_it_opens_a_door_and_left_out_when_it_is_an_address() {
    let list = |value: &str| AnyValue { value: Some(Proto::ArrayValue(ArrayValue { values: vec![text(value)] })) };
    let attributes = vec![
        pair("http.request.header.x-auth-key", list("opens-a-door")),
        pair("http.request.header.ocp_apim_subscription_key", text("opens-a-door")),
        pair("http.response.header.set_cookie", list("id=opens-a-door; Path=/")),
        pair("http.request.header.fly_client_ip", list("203.0.113.77")),
        pair("http.response.header.x-client-ip", text("203.0.113.77")),
        pair("rpc.grpc.request.metadata.x-forwarded-for", list("203.0.113.77")),
        pair("http.response.header.content-type", list("text/html")),
    ];
    let sent = request("shop", vec![Span { attributes, ..span() }]);
    let cleaned = clean(Signal::Traces, &sent).unwrap();
    let left = &spans(&cleaned)[0].attributes;
    let redacted = "[REDACTED:key]";
    let expected = [
        pair("http.request.header.x-auth-key", list(redacted)),
        pair("http.request.header.ocp_apim_subscription_key", text(redacted)),
        pair("http.response.header.set_cookie", list(redacted)),
        pair("http.response.header.content-type", list("text/html")),
    ];
    assert_eq!(left, &expected);
}
