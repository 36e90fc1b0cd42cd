//! The one owner of all tasks: those that are open, the last that ended, and the counts.
//!
//! Bounded in each of them. Time is an argument; whoever asks first after a task's time has run out finds it lost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::catalogue::tasks::TASKS_REFUSED;
use crate::model::incident::{Incident, IncidentSink, Mishap, TaskFault};
use crate::model::sample::Sample;
use crate::model::task::{EndedTask, OpenTask, TaskId, TaskLists, TaskState, TaskTotals};
use crate::model::trace::TraceParent;
use crate::redact::Clean;
use crate::tasks::config::Config;
use crate::tasks::failures::Failures;
use crate::tasks::series::{Place, Series};

/// How many open tasks are told of: who looks for one that hangs finds it among the oldest.
const SHOWN: usize = 100;
/// How long a beginning may have waited in the client, so that the task has run for longer than is known here.
const LATE: Duration = Duration::from_secs(60);

/// All tasks.
#[derive(Debug)]
pub(super) struct Store {
    config: Config,
    open: HashMap<TaskId, Open>,
    /// None of the open ones began before it.
    since: Option<Instant>,
    /// The newest last.
    recent: VecDeque<Ended>,
    series: Series,
    failures: Failures,
    begun: u64,
    ended: [u64; TaskState::ALL.len()],
    too_many_open: u64,
    too_many_names: u64,
    /// Hears of each that failed or was lost; `None` when nobody does.
    incidents: Option<IncidentSink>,
}

/// A task as it was begun.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) name: Clean<'static>,
    pub(super) task_id: Option<Clean<'static>>,
    pub(super) trace: Option<TraceParent>,
    pub(super) begun: Instant,
    pub(super) place: Place,
}

/// A task that has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) id: TaskId,
    pub(super) task: Open,
    pub(super) state: TaskState,
    pub(super) error_type: Option<Clean<'static>>,
    pub(super) duration: Duration,
    pub(super) at: Instant,
}

/// How a task ended, as the application tells it.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) state: TaskState,
    pub(super) error_type: Option<Clean<'static>>,
    /// `None` when it did not measure.
    pub(super) duration: Option<Duration>,
}

/// What became of a word about a task's end.
#[derive(Debug)]
pub(super) enum Known {
    /// It has ended by it.
    Now(Ended),
    /// It had ended before, in this way.
    Before(TaskState),
}

