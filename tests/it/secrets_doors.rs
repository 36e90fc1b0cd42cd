//! The doors that `secrets` does not go through: the intake by gRPC, protobuf and JSON, and `check-export`. The same canaries come in
//! by each, in every text that OTLP has, and all that leaves is searched; what is too long, too many or no text leaves as every
//! receiver reads it.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Proto;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};

use crate::grpc_tonic::Plain;
use crate::intake_world::{JSON, PROTOBUF, metric, post, sidecar, text};
use crate::raw_receiver::RawReceiver;
use crate::rig::output;
use crate::secrets::{BASE64, ENCODED, HARMLESS, assert_silent, end};

/// What holds a secret, and how it is known for one.
const TEXTS: &[&str] = &[
    // the application's environment has it: as it is, in a URL, once more in a URL, and in base64
    "made with canary-github",
    "canary/jwt secret+1",
    "canary%2Fjwt%20secret%2B1",
    "%63anary%2fjwt%2520secret%252B1",
    "Y2FuYXJ5L2p3dCBzZWNyZXQrMQ==",
    "OmNhbmFyeS9qd3Qgc2VjcmV0KzE=",
    "canary-database refused",
    // the user info of a URL
    "http://u:canary-info@h/x",
    "https://canary-user@h/",
    "postgresql://shop:canary@canary@db/shop refused",
    // a query
    "/x?page=2&token=canary-query",
    "http://h/?X-Amz-Signature=canary-amz&sig=canary-sig;code=canary-code",
    "http://h/?next=http%3A%2F%2Fu%3Acanary-nested%40h%2F%3Ftoken%3Dcanary-nested",
    // a word before it, or its shape
    "password=canary-assigned, user=y",
    r#"{"api_key": "canary-json", "page": 2}"#,
    "Authorization: Bearer canary-bearer",
    "/reset/eyJcanaryA1B2C3D4E5F6G7H8.I9J0canaryK1L2M3N4",
];

/// What the application's environment has.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("GITHUB_TOKEN", "canary-github"),
    ("JWT_SECRET", ENCODED),
    ("DATABASE_URL", "postgresql://shop:canary-database@127.0.0.1:1/shop"),
    ("OTEL_SERVICE_NAME", HARMLESS),
];

fn any(value: Proto) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: Proto) -> KeyValue {
    KeyValue { key: key.into(), value: Some(any(value)), ..KeyValue::default() }
}

/// A text as a value, within values, as a key, and below keys that tell a secret.
fn attributes(told: &str) -> Vec<KeyValue> {
    let string = || any(Proto::StringValue(told.into()));
    let pairs = KeyValueList { values: vec![text("inner", told), text(told, "x")] };
    vec![
        text("note", told),
        text(told, "x"),
        pair("list", Proto::ArrayValue(ArrayValue { values: vec![string(), string()] })),
        pair("map", Proto::KvlistValue(pairs)),
        pair("bytes", Proto::BytesValue([b"\xff ", told.as_bytes()].concat())),
        text("api_key", "canary-value"),
        pair("session", Proto::KvlistValue(KeyValueList { values: vec![text("inner", "canary-below")] })),
    ]
}

fn resource(told: &str) -> Option<Resource> {
    Some(Resource { attributes: attributes(told), ..Resource::default() })
}

fn scope(told: &str) -> Option<InstrumentationScope> {
    let (name, version) = (told.to_owned(), told.to_owned());
    Some(InstrumentationScope { name, version, attributes: attributes(told), ..InstrumentationScope::default() })
}

fn spans(told: &str) -> ExportTraceServiceRequest {
    let link = Link { trace_id: vec![1; 16], span_id: vec![1; 8], ..Link::default() };
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        trace_state: told.into(),
        name: told.into(),
        attributes: attributes(told),
        events: vec![Event { name: told.into(), attributes: attributes(told), ..Event::default() }],
        links: vec![Link { trace_state: told.into(), attributes: attributes(told), ..link }],
        status: Some(Status { message: told.into(), code: 2 }),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { scope: scope(told), spans: vec![span], schema_url: told.into() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: resource(told), scope_spans, schema_url: told.into() }],
    }
}

fn metrics(told: &str) -> ExportMetricsServiceRequest {
    let exemplar = Exemplar { filtered_attributes: attributes(told), ..Exemplar::default() };
    let point =
        NumberDataPoint { attributes: attributes(told), exemplars: vec![exemplar], ..NumberDataPoint::default() };
    let metric = Metric {
        name: told.into(),
        description: told.into(),
        unit: told.into(),
        metadata: attributes(told),
        data: Some(Data::Sum(Sum { data_points: vec![point], ..Sum::default() })),
    };
    let scope_metrics = vec![ScopeMetrics { scope: scope(told), metrics: vec![metric], schema_url: told.into() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource: resource(told), scope_metrics, schema_url: told.into() }],
    }
}

