//! Which trace a task belongs to, and the tasks that have ended and become spans. Pure: time is an argument.
//!
//! Events carry no headers of messages. Where a message was seen while it waited its `traceparent` counts; else a task
//! that another one sent belongs to the trace of that one, and a task that nobody sent begins a trace of its own. Ids are
//! made from those of the tasks, so that each task finds its parent whatever is remembered of it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::trace::{SpanId, TraceId, TraceParent};
use crate::tasks::celery::event::{ExceptionClass, Origin, TaskId};
use crate::tasks::celery::names::NameId;
use crate::tasks::celery::task::Task;
use crate::tasks::celery::totals::Outcome;

/// Tasks whose context or origin is remembered: some minutes' worth.
const REMEMBERED: usize = 4_096;
/// Tasks that have ended and wait for who makes spans of them, which looks each second.
const MOST_ENDED: usize = 2_048;

/// A task that has ended after it ran.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) id: TaskId,
    pub(super) name: NameId,
    pub(super) queue: NameId,
    pub(super) worker: Arc<str>,
    /// When it started, in seconds since the Unix epoch, by the worker's clock.
    pub(super) started: f64,
    pub(super) seconds: f64,
    /// `None` when it succeeded.
    pub(super) error: Option<Fault>,
    pub(super) place: Place,
}

/// What was wrong with a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// An exception, by its class where that is known.
    Raised(Option<ExceptionClass>),
    /// Another outcome than success.
    Ended(Outcome),
}

/// Where a span stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) trace: TraceId,
    pub(super) parent: Option<SpanId>,
    /// What the sender has decided; `None` when nobody has.
    pub(super) sampled: Option<bool>,
}

/// Contexts, origins and ends.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Whether tasks become spans at all; nothing is kept otherwise.
    is_on: bool,
    contexts: Latest<TaskId, TraceParent>,
    origins: Latest<TaskId, Origin>,
    /// Ended lately: a better word on the end, or its duration, may still come.
    leaving: VecDeque<(Instant, TaskId)>,
    ended: VecDeque<Finished>,
    /// Tasks that became no span for want of room.
    pub(super) no_room: u64,
}

impl Traces {
    /// For tasks that become spans.
    pub(super) fn on() -> Self {
        Self { is_on: true, ..Self::default() }
    }

    /// Whether tasks become spans.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// A message was seen.
    pub(super) fn seen(&mut self, id: TaskId, context: TraceParent) {
        if self.is_on {
            self.contexts.insert(id, context);
        }
    }

    /// A task was told that another one sent.
    pub(super) fn sent_by(&mut self, id: TaskId, origin: Origin) {
        if self.is_on && origin.parent != id {
            self.origins.insert(id, origin);
        }
    }

    /// A task has ended.
    pub(super) fn left(&mut self, id: TaskId, now: Instant) {
        if self.is_on {
            self.leaving.push_back((now, id));
        }
    }

    /// The next task whose end is so old that all is known of it, and when it ended.
    pub(super) fn next_known(&mut self, settling: Duration, now: Instant) -> Option<(Instant, TaskId)> {
        self.leaving.pop_front_if(|(since, _)| now.duration_since(*since) >= settling)
    }

    /// Keeps what is known of a task that has ended at `ended`, if that makes a span.
    pub(super) fn keep(&mut self, id: TaskId, task: &Task, ended: Instant) {
        let Some((outcome, class, run, seconds)) = task.outcome(ended) else { return };
        let error = match outcome {
            Outcome::Succeeded => None,
            Outcome::Failed => Some(Fault::Raised(class.cloned())),
            Outcome::Unseen => return, // when it ended is not known
            other => Some(Fault::Ended(other)),
        };
        self.put(Finished {
            id,
            name: task.name.unwrap_or(NameId::UNKNOWN),
            queue: task.queue.unwrap_or(NameId::UNKNOWN),
            worker: Arc::clone(&run.host),
            started: run.at,
            seconds,
            error,
            place: self.place(id),
        });
    }

