//! `check-export`: one marked span, metric and log record by the way of all telemetry, and what each hop says of them.
//!
//! For a person who waits: nothing is queued, kept or tried again. The vendors' word is the collector's: its counts are of
//! everybody's telemetry, so that a count which grows says that the vendor accepts, not whose item it was.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use reqwest::Client;
use tokio::time::{Instant, sleep};

use crate::fetch;
use crate::model::catalogue::EXPORT_CHECKS;
use crate::model::sample::{Sample, SampleSource};
use crate::model::telemetry::Signal;
use crate::model::trace::TraceId;
use crate::redact::{Clean, Outlet, Redactor};
use crate::telemetry::config::{Config, ConnectionConfig, DestinationConfig};
use crate::telemetry::metrics::MetricsExporter;
use crate::telemetry::metrics::interval::Reading as Moment;
use crate::telemetry::otlp;
use crate::telemetry::receipts::PATIENCE;
use crate::telemetry::receipts::acceptance::{Counts, VendorVerdict, Verdict};
use crate::telemetry::resolver::Resolver;
use crate::telemetry::resource::Resource;
use crate::telemetry::sealed::Form;
use crate::telemetry::sender::DestinationError;
use crate::telemetry::sender::answer::Answer;
use crate::telemetry::sender::destination::Destination;
use crate::telemetry::wire;
use crate::wall_clock::since_epoch;

/// How long the span seems to have lasted: a sampler that keeps what is slow keeps it.
const LENGTH: Duration = Duration::from_secs(2);
/// In `ScopeSpans` and `ScopeLogs`.
const ITEMS: u32 = 2;
/// Between two looks at the collector's metrics.
const PAUSE: Duration = Duration::from_millis(500);
/// Of a reason.
const REASON_BYTES: usize = 300;

/// One check. Sends once.
#[derive(Debug)]
pub struct ExportCheck {
    mark: TraceId,
    destinations: [Option<DestinationConfig>; Signal::OTLP.len()],
    connection: ConnectionConfig,
    resolver: Resolver,
    requests: [Vec<u8>; Signal::OTLP.len()],
    /// Where the collector's own metrics are read; `None` when it is not asked.
    receipts: Option<String>,
    redactor: Arc<Redactor>,
}

impl ExportCheck {
    /// Makes the three requests; sends nothing. Their service is the sidecar's own, so that nothing is taken for the application's.
    #[must_use]
    pub fn new(config: &Config, identity: &Resource, redactor: Arc<Redactor>, mark: TraceId) -> Self {
        let resource = identity.of_the_sidecar().encoded();
        let now = since_epoch();
        let requests = Signal::OTLP.map(|signal| request(signal, &resource, config, mark, now));
        let destinations = Signal::OTLP.map(|signal| config.destinations[signal as usize].clone());
        let receipts = config.receipts.as_ref().map(|receipts| receipts.url.as_str().to_owned());
        let (connection, resolver) = (config.connection, config.resolver.clone());
        Self { mark, destinations, connection, resolver, requests, receipts, redactor }
    }

    /// The trace id of the span and the log record.
    #[must_use]
    pub fn mark(&self) -> TraceId {
        self.mark
    }

    /// Where a signal goes; `None` when it is switched off.
    #[must_use]
    pub fn endpoint(&self, signal: Signal) -> Option<String> {
        self.destinations.get(signal as usize)?.as_ref().map(DestinationConfig::address)
    }

    /// Sends one signal, within the timeout of its receiver; `None` when it is switched off.
    ///
    /// # Errors
    /// When TLS is to be spoken and there is nobody to trust.
    pub async fn send(&self, signal: Signal) -> Result<Option<Verdict>, DestinationError> {
        let Some(Some(config)) = self.destinations.get(signal as usize) else { return Ok(None) };
        let (resolver, redactor) = (self.resolver.clone(), Arc::clone(&self.redactor));
        let destination = Destination::new(config.clone(), self.connection, resolver, redactor, Arc::default())?;
        let form = Form::plain(&self.requests[signal as usize]);
        let answer = destination.attempt(signal, &form, destination.timeout()).await;
        Ok(Some(match answer {
            Answer::Accepted { rejected: 0, .. } => Verdict::Accepted,
            Answer::Accepted { message, .. } => Verdict::Refused(self.clean(&format!("rejected: {message}"))),
            Answer::Later { reason, .. } => {
                let fault = destination.fault().await;
                Verdict::Silent(self.clean(&fault.unwrap_or(reason)))
            }
            Answer::Unreadable(reason)
            | Answer::TooLarge(reason)
            | Answer::UnknownCoding(reason)
            | Answer::Unauthorized(reason)
            | Answer::Refused(reason) => Verdict::Refused(self.clean(&reason)),
        }))
    }

