//! The settings below `telemetry`: where telemetry goes, how much of it, and what is kept while nobody takes it.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use crate::model::catalogue::{Metric, MetricKind};
use crate::model::telemetry::Signal;
use crate::model::trace::{ParentFlag, Sampling, SpanModel};
use crate::redact::Secret;
use crate::settings::{Described, Section};
use crate::telemetry::headers::{self, Headers};
use crate::telemetry::intake::config::IntakeConfig;
use crate::telemetry::limits::Limits;
use crate::telemetry::privacy::PrivacyConfig;
use crate::telemetry::receipts::config::ReceiptsConfig;
use crate::telemetry::resolver::Resolver;
use crate::telemetry::sender::http_path;
use crate::telemetry::tls::TlsConfig;

/// The settings of this room, as used.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether anything is exported at all.
    pub enabled: bool,
    /// Where each signal goes, by `Signal`; `None` when the signal is switched off.
    pub destinations: [Option<DestinationConfig>; Signal::ALL.len()],
    /// How receivers are connected to.
    pub connection: ConnectionConfig,
    /// How their names become addresses.
    pub resolver: Resolver,
    /// The head decision for requests.
    pub sampling: Sampling,
    /// What is kept although the head left it out.
    pub tail: TailConfig,
    /// Which spans the proxy makes.
    pub spans: SpanModel,
    /// Whether the application is sent `sentry-trace` beside `traceparent`.
    pub sentry_trace: bool,
    /// How much of people leaves.
    pub privacy: PrivacyConfig,
    /// How large the parts of a span may be.
    pub limits: Limits,
    /// How metrics are exported.
    pub metrics: MetricsConfig,
    /// What may wait in memory, in bytes, by `Signal`.
    pub queue_bytes: [usize; Signal::ALL.len()],
    /// What may wait on disk.
    pub spool: SpoolConfig,
    /// The largest request before compression, in bytes.
    pub request_bytes: usize,
    /// How long the last deliveries may take once the process stops.
    pub shutdown: Duration,
    /// Where the collector tells what vendors accepted; `None` when it is not asked.
    pub receipts: Option<ReceiptsConfig>,
    /// The way in for the application's own telemetry; `None` when it is switched off.
    pub intake: Option<IntakeConfig>,
    /// What was understood from the settings and is worth saying in the log.
    pub remarks: Vec<String>,
}

/// How receivers are connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// How old a connection gets, a tenth more or less.
    pub age: Duration,
    /// How long the addresses of a name hold.
    pub lookup: Duration,
    /// The silence after which HTTP/2 asks whether the receiver is still there; `None` when it never does.
    pub ping: Option<Duration>,
}

/// What may wait on disk while it cannot be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Whether the disk is used at all.
    pub enabled: bool,
    /// Of all signals, compressed.
    pub bytes: u64,
    /// What is older is dropped.
    pub age: Duration,
}

/// Which requests are kept for how they ended, of those that the head left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailConfig {
    /// Whether failures are kept.
    pub errors: bool,
    /// Whether requests are kept that are slow for their route.
    pub slow: bool,
    /// How many in a second, of all workers together.
    pub per_second: u32,
}

/// How metrics are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Between two exports.
    pub interval: Duration,
    /// The form of histograms.
    pub histograms: HistogramForm,
    /// Which values are differences.
    pub temporality: TemporalityPreference,
}

/// The form in which histograms are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistogramForm {
    /// Base 2, scale 3: quantiles within 4.4 %.
    Exponential,
    /// With the bounds of the conventions.
    Explicit,
}

/// What the values of counters and histograms are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temporality {
    /// To the last export: Datadog demands it, New Relic prefers it.
    Delta,
    /// To the start of the process.
    Cumulative,
}

/// Which metrics have which temporality; what rises and falls is always cumulative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemporalityPreference {
    /// Counters and histograms are differences.
    Delta,
    /// All is cumulative.
    Cumulative,
    /// Differences, but for counters of somebody else that are read from time to time (CPU, network): a difference of
    /// those would have to be remembered.
    LowMemory,
}

