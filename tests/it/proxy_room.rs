//! The proxy room in this process, between a raw client and an origin that the test scripts byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use content_factory_sidecar::lifecycle::{self, Conductor};
use content_factory_sidecar::model::request::{Outcome, RequestHead, RequestKind, RequestRecord, RequestSink};
use content_factory_sidecar::model::route::RouteTable;
use content_factory_sidecar::model::trace::{ParentFlag, Sampling, SpanModel};
use content_factory_sidecar::proxy::{self, Config, Counters, Deps, Running, TracePolicy};
use content_factory_sidecar::settings::{Place, Settings, Tree};
use serde_json::{Value, json};
use tokio::sync::watch;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

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
            trace_id: record.trace.map(|trace| trace.trace_id.to_string()),
            parent: record.trace.and_then(|trace| trace.parent).map(|id| id.to_string()),
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

/// The room, serving.
pub(crate) struct Room {
    pub(crate) address: SocketAddr,
    pub(crate) ledger: Ledger,
    pub(crate) conductor: Conductor,
    pub(crate) counters: Arc<Counters>,
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
        let policy = TracePolicy { sampling: Sampling::ratio(1.0, ParentFlag::Followed), spans: SpanModel::Full };
        // the senders are dropped: nothing changes, and the values stay
        let deps = Deps {
            routes: watch::channel(Arc::new(routes)).1,
            tracing: watch::channel(policy).1,
            drain,
            pulses: Vec::new(),
        };
        let bound = proxy::bind(config).expect("port 0 is always free");
        let (address, ledger) = (bound.address(), Ledger::default());
        let running = bound.serve(deps, (0..config.workers).map(|_| wrap(ledger.clone())).collect());
        Self { address, ledger, conductor, counters: running.counters(), running }
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

/// An application that does what the test says with each connection, numbered from 0.
pub(crate) fn origin(script: impl Fn(usize, Client) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
    let address = listener.local_addr().expect("a bound socket has an address");
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let script = Arc::clone(&script);
            std::thread::spawn(move || script(number, Client::of(stream)));
        }
    });
    address
}

/// An application that answers each request with its head and body in the answer's body.
pub(crate) fn echo() -> SocketAddr {
    origin(|_, mut client| {
        while let Some(message) = client.try_message() {
            let body = format!("{}{}", message.head, String::from_utf8_lossy(&message.body));
            client.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    })
}

/// An end of a connection, and what has been read from it.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// A message as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The first line and the fields, with the blank line.
    pub(crate) head: String,
    /// The body, without its framing.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.head.get(9..12).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("the room listens"))
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("the option exists");
        let reader = BufReader::new(stream.try_clone().expect("a socket can be shared"));
        Self { stream, reader }
    }

    /// Writes; an end that is gone is seen when reading.
    pub(crate) fn send(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes());
    }

    /// Sends a GET request and reads its answer.
    pub(crate) fn get(&mut self, target: &str) -> Message {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.message()
    }

    /// The next message; there must be one.
    pub(crate) fn message(&mut self) -> Message {
        self.try_message().expect("a whole message, not the end of the connection")
    }

    /// The next message; `None` if the connection ends before it is whole.
    pub(crate) fn try_message(&mut self) -> Option<Message> {
        let head = self.head()?;
        let message = Message { head, body: Vec::new() };
        let status = message.status();
        let is_answer = message.head.starts_with("HTTP/");
        let bodiless = is_answer && (status < 200 || status == 204 || status == 304);
        let body = if bodiless {
            Vec::new()
        } else if message.field("transfer-encoding").is_some() {
            self.chunked()?
        } else if let Some(length) = message.field("content-length").and_then(|text| text.parse().ok()) {
            self.bytes(length)?
        } else if is_answer {
            let mut body = Vec::new();
            self.reader.read_to_end(&mut body).ok()?;
            body
        } else {
            Vec::new()
        };
        Some(Message { body, ..message })
    }

    /// The next head alone.
    pub(crate) fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        Some(head)
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn chunked(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
            if size == 0 {
                while line != "\r\n" {
                    line.clear();
                    if self.reader.read_line(&mut line).ok()? == 0 {
                        return None;
                    }
                }
                return Some(body);
            }
            body.extend(self.bytes(size)?);
            self.bytes(2)?;
        }
    }

    /// Everything up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    /// Whether the connection has ended with nothing more to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.rest().is_empty()
    }
}
