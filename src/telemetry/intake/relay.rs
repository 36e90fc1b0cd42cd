//! One request of an SDK, from its head to its answer: read, decompressed, cleaned, and put into the queue that our own takes.
//!
//! Success is said once the queue has it, which keeps nothing in memory alone for longer than a second; a receipt of the disk
//! would make each export of an SDK wait for as long, and SDKs send one after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, header};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::fetch::USER_AGENT;
use crate::model::incident::IncidentSink;
use crate::model::sample::Sample;
use crate::model::telemetry::Signal;
use crate::model::trace::SpanModel;
use crate::redact::{Outlet, Redactor};
use crate::telemetry::intake::answer::{self, Body, Form, Refusal};
use crate::telemetry::intake::cleaner::{Cleaned, Cleaner, Host, Unfit};
use crate::telemetry::intake::config::IntakeConfig;
use crate::telemetry::intake::counts::{Counts, LeftOut};
use crate::telemetry::intake::entry::{Intake, NoRoom};
use crate::telemetry::intake::exceptions::{self, Found};
use crate::telemetry::intake::json::{self, NoRequest};
use crate::telemetry::intake::read::{self, Allowance, Budget, Coding};
use crate::telemetry::limits::Limits;
use crate::telemetry::otlp;
use crate::telemetry::privacy::Privacy;
use crate::telemetry::resource::Resource;

/// Of a request over gRPC, before and after decompression: what receivers take by default.
const GRPC_LIMIT: usize = 4 << 20;
/// The same over HTTP.
const HTTP_LIMIT: usize = 20 << 20;
/// For the whole of a request's body.
const READING: Duration = Duration::from_secs(10);
/// How long a request may wait for its turn.
const TURN: Duration = Duration::from_secs(2);
/// How long it may then wait for room in the queue: the disk takes what is there within less, and an SDK waits for longer.
const ROOM: Duration = Duration::from_secs(5);
/// Requests that are decompressed and cleaned at once: as many as the control runtime has threads.
const TURNS: usize = 2;
/// What takes longer than a moment goes to a thread on which nobody waits.
const A_MOMENT: usize = 64 << 10;
/// What cleaning may add to a small request: our resource.
const HEADROOM: usize = 16 << 10;

/// What holds for our own spans as well.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Those that the proxy makes of the same requests.
    pub spans: SpanModel,
    /// How much of people leaves.
    pub privacy: Privacy,
    /// How many attributes an item has, and how long they are.
    pub limits: Limits,
}

/// What is done to requests. One for the process, shared by all connections.
#[derive(Debug)]
pub(super) struct Relay {
    config: IntakeConfig,
    policy: Policy,
    identity: Resource,
    redactor: Arc<Redactor>,
    intake: Intake,
    /// `None` when nobody tells of them.
    incidents: Option<IncidentSink>,
    budget: Budget,
    turns: Semaphore,
    counts: Counts,
    /// That SERVER spans count twice was said.
    warned: AtomicBool,
    /// When a worker of Celery last told of a task that it had run.
    celery: watch::Sender<Option<Instant>>,
}

/// What became of a request.
struct Taken {
    signal: Signal,
    left_out: u64,
    why: &'static str,
}

impl Relay {
    pub(super) fn new(
        config: IntakeConfig,
        policy: Policy,
        identity: Resource,
        redactor: Arc<Redactor>,
        (intake, incidents): (Intake, Option<IncidentSink>),
    ) -> Self {
        let budget = Budget::new(config.memory);
        let (turns, counts) = (Semaphore::new(TURNS), Counts::default());
        let (warned, celery) = (AtomicBool::new(false), watch::Sender::new(None));
        Self { config, policy, identity, redactor, intake, incidents, budget, turns, counts, warned, celery }
    }

    /// When a worker of Celery last told of a task that it had run.
    pub(super) fn celery(&self) -> watch::Receiver<Option<Instant>> {
        self.celery.subscribe()
    }

    /// What came in and what did not.
    pub(super) fn samples(&self, out: &mut Vec<Sample>) {
        self.counts.samples(out);
    }

    /// A connection for which there is no place.
    pub(super) fn turned_away(&self) {
        if self.counts.turned_away() {
            warn!(
                connections = self.config.connections,
                "telemetry.intake.connections are all taken: a further one is closed"
            );
        }
    }

