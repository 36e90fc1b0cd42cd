//! What came in and what did not, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::catalogue::{INTAKE_ITEMS, INTAKE_LEFT_OUT, INTAKE_REFUSED};
use crate::model::sample::Sample;
use crate::model::telemetry::Signal;
use crate::telemetry::intake::answer::{REASONS, Refusal};

/// Why items of a request that was taken are not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// The proxy measures the same.
    ServerMetrics,
    /// A span without a trace id or a span id.
    NoIds,
    /// The signal is not exported.
    SwitchedOff,
}

impl LeftOut {
    const ALL: [Self; 3] = [Self::ServerMetrics, Self::NoIds, Self::SwitchedOff];

    fn label(self) -> &'static str {
        match self {
            Self::ServerMetrics => "server_metrics",
            Self::NoIds => "no_ids",
            Self::SwitchedOff => "switched_off",
        }
    }

    /// What the sender is told.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::ServerMetrics => {
                "http.server.* is left out under the sidecar's service.name, because its proxy measures the same requests \
                 (telemetry.intake.server_metrics)"
            }
            Self::NoIds => {
                "found spans without a trace id of 16 bytes or a span id of 8 bytes, which no receiver takes"
            }
            Self::SwitchedOff => "this signal is not exported (telemetry.<signal>.enabled)",
        }
    }
}

/// Relaxed atomics, of whoever serves a connection.
#[derive(Debug, Default)]
pub(super) struct Counts {
    items: [AtomicU64; Signal::OTLP.len()],
    left_out: [[AtomicU64; LeftOut::ALL.len()]; Signal::OTLP.len()],
    refused: [AtomicU64; REASONS.len()],
}

impl Counts {
    pub(super) fn took(&self, signal: Signal, items: u64) {
        self.items[signal as usize].fetch_add(items, Ordering::Relaxed);
    }

    /// Gives whether they were the first.
    pub(super) fn left_out(&self, signal: Signal, why: LeftOut, items: u64) -> bool {
        items > 0 && self.left_out[signal as usize][why as usize].fetch_add(items, Ordering::Relaxed) == 0
    }

    /// Gives whether it was the first for its reason.
    pub(super) fn refused(&self, refusal: Refusal) -> bool {
        self.refused[refusal.reason()].fetch_add(1, Ordering::Relaxed) == 0
    }

    /// A connection for which there was no place. Gives whether it was the first.
    pub(super) fn turned_away(&self) -> bool {
        self.refused[REASONS.len() - 1].fetch_add(1, Ordering::Relaxed) == 0
    }

    pub(super) fn samples(&self, out: &mut Vec<Sample>) {
        for signal in Signal::OTLP {
            let labelled = |sample: Sample| sample.with_literal("signal", signal.label());
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            out.push(labelled(Sample::count(&INTAKE_ITEMS, count(&self.items[signal as usize]))));
            for why in LeftOut::ALL {
                let left_out = Sample::count(&INTAKE_LEFT_OUT, count(&self.left_out[signal as usize][why as usize]));
                out.push(labelled(left_out).with_literal("reason", why.label()));
            }
        }
        for (reason, refused) in REASONS.iter().zip(&self.refused) {
            let refused = Sample::count(&INTAKE_REFUSED, refused.load(Ordering::Relaxed));
            out.push(refused.with_literal("reason", reason));
        }
    }
}