fn records(told: &str) -> ExportLogsServiceRequest {
    let body = Some(any(Proto::StringValue(told.into())));
    let (severity_text, event_name) = (told.to_owned(), told.to_owned());
    let record = LogRecord { severity_text, event_name, body, attributes: attributes(told), ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { scope: scope(told), log_records: vec![record], schema_url: told.into() }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource: resource(told), scope_logs, schema_url: told.into() }],
    }
}

/// An example that has each field of OTLP, with a text in place of each of its texts.
fn filled(example: &str, told: &str) -> Vec<u8> {
    fn fill(key: &str, value: &mut Value, told: &str) {
        match value {
            Value::String(text) if key == "bytesValue" => BASE64[0].clone_into(text),
            // ids, and numbers that are too large for JSON
            Value::String(text) if !key.ends_with("Id") && text.parse::<f64>().is_err() => told.clone_into(text),
            Value::Array(items) => items.iter_mut().for_each(|item| fill(key, item, told)),
            Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| fill(key, value, told)),
            _ => {}
        }
    }
    let mut value = serde_json::from_str(example).expect("an example in JSON");
    fill("", &mut value, told);
    value.to_string().into()
}

async fn channel(address: std::net::SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("a URL").connect().await.expect("it listens")
}

/// Calls a service of OTLP's with bytes that are a message.
async fn call(channel: &Channel, service: &str, message: Vec<u8>) {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("a connection");
    let path = format!("/opentelemetry.proto.collector.{service}/Export").parse().expect("a path");
    let answer: Result<tonic::Response<Bytes>, _> =
        client.unary(tonic::Request::new(message.into()), path, Plain).await;
    assert!(answer.is_ok(), "{service}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_leaves_that_comes_in_by_any_door_of_the_intake() {
    let receiver = RawReceiver::start().await;
    let endpoint = format!("http://{}", receiver.address);
    let out = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let (sidecar, [grpc, http]) = sidecar(&[&ENVIRONMENT[..], &out].concat()).await;
    let channel = channel(grpc).await;
    let take = async |path: &str, media_type: &str, body: Vec<u8>| {
        let answer = post(http, path, &[("content-type", media_type)], body).await;
        assert_eq!(answer.status, 200, "{path} {media_type}");
    };
    for (number, told) in TEXTS.iter().enumerate() {
        let told = |door: &str| format!("{door}-{number}- {told}");
        call(&channel, "trace.v1.TraceService", spans(&told("grpc")).encode_to_vec()).await;
        call(&channel, "metrics.v1.MetricsService", metrics(&told("grpc")).encode_to_vec()).await;
        call(&channel, "logs.v1.LogsService", records(&told("grpc")).encode_to_vec()).await;
        take("/v1/traces", PROTOBUF, spans(&told("protobuf")).encode_to_vec()).await;
        take("/v1/metrics", PROTOBUF, metrics(&told("protobuf")).encode_to_vec()).await;
        take("/v1/logs", PROTOBUF, records(&told("protobuf")).encode_to_vec()).await;
        for (path, example) in [
            ("/v1/traces", include_str!("../data/otlp/traces.json")),
            ("/v1/metrics", include_str!("../data/otlp/metrics.json")),
            ("/v1/logs", include_str!("../data/otlp/logs.json")),
        ] {
            take(path, JSON, filled(example, &told("json"))).await;
        }
    }
    let taken = metric(&sidecar, r#"content_factory_intake_items_total{signal="logs"}"#).await;
    assert_eq!(taken, 3 * TEXTS.len() as u64);
    end(sidecar).await;

    let mut all: [Vec<u8>; 3] = Default::default();
    for (path, body) in receiver.arrivals() {
        assert_silent(&path, &body);
        let signal = ["/v1/traces", "/v1/metrics", "/v1/logs"].iter().position(|known| path == *known);
        all[signal.expect("a path of OTLP's")].extend(body);
    }
    for all in &all {
        let all = String::from_utf8_lossy(all);
        for (number, door) in
            (0..TEXTS.len()).flat_map(|number| ["grpc", "protobuf", "json"].map(|door| (number, door)))
        {
            let marker = format!("{door}-{number}- ");
            assert!(all.contains(&marker), "{marker} did not leave: {:?}", TEXTS[number]);
        }
    }
}

/// A span as OTLP has it, but for its name, which need be no text.
#[derive(Clone, PartialEq, Message)]
struct NoText {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<NoTextPart>,
}

#[derive(Clone, PartialEq, Message)]
struct NoTextPart {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<NoTextScope>,
}

#[derive(Clone, PartialEq, Message)]
struct NoTextScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<NoTextSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct NoTextSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    name: Vec<u8>,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_long_too_many_or_no_text_leaves_by_each_door_of_the_intake_as_every_receiver_reads_it() {
    let receiver = RawReceiver::start().await;
    let endpoint = format!("http://{}", receiver.address);
    let out = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let (sidecar, [grpc, http]) = sidecar(&out).await;
    let long = "é".repeat(2_048); // one byte more than is taken, and in the middle of a character
    let many: Vec<KeyValue> = (0..200).map(|number| text(&format!("k{number}"), &long)).collect();
    let name = [&b"\xff\xfe"[..], &b"n".repeat(300)].concat();
    let span = NoTextSpan { trace_id: vec![1; 16], span_id: vec![1; 8], name, attributes: many };
    let scope_spans = vec![NoTextScope { spans: vec![span] }];
    let request = NoText { resource_spans: vec![NoTextPart { scope_spans }] };
    assert!(ExportTraceServiceRequest::decode(&*request.encode_to_vec()).is_err(), "nobody would read it");

    call(&channel(grpc).await, "trace.v1.TraceService", request.encode_to_vec()).await;
    let answer = post(http, "/v1/traces", &[("content-type", PROTOBUF)], request.encode_to_vec()).await;
    assert_eq!(answer.status, 200);
    let attributes: Vec<Value> =
        (0..200).map(|number| json!({"key": format!("k{number}"), "value": {"stringValue": long}})).collect();
    // in JSON half of a surrogate pair is what comes nearest to no text
    let span = json!({"traceId": "01".repeat(16), "spanId": "01".repeat(8), "name": "n".repeat(300), "attributes": attributes});
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).to_string();
    let answer = post(http, "/v1/traces", &[("content-type", JSON)], body.clone().into()).await;
    assert_eq!(answer.status, 200);
    for no_text in [&b"\xff\xfe"[..], br"\ud800"] {
        let broken = body.replacen("nnn", "\u{1}", 1).into_bytes();
        let at = broken.iter().position(|byte| *byte == 1).expect("the place");
        let broken = [&broken[..at], no_text, &broken[at + 1..]].concat();
        assert_eq!(post(http, "/v1/traces", &[("content-type", JSON)], broken).await.status, 400);
    }
    end(sidecar).await;

    let spans = receiver.resource_spans().into_iter().flat_map(|part| part.scope_spans).flat_map(|scope| scope.spans);
    let found: Vec<Span> = spans.filter(|span| span.trace_id == [1; 16]).collect();
    assert_eq!(found.len(), 3, "one by each door");
    for span in found {
        assert_eq!((span.attributes.len(), span.dropped_attributes_count), (128, 72));
        assert!(span.name.len() <= 255 && span.name.ends_with("nnn"), "{}", span.name);
        let cut = text("k0", &long[..4_094]);
        assert_eq!(span.attributes[0], cut);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_check_export_sends_is_clean_and_bounded_like_all_else() {
    let receiver = RawReceiver::start().await;
    let endpoint = format!("http://{}", receiver.address);
    let encoded =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let told = TEXTS.iter().enumerate().map(|(number, text)| format!("a.told.{number}={}", encoded(text)));
    let many = (0..200).map(|number| format!("many.{number}={}", "m".repeat(10)));
    let long = format!("host.long={},{}=x", encoded(&"é".repeat(2_048)), "n".repeat(300));
    let attributes = told.chain([long]).chain(many).collect::<Vec<_>>().join(",");
    let out = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_RESOURCE_ATTRIBUTES", attributes.as_str()),
    ];
    let said = output(&["check-export", "--wait", "1s"], &[&ENVIRONMENT[..], &out].concat()).await;
    assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    assert_silent("standard output", &said.stdout);
    assert_silent("standard error", &said.stderr);
    let arrivals = receiver.arrivals();
    assert_eq!(arrivals.len(), 3, "one for each signal");
    for (path, body) in &arrivals {
        assert_silent(path, body);
    }
    let resource = receiver.resource_spans().remove(0).resource.expect("who sends it");
    assert_eq!(resource.attributes.len(), 128);
    let told = resource.attributes.iter().filter(|pair| pair.key.starts_with("a.told.")).count();
    assert_eq!(told, TEXTS.len());
    assert!(resource.attributes.iter().all(|pair| pair.key.len() <= 255));
    assert!(resource.attributes.contains(&text("host.long", &"é".repeat(2_047))));
}
