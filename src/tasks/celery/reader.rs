//! What the room knows, for whoever shows it: a state of one moment, samples, and two numbers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::age;
use crate::model::catalogue::celery as metrics;
use crate::model::catalogue::database::BUSINESS_PUBLISH_SUCCESS;
use crate::model::celery::{CeleryCounts, CeleryState, Condition, QueueState, TaskState, WorkerState};
use crate::model::sample::{LabelValue, Sample};
use crate::redact::{Clean, Outlet, Redactor};
use crate::semconv::{MESSAGING_DESTINATION_NAME, MESSAGING_OPERATION_NAME, MESSAGING_SYSTEM};
use crate::tasks::celery::config::Config;
use crate::tasks::celery::names::NameId;
use crate::tasks::celery::state::{Line, Shared, State};
use crate::tasks::celery::totals::{Counts, Outcome, Spread};
use crate::tasks::celery::wire::Refusal;
use crate::tasks::celery::workers::Worker;
use crate::wall_clock::since_epoch;

/// A worker that has nothing to do while messages wait is looked at for so long before anything is said.
const NOT_CONSUMING_AFTER: Duration = Duration::from_secs(30);

/// Reads what the room knows, from memory.
#[derive(Clone, Debug)]
pub struct Reader(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    shared: Shared,
    /// Of which it needs the time between two readings of the queues.
    settings: watch::Receiver<Config>,
    redactor: Arc<Redactor>,
}

impl Reader {
    pub(super) fn new(shared: Shared, settings: watch::Receiver<Config>, redactor: Arc<Redactor>) -> Self {
        Self(Some(Arc::new(Known { shared, settings, redactor })))
    }

    /// A reader of nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// All that is known now.
    #[must_use]
    pub fn state(&self) -> CeleryState {
        let Some(known) = &self.0 else { return CeleryState::off() };
        known.state(&known.shared.lock(), Instant::now())
    }

    /// What the application's own endpoints count.
    #[must_use]
    pub fn counts(&self) -> CeleryCounts {
        let Some(known) = &self.0 else { return CeleryCounts::default() };
        let state = known.shared.lock();
        CeleryCounts { active: active(&state, Instant::now()), errors: state.ledger.totals.errors() }
    }

    /// The samples of now; none of what was never seen.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        let Some(known) = &self.0 else { return };
        let (state, now) = (known.shared.lock(), Instant::now());
        if !state.is_found {
            return;
        }
        task_samples(&state, out);
        let period = known.settings.borrow().period;
        let mut read = Vec::new();
        known.queue_samples(&state, now, &mut read);
        let age = state.board.read_at.map(|at| now.saturating_duration_since(at));
        out.extend(read.into_iter().filter(|sample| age.is_some_and(|age| sample.metric.allows(age, period))));
        own_samples(&state, &known.redactor, now, out);
    }
}

impl Known {
    fn state(&self, state: &State, now: Instant) -> CeleryState {
        let age = |at: Option<Instant>| age::age(at, now);
        let queues_age = age(state.board.read_at);
        let mut workers: Vec<WorkerState> =
            state.ledger.workers.all(state.hearing.up_since(), now).map(|one| self.worker(state, one, now)).collect();
        workers.sort_by(|left, right| left.name.cmp(&right.name));
        CeleryState {
            hearing: condition(&state.hearing, now),
            asking: condition(&state.asking, now),
            is_found: state.is_found,
            not_allowed: state.not_allowed.clone(),
            gaps: state.gaps,
            last_gap_age: age(state.last_gap),
            messages: state.messages,
            refused: Refusal::ALL.map(|refusal| (refusal.label(), state.refused[refusal as usize])).to_vec(),
            missed: state.ledger.workers.missed(),
            uncertain: state.ledger.adrift.count(),
            workers,
            queues: self.queues(state, now),
            unacked: state.board.unacked,
            oldest_unacked_at: state.board.oldest_unacked,
            queues_age,
            is_stale: age::is_stale(queues_age, self.settings.borrow().period),
            consumers_age: age(state.board.asked_at()),
            tasks: state.ledger.totals.pairs().map(|(pair, counts)| task(state, pair, counts)).collect(),
            publishes: state.publishes(),
            failures: failures(state).collect(),
        }
    }

