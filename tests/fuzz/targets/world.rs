//! A proxy that serves in this process, an origin that records, and the oracle's verdict on what one client sends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use content_factory_sidecar::lifecycle::{self, Conductor};
use content_factory_sidecar::model::request::{RequestHead, RequestRecord, RequestSink};
use content_factory_sidecar::model::route::RouteTable;
use content_factory_sidecar::model::trace::{ParentFlag, Sampling, SpanModel};
use content_factory_sidecar::proxy::{self, Config, Deps, Running, TracePolicy, Tuner};
use content_factory_sidecar::settings::{Place, Settings, Tree};
use serde_json::json;
use tokio::sync::watch;

use crate::client::{self, Pace, Seen};
use crate::corpus::{End, Entry, Kind, Step};
use crate::grammar::{Grammar, Stop};
use crate::origin::{Origin, Record};
use crate::requests::{self, Request};
use crate::verdict::{self, Case, Demand, Verdict};

/// How long a request that was begun may take to end, once its client has gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// A silence after which nothing more is expected of a connection that stays open.
const MOMENT: Duration = Duration::from_millis(30);

/// Counts what a sink is told.
#[derive(Debug, Clone, Default)]
struct Tally(Arc<(AtomicUsize, AtomicUsize)>);

impl RequestSink for Tally {
    fn begin(&mut self, _: &RequestHead) {
        self.0.0.fetch_add(1, Ordering::SeqCst);
    }

    fn last_write(&mut self) {}

    fn not_yet(&mut self) {}

