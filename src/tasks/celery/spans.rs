//! Makes spans of Celery's tasks that have ended, unless the application's own SDK makes them.
//!
//! An SDK in the workers tells of a run seconds after it, through our intake. Where it may, spans wait for that long; once
//! it has told of any, only tasks that were lost become spans, because their worker cannot tell of them any more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::task::{TaskId, TaskMessage, TaskSpan};
use crate::model::trace::{Sampled, Sampling};
use crate::redact::{Clean, Outlet, Redactor};
use crate::tasks::celery::config::Making;
use crate::tasks::celery::names::{NameId, Names};
use crate::tasks::celery::state::Shared;
use crate::tasks::celery::totals::Outcome;
use crate::tasks::celery::traces::{Fault, Finished, span_of};

/// SDKs send what they have each five seconds, and a worker that is busy later.
const HELD: Duration = Duration::from_secs(15);
/// Spans that wait for it; beyond, the oldest leave sooner.
const MOST_HELD: usize = 4_096;
/// An SDK that has not told of a run for so long is there no more.
const SDK_GONE: Duration = Duration::from_secs(600);

/// Where spans of Celery's tasks go.
#[derive(Clone)]
pub struct SpanOut {
    /// Takes them; must not block.
    pub sink: Arc<dyn Fn(TaskSpan) + Send + Sync>,
    /// Which traces are kept where their callers have not decided, by the settings in force.
    pub sampling: watch::Receiver<Sampling>,
    /// When an SDK in a worker last told of a task that it had run; `None` when none can.
    pub sdk: Option<watch::Receiver<Option<Instant>>>,
}

impl fmt::Debug for SpanOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanOut").field("sampling", &self.sampling).finish_non_exhaustive()
    }
}

/// Makes the spans.
#[derive(Debug)]
pub(super) struct Spans {
    out: SpanOut,
    making: Making,
    redactor: Arc<Redactor>,
    shared: Shared,
}

/// Spans that wait.
pub(super) type Held = VecDeque<(Instant, TaskSpan)>;

impl Spans {
    /// `None` where none are made.
    pub(super) fn new(making: Making, out: Option<SpanOut>, redactor: &Arc<Redactor>, shared: &Shared) -> Option<Self> {
        let out = out.filter(|_| making != Making::Never)?;
        Some(Self { out, making, redactor: Arc::clone(redactor), shared: shared.clone() })
    }

    /// Makes spans of what has ended, and lets those go that have waited.
    pub(super) fn turn(&self, held: &mut Held, now: Instant) {
        let ended: Vec<TaskSpan> = {
            let mut state = self.shared.lock();
            let ended = state.ledger.traces.take();
            ended.into_iter().filter_map(|task| self.span(&task, &state.ledger.names, &state.ledger.queues)).collect()
        };
        held.extend(ended.into_iter().map(|span| (now, span)));
        let told = self.told(now);
        if told {
            let before = held.len();
            held.retain(|(_, span)| is_lost(span));
            self.shared.lock().told_by_sdk += (before - held.len()) as u64;
        }
        let wait = if self.may_be_told() && !told { HELD } else { Duration::ZERO };
        while held.len() > MOST_HELD || held.front().is_some_and(|(since, _)| now.duration_since(*since) >= wait) {
            let Some((_, span)) = held.pop_front() else { break };
            (self.out.sink)(span);
        }
    }

    /// Whether the span of a task that ended so is ours, and not an SDK's or nobody's.
    pub(super) fn makes_one(&self, outcome: Outcome, now: Instant) -> bool {
        match outcome {
            Outcome::Unseen => false,
            Outcome::Lost => true,
            _ => !self.told(now),
        }
    }

    /// Lets all go that wait, at the end.
    pub(super) fn let_go(&self, held: &mut Held) {
        held.drain(..).for_each(|(_, span)| (self.out.sink)(span));
    }

