//! What we emit is named as OpenTelemetry's semantic conventions name it, or is in a registry of our own.
//!
//! The table is `tests/data/conventions.tsv`, made from the conventions by `make conventions`; names of PostgreSQL's are those
//! of the collector's receiver for it (`tests/data/postgresqlreceiver.tsv`), because the conventions have none yet. Our registry is the catalogue
//! of metrics and the tables of attributes beside it, from which `docs/metrics.md` is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use content_factory_sidecar::model::attributes::{Attribute, OF_LOGS, OF_SPANS};
use content_factory_sidecar::model::catalogue::{ALL, Metric, MetricKind};
use content_factory_sidecar::semconv::SCHEMA_URL;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::Metric as Exported;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::proxy_world::{Application, Client};
use crate::rig::Sidecar;
use crate::telemetry_receiver::{Codings, Receiver, eventually};

/// Of OpenTelemetry's specification, which the conventions' model does not repeat.
const OF_THE_SPECIFICATION: &[&str] = &["otel.metric.overflow"];
const OURS: &str = "content_factory.";

/// Instrument and unit of each metric, and the attributes.
struct Conventions {
    metrics: BTreeMap<&'static str, (&'static str, &'static str)>,
    attributes: BTreeSet<&'static str>,
}

impl Conventions {
    fn read() -> Self {
        let mut read = Self { metrics: BTreeMap::new(), attributes: BTreeSet::new() };
        let tables = [include_str!("../data/conventions.tsv"), include_str!("../data/postgresqlreceiver.tsv")];
        let lines = tables.iter().flat_map(|table| table.lines()).filter(|line| !line.starts_with('#'));
        for line in lines {
            match line.split('\t').collect::<Vec<_>>()[..] {
                ["metric", name, instrument, unit] => drop(read.metrics.insert(name, (instrument, unit))),
                ["attribute", name] => drop(read.attributes.insert(name)),
                _ => panic!("found {line:?}, expected an attribute or a metric"),
            }
        }
        read
    }

    fn know(&self, attribute: &str) -> bool {
        self.attributes.contains(attribute) || OF_THE_SPECIFICATION.contains(&attribute)
    }

    /// What is wrong with a metric that is not ours.
    fn complaint(&self, metric: &Metric) -> Option<String> {
        let instrument = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::UpDownCounter => "updowncounter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        };
        let found = (instrument, metric.unit);
        match self.metrics.get(metric.name) {
            Some(expected) if *expected == found => None,
            Some(expected) => Some(format!("{}: found {found:?}, expected {expected:?}", metric.name)),
            None => Some(format!("{}: not in the conventions, and not {OURS}*", metric.name)),
        }
    }
}

fn is_in(table: &[Attribute], name: &str) -> bool {
    table.iter().any(|attribute| attribute.name == name)
}

/// Whether a metric left as the instrument that the catalogue tells.
fn is_of_its_kind(metric: &Metric, exported: &Exported) -> bool {
    match (metric.kind, exported.data.as_ref().expect("a metric has data")) {
        (MetricKind::Counter, Data::Sum(sum)) => sum.is_monotonic,
        (MetricKind::UpDownCounter, Data::Sum(sum)) => !sum.is_monotonic,
        (MetricKind::Gauge, Data::Gauge(_))
        | (MetricKind::Histogram(_), Data::Histogram(_) | Data::ExponentialHistogram(_)) => true,
        _ => false,
    }
}

fn keys(pairs: &[KeyValue]) -> impl Iterator<Item = &str> {
    pairs.iter().map(|pair| pair.key.as_str())
}

/// The names of the attributes of all its points.
fn labels(metric: &Exported) -> BTreeSet<&str> {
    match metric.data.as_ref().expect("a metric has data") {
        Data::Gauge(gauge) => gauge.data_points.iter().flat_map(|point| keys(&point.attributes)).collect(),
        Data::Sum(sum) => sum.data_points.iter().flat_map(|point| keys(&point.attributes)).collect(),
        Data::Histogram(histogram) => histogram.data_points.iter().flat_map(|point| keys(&point.attributes)).collect(),
        Data::ExponentialHistogram(histogram) => {
            histogram.data_points.iter().flat_map(|point| keys(&point.attributes)).collect()
        }
        Data::Summary(_) => panic!("{}: a summary", metric.name),
    }
}

#[test]
fn the_table_names_its_licence_and_the_version_that_our_telemetry_names_as_its_schema() {
    let table = include_str!("../data/conventions.tsv");
    let header: Vec<_> = table.lines().take_while(|line| line.starts_with('#')).collect();
    let version = SCHEMA_URL.rsplit('/').next().expect("a version");
    assert!(header[0].contains(&format!("semantic conventions {version},")), "{header:?}, expected {version}");
    assert!(header.iter().any(|line| line.ends_with("Apache-2.0")), "{header:?}");
}

