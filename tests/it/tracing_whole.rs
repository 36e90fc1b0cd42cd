//! The binary between a caller and an application: which spans leave it, and which context goes on.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::proxy_world::{Application, Client};
use crate::rig::{PATIENCE, Sidecar, echo_application};
use crate::telemetry_receiver::{Codings, Receiver, eventually};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// Of the ids that any ratio above zero keeps.
const MADE_TO_BE_KEPT: &str = "4bf92f3577b34da6a3ffffffffffffff";
const TRUSTING: (&str, &str) = ("SIDECAR_PROXY__TRUSTED_PROXIES", "127.0.0.0/8");

/// A sidecar, what it exports to, and how many requests it was asked.
struct World {
    sidecar: Sidecar,
    receiver: Receiver,
    asked: u64,
}

impl World {
    async fn in_front_of(application: SocketAddr, environment: &[(&str, &str)]) -> Self {
        let receiver = Receiver::grpc(Codings::All, Default::default()).await;
        let endpoint = format!("http://{}", receiver.address);
        let environment = [&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())], environment].concat();
        Self { sidecar: Sidecar::start(application, &[], &environment).await, receiver, asked: 0 }
    }

    /// One GET with these fields; the head that the application saw.
    async fn seen(&mut self, path: &str, fields: &str) -> String {
        self.asked += 1;
        let mut stream = TcpStream::connect(self.sidecar.proxy).await.expect("the proxy listens");
        let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(head.as_bytes()).await.expect("the proxy reads");
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer in time").expect("text");
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).expect("an answer")
    }

    /// One GET with these fields, for its status.
    async fn status(&mut self, path: &str, fields: &str) -> u16 {
        self.asked += 1;
        let mut client = Client::connect(self.sidecar.proxy).await.expect("the proxy listens");
        let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n");
        client.send(head.as_bytes()).await.expect("the proxy reads");
        let head = client.head().await.unwrap_or_default();
        client.closed_by_fin().await;
        head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    /// Ends the sidecar; the spans of requests, once all are there. Each request must have been counted once.
    async fn spans(mut self) -> Vec<Span> {
        let counts =
            ["http_server_request_duration_seconds_count", "content_factory_http_server_probe_duration_seconds_count"];
        let counted = |page: &str| {
            let lines = page.lines().filter(|line| counts.iter().any(|name| line.starts_with(name)));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
        };
        self.sidecar.eventually("/metrics", |_, page| counted(page) >= self.asked).await;
        assert_eq!(counted(&self.sidecar.metrics().await), self.asked, "metrics are of all requests, sampled or not");
        self.sidecar.signal("TERM").await;
        assert_eq!(self.sidecar.ended().await, Some(0));
        let is_request = |span: &Span| [SERVER, CLIENT].contains(&span.kind);
        self.receiver.with(|seen| seen.spans.iter().filter(|span| is_request(span)).cloned().collect())
    }
}

/// The values of a field in a head.
fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

/// The ids and flags of the one `traceparent`.
fn traceparent(head: &str) -> [String; 3] {
    let [value] = values(head, "traceparent")[..] else { panic!("one traceparent, not {head}") };
    let parts: Vec<_> = value.split('-').skip(1).map(str::to_owned).collect();
    parts.try_into().expect("three parts")
}

