//! The proxy room in this process, with a sink that keeps what it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use content_factory_sidecar::lifecycle::{self, Conductor};
use content_factory_sidecar::model::request::{Outcome, RequestHead, RequestKind, RequestRecord, RequestSink};
use content_factory_sidecar::model::route::RouteTable;
use content_factory_sidecar::model::trace::{ParentFlag, Sampling, SpanModel};
use content_factory_sidecar::proxy::{self, Config, Counters, Deps, Running, TracePolicy, Tuner};
use content_factory_sidecar::settings::{Place, Settings, Tree};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::raw::{Client, PATIENCE, echo_all, origin};

/// What a sink was told at the end of a request.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) route: Option<String>,
    pub(crate) kind: RequestKind,
    pub(crate) status: u16,
    pub(crate) outcome: Outcome,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    pub(crate) trace_id: Option<String>,
    pub(crate) parent: Option<String>,
    pub(crate) hop_span: Option<String>,
    pub(crate) resends: Option<u8>,
    pub(crate) user_agent: Option<String>,
    pub(crate) client: String,
    pub(crate) tapped: Option<Vec<u8>>,
    pub(crate) started_unix_nanos: u64,
}

/// All that a sink was told.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<(Mutex<Told>, Condvar)>);

#[derive(Default)]
struct Told {
    begun: usize,
    writing: i64,
    ended: Vec<Ended>,
}

impl Ledger {
    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    /// The ends told, once there are so many; fails the test if there are more or fewer.
    pub(crate) fn ended(&self, count: usize) -> Vec<Ended> {
        let told = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, _) = self
            .0
            .1
            .wait_timeout_while(told, PATIENCE, |told| told.ended.len() < count)
            .unwrap_or_else(PoisonError::into_inner);
        assert_eq!((told.ended.len(), told.begun), (count, count), "begun and ended once each: {:?}", told.ended);
        assert_eq!(told.writing, 0, "each last write was answered by its end");
        told.ended.clone()
    }

    /// How many have begun and not ended.
    pub(crate) fn in_flight(&self) -> usize {
        let told = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.begun - told.ended.len()
    }
}

impl RequestSink for Ledger {
    fn begin(&mut self, _: &RequestHead) {
        self.tell(|told| told.begun += 1);
    }

    fn last_write(&mut self) {
        self.tell(|told| told.writing += 1);
    }

    fn not_yet(&mut self) {
        self.tell(|told| told.writing -= 1);
    }

    fn end(&mut self, record: &RequestRecord<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ended = Ended {
            method: text(record.method_text),
            target: text(record.target),
            route: record.route.map(|route| route.template.to_owned()),
            kind: record.kind,
            status: record.status,
            outcome: record.outcome,
            request_bytes: record.request_body_bytes,
            response_bytes: record.response_body_bytes,
            trace_id: record.trace.as_ref().map(|trace| trace.trace_id.to_string()),
            parent: record.trace.as_ref().and_then(|trace| trace.parent).map(|id| id.to_string()),
            hop_span: record.hop.and_then(|hop| hop.span_id).map(|id| id.to_string()),
            resends: record.hop.map(|hop| hop.resends),
            user_agent: record.user_agent.map(text),
            client: record.client.address.to_string(),
            tapped: record.tapped.map(<[u8]>::to_vec),
            started_unix_nanos: record.started_unix_nanos,
        };
        self.tell(|told| {
            told.writing = 0;
            told.ended.push(ended);
        });
    }
}

/// What a sink is told, beside what the ledger keeps of it.
pub(crate) enum Moment<'a> {
    Begin(&'a RequestHead),
    LastWrite,
    End(&'a RequestRecord<'a>),
    Tick,
}

/// A ledger, and something else that happens when it is told.
pub(crate) struct Watched<F> {
    ledger: Ledger,
    also: F,
}

impl Ledger {
    /// A sink that keeps all that it is told, and then does this.
    pub(crate) fn and<F: FnMut(Moment<'_>)>(self, also: F) -> Watched<F> {
        Watched { ledger: self, also }
    }
}

impl<F: FnMut(Moment<'_>)> RequestSink for Watched<F> {
    fn begin(&mut self, head: &RequestHead) {
        self.ledger.begin(head);
        (self.also)(Moment::Begin(head));
    }

    fn last_write(&mut self) {
        self.ledger.last_write();
        (self.also)(Moment::LastWrite);
    }

    fn not_yet(&mut self) {
        self.ledger.not_yet();
    }

    fn end(&mut self, record: &RequestRecord<'_>) {
        self.ledger.end(record);
        (self.also)(Moment::End(record));
    }

    fn tick(&mut self) {
        (self.also)(Moment::Tick);
    }
}

/// The room, serving.
pub(crate) struct Room {
    pub(crate) address: SocketAddr,
    pub(crate) ledger: Ledger,
    pub(crate) conductor: Conductor,
    pub(crate) counters: Arc<Counters>,
    pub(crate) routes: watch::Sender<Arc<RouteTable>>,
    running: Running,
}

impl Room {
    /// In front of this origin.
    pub(crate) fn start(origin: SocketAddr) -> Self {
        Self::with(origin, json!({}))
    }

    /// With these settings of the section `proxy` too.
    pub(crate) fn with(origin: SocketAddr, settings: Value) -> Self {
        Self::with_sink(&config(origin, settings), |ledger| ledger)
    }

    /// With this configuration and a sink around the ledger.
    pub(crate) fn with_sink<S: RequestSink + Send + 'static>(config: &Config, wrap: impl Fn(Ledger) -> S) -> Self {
        let (conductor, drain) = lifecycle::drain();
        let routes = RouteTable::default().with_templates(["/", "/products", "/products/{id}", "/tapped"]);
        let sampling = Sampling::ratio(1.0, ParentFlag::Followed);
        let policy = TracePolicy { sampling, spans: SpanModel::Full, sentry_trace: false };
        let (routes, of_now) = watch::channel(Arc::new(routes));
        let deps = Deps {
            routes: of_now,
            terms: Tuner::new(config).1,
            tracing: watch::channel(policy).1, // its sender is dropped: it stays as it is
            drain,
            pulses: Vec::new(),
        };
        let bound = proxy::bind(config).expect("port 0 is always free");
        let (address, ledger) = (bound.address(), Ledger::default());
        let running = bound.serve(deps, (0..config.workers).map(|_| wrap(ledger.clone())).collect());
        Self { address, ledger, conductor, counters: running.counters(), routes, running }
    }

    /// A client of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Drains, and waits for the end.
    pub(crate) fn stop(self, limit: Duration) {
        self.conductor.drain_within(limit);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a small runtime");
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, self.running.finished()).await })
            .expect("the workers end within their deadline");
    }
}

/// The configuration of a room on port 0 in front of this origin.
pub(crate) fn config(origin: SocketAddr, settings: Value) -> Config {
    let mut tree = Tree::default();
    let place = Place("test".into());
    tree.merge(json!({"proxy": {"listen": "127.0.0.1:0", "upstream": format!("http://{origin}")}}), &place);
    tree.merge(json!({}), &place);
    if let Value::Object(settings) = settings {
        for (key, value) in settings {
            tree.set(&format!("proxy.{key}"), value, &place);
        }
    }
    let mut settings = Settings::new(tree, |_: &str| Err("no files".into()));
    let config = Config::read(&mut settings.section("proxy"));
    let (_, problems, _) = settings.finish();
    assert!(problems.is_empty(), "{problems:?}");
    config
}

/// An application that answers each request with its head and body in the answer's body.
pub(crate) fn echo() -> SocketAddr {
    origin(|_, mut client| echo_all(&mut client))
}
