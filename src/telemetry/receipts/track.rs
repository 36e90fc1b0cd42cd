//! From reading to reading: how the way to each vendor fares, and since when. Pure: time is an argument.

use std::collections::BTreeMap;

use crate::model::export::{Exporter, ReceiptCondition, Received, SignalReceipt};
use crate::model::telemetry::Signal;
use crate::redact::{Clean, Outlet, Redactor};
use crate::telemetry::receipts::page::{Page, Reading};

/// Of a name or a vendor.
const NAME_BYTES: usize = 128;

/// What was read so far.
#[derive(Debug, Default)]
pub(super) struct Track {
    ways: BTreeMap<(String, usize), Way>,
    /// What the last page said came in, and what came in so far.
    received: [(Received, Received); Signal::OTLP.len()],
}

/// The way of one signal to one vendor.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    last: Reading,
    receipt: SignalReceipt,
    /// Something waits since then, and nothing was accepted.
    waiting_since: Option<f64>,
}

impl Track {
    /// Takes a page in that was read at this time.
    pub(super) fn observe(&mut self, page: &Page, now: f64) {
        for (key, reading) in &page.exporters {
            self.ways.entry(key.clone()).or_default().observe(reading, now);
        }
        for ((last, so_far), reading) in self.received.iter_mut().zip(&page.received) {
            so_far.accepted += grown(last.accepted, reading.accepted);
            so_far.refused += grown(last.refused, reading.refused);
            *last = *reading;
        }
        // an exporter that is gone from the collector's file is gone from ours with its next page
        self.ways.retain(|key, _| page.exporters.contains_key(key));
    }

    /// What came in so far, by `Signal::OTLP`.
    pub(super) fn received(&self) -> [Received; Signal::OTLP.len()] {
        self.received.map(|(_, so_far)| so_far)
    }

    /// The exporters, by name.
    pub(super) fn exporters(&self, redactor: &Redactor) -> Vec<Exporter> {
        let mut exporters: BTreeMap<&str, [Option<SignalReceipt>; Signal::OTLP.len()]> = BTreeMap::new();
        for ((name, signal), way) in &self.ways {
            exporters.entry(name).or_default()[*signal] = Some(way.receipt);
        }
        let exporter = |(name, signals)| Exporter {
            name: clean_name(redactor, name),
            vendor: clean_name(redactor, vendor(name)),
            signals,
        };
        exporters.into_iter().map(exporter).collect()
    }
}

/// A name or a vendor as it may be shown.
pub(super) fn clean_name(redactor: &Redactor, text: &str) -> Clean<'static> {
    redactor.text(Outlet::Endpoint, text.as_bytes()).cut(NAME_BYTES).into_owned()
}

/// Whom an exporter is for: what its name says behind the slash, else its kind.
pub(super) fn vendor(name: &str) -> &str {
    let (kind, own) = name.split_once('/').unwrap_or((name, name));
    match own.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
        "datadog" => "Datadog",
        "newrelic" => "New Relic",
        "sentry" => "Sentry",
        "" => kind,
        _ => own,
    }
}

impl Way {
    fn observe(&mut self, reading: &Reading, now: f64) {
        let accepted = grown(self.last.accepted, reading.accepted);
        let failed = grown(self.last.failed, reading.failed);
        let not_queued = grown(self.last.not_queued, reading.not_queued);
        let before = std::mem::replace(&mut self.last, *reading);
        let receipt = &mut self.receipt;
        receipt.accepted += accepted;
        receipt.failed += failed;
        receipt.not_queued += not_queued;
        (receipt.queue, receipt.capacity) = (reading.queue, reading.capacity);
        if let Some(bytes) = reading.bytes {
            *receipt.bytes.get_or_insert(0) += grown(before.bytes.unwrap_or_default(), bytes);
        }
        if accepted > 0 {
            receipt.last_accepted_at = Some(now);
        }
        let waits = accepted == 0 && (reading.queue.unwrap_or_default() > 0.0 || reading.in_flight > 0.0);
        let waited_before = self.waiting_since.is_some();
        self.waiting_since = waits.then(|| self.waiting_since.unwrap_or(now));
        let (condition, since) = match receipt.condition {
            _ if failed + not_queued > 0 => (ReceiptCondition::Refusing, now),
            _ if accepted > 0 => (ReceiptCondition::Accepting, now),
            ReceiptCondition::Refusing => (ReceiptCondition::Refusing, now),
            // one reading in between is a request on its way
            _ if waits && waited_before => (ReceiptCondition::Waiting, self.waiting_since.unwrap_or(now)),
            ReceiptCondition::Waiting if !waits => (ReceiptCondition::Idle, now),
            unchanged => (unchanged, now),
        };
        if condition != receipt.condition || receipt.since == 0.0 {
            (receipt.condition, receipt.since) = (condition, since);
        }
    }
}

