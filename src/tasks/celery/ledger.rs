//! The account of the tasks: each is counted once, whatever order its events come in. Pure: time is an argument.
//!
//! Bounded in tasks, in labels and in time. A run whose worker went silent is lost after `lost_after`; one whose worker
//! has had nothing to do for a while has ended without a word. What could not be heard while we, or a worker, were not
//! connected says nothing: a run from before such a time is in doubt until its worker proves that it goes on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::redact::Redactor;
use crate::tasks::celery::adrift::Adrift;
use crate::tasks::celery::event::{Event, ResultState, Step, TaskEvent, TaskId, TaskResult, WorkerEvent};
use crate::tasks::celery::names::{NameId, Names};
use crate::tasks::celery::task::{End, FirstWord, Run, Says, Task, success};
use crate::tasks::celery::totals::{Outcome, Totals};
use crate::tasks::celery::traces::Traces;
use crate::tasks::celery::workers::{Life, Workers};

/// Tasks that are remembered; the oldest is forgotten for a new one.
const MOST_TASKS: usize = 100_000;
/// A task without an end is forgotten after this time.
const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);
/// After its end a task is remembered for so long, because the same end is told twice.
const AFTERGLOW: Duration = Duration::from_secs(60);
/// A name, a queue or a better word on an end is waited for so long: workers send their events each second.
const SETTLING: Duration = Duration::from_secs(2);
/// A worker that has been idle for so long has nothing that runs.
const IDLE: Duration = Duration::from_secs(6);
/// Names that become labels.
const MOST_NAMES: u16 = 200;
/// Classes of exceptions that become labels.
const MOST_CLASSES: u16 = 100;

/// The account.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) workers: Workers,
    pub(super) totals: Totals,
    pub(super) names: Names,
    pub(super) queues: Names,
    pub(super) classes: Names,
    /// Who makes spans switches it on.
    pub(super) traces: Traces,
    /// Tasks that were forgotten for want of room.
    pub(super) forgotten: u64,
    lost_after: Duration,
    tasks: HashMap<TaskId, Task>,
    /// The tasks by age, with when each was born; some are gone.
    by_age: VecDeque<(TaskId, Instant)>,
    running: HashSet<TaskId>,
    /// Those of them whose end may have been told to nobody.
    doubted: HashSet<TaskId>,
    /// Those that a worker had before nothing was heard.
    pub(super) adrift: Adrift,
    settling: VecDeque<(Instant, TaskId)>,
    ended: VecDeque<(Instant, TaskId)>,
}

impl Ledger {
    /// An empty account.
    pub(super) fn new(lost_after: Duration, most_queues: u16, redactor: &Arc<Redactor>) -> Self {
        Self {
            workers: Workers::default(),
            totals: Totals::default(),
            names: Names::new(MOST_NAMES, redactor),
            queues: Names::new(most_queues, redactor),
            classes: Names::new(MOST_CLASSES, redactor),
            traces: Traces::default(),
            forgotten: 0,
            lost_after,
            tasks: HashMap::new(),
            by_age: VecDeque::new(),
            running: HashSet::new(),
            doubted: HashSet::new(),
            adrift: Adrift::default(),
            settling: VecDeque::new(),
            ended: VecDeque::new(),
        }
    }

    /// Takes a run for lost after so long a silence from now on.
    pub(super) fn lose_after(&mut self, silence: Duration) {
        self.lost_after = silence;
    }