    fn end(&mut self, _: &RequestRecord<'_>) {
        self.0.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// A proxy and its origin.
pub(crate) struct World {
    origin: Origin,
    address: SocketAddr,
    tally: Tally,
    // dropped, they would end the proxy
    _conductor: Conductor,
    _running: Running,
}

/// What came of one client's bytes.
pub(crate) struct Outcome {
    /// The verdict on the whole.
    pub(crate) verdict: Verdict,
    /// What the origin was sent, read strictly; without what follows each client.
    pub(crate) arrived: Vec<Request>,
}

impl World {
    /// One that believes the forwarding fields of these networks.
    pub(crate) fn start(trusted: &[&str]) -> Mutex<Self> {
        let origin = Origin::start();
        let config = config(origin.address, trusted);
        let (conductor, drain) = lifecycle::drain();
        let sampling = Sampling::ratio(1.0, ParentFlag::Followed);
        let policy = TracePolicy { sampling, spans: SpanModel::Full, sentry_trace: false };
        let deps = Deps {
            routes: watch::channel(Arc::new(RouteTable::default())).1,
            tracing: watch::channel(policy).1,
            terms: Tuner::new(&config).1,
            drain,
            pulses: Vec::new(),
        };
        let bound = proxy::bind(&config).expect("port 0 is always free");
        let (address, tally) = (bound.address(), Tally::default());
        let running = bound.serve(deps, vec![tally.clone()]);
        Mutex::new(Self { origin, address, tally, _conductor: conductor, _running: running })
    }

    /// Sends these bytes, then one more request, and judges.
    ///
    /// # Panics
    /// When anything dirty came out, or a request began and never ended.
    pub(crate) fn judge(world: &Mutex<Self>, bytes: &[u8]) -> Outcome {
        let world = lock(world);
        let entry = entry(bytes);
        let (records, seen) = world.exchange(&entry);
        let judgement = verdict::judge(&Case { entry: &entry, records: &records, seen: &seen }, Demand::Cleanliness);
        assert!(judgement.holds(), "{judgement:?}");
        world.assert_all_ended();
        let read = |record: &Record| {
            let end = record.tunnel_at.unwrap_or(record.bytes.len());
            requests::read(&record.bytes[..end], Grammar::Canonical).requests
        };
        let arrived = records.iter().flat_map(read).filter(is_ours).collect();
        Outcome { verdict: judgement.verdict, arrived }
    }

    /// Sends these bytes, which are no text of HTTP/1.1, and returns what came of them at the origin.
    ///
    /// # Panics
    /// When that does not parse strictly, or a request began and never ended.
    pub(crate) fn translate(world: &Mutex<Self>, bytes: &[u8]) -> Vec<Request> {
        let world = lock(world);
        let mut arrived = Vec::new();
        talk(world.address, bytes);
        world.serve_the_next();
        for record in world.origin.settle() {
            let reading = requests::read(&record.bytes, Grammar::Canonical);
            assert!(!matches!(reading.stop, Stop::Bad(_)), "the origin got {:?}", reading.stop);
            arrived.extend(reading.requests.into_iter().filter(is_ours));
        }
        world.assert_all_ended();
        arrived
    }

    fn exchange(&self, entry: &Entry) -> (Vec<Record>, Seen) {
        // Where a strict reader would wait for more, only the end of the input can end the exchange.
        let short = matches!(requests::read(&verdict::wire(entry), Grammar::Lawful).stop, Stop::Short(_));
        let end = if short { End::Close } else { End::Follow };
        let sent = [Step::Send(verdict::wire(entry))];
        let seen = client::exchange(self.address, &sent, end, Pace::Whole);
        self.serve_the_next();
        (self.origin.settle(), seen)
    }

    /// Whoever is served now comes after all that the proxy still did for the client before.
    fn serve_the_next(&self) {
        let barrier = b"GET /oracle-barrier HTTP/1.1\r\nHost: barrier.example\r\nConnection: close\r\n\r\n".to_vec();
        let served = client::exchange(self.address, &[Step::Send(barrier)], End::Follow, Pace::Whole);
        assert!(served.bytes.starts_with(b"HTTP/1.1 "), "the next client was not served: {served:?}");
    }

    fn assert_all_ended(&self) {
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let (begun, ended) = (self.tally.0.0.load(Ordering::SeqCst), self.tally.0.1.load(Ordering::SeqCst));
            if begun == ended {
                return;
            }
            assert!(std::time::Instant::now() < until, "{begun} requests began, {ended} ended");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Writes, reads until the other side is silent for a moment, and closes: a connection of HTTP/2 does not end by itself, and
/// one that ends at once takes its streams with it.
fn talk(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the proxy listens");
    let mut buffer = [0; 4096];
    // Refused in the middle of it: the rest has nobody to go to.
    let _refused_is_fine = stream.write_all(bytes);
    for (silence, then) in [(MOMENT, Shutdown::Write), (PATIENCE, Shutdown::Both)] {
        stream.set_read_timeout(Some(silence)).expect("a duration above zero");
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        let _gone_is_fine = stream.shutdown(then);
    }
}

/// Not what follows each client.
fn is_ours(request: &Request) -> bool {
    !request.target.starts_with(b"/oracle-")
}

/// A target that has failed leaves its world to the next input.
fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

fn entry(bytes: &[u8]) -> Entry {
    Entry {
        class: String::new(),
        name: String::new(),
        rfc: String::new(),
        kind: Kind::May,
        statuses: Vec::new(),
        ask: String::new(),
        end: End::Follow,
        steps: vec![Step::Send(bytes.to_vec())],
    }
}

fn config(origin: SocketAddr, trusted: &[&str]) -> Config {
    let mut tree = Tree::default();
    let proxy = json!({"listen": "127.0.0.1:0", "upstream": format!("http://{origin}"), "trusted_proxies": trusted});
    tree.merge(json!({ "proxy": proxy }), &Place("target".to_owned()));
    let mut settings = Settings::new(tree, |_: &str| Err("no files".to_owned()));
    let config = Config::read(&mut settings.section("proxy"));
    let (_, problems, _) = settings.finish();
    assert!(problems.is_empty(), "{problems:?}");
    config
}
