//! `SpanWriter`: a worker's outlet for spans. Appends finished requests to a chunk, and hands the chunk over.
//!
//! Lives on the worker's thread; never waits, and has no clock: the worker's timer ticks.

use crate::model::request::{Outcome, RequestHead, RequestRecord, RequestSink};
use crate::telemetry::hand_off::HandOff;
use crate::telemetry::sealed::Errors;
use crate::telemetry::span::SpanEncoder;
use crate::telemetry::tail::{TailKeep, Verdict};

/// A chunk of this size is handed over at once.
const CHUNK_BYTES: usize = 64 << 10;
/// With about 100 ms between two ticks, no span waits here for more than about 250 ms.
const CHUNK_TICKS: u8 = 2;

/// Writes the spans of one worker's requests.
#[derive(Debug)]
pub struct SpanWriter {
    encoder: SpanEncoder,
    tail: TailKeep,
    /// `None` when traces are switched off.
    hand_off: Option<HandOff>,
    /// The chunk that is being written, and how many spans are in it.
    chunk: Vec<u8>,
    spans: u64,
    /// Whether none of them tells of an error.
    is_well: bool,
    ticks: u8,
}

impl SpanWriter {
    pub(crate) fn new(encoder: SpanEncoder, tail: TailKeep, hand_off: Option<HandOff>) -> Self {
        Self { encoder, tail, hand_off, chunk: Vec::new(), spans: 0, is_well: true, ticks: 0 }
    }

    fn hand_over(&mut self) {
        self.ticks = 0;
        let Some(hand_off) = self.hand_off.as_mut().filter(|_| self.spans > 0) else { return };
        let errors = if std::mem::replace(&mut self.is_well, true) { Errors::None } else { Errors::Unknown };
        self.chunk = hand_off.give((std::mem::take(&mut self.spans), errors), std::mem::take(&mut self.chunk));
    }
}

impl RequestSink for SpanWriter {
    fn begin(&mut self, _: &RequestHead) {}

    fn last_write(&mut self) {}

    fn not_yet(&mut self) {}

    fn end(&mut self, record: &RequestRecord<'_>) {
        let (Some(trace), Some(hand_off)) = (&record.trace, &self.hand_off) else { return };
        let reason = match self.tail.judge(record, trace.sampled) {
            Verdict::Kept(reason) => reason,
            Verdict::OverBudget(reason) => return hand_off.count.count_over_budget(reason),
            Verdict::LeftOut => return,
        };
        let spans = self.encoder.append(&mut self.chunk, record, trace, reason);
        self.spans += spans;
        self.is_well &= is_well(record);
        trace.kept.set(true);
        hand_off.count.count_produced(spans);
        match self.encoder.take_truncated() {
            0 => {}
            values => hand_off.count.count_truncated(values),
        }
        if self.chunk.len() >= CHUNK_BYTES {
            self.hand_over();
        }
    }

    fn tick(&mut self) {
        self.tail.tick();
        self.ticks += 1;
        if self.ticks >= CHUNK_TICKS {
            self.hand_over();
        }
    }
}

/// Whether neither span of a request tells of an error; for the application's side 404 is one.
fn is_well(record: &RequestRecord<'_>) -> bool {
    record.status < 400 && record.outcome == Outcome::Answered && record.hop.is_none_or(|hop| hop.status < 400)
}

impl Drop for SpanWriter {
    fn drop(&mut self) {
        self.hand_over();
    }
}