/// A count that is lower than before began anew, with the collector.
pub(super) fn grown(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(readings: &[(f64, Reading)]) -> SignalReceipt {
        let mut track = Track::default();
        for (now, reading) in readings {
            let exporters = [(("otlp_http/newrelic".to_owned(), 0), *reading)].into();
            track.observe(&Page { exporters, ..Page::default() }, *now);
        }
        let exporter = track.exporters(&Redactor::new([])).remove(0);
        assert_eq!(exporter.vendor.as_str(), "New Relic");
        exporter.signals[0].unwrap()
    }

    fn sent(accepted: u64, failed: u64) -> Reading {
        Reading { accepted, failed, ..Reading::default() }
    }

    #[test]
    fn a_vendor_refuses_since_its_first_failure_until_it_accepts() {
        let mut readings = vec![(1.0, sent(5, 0)), (2.0, sent(5, 3)), (3.0, sent(5, 3)), (4.0, sent(5, 9))];
        let refusing = observed(&readings);
        assert_eq!((refusing.condition, refusing.since), (ReceiptCondition::Refusing, 2.0));
        assert_eq!((refusing.accepted, refusing.failed, refusing.last_accepted_at), (5, 9, Some(1.0)));
        readings.push((5.0, sent(6, 9)));
        let again = observed(&readings);
        assert_eq!((again.condition, again.since), (ReceiptCondition::Accepting, 5.0));
    }

    #[test]
    fn what_waits_for_long_is_told_and_a_request_on_its_way_is_not() {
        let waiting = Reading { queue: Some(3.0), ..sent(5, 0) };
        let mut readings = vec![(1.0, sent(5, 0)), (2.0, waiting)];
        assert_eq!(observed(&readings).condition, ReceiptCondition::Accepting);
        readings.push((3.0, waiting));
        let told = observed(&readings);
        assert_eq!((told.condition, told.since), (ReceiptCondition::Waiting, 2.0));
        readings.push((4.0, Reading { queue: Some(3.0), ..sent(9, 0) }));
        assert_eq!(observed(&readings).condition, ReceiptCondition::Accepting);
    }

    #[test]
    fn counts_go_on_when_the_collector_begins_anew() {
        let receipt = observed(&[(1.0, sent(100, 1)), (2.0, sent(10, 0)), (3.0, sent(15, 0))]);
        assert_eq!((receipt.accepted, receipt.failed, receipt.bytes), (115, 1, None));
        let bytes = [700, 80, 90].map(|bytes| Reading { bytes: Some(bytes), ..sent(1, 0) });
        assert_eq!(observed(&[(1.0, bytes[0]), (2.0, bytes[1]), (3.0, bytes[2])]).bytes, Some(790));
        assert_eq!(observed(&[(1.0, sent(0, 0))]).condition, ReceiptCondition::Idle);
        let mut track = Track::default();
        for accepted in [100, 10, 15] {
            let mut page = Page::default();
            page.received[0].accepted = accepted;
            track.observe(&page, 1.0);
        }
        assert_eq!(track.received()[0].accepted, 115);
    }

    #[test]
    fn names_tell_the_vendor() {
        for (name, expected) in [
            ("otlp_http/datadog", "Datadog"),
            ("otlphttp/new_relic", "New Relic"),
            ("otlp_http/sentry", "Sentry"),
            ("otlp_grpc/gateway", "gateway"),
            ("debug", "debug"),
        ] {
            assert_eq!(vendor(name), expected);
        }
    }
}
