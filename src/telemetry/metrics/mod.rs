//! The export of metrics: samples of all rooms, taken every few seconds, as OTLP bytes.
//!
//! Samples are cumulative. Who exports deltas must remember what it exported last, and that is all the state here.

mod delta;
mod encode;
pub(crate) mod interval;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::catalogue::Metric;
use crate::model::sample::{LabelValue, Sample, SampleSource, SampleValue};
use crate::telemetry::config::{HistogramForm, MetricsConfig, Temporality};
use crate::telemetry::metrics::encode::Point;
use crate::telemetry::metrics::interval::{Intervals, Reading, Times};
use crate::telemetry::otlp::{self, Request};

/// Points of one `Metric` message: requests are cut between messages.
const POINTS_PER_MESSAGE: usize = 256;

/// One series: a metric and the values of its labels.
type Series = (&'static str, Vec<(&'static str, LabelValue)>);

/// Makes export requests of samples.
#[derive(Debug)]
pub(crate) struct MetricsExporter {
    config: MetricsConfig,
    resource: Vec<u8>,
    scope: Vec<u8>,
    times: Times,
    /// What counters and histograms were exported with; bounded by the caps of the rooms on their series.
    last: HashMap<Series, SampleValue>,
    /// How many series were exported so far, for who wants to know.
    series: Arc<AtomicU64>,
}

impl MetricsExporter {
    pub(crate) fn new(config: MetricsConfig, resource: Vec<u8>, scope: Vec<u8>, started: Reading) -> Self {
        let times = Times::new(started, config.interval);
        Self { config, resource, scope, times, last: HashMap::new(), series: Arc::default() }
    }

