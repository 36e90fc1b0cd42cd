//! Metrics as OTLP bytes. Pure; the field numbers are those of `metrics.proto`.

use crate::model::catalogue::{Metric, MetricKind};
use crate::model::sample::{Exemplar, Exponential, Histogram, LabelValue, SampleValue};
use crate::telemetry::config::{HistogramForm, Temporality};
use crate::telemetry::metrics::interval::Interval;
use crate::telemetry::wire;

/// In `ScopeMetrics`.
const METRICS: u32 = 2;

/// A value with its labels, ready to be written.
pub(crate) struct Point {
    pub(crate) labels: Vec<(&'static str, LabelValue)>,
    pub(crate) value: SampleValue,
}

impl Point {
    /// Some histograms (sizes of bodies) are kept in the explicit form only.
    pub(crate) fn has_exponential_form(&self) -> bool {
        match &self.value {
            SampleValue::Histogram(histogram) => histogram.exponential.is_some(),
            SampleValue::Count(_) | SampleValue::Sum(_) | SampleValue::Level(_) => true,
        }
    }
}

/// How the points of a metric are written.
pub(crate) struct Form {
    pub(crate) metric: &'static Metric,
    pub(crate) interval: Interval,
    pub(crate) temporality: Temporality,
    pub(crate) histograms: HistogramForm,
}

/// Appends a `Metric` with these points.
pub(crate) fn metric(out: &mut Vec<u8>, form: &Form, points: &[Point]) {
    let metric = form.metric;
    let temporality = match form.temporality {
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    };
    wire::message(out, METRICS, |out| {
        wire::bytes_field(out, 1, metric.name.as_bytes());
        wire::bytes_field(out, 2, metric.about.as_bytes());
        wire::bytes_field(out, 3, metric.unit.as_bytes());
        match metric.kind {
            MetricKind::Gauge => wire::message(out, 5, |out| numbers(out, form, points)),
            MetricKind::Counter | MetricKind::UpDownCounter => wire::message(out, 7, |out| {
                numbers(out, form, points);
                wire::varint_field(out, 2, temporality);
                wire::varint_field(out, 3, u64::from(metric.kind == MetricKind::Counter));
            }),
            MetricKind::Histogram(bounds) => {
                let field = match form.histograms {
                    HistogramForm::Explicit => 9,
                    HistogramForm::Exponential => 10,
                };
                wire::message(out, field, |out| {
                    histograms(out, form, points, bounds);
                    wire::varint_field(out, 2, temporality);
                });
            }
        }
    });
}

fn numbers(out: &mut Vec<u8>, form: &Form, points: &[Point]) {
    for point in points {
        wire::message(out, 1, |out| {
            times(out, form.interval);
            match &point.value {
                SampleValue::Count(count) => wire::fixed64_field(out, 6, *count),
                SampleValue::Sum(number) | SampleValue::Level(number) => wire::double_field(out, 4, *number),
                SampleValue::Histogram(_) => {} // the catalogue says that it is none
            }
            attributes(out, 7, &point.labels);
        });
    }
}

fn histograms(out: &mut Vec<u8>, form: &Form, points: &[Point], bounds: &[f64]) {
    for point in points {
        let SampleValue::Histogram(histogram) = &point.value else { continue };
        wire::message(out, 1, |out| {
            times(out, form.interval);
            wire::fixed64_field(out, 4, histogram.count);
            wire::double_field(out, 5, histogram.sum);
            match (form.histograms, &histogram.exponential) {
                (HistogramForm::Exponential, Some(buckets)) => {
                    attributes(out, 1, &point.labels);
                    exponential(out, buckets);
                    exemplars(out, 11, histogram, form.interval);
                    extremes(out, histogram, [12, 13]);
                }
                _ => {
                    explicit(out, histogram, bounds);
                    exemplars(out, 8, histogram, form.interval);
                    attributes(out, 9, &point.labels);
                    extremes(out, histogram, [11, 12]);
                }
            }
        });
    }
}

fn explicit(out: &mut Vec<u8>, histogram: &Histogram, bounds: &[f64]) {
    wire::message(out, 6, |out| {
        histogram.explicit.iter().for_each(|count| out.extend_from_slice(&count.to_le_bytes()));
    });
    wire::message(out, 7, |out| {
        bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_le_bytes()));
    });
}

fn exponential(out: &mut Vec<u8>, buckets: &Exponential) {
    wire::varint_field(out, 6, zigzag(Exponential::SCALE));
    wire::fixed64_field(out, 7, buckets.zero);
    let first = buckets.counts.iter().position(|count| *count > 0);
    let last = buckets.counts.iter().rposition(|count| *count > 0);
    if let (Some(first), Some(last)) = (first, last) {
        let offset = buckets.offset.saturating_add(i32::try_from(first).unwrap_or(i32::MAX));
        wire::message(out, 8, |out| {
            wire::varint_field(out, 1, zigzag(offset));
            wire::message(out, 2, |out| {
                buckets.counts[first..=last].iter().for_each(|count| wire::varint(out, *count));
            });
        });
    }
    wire::double_field(out, 14, buckets.zero_threshold);
}

fn exemplars(out: &mut Vec<u8>, field: u32, histogram: &Histogram, interval: Interval) {
    for Exemplar { value, unix_nanos, trace_id, span_id } in &histogram.exemplars {
        wire::message(out, field, |out| {
            // what is counted in the moment of an export belongs to it, whatever another clock says of that moment
            wire::fixed64_field(out, 2, (*unix_nanos).max(interval.start).min(interval.end));
            wire::double_field(out, 3, *value);
            wire::bytes_field(out, 4, &span_id.0);
            wire::bytes_field(out, 5, &trace_id.0);
        });
    }
}

fn extremes(out: &mut Vec<u8>, histogram: &Histogram, [min, max]: [u32; 2]) {
    if let Some(value) = histogram.min {
        wire::double_field(out, min, value);
    }
    if let Some(value) = histogram.max {
        wire::double_field(out, max, value);
    }
}

fn times(out: &mut Vec<u8>, interval: Interval) {
    wire::fixed64_field(out, 2, interval.start);
    wire::fixed64_field(out, 3, interval.end);
}

fn attributes(out: &mut Vec<u8>, field: u32, labels: &[(&'static str, LabelValue)]) {
    for (key, value) in labels {
        match value {
            LabelValue::Text(text) => wire::text_attribute(out, field, key, text.as_str().as_bytes()),
            LabelValue::Number(number) => wire::int_attribute(out, field, key, *number),
            LabelValue::Flag(flag) => wire::flag_attribute(out, field, (key, *flag)),
        }
    }
}

/// Small negative numbers as small varints (`sint32`).
fn zigzag(number: i32) -> u64 {
    u64::from(((number << 1) ^ (number >> 31)) as u32)
}
