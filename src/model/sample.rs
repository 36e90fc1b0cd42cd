//! A sample of a metric: what a room gives out, and what `/metrics` and the OTLP export are made from.
//!
//! Samples are cumulative since `start`; who exports deltas remembers what it exported last.

use std::sync::Arc;

use crate::model::catalogue::Metric;
use crate::model::trace::{SpanId, TraceId};
use crate::redact::Clean;

/// One value of one series.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which metric, from the catalogue.
    pub metric: &'static Metric,
    /// The values of the labels that are known, in the catalogue's order; a label without value is left out.
    pub labels: Vec<(&'static str, LabelValue)>,
    /// The value.
    pub value: SampleValue,
}

/// The value of a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LabelValue {
    /// A text, already cleaned.
    Text(Clean<'static>),
    /// A whole number, as `http.response.status_code`.
    Number(i64),
    /// Yes or no, as `otel.metric.overflow`.
    Flag(bool),
}

/// The value of a sample; its kind is the metric's kind.
#[derive(Clone, Debug)]
pub enum SampleValue {
    /// Of a counter: since the start of the process.
    Count(u64),
    /// Of a counter that is no whole number (seconds of CPU).
    Sum(f64),
    /// Of a gauge or an up-down counter.
    Level(f64),
    /// Of a histogram: since the start of the process.
    Histogram(Arc<Histogram>),
}

/// A histogram: exact explicit buckets, and for durations exponential ones too.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Counts of the explicit buckets by the metric's bounds, not cumulative; the last one is above all bounds.
    pub explicit: Vec<u64>,
    /// The exponential form of the same values; `None` for a metric that has the explicit form only.
    pub exponential: Option<Exponential>,
    /// The sum of all values, in the metric's unit.
    pub sum: f64,
    /// The number of values: the sum of `explicit`.
    pub count: u64,
    /// The smallest value; `None` without values.
    pub min: Option<f64>,
    /// The largest value; `None` without values.
    pub max: Option<f64>,
    /// Values whose traces are kept, by rising value: at most one in each explicit bucket.
    pub exemplars: Vec<Exemplar>,
}

/// A value of a histogram, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// In the metric's unit.
    pub value: f64,
    /// When it was measured, in nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
    /// The trace of what was measured.
    pub trace_id: TraceId,
    /// The span that was measured: for a request the SERVER span.
    pub span_id: SpanId,
}

/// Exponential buckets of scale 3: bucket `i` holds values in (2^(i/8), 2^((i+1)/8)].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exponential {
    /// Values at or below the zero threshold.
    pub zero: u64,
    /// The zero threshold, in the metric's unit.
    pub zero_threshold: f64,
    /// The index `i` of the first bucket.
    pub offset: i32,
    /// Counts of the buckets; the last one of the range also holds what is longer.
    pub counts: Vec<u64>,
}

impl Exponential {
    /// OTLP's scale.
    pub const SCALE: i32 = 3;
}

impl Sample {
    /// A counter.
    #[must_use]
    pub fn count(metric: &'static Metric, value: u64) -> Self {
        Self { metric, labels: Vec::new(), value: SampleValue::Count(value) }
    }

    /// A gauge or an up-down counter.
    #[must_use]
    pub fn level(metric: &'static Metric, value: f64) -> Self {
        Self { metric, labels: Vec::new(), value: SampleValue::Level(value) }
    }

    /// A counter that is no whole number.
    #[must_use]
    pub fn sum(metric: &'static Metric, value: f64) -> Self {
        Self { metric, labels: Vec::new(), value: SampleValue::Sum(value) }
    }

    /// A histogram.
    #[must_use]
    pub fn histogram(metric: &'static Metric, value: Histogram) -> Self {
        Self { metric, labels: Vec::new(), value: SampleValue::Histogram(Arc::new(value)) }
    }

    /// The same with a label; the name must be one of the metric's labels.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: LabelValue) -> Self {
        debug_assert!(self.metric.labels.contains(&label), "{label} is no label of {}", self.metric.name);
        self.labels.push((label, value));
        self
    }

    /// The same with a label whose text is fixed.
    #[must_use]
    pub fn with_literal(self, label: &'static str, value: &'static str) -> Self {
        self.with(label, LabelValue::Text(Clean::literal(value)))
    }
}

/// A room's samples of now: called by whoever renders or exports, from any thread; must not block or do I/O.
pub type SampleSource = Arc<dyn Fn(&mut Vec<Sample>) + Send + Sync>;
