//! Messages that wait in a queue or with a worker: of each its task's id, the trace that it was sent in, and its queue.
//! Bodies, which hold the arguments, are read past.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::model::trace::{TraceParent, parse_traceparent};
use crate::tasks::celery::event::{TaskId, TaskIds, cut};

/// What a message says of where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) id: TaskId,
    pub(super) context: TraceParent,
}

/// Reads a message as it stands in the list of a queue; `None` when it names no trace, or is none of Celery's.
pub(super) fn waiting(message: &[u8], ids: &TaskIds) -> Option<Sent> {
    serde_json::from_slice::<Message>(message).ok()?.sent(ids)
}

/// Reads an entry of the hash of messages that workers have taken and not acknowledged: its queue, and what it says.
pub(super) fn unacked(entry: &[u8], ids: &TaskIds) -> Option<(String, Option<Sent>)> {
    // message, exchange, routing key: the queue's name, as Celery routes
    let (message, _, queue): (Message, IgnoredAny, String) = serde_json::from_slice(entry).ok()?;
    Some((cut(queue), message.sent(ids)))
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    headers: Headers,
}

#[derive(Default, Deserialize)]
struct Headers {
    id: Option<String>,
    traceparent: Option<String>,
    /// Those that the sender gave to `apply_async`, once more.
    #[serde(default)]
    headers: Option<Inner>,
}

#[derive(Default, Deserialize)]
struct Inner {
    traceparent: Option<String>,
}

impl Message {
    fn sent(self, ids: &TaskIds) -> Option<Sent> {
        let Headers { id, traceparent, headers } = self.headers;
        let traceparent = traceparent.or_else(|| headers?.traceparent)?;
        let context = parse_traceparent(traceparent.as_bytes()).ok()?;
        Some(Sent { id: ids.id(&id?), context })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const ID: &str = "59226a2a-2b64-4f0b-9c3e-000000000001";

    #[test]
    fn a_message_tells_its_task_and_its_trace() {
        let ids = TaskIds::default();
        let known = Sent { id: ids.id(ID), context: parse_traceparent(HEADER.as_bytes()).unwrap() };
        let headers = [json!({"id": ID, "traceparent": HEADER}), json!({"id": ID, "headers": {"traceparent": HEADER}})];
        for headers in headers {
            let message = json!({"body": "W10=", "headers": headers, "properties": {"priority": 0}});
            assert_eq!(waiting(message.to_string().as_bytes(), &ids), Some(known));
            let entry = json!([message, "", "video-queue"]).to_string();
            assert_eq!(unacked(entry.as_bytes(), &ids), Some(("video-queue".to_owned(), Some(known))));
        }
    }

    #[test]
    fn what_names_no_trace_says_its_queue_only() {
        let ids = TaskIds::default();
        for headers in
            [json!({"id": ID}), json!({"traceparent": HEADER}), json!({"id": ID, "traceparent": "00-0"}), json!({})]
        {
            let message = json!({"headers": headers});
            assert_eq!(waiting(message.to_string().as_bytes(), &ids), None);
            let entry = json!([message, "exchange", "q"]).to_string();
            assert_eq!(unacked(entry.as_bytes(), &ids), Some(("q".to_owned(), None)));
        }
        for entry in ["", "[]", "null", r#"[{}, "", 7]"#, r#"[{"headers": 7}, "", "q"]"#] {
            assert_eq!(unacked(entry.as_bytes(), &ids), None, "{entry}");
        }
    }
}