    fn clean(&self, name: &str) -> Clean<'static> {
        self.redactor.text(Outlet::Endpoint, name.as_bytes()).into_owned()
    }

    fn worker(&self, state: &State, (worker, is_alive): (&Worker, bool), now: Instant) -> WorkerState {
        let idle = worker.idle_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let waited = idle.min(state.board.waits_for(&worker.host, now));
        let consumes = state.board.consumed_by(&worker.host);
        WorkerState {
            name: self.clean(&worker.host),
            version: self.clean(&worker.version),
            is_alive,
            age: now.saturating_duration_since(worker.heard),
            active: worker.active,
            processed: worker.processed,
            sends_events: worker.sends_events,
            consumes: consumes.map(|queues| queues.iter().map(|queue| self.clean(queue)).collect()),
            not_consuming: Some(waited).filter(|waited| is_alive && *waited >= NOT_CONSUMING_AFTER),
        }
    }

    fn queues(&self, state: &State, now: Instant) -> Vec<QueueState> {
        let queues = state.board.queues().map(|(name, queue)| QueueState {
            name: self.clean(name),
            messages: queue.messages,
            unacked: state.board.unacked_of(name),
            consumers: queue.consumers,
            head_age: queue.head_age(now),
            unserved: queue.unserved(now),
        });
        queues.collect()
    }

    fn queue_samples(&self, state: &State, now: Instant, out: &mut Vec<Sample>) {
        for queue in self.queues(state, now) {
            let label = LabelValue::Text(queue.name);
            let mut push = |metric, value| {
                out.push(Sample::level(metric, value).with(MESSAGING_DESTINATION_NAME, label.clone()));
            };
            push(&metrics::QUEUE_MESSAGES, queue.messages as f64);
            push(&metrics::QUEUE_HEAD_AGE, queue.head_age.as_secs_f64());
            if let Some(consumers) = queue.consumers {
                push(&metrics::QUEUE_CONSUMERS, consumers as f64);
                push(&metrics::QUEUE_UNSERVED, queue.unserved.unwrap_or_default().as_secs_f64());
            }
            if let Some(unacked) = queue.unacked {
                push(&metrics::QUEUE_UNACKED, unacked as f64);
            }
        }
        if let Some(unacked) = state.board.unacked {
            out.push(Sample::level(&metrics::UNACKED_MESSAGES, unacked as f64));
            out.push(Sample::level(&metrics::UNACKED_OLDEST_AGE, unacked_age(state.board.oldest_unacked)));
        }
    }
}

/// Seconds since a moment of Redis' clients.
fn unacked_age(at: Option<f64>) -> f64 {
    let now = since_epoch();
    at.map_or(0.0, |at| (now.as_secs_f64() - at).max(0.0))
}

fn condition(line: &Line, now: Instant) -> Condition {
    match line {
        Line::Up { since } => Condition::Up(now.saturating_duration_since(*since)),
        Line::Down { problem: None, .. } => Condition::Connecting,
        Line::Down { since, problem: Some(problem), .. } => {
            Condition::Down(now.saturating_duration_since(*since), problem)
        }
    }
}

fn active(state: &State, now: Instant) -> u64 {
    // of workers that nobody hears nothing is known
    let Some(listening) = state.hearing.up_since() else { return 0 };
    let workers = state.ledger.workers.all(Some(listening), now);
    workers.filter(|(_, is_alive)| *is_alive).map(|(worker, _)| worker.active).sum()
}

fn task(state: &State, pair: (NameId, NameId), counts: &Counts) -> TaskState {
    let [name, queue] = state.ledger.shown(pair);
    let Counts { sent, received, started, retried, outcomes, .. } = counts;
    TaskState {
        name,
        queue,
        steps: [("sent", *sent), ("received", *received), ("started", *started), ("retried", *retried)],
        outcomes: Outcome::ALL.map(|outcome| (outcome.label(), outcomes[outcome as usize])).to_vec(),
        mean_seconds: counts.runtime.mean(),
        mean_wait_seconds: counts.wait.mean(),
    }
}

fn failures(state: &State) -> impl Iterator<Item = (Clean<'static>, Clean<'static>, Clean<'static>, u64)> {
    state.ledger.totals.failures().map(|(pair, class, count)| {
        let [name, queue] = state.ledger.shown(pair);
        (name, queue, state.ledger.classes.shown(class), count)
    })
}

