//! What is known of every metric, whatever it counts.

use std::time::Duration;

/// A metric: what it is called, what it counts, and how old its values may be.
#[derive(Debug, PartialEq)]
pub struct Metric {
    /// The OTLP name; the Prometheus name is made from it, the unit and the kind.
    pub name: &'static str,
    /// UCUM, as the conventions write it: `s`, `By`, `1`, `{request}`.
    pub unit: &'static str,
    /// Kind of instrument.
    pub kind: MetricKind,
    /// The names of its labels, in the order in which they are shown.
    pub labels: &'static [&'static str],
    /// Of whom it is true.
    pub scope: Scope,
    /// A value older than this is not shown (see `allows`); zero for values that are read when asked.
    pub max_age: Duration,
    /// What it tells, in one sentence.
    pub about: &'static str,
}

/// A metric of this pod that is counted here, and read when it is asked for.
pub(super) const fn metric(
    name: &'static str,
    unit: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    about: &'static str,
) -> Metric {
    Metric { name, unit, kind, labels, scope: Scope::Pod, max_age: Duration::ZERO, about }
}

/// The same of what a sampler reads in the background.
pub(super) const fn sampled(
    name: &'static str,
    unit: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    about: &'static str,
) -> Metric {
    Metric { max_age: SAMPLED, ..metric(name, unit, kind, labels, about) }
}

/// The same of what is true of the cluster, whichever replica tells of it.
pub(super) const fn of_cluster(
    name: &'static str,
    unit: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    about: &'static str,
) -> Metric {
    Metric { scope: Scope::Cluster, ..metric(name, unit, kind, labels, about) }
}

impl Metric {
    /// Whether a value of this age may be shown, of a source that is read anew each `period`: it is too old when it is older than
    /// `max_age`, or where that would hide a slow source between two readings, than three periods.
    #[must_use]
    pub fn allows(&self, age: Duration, period: Duration) -> bool {
        self.max_age.is_zero() || age <= self.max_age.max(period * PERIODS)
    }

    /// Whether a background interval reads it from elsewhere; all others are counted here.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        !self.max_age.is_zero()
    }
}

/// Several intervals of the samplers: a value that is older than that was not refreshed.
const SAMPLED: Duration = Duration::from_secs(60);

/// Readings that may fail or be late in a row.
const PERIODS: u32 = 3;

/// The kind of an instrument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Never falls while the process lives.
    Counter,
    /// Rises and falls, and adds up over replicas.
    UpDownCounter,
    /// A level that does not add up.
    Gauge,
    /// A distribution, with the bounds of its explicit form.
    Histogram(&'static [f64]),
}

/// Of whom a metric is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of this pod: each replica exports its own.
    Pod,
    /// Of the cluster: one replica exports it, or sums would multiply.
    Cluster,
}
