//! What became of telemetry: the state of our own way out, and what a collector says of its exporters, that is what each
//! vendor accepted, of which signal, and since when one refuses.

use std::sync::Arc;

use crate::model::telemetry::{Account, ExportCondition, Signal};
use crate::redact::Clean;

/// The state of the way out, for the dashboard and `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct ExportState {
    /// By `Signal`.
    pub accounts: [Account; Signal::ALL.len()],
    /// Whether deliveries succeed at present.
    pub condition: ExportCondition,
    /// When the last delivery was acknowledged, in seconds since the Unix epoch.
    pub last_delivered_at: Option<f64>,
    /// Where telemetry goes: scheme, host and port.
    pub endpoint: String,
    /// How each signal's receiver fares, by `Signal`; `None` for one that is switched off.
    pub ways: [Option<WayOut>; Signal::ALL.len()],
    /// What the collector says of the vendors; `None` when it is not asked.
    pub receipts: Option<Arc<Receipts>>,
    /// What the receivers took, by `Signal`.
    pub volumes: [Volume; Signal::ALL.len()],
    /// Series of metrics that were exported so far.
    pub series: u64,
}

/// How much of one signal its receiver took: what a bill is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Export requests.
    pub requests: u64,
    /// Bytes before compression: what vendors count.
    pub bytes: u64,
    /// Bytes as sent, without the transport's own.
    pub compressed_bytes: u64,
}

/// How the receiver of one signal fares.
#[derive(Clone, Debug, Default)]
pub struct WayOut {
    /// Scheme, host and port.
    pub endpoint: String,
    /// Whether deliveries succeed at present.
    pub condition: ExportCondition,
    /// Whether it is given up for now, and only asked whether it is back.
    pub is_given_up: bool,
    /// When the last delivery was acknowledged, in seconds since the Unix epoch.
    pub last_delivered_at: Option<f64>,
    /// Requests that were to be sent again, since the start.
    pub retries: u64,
    /// What was said or failed last, while that is how it stands.
    pub problem: Option<Clean<'static>>,
}

/// What was read from a collector last.
#[derive(Clone, Debug, Default)]
pub struct Receipts {
    /// Where it was read, without user and password.
    pub url: String,
    /// When it could be read last, in seconds since the Unix epoch.
    pub read_at: Option<f64>,
    /// Why it cannot be read at present.
    pub problem: Option<Clean<'static>>,
    /// What came in from whomever, by `Signal::OTLP`. Counts go on when the collector starts anew.
    pub received: [Received; Signal::OTLP.len()],
    /// By name.
    pub exporters: Vec<Exporter>,
}

/// What the collector's receivers say of a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Items taken into its pipelines.
    pub accepted: u64,
    /// Items that it could not take, and said so to the sender.
    pub refused: u64,
}

/// One exporter: the way to one vendor.
#[derive(Clone, Debug)]
pub struct Exporter {
    /// As the collector's file names it, such as `otlp_http/newrelic`.
    pub name: Clean<'static>,
    /// Whom it is for, as far as its name tells.
    pub vendor: Clean<'static>,
    /// By `Signal::OTLP`; `None` for a signal that it does not get.
    pub signals: [Option<SignalReceipt>; Signal::OTLP.len()],
}

/// What became of one signal at one vendor. Counts go on when the collector starts anew.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SignalReceipt {
    /// Items that the vendor accepted.
    pub accepted: u64,
    /// Items given up: the vendor refused them, or was away for too long.
    pub failed: u64,
    /// Items that found no room in the collector's queue.
    pub not_queued: u64,
    /// Bytes of what was sent to the vendor, before compression; `None` when the collector does not tell them.
    pub bytes: Option<u64>,
    /// What waits in the collector's queue, in the unit that its file chooses (requests, items or bytes).
    pub queue: Option<f64>,
    /// What may wait there, in the same unit.
    pub capacity: Option<f64>,
    /// How it goes.
    pub condition: ReceiptCondition,
    /// Since when, in seconds since the Unix epoch; as exact as the interval of reading.
    pub since: f64,
    /// When the count of accepted items grew last, in seconds since the Unix epoch.
    pub last_accepted_at: Option<f64>,
}

/// How the way to a vendor fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReceiptCondition {
    /// Nothing was sent yet.
    #[default]
    Idle,
    /// The last that was sent was accepted.
    Accepting,
    /// Something waits, and nothing is accepted.
    Waiting,
    /// The last that was sent, or a part of it, was given up.
    Refusing,
}

impl ReceiptCondition {
    /// The word for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Accepting => "accepting",
            Self::Waiting => "waiting",
            Self::Refusing => "refusing",
        }
    }
}