/// OTLP's transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// gRPC, usually port 4317.
    Grpc,
    /// HTTP with protobuf bodies, usually port 4318.
    HttpProtobuf,
    /// HTTP with Sentry's envelopes; set by its address alone.
    Envelopes,
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// zstd: the cheapest for both sides.
    Zstd,
    /// gzip: what every receiver knows.
    Gzip,
    /// Not at all.
    None,
}

/// One receiver.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationConfig {
    /// The endpoint as written.
    pub endpoint: Url,
    /// The URL of each signal over HTTP.
    urls: [Url; Signal::ALL.len()],
    /// The transport.
    pub transport: Transport,
    /// Sent with each request; they usually hold an API key.
    pub headers: Secret<Headers>,
    /// Where they are read from again.
    pub headers_file: Option<PathBuf>,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// What is tried first.
    pub compression: Compression,
    /// For `https`.
    pub tls: TlsConfig,
}

const ENDPOINT: &str = "http://127.0.0.1:4317";
const ENDPOINT_EXPECTED: &str = "a URL with http:// or https://, such as http://127.0.0.1:4317, without user and password (keys belong into headers)";

impl Config {
    /// Reads the section `telemetry`.
    pub fn read(section: &mut Section<'_>) -> Self {
        let enabled = section.flag("enabled", true, "whether telemetry is exported; metrics at the admin port stay");
        let mut remarks = Vec::new();
        let generic = DestinationConfig::read(section, None, &mut remarks);
        let mut destinations: [Option<DestinationConfig>; Signal::ALL.len()] = Default::default();
        for signal in Signal::OTLP {
            let mut section = section.section(signal.label());
            let is_on = section.flag("enabled", true, "whether this signal is exported");
            let own = DestinationConfig::read(&mut section, Some(&generic), &mut remarks);
            destinations[signal as usize] = (enabled && is_on).then_some(own);
        }
        remarks.extend(tls_without_effect(&destinations));
        let queue_bytes = read_queues(&mut section.section("queue"));
        let spool = SpoolConfig::read(&mut section.section("spool"));
        let connection = ConnectionConfig::read(&mut section.section("connection"));
        let request_bytes = section.bytes(
            "max_request",
            1 << 20,
            "largest request before compression; receivers default to 4 MiB over gRPC",
        );
        let shutdown = section.duration(
            "shutdown",
            Duration::from_secs(3),
            "how long the last deliveries may take at the end: with what else ends, the process is gone within 5s",
        );
        let (sampling, tail) = read_sampling(&mut section.section("sampling"));
        let spans = read_spans(section);
        let about = "whether the application is also sent sentry-trace, where the caller sent none: sentry-sdk reads no traceparent";
        let sentry_trace = section.flag("sentry_trace", false, about);
        let privacy = PrivacyConfig::read(&mut section.section("privacy"));
        let limits = Limits::read(&mut section.section("limits"));
        let metrics = MetricsConfig::read(&mut section.section("metrics"));
        let receipts = ReceiptsConfig::read(&mut section.section("receipts"));
        let intake = read_intake(section, &destinations).filter(|_| enabled);
        let request_bytes = usize::try_from(request_bytes).unwrap_or(usize::MAX).max(4 << 10);
        Self {
            enabled,
            destinations,
            connection,
            resolver: Resolver::default(),
            sampling,
            tail,
            spans,
            sentry_trace,
            privacy,
            limits,
            metrics,
            queue_bytes,
            spool,
            request_bytes,
            shutdown,
            receipts,
            intake,
            remarks,
        }
    }
}