    /// Answers a request.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let form = form(request.headers());
        match self.take(form, request).await {
            Ok(taken) => answer::success(form.unwrap_or(Form::Json), taken.signal, taken.left_out, taken.why),
            Err(refusal) => {
                if self.counts.refused(refusal) {
                    warn!(%refusal, "the intake refused a request, and counts further ones");
                }
                refusal.answer(form.unwrap_or(Form::Json))
            }
        }
    }

    async fn take(self: &Arc<Self>, form: Option<Form>, request: Request<Incoming>) -> Result<Taken, Refusal> {
        let (head, body) = request.into_parts();
        let signal = signal(head.uri.path()).ok_or(Refusal::Path)?;
        if head.method != Method::POST {
            return Err(Refusal::Method);
        }
        let form = form.ok_or(Refusal::MediaType)?;
        if is_from_a_sidecar(&head.headers) {
            return Err(Refusal::Circle);
        }
        let (coding, limit) = match form {
            Form::Grpc => ("grpc-encoding", GRPC_LIMIT),
            Form::Protobuf | Form::Json => ("content-encoding", HTTP_LIMIT),
        };
        let coding = Coding::of(head.headers.get(coding).map(|value| value.as_bytes()))?;
        let mut allowance = self.budget.allowance();
        let frame = if form == Form::Grpc { read::FRAME } else { 0 };
        let body = timeout(READING, read::body(body, limit + frame, &mut allowance));
        let body = body.await.map_err(|_| Refusal::Slow)??;
        let Ok(Ok(turn)) = timeout(TURN, self.turns.acquire()).await else { return Err(Refusal::Busy) };
        let work = Work { relay: Arc::clone(self), signal, form, coding, limit, allowance };
        let (cleaned, allowance) = match body.len() {
            0..=A_MOMENT if coding == Coding::None => work.run(body),
            _ => tokio::task::spawn_blocking(move || work.run(body)).await.map_err(|_| Refusal::Malformed)?,
        }?;
        drop(turn);
        let Cleared { cleaned, exceptions } = cleaned;
        let taken = self.keep(signal, cleaned).await;
        drop(allowance);
        if let (Ok(_), Some(sink)) = (&taken, &self.incidents) {
            // what is refused comes again
            exceptions.incidents.into_iter().for_each(|incident| sink.put(incident));
            sink.missed(exceptions.missed);
        }
        taken
    }

    /// Puts what is left of a request into its queue.
    async fn keep(&self, signal: Signal, cleaned: Cleaned) -> Result<Taken, Refusal> {
        let Cleaned { body, truncated, mut left_out, has_server_span, has_celery_span } = cleaned;
        if has_celery_span {
            self.celery.send_replace(Some(Instant::now()));
        }
        let items = otlp::count(signal, &body).map_err(|_| Refusal::Malformed)?;
        let mut reason = if signal == Signal::Metrics { LeftOut::ServerMetrics } else { LeftOut::NoIds };
        if self.intake.takes(signal) {
            let room = self.intake.offer(signal, otlp::Request { items, body }, Instant::now() + ROOM).await;
            room.map_err(|no_room| match no_room {
                NoRoom::Full => Refusal::Full,
                NoRoom::TooLarge => Refusal::Item,
            })?;
            self.intake.count_truncated(signal, truncated);
            self.counts.took(signal, items);
        } else {
            (left_out, reason) = (left_out + items, LeftOut::SwitchedOff);
        }
        if self.counts.left_out(signal, reason, left_out) {
            info!(signal = signal.label(), "the intake leaves something out, and counts it: {}", reason.why());
        }
        if has_server_span
            && self.policy.spans != SpanModel::PropagateOnly
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            warn!(
                "the application makes SERVER spans under the sidecar's service.name, so each request has two of them and counts \
                 twice at vendors: set telemetry.spans to propagate-only, or another service.name in the application"
            );
        }
        Ok(Taken { signal, left_out, why: reason.why() })
    }
}

/// What may leave of a request, and what is told of it elsewhere.
struct Cleared {
    cleaned: Cleaned,
    exceptions: Found,
}

/// The part of a request that computes.
struct Work {
    relay: Arc<Relay>,
    signal: Signal,
    form: Form,
    coding: Coding,
    limit: usize,
    allowance: Allowance,
}

impl Work {
    fn run(mut self, body: Vec<u8>) -> Result<(Cleared, Allowance), Refusal> {
        let (body, coding) = match self.form {
            Form::Grpc => read::unframed(body, self.coding)?,
            Form::Protobuf | Form::Json => (body, self.coding),
        };
        let mut whole = read::expanded(body, coding, self.limit, &mut self.allowance)?;
        if self.form == Form::Json {
            let written = json::to_protobuf(self.signal, &whole, self.limit).map_err(|error| match error {
                NoRequest::Malformed(line, column) => Refusal::NotJson(line, column),
                NoRequest::TooLarge => Refusal::TooLarge(self.limit),
            })?;
            self.allowance.grow(written.len())?;
            self.allowance.shrink(whole.len());
            whole = written;
        }
        let most = 2 * whole.len() + HEADROOM;
        self.allowance.grow(most)?;
        let host = Host {
            identity: &self.relay.identity,
            server_metrics: self.relay.config.server_metrics,
            privacy: self.relay.policy.privacy.in_force(),
        };
        let cleaner = Cleaner {
            redactor: &self.relay.redactor,
            outlet: Outlet::Telemetry,
            limits: self.relay.policy.limits,
            host: Some(host),
        };
        let cleaned = cleaner.clean(self.signal, &whole, most).map_err(|unfit| match unfit {
            Unfit::Malformed => Refusal::Malformed,
            Unfit::TooDeep => Refusal::TooDeep,
            Unfit::TooLarge => Refusal::Growing,
        })?;
        let exceptions = match &self.relay.incidents {
            // by what came in: what leaves may be cut where the stack ends
            Some(_) if self.signal == Signal::Logs => exceptions::found(&whole, &self.relay.redactor),
            _ => Found::default(),
        };
        Ok((Cleared { cleaned, exceptions }, self.allowance))
    }
}

/// Of any version: whoever sends on what it takes in is in a circle.
fn is_from_a_sidecar(head: &HeaderMap) -> bool {
    let name = USER_AGENT.split_inclusive('/').next().unwrap_or(USER_AGENT);
    head.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(name.as_bytes()))
}

fn form(head: &HeaderMap) -> Option<Form> {
    let text = head.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let media_type = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/grpc" | "application/grpc+proto" => Some(Form::Grpc),
        "application/x-protobuf" => Some(Form::Protobuf),
        "application/json" => Some(Form::Json),
        _ => None,
    }
}

fn signal(path: &str) -> Option<Signal> {
    match path {
        "/v1/traces" | "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Signal::Traces),
        "/v1/metrics" | "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Some(Signal::Metrics),
        "/v1/logs" | "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Signal::Logs),
        _ => None,
    }
}
