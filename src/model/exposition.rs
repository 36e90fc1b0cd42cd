//! Metrics as text: the pages that Prometheus reads, and `docs/metrics.md`.
//!
//! Pure. Names follow OpenTelemetry's rules for Prometheus: dots become underscores, the unit becomes a word at
//! the end, a counter ends in `_total`, and units in braces are left out.

use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use crate::model::attributes::{OF_LOGS, OF_SPANS};
use crate::model::catalogue::{ALL, Metric, MetricKind, Scope};
use crate::model::celery_exporter::{ALIASES, renamed};
use crate::model::sample::{Exemplar, Histogram, LabelValue, Sample, SampleValue};
use crate::settings::show_duration;

/// The form of a page of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The form that an `Accept` header asks for by name; `None` when it names neither, as a browser's.
    #[must_use]
    pub fn asked_for(accept: &str) -> Option<Self> {
        let mut best = None;
        for item in accept.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let format = match parts.next() {
                Some(name) if name.eq_ignore_ascii_case("application/openmetrics-text") => Self::OpenMetrics,
                Some(name) if name.eq_ignore_ascii_case("text/plain") => Self::Prometheus,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |text| text.parse().ok());
            let weight: f64 = weight.unwrap_or(0.0);
            if weight > 0.0 && best.is_none_or(|(_, heaviest)| weight > heaviest) {
                best = Some((format, weight));
            }
        }
        best.map(|(format, _)| format)
    }
}

/// A page, piece by piece: the metrics in the order of the catalogue, each with its series in the order given.
///
/// A page of thousands of series is many megabytes, and is never held as a whole: each piece is made when it is asked
/// for, ends with a whole line, and its samples go with it. A second sample of the same series is left out, because one
/// makes a scraper refuse the whole page.
#[derive(Debug)]
pub struct Pieces {
    format: Format,
    samples: std::vec::IntoIter<Sample>,
    /// The metric that is being written, and its family's name.
    family: Option<(&'static Metric, String)>,
    /// The labels of its series.
    seen: HashSet<String>,
    ended: bool,
}

/// A piece ends with the series that makes it this long.
const PIECE_BYTES: usize = 32 << 10;

impl Pieces {
    /// The page of these samples.
    #[must_use]
    pub fn new(mut samples: Vec<Sample>, format: Format) -> Self {
        samples.extend(samples.iter().filter_map(renamed).collect::<Vec<_>>());
        let metrics = || ALL.iter().copied().chain(ALIASES.iter().map(|alias| &alias.theirs));
        let place = |sample: &Sample| metrics().position(|metric| std::ptr::eq(metric, sample.metric));
        samples.retain(|sample| place(sample).is_some());
        samples.sort_by_cached_key(place);
        Self { format, samples: samples.into_iter(), family: None, seen: HashSet::new(), ended: false }
    }

    fn sample(&mut self, page: &mut Page, sample: &Sample) {
        let current = self.family.take().filter(|(metric, _)| std::ptr::eq(*metric, sample.metric));
        let (metric, family) = current.unwrap_or_else(|| {
            let family = family_name(sample.metric);
            page.head(sample.metric, &family);
            self.seen.clear();
            (sample.metric, family)
        });
        let labels = label_text(sample);
        if !self.seen.contains(&labels) {
            page.series(&family, &labels, sample);
            self.seen.insert(labels);
        }
        self.family = Some((metric, family));
    }
}

impl Iterator for Pieces {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut page = Page { text: String::new(), format: self.format };
        while page.text.len() < PIECE_BYTES && !self.ended {
            match self.samples.next() {
                Some(sample) => self.sample(&mut page, &sample),
                None => {
                    self.ended = true;
                    page.text.push_str(if self.format == Format::OpenMetrics { "# EOF\n" } else { "" });
                }
            }
        }
        (!page.text.is_empty()).then_some(page.text)
    }
}

/// The name in Prometheus; of a histogram the one before `_bucket`, `_sum` and `_count`.
#[must_use]
pub fn prometheus_name(metric: &Metric) -> String {
    let suffix = if metric.kind == MetricKind::Counter { "_total" } else { "" };
    family_name(metric) + suffix
}