fn read_queues(queue: &mut Section<'_>) -> [usize; Signal::ALL.len()] {
    [
        queue.bytes("traces", 8 << 20, "spans that wait in memory: some 20,000, or seconds at full speed"),
        queue.bytes("metrics", 2 << 20, "metrics that wait in memory: about half an hour of them"),
        queue.bytes("logs", 6 << 20, "log records that wait in memory"),
        queue.bytes("envelopes", 1 << 20, "issues for Sentry that wait in memory: some 500"),
    ]
    .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

impl SpoolConfig {
    fn read(section: &mut Section<'_>) -> Self {
        let about =
            "whether telemetry that cannot be delivered waits on disk (spool.db in data_dir), also over restarts";
        let enabled = section.flag("enabled", true, about);
        let about = "what may wait on disk, compressed: 60% for spans, 30% for logs, 8% for metrics, 2% for issues; the oldest goes first, errors last";
        let bytes = section.bytes("bytes", 256 << 20, about);
        let age = section.duration("age", Duration::from_secs(24 * 3600), "what has waited longer is dropped");
        Self { enabled, bytes, age }
    }
}

impl ConnectionConfig {
    fn read(section: &mut Section<'_>) -> Self {
        let about =
            "age at which a connection to the receiver is replaced, ±10%, so that traffic moves to new replicas of it";
        let age = section.duration("age", Duration::from_secs(300), about);
        let about =
            "how long the addresses of the receiver's name hold; they are looked up at once when a connection is lost";
        let lookup = section.duration("lookup", Duration::from_secs(30), about);
        let about = "HTTP/2 PING after so much silence, to notice a receiver that vanished; 0 for none, as stock Go servers hang up on it";
        let ping = section.duration("ping", Duration::ZERO, about);
        let age = age.max(Duration::from_millis(100)); // less would only make connections
        Self { age, lookup, ping: Some(ping).filter(|ping| !ping.is_zero()) }
    }
}

fn read_intake(section: &mut Section<'_>, destinations: &[Option<DestinationConfig>]) -> Option<IntakeConfig> {
    let mut section = section.section("intake");
    let intake = IntakeConfig::read(&mut section)?;
    intake.refuse_a_circle(&mut section, destinations.iter().flatten().map(|destination| &destination.endpoint));
    Some(intake)
}

fn read_sampling(section: &mut Section<'_>) -> (Sampling, TailConfig) {
    let ratio = section.ratio(
        "ratio",
        1.0,
        "share of traces to keep; below 1 rather sample in the collector, which sees whole traces",
    );
    let flags = [("follow", ParentFlag::Followed), ("ignore", ParentFlag::Ignored)];
    let about = "whether the sampled flag of a trusted caller decides (parent-based) or only the ratio";
    let sampling = Sampling::ratio(ratio, section.choice("parent", ParentFlag::Followed, &flags, about));
    let about = "whether failed requests are kept that the ratio left out: 500 and above, timeouts, resets";
    let errors = section.flag("keep_errors", true, about);
    let about =
        "whether requests are kept that the ratio left out and that took longer than the recent p99 of their route";
    let slow = section.flag("keep_slow", true, about);
    let about = "how many requests a second these two may keep; what is over is counted, and in every metric";
    let per_second = section.number("keep_per_second", 100, 1..=100_000, about);
    (sampling, TailConfig { errors, slow, per_second: u32::try_from(per_second).unwrap_or(u32::MAX) })
}

fn read_spans(section: &mut Section<'_>) -> SpanModel {
    let spans = [
        ("full", SpanModel::Full),
        ("server-only", SpanModel::ServerOnly),
        ("propagate-only", SpanModel::PropagateOnly),
    ];
    section.choice(
        "spans",
        SpanModel::Full,
        &spans,
        "spans of a request: full (SERVER and CLIENT), server-only, or propagate-only for an application with an SDK",
    )
}

impl MetricsConfig {
    /// Reads what is below `telemetry.metrics` beside the destination.
    fn read(section: &mut Section<'_>) -> Self {
        let about = "between two exports of metrics; of several within a second Datadog keeps one";
        let interval = section.duration("interval", Duration::from_secs(15), about);
        let forms = [("exponential", HistogramForm::Exponential), ("explicit", HistogramForm::Explicit)];
        let about = "form of exported histograms; exponential ones give exact quantiles without chosen bounds";
        let histograms = section.choice("histograms", HistogramForm::Exponential, &forms, about);
        let words = [
            ("delta", TemporalityPreference::Delta),
            ("cumulative", TemporalityPreference::Cumulative),
            ("lowmemory", TemporalityPreference::LowMemory),
        ];
        let about = "temporality of counters and histograms; Datadog demands delta. `lowmemory` is delta, but cumulative for \
                     what is read elsewhere, as CPU time";
        let temporality = section.choice("temporality", TemporalityPreference::Delta, &words, about);
        Self { interval: interval.max(Duration::from_millis(100)), histograms, temporality }
    }

    /// What the values of a metric are relative to.
    #[must_use]
    pub fn temporality_of(&self, metric: &Metric) -> Temporality {
        match (metric.kind, self.temporality) {
            (MetricKind::UpDownCounter | MetricKind::Gauge, _) | (_, TemporalityPreference::Cumulative) => {
                Temporality::Cumulative
            }
            (MetricKind::Counter, TemporalityPreference::LowMemory) if metric.is_sampled() => Temporality::Cumulative,
            (MetricKind::Counter | MetricKind::Histogram(_), _) => Temporality::Delta,
        }
    }
}

impl DestinationConfig {
    /// Reads the generic settings, or those of one signal, which default to the generic ones.
    fn read(section: &mut Section<'_>, generic: Option<&Self>, remarks: &mut Vec<String>) -> Self {
        let about = "OTLP receiver; below a signal: the exact URL, below telemetry: /v1/<signal> is added over HTTP";
        let default_text = if generic.is_some() { String::new() } else { ENDPOINT.to_owned() };
        let key = Described { name: "endpoint", default: None, default_text, about };
        let written = section.parsed(key, ENDPOINT_EXPECTED, |text| parse_endpoint(text).map(Some));
        let inherited = |url: &Url| generic.map_or_else(|| url.clone(), |generic| generic.endpoint.clone());
        let endpoint = written.clone().unwrap_or_else(|| inherited(&default_endpoint()));
        let urls = match (&written, generic) {
            (Some(own), Some(_)) => Signal::ALL.map(|_| own.clone()),
            (None, Some(generic)) => generic.urls.clone(),
            (_, None) => Signal::ALL.map(|signal| below(&endpoint, http_path(signal))),
        };
        let transport = read_transport(section, written.as_ref(), generic, remarks);
        let timeout = generic.map_or(Duration::from_secs(10), |generic| generic.timeout);
        let timeout = section.duration("timeout", timeout, "how long an attempt may take");
        let words = [("zstd", Compression::Zstd), ("gzip", Compression::Gzip), ("none", Compression::None)];
        let default = generic.map_or(Compression::Zstd, |generic| generic.compression);
        let about = "compression; a receiver that does not know it gets gzip, then none";
        let compression = section.choice("compression", default, &words, about);
        let (headers, headers_file) = read_headers(section, generic);
        let tls = TlsConfig::read(&mut section.section("tls"), generic.map(|generic| &generic.tls));
        Self { endpoint, urls, transport, headers, headers_file, timeout, compression, tls }
    }

    /// Sentry: envelopes as they are, which its limits count before compression.
    #[must_use]
    pub fn envelopes(url: Url, header: (HeaderName, HeaderValue)) -> Self {
        Self {
            endpoint: url.clone(),
            urls: Signal::ALL.map(|_| url.clone()),
            transport: Transport::Envelopes,
            headers: Secret::new(vec![header]),
            headers_file: None,
            timeout: Duration::from_secs(10),
            compression: Compression::None,
            tls: TlsConfig::default(),
        }
    }

    /// Where a signal goes over HTTP.
    #[must_use]
    pub fn url(&self, signal: Signal) -> &Url {
        &self.urls[signal as usize]
    }

    /// The endpoint's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.endpoint.port_or_known_default().unwrap_or_default()
    }

    /// The endpoint's host as a resolver takes it: an address of version 6 without its brackets.
    #[must_use]
    pub fn host(&self) -> String {
        self.endpoint.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned()
    }

    /// Scheme, host and port, for people.
    #[must_use]
    pub fn address(&self) -> String {
        let host = self.endpoint.host_str().unwrap_or_default();
        format!("{}://{host}:{}", self.endpoint.scheme(), self.port())
    }
}

