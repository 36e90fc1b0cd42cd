//! The way out as a test uses it: settings as JSON, requests as records, and the run in a task that ends with the test.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use content_factory_sidecar::lifecycle::{self, Conductor};
use content_factory_sidecar::model::request::{
    Client, Hop, Method, Outcome, Protocol, RecordTrace, RequestKind, RequestRecord, RequestSink,
};
use content_factory_sidecar::model::route::{Route, RouteId};
use content_factory_sidecar::model::sample::SampleSource;
use content_factory_sidecar::model::telemetry::{Account, Signal};
use content_factory_sidecar::model::trace::{Sampled, SpanId, TraceId};
use content_factory_sidecar::redact::Redactor;
use content_factory_sidecar::settings::{Place, Settings, Tree};
use content_factory_sidecar::telemetry::config::Config;
use content_factory_sidecar::telemetry::intake::Intake;
use content_factory_sidecar::telemetry::issues::Issues;
use content_factory_sidecar::telemetry::issues::config::IssuesConfig;
use content_factory_sidecar::telemetry::logging::LogConfig;
use content_factory_sidecar::telemetry::resource::{Resource, ServiceConfig};
use content_factory_sidecar::telemetry::{Reader, SpanWriter, Telemetry, Upstream};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::telemetry_receiver::eventually;

/// The way out, running.
pub(crate) struct Running {
    pub(crate) writers: Vec<SpanWriter>,
    pub(crate) reader: Reader,
    pub(crate) conductor: Conductor,
    pub(crate) intake: Intake,
    telemetry: Arc<Telemetry>,
    run: JoinSet<()>,
}

/// Reads settings, which must be right.
pub(crate) fn config(telemetry: Value) -> Config {
    let mut tree = Tree::default();
    tree.merge(json!({"telemetry": telemetry}), &Place("a test".into()));
    let mut settings = Settings::new(tree, |path: &str| std::fs::read_to_string(path).map_err(|e| e.to_string()));
    let config = Config::read(&mut settings.section("telemetry"));
    let (_, problems, _) = settings.finish();
    assert!(problems.is_empty(), "{problems:?}");
    config
}

pub(crate) fn resource() -> Resource {
    let service = ServiceConfig {
        name: "content-factory".into(),
        namespace: None,
        version: None,
        instance_id: None,
        environment: None,
        attributes: BTreeMap::new(),
    };
    Resource::new(&service, &BTreeMap::new())
}

impl Running {
    pub(crate) fn start(telemetry: Value, workers: usize, sources: Vec<SampleSource>) -> Self {
        Self::start_with(config(telemetry), workers, sources)
    }

    /// With a folder for what cannot be delivered.
    pub(crate) fn start_in(folder: &Path, telemetry: Value) -> Self {
        let running = Self::start(telemetry, 1, Vec::new());
        running.telemetry.keep_in(folder);
        running
    }

    pub(crate) fn start_with(config: Config, workers: usize, sources: Vec<SampleSource>) -> Self {
        let redactor = Arc::new(Redactor::new(["hunter2-secret"]));
        let upstream = Upstream { host: "127.0.0.1".into(), port: 8000 };
        let (telemetry, writers) =
            Telemetry::new(config, &resource(), &redactor, &upstream, workers).expect("valid settings");
        let (conductor, drain) = lifecycle::drain();
        let (reader, intake) = (telemetry.reader(), telemetry.intake());
        let telemetry = Arc::new(telemetry);
        let mut run = JoinSet::new();
        let running = Arc::clone(&telemetry);
        run.spawn(async move { running.run(&sources, drain).await });
        Self { writers, reader, conductor, intake, telemetry, run }
    }