    /// Keeps a task that has ended, as long as there is room.
    pub(super) fn put(&mut self, finished: Finished) {
        if self.ended.len() < MOST_ENDED {
            self.ended.push_back(finished);
        } else {
            self.no_room += 1;
        }
    }

    /// Where the span of a task stands.
    pub(super) fn place(&self, id: TaskId) -> Place {
        if let Some(TraceParent { trace_id, parent, sampled }) = self.contexts.get(&id) {
            return Place { trace: *trace_id, parent: Some(*parent), sampled: Some(*sampled) };
        }
        let Some(Origin { root, parent }) = self.origins.get(&id) else {
            return Place { trace: trace_of(id), parent: None, sampled: None };
        };
        let above = self.contexts.get(parent).or_else(|| self.contexts.get(root));
        let (trace, sampled) = above.map_or((trace_of(*root), None), |above| (above.trace_id, Some(above.sampled)));
        Place { trace, parent: Some(span_of(*parent)), sampled }
    }

    /// The tasks that have ended since this was asked last.
    pub(super) fn take(&mut self) -> VecDeque<Finished> {
        std::mem::take(&mut self.ended)
    }
}

/// The trace that a task begins when nobody has begun one.
fn trace_of(id: TaskId) -> TraceId {
    TraceId(id.number().max(1).to_be_bytes())
}

/// The span of a task.
pub(super) fn span_of(id: TaskId) -> SpanId {
    let [.., a, b, c, d, e, f, g, h] = id.number().to_be_bytes();
    SpanId(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1).to_be_bytes())
}

/// A map that forgets what was put into it first.
#[derive(Debug)]
struct Latest<K, V> {
    values: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Latest<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + Hash, V> Latest<K, V> {
    fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(first) = self.order.pop_front()
        {
            self.values.remove(&first);
        }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::celery::event::TaskIds;

    const CONTEXT: TraceParent =
        TraceParent { trace_id: TraceId([0xab; 16]), parent: SpanId([0xcd; 8]), sampled: false };

    fn ids() -> [TaskId; 3] {
        let ids = TaskIds::default();
        [1, 2, 3].map(|number| ids.id(&format!("59226a2a-2b64-4f0b-9c3e-00000000000{number}")))
    }

    #[test]
    fn a_task_stands_below_the_span_that_its_message_names() {
        let ([root, ..], mut traces) = (ids(), Traces::on());
        traces.seen(root, CONTEXT);
        let place = Place { trace: CONTEXT.trace_id, parent: Some(CONTEXT.parent), sampled: Some(false) };
        assert_eq!(traces.place(root), place);
    }

    #[test]
    fn without_a_context_a_task_begins_a_trace_and_those_that_it_sends_stand_below_it() {
        let ([root, child, grandchild], mut traces) = (ids(), Traces::on());
        traces.sent_by(child, Origin { root, parent: root });
        traces.sent_by(grandchild, Origin { root, parent: child });
        traces.sent_by(root, Origin { root, parent: root });
        let places = [root, child, grandchild].map(|id| traces.place(id));
        assert_eq!(places.map(|place| place.trace), [trace_of(root); 3]);
        assert_eq!(places.map(|place| place.parent), [None, Some(span_of(root)), Some(span_of(child))]);
        assert_eq!(places.map(|place| place.sampled), [None; 3]);
        traces.seen(root, CONTEXT);
        assert_eq!(traces.place(child), Place { trace: CONTEXT.trace_id, sampled: Some(false), ..places[1] });
    }

    #[test]
    fn nothing_is_kept_where_tasks_become_no_spans_and_no_more_than_there_is_room_for() {
        let ([root, ..], mut off) = (ids(), Traces::default());
        off.seen(root, CONTEXT);
        off.left(root, Instant::now());
        assert_eq!((off.contexts.values.len(), off.leaving.len()), (0, 0));
        let (ids, mut traces) = (TaskIds::default(), Traces::on());
        for number in 0..2 * REMEMBERED {
            traces.seen(ids.id(&number.to_string()), CONTEXT);
        }
        assert_eq!((traces.contexts.values.len(), traces.contexts.order.len()), (REMEMBERED, REMEMBERED));
    }
}