    /// How many series were exported so far.
    pub(crate) fn series(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.series)
    }

    /// Takes the samples of now; `None` when there is nothing to tell.
    pub(crate) fn export(&mut self, sources: &[SampleSource], now: Reading) -> Option<Request> {
        let mut samples = Vec::new();
        sources.iter().for_each(|source| source(&mut samples));
        // a series never goes, and one that was never worth telling was never exported
        let series = samples.iter().filter(|sample| delta::is_worth_telling(&sample.value)).count();
        self.series.fetch_max(series as u64, Ordering::Relaxed);
        let mut metrics: BTreeMap<&'static str, (&'static Metric, Vec<Point>)> = BTreeMap::new();
        for sample in samples {
            let metric = sample.metric;
            if let Some(point) = self.point(sample) {
                metrics.entry(metric.name).or_insert_with(|| (metric, Vec::new())).1.push(point);
            }
        }
        let intervals = self.times.end_step(now);
        let mut bytes = Vec::new();
        let mut items = 0;
        for (metric, points) in metrics.values() {
            for points in points.chunks(POINTS_PER_MESSAGE) {
                encode::metric(&mut bytes, &self.form(metric, &intervals, points), points);
                items += points.len() as u64;
            }
        }
        (items > 0).then(|| Request { items, body: otlp::request(&self.resource, &self.scope, &bytes) })
    }

    fn form(&self, metric: &'static Metric, intervals: &Intervals, points: &[Point]) -> encode::Form {
        let temporality = self.config.temporality_of(metric);
        let interval = match temporality {
            Temporality::Delta => intervals.step,
            Temporality::Cumulative => intervals.life,
        };
        let histograms = match self.config.histograms {
            HistogramForm::Exponential if points.iter().all(Point::has_exponential_form) => HistogramForm::Exponential,
            _ => HistogramForm::Explicit,
        };
        encode::Form { metric, interval, temporality, histograms }
    }

    /// What is to be exported of a sample; `None` when it did not change.
    fn point(&mut self, sample: Sample) -> Option<Point> {
        let Sample { metric, labels, value } = sample;
        let value = match self.config.temporality_of(metric) {
            Temporality::Cumulative => value,
            Temporality::Delta => {
                let last = self.last.insert((metric.name, labels.clone()), value.clone());
                delta::since(&value, last.as_ref())
            }
        };
        delta::is_worth_telling(&value).then_some(Point { labels, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue;
    use crate::model::sample::{Exemplar, Exponential, Histogram};
    use crate::model::trace::{SpanId, TraceId};
    use crate::telemetry::config::TemporalityPreference;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1 as proto;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use prost::Message;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tokio::time::Instant;

    fn exporter(histograms: HistogramForm, temporality: TemporalityPreference) -> MetricsExporter {
        // often enough for times that are nanoseconds apart
        let config = MetricsConfig { interval: Duration::from_millis(100), histograms, temporality };
        MetricsExporter::new(config, vec![], vec![], at(100))
    }

    /// A clock that nobody sets.
    fn at(unix_nanos: u64) -> Reading {
        Reading { at: Instant::now(), unix_nanos }
    }

    fn decoded(request: &Request) -> Vec<proto::Metric> {
        let decoded = ExportMetricsServiceRequest::decode(request.body.as_slice()).unwrap();
        assert_eq!(otlp::count(crate::model::telemetry::Signal::Metrics, &request.body), Ok(request.items));
        decoded.resource_metrics[0].scope_metrics[0].metrics.clone()
    }

    /// A source whose samples the test sets.
    fn source(samples: Vec<Sample>) -> (SampleSource, Arc<Mutex<Vec<Sample>>>) {
        let shared = Arc::new(Mutex::new(samples));
        let read = Arc::clone(&shared);
        (Arc::new(move |out: &mut Vec<Sample>| out.extend(read.lock().unwrap().iter().cloned())), shared)
    }

    fn histogram(exponential: &[u64], offset: i32, zero: u64) -> Histogram {
        let count = exponential.iter().sum::<u64>() + zero;
        let mut explicit = vec![0; catalogue::REQUEST_SECONDS.len() + 1];
        explicit[3] = count;
        let sum = count as f64;
        let counts = exponential.to_vec();
        Histogram {
            explicit,
            exponential: Some(Exponential { zero, zero_threshold: 0.5, offset, counts }),
            sum,
            count,
            min: Some(0.1),
            max: Some(2.0),
            exemplars: Vec::new(),
        }
    }

    #[test]
    fn counters_are_exported_as_differences_and_levels_as_they_are() {
        let produced = |count| Sample::count(&catalogue::TELEMETRY_PRODUCED, count).with_literal("signal", "traces");
        let queued = Sample::level(&catalogue::TELEMETRY_QUEUED, 4.0);
        let (source, samples) = source(vec![produced(5), queued]);
        let sources = [source];
        let mut exporter = exporter(HistogramForm::Exponential, TemporalityPreference::Delta);
        let mut seen = Vec::new();
        for (time, count) in [(200, 5), (300, 9), (400, 9)] {
            samples.lock().unwrap()[0] = produced(count);
            for metric in decoded(&exporter.export(&sources, at(time)).unwrap()) {
                let Some(Data::Sum(sum)) = metric.data else { panic!("{metric:?}") };
                let point = &sum.data_points[0];
                seen.push((
                    metric.name,
                    sum.aggregation_temporality,
                    point.start_time_unix_nano,
                    point.time_unix_nano,
                    format!("{:?}", point.value),
                ));
            }
        }
        let (produced, queued) =
            ("content_factory.telemetry.produced".to_owned(), "content_factory.telemetry.queued".to_owned());
        let level = "Some(AsDouble(4.0))".to_owned();
        let expected = [
            (produced.clone(), 1, 100, 200, "Some(AsInt(5))".to_owned()),
            (queued.clone(), 2, 100, 200, level.clone()),
            (produced, 1, 200, 300, "Some(AsInt(4))".to_owned()),
            (queued.clone(), 2, 100, 300, level.clone()),
            (queued, 2, 100, 400, level),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_histogram_is_told_by_its_new_values() {
        let sample = |histogram| Sample::histogram(&catalogue::HTTP_SERVER_REQUEST_DURATION, histogram);
        let (source, samples) = source(vec![sample(histogram(&[1, 2, 3], -4, 1))]);
        let sources = [source];
        let mut exporter = exporter(HistogramForm::Exponential, TemporalityPreference::Delta);
        exporter.export(&sources, at(200)).unwrap();
        // one bucket lower than before, and one value more in the middle
        *samples.lock().unwrap() = vec![sample(histogram(&[5, 1, 3, 3], -5, 1))];
        let metrics = decoded(&exporter.export(&sources, at(300)).unwrap());
        let Some(Data::ExponentialHistogram(data)) = &metrics[0].data else { panic!("{metrics:?}") };
        let point = &data.data_points[0];
        let positive = point.positive.clone().unwrap();
        assert_eq!((positive.offset, positive.bucket_counts), (-5, vec![5, 0, 1]));
        assert_eq!((point.count, point.zero_count, point.sum, point.scale), (6, 0, Some(6.0), 3));
        assert_eq!((point.min, point.zero_threshold, data.aggregation_temporality), (None, 0.5, 1));
        assert!(exporter.export(&sources, at(400)).is_none(), "nothing new");
    }

    #[test]
    fn a_histogram_without_exponential_buckets_is_exported_explicitly() {
        let sample = Sample::histogram(
            &catalogue::HTTP_SERVER_REQUEST_BODY_SIZE,
            Histogram { explicit: vec![3], count: 3, sum: 9.0, ..Histogram::default() },
        );
        let mut exporter = exporter(HistogramForm::Exponential, TemporalityPreference::Delta);
        let metrics = decoded(&exporter.export(&[source(vec![sample]).0], at(200)).unwrap());
        assert!(matches!(metrics[0].data, Some(Data::Histogram(_))), "{metrics:?}");
    }

    #[test]
    fn explicit_and_cumulative_forms_are_as_the_conventions_have_them() {
        let sample = Sample::histogram(&catalogue::HTTP_SERVER_REQUEST_DURATION, histogram(&[7], 0, 0))
            .with("http.response.status_code", LabelValue::Number(200));
        let sources = [source(vec![sample]).0];
        let mut exporter = exporter(HistogramForm::Explicit, TemporalityPreference::Cumulative);
        for time in [200, 300] {
            let metrics = decoded(&exporter.export(&sources, at(time)).unwrap());
            let Some(Data::Histogram(data)) = &metrics[0].data else { panic!("{metrics:?}") };
            let point = &data.data_points[0];
            assert_eq!(point.explicit_bounds, catalogue::REQUEST_SECONDS);
            assert_eq!((point.bucket_counts[3], point.bucket_counts.len()), (7, 15));
            assert_eq!((point.start_time_unix_nano, point.max, data.aggregation_temporality), (100, Some(2.0), 2));
            assert_eq!(point.attributes[0].key, "http.response.status_code");
        }
        assert_eq!(metrics_unit(&sources), "s");
    }

    #[test]
    fn low_memory_remembers_nothing_of_what_is_read_elsewhere() {
        let cpu = Sample::sum(&catalogue::machine::PROCESS_CPU_TIME, 7.0);
        let produced = Sample::count(&catalogue::TELEMETRY_PRODUCED, 5);
        let durations = Sample::histogram(&catalogue::HTTP_SERVER_REQUEST_DURATION, histogram(&[7], 0, 0));
        let sources = [source(vec![cpu, produced, durations, Sample::level(&catalogue::TELEMETRY_QUEUED, 4.0)]).0];
        for (preference, expected, remembered) in [
            (TemporalityPreference::Delta, [1, 2, 1, 1], 3),
            (TemporalityPreference::LowMemory, [1, 2, 1, 2], 2),
            (TemporalityPreference::Cumulative, [2, 2, 2, 2], 0),
        ] {
            let mut exporter = exporter(HistogramForm::Exponential, preference);
            let metrics = decoded(&exporter.export(&sources, at(200)).unwrap());
            // by their names: produced, queued, http, process
            let temporality = |metric: &proto::Metric| match &metric.data {
                Some(Data::Sum(sum)) => sum.aggregation_temporality,
                Some(Data::ExponentialHistogram(histogram)) => histogram.aggregation_temporality,
                other => panic!("{other:?}"),
            };
            assert_eq!(metrics.iter().map(temporality).collect::<Vec<_>>(), expected, "{preference:?}");
            assert_eq!(exporter.last.len(), remembered, "{preference:?}");
        }
    }

    /// Three exports of a histogram that gains an exemplar each time, the second in place of the first.
    fn exemplars_told(form: HistogramForm, preference: TemporalityPreference) -> Vec<Vec<proto::Exemplar>> {
        let exemplar = |value, unix_nanos| Exemplar {
            value,
            unix_nanos,
            trace_id: TraceId([unix_nanos as u8; 16]),
            span_id: SpanId([!unix_nanos as u8; 8]),
        };
        let (first, second, other) = (exemplar(0.01, 150), exemplar(0.02, 250), exemplar(9.0, 399));
        let (source, samples) = source(Vec::new());
        let mut exporter = exporter(form, preference);
        let exports = [(200, vec![first]), (300, vec![second]), (310, vec![second]), (400, vec![second, other])];
        let mut told = Vec::new();
        for (count, (time, exemplars)) in (1..).zip(exports) {
            let histogram = Histogram { exemplars, ..histogram(&[count], 0, 0) };
            *samples.lock().unwrap() = vec![Sample::histogram(&catalogue::HTTP_SERVER_REQUEST_DURATION, histogram)];
            let metrics = decoded(&exporter.export(std::slice::from_ref(&source), at(time)).unwrap());
            told.push(match metrics[0].data.clone() {
                Some(Data::Histogram(mut data)) => data.data_points.remove(0).exemplars,
                Some(Data::ExponentialHistogram(mut data)) => data.data_points.remove(0).exemplars,
                other => panic!("{other:?}"),
            });
        }
        told
    }

    #[test]
    fn an_exemplar_tells_value_time_trace_and_span_in_both_forms() {
        for form in [HistogramForm::Explicit, HistogramForm::Exponential] {
            let told = exemplars_told(form, TemporalityPreference::Delta);
            let expected = proto::Exemplar {
                time_unix_nano: 150,
                value: Some(proto::exemplar::Value::AsDouble(0.01)),
                trace_id: vec![150; 16],
                span_id: vec![!150; 8],
                filtered_attributes: Vec::new(),
            };
            assert_eq!(told[0], [expected], "{form:?}");
        }
    }

    #[test]
    fn a_difference_has_the_exemplars_of_its_interval_and_a_total_the_latest() {
        let times = |preference| -> Vec<Vec<u64>> {
            let told = exemplars_told(HistogramForm::Exponential, preference);
            told.iter().map(|point| point.iter().map(|exemplar| exemplar.time_unix_nano).collect()).collect()
        };
        assert_eq!(times(TemporalityPreference::Delta), [vec![150], vec![250], vec![], vec![399]]);
        assert_eq!(times(TemporalityPreference::Cumulative), [vec![150], vec![250], vec![250], vec![250, 399]]);
    }

    #[test]
    fn an_exemplar_lies_within_its_interval_though_its_request_ended_while_it_was_taken() {
        let late = Exemplar { value: 1.0, unix_nanos: 201, trace_id: TraceId([1; 16]), span_id: SpanId([1; 8]) };
        let histogram = Histogram { exemplars: vec![late], ..histogram(&[1], 0, 0) };
        let sources = [source(vec![Sample::histogram(&catalogue::HTTP_SERVER_REQUEST_DURATION, histogram)]).0];
        let mut exporter = exporter(HistogramForm::Explicit, TemporalityPreference::Delta);
        let metrics = decoded(&exporter.export(&sources, at(200)).unwrap());
        let Some(Data::Histogram(data)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert_eq!(data.data_points[0].exemplars[0].time_unix_nano, 200);
    }

    fn metrics_unit(sources: &[SampleSource]) -> String {
        decoded(&exporter(HistogramForm::Explicit, TemporalityPreference::Delta).export(sources, at(1)).unwrap())[0]
            .unit
            .clone()
    }
}
