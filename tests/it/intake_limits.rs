//! What is too much is refused: the sender is told whether to come again, and nothing else changes.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Gauge;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

use crate::intake_world::{
    JSON, PROTOBUF, StatusMessage, World, gzip, large, metric, post, post_coded, sidecar, span, text, traces,
};
use crate::port::Port;
use crate::rig::PATIENCE;
use crate::telemetry_receiver::{Codings, Receiver, Seen, eventually};

const MIB: usize = 1 << 20;

/// After whatever happened: an ordinary request is taken.
async fn still_serves(world: &World) {
    let answer = world.post("/v1/traces", PROTOBUF, traces("shop", vec![span(1)]).encode_to_vec()).await;
    assert_eq!(answer.status, 200, "{}", world.sidecar.log());
}

#[tokio::test]
async fn what_is_full_is_to_come_again_and_nothing_older_goes_for_it() {
    let small = [("SIDECAR_TELEMETRY__QUEUE__TRACES", "256KiB"), ("SIDECAR_TELEMETRY__SPOOL__ENABLED", "false")];
    let (sidecar, [grpc, http]) = sidecar(&small).await;
    let mut taken = 0;
    let refused = loop {
        let answer = post(http, "/v1/traces", &[("content-type", PROTOBUF)], large(taken, 50_000)).await;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 10, "a queue of 256 KiB takes no end of requests");
    };
    assert_eq!((refused.status, refused.headers["retry-after"].as_bytes(), taken), (503, &b"1"[..], 5));
    assert_eq!(StatusMessage::decode(&*refused.body).unwrap().code, Code::Unavailable as i32);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{grpc}")).unwrap();
    let mut client = TraceServiceClient::new(endpoint.connect().await.unwrap());
    let request = Message::decode(&*large(9, 50_000)).unwrap();
    let status = client.export(Request::new(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let retry_info = b"type.googleapis.com/google.rpc.RetryInfo";
    assert!(status.details().windows(retry_info.len()).any(|part| part == retry_info), "{:?}", status.details());
    assert_eq!(metric(&sidecar, r#"content_factory_intake_refused_total{reason="full"}"#).await, 2);
    assert_eq!(metric(&sidecar, r#"content_factory_intake_items_total{signal="traces"}"#).await, 5 * 50);
    let dropped = r#"content_factory_telemetry_dropped_total{signal="traces",reason="queue_full"}"#;
    assert_eq!(metric(&sidecar, dropped).await, 0);
}

#[tokio::test]
async fn while_the_receiver_is_away_the_disk_takes_what_comes_in_and_none_is_lost() {
    let port = Port::reserve();
    let address = port.address();
    let endpoint = format!("http://{address}");
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("SIDECAR_TELEMETRY__QUEUE__TRACES", "2MiB"),
        ("SIDECAR_TELEMETRY__MAX_REQUEST", "256KiB"),
    ];
    let (sidecar, [_, http]) = sidecar(&settings).await;
    for number in 0..20 {
        let answer = post(http, "/v1/traces", &[("content-type", PROTOBUF)], large(number, 200_000)).await;
        assert_eq!(answer.status, 200, "request {number}");
    }
    // larger than the queue: it goes through it part by part
    let answer = post_coded(http, "/v1/traces", "zstd", &large(20, 3_000_000)).await;
    assert_eq!(answer.status, 200);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let receiver = Receiver::grpc_on(listener, Codings::All, Default::default()).await;
    let sent = 20 * 200 + 3_000;
    eventually("all spans", Duration::from_secs(40), || receiver.with(|seen| seen.spans.len() >= sent)).await;
    let ids: std::collections::BTreeSet<Vec<u8>> =
        receiver.with(|seen| seen.spans.iter().map(|span| span.trace_id.clone()).collect());
    assert_eq!(ids.len(), sent);
    assert_eq!(metric(&sidecar, r#"content_factory_intake_refused_total{reason="full"}"#).await, 0);
}

#[tokio::test]
async fn what_is_too_large_is_refused_for_good_before_and_after_decompression() {
    let world = World::start(&[]).await;
    let bomb = gzip(&vec![0; 21 * MIB]);
    assert!(bomb.len() < MIB);
    for body in [vec![0; 21 * MIB], bomb.clone()] {
        let coding = if body.len() < MIB { "gzip" } else { "identity" };
        let headers = [("content-type", PROTOBUF), ("content-encoding", coding)];
        let answer = post(world.http, "/v1/logs", &headers, body).await;
        assert_eq!((answer.status, answer.headers.get("retry-after")), (413, None));
        assert_eq!(StatusMessage::decode(&*answer.body).unwrap().code, Code::ResourceExhausted as i32);
    }
    let zstd = post_coded(world.http, "/v1/metrics", "zstd", &vec![0; 21 * MIB]).await;
    assert_eq!(zstd.status, 413);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", world.grpc)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let name = "n".repeat(5 * MIB);
    for client in [
        TraceServiceClient::new(channel.clone()),
        TraceServiceClient::new(channel).send_compressed(CompressionEncoding::Gzip),
    ] {
        let request = traces("shop", vec![Span { name: name.clone(), ..span(1) }]);
        let status = { client }.export(request).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(!String::from_utf8_lossy(status.details()).contains("RetryInfo"));
    }
    assert_eq!(world.metric(r#"content_factory_intake_refused_total{reason="too_large"}"#).await, 5);
    still_serves(&world).await;
}

#[tokio::test]
async fn hostile_bytes_change_nothing_but_their_own_answer() {
    let world = World::start(&[]).await;
    let nested = |depth: usize| {
        let open = r#"{"arrayValue":{"values":["#.repeat(depth);
        let close = "]}}".repeat(depth);
        format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{open}{{}}{close}}}]}}]}}]}}"#)
    };
    let garbage: Vec<u8> = (0..100_000).map(|_| fastrand::u8(..)).collect();
    // six bytes each, and hundreds for whoever decodes them or completes each resource
    let empty_spans = [0x0a, 0x04, 0x12, 0x02, 0x12, 0x00].repeat(MIB / 2);
    for (path, media_type, body, expected) in [
        ("/v1/traces", PROTOBUF, garbage.clone(), 400),
        ("/v1/traces", "application/json", garbage, 400),
        ("/v1/logs", "application/json", nested(100_000).into_bytes(), 400),
        ("/v1/logs", "application/json", nested(35).into_bytes(), 400),
        ("/v1/logs", "application/json", nested(20).into_bytes(), 200),
        ("/v1/traces", PROTOBUF, empty_spans, 413),
        ("/v1/traces", PROTOBUF, vec![0x0a; 5 * MIB], 400),
    ] {
        let length = body.len();
        let answer = world.post(path, media_type, body).await;
        assert_eq!(answer.status, expected, "{path} {media_type} {length}");
    }
    for (coding, body) in
        [("gzip", &b"no gzip"[..]), ("zstd", b"no zstd"), ("zstd", &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8])]
    {
        let headers = [("content-type", PROTOBUF), ("content-encoding", coding)];
        let answer = post(world.http, "/v1/logs", &headers, body.into()).await;
        assert_eq!(answer.status, 400, "{coding}");
    }
    still_serves(&world).await;
    let peak = world.sidecar.peak_kib();
    assert!(peak < 256 * 1024, "{peak} KiB at most, of which the intake has 64 MiB");
}

