//! One task, from the first that is heard of it to its end. Pure.
//!
//! What is heard is counted under the task's name and queue. Either may come later than what it names, because senders,
//! workers and the result backend speak on connections of their own; until both are known, or have been waited for
//! long enough, counts are kept here.

use std::sync::Arc;

use tokio::time::Instant;

use crate::tasks::celery::event::{ExceptionClass, TaskId, Verdict};
use crate::tasks::celery::names::{NameId, Names};
use crate::tasks::celery::totals::{BadEnd, Counts, Outcome, Totals};
use crate::tasks::celery::workers::Life;

/// What is known of a task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) born: Instant,
    pub(super) name: Option<NameId>,
    pub(super) queue: Option<NameId>,
    /// When it was sent and when it is due, by the sender's clock.
    sent: Option<f64>,
    due: Option<f64>,
    /// The worker that received it last.
    received_by: Option<Life>,
    /// What a task has that is more than waiting; boxed, because tens of thousands may only wait.
    pub(super) course: Option<Box<Course>>,
}

/// How a task has run.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// The run that is on, or the last one.
    pub(super) run: Option<Run>,
    pub(super) end: Option<End>,
    /// How many seconds the last run took, where that was told.
    ran: Option<f64>,
    /// Retries as told by events, by results and by the next reception.
    retries: [u32; 3],
    pending: Pending,
}

/// A run on a worker.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// By the worker's clock.
    pub(super) at: f64,
    /// By ours.
    pub(super) since: Instant,
    pub(super) host: Arc<str>,
    pub(super) life: Option<Life>,
}

/// The end of a task.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    class: Option<ExceptionClass>,
    /// Nothing that may still come says it better.
    is_firm: bool,
    is_counted: bool,
}

/// Who says that a task retries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Says {
    Event = 0,
    Result = 1,
    Reception = 2,
}

/// What is not counted yet.
#[derive(Debug, Default)]
struct Pending {
    is_any: bool,
    sent: u32,
    received: u32,
    started: u32,
    retried: u32,
    started_at: Option<f64>,
    seconds: Option<f64>,
}

impl Task {
    /// A task of which nothing is known.
    pub(super) fn new(now: Instant) -> Self {
        Self { born: now, name: None, queue: None, sent: None, due: None, received_by: None, course: None }
    }

    fn course(&mut self) -> &mut Course {
        self.course.get_or_insert_default()
    }

    fn pending(&mut self) -> &mut Pending {
        let pending = &mut self.course().pending;
        pending.is_any = true;
        pending
    }

    /// It was sent.
    pub(super) fn sent(&mut self, at: f64, due: Option<f64>) {
        // of a task that retries the last sending counts, whatever came first
        self.sent = Some(self.sent.map_or(at, |sent| sent.max(at)));
        self.is_due(due);
        self.pending().sent += 1;
    }

    /// A worker has it.
    pub(super) fn received(&mut self, retries: u32, due: Option<f64>, by: Option<Life>) {
        self.is_due(due);
        self.received_by = by;
        self.pending().received += 1;
        self.retried(retries, Says::Reception);
    }

    fn is_due(&mut self, due: Option<f64>) {
        self.due = match (self.due, due) {
            (Some(known), Some(told)) => Some(known.max(told)),
            (known, told) => known.or(told),
        };
    }

    /// It runs.
    pub(super) fn started(&mut self, run: Run) {
        let pending = self.pending();
        pending.started += 1;
        pending.started_at = Some(run.at);
        self.course().run = Some(run);
    }

    /// It ran for so long.
    pub(super) fn ran(&mut self, seconds: Option<f64>) {
        self.pending().seconds = seconds;
        self.course().ran = seconds;
    }

    /// The run that is on, or the last one.
    pub(super) fn run(&self) -> Option<&Run> {
        self.course.as_ref()?.run.as_ref()
    }

    /// The worker that has it, if none is known to have begun it.
    pub(super) fn held_by(&self) -> Option<Life> {
        let waits = |course: &Course| course.run.is_none() && course.end.is_none();
        self.received_by.filter(|_| self.course.as_ref().is_none_or(|course| waits(course)))
    }

    /// How it ended that ran: outcome, class, the run and its seconds; where nobody told these, by our clock to `ended`.
    pub(super) fn outcome(&self, ended: Instant) -> Option<(Outcome, Option<&ExceptionClass>, &Run, f64)> {
        let course = self.course.as_ref()?;
        let (end, run) = (course.end.as_ref()?, course.run.as_ref()?);
        let seconds = course.ran.filter(|_| !end.outcome.is_ours());
        let seconds = seconds.unwrap_or_else(|| ended.saturating_duration_since(run.since).as_secs_f64());
        Some((end.outcome, end.class.as_ref(), run, seconds))
    }

    /// The seconds from the start of its run to `at`, by the worker's clock.
    pub(super) fn seconds_to(&self, at: f64) -> Option<f64> {
        self.run().map(|run| at - run.at)
    }