    /// Whether an SDK in a worker could tell of runs.
    fn may_be_told(&self) -> bool {
        self.making == Making::Auto && self.out.sdk.is_some()
    }

    /// Whether one does.
    fn told(&self, now: Instant) -> bool {
        let last = self.out.sdk.as_ref().and_then(|sdk| *sdk.borrow());
        self.may_be_told() && last.is_some_and(|last| now.saturating_duration_since(last) < SDK_GONE)
    }

    /// The span of a task in a trace whose spans are kept.
    fn span(&self, task: &Finished, names: &Names, queues: &Names) -> Option<TaskSpan> {
        if self.out.sampling.borrow().decide(task.place.trace, task.place.sampled) == Sampled::No {
            return None;
        }
        let started = Duration::try_from_secs_f64(task.started).ok()?;
        let duration = Duration::try_from_secs_f64(task.seconds.max(0.0)).ok()?;
        let message = TaskMessage {
            span: span_of(task.id),
            id: task.id.uuid().map(TaskId::foreign),
            queue: (task.queue != NameId::UNKNOWN).then(|| queues.shown(task.queue)),
            worker: self.redactor.text(Outlet::Telemetry, task.worker.as_bytes()).into_owned(),
        };
        Some(TaskSpan {
            name: names.shown(task.name),
            trace_id: task.place.trace,
            parent: task.place.parent,
            ended_unix_nanos: u64::try_from((started + duration).as_nanos()).ok()?,
            duration,
            error_type: task.error.as_ref().map(|fault| self.error_type(fault)),
            message: Some(message),
        })
    }

    fn error_type(&self, fault: &Fault) -> Clean<'static> {
        match fault {
            Fault::Raised(Some(class)) => self.redactor.text(Outlet::Telemetry, class.as_str().as_bytes()).into_owned(),
            Fault::Raised(None) => Clean::literal("_OTHER"),
            Fault::Ended(outcome) => Clean::literal(outcome.label()),
        }
    }
}

