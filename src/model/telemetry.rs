//! The account of the way out: what was produced, and where it went, per signal and in items.

/// What kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metric data points.
    Metrics,
    /// Log records.
    Logs,
    /// Issues for Sentry, each an envelope; they go to Sentry itself, and to no collector.
    Envelopes,
}

impl Signal {
    /// All signals, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Traces, Self::Metrics, Self::Logs, Self::Envelopes];
    /// Those of OpenTelemetry.
    pub const OTLP: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// The value of the label `signal`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Envelopes => "envelopes",
        }
    }

    /// Whether two requests, one after the other, are one request: true of protobuf's messages, not of envelopes.
    #[must_use]
    pub fn joins(self) -> bool {
        self != Self::Envelopes
    }
}

/// Why telemetry was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// A worker could not hand a chunk over.
    HandoffFull,
    /// The queue in memory was full; the oldest went.
    QueueFull,
    /// The spool was full; the oldest went.
    SpoolFull,
    /// Older than the age limit.
    TooOld,
    /// The receiver refused it for good.
    Permanent,
    /// A single item that the receiver finds too large.
    TooLarge,
    /// The receiver's answer could not be read.
    BadResponse,
    /// The disk failed.
    DiskError,
    /// Left over at the end of the process.
    Shutdown,
}

impl DropReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::HandoffFull,
        Self::QueueFull,
        Self::SpoolFull,
        Self::TooOld,
        Self::Permanent,
        Self::TooLarge,
        Self::BadResponse,
        Self::DiskError,
        Self::Shutdown,
    ];

    /// The value of the label `reason`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::HandoffFull => "handoff_full",
            Self::QueueFull => "queue_full",
            Self::SpoolFull => "spool_full",
            Self::TooOld => "too_old",
            Self::Permanent => "permanent",
            Self::TooLarge => "too_large",
            Self::BadResponse => "bad_response",
            Self::DiskError => "disk_error",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The account of one signal, taken at one moment: `produced = delivered + rejected + dropped + queued + spooled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Items made or taken in.
    pub produced: u64,
    /// Items that the receiver acknowledged.
    pub delivered: u64,
    /// Items that the receiver refused within an accepted request (partial success).
    pub rejected: u64,
    /// Items dropped, by `DropReason`.
    pub dropped: [u64; DropReason::ALL.len()],
    /// Items waiting in memory, in chunks of the workers and in the queue.
    pub queued: u64,
    /// Bytes of what waits in memory.
    pub queued_bytes: u64,
    /// Items waiting on disk.
    pub spooled: u64,
    /// Bytes of what waits on disk, compressed.
    pub spooled_bytes: u64,
}

/// How the way out fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportCondition {
    /// Nothing was sent yet.
    #[default]
    Idle,
    /// The last attempt succeeded.
    Delivering,
    /// The last attempts failed; telemetry waits.
    Failing,
    /// Switched off (`telemetry.enabled: false`).
    Off,
}

impl ExportCondition {
    /// The word for people.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Delivering => "delivering",
            Self::Failing => "failing",
            Self::Off => "off",
        }
    }
}