    /// What the collector has counted so far; `None` when it is not asked. To be called before `send`.
    ///
    /// # Errors
    /// When its metrics cannot be read: the text says why.
    pub async fn counts(&self) -> Option<Result<Counts, Clean<'static>>> {
        let url = self.receipts.as_ref()?;
        Some(match fetch::client(PATIENCE) {
            Ok(client) => self.read(&client, url).await,
            Err(error) => Err(self.clean(&error.to_string())),
        })
    }

    /// Waits until the collector has told of each vendor and each of these signals, or until `limit` is over.
    ///
    /// # Errors
    /// When its metrics cannot be read any more: the text says why.
    pub async fn vendors(
        &self,
        before: &Counts,
        sent: &[Signal],
        limit: Duration,
    ) -> Result<Vec<VendorVerdict>, Clean<'static>> {
        let Some(url) = &self.receipts else { return Ok(Vec::new()) };
        let client = fetch::client(PATIENCE).map_err(|error| self.clean(&error.to_string()))?;
        let deadline = Instant::now() + limit;
        loop {
            let now = self.read(&client, url).await?;
            let vendors = now.since(before, sent, &self.redactor);
            let mut said = vendors.iter().flat_map(|vendor| &vendor.signals).peekable();
            let has_all = said.peek().is_some() && said.all(|(_, said)| !matches!(said, Verdict::Silent(_)));
            if has_all || Instant::now() >= deadline {
                return Ok(vendors);
            }
            sleep(PAUSE).await;
        }
    }

    async fn read(&self, client: &Client, url: &str) -> Result<Counts, Clean<'static>> {
        Counts::read(client, url).await.map_err(|reason| self.clean(&reason))
    }

    fn clean(&self, text: &str) -> Clean<'static> {
        self.redactor.text(Outlet::Endpoint, text.as_bytes()).cut(REASON_BYTES).into_owned()
    }
}

/// The request of one signal, whole.
fn request(signal: Signal, resource: &[u8], config: &Config, mark: TraceId, now: Duration) -> Vec<u8> {
    let scope = otlp::own_scope();
    let (end, start) = (nanos(now), nanos(now.saturating_sub(LENGTH)));
    let item = match signal {
        Signal::Traces => span(mark, start, end).encode_to_vec(),
        Signal::Logs => record(mark, end).encode_to_vec(),
        Signal::Metrics | Signal::Envelopes => return metric(config, resource, scope, start, end),
    };
    let mut items = Vec::new();
    wire::bytes_field(&mut items, ITEMS, &item);
    otlp::request(resource, &scope, &items)
}

fn span(mark: TraceId, start: u64, end: u64) -> Span {
    Span {
        trace_id: mark.0.to_vec(),
        span_id: mark.0[8..].to_vec(),
        name: "check-export".to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        flags: 0x101, // sampled, and known to have no parent elsewhere
        ..Span::default()
    }
}

fn record(mark: TraceId, now: u64) -> LogRecord {
    let text = format!("check-export: a marked log record, trace {mark}");
    LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number: SeverityNumber::Info.into(),
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(text)) }),
        trace_id: mark.0.to_vec(),
        span_id: mark.0[8..].to_vec(),
        flags: 1,
        ..LogRecord::default()
    }
}

fn metric(config: &Config, resource: &[u8], scope: Vec<u8>, start: u64, end: u64) -> Vec<u8> {
    let now = Instant::now();
    let began = Moment { at: now.checked_sub(LENGTH).unwrap_or(now), unix_nanos: start };
    let mut exporter = MetricsExporter::new(config.metrics, resource.to_vec(), scope, began);
    let source: SampleSource = Arc::new(|out| out.push(Sample::count(&EXPORT_CHECKS, 1)));
    exporter.export(&[source], Moment { at: now, unix_nanos: end }).map(|request| request.body).unwrap_or_default()
}

fn nanos(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