fn is_lost(span: &TaskSpan) -> bool {
    span.error_type.as_ref().is_some_and(|error| error.as_str() == Outcome::Lost.label())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::advance;

    use super::*;
    use crate::model::trace::{ParentFlag, SpanId, TraceId};
    use crate::tasks::celery::state;
    use crate::tasks::celery::traces::Place;

    type Left = Arc<Mutex<Vec<TaskSpan>>>;

    fn spans(making: Making, ratio: f64, sdk: Option<watch::Receiver<Option<Instant>>>) -> (Spans, Left) {
        let sampling = Sampling::ratio(ratio, ParentFlag::Followed);
        sampled_by(making, watch::channel(sampling).1, sdk)
    }

    fn sampled_by(
        making: Making,
        sampling: watch::Receiver<Sampling>,
        sdk: Option<watch::Receiver<Option<Instant>>>,
    ) -> (Spans, Left) {
        let (redactor, left) = (Arc::new(Redactor::new(["hunter2-hunter2"])), Left::default());
        let taken = Arc::clone(&left);
        let sink = Arc::new(move |span| taken.lock().unwrap().push(span));
        let out = SpanOut { sink, sampling, sdk };
        let shared = state::tests::shared(&redactor);
        (Spans::new(making, Some(out), &redactor, &shared).unwrap(), left)
    }

    /// A task that ended now, in a trace whose id ends so.
    fn ended(spans: &Spans, number: u8, sampled: Option<bool>, error: Option<Fault>) {
        let mut state = spans.shared.lock();
        let (name, queue) = (state.ledger.names.id("render"), state.ledger.queues.id("q"));
        let place = Place { trace: TraceId([number; 16]), parent: Some(SpanId([1; 8])), sampled };
        let (id, worker) =
            (crate::tasks::celery::event::TaskIds::default().id("order-7"), Arc::from("hunter2-hunter2@h"));
        state.ledger.traces.put(Finished { id, name, queue, worker, started: 5.0, seconds: 2.0, error, place });
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_leaves_at_once_where_no_sdk_can_tell_of_it() {
        let (spans, left) = spans(Making::Auto, 1.0, None);
        ended(&spans, 7, None, None);
        spans.turn(&mut Held::default(), Instant::now());
        let left = left.lock().unwrap();
        let message = left[0].message.as_ref().unwrap();
        assert_eq!((left[0].name.as_str(), left[0].ended_unix_nanos), ("render", 7_000_000_000));
        assert_eq!((message.id, message.worker.as_str()), (None, "[REDACTED:secret]@h"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_sdk_tells_is_not_told_again_and_what_it_cannot_tell_is() {
        let (told, sdk) = watch::channel(None);
        let (spans, left) = spans(Making::Auto, 1.0, Some(sdk));
        let mut held = Held::default();
        ended(&spans, 7, None, None);
        ended(&spans, 8, None, Some(Fault::Ended(Outcome::Lost)));
        spans.turn(&mut held, Instant::now());
        assert_eq!((left.lock().unwrap().len(), held.len()), (0, 2), "it may still be told");
        told.send_replace(Some(Instant::now()));
        spans.turn(&mut held, Instant::now());
        assert_eq!(left.lock().unwrap()[0].error_type.as_ref().unwrap().as_str(), "lost");
        assert_eq!((left.lock().unwrap().len(), held.len(), spans.shared.lock().told_by_sdk), (1, 0, 1));
        advance(SDK_GONE).await;
        ended(&spans, 9, None, None);
        spans.turn(&mut held, Instant::now());
        advance(HELD).await;
        spans.turn(&mut held, Instant::now());
        assert_eq!(left.lock().unwrap().len(), 2, "it is there no more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_setting_is_stronger_than_what_is_seen() {
        let (_told, sdk) = watch::channel(Some(Instant::now()));
        let (spans, left) = spans(Making::Always, 1.0, Some(sdk));
        ended(&spans, 7, None, None);
        spans.turn(&mut Held::default(), Instant::now());
        assert_eq!(left.lock().unwrap().len(), 1);
        let shared = spans.shared.clone();
        assert!(Spans::new(Making::Never, Some(spans.out), &spans.redactor, &shared).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_sender_decides_which_traces_are_kept_and_else_the_ratio() {
        let (spans, left) = spans(Making::Auto, 0.0, None);
        for sampled in [None, Some(false), Some(true)] {
            ended(&spans, 7, sampled, None);
        }
        spans.turn(&mut Held::default(), Instant::now());
        assert_eq!(left.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn another_ratio_is_that_of_tasks_that_end_later() {
        let ratio = |ratio| Sampling::ratio(ratio, ParentFlag::Followed);
        let (sampling, reader) = watch::channel(ratio(0.0));
        let (spans, left) = sampled_by(Making::Auto, reader, None);
        ended(&spans, 7, None, None);
        spans.turn(&mut Held::default(), Instant::now());
        sampling.send_replace(ratio(1.0));
        ended(&spans, 8, None, None);
        spans.turn(&mut Held::default(), Instant::now());
        assert_eq!(left.lock().unwrap().iter().map(|span| span.trace_id).collect::<Vec<_>>(), [TraceId([8; 16])]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_leaves_sooner() {
        let (_told, sdk) = watch::channel(None);
        let (spans, left) = spans(Making::Auto, 1.0, Some(sdk));
        let mut held = Held::default();
        for _ in 0..MOST_HELD + 5 {
            ended(&spans, 7, None, None);
            spans.turn(&mut held, Instant::now());
        }
        assert_eq!((held.len(), left.lock().unwrap().len()), (MOST_HELD, 5));
        spans.let_go(&mut held);
        assert_eq!((held.len(), left.lock().unwrap().len()), (0, MOST_HELD + 5));
    }
}