#[tokio::test]
async fn a_million_attributes_and_bytes_that_are_no_text_become_what_every_receiver_reads() {
    let world = World::start(&[]).await;
    let mut sent = span(1).encode_to_vec();
    sent.extend([0x4a, 0x00].repeat(1_000_000)); // attributes of nothing
    sent.extend(b"\x2a\x04\xff\xfe\xfda"); // a name
    let around = |tag: u8, inner: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend_from_slice(inner);
        out
    };
    let body = around(0x0a, &around(0x12, &around(0x12, &sent)));
    assert_eq!(world.post("/v1/traces", PROTOBUF, body).await.status, 200);
    eventually("the span", PATIENCE, || world.receiver.with(|seen| seen.spans.len() == 1)).await;
    world.receiver.with(|seen| {
        let found = &seen.spans[0];
        assert_eq!((found.attributes.len(), found.dropped_attributes_count), (128, 1_000_000 - 128));
        assert_eq!(found.name, "\u{fffd}\u{fffd}\u{fffd}a");
    });
}

/// What the record and the gauge are known by.
const EVENT: &str = "sent";
const GAUGE: &str = "jobs.waiting";

/// Sends this log record, and a gauge with these attributes at its point.
async fn tell(world: &World, record: &Json, attributes: &Json) {
    let records = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]});
    assert_eq!(world.post("/v1/logs", JSON, records.to_string().into()).await.status, 200);
    let gauge = json!({"name": GAUGE, "gauge": {"dataPoints": [{"asInt": 1, "attributes": attributes}]}});
    let gauges = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [gauge]}]}]});
    assert_eq!(world.post("/v1/metrics", JSON, gauges.to_string().into()).await.status, 200);
}

/// Both of them, once they have come.
fn told(seen: &Seen) -> Option<(&LogRecord, &Gauge)> {
    let record = seen.logs.iter().find(|record| record.event_name == EVENT)?;
    let metric = seen.metrics.iter().find(|metric| metric.name == GAUGE)?;
    let Some(Data::Gauge(gauge)) = &metric.data else { return None };
    Some((record, gauge))
}

