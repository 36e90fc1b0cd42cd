//! Workers that are killed, and times in which we hear nothing: each task of which anything was heard has one end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use crate::redact::Redactor;
use crate::tasks::celery::event::{Event, Sign, Step, TaskEvent, TaskId, TaskIds, Verdict, WorkerEvent};
use crate::tasks::celery::ledger::Ledger;
use crate::tasks::celery::totals::Outcome;

const TURN: Duration = Duration::from_millis(500);
const LOST_AFTER: Duration = Duration::from_secs(30);

/// What happens in one turn, besides that workers go on.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Nothing,
    /// The process of this worker dies, and another one takes its name.
    Kill(usize),
    /// We hear nothing for so many turns.
    Gap(u8),
    /// This worker's own connection is gone for so many turns: what it tells of tasks is told to nobody.
    Cut(usize, u8),
    /// Redis itself is gone for so many turns, for workers and for us; this worker dies of it.
    Restart(usize, u8),
}

/// Tasks that a worker runs at a time.
const SLOTS: usize = 3;

/// A worker as it really is.
#[derive(Default)]
struct Worker {
    pid: u64,
    /// The tasks that it runs, and for how many turns more.
    running: [Option<(String, u8)>; SLOTS],
    processed: u64,
    /// Turns until it is connected again; what it sends then of itself, all at once.
    cut: u8,
    unsent: Vec<WorkerEvent>,
    /// Tasks that ended meanwhile. If it dies before it is connected again, nobody can know it of them.
    unsaid: Vec<TaskId>,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        40 => Just(Happens::Nothing),
        2 => (0..WORKERS).prop_map(Happens::Kill),
        1 => (1..40_u8).prop_map(Happens::Gap),
        1 => (0..WORKERS, 1..20_u8).prop_map(|(worker, turns)| Happens::Cut(worker, turns)),
        1 => (0..WORKERS, 1..20_u8).prop_map(|(worker, turns)| Happens::Restart(worker, turns)),
    ]
}

const WORKERS: usize = 3;

/// The world: three workers and their tasks.
struct World {
    ledger: Ledger,
    ids: TaskIds,
    now: Instant,
    turn: u32,
    listening: Option<Instant>,
    workers: [Worker; WORKERS],
    begun: u64,
    /// Tasks of which a start or an end was heard.
    heard: BTreeSet<String>,
    /// Those that ran when their worker was killed.
    killed: BTreeSet<TaskId>,
    /// Those of them that began after the last time in which anything may have been told to nobody.
    surely_lost: BTreeSet<TaskId>,
    /// Tasks whose start was heard, while nothing has been interrupted since.
    sure: BTreeSet<TaskId>,
    /// Tasks that the ledger calls lost.
    lost: BTreeSet<TaskId>,
}

impl World {
    fn new() -> Self {
        let ledger = Ledger::new(LOST_AFTER, 10, &Arc::new(Redactor::new([])));
        let now = Instant::now();
        Self {
            ledger,
            ids: TaskIds::default(),
            now,
            turn: 0,
            listening: Some(now),
            workers: std::array::from_fn(|_| Worker { pid: 1, ..Worker::default() }),
            begun: 0,
            heard: BTreeSet::new(),
            killed: BTreeSet::new(),
            surely_lost: BTreeSet::new(),
            sure: BTreeSet::new(),
            lost: BTreeSet::new(),
        }
    }

    fn tell(&mut self, task: &str, worker: usize, step: Step) {
        if self.listening.is_none() || self.workers[worker].cut > 0 {
            return;
        }
        let (id, host, pid) = (self.ids.id(task), format!("w{worker}"), self.workers[worker].pid);
        if !matches!(step, Step::Received { .. }) {
            self.heard.insert(task.to_owned());
        }
        if step == Step::Started {
            self.sure.insert(id);
        }
        self.ledger
            .take(Event::Task(TaskEvent { id, host, pid, at: f64::from(self.turn), origin: None, step }), self.now);
    }

    fn beat(&mut self, worker: usize, sign: Sign) {
        let Worker { pid, running, processed, cut, unsent, .. } = &mut self.workers[worker];
        let event = WorkerEvent {
            host: format!("w{worker}"),
            pid: *pid,
            sign,
            period: TURN * 4,
            active: running.iter().flatten().count() as u64,
            processed: *processed,
            version: String::new(),
        };
        if *cut > 0 {
            unsent.push(event);
        } else if self.listening.is_some() {
            self.ledger.take(Event::Worker(event), self.now);
        }
    }