#[test]
fn each_metric_of_the_catalogue_is_of_the_conventions_or_ours() {
    let conventions = Conventions::read();
    let complaints: Vec<_> = ALL
        .iter()
        .filter(|metric| !metric.name.starts_with(OURS))
        .flat_map(|metric| {
            let unknown = metric.labels.iter().filter(|label| !conventions.know(label));
            let unknown = unknown.map(|label| format!("{}: {label} is no attribute of the conventions", metric.name));
            conventions.complaint(metric).into_iter().chain(unknown)
        })
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(ALL.iter().any(|metric| !metric.name.starts_with(OURS)), "nothing was compared");
}

/// Settings by which every attribute leaves that may.
const EVERYTHING: [(&str, &str); 4] = [
    ("SIDECAR_TELEMETRY__PRIVACY__ADDRESS", "full"),
    ("SIDECAR_TELEMETRY__PRIVACY__QUERY", "true"),
    ("SIDECAR_TELEMETRY__PRIVACY__USER_AGENT", "true"),
    ("CONTAINER_NAME", "web"),
];

/// Requests of every kind that makes attributes of its own: known and unknown methods, errors, streams, tunnels.
async fn ask_for_everything(sidecar: &Sidecar) {
    let requests = [
        "GET /whole?key=value",
        "BREW /coffee",
        "GET /missing",
        "GET /error",
        "GET /cut",
        "GET /garbage",
        "GET /vanish",
        "GET /events",
    ];
    for request in requests {
        let mut client = Client::connect(sidecar.proxy).await.expect("the proxy listens");
        let head = format!("{request} HTTP/1.1\r\nHost: h\r\nUser-Agent: test\r\nConnection: close\r\n\r\n");
        client.send(head.as_bytes()).await.expect("the proxy reads");
        client.closed_by_fin().await;
    }
    let mut client = Client::connect(sidecar.proxy).await.expect("the proxy listens");
    client
        .send(b"GET /socket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .expect("it reads");
    assert!(client.head().await.is_some_and(|head| head.contains(" 101 ")));
    client.send(b"nonsense").await.expect("the tunnel is open");
    drop(client);
    let mut client = Client::connect(sidecar.proxy).await.expect("the proxy listens");
    client.send(b"GET nonsense\r\n\r\n").await.expect("the proxy reads");
    client.closed_by_fin().await;
}

/// What dashboards are made from: each leaves by OTLP and stands on `/metrics`, by these names.
const INDISPENSABLE: [(&str, &str); 19] = [
    ("http.server.request.duration", "http_server_request_duration_seconds_bucket"),
    ("http.server.active_requests", "http_server_active_requests"),
    ("http.server.request.body.size", "http_server_request_body_size_bytes_bucket"),
    ("http.server.response.body.size", "http_server_response_body_size_bytes_bucket"),
    ("content_factory.http.server.stream.duration", "content_factory_http_server_stream_duration_seconds_bucket"),
    ("process.cpu.time", "process_cpu_time_seconds_total"),
    ("process.memory.usage", "process_memory_usage_bytes"),
    ("process.memory.virtual", "process_memory_virtual_bytes"),
    ("process.thread.count", "process_thread_count"),
    ("process.unix.file_descriptor.count", "process_unix_file_descriptor_count"),
    ("process.uptime", "process_uptime_seconds"),
    ("system.cpu.utilization", "system_cpu_utilization_ratio"),
    ("system.memory.usage", "system_memory_usage_bytes"),
    ("system.memory.limit", "system_memory_limit_bytes"),
    ("system.memory.linux.available", "system_memory_linux_available_bytes"),
    ("system.memory.utilization", "system_memory_utilization_ratio"),
    ("system.filesystem.usage", "system_filesystem_usage_bytes"),
    ("system.network.io", "system_network_io_bytes_total"),
    ("content_factory.telemetry.produced", "content_factory_telemetry_produced_total"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_a_running_sidecar_is_named_by_the_conventions_or_by_our_registry() {
    let receiver = Receiver::grpc(Codings::All, Default::default()).await;
    let application = Application::start().await;
    let endpoint = format!("http://{}", receiver.address);
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("SIDECAR_TELEMETRY__METRICS__INTERVAL", "1s"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=shop"),
        ("POD_NAME", "web-1"),
        ("POD_NAMESPACE", "shop"),
        ("NODE_NAME", "node-1"),
    ];
    let environment = [&environment[..], &EVERYTHING[..]].concat();
    let mut sidecar = Sidecar::start(application.address, &[], &environment).await;
    ask_for_everything(&sidecar).await;
    let is_whole = |seen: &mut crate::telemetry_receiver::Seen| {
        let has_stream = seen.metrics.iter().any(|metric| metric.name == "content_factory.http.server.stream.duration");
        let has_system = seen.metrics.iter().any(|metric| metric.name == "system.network.io");
        has_stream && has_system && seen.spans.len() >= 10 && !seen.logs.is_empty()
    };
    eventually("all three signals", Duration::from_secs(20), || receiver.with(is_whole)).await;
    let page = sidecar.metrics().await;
    sidecar.signal("TERM").await;
    assert_eq!(sidecar.ended().await, Some(0));

    let conventions = Conventions::read();
    receiver.with(|seen| {
        let exported: BTreeSet<&str> = seen.metrics.iter().map(|metric| metric.name.as_str()).collect();
        let series: BTreeSet<&str> = page.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
        for (otlp, prometheus) in INDISPENSABLE {
            assert!(exported.contains(otlp), "{otlp} did not arrive: {exported:?}");
            assert!(series.contains(prometheus), "{prometheus} is not on /metrics: {series:?}");
        }
        for exported in &seen.metrics {
            let metric = ALL.iter().find(|metric| metric.name == exported.name);
            let metric = metric.unwrap_or_else(|| panic!("{} is not in the catalogue", exported.name));
            assert_eq!(exported.unit, metric.unit, "{}", metric.name);
            assert!(is_of_its_kind(metric, exported), "{}: {:?}", metric.name, exported.data);
            let strange: Vec<_> = labels(exported).into_iter().filter(|label| !metric.labels.contains(label)).collect();
            assert!(strange.is_empty(), "{}: {strange:?} are not in the catalogue", metric.name);
        }
        let of_spans: BTreeSet<_> = seen.spans.iter().flat_map(|span| keys(&span.attributes)).collect();
        for name in ["client.address", "network.peer.port", "url.query", "user_agent.original"] {
            assert!(of_spans.contains(name), "{name} was not tried: {of_spans:?}");
        }
        let strange: Vec<_> =
            of_spans.iter().filter(|name| !conventions.know(name) && !is_in(OF_SPANS, name)).collect();
        assert!(strange.is_empty(), "{strange:?} of spans: neither of the conventions nor in our table");
        let of_resources = &seen.resource_names;
        assert!(of_resources.contains("k8s.container.name"), "{of_resources:?}");
        let strange: Vec<_> = of_resources.iter().filter(|name| !conventions.know(name)).collect();
        assert!(strange.is_empty(), "{strange:?} of the resource: not of the conventions");
        let of_logs: BTreeSet<_> = seen.logs.iter().flat_map(|log| keys(&log.attributes)).collect();
        let strange: Vec<_> = of_logs.iter().filter(|name| !conventions.know(name) && !is_in(OF_LOGS, name)).collect();
        assert!(strange.is_empty(), "{strange:?} of log records: neither of the conventions nor in our table");
    });
}

/// What a test of a run cannot see: lines that are logged only when something fails.
#[test]
fn each_field_that_a_log_statement_names_is_of_the_conventions_or_in_our_table() {
    let conventions = Conventions::read();
    let mut named = BTreeSet::new();
    for file in sources(Path::new("src")) {
        let text = fs::read_to_string(&file).expect("a source file");
        let tokens: TokenStream = text.parse().expect("a file of Rust");
        collect_fields(tokens, &mut named);
    }
    assert!(named.contains("limit_seconds") && named.contains("error"), "nothing was found: {named:?}");
    let strange: Vec<_> = named.iter().filter(|name| !conventions.know(name) && !is_in(OF_LOGS, name)).collect();
    assert!(strange.is_empty(), "{strange:?}: neither of the conventions nor in model::attributes::OF_LOGS");
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let nested = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    nested.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Finds `info!(…)` and its like outside tests, and the names of their fields.
fn collect_fields(tokens: TokenStream, named: &mut BTreeSet<String>) {
    const STATEMENTS: [&str; 8] = ["trace", "debug", "info", "warn", "error", "debug_span", "info_span", "error_span"];
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let before = |distance: usize| index.checked_sub(distance).map(|at| tokens[at].to_string()).unwrap_or_default();
        let is_statement = before(1) == "!" && STATEMENTS.contains(&before(2).as_str());
        if is_statement && group.delimiter() == Delimiter::Parenthesis {
            fields(group.stream(), named);
        } else if before(2) != "mod" || before(1) != "tests" {
            collect_fields(group.stream(), named);
        }
    }
}

/// The names before `=`, and of `name`, `%name` and `?name` alone; the message and what belongs to it are none.
fn fields(statement: TokenStream, named: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = statement.into_iter().collect();
    for part in tokens.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')) {
        let texts: Vec<String> = part.iter().map(ToString::to_string).collect();
        let is_message = texts.first().is_some_and(|text| text.starts_with('"'));
        if is_message || texts.is_empty() {
            break;
        }
        let sigil = usize::from(texts[0] == "%" || texts[0] == "?");
        let end = texts.iter().position(|text| text == "=").unwrap_or(texts.len());
        let is_directive = texts.get(1).is_some_and(|text| text == ":");
        if !is_directive {
            named.insert(texts[sigil.min(end)..end].concat());
        }
    }
}