#[tokio::test]
async fn limits_that_are_set_lower_hold_for_what_comes_in_and_not_for_what_tells_series_apart() {
    let lower = [("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "100"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3")];
    let world = World::start(&lower).await;
    let long = "é".repeat(200);
    let attributes = ["k", "l", "m", "n"].map(|key| text(key, &long));
    let sent = Span { attributes: attributes.to_vec(), ..span(1) };
    assert_eq!(world.post("/v1/traces", PROTOBUF, traces(&long, vec![sent]).encode_to_vec()).await.status, 200);
    let attributes = ["k", "l", "m", "n"].map(|key| json!({"key": key, "value": {"stringValue": &long}}));
    let record = json!({"body": {"stringValue": &long}, "attributes": attributes, "eventName": EVENT});
    tell(&world, &record, &json!(attributes)).await;

    let cut = ["k", "l", "m"].map(|key| text(key, &long[..100]));
    let whole = ["k", "l", "m", "n"].map(|key| text(key, &long));
    eventually("all three", PATIENCE, || {
        world.receiver.with(|seen| {
            let (Some(span), Some((record, gauge))) = (seen.spans.first(), told(seen)) else { return false };
            assert_eq!((&span.attributes[..], span.dropped_attributes_count), (&cut[..], 1));
            assert_eq!((&record.attributes[..], record.dropped_attributes_count), (&cut[..], 1));
            assert_eq!(record.body, whole[0].value, "a body is no attribute");
            assert_eq!(gauge.data_points[0].attributes, whole);
            assert!(seen.services.contains(&long), "whose they are stays whole");
            true
        })
    })
    .await;
    assert_eq!(world.metric(r#"content_factory_telemetry_truncated_total{signal="traces"}"#).await, 4);
}

#[tokio::test]
async fn log_records_and_points_are_cut_at_what_every_vendor_takes_and_say_what_is_missing() {
    let world = World::start(&[]).await;
    let long = "é".repeat(3_000);
    let value = |number: usize| if number == 0 { json!({"stringValue": &long}) } else { json!({"intValue": number}) };
    let attributes: Vec<_> =
        (0..200).map(|number| json!({"key": format!("k{number}"), "value": value(number)})).collect();
    let list: Vec<_> = (0..100).map(|number| json!({"intValue": number})).collect();
    let mut of_the_record = vec![json!({"key": "list", "value": {"arrayValue": {"values": list}}})];
    of_the_record.extend_from_slice(&attributes);
    of_the_record[2]["key"] = json!("n".repeat(300));
    let record = json!({"body": {"stringValue": &long}, "attributes": of_the_record, "eventName": EVENT});
    tell(&world, &record, &json!(attributes)).await;

    // on the border of a character of two bytes
    let cut = text("k0", &long[..4_094]);
    eventually("both", PATIENCE, || {
        world.receiver.with(|seen| {
            let Some((record, gauge)) = told(seen) else { return false };
            assert_eq!((record.attributes.len(), record.dropped_attributes_count), (128, 201 - 128));
            assert_eq!(record.attributes[0].value, Some(numbers(64)), "a list");
            assert_eq!(record.attributes[1], cut);
            assert_eq!(record.attributes[2].key, "n".repeat(255));
            assert_eq!(record.body, cut.value, "a body");
            let point = &gauge.data_points[0];
            assert_eq!((point.attributes.len(), &point.attributes[0]), (128, &cut));
            true
        })
    })
    .await;
    let truncated = |signal: &str| format!(r#"content_factory_telemetry_truncated_total{{signal="{signal}"}}"#);
    assert_eq!(world.metric(&truncated("logs")).await, 5, "attributes, a list, a value, a name and a body");
    assert_eq!(world.metric(&truncated("metrics")).await, 2, "attributes and a value");
}

/// The list of the numbers below this one.
fn numbers(below: i64) -> AnyValue {
    let values = (0..below).map(|number| AnyValue { value: Some(Value::IntValue(number)) }).collect();
    AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let world = World::start(&[("SIDECAR_TELEMETRY__INTAKE__CONNECTIONS", "3")]).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.push(TcpStream::connect(world.http).await.unwrap());
    }
    let refused = r#"content_factory_intake_refused_total{reason="connections"}"#;
    let mut late = TcpStream::connect(world.grpc).await.unwrap();
    let end = timeout(PATIENCE, late.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert_eq!(world.metric(refused).await, 1);
    drop(kept);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let body = traces("shop", vec![span(1)]).encode_to_vec();
    let client = content_factory_sidecar::fetch::client(PATIENCE).unwrap();
    loop {
        let request = client.post(format!("http://{}/v1/traces", world.http)).body(body.clone());
        let request = request.header("content-type", PROTOBUF).header("user-agent", "sdk");
        if request.send().await.is_ok_and(|answer| answer.status() == 200) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "places are free again");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let world = World::start(&[]).await;
    let mut stream = TcpStream::connect(world.http).await.unwrap();
    let head =
        format!("POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: 100\r\n\r\nhalf");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert_eq!(world.metric(r#"content_factory_intake_refused_total{reason="slow"}"#).await, 1);
}

#[tokio::test]
async fn all_requests_together_have_so_much_memory_and_further_ones_come_again() {
    let world = World::start(&[]).await;
    let mut held = Vec::new();
    // 18 MiB each, of 64 in all
    for number in 0..4 {
        let mut stream = TcpStream::connect(world.http).await.unwrap();
        let length = 19 * MIB;
        let head = format!(
            "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let sent = stream.write_all(&vec![0; 18 * MIB]).await;
        assert!(sent.is_ok() || number == 3, "{sent:?}");
        held.push(stream);
    }
    let refused = r#"content_factory_intake_refused_total{reason="busy"}"#;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while world.metric(refused).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "a fourth request of 18 MiB has no room");
    }
    drop(held);
    still_serves(&world).await;
}