    /// Half a second in which workers whose place is free begin a task.
    fn work(&mut self) {
        for worker in 0..WORKERS {
            for slot in 0..SLOTS {
                // a place is not always taken again at once
                if self.workers[worker].running[slot].is_none() && (self.turn as usize + slot).is_multiple_of(3) {
                    self.begin(worker, slot);
                }
            }
        }
        self.pass();
    }

    fn begin(&mut self, worker: usize, slot: usize) {
        self.begun += 1;
        let task = format!("task-{}", self.begun);
        self.workers[worker].processed += 1;
        self.tell(&task, worker, Step::Received { name: "t".into(), retries: 0, due: None });
        self.tell(&task, worker, Step::Started);
        let turns = if self.begun.is_multiple_of(7) { 90 } else { (self.begun % 5) as u8 };
        self.workers[worker].running[slot] = Some((task, turns));
    }

    /// Half a second of all workers; each ends its tasks when it is time.
    fn pass(&mut self) {
        self.now += TURN;
        self.turn += 1;
        for worker in 0..WORKERS {
            if self.workers[worker].cut > 0 {
                self.workers[worker].cut -= 1;
                if self.workers[worker].cut == 0 {
                    self.connect(worker);
                }
            }
            for slot in 0..SLOTS {
                match self.workers[worker].running[slot].take() {
                    Some((task, 0)) => {
                        if self.workers[worker].cut > 0 {
                            self.workers[worker].unsaid.push(self.ids.id(&task));
                        }
                        let is_good = task.len() % 2 == 0;
                        let good = Step::Succeeded { seconds: None, verdict: Verdict::Good };
                        self.tell(&task, worker, if is_good { good } else { Step::Failed(None) });
                    }
                    Some((task, left)) => self.workers[worker].running[slot] = Some((task, left - 1)),
                    None => {}
                }
            }
            if self.turn.is_multiple_of(4) {
                self.beat(worker, Sign::Heartbeat);
            }
        }
        self.ledger.tick(self.listening, self.now);
        let lost = self.ledger.totals.bad_ends().ends.into_iter().filter(|end| end.outcome == Outcome::Lost);
        self.lost.extend(lost.map(|end| end.id));
    }

    fn connect(&mut self, worker: usize) {
        for event in std::mem::take(&mut self.workers[worker].unsent) {
            if self.listening.is_some() {
                self.ledger.take(Event::Worker(event), self.now);
            }
        }
        self.workers[worker].unsaid.clear();
        self.beat(worker, Sign::Online);
    }

    fn kill(&mut self, worker: usize) {
        let pid = self.workers[worker].pid + 1;
        let dead = std::mem::replace(&mut self.workers[worker], Worker { pid, ..Worker::default() });
        self.killed.extend(dead.unsaid);
        for (task, _) in dead.running.into_iter().flatten() {
            let id = self.ids.id(&task);
            self.killed.insert(id);
            if self.sure.contains(&id) {
                self.surely_lost.insert(id);
            }
        }
        self.beat(worker, Sign::Online);
    }

    fn deaf(&mut self, turns: u8) {
        self.listening = None;
        self.sure.clear();
        self.ledger.deaf();
        (0..turns).for_each(|_| self.work());
        self.listening = Some(self.now);
        self.ledger.workers.ask_again();
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Nothing => self.work(),
            Happens::Kill(worker) => {
                self.kill(worker);
                self.work();
            }
            Happens::Gap(turns) => self.deaf(turns),
            Happens::Cut(worker, turns) => {
                self.workers[worker].cut = turns;
                self.sure.clear();
            }
            Happens::Restart(dies, turns) => {
                self.workers.iter_mut().for_each(|worker| worker.cut = turns + 1);
                self.deaf(turns);
                self.kill(dies);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn each_task_of_which_anything_was_heard_has_one_end_and_only_what_was_killed_is_lost(day in prop::collection::vec(happens(), 0..400)) {
        let mut world = World::new();
        day.into_iter().for_each(|what| world.happen(what));
        // until the last silence is over
        (0..200).for_each(|_| world.pass());
        let ends: u64 = world.ledger.totals.pairs().map(|(_, counts)| counts.outcomes.iter().sum::<u64>()).sum();
        prop_assert_eq!(ends - world.ledger.totals.found_again, world.heard.len() as u64);
        prop_assert_eq!((world.ledger.running.len(), world.ledger.doubted.len()), (0, 0));
        prop_assert!(world.lost.is_subset(&world.killed), "{:?}", world.lost.difference(&world.killed));
        prop_assert!(world.surely_lost.is_subset(&world.lost), "{:?}", world.surely_lost.difference(&world.lost));
    }
}