/// `docs/metrics.md`.
#[must_use]
pub fn metrics_markdown() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         Printed from the catalogue by `content-factory-sidecar docs metrics`; do not edit.\n\n\
         *Scope* tells of whom a value is true: each pod exports its own, and what is true of the cluster is exported by\n\
         one replica. *Age* is the age up to which a value is shown, or three times the period of what reads\n\
         it, if that is longer; values without one are read when they are asked for.\n\n\
         | OTLP | Prometheus | kind | unit | labels | scope | age | meaning |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (scope, age) = (scope_word(metric.scope), age_word(metric.max_age));
        let _ = writeln!(
            out,
            "| `{}` | `{}` | {} | `{}` | {} | {scope} | {age} | {} |",
            metric.name,
            prometheus_name(metric),
            kind_word(metric.kind),
            metric.unit,
            labels.join(" "),
            metric.about,
        );
    }
    out.push_str(
        "\n`otel.metric.overflow` stands alone on the one series of a metric that counts all requests beyond `traffic.max_series`.\n\n\
         Each explicit bucket of a duration (of ordinary requests, streams and tunnels) names an example: the last request whose spans are kept,\n\
         with its trace and its SERVER span (`traffic.exemplars`). OTLP tells them in both forms of histograms, and of the pages the one of OpenMetrics;\n\
         a difference has those of its interval.\n",
    );
    out.push_str(
        "\n## Celery under the names of celery-exporter\n\n\
         On the pages for Prometheus the same values stand a second time, so that dashboards and alerts made for it go on working.\n\n\
         | here | there |\n|---|---|\n",
    );
    for alias in ALIASES {
        let (ours, theirs) = (prometheus_name(alias.ours), prometheus_name(&alias.theirs));
        let _ = writeln!(out, "| `{ours}` | `{theirs}` |");
    }
    for (title, table) in [("of spans", OF_SPANS), ("of our log records", OF_LOGS)] {
        let _ = write!(out, "\n## Attributes {title} that are our own\n\n| name | meaning |\n|---|---|\n");
        for attribute in table {
            let _ = writeln!(out, "| `{}` | {} |", attribute.name, attribute.about);
        }
    }
    out.push_str("\nAll others are names of OpenTelemetry's semantic conventions.\n");
    out
}

fn kind_word(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "counter",
        MetricKind::UpDownCounter => "up-down counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram(_) => "histogram",
    }
}

fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Pod => "pod",
        Scope::Cluster => "cluster",
    }
}

fn age_word(age: Duration) -> String {
    if age.is_zero() { String::new() } else { show_duration(age) }
}

/// The unit as a word of the name.
fn unit_word(metric: &Metric) -> Option<&'static str> {
    match (metric.unit, metric.kind) {
        ("s", _) => Some("seconds"),
        ("By", _) => Some("bytes"),
        ("1", MetricKind::Gauge) => Some("ratio"),
        _ => None,
    }
}

fn family_name(metric: &Metric) -> String {
    let mut name = metric.name.replace('.', "_");
    if let Some(unit) = unit_word(metric)
        && !name.ends_with(unit)
    {
        name.push('_');
        name.push_str(unit);
    }
    name
}

/// A piece of a page that is being written.
struct Page {
    text: String,
    format: Format,
}

impl Page {
    fn head(&mut self, metric: &Metric, family: &str) {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::UpDownCounter | MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        };
        let mut about = metric.about.replace('\\', "\\\\").replace('\n', "\\n");
        if self.format == Format::Prometheus {
            let name = prometheus_name(metric);
            self.line(format_args!("# HELP {name} {about}"));
            self.line(format_args!("# TYPE {name} {kind}"));
            return;
        }
        about = about.replace('"', "\\\"");
        self.line(format_args!("# TYPE {family} {kind}"));
        if let Some(unit) = unit_word(metric) {
            self.line(format_args!("# UNIT {family} {unit}"));
        }
        self.line(format_args!("# HELP {family} {about}"));
    }

    fn series(&mut self, family: &str, labels: &str, sample: &Sample) {
        let suffix = if sample.metric.kind == MetricKind::Counter { "_total" } else { "" };
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        match (&sample.value, sample.metric.kind) {
            (SampleValue::Count(value), _) => self.line(format_args!("{family}{suffix}{braced} {value}")),
            (SampleValue::Sum(value) | SampleValue::Level(value), _) => {
                self.line(format_args!("{family}{suffix}{braced} {}", number(*value)));
            }
            (SampleValue::Histogram(histogram), MetricKind::Histogram(bounds)) => {
                self.buckets(family, labels, bounds, histogram);
                self.line(format_args!("{family}_sum{braced} {}", number(histogram.sum)));
                self.line(format_args!("{family}_count{braced} {}", histogram.count));
            }
            // a histogram under the name of another kind cannot be written as that kind
            (SampleValue::Histogram(_), _) => {}
        }
    }

    fn buckets(&mut self, family: &str, labels: &str, bounds: &[f64], histogram: &Histogram) {
        let separator = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        let mut exemplars = histogram.exemplars.iter().peekable();
        for (bound, count) in bounds.iter().zip(&histogram.explicit) {
            below += count;
            let exemplar = exemplars.next_if(|exemplar| exemplar.value <= *bound);
            let (bound, exemplar) = (self.bound(*bound), self.exemplar(exemplar));
            self.line(format_args!("{family}_bucket{{{labels}{separator}le=\"{bound}\"}} {below}{exemplar}"));
        }
        let (count, exemplar) = (histogram.count, self.exemplar(exemplars.next()));
        self.line(format_args!("{family}_bucket{{{labels}{separator}le=\"+Inf\"}} {count}{exemplar}"));
    }

    /// What stands behind a bucket's count; the older form of the page has no word for it.
    fn exemplar(&self, exemplar: Option<&Exemplar>) -> String {
        let Some(exemplar) = exemplar.filter(|_| self.format == Format::OpenMetrics) else { return String::new() };
        let Exemplar { value, unix_nanos, trace_id, span_id } = exemplar;
        // in digits, as a double would round it to a quarter of a microsecond
        let (seconds, nanos) = (unix_nanos / 1_000_000_000, unix_nanos % 1_000_000_000);
        format!(" # {{trace_id=\"{trace_id}\",span_id=\"{span_id}\"}} {} {seconds}.{nanos:09}", number(*value))
    }

    /// A bound as the format's readers compare it: OpenMetrics has a fraction in every one.
    fn bound(&self, bound: f64) -> String {
        match self.format {
            Format::Prometheus => format!("{bound}"),
            Format::OpenMetrics => format!("{bound:?}"),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }
}

fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    value.to_string()
}

fn label_text(sample: &Sample) -> String {
    let mut out = String::new();
    for (name, value) in &sample.labels {
        if !out.is_empty() {
            out.push(',');
        }
        out.extend(name.chars().map(|c| if c == '.' { '_' } else { c }));
        out.push_str("=\"");
        match value {
            LabelValue::Text(text) => escape(text.as_str(), &mut out),
            LabelValue::Number(number) => {
                let _ = write!(out, "{number}");
            }
            LabelValue::Flag(flag) => {
                let _ = write!(out, "{flag}");
            }
        }
        out.push('"');
    }
    out
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::celery::{TASK, TASKS_SENT};
    use crate::model::catalogue::machine::SYSTEM_CPU_UTILIZATION;
    use crate::model::catalogue::{
        HTTP_SERVER_ACTIVE_REQUESTS, HTTP_SERVER_REQUEST_DURATION, TELEMETRY_DROPPED, TELEMETRY_QUEUE_BYTES,
        TELEMETRY_QUEUED,
    };
    use crate::model::trace::{SpanId, TraceId};
    use crate::model::usage::{ProcessUsage, SystemUsage};
    use crate::redact::Redactor;
    use crate::semconv;

    /// Every kind of value, a label that needs escaping, and a series that comes twice.
    fn samples() -> Vec<Sample> {
        let redactor = Redactor::new([]);
        let route = redactor.text(crate::redact::Outlet::Telemetry, b"/odd\\\"\n/{id}").into_owned();
        let mut explicit = vec![0; 15];
        (explicit[0], explicit[4], explicit[14]) = (3, 2, 1);
        let exemplar = |value, id| Exemplar {
            value,
            unix_nanos: 1_800_000_000_000_000_001 + u64::from(id),
            trace_id: TraceId([id; 16]),
            span_id: SpanId([0xf0; 8]),
        };
        // one on a bound, and one above all of them
        let exemplars = vec![exemplar(0.005, 1), exemplar(11.5, 0xab)];
        let durations = Histogram { explicit, sum: 12.25, count: 6, exemplars, ..Histogram::default() };
        let active = |count| {
            Sample::level(&HTTP_SERVER_ACTIVE_REQUESTS, count)
                .with_literal(semconv::HTTP_REQUEST_METHOD, "GET")
                .with_literal(semconv::URL_SCHEME, "http")
        };
        let overflow = Sample::histogram(
            &HTTP_SERVER_REQUEST_DURATION,
            Histogram { explicit: vec![1; 15], sum: f64::INFINITY, count: 15, ..Histogram::default() },
        );
        let mut samples = vec![
            active(2.0),
            Sample::histogram(&HTTP_SERVER_REQUEST_DURATION, durations)
                .with_literal(semconv::HTTP_REQUEST_METHOD, "GET")
                .with(semconv::HTTP_RESPONSE_STATUS_CODE, LabelValue::Number(200))
                .with(semconv::HTTP_ROUTE, LabelValue::Text(route)),
            overflow.with(semconv::OTEL_METRIC_OVERFLOW, LabelValue::Flag(true)),
            Sample::count(&TELEMETRY_DROPPED, 7).with_literal("signal", "traces").with_literal("reason", "too_old"),
            active(99.0),
        ];
        let process = ProcessUsage { cpu_seconds: (1.5, 0.25), threads: 4, ..ProcessUsage::default() };
        SystemUsage {
            cpu_ratio: 0.5,
            memory_total_bytes: 8 << 30,
            memory_available_bytes: 6 << 30,
            process,
            ..SystemUsage::default()
        }
        .samples(&mut samples);
        samples
    }

    #[test]
    fn the_pages_are_as_agreed() {
        let golden = include_str!("../../tests/golden/metrics.prometheus.txt");
        assert_eq!(Pieces::new(samples(), Format::Prometheus).collect::<String>(), golden);
        let golden = include_str!("../../tests/golden/metrics.openmetrics.txt");
        assert_eq!(Pieces::new(samples(), Format::OpenMetrics).collect::<String>(), golden);
    }

    #[test]
    fn a_page_of_many_series_is_never_held_as_a_whole() {
        const SERIES: i64 = 2_000;
        let series = |status| {
            let histogram = Histogram { explicit: vec![1; 15], sum: 1.0, count: 15, ..Histogram::default() };
            let sample = Sample::histogram(&HTTP_SERVER_REQUEST_DURATION, histogram);
            sample.with(semconv::HTTP_RESPONSE_STATUS_CODE, LabelValue::Number(status))
        };
        // each series twice, the second time in another piece
        let samples = (0..SERIES).chain(0..SERIES).map(series).collect();
        let pieces: Vec<String> = Pieces::new(samples, Format::OpenMetrics).collect();
        let whole: usize = pieces.iter().map(String::len).sum();
        assert!(whole > 2 << 20, "{whole} bytes prove nothing");
        for piece in &pieces {
            assert!(piece.len() < PIECE_BYTES + (8 << 10), "{} bytes at once", piece.len());
            assert!(piece.ends_with('\n'), "a line is cut");
        }
        let count = |part: &str| pieces.iter().map(|piece| piece.matches(part).count()).sum::<usize>();
        assert_eq!(count("_count{"), SERIES as usize);
        assert_eq!((count("# TYPE"), count("# EOF")), (1, 1));
    }

    #[test]
    fn names_follow_the_rules_for_prometheus() {
        for (metric, name) in [
            (&HTTP_SERVER_REQUEST_DURATION, "http_server_request_duration_seconds"),
            (&HTTP_SERVER_ACTIVE_REQUESTS, "http_server_active_requests"),
            (&TELEMETRY_DROPPED, "content_factory_telemetry_dropped_total"),
            (&TELEMETRY_QUEUED, "content_factory_telemetry_queued"),
            (&TELEMETRY_QUEUE_BYTES, "content_factory_telemetry_queue_bytes"),
            (&SYSTEM_CPU_UTILIZATION, "system_cpu_utilization_ratio"),
        ] {
            assert_eq!(prometheus_name(metric), name);
        }
    }

    #[test]
    fn celery_stands_under_both_names_as_the_exporter_writes_them() {
        let sample = Sample::count(&TASKS_SENT, 3).with_literal(TASK, "render");
        let page: String = Pieces::new(vec![sample], Format::Prometheus).collect();
        assert!(page.contains("\ncontent_factory_celery_tasks_sent_total{task=\"render\"} 3\n"), "{page}");
        assert!(page.contains("\ncelery_task_sent_total{name=\"render\"} 3\n"), "{page}");
        let names: Vec<String> = ALIASES.iter().map(|alias| prometheus_name(&alias.theirs)).collect();
        for name in ["celery_task_runtime", "celery_task_queue_wait_time", "celery_worker_up", "celery_queue_length"] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
    }

    #[test]
    fn no_two_metrics_share_a_name_and_every_unit_is_known() {
        let names: HashSet<String> = ALL.iter().map(|metric| family_name(metric)).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let is_annotation = metric.unit.starts_with('{') && metric.unit.ends_with('}');
            assert!(is_annotation || ["s", "By", "1"].contains(&metric.unit), "{}", metric.name);
        }
    }

    #[test]
    fn a_scraper_gets_the_form_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus, Some(Format::OpenMetrics)),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Some(Format::Prometheus)),
            ("application/openmetrics-text; q=0.1, text/plain", Some(Format::Prometheus)),
            ("text/html,application/xhtml+xml,*/*;q=0.8", None),
            ("text/plain;q=0", None),
            ("*/*", None),
            ("", None),
        ] {
            assert_eq!(Format::asked_for(accept), format, "{accept}");
        }
    }

    #[test]
    fn the_document_is_fresh() {
        let document = include_str!("../../docs/metrics.md");
        assert_eq!(
            metrics_markdown(),
            document,
            "print it anew: content-factory-sidecar docs metrics > docs/metrics.md"
        );
    }
}
