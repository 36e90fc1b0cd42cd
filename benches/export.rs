//! What it costs to get a span out: CPU time of the threads that take, gather, compress and send, for each span.
//!
//! The sidecar's way out beside the batch processor and exporter of OpenTelemetry's SDK: the same spans, the same receiver over
//! HTTP, the same allocator. The SDK encodes on its exporting thread; the sidecar encodes on the thread that proxies, which
//! `benches/spans.rs` counts. The SDK does not compress by itself, so it is measured as it is, and with its bodies compressed as
//! ours are. As fast as they go, when requests to the receiver are as large as they may be, and at steady rates, when few spans make
//! one and share what it costs. `cargo bench --bench export`, and what is wanted of it: a number of requests, `rush`, `2000/s`, `100/s`.

#![expect(clippy::print_stdout, reason = "the result of a program that measures")]

#[path = "cost/receiver.rs"]
mod receiver;
#[path = "way_out/mod.rs"]
mod way_out;

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use content_factory_sidecar::lifecycle;
use content_factory_sidecar::model::request::RequestSink;
use content_factory_sidecar::model::telemetry::Signal;
use opentelemetry::trace::{Span, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use serde_json::json;
use tokio::time::Instant;

use crate::receiver::Receiver;
use crate::way_out::{ROUTE, end_request};

/// The sidecar's own, as `main` has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// As the kernel shows the name of a thread: 15 bytes. Threads without a name have that of the program, which begins with `export`.
const OURS: &str = "way-out";
const THEIRS: &str = "OpenTelemetry.T";
/// Of the proxy, a SERVER and a CLIENT span.
const SPANS_A_REQUEST: u64 = 2;
/// Requests between two looks at what has arrived. What a worker may have on its way is a good deal more than what is let go ahead.
const STRETCH: u64 = 1_000;
/// Requests a second where they come at a steady rate, busy and quiet.
const RATES: [u64; 2] = [2_000, 100];
/// How long they come at such a rate.
const STEADY: Duration = Duration::from_secs(20);
/// A worker of the proxy looks at its clock so often.
const TICK: Duration = Duration::from_millis(100);
/// Of each span.
const NAME: &str = "GET /api/v1/products/{id}";
/// The sidecar's level (`telemetry::sender::compression`).
const ZSTD_LEVEL: i32 = -7;

/// What becomes of the SDK's bodies on their way.
#[derive(Clone, Copy, Debug)]
enum Bodies {
    AsTheyAre,
    Compressed,
}

/// How requests come.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// So many, as fast as they go.
    Rush(u64),
    /// So many a second, for `STEADY`.
    Steady(u64),
}

impl Load {
    /// How it is asked for.
    fn name(self) -> String {
        match self {
            Self::Rush(_) => "rush".to_owned(),
            Self::Steady(rate) => format!("{rate}/s"),
        }
    }

    fn requests(self) -> u64 {
        match self {
            Self::Rush(requests) => requests,
            Self::Steady(rate) => rate * STEADY.as_secs(),
        }
    }
}

fn main() {
    // `cargo bench` passes `--bench` along
    let (numbers, names): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .partition(|argument| argument.parse::<u64>().is_ok());
    let requests = numbers.first().and_then(|number| number.parse().ok()).unwrap_or(200_000);
    let receiver = Receiver::start();
    let loads = std::iter::once(Load::Rush(requests)).chain(RATES.map(Load::Steady));
    for load in loads.filter(|load| names.is_empty() || names.contains(&load.name())) {
        let spans = SPANS_A_REQUEST * load.requests();
        let told = |name: &str, measure: &dyn Fn(SocketAddr, Load) -> u64| {
            let before = receiver.trace_bytes();
            let micros = measure(receiver.address, load) as f64 / 1e3 / spans as f64;
            let bytes = (receiver.trace_bytes() - before) / spans;
            println!("{name}: {micros:.2} µs of CPU to export a span, {bytes} bytes on the wire");
        };
        println!("{load:?}, {spans} spans each");
        told("the sidecar's way out, zstd", &by_the_sidecar);
        told("OpenTelemetry's SDK, zstd", &|to, load| by_the_sdk(to, load, Bodies::Compressed));
        told("OpenTelemetry's SDK, not compressed", &|to, load| by_the_sdk(to, load, Bodies::AsTheyAre));
    }
}

/// Makes the requests of a load, and in between what has to be done once for each `TICK` of a steady one, or for each `stretch`
/// of a rush.
fn make(load: Load, stretch: u64, mut request: impl FnMut(u64), mut between: impl FnMut(u64)) {
    let (start, mut next) = (Instant::now(), TICK);
    for number in 0..load.requests() {
        request(number);
        match load {
            Load::Rush(_) if number % stretch == 0 => between(number),
            Load::Rush(_) => {}
            Load::Steady(rate) => {
                let due = start + Duration::from_nanos(1_000_000_000 / rate * (number + 1));
                while Instant::now() < due {
                    thread::park_timeout(due - Instant::now());
                }
                if start.elapsed() >= next {
                    next += TICK;
                    between(number);
                }
            }
        }
    }
}