    /// What `tracing` would be set up with.
    pub(crate) fn subscriber(
        &self,
        config: &LogConfig,
        redactor: &Arc<Redactor>,
    ) -> impl tracing::Subscriber + Send + Sync + 'static {
        self.telemetry.subscriber(config, redactor, None).0
    }

    /// What tells this project at Sentry, whose destination is among the settings.
    pub(crate) fn issues(&self, sentry: &IssuesConfig, redactor: &Arc<Redactor>) -> Issues {
        let out = self.telemetry.envelopes().expect("a destination for envelopes");
        Issues::new(sentry, &resource(), redactor, out)
    }

    /// What `tracing` would be set up with, its errors to Sentry.
    pub(crate) fn subscriber_to_sentry(
        &self,
        config: &LogConfig,
        redactor: &Arc<Redactor>,
        issues: &Issues,
    ) -> impl tracing::Subscriber + Send + Sync + 'static {
        self.telemetry.subscriber(config, redactor, Some(issues)).0
    }

    /// Ends it as the process would: the workers first.
    pub(crate) async fn stop(&mut self, limit: Duration) {
        self.writers.clear();
        self.conductor.drain_within(limit);
        self.run.join_next().await.expect("one run").expect("no panic");
    }

    /// Writes so many requests, two spans each, and lets the time pass that seals the chunk.
    pub(crate) fn produce(&mut self, requests: u64) {
        for number in 0..requests {
            request(&mut self.writers[0], number);
        }
        self.writers[0].tick();
        self.writers[0].tick();
    }

    /// Waits until no span waits any more, in memory or on disk.
    pub(crate) async fn settled(&self, limit: Duration) {
        eventually("nothing waits", limit, || {
            let account = self.account(Signal::Traces);
            assert_balanced(&account);
            account.queued + account.spooled == 0
        })
        .await;
    }

    pub(crate) fn account(&self, signal: Signal) -> Account {
        self.reader.state().accounts[signal as usize]
    }
}

/// `produced = delivered + rejected + dropped + queued + spooled`.
pub(crate) fn assert_balanced(account: &Account) {
    let dropped: u64 = account.dropped.iter().sum();
    let sum = account.delivered + account.rejected + dropped + account.queued + account.spooled;
    assert_eq!(account.produced, sum, "{account:?}");
}

/// Ends a request with a SERVER and a CLIENT span; its number is the trace id.
pub(crate) fn request(writer: &mut SpanWriter, number: u64) {
    let mut trace_id = [1; 16];
    trace_id[8..].copy_from_slice(&number.to_be_bytes());
    writer.end(&record(TraceId(trace_id)));
}

/// The same of one that the application failed.
pub(crate) fn failed_request(writer: &mut SpanWriter, number: u64) {
    let mut trace_id = [1; 16];
    trace_id[8..].copy_from_slice(&number.to_be_bytes());
    let mut failed = record(TraceId(trace_id));
    failed.status = 500;
    if let Some(hop) = &mut failed.hop {
        hop.status = 500;
    }
    writer.end(&failed);
}

pub(crate) fn record(trace_id: TraceId) -> RequestRecord<'static> {
    RequestRecord {
        method: Method::Get,
        method_text: b"GET",
        target: b"/products/7?token=abc",
        route: Some(Route { id: RouteId(1), template: "/products/{id}" }),
        kind: RequestKind::Ordinary,
        protocol: Protocol::Http11,
        status: 200,
        outcome: Outcome::Answered,
        started_unix_nanos: 1_800_000_000_000_000_000,
        duration: Duration::from_millis(12),
        first_byte: Some(Duration::from_millis(10)),
        request_body_bytes: 0,
        response_body_bytes: 100,
        trace: Some(RecordTrace {
            trace_id,
            span_id: SpanId([2; 8]),
            parent: None,
            sampled: Sampled::Yes,
            tracestate: b"",
            kept: Cell::new(false),
        }),
        hop: Some(Hop {
            span_id: Some(SpanId([3; 8])),
            offset: Duration::from_millis(1),
            duration: Duration::from_millis(10),
            status: 200,
            resends: 0,
        }),
        client: Client { peer: ([127, 0, 0, 1], 5000).into(), address: IpAddr::V4(Ipv4Addr::LOCALHOST) },
        user_agent: None,
        tapped: None,
    }
}