/// As many tasks are open as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Store {
    pub(super) fn new(config: &Config, incidents: Option<IncidentSink>) -> Self {
        Self {
            config: config.clone(),
            open: HashMap::new(),
            since: None,
            recent: VecDeque::with_capacity(config.recent),
            series: Series::new(config.max_names),
            failures: Failures::default(),
            begun: 0,
            ended: [0; TaskState::ALL.len()],
            too_many_open: 0,
            too_many_names: 0,
            incidents,
        }
    }

    /// Is bounded so from now on.
    pub(super) fn bounded_by(&mut self, config: &Config) {
        self.config = config.clone();
        self.series.allow(config.max_names);
    }

    /// Begins a task, unless there are too many; that is counted.
    pub(super) fn begin(
        &mut self,
        id: TaskId,
        (name, task_id): (Clean<'static>, Option<Clean<'static>>),
        trace: Option<TraceParent>,
        now: Instant,
    ) -> Result<(), Full> {
        self.expire(now);
        if self.open.len() >= self.config.max_open {
            self.too_many_open += 1;
            return Err(Full);
        }
        let (place, known) = self.series.begin(&name);
        self.too_many_names += u64::from(known.is_err());
        self.begun += 1;
        self.since = Some(self.since.map_or(now, |since| since.min(now)));
        self.open.insert(id, Open { name, task_id, trace, begun: now, place });
        Ok(())
    }

    /// Ends a task; `None` when nobody knows it, or not any more.
    pub(super) fn end(&mut self, id: TaskId, end: End, now: Instant) -> Option<Known> {
        self.expire(now);
        let Some(task) = self.open.remove(&id) else {
            let ended = self.recent.iter().rev().find(|ended| ended.id == id)?;
            return Some(Known::Before(ended.state));
        };
        let age = now.saturating_duration_since(task.begun);
        let duration = end.duration.map_or(age, |told| told.min(age + LATE));
        let ended = Ended { id, task, state: end.state, error_type: end.error_type, duration, at: now };
        self.keep(ended.clone());
        Some(Known::Now(ended))
    }

    fn keep(&mut self, ended: Ended) {
        self.series.end(ended.task.place, ended.state, ended.duration);
        self.ended[ended.state as usize] += 1;
        if ended.state == TaskState::Failed {
            self.failures.add(ended.task.task_id.as_ref());
        }
        if let Some((sink, incident)) = self.incidents.as_ref().zip(incident(&ended)) {
            sink.put(incident);
        }
        while self.recent.len() >= self.config.recent {
            self.recent.pop_front();
        }
        self.recent.push_back(ended);
    }

    /// Gives up the tasks whose time has run out. Looks at all of them, but only when one of them may be old enough.
    fn expire(&mut self, now: Instant) {
        let limit = self.config.max_runtime;
        let is_over = |begun: Instant| now.saturating_duration_since(begun) >= limit;
        if !self.since.is_some_and(is_over) {
            return;
        }
        let mut lost: Vec<(TaskId, Open)> = self.open.extract_if(|_, task| is_over(task.begun)).collect();
        lost.sort_by_key(|(_, task)| task.begun);
        for (id, task) in lost {
            self.keep(Ended { id, task, state: TaskState::Lost, error_type: None, duration: limit, at: now });
        }
        self.since = self.open.values().map(|task| task.begun).min();
    }

    pub(super) fn totals(&mut self, now: Instant) -> TaskTotals {
        self.expire(now);
        let of_celery: HashSet<&Clean<'_>> = self.open.values().filter_map(|task| task.task_id.as_ref()).collect();
        let others = self.open.values().filter(|task| task.task_id.is_none()).count();
        TaskTotals {
            begun: self.begun,
            ended: self.ended,
            active: (of_celery.len() + others) as u64,
            active_of_celery: of_celery.len() as u64,
            failures: self.failures.count(),
            failures_of_celery: self.failures.of_celery(),
            too_many_open: self.too_many_open,
            too_many_names: self.too_many_names,
        }
    }

    pub(super) fn lists(&mut self, now: Instant) -> TaskLists {
        let totals = self.totals(now);
        let mut open: Vec<(&TaskId, &Open)> = self.open.iter().collect();
        open.sort_by_key(|(_, task)| task.begun);
        let open = open.into_iter().take(SHOWN).map(|(id, task)| OpenTask {
            id: *id,
            name: task.name.clone(),
            task_id: task.task_id.clone(),
            age: now.saturating_duration_since(task.begun),
            trace_id: task.trace.map(|trace| trace.trace_id),
        });
        let recent = self.recent.iter().rev().map(|ended| EndedTask {
            id: ended.id,
            name: ended.task.name.clone(),
            task_id: ended.task.task_id.clone(),
            state: ended.state,
            error_type: ended.error_type.clone(),
            duration: ended.duration,
            age: now.saturating_duration_since(ended.at),
            trace_id: ended.task.trace.map(|trace| trace.trace_id),
        });
        TaskLists { totals, open: open.collect(), recent: recent.collect() }
    }

    pub(super) fn samples(&mut self, now: Instant, out: &mut Vec<Sample>) {
        self.expire(now);
        self.series.samples(out);
        for (reason, count) in [("too_many_open", self.too_many_open), ("too_many_names", self.too_many_names)] {
            out.push(Sample::count(&TASKS_REFUSED, count).with_literal("reason", reason));
        }
    }
}

/// What is told of a task that did not do what it should.
fn incident(ended: &Ended) -> Option<Incident> {
    let fault = match ended.state {
        TaskState::Succeeded => return None,
        TaskState::Failed => TaskFault::Failed,
        TaskState::Lost => TaskFault::Lost,
    };
    let what = Mishap::Task {
        name: ended.task.name.clone(),
        fault,
        error_type: ended.error_type.clone(),
        task_id: ended.task.task_id.as_ref().and_then(|id| TaskId::parse(id.as_str())),
    };
    let trace = ended.task.trace;
    Some(Incident {
        at: None,
        what,
        trace_id: trace.map(|trace| trace.trace_id),
        span_id: trace.map(|trace| trace.parent),
    })
}
