//! The exemplars of a series: for each explicit bucket the last request whose spans are kept.
//!
//! The last one, not one drawn by lot: the specification allows both for buckets; its trace is the likeliest to be
//! still there for who looks at the newest points, it needs neither random numbers nor a count that a reader would
//! have to take back at each export, and it costs five stores. Under the version of the series, as all its counters.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::catalogue::{REQUEST_SECONDS, STREAM_SECONDS};
use crate::model::request::RequestRecord;
use crate::model::sample::Exemplar;
use crate::model::trace::{SpanId, TraceId};

/// One for each explicit bucket of durations, the one above all bounds too.
pub(super) const BUCKETS: usize = REQUEST_SECONDS.len() + 1;
const _: () = assert!(STREAM_SECONDS.len() < BUCKETS);

/// The slots of one series: 600 bytes, which only a series with a kept span takes.
#[derive(Debug)]
pub(super) struct Slots([Slot; BUCKETS]);

/// Words, because a reader may look while they are written; the version tells him.
#[derive(Debug, Default)]
struct Slot {
    trace_id: [AtomicU64; 2],
    /// 0, which is no id, while the slot is empty.
    span_id: AtomicU64,
    nanos: AtomicU64,
    ended_unix_nanos: AtomicU64,
}

/// A request as the example of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Example {
    trace_id: [u64; 2],
    span_id: u64,
    nanos: u64,
    ended_unix_nanos: u64,
}

/// The examples of one or more series at one moment, by bucket.
pub(super) type Examples = [Option<Example>; BUCKETS];

impl Example {
    /// Of a request that took so long; `None` when none of its spans is kept.
    pub(super) fn of(record: &RequestRecord<'_>, nanos: u64) -> Option<Self> {
        let trace = record.trace.as_ref().filter(|trace| trace.kept.get())?;
        let (id, _) = trace.trace_id.0.as_chunks();
        Some(Self {
            trace_id: [u64::from_be_bytes(id[0]), u64::from_be_bytes(id[1])],
            span_id: u64::from_be_bytes(trace.span_id.0),
            nanos,
            ended_unix_nanos: record.started_unix_nanos.saturating_add(nanos),
        })
    }
}

impl From<Example> for Exemplar {
    fn from(example: Example) -> Self {
        let trace_id = u128::from(example.trace_id[0]) << 64 | u128::from(example.trace_id[1]);
        Self {
            value: example.nanos as f64 / 1e9,
            unix_nanos: example.ended_unix_nanos,
            trace_id: TraceId(trace_id.to_be_bytes()),
            span_id: SpanId(example.span_id.to_be_bytes()),
        }
    }
}

impl Slots {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self(Default::default()))
    }

    /// Takes the place of the last one of this bucket. One thread only.
    pub(super) fn put(&self, bucket: usize, example: &Example) {
        let slot = &self.0[bucket];
        slot.trace_id[0].store(example.trace_id[0], Ordering::Relaxed);
        slot.trace_id[1].store(example.trace_id[1], Ordering::Relaxed);
        slot.span_id.store(example.span_id, Ordering::Relaxed);
        slot.nanos.store(example.nanos, Ordering::Relaxed);
        slot.ended_unix_nanos.store(example.ended_unix_nanos, Ordering::Relaxed);
    }

    /// All that are there. Whole only when the version of the series says so.
    pub(super) fn examples(&self) -> Examples {
        self.0.each_ref().map(|slot| {
            let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
            let example = Example {
                trace_id: slot.trace_id.each_ref().map(load),
                span_id: load(&slot.span_id),
                nanos: load(&slot.nanos),
                ended_unix_nanos: load(&slot.ended_unix_nanos),
            };
            (example.span_id != 0).then_some(example)
        })
    }
}

/// Of two workers' examples the later ones.
pub(super) fn merge(mine: &mut Examples, theirs: &Examples) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        let ended = |example: &Option<Example>| example.map(|example| example.ended_unix_nanos);
        if ended(theirs) > ended(mine) {
            *mine = *theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_of_a_series_are_as_large_as_their_documentation_says() {
        assert_eq!(size_of::<Slots>(), 600);
    }
}
