//! What others may know of the way out: accounts and state, read at any time from any thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::model::catalogue::telemetry::TELEMETRY_COMPRESSIONS;
use crate::model::catalogue::{
    TELEMETRY_BREAKER_OPEN, TELEMETRY_DELIVERED, TELEMETRY_DELIVERED_SIZE, TELEMETRY_DROPPED, TELEMETRY_OLDEST_AGE,
    TELEMETRY_PRODUCED, TELEMETRY_QUEUE_BYTES, TELEMETRY_QUEUED, TELEMETRY_REJECTED, TELEMETRY_RETRIES,
    TELEMETRY_SENT_SIZE, TELEMETRY_SERIES, TELEMETRY_SPOOL_ERRORS, TELEMETRY_TAIL_OVER_BUDGET, TELEMETRY_TRUNCATED,
};
use crate::model::export::{ExportState, Receipts, Volume, WayOut};
use crate::model::sample::Sample;
use crate::model::telemetry::{DropReason, ExportCondition, Signal};
use crate::telemetry::queue::Queue;
use crate::telemetry::receipts;
use crate::telemetry::sender::compression::{Occasion, Press};
use crate::telemetry::sender::destination::Destinations;
use crate::telemetry::spool::Spool;
use crate::telemetry::tail::Reason;

/// Reads how the way out fares.
#[derive(Clone, Debug)]
pub struct Reader {
    queues: [Arc<Queue>; Signal::ALL.len()],
    destinations: Destinations,
    press: Arc<Press>,
    spool: Option<Arc<Spool>>,
    receipts: Option<watch::Receiver<Arc<Receipts>>>,
    /// Series of metrics that were exported so far; the exporter writes it.
    series: Arc<AtomicU64>,
}

impl Reader {
    pub(crate) fn new(
        queues: [Arc<Queue>; Signal::ALL.len()],
        (destinations, press): (Destinations, Arc<Press>),
        spool: Option<Arc<Spool>>,
        receipts: Option<watch::Receiver<Arc<Receipts>>>,
        series: Arc<AtomicU64>,
    ) -> Self {
        Self { queues, destinations, press, spool, receipts, series }
    }

    /// The accounts, each exact at one moment, and the state of deliveries.
    #[must_use]
    pub fn state(&self) -> ExportState {
        let destinations = || Signal::OTLP.iter().filter_map(|signal| self.destinations[*signal as usize].as_ref());
        let conditions = destinations().map(|destination| destination.condition());
        let worst = conditions.max_by_key(|condition| match condition {
            ExportCondition::Off => 0,
            ExportCondition::Idle => 1,
            ExportCondition::Delivering => 2,
            ExportCondition::Failing => 3,
        });
        let last = destinations().filter_map(|destination| destination.last_delivered()).max();
        ExportState {
            accounts: Signal::ALL.map(|signal| self.queues[signal as usize].account()),
            condition: worst.unwrap_or(ExportCondition::Off),
            last_delivered_at: last.and_then(unix_seconds),
            endpoint: destinations().next().map_or_else(String::new, |destination| destination.config().address()),
            ways: Signal::ALL.map(|signal| self.way(signal)),
            receipts: self.receipts.as_ref().map(|receipts| receipts.borrow().clone()),
            volumes: Signal::ALL.map(|signal| self.volume(signal)),
            series: self.series.load(Ordering::Relaxed),
        }
    }

    fn volume(&self, signal: Signal) -> Volume {
        self.destinations[signal as usize].as_ref().map(|destination| destination.volume(signal)).unwrap_or_default()
    }

    fn way(&self, signal: Signal) -> Option<WayOut> {
        let destination = self.destinations[signal as usize].as_ref()?;
        Some(WayOut {
            endpoint: destination.config().address(),
            condition: destination.condition(),
            is_given_up: destination.is_given_up(),
            last_delivered_at: destination.last_delivered().and_then(unix_seconds),
            retries: destination.retries(signal),
            problem: destination.problem(),
        })
    }

    /// The accounts as metrics.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        let is_shown = |signal: &Signal| signal.joins() || self.destinations[*signal as usize].is_some();
        for signal in Signal::ALL.into_iter().filter(is_shown) {
            let account = self.queues[signal as usize].account();
            let labelled = |sample: Sample| sample.with_literal("signal", signal.label());
            out.push(labelled(Sample::count(&TELEMETRY_PRODUCED, account.produced)));
            out.push(labelled(Sample::count(&TELEMETRY_DELIVERED, account.delivered)));
            out.push(labelled(Sample::count(&TELEMETRY_REJECTED, account.rejected)));
            for reason in DropReason::ALL {
                let dropped = Sample::count(&TELEMETRY_DROPPED, account.dropped[reason as usize]);
                out.push(labelled(dropped).with_literal("reason", reason.label()));
            }
            let places =
                [("memory", account.queued, account.queued_bytes), ("disk", account.spooled, account.spooled_bytes)];
            for (place, items, bytes) in places {
                let queued = Sample::level(&TELEMETRY_QUEUED, items as f64);
                out.push(labelled(queued).with_literal("place", place));
                let bytes = Sample::level(&TELEMETRY_QUEUE_BYTES, bytes as f64);
                out.push(labelled(bytes).with_literal("place", place));
            }
            let age = self.queues[signal as usize].oldest_age().as_secs_f64();
            out.push(labelled(Sample::level(&TELEMETRY_OLDEST_AGE, age)));
            if let Some(destination) = &self.destinations[signal as usize] {
                out.push(labelled(Sample::count(&TELEMETRY_RETRIES, destination.retries(signal))));
                let is_open = f64::from(u8::from(destination.is_given_up()));
                out.push(labelled(Sample::level(&TELEMETRY_BREAKER_OPEN, is_open)));
                let volume = destination.volume(signal);
                out.push(labelled(Sample::count(&TELEMETRY_DELIVERED_SIZE, volume.bytes)));
                out.push(labelled(Sample::count(&TELEMETRY_SENT_SIZE, volume.compressed_bytes)));
                for reason in Occasion::ALL {
                    let batches = Sample::count(&TELEMETRY_COMPRESSIONS, self.press.compressions(signal, reason));
                    out.push(labelled(batches).with_literal("reason", reason.label()));
                }
            }
            let truncated = self.queues[signal as usize].truncated();
            out.push(labelled(Sample::count(&TELEMETRY_TRUNCATED, truncated)));
        }
        for reason in Reason::TAIL {
            let requests = self.queues[Signal::Traces as usize].over_budget(reason);
            out.push(Sample::count(&TELEMETRY_TAIL_OVER_BUDGET, requests).with_literal("reason", reason.label()));
        }
        let errors = self.spool.as_ref().map_or(0, |spool| spool.errors());
        out.push(Sample::count(&TELEMETRY_SPOOL_ERRORS, errors));
        out.push(Sample::level(&TELEMETRY_SERIES, self.series.load(Ordering::Relaxed) as f64));
        if let Some(receipts) = &self.receipts {
            receipts::samples(&receipts.borrow(), out);
        }
    }
}

fn unix_seconds(time: SystemTime) -> Option<f64> {
    time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs_f64()).ok()
}
