//! What this replica has told of the cluster's counts. Pure: marks and samples come in.
//!
//! Every replica counts all of the cluster since its own start. What one of them may tell is the stretch between two
//! marks, once it has claimed it; a mark lies between the same two messages for all. The sum of what all replicas have
//! told is then what happened, whoever told which stretch.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::model::catalogue::{Metric, MetricKind, Scope};
use crate::model::sample::{Histogram, LabelValue, Sample, SampleValue};

/// Marks whose counts are kept. A claim is of the newest, and what was claimed last is seldom older than the one before.
const KEPT: usize = 4;

type Series = (&'static str, Vec<(&'static str, LabelValue)>);
/// Counters and histograms of the cluster, since the start of the process.
type Counts = HashMap<Series, (&'static Metric, SampleValue)>;

/// The counts at the last marks, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The newest value of each series: one that is not read at the moment has not gone.
    latest: Counts,
    /// The first values of what is counted elsewhere: they are of a time before this replica.
    first: Counts,
    /// The counts at the last marks, oldest first.
    marks: VecDeque<(u64, Arc<Counts>)>,
    /// Whether every mark since the start is among `marks`.
    is_whole: bool,
    /// From where on this replica tells; `None` when it never spoke.
    base: Option<(u64, Arc<Counts>)>,
    told: Counts,
}

/// How a term began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Where the one before had ended.
    Exact,
    /// Later: what was counted in between is told by nobody.
    WithGap,
}

impl Share {
    /// Nothing was told, and no mark missed.
    pub(super) fn new() -> Self {
        Self { is_whole: true, ..Self::default() }
    }

    /// A mark, and the samples of its moment.
    pub(super) fn mark(&mut self, number: u64, samples: Vec<Sample>) {
        self.see(samples);
        self.marks.push_back((number, Arc::new(self.latest.clone())));
        if self.marks.len() > KEPT {
            self.marks.pop_front();
            self.is_whole = false;
        }
    }

    /// Marks may have been missed.
    pub(super) fn gap(&mut self) {
        self.is_whole = false;
    }

    /// Whether the counts at this mark are known.
    pub(super) fn knows(&self, number: u64) -> bool {
        self.at(number).is_some()
    }

    /// A number that no mark has had, as far as anybody knows.
    pub(super) fn next(&self, claimed: Option<u64>) -> u64 {
        let known =
            [self.marks.back().map(|(number, _)| *number), self.base.as_ref().map(|(number, _)| *number), claimed];
        known.into_iter().flatten().max().unwrap_or(0) + 1
    }

    /// Begins a term: what was claimed up to this mark is told, by whomever.
    ///
    /// `samples` are those of now, for when it is not known what they were at that mark.
    pub(super) fn begin(&mut self, claimed: Option<u64>, samples: Vec<Sample>) -> Start {
        self.see(samples);
        let newest = self.marks.back().map(|(number, _)| *number).max(self.base.as_ref().map(|(number, _)| *number));
        // a Redis that has forgotten the claim: what was marked was claimed, as a rule
        let Some(claimed) = claimed.or(newest) else { return self.begin_anew() };
        if self.base.as_ref().is_some_and(|(number, _)| *number == claimed) {
            return Start::Exact;
        }
        if let Some(counts) = self.at(claimed) {
            self.base = Some((claimed, counts));
            return Start::Exact;
        }
        if self.is_whole {
            // it was before all that we have heard, so nothing of that was claimed
            self.base = Some((claimed, Arc::default()));
            return Start::Exact;
        }
        let later = self.marks.iter().find(|(number, _)| *number > claimed).cloned();
        self.base = Some(later.unwrap_or_else(|| (claimed, Arc::new(self.latest.clone()))));
        Start::WithGap
    }

    /// There was never a mark.
    fn begin_anew(&mut self) -> Start {
        let (counts, start) = match self.is_whole {
            true => (Arc::default(), Start::Exact),
            false => (Arc::new(self.latest.clone()), Start::WithGap),
        };
        self.base = Some((0, counts));
        start
    }

