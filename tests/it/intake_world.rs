//! A sidecar with its intake open, a receiver behind it, and requests as SDKs send them.

use std::io::Write;
use std::net::SocketAddr;

use content_factory_sidecar::fetch;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use crate::rig::{PATIENCE, Sidecar, echo_application};
use crate::telemetry_receiver::{Codings, Receiver};

pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";
/// Of an SDK; the sidecar's own is refused.
const AGENT: &str = "OTel-OTLP-Exporter-Python/1.0";

pub(crate) struct World {
    pub(crate) sidecar: Sidecar,
    pub(crate) receiver: Receiver,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// A whole answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl World {
    /// Before a receiver that accepts all.
    pub(crate) async fn start(environment: &[(&str, &str)]) -> Self {
        let receiver = Receiver::grpc(Codings::All, Default::default()).await;
        let endpoint = format!("http://{}", receiver.address);
        let environment = [environment, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint)]].concat();
        let (sidecar, [grpc, http]) = sidecar(&environment).await;
        Self { sidecar, receiver, grpc, http }
    }

    /// Posts a body as it is.
    pub(crate) async fn post(&self, path: &str, media_type: &str, body: Vec<u8>) -> Answer {
        post(self.http, path, &[(CONTENT_TYPE.as_str(), media_type)], body).await
    }

    /// The value of a metric's series, by the text of its labels.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        metric(&self.sidecar, series).await
    }
}

/// The intake's two addresses come after those of proxy and admin port.
pub(crate) async fn sidecar(environment: &[(&str, &str)]) -> (Sidecar, [SocketAddr; 2]) {
    let intake = [
        ("SIDECAR_TELEMETRY__INTAKE__ENABLED", "true"),
        ("SIDECAR_TELEMETRY__INTAKE__GRPC", "127.0.0.1:0"),
        ("SIDECAR_TELEMETRY__INTAKE__HTTP", "127.0.0.1:0"),
    ];
    let environment = [&intake, environment].concat();
    let mut sidecar = Sidecar::start(echo_application().await, &[], &environment).await;
    let mut addresses = Vec::new();
    for prefix in ["otlp grpc ", "otlp http "] {
        let line = sidecar.line().await.expect("a line for each address");
        addresses.push(line.strip_prefix(prefix).expect(prefix).parse().expect("an address"));
    }
    (sidecar, addresses.try_into().expect("two of them"))
}

pub(crate) async fn metric(sidecar: &Sidecar, series: &str) -> u64 {
    let page = sidecar.metrics().await;
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} in {page}")).parse::<f64>().expect("a number") as u64
}

pub(crate) async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let client = fetch::client(PATIENCE).expect("a client");
    let mut named = HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(AGENT))]);
    for (name, value) in headers {
        named.insert(HeaderName::try_from(*name).expect("a name"), HeaderValue::try_from(*value).expect("a value"));
    }
    let request = client.post(format!("http://{address}{path}")).headers(named).body(body);
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answer { status, headers, body: answer.bytes().await.expect("a whole answer").to_vec() }
}

/// The same compressed.
pub(crate) async fn post_coded(address: SocketAddr, path: &str, coding: &str, body: &[u8]) -> Answer {
    let body = if coding == "gzip" { gzip(body) } else { zstd::bulk::compress(body, 3).expect("memory") };
    post(address, path, &[(CONTENT_TYPE.as_str(), PROTOBUF), (CONTENT_ENCODING.as_str(), coding)], body).await
}

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

fn resource(service: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![text("service.name", service)], ..Resource::default() })
}

/// A span of its own id.
pub(crate) fn span(number: u64) -> Span {
    let trace_id = [[7; 8], number.to_be_bytes()].concat();
    Span { trace_id, span_id: vec![7; 8], name: "work".into(), ..Span::default() }
}

pub(crate) fn traces(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let part = ResourceSpans { resource: resource(service), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![part] }
}

/// Of about so many bytes.
pub(crate) fn large(number: u64, bytes: usize) -> Vec<u8> {
    let spans = (0..bytes as u64 / 1_000).map(|part| {
        let filler: String = (0..940).map(|_| char::from(fastrand::u8(b'a'..=b'z'))).collect();
        Span { attributes: vec![text("filler", &filler)], ..span(number * 1_000_000 + part) }
    });
    traces("shop", spans.collect()).encode_to_vec()
}

pub(crate) fn gauges(service: &str, names: &[&str]) -> ExportMetricsServiceRequest {
    let gauge = |name: &&str| {
        let data = Some(Data::Gauge(Gauge { data_points: vec![NumberDataPoint::default(); 2] }));
        Metric { name: (*name).to_owned(), data, ..Metric::default() }
    };
    let scope_metrics = vec![ScopeMetrics { metrics: names.iter().map(gauge).collect(), ..ScopeMetrics::default() }];
    let part = ResourceMetrics { resource: resource(service), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![part] }
}

/// The code and the message of a `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusMessage {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}
