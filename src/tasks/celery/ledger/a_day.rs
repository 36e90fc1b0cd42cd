//! Workers that are killed, and times in which we hear nothing: each task of which anything was heard has one end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use crate::redact::Redactor;
use crate::tasks::celery::event::{Event, Sign, Step, TaskEvent, TaskIds, Verdict, WorkerEvent};
use crate::tasks::celery::ledger::Ledger;

const TURN: Duration = Duration::from_millis(500);
const LOST_AFTER: Duration = Duration::from_secs(30);

/// What happens in one turn, besides that workers go on.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Nothing,
    /// The process of this worker dies, and another one takes its name.
    Kill(usize),
    /// Nothing is heard for so many turns.
    Gap(u8),
}

/// A worker as it really is.
#[derive(Default)]
struct Worker {
    pid: u64,
    running: Option<(String, u8)>,
    processed: u64,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        20 => Just(Happens::Nothing),
        1 => (0..3_usize).prop_map(Happens::Kill),
        1 => (1..40_u8).prop_map(Happens::Gap),
    ]
}

/// The world: three workers, one task each at a time.
struct World {
    ledger: Ledger,
    ids: TaskIds,
    now: Instant,
    turn: u32,
    listening: Option<Instant>,
    workers: [Worker; 3],
    begun: u64,
    /// Tasks of which a start or an end was heard.
    heard: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let ledger = Ledger::new(LOST_AFTER, 10, &Arc::new(Redactor::new([])));
        let now = Instant::now();
        let (ids, workers) = (TaskIds::default(), std::array::from_fn(|_| Worker { pid: 1, ..Worker::default() }));
        Self { ledger, ids, now, turn: 0, listening: Some(now), workers, begun: 0, heard: BTreeSet::new() }
    }

    fn tell(&mut self, task: &str, worker: usize, step: Step) {
        if self.listening.is_none() {
            return;
        }
        if !matches!(step, Step::Received { .. }) {
            self.heard.insert(task.to_owned());
        }
        let (id, host, pid) = (self.ids.id(task), format!("w{worker}"), self.workers[worker].pid);
        self.ledger
            .take(Event::Task(TaskEvent { id, host, pid, at: f64::from(self.turn), origin: None, step }), self.now);
    }

    fn beat(&mut self, worker: usize) {
        if self.listening.is_none() {
            return;
        }
        let Worker { pid, running, processed } = &self.workers[worker];
        let event = WorkerEvent {
            host: format!("w{worker}"),
            pid: *pid,
            sign: Sign::Heartbeat,
            period: TURN * 4,
            active: u64::from(running.is_some()),
            processed: *processed,
            version: String::new(),
        };
        self.ledger.take(Event::Worker(event), self.now);
    }

    /// Half a second in which workers that have no task begin one.
    fn work(&mut self) {
        for worker in 0..self.workers.len() {
            if self.workers[worker].running.is_none() {
                self.begin(worker);
            }
        }
        self.pass();
    }

    fn begin(&mut self, worker: usize) {
        self.begun += 1;
        let task = format!("task-{}", self.begun);
        self.workers[worker].processed += 1;
        self.tell(&task, worker, Step::Received { name: "t".into(), retries: 0, due: None });
        self.tell(&task, worker, Step::Started);
        self.workers[worker].running = Some((task, (self.begun % 5) as u8));
    }

    /// Half a second of all workers; each ends its task when it is time.
    fn pass(&mut self) {
        self.now += TURN;
        self.turn += 1;
        for worker in 0..self.workers.len() {
            match self.workers[worker].running.take() {
                Some((task, 0)) => {
                    let is_good = task.len() % 2 == 0;
                    let good = Step::Succeeded { seconds: None, verdict: Verdict::Good };
                    self.tell(&task, worker, if is_good { good } else { Step::Failed(None) });
                }
                Some((task, left)) => self.workers[worker].running = Some((task, left - 1)),
                None => {}
            }
            if self.turn.is_multiple_of(4) {
                self.beat(worker);
            }
        }
        self.ledger.tick(self.listening, self.now);
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Nothing => self.work(),
            Happens::Kill(worker) => {
                let pid = self.workers[worker].pid + 1;
                self.workers[worker] = Worker { pid, ..Worker::default() };
                self.work();
            }
            Happens::Gap(turns) => {
                self.listening = None;
                (0..turns).for_each(|_| self.work());
                self.listening = Some(self.now);
                self.ledger.workers.ask_again();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn each_task_of_which_anything_was_heard_has_one_end(day in prop::collection::vec(happens(), 0..400)) {
        let mut world = World::new();
        day.into_iter().for_each(|what| world.happen(what));
        // until the last silence is over
        (0..100).for_each(|_| world.pass());
        let ends: u64 = world.ledger.totals.pairs().map(|(_, counts)| counts.outcomes.iter().sum::<u64>()).sum();
        prop_assert_eq!(ends - world.ledger.totals.found_again, world.heard.len() as u64);
        prop_assert_eq!(world.ledger.running.len(), 0);
    }
}