/// On-CPU time of the threads whose names begin like this, in nanoseconds since they were started; to the last one only while
/// they sleep, because the kernel counts when a thread leaves its core.
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

fn by_the_sidecar(receiver: SocketAddr, load: Load) -> u64 {
    let (telemetry, mut writer) = way_out::way_out(json!({
        "endpoint": format!("http://{receiver}"), "protocol": "http/protobuf",
        "metrics": { "enabled": false }, "logs": { "enabled": false },
    }));
    let telemetry = Arc::new(telemetry);
    let (conductor, drain) = lifecycle::drain();
    let runs = Arc::clone(&telemetry);
    let export = thread::Builder::new().name(OURS.to_owned()).spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        // a thread that ends takes its time along
        let runtime = runtime.enable_all().thread_name(OURS).thread_keep_alive(Duration::from_secs(3_600)).build();
        runtime.expect("a runtime").block_on(runs.run(&[], drain));
    });
    let delivered = || {
        let account = telemetry.reader().state().accounts[Signal::Traces as usize];
        assert_eq!(
            account.dropped.iter().sum::<u64>(),
            0,
            "what is dropped costs nothing, and would be waited for for ever"
        );
        account.delivered
    };
    let writer = RefCell::new(&mut writer);
    let ends = |number| end_request(*writer.borrow_mut(), number);
    make(load, STRETCH, ends, |number| match load {
        Load::Steady(_) => writer.borrow_mut().tick(),
        Load::Rush(_) => {
            while delivered() + 8 * STRETCH < SPANS_A_REQUEST * number {
                thread::park_timeout(Duration::from_millis(1));
            }
        }
    });
    while delivered() < SPANS_A_REQUEST * load.requests() {
        writer.borrow_mut().tick();
        thread::park_timeout(Duration::from_millis(10));
    }
    let nanos = cpu_of(OURS);
    conductor.drain_within(Duration::from_secs(1));
    export.expect("a thread").join().expect("the export ends");
    nanos
}

fn by_the_sdk(receiver: SocketAddr, load: Load, bodies: Bodies) -> u64 {
    let stream = TcpStream::connect(receiver).expect("it listens");
    stream.set_nodelay(true).expect("a socket that is open");
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("http://{receiver}/v1/traces"))
        .with_http_client(Post { stream: Arc::new(Mutex::new(stream)), bodies })
        .build()
        .expect("settings that fit");
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    let tracer = provider.tracer("export");
    // two batches, of the four that its queue holds
    make(
        load,
        STRETCH / 2,
        |_| make_spans(&tracer),
        |_| match load {
            Load::Steady(_) => {} // it has a timer of its own
            Load::Rush(_) => provider.force_flush().expect("the receiver takes all"),
        },
    );
    provider.force_flush().expect("the receiver takes all");
    let nanos = cpu_of(THEIRS);
    provider.shutdown().expect("it ends");
    nanos
}

/// What the sidecar tells of a request.
fn make_spans(tracer: &SdkTracer) {
    let text = |key: &'static str, value: &'static str| KeyValue::new(key, value);
    let server = tracer.span_builder(NAME).with_kind(SpanKind::Server).with_attributes([
        text("http.request.method", "GET"),
        text("url.path", "/api/v1/products/17"),
        text("url.scheme", "http"),
        text("network.protocol.version", "1.1"),
        text("http.route", ROUTE),
        KeyValue::new("http.response.status_code", 200),
    ]);
    let server = tracer.build_with_context(server, &Context::new());
    let around = Context::new().with_remote_span_context(server.span_context().clone());
    let client = tracer.span_builder(NAME).with_kind(SpanKind::Client).with_attributes([
        text("http.request.method", "GET"),
        text("server.address", "127.0.0.1"),
        KeyValue::new("server.port", 8000),
        text("url.full", "http://127.0.0.1:8000/api/v1/products/17"),
        KeyValue::new("http.response.status_code", 200),
    ]);
    tracer.build_with_context(client, &around).end();
    { server }.end();
}

/// An HTTP client as small as can be, so that the exporter is measured and not its client.
#[derive(Clone, Debug)]
struct Post {
    stream: Arc<Mutex<TcpStream>>,
    bodies: Bodies,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (path, body) = (request.uri().path(), request.body());
        let body = match self.bodies {
            Bodies::AsTheyAre => body.clone(),
            Bodies::Compressed => zstd::bulk::compress(body, ZSTD_LEVEL)?.into(),
        };
        let mut stream = self.stream.lock().expect("no code panics while it holds the connection");
        write!(stream, "POST {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(&body)?;
        let mut answer = BufReader::new(&*stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            answer.read_line(&mut line)?;
        }
        Ok(Response::new(Bytes::new()))
    }
}
