//! What the application's SDKs send arrives, by each protocol and coding, cleaned and completed; and what is said back.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};

use crate::intake_world::{JSON, PROTOBUF, StatusMessage, World, gauges, post, post_coded, span, text, traces};
use crate::rig::PATIENCE;
use crate::telemetry_receiver::eventually;

async fn channel(world: &World) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", world.grpc)).expect("a URL");
    endpoint.connect().await.expect("a connection")
}

async fn arrived(world: &World, spans: usize) {
    eventually("all spans", PATIENCE, || world.receiver.with(|seen| seen.spans.len() == spans)).await;
}

#[tokio::test]
async fn each_signal_arrives_over_grpc_in_each_coding() {
    let world = World::start(&[]).await;
    let codings = [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)];
    for (number, coding) in codings.into_iter().enumerate() {
        let channel = channel(&world).await;
        let mut trace_client = TraceServiceClient::new(channel.clone());
        let mut metrics_client = MetricsServiceClient::new(channel.clone());
        let mut logs_client = LogsServiceClient::new(channel);
        if let Some(coding) = coding {
            trace_client = trace_client.send_compressed(coding);
            metrics_client = metrics_client.send_compressed(coding);
            logs_client = logs_client.send_compressed(coding);
        }
        let answer = trace_client.export(traces("shop", vec![span(number as u64)])).await.unwrap();
        assert_eq!(answer.into_inner().partial_success, None);
        metrics_client.export(gauges("shop", &["jobs"])).await.unwrap();
        let scope_logs = vec![ScopeLogs { log_records: vec![LogRecord::default()], ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        logs_client.export(ExportLogsServiceRequest { resource_logs }).await.unwrap();
    }
    arrived(&world, 3).await;
    assert_eq!(world.metric(r#"content_factory_intake_items_total{signal="traces"}"#).await, 3);
    assert_eq!(world.metric(r#"content_factory_intake_items_total{signal="metrics"}"#).await, 6);
    assert_eq!(world.metric(r#"content_factory_intake_items_total{signal="logs"}"#).await, 3);
}

#[tokio::test]
async fn spans_arrive_over_http_in_each_coding_and_on_either_port() {
    let world = World::start(&[]).await;
    let body = |number| traces("shop", vec![span(number)]).encode_to_vec();
    let plain = world.post("/v1/traces", PROTOBUF, body(1)).await;
    let other_port = post(world.grpc, "/v1/traces", &[("content-type", PROTOBUF)], body(2)).await;
    let gzip = post_coded(world.http, "/v1/traces", "gzip", &body(3)).await;
    let zstd = post_coded(world.http, "/v1/traces", "zstd", &body(4)).await;
    for answer in [plain, other_port, gzip, zstd] {
        assert_eq!((answer.status, answer.headers["content-type"].as_bytes()), (200, PROTOBUF.as_bytes()));
        assert_eq!(ExportTraceServiceResponse::decode(&*answer.body).unwrap().partial_success, None);
    }
    arrived(&world, 4).await;
}

#[tokio::test]
async fn json_is_taken_and_answered_in_json() {
    let world = World::start(&[]).await;
    for (path, body) in [
        ("/v1/traces", include_str!("../data/otlp/traces.json")),
        ("/v1/metrics", include_str!("../data/otlp/metrics.json")),
        ("/v1/logs", include_str!("../data/otlp/logs.json")),
    ] {
        let answer = world.post(path, "Application/JSON; charset=utf-8", body.into()).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_bytes()), (200, JSON.as_bytes()), "{path}");
        assert_eq!(answer.body, b"{}", "{path}");
    }
    arrived(&world, 1).await;
    let id = world.receiver.with(|seen| seen.spans[0].trace_id.clone());
    assert_eq!(id[..4], [0x0a, 0xf7, 0x65, 0x19]);
    eventually("metrics and logs", PATIENCE, || {
        world.receiver.with(|seen| {
            let has_metric = seen.metrics.iter().any(|metric| metric.name == "an.exponential");
            has_metric && seen.logs.iter().any(|record| record.event_name == "publish.failed")
        })
    })
    .await;
}

#[tokio::test]
async fn what_arrives_is_redacted_and_has_the_attributes_of_the_place() {
    let environment = [
        ("OTEL_SERVICE_NAME", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=production"),
        ("POD_NAME", "shop-1"),
        ("DATABASE_URL", "postgres://app:hunter2-secret@127.0.0.1:1/app"),
    ];
    let world = World::start(&environment).await;
    let attributes = vec![text("note", "it is hunter2-secret"), text("api_key", "k-1"), text("plain", "stays")];
    let sent = Span { attributes, ..span(1) };
    assert_eq!(world.post("/v1/traces", PROTOBUF, traces("worker", vec![sent]).encode_to_vec()).await.status, 200);
    arrived(&world, 1).await;
    world.receiver.with(|seen| {
        let attributes = &seen.spans[0].attributes;
        assert_eq!(attributes[..2], [text("note", "it is [REDACTED:secret]"), text("api_key", "[REDACTED:key]")]);
        assert_eq!(attributes[2], text("plain", "stays"));
        for name in ["deployment.environment.name", "k8s.pod.name", "service.instance.id"] {
            assert!(seen.resource_names.contains(name), "{name}");
        }
        assert!(seen.services.iter().any(|service| service == "worker"), "{:?}", seen.services);
    });
}

#[tokio::test]
async fn the_applications_own_server_metrics_are_left_out_under_our_name_only_and_told() {
    let world = World::start(&[("OTEL_SERVICE_NAME", "shop")]).await;
    let names = ["http.server.request.duration", "http.server.active_requests", "jobs.done"];
    let answer = world.post("/v1/metrics", JSON, json_of_gauges("shop", &names)).await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &told["partialSuccess"]["rejectedDataPoints"]), (200, &json!("2")), "{told}");
    assert!(told["partialSuccess"]["errorMessage"].as_str().unwrap().contains("telemetry.intake.server_metrics"));
    let other = world.post("/v1/metrics", PROTOBUF, gauges("worker", &names[..1]).encode_to_vec()).await;
    assert_eq!((other.status, other.body.len()), (200, 0));
    let left_out = r#"content_factory_intake_left_out_total{signal="metrics",reason="server_metrics"}"#;
    assert_eq!(world.metric(left_out).await, 2);
    eventually("the others", PATIENCE, || {
        world.receiver.with(|seen| {
            let count = |name: &str| seen.metrics.iter().filter(|metric| metric.name == name).count();
            count("jobs.done") == 1 && count(names[0]) >= 1
        })
    })
    .await;
}

#[tokio::test]
async fn the_applications_own_server_metrics_are_kept_when_that_is_wished() {
    let wish = [("OTEL_SERVICE_NAME", "shop"), ("SIDECAR_TELEMETRY__INTAKE__SERVER_METRICS", "keep")];
    let world = World::start(&wish).await;
    let body = gauges("shop", &["http.server.request.duration"]).encode_to_vec();
    assert_eq!(world.post("/v1/metrics", PROTOBUF, body).await.body.len(), 0);
    assert_eq!(world.metric(r#"content_factory_intake_items_total{signal="metrics"}"#).await, 2);
}

fn json_of_gauges(service: &str, names: &[&str]) -> Vec<u8> {
    let metrics: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "gauge": {"dataPoints": [{"asInt": 1}]}})).collect();
    let attributes = json!([{"key": "service.name", "value": {"stringValue": service}}]);
    let part = json!({"resource": {"attributes": attributes}, "scopeMetrics": [{"metrics": metrics}]});
    json!({"resourceMetrics": [part]}).to_string().into()
}

#[tokio::test]
async fn a_span_without_ids_is_told_over_grpc_and_the_others_arrive() {
    let world = World::start(&[]).await;
    let broken = Span { trace_id: vec![1; 3], ..span(1) };
    let mut client = TraceServiceClient::new(channel(&world).await);
    let answer = client.export(traces("shop", vec![broken, span(2)])).await.unwrap().into_inner();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    assert!(partial.error_message.contains("trace id"), "{}", partial.error_message);
    arrived(&world, 1).await;
}

#[tokio::test]
async fn server_spans_under_our_own_name_are_warned_of_once() {
    let world = World::start(&[("OTEL_SERVICE_NAME", "shop")]).await;
    for number in 0..3 {
        let server = Span { kind: 2, parent_span_id: vec![1; 8], ..span(number) };
        let body = traces("shop", vec![server]).encode_to_vec();
        assert_eq!(world.post("/v1/traces", PROTOBUF, body).await.status, 200);
    }
    arrived(&world, 3).await;
    assert_eq!(world.sidecar.log().matches("telemetry.spans").count(), 1, "{}", world.sidecar.log());
}

#[tokio::test]
async fn a_signal_that_is_not_exported_is_left_out_and_told() {
    let world = World::start(&[("SIDECAR_TELEMETRY__LOGS__ENABLED", "false")]).await;
    let answer = world.post("/v1/logs", JSON, include_str!("../data/otlp/logs.json").into()).await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &told["partialSuccess"]["rejectedLogRecords"]), (200, &json!("1")), "{told}");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_in_the_words_of_its_form() {
    let world = World::start(&[]).await;
    let answer = world.post("/v1/traces", PROTOBUF, b"\x0a\x05ab".to_vec()).await;
    assert_eq!((answer.status, answer.headers["content-type"].as_bytes()), (400, PROTOBUF.as_bytes()));
    let status = StatusMessage::decode(&*answer.body).unwrap();
    assert_eq!((status.code, &*status.message), (3, "found a body that is no export request, expected OTLP"));
    let answer = world.post("/v1/traces", JSON, b"{\"resourceSpans\": 7}".to_vec()).await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &told["code"]), (400, &json!(3)), "{told}");
    let answer = world.post("/v1/traces", "text/plain", Vec::new()).await;
    assert_eq!((answer.status, answer.headers["content-type"].as_bytes()), (415, JSON.as_bytes()));
    assert_eq!(world.post("/v1/profiles", PROTOBUF, Vec::new()).await.status, 404);
    let coded = [("content-type", PROTOBUF), ("content-encoding", "br")];
    let answer = post(world.http, "/v1/traces", &coded, Vec::new()).await;
    assert_eq!((answer.status, answer.headers["accept-encoding"].as_bytes()), (415, &b"gzip, zstd"[..]));
    let (status, _) = crate::rig::get(world.http, "/v1/traces").await.unwrap();
    assert_eq!(status, 405);
    assert_eq!(world.metric(r#"content_factory_intake_refused_total{reason="malformed"}"#).await, 2);
    assert_eq!(world.metric(r#"content_factory_intake_refused_total{reason="unsupported"}"#).await, 4);
}

#[tokio::test]
async fn an_unknown_method_of_grpc_is_unimplemented() {
    let world = World::start(&[]).await;
    let answer = world.post("/grpc.health.v1.Health/Check", "application/grpc", Vec::new()).await;
    assert_eq!((answer.status, answer.headers["grpc-status"].as_bytes()), (200, &b"12"[..]));
}

#[tokio::test]
async fn an_empty_request_is_a_success() {
    let world = World::start(&[]).await;
    assert_eq!(world.post("/v1/traces", PROTOBUF, Vec::new()).await.status, 200);
    assert_eq!(world.post("/v1/traces", JSON, b"{}".to_vec()).await.status, 200);
}
