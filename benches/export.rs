//! What it costs to get a span out: CPU time of the threads that take, gather, compress and send, for each span.
//!
//! The sidecar's way out against the batch processor and exporter of OpenTelemetry's SDK, with the same spans and the same
//! receiver over HTTP. The SDK encodes on its exporting thread and does not compress; the sidecar encodes on the thread that
//! proxies (`benches/spans.rs` counts that) and compresses by zstd. `cargo bench --bench export`, and a number of requests if wanted.

#![expect(clippy::print_stdout, reason = "the result of a program that measures")]

#[path = "cost/receiver.rs"]
mod receiver;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use content_factory_sidecar::lifecycle;
use content_factory_sidecar::model::request::{
    Client, Hop, Method, Outcome, Protocol, RecordTrace, RequestKind, RequestRecord, RequestSink,
};
use content_factory_sidecar::model::route::{Route, RouteId};
use content_factory_sidecar::model::telemetry::Signal;
use content_factory_sidecar::model::trace::{Sampled, SpanId, TraceId};
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::settings::{Place, Settings, Tree};
use content_factory_sidecar::telemetry::config::Config;
use content_factory_sidecar::telemetry::resource::{Resource, ServiceConfig};
use content_factory_sidecar::telemetry::{Telemetry, Upstream};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span, SpanKind, Tracer, TracerProvider};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol as OtlpProtocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::receiver::Receiver;

/// As the kernel shows it, in at most 15 bytes.
const OURS: &str = "export";
const THEIRS: &str = "OpenTelemetry.T";
/// Requests between two looks at what has arrived: nothing may be dropped.
const STRETCH: u64 = 1_000;

fn main() {
    // `cargo bench` passes `--bench` along
    let requests: u64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(200_000);
    let receiver = Receiver::start();
    let spans = 2 * requests;
    for (name, nanos) in [
        ("the sidecar's way out, zstd", by_the_sidecar(receiver.address, requests)),
        ("OpenTelemetry's SDK, batch exporter, not compressed", by_the_sdk(receiver.address, requests)),
    ] {
        let micros = nanos as f64 / 1e3 / spans as f64;
        println!("{name}: {micros:.2} µs of CPU for each of {spans} spans");
    }
    println!("{} bytes of traces arrived", receiver.trace_bytes());
}

/// On-CPU time of the threads of this name, in nanoseconds.
fn cpu_of(name: &str) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux has it").flatten();
    let of_name = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end().starts_with(name))
    });
    let nanos = of_name.filter_map(|task| {
        let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    nanos.sum()
}

fn by_the_sidecar(receiver: SocketAddr, requests: u64) -> u64 {
    let settings = serde_json::json!({
        "endpoint": format!("http://{receiver}"), "protocol": "http/protobuf",
        "metrics": { "enabled": false }, "logs": { "enabled": false },
    });
    let mut tree = Tree::default();
    tree.merge(serde_json::json!({ "telemetry": settings }), &Place("this program".to_owned()));
    let mut settings = Settings::new(tree, |_: &str| Ok(String::new()));
    let config = Config::read(&mut settings.section("telemetry"));
    let resource = Resource::new(&ServiceConfig::read(&mut settings.section("service")), &BTreeMap::new());
    let upstream = Upstream { host: "127.0.0.1".into(), port: 8000 };
    let (telemetry, mut writers) =
        Telemetry::new(config, &resource, &Arc::new(Redactor::new([])), &upstream, 1).expect("settings that fit");
    let telemetry = Arc::new(telemetry);
    let (conductor, drain) = lifecycle::drain();
    let runs = Arc::clone(&telemetry);
    let export = thread::Builder::new().name(OURS.to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().thread_name(OURS).build();
        runtime.expect("a runtime").block_on(runs.run(&[], drain));
    });
    let delivered = || telemetry.reader().state().accounts[Signal::Traces as usize].delivered;
    for number in 0..requests {
        write(&mut writers[0], number);
        while number % STRETCH == 0 && delivered() + 16 * STRETCH < 2 * number {
            thread::park_timeout(Duration::from_millis(1));
        }
    }
    while delivered() < 2 * requests {
        writers[0].tick();
        thread::park_timeout(Duration::from_millis(10));
    }
    let nanos = cpu_of(OURS);
    conductor.drain_within(Duration::from_secs(1));
    export.expect("a thread").join().expect("the export ends");
    nanos
}