fn read_transport(
    section: &mut Section<'_>,
    endpoint: Option<&Url>,
    generic: Option<&DestinationConfig>,
    remarks: &mut Vec<String>,
) -> Transport {
    let default_text = if generic.is_some() { String::new() } else { "grpc".to_owned() };
    let about = "grpc or http/protobuf; port 4318 without a protocol means http/protobuf";
    let parse = |text: &str| match text {
        "grpc" => Some(Some(Transport::Grpc)),
        "http/protobuf" => Some(Some(Transport::HttpProtobuf)),
        _ => None,
    };
    let key = Described { name: "protocol", default: None, default_text, about };
    let written = section.parsed(key, "one of grpc, http/protobuf", parse);
    match (written, endpoint) {
        (Some(transport), _) => transport,
        (None, Some(url)) if url.port() == Some(4318) => {
            remarks.push(format!(
                "OTLP over HTTP to port 4318 of {}, as no protocol is set",
                url.host_str().unwrap_or_default()
            ));
            Transport::HttpProtobuf
        }
        (None, _) => generic.map_or(Transport::Grpc, |generic| generic.transport),
    }
}

/// The headers, and the file that they come from.
fn read_headers(section: &mut Section<'_>, generic: Option<&DestinationConfig>) -> (Secret<Headers>, Option<PathBuf>) {
    let about = "headers of each request, such as api-key=…: key=value,key=value, percent-encoded; a file is read again when it changes";
    let Some(text) = section.secret("headers", about) else {
        return generic.map(|generic| (generic.headers.clone(), generic.headers_file.clone())).unwrap_or_default();
    };
    let headers = headers::parse(text.expose()).unwrap_or_else(|expected| {
        section.problem("headers", "***", expected);
        Vec::new()
    });
    for value in headers.iter().filter_map(|(_, value)| value.to_str().ok()) {
        section.remember_secret(value);
    }
    (Secret::new(headers), section.secret_file("headers"))
}