    /// One of three says how often it has retried; the highest number is true, because each may miss some.
    pub(super) fn retried(&mut self, times: u32, says: Says) {
        // an application sets the number itself: no more than ever makes sense
        const MOST: u32 = 10_000;
        let course = self.course();
        let before = course.retries.iter().max().copied().unwrap_or_default();
        let told = &mut course.retries[says as usize];
        *told = (*told).max(times.min(MOST));
        let more = told.saturating_sub(before);
        if more > 0 {
            self.pending().retried += more;
        }
    }

    /// Somebody says that it has retried once more.
    pub(super) fn retried_again(&mut self, says: Says) {
        let times = self.course().retries[says as usize];
        self.retried(times.saturating_add(1), says);
    }

    /// It has ended. Gives whether this is its first end, or the end of one that had been given up.
    pub(super) fn ended(&mut self, end: End) -> FirstWord {
        let course = self.course();
        let word = match &mut course.end {
            Some(known) if known.is_counted && known.outcome.is_ours() && !end.outcome.is_ours() => {
                FirstWord::FoundAgain
            }
            // a verdict of ours gives way to a word of theirs
            Some(known) if !known.is_counted && known.outcome.is_ours() => FirstWord::No,
            Some(known) if known.is_counted || known.is_firm || !end.is_firm => return FirstWord::No,
            Some(_) => FirstWord::No,
            None => FirstWord::Yes,
        };
        course.end = Some(end);
        course.pending.is_any = true;
        word
    }

    /// Whether something is still to be counted.
    pub(super) fn has_pending(&self) -> bool {
        self.course.as_ref().is_some_and(|course| course.pending.is_any)
    }

    /// Whether all that is pending can be counted as it is.
    pub(super) fn is_settled(&self) -> bool {
        let is_firm = |course: &Course| course.end.as_ref().is_none_or(|end| end.is_firm);
        self.name.is_some() && self.queue.is_some() && self.course.as_ref().is_none_or(|course| is_firm(course))
    }

    /// Counts what is pending.
    pub(super) fn count(&mut self, id: TaskId, totals: &mut Totals, classes: &mut Names) {
        let pair = (self.name.unwrap_or(NameId::UNKNOWN), self.queue.unwrap_or(NameId::UNKNOWN));
        let ready_at = self.sent.map(|sent| self.due.map_or(sent, |due| due.max(sent)));
        let Some(course) = &mut self.course else { return };
        let pending = std::mem::take(&mut course.pending);
        let counts = totals.of(pair);
        pending.add_to(counts, ready_at);
        if course.is_bare() {
            self.course = None; // it only waits: tens of thousands may
            return;
        }
        let Some(end) = course.end.as_mut().filter(|end| !end.is_counted) else { return };
        end.is_counted = true;
        counts.outcomes[end.outcome as usize] += 1;
        if end.outcome == Outcome::Failed {
            let class = end.class.as_ref().map_or(NameId::UNKNOWN, |class| classes.id(class.as_str()));
            totals.failed(pair, class);
        }
        if end.outcome.is_failure() {
            let class = end.class.as_ref().map(|class| classes.id(class.as_str()));
            totals.ended_badly(BadEnd { id, name: pair.0, outcome: end.outcome, class });
        }
    }
}

/// What the end of a task means to who keeps the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstWord {
    Yes,
    No,
    FoundAgain,
}

impl End {
    /// An end that an event tells. Of a success the result backend may know better.
    pub(super) fn told(outcome: Outcome, class: Option<ExceptionClass>) -> Self {
        let is_firm = !matches!(outcome, Outcome::Succeeded | Outcome::ResultError);
        Self { outcome, class, is_firm, is_counted: false }
    }

    /// An end that the result backend tells.
    pub(super) fn kept(outcome: Outcome, class: Option<ExceptionClass>) -> Self {
        Self { outcome, class, is_firm: true, is_counted: false }
    }
}

/// The outcome of a task that ended well for Celery.
pub(super) fn success(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Good => Outcome::Succeeded,
        Verdict::Bad => Outcome::ResultError,
    }
}

impl Course {
    /// Whether there is nothing in it that must be remembered.
    fn is_bare(&self) -> bool {
        self.run.is_none() && self.end.is_none() && self.retries == [0; 3]
    }
}

impl Pending {
    fn add_to(self, counts: &mut Counts, ready_at: Option<f64>) {
        counts.sent += u64::from(self.sent);
        counts.received += u64::from(self.received);
        counts.started += u64::from(self.started);
        counts.retried += u64::from(self.retried);
        if let Some(seconds) = self.seconds {
            counts.runtime.record(seconds);
        }
        if let Some((started, ready)) = self.started_at.zip(ready_at) {
            // clocks of two machines: a start before the sending was no wait
            counts.wait.record((started - ready).max(0.0));
        }
    }
}
