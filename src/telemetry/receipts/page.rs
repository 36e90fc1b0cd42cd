//! Reads a collector's page of metrics: its exporters and receivers, and nothing else. Pure, and bounded.
//!
//! Source: the collector's "Internal telemetry", where names have had a suffix `_total` in some versions.

use std::collections::BTreeMap;

use crate::model::export::Received;
use crate::model::telemetry::Signal;

/// So many exporters are told apart; a collector has one or two for each vendor.
const EXPORTERS: usize = 32;
/// Of an exporter's name.
const NAME_BYTES: usize = 128;

/// What one page says.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// By the exporter's name and the signal's place in `Signal::OTLP`.
    pub(super) exporters: BTreeMap<(String, usize), Reading>,
    pub(super) received: [Received; Signal::OTLP.len()],
}

/// What is said of one exporter and signal, since the collector started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) accepted: u64,
    pub(super) failed: u64,
    pub(super) not_queued: u64,
    pub(super) queue: Option<f64>,
    pub(super) capacity: Option<f64>,
    pub(super) in_flight: f64,
    /// Told at the level `detailed` alone.
    pub(super) bytes: Option<u64>,
}

impl Page {
    /// Reads what it knows; lines that it does not know are left out.
    pub(super) fn read(text: &str) -> Self {
        let mut page = Self::default();
        for line in text.lines().filter(|line| line.starts_with("otelcol_")) {
            if let Some((name, labels, value)) = parts(line) {
                page.take(name, &labels, value);
            }
        }
        page
    }

    fn take(&mut self, name: &str, labels: &BTreeMap<&str, String>, value: f64) {
        let name = name.strip_suffix("_total").unwrap_or(name);
        if let Some(rest) = name.strip_prefix("otelcol_receiver_") {
            let Some((what, signal)) = of_signal(rest) else { return };
            match what {
                "accepted" => self.received[signal].accepted += count(value),
                "refused" | "failed" => self.received[signal].refused += count(value),
                _ => {}
            }
        } else if let Some(rest) = name.strip_prefix("otelcol_exporter_") {
            let Some(exporter) = labels.get("exporter").filter(|name| name.len() <= NAME_BYTES) else { return };
            let of_gauge = || Some((rest, signal_of(labels.get("data_type")?)?));
            let of_request = || Some((rest, signal_of_path(labels.get("url_path")?)?));
            let Some((what, signal)) = of_signal(rest).or_else(of_gauge).or_else(of_request) else { return };
            let key = (exporter.clone(), signal);
            if self.exporters.len() >= EXPORTERS * Signal::OTLP.len() && !self.exporters.contains_key(&key) {
                return;
            }
            let reading = self.exporters.entry(key).or_default();
            match what {
                "sent" => reading.accepted += count(value),
                "send_failed" => reading.failed += count(value),
                "enqueue_failed" => reading.not_queued += count(value),
                "queue_size" => *reading.queue.get_or_insert(0.0) += value,
                "queue_capacity" => *reading.capacity.get_or_insert(0.0) += value,
                "in_flight_requests" => reading.in_flight += value,
                "queue_batch_send_size_bytes_sum" => *reading.bytes.get_or_insert(0) += count(value),
                _ => {}
            }
        }
    }
}

/// `sent_spans` is `sent` of traces.
fn of_signal(name: &str) -> Option<(&str, usize)> {
    let suffixes = [("_spans", Signal::Traces), ("_metric_points", Signal::Metrics), ("_log_records", Signal::Logs)];
    suffixes.into_iter().find_map(|(suffix, signal)| Some((name.strip_suffix(suffix)?, signal as usize)))
}

fn signal_of(data_type: &str) -> Option<usize> {
    Signal::OTLP.iter().find(|signal| signal.label() == data_type).map(|signal| *signal as usize)
}

/// `/v1/traces` is of traces, and Datadog's `/api/v2/otlpmetrics` of metrics.
fn signal_of_path(path: &str) -> Option<usize> {
    Signal::OTLP.iter().find(|signal| path.ends_with(signal.label())).map(|signal| *signal as usize)
}

