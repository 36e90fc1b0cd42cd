//! A receiver in the collector's place: takes OTLP over gRPC, counts what arrives, and keeps nothing of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Larger messages are refused unread; the collector's own limit is 4 MiB.
const LARGEST_MESSAGE: usize = 16 << 20;
/// Messages of one connection that are decoded at the same time.
const AT_ONCE: usize = 4;

/// What has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// SERVER and CLIENT spans: the application's requests.
    pub(super) request_spans: u64,
    /// All other spans: the sidecar's own work.
    pub(super) other_spans: u64,
    /// Points of all metrics.
    pub(super) metric_points: u64,
    pub(super) log_records: u64,
}

/// Counts of one receiver; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Counter(Arc<Counts>);

#[derive(Default)]
struct Counts {
    request_spans: AtomicU64,
    other_spans: AtomicU64,
    metric_points: AtomicU64,
    log_records: AtomicU64,
}

impl Counter {
    /// What has arrived until now.
    pub(super) fn received(&self) -> Received {
        Received {
            request_spans: self.0.request_spans.load(Ordering::Relaxed),
            other_spans: self.0.other_spans.load(Ordering::Relaxed),
            metric_points: self.0.metric_points.load(Ordering::Relaxed),
            log_records: self.0.log_records.load(Ordering::Relaxed),
        }
    }
}

/// A receiver whose port is open.
pub(super) struct Receiver {
    listener: TcpListener,
    address: SocketAddr,
    counter: Counter,
}

impl Receiver {
    /// Opens a free port on loopback.
    pub(super) async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, counter: Counter::default() })
    }

    /// Where it listens, as an endpoint for OTLP over gRPC.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A handle to its counts.
    pub(super) fn counter(&self) -> Counter {
        self.counter.clone()
    }

    /// Serves until `ended`.
    pub(super) async fn serve_until(self, ended: impl Future<Output = ()>) {
        let traces = TraceServiceServer::new(self.counter.clone())
            .max_decoding_message_size(LARGEST_MESSAGE)
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip);
        let metrics = MetricsServiceServer::new(self.counter.clone())
            .max_decoding_message_size(LARGEST_MESSAGE)
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip);
        let logs = LogsServiceServer::new(self.counter)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip);
        let serving = Server::builder()
            .concurrency_limit_per_connection(AT_ONCE)
            .add_service(traces)
            .add_service(metrics)
            .add_service(logs)
            .serve_with_incoming(TcpIncoming::from(self.listener));
        tokio::select! {
            _ = serving => {}
            () = ended => {}
        }
    }
}

#[tonic::async_trait]
impl TraceService for Counter {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let is_request = |kind: i32| kind == SpanKind::Server as i32 || kind == SpanKind::Client as i32;
        let groups = request.get_ref().resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let (mut requests, mut others) = (0, 0);
        for span in groups.flat_map(|scope| &scope.spans) {
            if is_request(span.kind) { requests += 1 } else { others += 1 }
        }
        self.0.request_spans.fetch_add(requests, Ordering::Relaxed);
        self.0.other_spans.fetch_add(others, Ordering::Relaxed);
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Counter {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let groups = request.get_ref().resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
        let metrics = groups.flat_map(|scope| &scope.metrics);
        let points: usize = metrics.filter_map(|metric| metric.data.as_ref()).map(points).sum();
        self.0.metric_points.fetch_add(points as u64, Ordering::Relaxed);
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Counter {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let groups = request.get_ref().resource_logs.iter().flat_map(|resource| &resource.scope_logs);
        let records: usize = groups.map(|scope| scope.log_records.len()).sum();
        self.0.log_records.fetch_add(records as u64, Ordering::Relaxed);
        Ok(Response::new(Default::default()))
    }
}

fn points(data: &Data) -> usize {
    match data {
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Sum(sum) => sum.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
        Data::Summary(summary) => summary.data_points.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use std::future::pending;

    #[tokio::test]
    async fn spans_of_requests_are_counted_apart_from_the_sidecars_own() {
        let receiver = Receiver::open().await.unwrap();
        let (endpoint, counter) = (receiver.endpoint(), receiver.counter());
        let kinds = [SpanKind::Server, SpanKind::Client, SpanKind::Internal];
        let spans = kinds.map(|kind| Span { kind: kind as i32, ..Span::default() }).to_vec();
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
        let sending = async {
            let client = TraceServiceClient::connect(endpoint).await.unwrap();
            let mut client = client.send_compressed(CompressionEncoding::Zstd);
            client.export(ExportTraceServiceRequest { resource_spans }).await.unwrap();
        };
        tokio::select! {
            () = sending => {}
            () = receiver.serve_until(pending()) => {}
        }
        let expected = Received { request_spans: 2, other_spans: 1, ..Received::default() };
        assert_eq!(counter.received(), expected);
    }
}
