//! A project at Sentry as a stand-in: takes envelopes over HTTP, reads them as its documentation has them, and answers
//! by a script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::telemetry_receiver::free_listener;

/// An answer: its status and one header.
pub(crate) type Reply = (u16, Option<(&'static str, &'static str)>);

/// A request that came in.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) path: String,
    pub(crate) auth: String,
    pub(crate) content_type: String,
    /// The first item of the envelope, which is an event.
    pub(crate) event: Value,
    /// As it came, for whoever looks for what must not be in it.
    pub(crate) text: String,
    pub(crate) at: Instant,
    /// What it was answered with.
    pub(crate) status: u16,
}

#[derive(Debug, Default)]
struct Seen {
    script: VecDeque<Reply>,
    arrivals: Vec<Arrival>,
}

/// The project; ends when dropped.
pub(crate) struct Project {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Project {
    /// Answers by the script, then 200 to all.
    pub(crate) async fn start(script: &[Reply]) -> Self {
        Self::start_on(free_listener().await, script)
    }

    fn start_on(listener: TcpListener, script: &[Reply]) -> Self {
        let address = listener.local_addr().expect("a listener has an address");
        let seen = Arc::new(Mutex::new(Seen { script: script.iter().copied().collect(), arrivals: Vec::new() }));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("the project serves") });
        Self { address, seen, _tasks: tasks }
    }

    /// What a project's settings show.
    pub(crate) fn dsn(&self) -> String {
        format!("http://canary-0123456789abcdef@{}/42", self.address)
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.seen.lock().expect("no test panics while it holds what was seen").arrivals.clone()
    }

    /// The events that were taken, in the order in which they were made: several are on their way at once.
    pub(crate) fn events(&self) -> Vec<Value> {
        let taken = self.arrivals().into_iter().filter(|arrival| arrival.status == 200);
        let mut events: Vec<Value> = taken.map(|arrival| arrival.event).collect();
        let made = |event: &Value| event["timestamp"].as_f64().expect("each event has its time");
        events.sort_by(|one, other| made(one).total_cmp(&made(other)));
        events
    }
}

async fn answer(
    Shared(seen): Shared<Arc<Mutex<Seen>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, &'static str) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned();
    assert_eq!(text("content-encoding"), "none", "as it is");
    let mut seen = seen.lock().expect("no test panics while it holds what was seen");
    let (status, header) = seen.script.pop_front().unwrap_or((200, None));
    seen.arrivals.push(Arrival {
        path: uri.path().to_owned(),
        auth: text("x-sentry-auth"),
        content_type: text("content-type"),
        event: only_event(&body),
        text: String::from_utf8(body.to_vec()).expect("an envelope of text"),
        at: Instant::now(),
        status,
    });
    let pair = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let answer = header.map(pair).into_iter().collect();
    (StatusCode::from_u16(status).expect("a status"), answer, r#"{"id":"00000000000000000000000000000000"}"#)
}

/// Reads an envelope: a line of headers, then for each item a line of headers with its length, and its bytes.
fn only_event(envelope: &[u8]) -> Value {
    let (head, mut rest) = line(envelope);
    let id = head["event_id"].as_str().expect("an envelope of an event names it").replace('-', "");
    let mut events = Vec::new();
    while !rest.is_empty() {
        let (head, behind) = line(rest);
        let length = usize::try_from(head["length"].as_u64().expect("an item with its length")).expect("a length");
        if head["type"] == "event" {
            events.push(serde_json::from_slice::<Value>(&behind[..length]).expect("an event in JSON"));
        }
        rest = behind[length..].strip_prefix(b"\n").unwrap_or(&behind[length..]);
    }
    assert_eq!(events.len(), 1, "one envelope, one event: another behind it would be no part of it");
    let event = events.remove(0);
    assert_eq!(event["event_id"].as_str().map(|id| id.replace('-', "")), Some(id));
    event
}

fn line(bytes: &[u8]) -> (Value, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let value = serde_json::from_slice(&bytes[..end]).expect("a line of JSON");
    (value, bytes.get(end + 1..).unwrap_or_default())
}