fn task_samples(state: &State, out: &mut Vec<Sample>) {
    for (pair, counts) in state.ledger.totals.pairs() {
        let [name, queue] = state.ledger.shown(pair).map(LabelValue::Text);
        let labelled =
            |sample: Sample| sample.with(metrics::TASK, name.clone()).with(MESSAGING_DESTINATION_NAME, queue.clone());
        for (metric, count) in [
            (&metrics::TASKS_SENT, counts.sent),
            (&metrics::TASKS_RECEIVED, counts.received),
            (&metrics::TASKS_STARTED, counts.started),
            (&metrics::TASKS_RETRIED, counts.retried),
        ] {
            out.push(labelled(Sample::count(metric, count)));
        }
        for outcome in Outcome::ALL {
            if let Some(metric) = metric_of(outcome) {
                out.push(labelled(Sample::count(metric, counts.outcomes[outcome as usize])));
            }
        }
        for (metric, spread) in [(&metrics::TASK_DURATION, &counts.runtime), (&metrics::TASK_WAIT, &counts.wait)] {
            if spread.count() > 0 {
                out.push(labelled(Sample::histogram(metric, spread.histogram())));
            }
        }
    }
    let mut by_queue: BTreeMap<NameId, Spread> = BTreeMap::new();
    for ((_, queue), counts) in state.ledger.totals.pairs().filter(|(_, counts)| counts.runtime.count() > 0) {
        by_queue.entry(queue).or_default().add(&counts.runtime);
    }
    for (queue, spread) in by_queue {
        let sample = Sample::histogram(&metrics::PROCESS_DURATION, spread.histogram());
        let sample = sample.with_literal(MESSAGING_SYSTEM, "celery").with_literal(MESSAGING_OPERATION_NAME, "process");
        out.push(sample.with(MESSAGING_DESTINATION_NAME, LabelValue::Text(state.ledger.queues.shown(queue))));
    }
    for (name, queue, class, count) in failures(state) {
        let sample = Sample::count(&metrics::TASKS_FAILED, count).with(metrics::TASK, LabelValue::Text(name));
        let sample = sample.with(MESSAGING_DESTINATION_NAME, LabelValue::Text(queue));
        out.push(sample.with(metrics::EXCEPTION, LabelValue::Text(class)));
    }
}

/// The metric of an outcome; failures are counted by their class instead.
fn metric_of(outcome: Outcome) -> Option<&'static crate::model::catalogue::Metric> {
    Some(match outcome {
        Outcome::Succeeded => &metrics::TASKS_SUCCEEDED,
        Outcome::ResultError => &metrics::TASKS_RESULT_ERROR,
        Outcome::Failed => return None,
        Outcome::Revoked => &metrics::TASKS_REVOKED,
        Outcome::Rejected => &metrics::TASKS_REJECTED,
        Outcome::Lost => &metrics::TASKS_LOST,
        Outcome::Unseen => &metrics::TASKS_UNSEEN,
    })
}

/// What is true of the listening itself, and of all workers together.
fn own_samples(state: &State, redactor: &Redactor, now: Instant, out: &mut Vec<Sample>) {
    for refusal in Refusal::ALL {
        let count = Sample::count(&metrics::MESSAGES_REFUSED, state.refused[refusal as usize]);
        out.push(count.with_literal("reason", refusal.label()));
    }
    out.push(Sample::count(&metrics::EVENTS_MISSED, state.ledger.workers.missed()));
    out.push(Sample::level(&metrics::TASKS_UNCERTAIN, state.ledger.adrift.count() as f64));
    out.push(Sample::count(&metrics::GAPS, state.gaps));
    for (reason, count) in [("sdk", state.told_by_sdk), ("no_room", state.ledger.traces.no_room)] {
        out.push(Sample::count(&metrics::SPANS_LEFT_OUT, count).with_literal("reason", reason));
    }
    let publishes = state.publishes();
    for (outcome, count) in [("published", publishes.published), ("failed", publishes.failed)] {
        out.push(Sample::count(&metrics::PUBLISHES, count).with_literal("outcome", outcome));
    }
    if let Some(ratio) = publishes.success_ratio() {
        out.push(Sample::level(&BUSINESS_PUBLISH_SUCCESS, ratio).with_literal("source", "tasks"));
    }
    out.push(Sample::count(&metrics::TASKS_FOUND_AGAIN, state.ledger.totals.found_again));
    if let Some(listening) = state.hearing.up_since() {
        for (worker, is_alive) in state.ledger.workers.all(Some(listening), now) {
            let name = LabelValue::Text(redactor.text(Outlet::Telemetry, worker.host.as_bytes()).into_owned());
            let active = if is_alive { worker.active } else { 0 };
            out.push(Sample::level(&metrics::WORKER_ALIVE, is_alive.into()).with(metrics::WORKER, name.clone()));
            out.push(Sample::level(&metrics::WORKER_ACTIVE, active as f64).with(metrics::WORKER, name));
        }
    }
}

#[cfg(test)]
mod tests;
