//! Messages as Celery publishes them on Redis, read into events.
//!
//! Foreign bytes: a message has a bound in bytes, in depth and in events; unknown fields and unknown kinds of events are
//! passed over, and what is no such message is refused with its reason. Texts that are not kept are read past, not into
//! memory of ours: of an exception its class, of a result whether it says that it failed.
//!
//! Source: `kombu/transport/virtual`, `celery/events/dispatcher.py`, `celery/backends/base.py`.

mod result;

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use crate::model::base64;
use crate::tasks::celery::event::{
    Event, ExceptionClass, Origin, ResultState, Sign, Step, TaskEvent, TaskId, TaskIds, TaskResult, Verdict,
    WorkerEvent, cut,
};
use crate::tasks::celery::moment;
use result::{Answer, text_verdict};

/// The longest message that is read; the subscriber does not even keep a longer one.
pub(super) const LONGEST_MESSAGE: usize = 1 << 20;
/// Celery sends 24 in one message.
const MOST_EVENTS: usize = 1_000;
/// A worker that names no period of its heartbeats has Celery's own.
const HEARTBEAT_SECONDS: f64 = 2.0;

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Refusal {
    /// Longer than `LONGEST_MESSAGE`.
    TooLong,
    /// Not UTF-8, not JSON, nested too deep, or with a value of another type than Celery's.
    Malformed,
    /// A body in an encoding that is not base64.
    Encoding,
}

impl Refusal {
    /// All, in the order of their numbers.
    pub(super) const ALL: [Self; 3] = [Self::TooLong, Self::Malformed, Self::Encoding];

    /// The value of the label `reason`.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Encoding => "encoding",
        }
    }
}

/// Reads one message of the exchange of events.
///
/// # Errors
/// It is none; nothing of it is used then.
pub(super) fn events(payload: &[u8], ids: &TaskIds) -> Result<Vec<Event>, Refusal> {
    let envelope: Envelope = json(payload)?;
    let body = match envelope.properties.body_encoding.as_deref() {
        Some("base64") => base64::decode(&envelope.body).ok_or(Refusal::Encoding)?,
        None => envelope.body.into_bytes(),
        Some(_) => return Err(Refusal::Encoding),
    };
    // one event or many: `untagged` would hold the whole body a second time to try both
    let raw = match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => json::<Many>(&body)?.0,
        _ => vec![json(&body)?],
    };
    Ok(raw.into_iter().filter_map(|raw| event(raw, ids)).collect())
}

/// Reads one message of the result backend; `id` is the end of its channel.
///
/// # Errors
/// It is none; nothing of it is used then.
pub(super) fn result(id: &str, payload: &[u8], ids: &TaskIds) -> Result<Option<Event>, Refusal> {
    let raw: RawResult = json(payload)?;
    let state = match raw.status.as_str() {
        "SUCCESS" => ResultState::Success(raw.result.verdict),
        "FAILURE" => ResultState::Failure(raw.result.class),
        "RETRY" => ResultState::Retry,
        "REVOKED" => ResultState::Revoked,
        _ => return Ok(None), // STARTED and an application's own states
    };
    Ok(Some(Event::Result(TaskResult { id: ids.id(id), state })))
}