/// Said once: the scheme of the endpoint decides about TLS, not its settings.
fn tls_without_effect(destinations: &[Option<DestinationConfig>]) -> Option<String> {
    let mut destinations = destinations.iter().flatten();
    let plain = destinations.find(|to| to.tls.is_set() && to.endpoint.scheme() == "http")?;
    Some(format!("the settings of TLS have no effect on {}: expected https:// there", plain.address()))
}

fn parse_endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.host().is_some();
    (matches!(url.scheme(), "http" | "https") && is_plain).then_some(url)
}

fn default_endpoint() -> Url {
    parse_endpoint(ENDPOINT).expect("the default endpoint is a URL")
}

fn below(endpoint: &Url, path: &str) -> Url {
    let mut url = endpoint.clone();
    url.set_path(&format!("{}/{path}", endpoint.path().trim_end_matches('/')));
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Problem;
    use crate::settings::{Place, Settings, Tree};
    use serde_json::{Value, json};

    fn read(telemetry: Value) -> (Config, Vec<Problem>, Vec<String>) {
        let mut tree = Tree::default();
        tree.merge(json!({"telemetry": telemetry}), &Place("sidecar.yaml".into()));
        let mut settings = Settings::new(tree, |_: &str| Ok("PEM".to_owned()));
        let config = Config::read(&mut settings.section("telemetry"));
        let (_, problems, secrets) = settings.finish();
        (config, problems, secrets)
    }

    fn destination(config: &Config, signal: Signal) -> &DestinationConfig {
        config.destinations[signal as usize].as_ref().unwrap()
    }

    #[test]
    fn without_settings_telemetry_goes_to_the_local_collector() {
        let (config, problems, _) = read(json!({"enabled": true}));
        assert_eq!(problems, []);
        let traces = destination(&config, Signal::Traces);
        assert_eq!((traces.address().as_str(), traces.transport), ("http://127.0.0.1:4317", Transport::Grpc));
        assert_eq!((traces.compression, traces.timeout), (Compression::Zstd, Duration::from_secs(10)));
        assert_eq!(traces, destination(&config, Signal::Logs));
        assert_eq!(config.queue_bytes, [8 << 20, 2 << 20, 6 << 20, 1 << 20]);
    }

    #[test]
    fn port_4318_means_http_unless_a_protocol_is_set() {
        let (config, ..) = read(json!({"endpoint": "http://c:4318"}));
        assert_eq!(destination(&config, Signal::Metrics).transport, Transport::HttpProtobuf);
        assert_eq!(destination(&config, Signal::Metrics).url(Signal::Metrics).as_str(), "http://c:4318/v1/metrics");
        assert_eq!(config.remarks, ["OTLP over HTTP to port 4318 of c, as no protocol is set"]);
        let (config, ..) = read(json!({"endpoint": "http://c:4318", "protocol": "grpc"}));
        assert_eq!(destination(&config, Signal::Metrics).transport, Transport::Grpc);
    }

    #[test]
    fn a_signal_has_its_own_receiver_and_its_exact_url() {
        let (config, problems, secrets) = read(json!({
            "headers": "api-key=generic-1", "timeout": "3s",
            "metrics": {"endpoint": "https://m/api/v2/otlpmetrics", "protocol": "http/protobuf", "headers": "dd-api-key=metric%201"},
            "logs": {"enabled": false},
        }));
        assert_eq!(problems, []);
        let metrics = destination(&config, Signal::Metrics);
        assert_eq!(metrics.url(Signal::Metrics).as_str(), "https://m/api/v2/otlpmetrics");
        assert_eq!(metrics.headers.expose()[0].0, "dd-api-key");
        assert_eq!(metrics.timeout, Duration::from_secs(3));
        assert_eq!(destination(&config, Signal::Traces).headers.expose()[0].1, "generic-1");
        assert!(config.destinations[Signal::Logs as usize].is_none());
        assert!(secrets.contains(&"metric 1".to_owned()), "the redactor knows the key itself: {secrets:?}");
        assert!(!format!("{config:?}").contains("generic-1"));
    }

    #[test]
    fn connections_are_replaced_and_never_pinged_unless_that_is_set() {
        let (config, ..) = read(json!({"enabled": true}));
        let minutes = Duration::from_secs(300);
        let expected = ConnectionConfig { age: minutes, lookup: Duration::from_secs(30), ping: None };
        assert_eq!(config.connection, expected);
        let (config, ..) = read(json!({"connection": {"ping": "10s", "age": "0"}}));
        let expected = ConnectionConfig { age: Duration::from_millis(100), ping: Some(minutes / 30), ..expected };
        assert_eq!(config.connection, expected);
    }

    #[test]
    fn mistakes_are_named() {
        for (telemetry, path) in [
            (json!({"endpoint": "collector:4317"}), "telemetry.endpoint"),
            (json!({"endpoint": "http://user:pw@collector:4317"}), "telemetry.endpoint"),
            (json!({"protocol": "http/json"}), "telemetry.protocol"),
            (json!({"headers": "no-equals-sign"}), "telemetry.headers"),
            (json!({"traces": {"headers": "sp ace=1"}}), "telemetry.traces.headers"),
            (json!({"tls": {"client_certificate_file": "x"}}), "telemetry.tls.client_key"),
            (json!({"compression": "brotli"}), "telemetry.compression"),
        ] {
            let (_, problems, _) = read(telemetry.clone());
            assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), [path], "{telemetry}");
        }
    }
}
