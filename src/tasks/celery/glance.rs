//! Looks into messages that wait: which trace each was sent in, and for which queue those were that workers hold.
//!
//! Bounded in messages and in bytes, as they may hold anything. Takes nothing, and of what is seen only ids, traces and the
//! names of queues are kept.

use std::collections::BTreeMap;

use redis::Pipeline;

use crate::redis_link::resp::Reply;
use crate::redis_link::{Link, LinkError};
use crate::tasks::celery::event::TaskIds;
use crate::tasks::celery::message::{self, Sent};

/// A message that is longer is not looked into.
pub(super) const LONGEST_MESSAGE: u64 = 64 << 10;
/// Messages of each step through the hash, and steps: a worker holds a few for each of its processes.
const AT_ONCE: usize = 20;
const STEPS: usize = 25;
/// Messages at the head of each queue: the next to be taken.
const HEADS: i64 = 8;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) sent: Vec<Sent>,
    /// Messages that workers hold, by queue; `None` when there are more than are looked at.
    pub(super) unacked: Option<BTreeMap<String, u64>>,
    /// What the server refused.
    pub(super) refused: Option<&'static str>,
}

/// Looks at what workers hold, and at the heads of these lists.
///
/// # Errors
/// The connection is of no use any more.
pub(super) async fn look(link: &mut Link, hash: &str, lists: &[String], ids: &TaskIds) -> Result<Seen, LinkError> {
    let mut seen = Seen::default();
    held(link, hash, ids, &mut seen).await?;
    if lists.is_empty() {
        return Ok(seen);
    }
    let mut heads = Pipeline::new();
    for list in lists {
        heads.cmd("LRANGE").arg(list).arg(-HEADS).arg(-1);
    }
    for reply in link.ask_shortly(&heads, LONGEST_MESSAGE).await? {
        match reply {
            Reply::List(messages) => {
                let messages = messages.iter().filter_map(text);
                seen.sent.extend(messages.filter_map(|message| message::waiting(message, ids)));
            }
            Reply::Error(_) => seen.refused = Some("trace_context"),
            _ => {}
        }
    }
    Ok(seen)
}

/// Goes through the hash of what is not acknowledged.
async fn held(link: &mut Link, hash: &str, ids: &TaskIds, seen: &mut Seen) -> Result<(), LinkError> {
    // by its tag: the hash may move while it is read, and then tells an entry twice
    let mut queues = BTreeMap::new();
    let mut cursor = b"0".to_vec();
    for _ in 0..STEPS {
        let mut scan = Pipeline::new();
        scan.cmd("HSCAN").arg(hash).arg(&cursor).arg("COUNT").arg(AT_ONCE);
        let reply = link.ask_shortly(&scan, LONGEST_MESSAGE).await?.pop();
        let Some(Reply::List(parts)) = reply else {
            seen.refused = matches!(reply, Some(Reply::Error(_))).then_some("unacked_by_queue");
            return Ok(());
        };
        let [Reply::Text(next), Reply::List(entries)] = &parts[..] else { return Ok(()) };
        cursor.clone_from(next);
        let mut is_long = false;
        for entry in entries.chunks_exact(2) {
            is_long |= entry[1] == Reply::TooLong;
            let (Some(tag), Some(value)) = (text(&entry[0]), text(&entry[1])) else { continue };
            let Some((queue, sent)) = message::unacked(value, ids) else { continue };
            queues.insert(tag.to_vec(), queue);
            seen.sent.extend(sent);
        }
        // the server sends long ones whole, whatever we read of them: no more of them than of one step
        if is_long {
            return Ok(());
        }
        if cursor == b"0" {
            let mut counts = BTreeMap::new();
            queues.into_values().for_each(|queue| *counts.entry(queue).or_insert(0) += 1);
            seen.unacked = Some(counts);
            return Ok(());
        }
    }
    Ok(())
}

/// Looks into one message or entry of the hash, whichever it is.
pub(super) fn into(reply: &Reply, ids: &TaskIds) -> Option<Sent> {
    let text = text(reply)?;
    message::waiting(text, ids).or_else(|| message::unacked(text, ids)?.1)
}

fn text(reply: &Reply) -> Option<&[u8]> {
    match reply {
        Reply::Text(text) => Some(text),
        _ => None,
    }
}
