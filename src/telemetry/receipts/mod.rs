//! Receipts: what the collector says became of telemetry at each vendor, read from its own metrics.
//!
//! The collector's word is all there is: its counts are of everybody's telemetry, and say nothing of a single item. Only
//! with `telemetry.receipts.url`; each reading is bounded in bytes and time, and a collector that is away costs a line.

pub mod acceptance;
pub mod config;
mod page;
mod track;
mod word;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::fetch;
use crate::lifecycle::Drain;
use crate::model::catalogue::{EXPORTER_ACCEPTED, EXPORTER_FAILED, EXPORTER_REFUSING};
use crate::model::export::{ReceiptCondition, Receipts, Received};
use crate::model::sample::{LabelValue, Sample};
use crate::model::telemetry::Signal;
use crate::redact::{Clean, Outlet, Redactor};
use crate::telemetry::receipts::config::ReceiptsConfig;
use crate::telemetry::receipts::track::Track;
use crate::wall_clock::since_epoch;

/// For one answer, all told.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
const NO_COLLECTOR: &str =
    "found no otelcol_ metrics, expected those of a collector itself (service.telemetry.metrics, usually on port 8888)";
/// Of a problem's text.
const TEXT_BYTES: usize = 300;

/// Reads receipts. One for the process.
#[derive(Debug)]
pub struct ReceiptsReader {
    config: ReceiptsConfig,
    redactor: Arc<Redactor>,
    track: Mutex<Track>,
    read: watch::Sender<Arc<Receipts>>,
}

impl ReceiptsReader {
    pub(crate) fn new(config: &ReceiptsConfig, redactor: &Arc<Redactor>) -> Self {
        let (config, redactor) = (config.clone(), Arc::clone(redactor));
        let url = redactor.text(Outlet::Endpoint, config.url.as_str().as_bytes()).as_str().to_owned();
        let receipts = Receipts { url, ..Receipts::default() };
        let (read, _) = watch::channel(Arc::new(receipts));
        Self { config, redactor, track: Mutex::default(), read }
    }

    /// The last that was read, and what is read from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Receipts>> {
        self.read.subscribe()
    }

    /// Reads until the drain begins. May be called again after a panic.
    pub async fn run(&self, mut drain: Drain) {
        let Ok(client) = fetch::client(PATIENCE) else { return };
        let mut looks = interval(self.config.interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = async { looks.tick().await; self.look(&client).await } => {}
                _ = drain.begun() => return,
            }
        }
    }

    /// Reads once.
    pub(crate) async fn look(&self, client: &Client) {
        let answer = word::read_page(client, self.config.url.as_str()).await;
        let now = since_epoch().as_secs_f64();
        let mut receipts = Receipts::clone(&self.read.borrow());
        match answer {
            Ok(page) => {
                let mut track = self.track.lock().await;
                track.observe(&page, now);
                receipts.exporters = track.exporters(&self.redactor);
                receipts.received = track.received();
                receipts.read_at = Some(now);
                receipts.problem = None;
                if receipts.exporters.is_empty() && page.received == [Received::default(); Signal::OTLP.len()] {
                    receipts.problem = Some(Clean::literal(NO_COLLECTOR));
                }
            }
            Err(reason) => {
                receipts.problem =
                    Some(self.redactor.text(Outlet::Endpoint, reason.as_bytes()).cut(TEXT_BYTES).into_owned());
            }
        }
        self.read.send_replace(Arc::new(receipts));
    }
}

/// The receipts as metrics.
pub(crate) fn samples(receipts: &Receipts, out: &mut Vec<Sample>) {
    for exporter in &receipts.exporters {
        for (signal, receipt) in Signal::OTLP.iter().zip(&exporter.signals) {
            let Some(receipt) = receipt else { continue };
            let labelled = |sample: Sample| {
                sample.with("exporter", LabelValue::Text(exporter.name.clone())).with_literal("signal", signal.label())
            };
            out.push(labelled(Sample::count(&EXPORTER_ACCEPTED, receipt.accepted)));
            out.push(labelled(Sample::count(&EXPORTER_FAILED, receipt.failed + receipt.not_queued)));
            let is_refusing = receipt.condition == ReceiptCondition::Refusing;
            out.push(labelled(Sample::level(&EXPORTER_REFUSING, f64::from(u8::from(is_refusing)))));
        }
    }
}
