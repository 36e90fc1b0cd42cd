//! The sidecar's own spans and logs: the standard SDK and exporter, whose HTTP client is our queue.
//!
//! So the crate encodes, and our queues, bounds and retries do the rest. Everything is redacted on the way: what a
//! log statement says is not under the control of this room.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, LogExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue as ProtoKeyValue, any_value};
use opentelemetry_sdk::Resource as SdkResource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use prost::Message;

use crate::model::telemetry::Signal;
use crate::redact::{Clean, Outlet, Redactor};
use crate::semconv;
use crate::telemetry::intake::Intake;
use crate::telemetry::limits::{LIST_LIMIT, NAME_LIMIT, VALUE_LIMIT};
use crate::telemetry::resource::Resource;

const SCOPE: &str = "content-factory-sidecar";
/// Never asked for: the client in the process takes every request.
const NOWHERE: &str = "http://queue.invalid/v1/traces";

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
    ) -> Result<Self, ExporterBuildError> {
        let attributes = resource.attributes().map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
        let resource = SdkResource::builder_empty().with_schema_url(attributes, semconv::SCHEMA_URL).build();
        let client = |signal| InProcess { signal, intake: intake.clone(), redactor: Arc::clone(redactor) };
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
}

#[async_trait]
impl HttpClient for InProcess {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut cleaner = Cleaner { redactor: &self.redactor, truncated: 0 };
        let body = match self.signal {
            Signal::Traces => cleaner.spans(ExportTraceServiceRequest::decode(request.into_body())?),
            Signal::Logs => cleaner.logs(ExportLogsServiceRequest::decode(request.into_body())?),
            Signal::Metrics | Signal::Envelopes => request.into_body().into(),
        };
        self.intake.count_truncated(self.signal, cleaner.truncated);
        self.intake.push(self.signal, body)?;
        Ok(Response::new(Bytes::new()))
    }
}

/// Redacts what the SDK made, then cuts what is too long: a secret is never cut in two, and so never recognised.
struct Cleaner<'r> {
    redactor: &'r Redactor,
    /// Values and names that were cut.
    truncated: u64,
}

impl Cleaner<'_> {
    fn spans(&mut self, mut request: ExportTraceServiceRequest) -> Vec<u8> {
        let scopes = request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
        for span in scopes.flat_map(|scope| &mut scope.spans) {
            self.text(&mut span.name, NAME_LIMIT);
            self.attributes(&mut span.attributes);
            for event in &mut span.events {
                self.text(&mut event.name, NAME_LIMIT);
                self.attributes(&mut event.attributes);
            }
            span.links.iter_mut().for_each(|link| self.attributes(&mut link.attributes));
            if let Some(status) = &mut span.status {
                self.text(&mut status.message, VALUE_LIMIT);
            }
        }
        request.encode_to_vec()
    }

    fn logs(&mut self, mut request: ExportLogsServiceRequest) -> Vec<u8> {
        let scopes = request.resource_logs.iter_mut().flat_map(|resource| &mut resource.scope_logs);
        for record in scopes.flat_map(|scope| &mut scope.log_records) {
            if let Some(body) = &mut record.body {
                self.value("", body);
            }
            self.attributes(&mut record.attributes);
        }
        request.encode_to_vec()
    }

    fn attributes(&mut self, attributes: &mut [ProtoKeyValue]) {
        for pair in attributes {
            if let Some(value) = &mut pair.value {
                self.value(&pair.key, value);
            }
        }
    }

    fn value(&mut self, key: &str, value: &mut AnyValue) {
        match &mut value.value {
            Some(any_value::Value::StringValue(text)) => {
                let clean = self.redactor.field(Outlet::OwnLog, key, text.as_bytes());
                *text = self.cut(clean, VALUE_LIMIT);
            }
            Some(any_value::Value::ArrayValue(array)) => {
                self.truncated += u64::from(array.values.len() > LIST_LIMIT);
                array.values.truncate(LIST_LIMIT);
                array.values.iter_mut().for_each(|value| self.value(key, value));
            }
            Some(any_value::Value::KvlistValue(list)) => self.attributes(&mut list.values),
            _ => {}
        }
    }

    fn text(&mut self, text: &mut String, limit: usize) {
        let clean = self.redactor.text(Outlet::OwnLog, text.as_bytes());
        *text = self.cut(clean, limit);
    }

    fn cut(&mut self, text: Clean<'_>, limit: usize) -> String {
        self.truncated += u64::from(text.as_str().len() > limit);
        text.cut(limit).as_str().to_owned()
    }
}