    /// The counts up to this mark are ours to tell, from now on and for ever.
    pub(super) fn claimed(&mut self, number: u64) {
        let Some(until) = self.at(number) else { return };
        let Some((from, base)) = self.base.take() else { return };
        if number <= from {
            self.base = Some((from, base));
            return;
        }
        for (series, (metric, value)) in until.iter() {
            let before = base.get(series).or_else(|| self.first.get(series));
            let new = since(value, before.map(|(_, value)| value));
            let told = self.told.entry(series.clone()).or_insert_with(|| (metric, nothing(value)));
            told.1 = sum(&told.1, &new);
        }
        self.base = Some((number, until));
    }

    /// All that this replica has told or may tell, since its start.
    pub(super) fn told(&self) -> impl Iterator<Item = Sample> {
        self.told.iter().map(|((_, labels), (metric, value))| Sample {
            metric,
            labels: labels.clone(),
            value: value.clone(),
        })
    }

    fn see(&mut self, samples: Vec<Sample>) {
        for Sample { metric, labels, value } in samples.into_iter().filter(|sample| is_count(sample.metric)) {
            let series = (metric.name, labels);
            if metric.is_sampled() {
                self.first.entry(series.clone()).or_insert_with(|| (metric, value.clone()));
            }
            self.latest.insert(series, (metric, value));
        }
    }

    fn at(&self, number: u64) -> Option<Arc<Counts>> {
        // the newest of that number: a Redis that forgot lets numbers come twice
        self.marks.iter().rev().find(|(known, _)| *known == number).map(|(_, counts)| Arc::clone(counts))
    }
}

/// Whether values of this metric are told in stretches.
pub(super) fn is_count(metric: &Metric) -> bool {
    metric.scope == Scope::Cluster && matches!(metric.kind, MetricKind::Counter | MetricKind::Histogram(_))
}

fn nothing(value: &SampleValue) -> SampleValue {
    match value {
        SampleValue::Count(_) => SampleValue::Count(0),
        SampleValue::Sum(_) => SampleValue::Sum(0.0),
        SampleValue::Level(_) => SampleValue::Level(0.0),
        SampleValue::Histogram(_) => SampleValue::Histogram(Arc::default()),
    }
}

/// What came after; values only rise.
fn since(now: &SampleValue, before: Option<&SampleValue>) -> SampleValue {
    match (now, before) {
        (SampleValue::Count(now), Some(SampleValue::Count(before))) => SampleValue::Count(now.saturating_sub(*before)),
        (SampleValue::Sum(now), Some(SampleValue::Sum(before))) => SampleValue::Sum((now - before).max(0.0)),
        (SampleValue::Histogram(now), Some(SampleValue::Histogram(before))) => {
            let less =
                |index: usize, count: &u64| count.saturating_sub(before.explicit.get(index).copied().unwrap_or(0));
            SampleValue::Histogram(Arc::new(Histogram {
                explicit: now.explicit.iter().enumerate().map(|(index, count)| less(index, count)).collect(),
                sum: (now.sum - before.sum).max(0.0),
                count: now.count.saturating_sub(before.count),
                ..Histogram::default()
            }))
        }
        _ => now.clone(),
    }
}

fn sum(left: &SampleValue, right: &SampleValue) -> SampleValue {
    match (left, right) {
        (SampleValue::Count(left), SampleValue::Count(right)) => SampleValue::Count(left + right),
        (SampleValue::Sum(left), SampleValue::Sum(right)) => SampleValue::Sum(left + right),
        (SampleValue::Histogram(left), SampleValue::Histogram(right)) => {
            let more =
                |index: usize| [left, right].map(|one| one.explicit.get(index).copied().unwrap_or(0)).iter().sum();
            SampleValue::Histogram(Arc::new(Histogram {
                explicit: (0..left.explicit.len().max(right.explicit.len())).map(more).collect(),
                sum: left.sum + right.sum,
                count: left.count + right.count,
                ..Histogram::default()
            }))
        }
        _ => right.clone(),
    }
}

#[cfg(test)]
mod tests;