fn write(writer: &mut impl RequestSink, number: u64) {
    let span = |id: u64| SpanId((id + 1).to_le_bytes());
    let trace_id = TraceId((u128::from(number) << 64 | 7).to_le_bytes());
    let (sampled, kept) = (Sampled::Yes, Cell::new(false));
    let trace = RecordTrace { trace_id, span_id: span(number), parent: None, sampled, tracestate: b"", kept };
    let (offset, duration) = (Duration::from_micros(20), Duration::from_micros(900));
    let hop = Hop { span_id: Some(span(number << 1)), offset, duration, status: 200, resends: 0 };
    writer.end(&RequestRecord {
        method: Method::Get,
        method_text: b"GET",
        target: b"/api/v1/products/17",
        route: Some(Route { id: RouteId(1), template: "/api/v1/products/{id}" }),
        kind: RequestKind::Ordinary,
        protocol: Protocol::Http11,
        status: 200,
        outcome: Outcome::Answered,
        started_unix_nanos: 1_800_000_000_000_000_000 + number,
        duration: Duration::from_micros(1_000),
        first_byte: Some(duration),
        request_body_bytes: 0,
        response_body_bytes: 1_024,
        trace: Some(trace),
        hop: Some(hop),
        client: Client { peer: (Ipv4Addr::LOCALHOST, 40_000).into(), address: Ipv4Addr::LOCALHOST.into() },
        user_agent: None,
        tapped: None,
    });
}

fn by_the_sdk(receiver: SocketAddr, requests: u64) -> u64 {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(OtlpProtocol::HttpBinary)
        .with_endpoint(format!("http://{receiver}/v1/traces"))
        .with_http_client(Post(Arc::new(Mutex::new(TcpStream::connect(receiver).expect("it listens")))))
        .build()
        .expect("settings that fit");
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    let tracer = provider.tracer("export");
    let text = |key: &'static str, value: &'static str| KeyValue::new(key, value);
    for number in 0..requests {
        for (kind, own) in [
            (SpanKind::Server, [text("url.path", "/api/v1/products/17"), text("url.scheme", "http")]),
            (
                SpanKind::Client,
                [text("url.full", "http://127.0.0.1:8000/api/v1/products/17"), text("server.address", "127.0.0.1")],
            ),
        ] {
            let attributes = own.into_iter().chain([
                text("http.request.method", "GET"),
                text("http.route", "/api/v1/products/{id}"),
                text("network.protocol.version", "1.1"),
                KeyValue::new("http.response.status_code", 200),
            ]);
            let builder = tracer.span_builder("GET /api/v1/products/{id}").with_kind(kind);
            tracer.build(builder.with_attributes(attributes)).end();
        }
        if number % (STRETCH / 2) == 0 {
            provider.force_flush().expect("the receiver takes all");
        }
    }
    provider.force_flush().expect("the receiver takes all");
    let nanos = cpu_of(THEIRS);
    provider.shutdown().expect("it ends");
    nanos
}

/// An HTTP client as small as can be, so that the exporter is measured and not its client.
#[derive(Clone, Debug)]
struct Post(Arc<Mutex<TcpStream>>);

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut stream = self.0.lock().expect("no code panics while it holds the connection");
        let (path, body) = (request.uri().path(), request.body());
        write!(stream, "POST {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(body)?;
        let mut answer = BufReader::new(&*stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            answer.read_line(&mut line)?;
        }
        Ok(Response::new(Bytes::new()))
    }
}