/// Reads a worker's answer to `active_queues`: its name, and the queues that it consumes.
pub(super) fn active_queues(payload: &[u8]) -> Option<Vec<(String, Vec<String>)>> {
    #[derive(Deserialize)]
    struct Queue {
        name: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Reply {
        Queues(Vec<Queue>),
        Other(serde::de::IgnoredAny),
    }
    let envelope: Envelope = json(payload).ok()?;
    let body = base64::decode(&envelope.body)?;
    let replies: std::collections::BTreeMap<String, Reply> = json(&body).ok()?;
    // one that refuses has not said what it consumes
    let named = replies.into_iter().filter_map(|(host, reply)| match reply {
        Reply::Queues(queues) => Some((cut(host), queues.into_iter().map(|queue| cut(queue.name)).collect())),
        Reply::Other(_) => None,
    });
    Some(named.collect())
}

/// JSON nested deeper than serde's own limit of 128 is refused by it.
fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Refusal> {
    if bytes.len() > LONGEST_MESSAGE {
        return Err(Refusal::TooLong);
    }
    serde_json::from_slice(bytes).map_err(|_| Refusal::Malformed)
}

#[derive(Deserialize)]
struct Envelope {
    body: String,
    #[serde(default)]
    properties: Properties,
}

#[derive(Default, Deserialize)]
struct Properties {
    body_encoding: Option<String>,
}

#[derive(Deserialize)]
struct RawResult {
    status: String,
    #[serde(default)]
    result: Answer,
}

/// Every field of every event; what a kind does not have stays away.
#[derive(Deserialize)]
struct RawEvent {
    #[serde(rename = "type")]
    kind: String,
    hostname: String,
    pid: Option<u64>,
    timestamp: f64,
    uuid: Option<String>,
    root_id: Option<String>,
    parent_id: Option<String>,
    name: Option<String>,
    queue: Option<String>,
    retries: Option<u32>,
    eta: Option<String>,
    runtime: Option<f64>,
    #[serde(default, deserialize_with = "class")]
    exception: Option<ExceptionClass>,
    #[serde(default, deserialize_with = "verdict")]
    result: Verdict,
    freq: Option<f64>,
    active: Option<u64>,
    processed: Option<u64>,
    sw_ver: Option<String>,
}

/// The events of one message, and no more than there can be.
struct Many(Vec<RawEvent>);

impl<'de> Deserialize<'de> for Many {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Many;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Many, A::Error> {
                let mut events = Vec::new();
                while let Some(event) = seq.next_element()? {
                    if events.len() == MOST_EVENTS {
                        return Err(A::Error::custom("more events than a worker sends"));
                    }
                    events.push(event);
                }
                Ok(Many(events))
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

/// What a text that is not kept says.
struct Gist<T>(fn(&str) -> T);

impl<T: Default> Visitor<'_> for Gist<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }
}

fn class<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ExceptionClass>, D::Error> {
    deserializer.deserialize_any(Gist(ExceptionClass::of))
}

fn verdict<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Verdict, D::Error> {
    deserializer.deserialize_any(Gist(text_verdict))
}

/// The event, if it is of a kind that is counted and has what that kind needs.
fn event(raw: RawEvent, ids: &TaskIds) -> Option<Event> {
    match raw.kind.as_str() {
        "worker-online" => worker(raw, Sign::Online),
        "worker-heartbeat" => worker(raw, Sign::Heartbeat),
        "worker-offline" => worker(raw, Sign::Offline),
        _ => {
            let id: TaskId = ids.id(raw.uuid.as_deref()?);
            let (pid, at) = (raw.pid.unwrap_or_default(), raw.timestamp);
            let host = cut(raw.hostname.clone());
            let parent = raw.parent_id.as_deref().map(|parent| ids.id(parent));
            let root = raw.root_id.as_deref().map(|root| ids.id(root));
            let origin = parent.map(|parent| Origin { root: root.unwrap_or(parent), parent });
            Some(Event::Task(TaskEvent { id, host, pid, at, origin, step: step(raw)? }))
        }
    }
}

fn worker(raw: RawEvent, sign: Sign) -> Option<Event> {
    let seconds = raw.freq.filter(|seconds| (0.1..=3_600.0).contains(seconds)).unwrap_or(HEARTBEAT_SECONDS);
    Some(Event::Worker(WorkerEvent {
        host: cut(raw.hostname),
        pid: raw.pid.unwrap_or_default(),
        sign,
        period: Duration::from_secs_f64(seconds),
        active: raw.active.unwrap_or_default(),
        processed: raw.processed.unwrap_or_default(),
        version: cut(raw.sw_ver.unwrap_or_default()),
    }))
}

fn step(raw: RawEvent) -> Option<Step> {
    let due = raw.eta.as_deref().and_then(moment::unix_seconds);
    Some(match raw.kind.as_str() {
        "task-sent" => Step::Sent { name: cut(raw.name?), queue: raw.queue.map(cut), due },
        "task-received" => Step::Received { name: cut(raw.name?), retries: raw.retries.unwrap_or_default(), due },
        "task-started" => Step::Started,
        "task-succeeded" => Step::Succeeded { seconds: raw.runtime.filter(|s| *s >= 0.0), verdict: raw.result },
        "task-failed" => Step::Failed(raw.exception),
        "task-retried" => Step::Retried,
        "task-revoked" => Step::Revoked,
        "task-rejected" => Step::Rejected,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