fn caller(trace: &str, flags: &str) -> String {
    format!("traceparent: 00-{trace}-{PARENT}-{flags}\r\ntracestate: vendor=value,other=1\r\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_kind(spans: &[Span], kind: i32) -> Vec<&Span> {
    spans.iter().filter(|span| span.kind == kind).collect()
}

/// Why the requests were kept, with their number.
fn reasons(spans: &[Span]) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for span in of_kind(spans, SERVER) {
        let reason = span.attributes.iter().find(|pair| pair.key == "content_factory.sampling.reason");
        let reason = reason.and_then(|pair| match pair.value.clone()?.value? {
            Value::StringValue(text) => Some(text),
            _ => None,
        });
        *reasons.entry(reason.unwrap_or_else(|| "-".to_owned())).or_default() += 1;
    }
    reasons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_makes_two_spans_and_the_application_goes_on_from_the_client_span() {
    let mut world = World::in_front_of(echo_application().await, &[]).await;
    let seen = world.seen("/", &caller(TRACE, "01")).await;
    let spans = world.spans().await;
    let ([server], [client]) = (&of_kind(&spans, SERVER)[..], &of_kind(&spans, CLIENT)[..]) else {
        panic!("{spans:?}");
    };
    assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!((&client.trace_id, &client.parent_span_id), (&server.trace_id, &server.span_id));
    assert_eq!(traceparent(&seen), [TRACE.to_owned(), hex(&client.span_id), "01".to_owned()]);
    assert_eq!(values(&seen, "tracestate"), ["vendor=value,other=1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_only_makes_one_span_and_the_application_goes_on_from_it() {
    let mut world = World::in_front_of(echo_application().await, &[("SIDECAR_TELEMETRY__SPANS", "server-only")]).await;
    let seen = world.seen("/", &caller(TRACE, "01")).await;
    let anew = world.seen("/", "").await;
    let spans = world.spans().await;
    let [continued, new] = &of_kind(&spans, SERVER)[..] else { panic!("{spans:?}") };
    assert_eq!(spans.len(), 2, "no CLIENT span");
    assert_eq!(hex(&continued.parent_span_id), PARENT);
    assert_eq!(traceparent(&seen), [TRACE.to_owned(), hex(&continued.span_id), "01".to_owned()]);
    assert_eq!(values(&seen, "tracestate"), ["vendor=value,other=1"]);
    assert_eq!(traceparent(&anew), [hex(&new.trace_id), hex(&new.span_id), "01".to_owned()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn propagate_only_makes_no_span_and_touches_no_context() {
    let environment = [("SIDECAR_TELEMETRY__SPANS", "propagate-only")];
    let mut world = World::in_front_of(echo_application().await, &environment).await;
    for (parent, state) in [
        (format!("00-{TRACE}-{PARENT}-00"), "vendor=value , other=1"),
        (format!("00-{TRACE}-{PARENT}-01"), "v=1"),
        // not ours to judge: the application's own SDK reads it
        ("cc-of-another-version".to_owned(), "A=B"),
    ] {
        let fields = format!("traceparent: {parent}\r\ntracestate: {state}\r\nx-datadog-trace-id: 42\r\n");
        let seen = world.seen("/", &fields).await;
        assert_eq!(values(&seen, "traceparent"), [parent]);
        assert_eq!(values(&seen, "tracestate"), [state]);
        assert_eq!(values(&seen, "x-datadog-trace-id"), ["42"]);
    }
    let anew = world.seen("/", "").await;
    assert!(values(&anew, "traceparent").is_empty(), "a trace begins at the application: {anew}");
    assert_eq!(world.spans().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fields_of_vendors_pass_in_every_span_model() {
    let ours = "x-datadog-trace-id: 11803532876627986230\r\nx-datadog-parent-id: 67667974448284343\r\n\
                x-datadog-sampling-priority: 1\r\nx-datadog-tags: _dd.p.tid=4bf92f3577b34da6\r\nx-datadog-origin: rum\r\n\
                sentry-trace: 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1\r\nnewrelic: eyJ2IjpbMCwxXX0=\r\n\
                baggage: sentry-release=1,user=2\r\n";
    for model in ["full", "server-only", "propagate-only"] {
        let environment = [("SIDECAR_TELEMETRY__SPANS", model)];
        let mut world = World::in_front_of(echo_application().await, &environment).await;
        let seen = world.seen("/", &format!("{ours}{}", caller(TRACE, "01"))).await;
        for line in ours.lines() {
            let (name, value) = line.split_once(": ").expect("a field");
            assert_eq!(values(&seen, name), [value], "{model}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentrys_sdk_is_told_of_the_trace_in_its_own_words_when_that_is_asked_for() {
    let application = echo_application().await;
    for (environment, expected) in [(&[][..], 0), (&[("SIDECAR_TELEMETRY__SENTRY_TRACE", "true")][..], 1)] {
        let mut world = World::in_front_of(application, environment).await;
        let seen = world.seen("/", &caller(TRACE, "01")).await;
        let told = values(&seen, "sentry-trace");
        assert_eq!(told.len(), expected);
        let [trace, parent, _] = traceparent(&seen);
        assert!(told.iter().all(|told| *told == format!("{trace}-{parent}")), "no flag: {told:?}");
        let own = format!("{MADE_TO_BE_KEPT}-{PARENT}-0");
        let seen = world.seen("/", &format!("Sentry-Trace: {own}\r\n{}", caller(TRACE, "01"))).await;
        assert_eq!(values(&seen, "sentry-trace"), [own], "a caller's own goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_make_no_spans_in_any_span_model_and_their_context_is_the_callers() {
    for model in ["full", "server-only", "propagate-only"] {
        let environment = [("SIDECAR_TELEMETRY__SPANS", model)];
        let mut world = World::in_front_of(echo_application().await, &environment).await;
        for path in ["/livez", "/readyz", "/healthz"] {
            let seen = world.seen(path, &caller(TRACE, "01")).await;
            assert_eq!(values(&seen, "traceparent"), [format!("00-{TRACE}-{PARENT}-01")], "{model} {path}");
        }
        assert_eq!(world.spans().await, [], "{model}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flag_of_a_stranger_forces_nothing() {
    let environment = [("SIDECAR_TELEMETRY__SAMPLING__RATIO", "0")];
    let mut world = World::in_front_of(echo_application().await, &environment).await;
    for _ in 0..20 {
        let seen = world.seen("/", &caller(TRACE, "01")).await;
        let [trace, parent, flags] = traceparent(&seen);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"), "the application is told what the head decided");
        assert_ne!(parent, PARENT);
    }
    assert_eq!(world.spans().await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flag_of_a_stranger_prevents_nothing() {
    let mut world = World::in_front_of(echo_application().await, &[]).await;
    let seen = world.seen("/", &caller(TRACE, "00")).await;
    assert_eq!(traceparent(&seen)[2], "01");
    assert_eq!(reasons(&world.spans().await), [("-".to_owned(), 1)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flag_of_a_trusted_caller_decides_either_way() {
    for (ratio, flags, expected) in [("0", "01", 1), ("1", "00", 0)] {
        let environment = [TRUSTING, ("SIDECAR_TELEMETRY__SAMPLING__RATIO", ratio)];
        let mut world = World::in_front_of(echo_application().await, &environment).await;
        let seen = world.seen("/", &caller(TRACE, flags)).await;
        assert_eq!(traceparent(&seen)[2], flags);
        assert_eq!(of_kind(&world.spans().await, SERVER).len(), expected, "ratio {ratio}, flags {flags}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sampler_that_is_not_parent_based_does_not_ask_a_trusted_caller() {
    let sampler = [TRUSTING, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let mut world = World::in_front_of(echo_application().await, &sampler).await;
    assert_eq!(traceparent(&world.seen("/", &caller(TRACE, "01")).await)[2], "00");
    assert_eq!(world.spans().await, []);
    let sampler = [TRUSTING, ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
    let mut world = World::in_front_of(echo_application().await, &sampler).await;
    assert_eq!(traceparent(&world.seen("/", &caller(TRACE, "01")).await)[2], "01");
    assert_eq!(reasons(&world.spans().await), [("head".to_owned(), 1)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_id_that_is_made_to_be_kept_forces_no_more_than_the_ratio() {
    let environment = [("SIDECAR_TELEMETRY__SAMPLING__RATIO", "0.1")];
    let mut world = World::in_front_of(echo_application().await, &environment).await;
    for _ in 0..400 {
        world.seen("/", &caller(MADE_TO_BE_KEPT, "01")).await;
    }
    let kept = of_kind(&world.spans().await, SERVER).len();
    // 64 that may come at once, then a tenth and an eighth of that
    assert!((64 + 40..=64 + 45).contains(&kept), "{kept} of 400");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_kept_and_the_application_was_told_that_the_head_left_them_out() {
    let application = Application::start().await;
    let environment = [("SIDECAR_TELEMETRY__SAMPLING__RATIO", "0"), ("SIDECAR_PROXY__TIMEOUTS__FIRST_BYTE", "200ms")];
    let mut world = World::in_front_of(application.address, &environment).await;
    assert_eq!(world.status("/error", &caller(TRACE, "01")).await, 500);
    assert_eq!(world.status("/never", "").await, 504);
    assert_eq!(world.status("/garbage", "").await, 502);
    assert_eq!(world.status("/vanish", "").await, 502);
    assert_eq!(world.status("/cut", "").await, 200);
    for path in ["/", "/missing"] {
        world.status(path, "").await;
    }
    let spans = world.spans().await;
    assert_eq!(reasons(&spans), [("error".to_owned(), 5)].into());
    assert!(spans.iter().all(|span| span.flags & 1 == 0), "{spans:?}");
    assert_eq!(of_kind(&spans, CLIENT).len(), 5, "the exchange with the application is there as well");
    assert_eq!(hex(&of_kind(&spans, SERVER)[0].trace_id), TRACE, "with the caller's ids");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_request_among_quick_ones_is_kept() {
    let application = Application::start().await;
    let environment = [("SIDECAR_TELEMETRY__SAMPLING__RATIO", "0")];
    let mut world = World::in_front_of(application.address, &environment).await;
    let mut client = Client::connect(world.sidecar.proxy).await.expect("the proxy listens");
    for _ in 0..1_000 {
        client.get("/quick").await.expect("the proxy reads");
        assert_eq!(client.answer().await, Some((200, true)));
    }
    world.asked += 1_000;
    let took = |span: &Span| span.end_time_unix_nano - span.start_time_unix_nano;
    let is_late = |span: &Span| span.kind == SERVER && took(span) >= 700_000_000;
    let has_late = |receiver: &Receiver| receiver.with(|seen| seen.spans.iter().any(is_late));
    // it is judged anew about each second; ten of these would be a hundredth of all, and no longer slow
    for _ in 0..9 {
        if !has_late(&world.receiver) {
            assert_eq!(world.status("/late", "").await, 200);
        }
    }
    let spans = world.spans().await;
    assert!(spans.iter().any(is_late), "{spans:?}");
    assert_eq!(reasons(&spans).keys().collect::<Vec<_>>(), ["slow"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn always_off_is_never_also_for_failures() {
    let application = Application::start().await;
    for sampler in ["always_off", "parentbased_always_off"] {
        let mut world = World::in_front_of(application.address, &[("OTEL_TRACES_SAMPLER", sampler)]).await;
        assert_eq!(world.status("/error", &caller(TRACE, "01")).await, 500);
        assert_eq!(world.spans().await, [], "{sampler}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_label_of_a_metric_is_of_the_clients_choice() {
    const CANARY: &str = "canary";
    let application = Application::start().await;
    let interval = ("SIDECAR_TELEMETRY__METRICS__INTERVAL", "200ms");
    for trust in [None, Some(TRUSTING)] {
        let environment: Vec<_> = [interval].into_iter().chain(trust).collect();
        let receiver = Receiver::grpc(Codings::All, Default::default()).await;
        let endpoint = format!("http://{}", receiver.address);
        let environment = [&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())], &environment[..]].concat();
        let mut sidecar = Sidecar::start(application.address, &[], &environment).await;
        let series = |page: &str| {
            page.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count")).count()
        };
        let mut found = Vec::new();
        for round in 0..20 {
            let c = format!("{CANARY}{round}");
            let head = format!(
                "{c} /{c}/x?{c}={c} HTTP/1.1\r\nHost: {c}.example\r\nUser-Agent: {c}\r\nContent-Type: {c}/x\r\n\
                 X-Forwarded-For: 203.0.113.{round}\r\nX-Forwarded-Host: {c}\r\nX-Forwarded-Proto: {c}\r\n\
                 X-Forwarded-Port: {c}\r\nForwarded: for={c};host={c};proto={c}\r\nX-Real-IP: {c}\r\nVia: 1.1 {c}\r\n\
                 Referer: http://{c}/\r\nOrigin: http://{c}\r\nAuthorization: {c}\r\nCookie: {c}={c}\r\n\
                 tracestate: {c}={c}\r\nbaggage: {c}={c}\r\nX-Request-Id: {c}\r\nConnection: close\r\n\r\n"
            );
            let mut client = Client::connect(sidecar.proxy).await.expect("the proxy listens");
            client.send(head.as_bytes()).await.expect("the proxy reads");
            client.closed_by_fin().await;
            found.push(series(&sidecar.metrics().await));
        }
        assert_eq!(found, [1; 20], "what clients choose makes no new series");
        let wanted = |seen: &mut crate::telemetry_receiver::Seen| {
            seen.metrics.iter().any(|metric| metric.name == "http.server.request.duration")
        };
        eventually("metrics", PATIENCE, || receiver.with(wanted)).await;
        let page = sidecar.metrics().await;
        sidecar.signal("TERM").await;
        assert_eq!(sidecar.ended().await, Some(0));
        let exported = receiver.with(|seen| format!("{:?}", seen.metrics));
        for (outlet, text) in [("/metrics", page), ("OTLP", exported)] {
            assert!(text.contains("_OTHER"), "{outlet}: the requests are there");
            for trace in [CANARY, "203.0.113"] {
                assert!(!text.contains(trace), "{outlet} has {trace}: {text}");
            }
        }
    }
}
