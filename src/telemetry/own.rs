//! The sidecar's own spans and logs: the standard SDK and exporter, whose HTTP client is our queue.
//!
//! So the crate encodes, and our queues, bounds and retries do the rest. Everything is cleaned on the way, as what the
//! application sends is: what a log statement says is not under the control of this room.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, LogExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource as SdkResource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

use crate::model::telemetry::Signal;
use crate::redact::{Outlet, Redactor};
use crate::semconv;
use crate::telemetry::intake::Intake;
use crate::telemetry::intake::cleaner::Cleaner;
use crate::telemetry::limits::Limits;
use crate::telemetry::resource::Resource;

const SCOPE: &str = "content-factory-sidecar";
/// Never asked for: the client in the process takes every request.
const NOWHERE: &str = "http://queue.invalid/v1/traces";
/// In bytes: the SDK hands over 512 items at most.
const LARGEST: usize = 16 << 20;

/// The providers behind `tracing`.
#[derive(Clone, Debug)]
pub(crate) struct OwnTelemetry {
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
}

impl OwnTelemetry {
    /// # Errors
    /// When the exporters refuse their settings, which are constants.
    pub(crate) fn new(
        resource: &Resource,
        intake: &Intake,
        redactor: &Arc<Redactor>,
        limits: Limits,
    ) -> Result<Self, ExporterBuildError> {
        let attributes = resource.attributes().map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
        let resource = SdkResource::builder_empty().with_schema_url(attributes, semconv::SCHEMA_URL).build();
        let client = |signal| InProcess { signal, intake: intake.clone(), redactor: Arc::clone(redactor), limits };
        let spans = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(NOWHERE)
            .with_http_client(client(Signal::Traces))
            .build()?;
        let records = LogExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(NOWHERE)
            .with_http_client(client(Signal::Logs))
            .build()?;
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_sampler(Sampler::AlwaysOn)
            .with_batch_exporter(spans)
            .build();
        let logs = SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(records).build();
        Ok(Self { traces, logs })
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.traces.tracer(SCOPE)
    }

    pub(crate) fn logger_provider(&self) -> &SdkLoggerProvider {
        &self.logs
    }

    /// Hands over what the SDK still holds. Blocks, up to twice the limit.
    pub(crate) fn shutdown(&self, limit: Duration) {
        // it fails when it is called twice or in vain: what is lost then is the sidecar's own, and it is over
        let _ = self.traces.shutdown_with_timeout(limit);
        let _ = self.logs.shutdown_with_timeout(limit);
    }
}

/// An HTTP client that goes nowhere: it keeps the body. Never the headers, in which the crate puts API keys.
#[derive(Clone, Debug)]
struct InProcess {
    signal: Signal,
    intake: Intake,
    redactor: Arc<Redactor>,
    limits: Limits,
}

#[async_trait]
impl HttpClient for InProcess {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (redactor, limits) = (&*self.redactor, self.limits);
        let cleaner = Cleaner { redactor, outlet: Outlet::OwnLog, limits, host: None };
        let cleaned = cleaner.clean(self.signal, request.body(), LARGEST)?;
        self.intake.count_truncated(self.signal, cleaned.truncated);
        self.intake.push(self.signal, cleaned.body)?;
        Ok(Response::new(Bytes::new()))
    }
}
