//! What each vendor has said between two looks at the collector: for `check-export`, which waits for it.
//!
//! The counts are of everybody's telemetry: one that grows says that the vendor accepts, not whose item it was.

use std::collections::BTreeMap;

use reqwest::Client;

use crate::model::telemetry::Signal;
use crate::redact::{Clean, Redactor};
use crate::telemetry::receipts::page::Reading;
use crate::telemetry::receipts::track::{clean_name, grown, vendor};
use crate::telemetry::receipts::word::read_page;

/// What a hop says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has it.
    Accepted,
    /// It does not want it, or gave it up.
    Refused(Clean<'static>),
    /// It has said nothing so far.
    Silent(Clean<'static>),
}

/// What the collector says of one vendor; signals that it does not get are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorVerdict {
    /// Whom it is for, as far as the exporter's name tells.
    pub vendor: Clean<'static>,
    /// As the collector's file names it.
    pub exporter: Clean<'static>,
    /// By signal.
    pub signals: Vec<(Signal, Verdict)>,
}

/// What a collector has counted of its exporters, by name and the signal's place in `Signal::OTLP`.
#[derive(Debug, Default)]
pub struct Counts(BTreeMap<(String, usize), Reading>);

impl Counts {
    /// Looks at the collector's metrics.
    ///
    /// # Errors
    /// When they cannot be read: the text says why, and is not clean.
    pub(crate) async fn read(client: &Client, url: &str) -> Result<Self, String> {
        Ok(Self(read_page(client, url).await?.exporters))
    }

    /// What vendors said of these signals since an earlier look.
    pub(crate) fn since(&self, before: &Self, signals: &[Signal], redactor: &Redactor) -> Vec<VendorVerdict> {
        let mut vendors: BTreeMap<&str, Vec<(Signal, Verdict)>> = BTreeMap::new();
        for (key, reading) in &self.0 {
            let (exporter, signal) = (key.0.as_str(), Signal::OTLP[key.1]);
            if signals.contains(&signal) {
                let earlier = before.0.get(key).copied().unwrap_or_default();
                vendors.entry(exporter).or_default().push((signal, verdict(&earlier, reading)));
            }
        }
        let told = |(exporter, signals)| VendorVerdict {
            vendor: clean_name(redactor, vendor(exporter)),
            exporter: clean_name(redactor, exporter),
            signals,
        };
        vendors.into_iter().map(told).collect()
    }
}

/// A failure first: who accepts a part and gives up another is not well.
fn verdict(before: &Reading, now: &Reading) -> Verdict {
    if grown(before.failed, now.failed) > 0 {
        Verdict::Refused(Clean::literal("given up: the collector's log has the vendor's answer"))
    } else if grown(before.not_queued, now.not_queued) > 0 {
        Verdict::Refused(Clean::literal("the collector's queue for it is full"))
    } else if grown(before.accepted, now.accepted) > 0 {
        Verdict::Accepted
    } else if now.queue.unwrap_or_default() > 0.0 {
        Verdict::Silent(Clean::literal("something waits in the collector's queue, and nothing was accepted"))
    } else {
        Verdict::Silent(Clean::literal("nothing was accepted; a sampler in between may have left the span out"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(entries: &[(&str, Signal, Reading)]) -> Counts {
        Counts(
            entries.iter().map(|(name, signal, reading)| (((*name).to_owned(), *signal as usize), *reading)).collect(),
        )
    }

    #[test]
    fn each_vendor_is_judged_by_what_grew_and_by_a_failure_first() {
        let reading = |accepted, failed, queue| Reading { accepted, failed, queue, ..Reading::default() };
        let before = counts(&[
            ("otlp_http/datadog", Signal::Traces, reading(5, 9, None)),
            ("otlp_http/newrelic", Signal::Traces, reading(5, 0, None)),
        ]);
        let now = counts(&[
            ("otlp_http/datadog", Signal::Traces, reading(6, 9, None)),
            ("otlp_http/datadog", Signal::Logs, reading(3, 0, None)),
            ("otlp_http/newrelic", Signal::Traces, reading(6, 1, None)),
            ("otlp_http/sentry", Signal::Traces, reading(0, 0, Some(2.0))),
        ]);
        let told = now.since(&before, &[Signal::Traces], &Redactor::new([]));
        let told: Vec<_> = told.iter().map(|one| (one.vendor.as_str(), &one.signals[..])).collect();
        assert!(matches!(told[0], ("Datadog", [(Signal::Traces, Verdict::Accepted)])), "{told:?}");
        assert!(matches!(told[1], ("New Relic", [(Signal::Traces, Verdict::Refused(_))])), "{told:?}");
        assert!(matches!(told[2], ("Sentry", [(Signal::Traces, Verdict::Silent(_))])), "{told:?}");
    }

    #[test]
    fn a_collector_that_began_anew_is_judged_by_its_new_counts() {
        let reading = |accepted| Reading { accepted, ..Reading::default() };
        let (before, now) = (counts(&[("x", Signal::Logs, reading(100))]), counts(&[("x", Signal::Logs, reading(1))]));
        let told = now.since(&before, &Signal::OTLP, &Redactor::new([]));
        assert_eq!(told[0].signals, [(Signal::Logs, Verdict::Accepted)]);
    }
}
