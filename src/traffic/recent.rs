//! The last requests that failed: a small ring for each worker.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::request::{Method, RequestRecord};
use crate::model::trace::{SpanId, TraceId};

/// How many are kept.
pub(super) const KEPT: usize = 50;

/// A request that failed, without texts: they are those of its series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// How many its worker had by then, with this one.
    pub(super) number: u64,
    pub(super) ended_unix_nanos: u64,
    pub(super) duration: Duration,
    pub(super) method: Method,
    pub(super) status: u16,
    /// The reason that the proxy knows; else the status is the reason.
    pub(super) reason: Option<&'static str>,
    /// Where its series stands in the shard.
    pub(super) series: usize,
    pub(super) trace_id: Option<TraceId>,
    pub(super) span_id: Option<SpanId>,
}

/// The newest entries; memory is taken once.
#[derive(Debug)]
pub(super) struct Recent(VecDeque<Entry>);

impl Entry {
    pub(super) fn of(record: &RequestRecord<'_>, series: usize, number: u64) -> Self {
        let nanos = u64::try_from(record.duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            number,
            ended_unix_nanos: record.started_unix_nanos.saturating_add(nanos),
            duration: record.duration,
            method: record.method,
            status: record.status,
            reason: record.error_type(),
            series,
            trace_id: record.trace.as_ref().map(|trace| trace.trace_id),
            span_id: record.trace.as_ref().map(|trace| trace.span_id),
        }
    }
}

impl Recent {
    pub(super) fn new() -> Self {
        Self(VecDeque::with_capacity(KEPT))
    }

    /// Adds one; the oldest goes when there are too many.
    pub(super) fn push(&mut self, entry: Entry) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    /// Moves all entries of `other` here.
    pub(super) fn take_from(&mut self, other: &mut Self) {
        other.0.drain(..).for_each(|entry| self.push(entry));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy of what is kept.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.0.iter().copied().collect()
    }
}