    /// Takes in what was told.
    pub(super) fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Worker(event) => self.sign(&event, now),
            Event::Task(event) => self.step(event, now),
            Event::Result(result) => self.result(result, now),
        }
    }

    /// What workers tell is not heard any more: it cannot be known whether what runs now has ended later.
    pub(super) fn deaf(&mut self) {
        self.workers.deaf();
        // what a life had that was over before did not end, or begin, in a time that was not heard
        let living = self.workers.living();
        let runs = |id: &TaskId| self.tasks.get(id).and_then(Task::run)?.life;
        self.doubted.extend(self.running.iter().filter(|id| runs(id).is_some_and(|life| living.contains(&life))));
        let held = self.tasks.iter().filter_map(|(id, task)| Some((*id, task.held_by()?)));
        self.adrift.gather(held.filter(|(_, life)| living.contains(life)));
    }

    fn sign(&mut self, event: &WorkerEvent, now: Instant) {
        let Some(said) = self.workers.told(event, now) else { return };
        // what it had started without a word is missed, by its own count
        self.adrift.heard_of_worker(said.life);
        if said.is_back {
            let running: Vec<TaskId> = self.of_life(&self.running, said.life).collect();
            self.doubted.extend(running);
        }
        let Some(runs) = said.runs else { return };
        let doubted: Vec<TaskId> = self.of_life(&self.doubted, said.life).collect();
        if !doubted.is_empty() && self.of_life(&self.running, said.life).count() as u64 <= runs {
            for id in doubted {
                self.doubted.remove(&id);
            }
        }
    }

    /// Those of these tasks that this life runs.
    fn of_life<'a>(&'a self, tasks: &'a HashSet<TaskId>, life: Life) -> impl Iterator<Item = TaskId> + 'a {
        let is_of = move |run: &Run| run.life == Some(life);
        tasks.iter().copied().filter(move |id| self.tasks.get(id).and_then(Task::run).is_some_and(is_of))
    }

    fn step(&mut self, event: TaskEvent, now: Instant) {
        let TaskEvent { id, host, pid, at, origin, step } = event;
        if let Some(origin) = origin {
            self.traces.sent_by(id, origin);
        }
        // a sender is no worker
        let by = if matches!(step, Step::Sent { .. }) { None } else { self.workers.told_of_task(&host, pid, now) };
        if by.is_some() {
            self.adrift.heard_of_task(id);
        }
        match step {
            Step::Sent { name, queue, due } => {
                let (name, queue) = (self.names.id(&name), queue.map(|queue| self.queues.id(&queue)));
                let task = self.task(id, now);
                (task.name, task.queue) = (Some(name), queue.or(task.queue));
                task.sent(at, due);
            }
            Step::Received { name, retries, due } => {
                let name = self.names.id(&name);
                let task = self.task(id, now);
                task.name = Some(name);
                task.received(retries, due, by.map(|(_, life)| life));
            }
            Step::Started => {
                self.workers.started(&host, pid);
                let (host, life) = by.map_or((Arc::from(""), None), |(host, life)| (host, Some(life)));
                self.started(id, Run { at, since: now, host, life }, now);
            }
            Step::Succeeded { seconds, verdict } => {
                self.task(id, now).ran(seconds);
                self.end(id, End::told(success(verdict), None), now);
            }
            Step::Failed(class) => {
                let task = self.task(id, now);
                task.ran(task.seconds_to(at));
                self.end(id, End::told(Outcome::Failed, class), now);
            }
            Step::Retried => {
                let task = self.task(id, now);
                task.retried_again(Says::Event);
                // a run that began after this was told is the next one
                let is_over = task.seconds_to(at).is_none_or(|seconds| seconds >= 0.0);
                if is_over {
                    self.runs_no_more(id);
                }
            }
            Step::Revoked => self.end(id, End::told(Outcome::Revoked, None), now),
            Step::Rejected => self.end(id, End::told(Outcome::Rejected, None), now),
        }
        self.settle(id, now);
    }

    fn result(&mut self, result: TaskResult, now: Instant) {
        let TaskResult { id, state } = result;
        self.adrift.heard_of_task(id);
        match state {
            ResultState::Success(verdict) => self.end(id, End::kept(success(verdict), None), now),
            ResultState::Failure(class) => self.end(id, End::kept(Outcome::Failed, class), now),
            ResultState::Revoked => self.end(id, End::kept(Outcome::Revoked, None), now),
            ResultState::Retry => self.task(id, now).retried_again(Says::Result),
        }
        self.settle(id, now);
    }

    /// A start whose end was told already runs no more, unless it had been given up.
    fn started(&mut self, id: TaskId, run: Run, now: Instant) {
        let task = self.task(id, now);
        let ended = task.course.as_ref().and_then(|course| course.end.as_ref());
        let is_over = ended.is_some_and(|end| !end.outcome.is_ours());
        task.started(run);
        if !is_over {
            self.running.insert(id);
            self.doubted.remove(&id);
        }
    }

    fn runs_no_more(&mut self, id: TaskId) {
        self.doubted.remove(&id);
        if self.running.remove(&id)
            && let Some(run) = self.tasks.get(&id).and_then(Task::run)
        {
            self.workers.stirred(&run.host);
        }
    }

    fn end(&mut self, id: TaskId, end: End, now: Instant) {
        self.runs_no_more(id);
        match self.task(id, now).ended(end) {
            FirstWord::Yes => {
                self.ended.push_back((now, id));
                self.traces.left(id, now);
            }
            FirstWord::FoundAgain => {
                self.totals.found_again += 1;
                self.traces.left(id, now);
            }
            FirstWord::No => {}
        }
    }

    /// Counts what is heard at once if it can be, else later.
    fn settle(&mut self, id: TaskId, now: Instant) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        if task.is_settled() {
            task.count(id, &mut self.totals, &mut self.classes);
        } else if task.has_pending() {
            self.settling.push_back((now, id));
        }
    }

    fn task(&mut self, id: TaskId, now: Instant) -> &mut Task {
        if !self.tasks.contains_key(&id) {
            while self.tasks.len() >= MOST_TASKS {
                let Some((oldest, born)) = self.by_age.pop_front() else { break };
                if self.forget(oldest, born) {
                    self.forgotten += 1;
                }
            }
            self.by_age.push_back((id, now));
        }
        self.tasks.entry(id).or_insert_with(|| Task::new(now))
    }

    /// Forgets a task if it is still the one that was born then.
    fn forget(&mut self, id: TaskId, born: Instant) -> bool {
        let Some(mut task) = self.tasks.remove(&id) else { return false };
        if task.born != born {
            self.tasks.insert(id, task);
            return false;
        }
        task.count(id, &mut self.totals, &mut self.classes);
        self.running.remove(&id);
        self.doubted.remove(&id);
        self.adrift.heard_of_task(id);
        true
    }

    /// Lets time pass; `listening` is since when events are heard, `None` while they are not.
    pub(super) fn tick(&mut self, listening: Option<Instant>, now: Instant) {
        if let Some(listening) = listening {
            self.judge_runs(listening, now);
            if now.saturating_duration_since(listening) > self.lost_after {
                self.adrift.give_up();
            }
        }
        while let Some((_, id)) = self.settling.pop_front_if(|(since, _)| now.duration_since(*since) >= SETTLING) {
            if let Some(task) = self.tasks.get_mut(&id) {
                task.count(id, &mut self.totals, &mut self.classes);
            }
        }
        while let Some((ended, id)) = self.traces.next_known(SETTLING, now) {
            if let Some(task) = self.tasks.get(&id) {
                self.traces.keep(id, task, ended);
            }
        }
        while let Some((_, id)) = self.ended.pop_front_if(|(since, _)| now.duration_since(*since) >= AFTERGLOW) {
            if !self.running.contains(&id)
                && let Some(born) = self.tasks.get(&id).map(|task| task.born)
            {
                self.forget(id, born);
            }
        }
        while let Some((id, born)) = self.by_age.pop_front_if(|(_, born)| now.duration_since(*born) >= REMEMBERED) {
            self.forget(id, born);
        }
        // one that waits for long holds back the ages of those that are gone
        if self.by_age.len() > 2 * self.tasks.len() + 1_024 {
            let tasks = &self.tasks;
            self.by_age.retain(|(id, born)| tasks.get(id).is_some_and(|task| task.born == *born));
        }
        self.workers.tidy(now);
    }

    /// Ends the runs of which no end will be told.
    fn judge_runs(&mut self, listening: Instant, now: Instant) {
        let verdict = |id: &TaskId| {
            let run = self.tasks.get(id)?.run()?;
            let life = run.life?;
            if self.workers.silence(&run.host, life, listening, now) > self.lost_after {
                return Some(if self.doubted.contains(id) { Outcome::Unseen } else { Outcome::Lost });
            }
            let idle = self.workers.idle_since(&run.host, life)?;
            (run.since < idle && now.duration_since(idle) > IDLE).then_some(Outcome::Unseen)
        };
        let over: Vec<(TaskId, Outcome)> = self.running.iter().filter_map(|id| Some((*id, verdict(id)?))).collect();
        for (id, outcome) in over {
            self.end(id, End::told(outcome, None), now);
            self.settle(id, now);
        }
    }

    /// A name of a pair, as it is shown.
    pub(super) fn shown(&self, (name, queue): (NameId, NameId)) -> [crate::redact::Clean<'static>; 2] {
        [self.names.shown(name), self.queues.shown(queue)]
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod a_day;