fn count(value: f64) -> u64 {
    value.max(0.0) as u64 // whole, and far below 2^53
}

/// The name, the labels and the value of a line of Prometheus text.
fn parts(line: &str) -> Option<(&str, BTreeMap<&str, String>, f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            let (value, behind) = unquoted(quoted)?;
            labels.insert(label.trim_start_matches(',').trim(), value);
            rest = behind;
        }
        rest = &rest[1..];
    }
    let value: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name, labels, value))
}

/// The text up to its closing quote, and what is behind that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => out.push('\n'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: &str = r#"
# TYPE otelcol_exporter_sent_spans counter
otelcol_exporter_sent_spans{exporter="otlp_http/datadog",server_address="a",url_path="/v1/traces"} 5
otelcol_exporter_sent_spans{exporter="otlp_http/datadog",server_address="b",url_path="/v1/traces"} 2
otelcol_exporter_send_failed_spans_total{exporter="otlp_http/new\"relic"} 3
otelcol_exporter_enqueue_failed_log_records{exporter="otlp_http/datadog"} 1
otelcol_exporter_queue_size{data_type="traces",exporter="otlp_http/datadog"} 12
otelcol_exporter_queue_capacity{data_type="traces",exporter="otlp_http/datadog"} 2.68435456e+08
otelcol_exporter_in_flight_requests{data_type="metrics",exporter="otlp_http/datadog"} 1
otelcol_exporter_queue_batch_send_size_bytes_sum{exporter="otlp_http/datadog",server_address="a",url_path="/v1/traces"} 70450
otelcol_exporter_queue_batch_send_size_bytes_sum{exporter="otlp_http/datadog",server_address="b",url_path="/v1/traces"} 50
otelcol_exporter_queue_batch_send_size_bytes_count{exporter="otlp_http/datadog",url_path="/v1/traces"} 3
otelcol_exporter_queue_batch_send_size_bytes_sum{exporter="otlp_http/datadog",url_path="/api/v2/otlpmetrics"} 190360
otelcol_receiver_accepted_metric_points{receiver="otlp",transport="grpc"} 9
otelcol_receiver_refused_metric_points{receiver="otlp",transport="grpc"} 4
otelcol_exporter_sent_spans{exporter="broken
otelcol_process_uptime{} 3
http_client_duration{exporter="x"} 1
"#;

    #[test]
    fn both_spellings_of_counters_and_all_series_of_an_exporter_count() {
        let page = Page::read(PAGE);
        let reading = |name: &str, signal: Signal| page.exporters[&(name.to_owned(), signal as usize)];
        let traces = reading("otlp_http/datadog", Signal::Traces);
        assert_eq!((traces.accepted, traces.queue, traces.capacity), (7, Some(12.0), Some(268_435_456.0)));
        assert_eq!(reading("otlp_http/new\"relic", Signal::Traces).failed, 3);
        assert_eq!(reading("otlp_http/datadog", Signal::Logs).not_queued, 1);
        let metrics = reading("otlp_http/datadog", Signal::Metrics);
        assert_eq!((metrics.in_flight, metrics.bytes), (1.0, Some(190_360)));
        assert_eq!((traces.bytes, reading("otlp_http/datadog", Signal::Logs).bytes), (Some(70_500), None));
        assert_eq!(page.received[Signal::Metrics as usize], Received { accepted: 9, refused: 4 });
        assert_eq!(page.exporters.len(), 4);
    }

    #[test]
    fn endless_exporters_take_no_endless_memory() {
        let page: String = (0..1_000).map(|n| format!("otelcol_exporter_sent_spans{{exporter=\"{n}\"}} 1\n")).collect();
        assert_eq!(Page::read(&page).exporters.len(), EXPORTERS * Signal::OTLP.len());
    }

    proptest! {
        #[test]
        fn no_page_makes_it_panic(text in "(otelcol_exporter_(sent_spans|queue_size)[{}=\",a-zé\\\\ 0-9.-]{0,40}\n){0,5}") {
            Page::read(&text);
        }
    }
}
