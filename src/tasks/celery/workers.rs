//! The workers, by their heartbeats. Pure: time is an argument.
//!
//! A worker that is started again under its name is another life: what the old one ran is not run by the new one.
//! Owns nothing of tasks; tells how long a life has been silent.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::tasks::celery::calm::Calm;
use crate::tasks::celery::event::{Sign, WorkerEvent};

/// Workers that are told apart; more are not taken in, and counted.
const MOST_WORKERS: usize = 1_000;
/// A worker that has been silent for so many periods of its heartbeat is not alive.
const SILENT_PERIODS: u32 = 2;
/// A worker that is gone is shown for so long.
const SHOWN_FOR: Duration = Duration::from_secs(600);
/// Until its first heartbeat a worker is taken to have Celery's own period.
const USUAL_PERIOD: Duration = Duration::from_secs(2);
/// A worker is asked to send events so often and so many times at first: it may not listen yet, and is at work already.
const QUICK_ASK: Duration = Duration::from_secs(1);
const QUICK_ASKS: u32 = 20;
/// Later it is asked this seldom, in case somebody has switched events off.
const SLOW_ASK: Duration = Duration::from_secs(60);
/// Other processes that are remembered under a name: more than a worker that dies at once has in the time after which
/// its tasks are lost.
const MOST_OTHERS: usize = 32;

/// The life of a worker, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Life(NonZeroU64);

/// What a worker's sign says of what it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) life: Life,
    /// It has connected anew: what it told before may have reached nobody.
    pub(super) is_back: bool,
    /// So many of its runs that are known were on a moment ago, all of them if they are no more.
    pub(super) runs: Option<u64>,
}

/// A worker.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) host: Arc<str>,
    pub(super) pid: u64,
    pub(super) version: String,
    pub(super) active: u64,
    pub(super) processed: u64,
    /// When anything was heard of it.
    pub(super) heard: Instant,
    /// Since when it has had nothing to do: none active, none more processed.
    pub(super) idle_since: Option<Instant>,
    /// Whether an event of a task was heard from this life.
    pub(super) sends_events: bool,
    /// Tasks that it started, by its own count, and that nobody told us of.
    pub(super) missed: u64,
    life: Life,
    born: Instant,
    period: Duration,
    is_offline: bool,
    beats: u64,
    /// `processed` before anything was heard of this life.
    base: u64,
    started: u64,
    /// Whether it is to be asked for events, when it was, and how often.
    is_asked: bool,
    asked: Option<(Instant, u32)>,
    /// What its heartbeats prove.
    calm: Calm,
    /// Other processes of this name: those before it, and one that has told of tasks and sent no heartbeat yet.
    others: Vec<Other>,
}

/// A process whose heartbeats were not the last ones under its name.
#[derive(Clone, Copy, Debug)]
struct Other {
    pid: u64,
    life: Life,
    heard: Instant,
    /// Whether another one told of itself under this name.
    is_succeeded: bool,
    /// Tasks that it has started, and perhaps more.
    processed: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Workers {
    by_host: HashMap<Arc<str>, Worker>,
    lives: u64,
    /// Tasks missed by lives that are over.
    missed_before: u64,
    /// Signs of workers for which there was no room.
    pub(super) not_taken: u64,
}

impl Workers {
    /// A worker told of itself.
    pub(super) fn told(&mut self, event: &WorkerEvent, now: Instant) -> Option<Said> {
        // a worker that only connects anew is the same, and goes on with what it runs
        let is_new_life = self.by_host.get(&*event.host).is_some_and(|worker| !worker.is_told_of_by(event));
        let mut others = if is_new_life { self.succeed(&event.host) } else { Vec::new() };
        let known = others.iter().position(|other| other.pid == event.pid && other.processed <= event.processed);
        let known = known.map(|at| others.swap_remove(at));
        // its first sign comes before all else of it
        let is_met = known.is_some() || (!is_new_life && self.by_host.contains_key(&*event.host));
        let worker = self.met(&event.host, event.pid, now)?;
        if is_new_life {
            worker.others = others;
            worker.life = known.map_or(worker.life, |known| known.life);
        }
        let is_back = is_met && event.sign == Sign::Online;
        let runs = worker.take_in(event, now);
        Some(Said { life: worker.life, is_back, runs })
    }

    /// A worker told of a task; gives its life, which may be one that has not sent a heartbeat yet.
    pub(super) fn told_of_task(&mut self, host: &str, pid: u64, now: Instant) -> Option<(Arc<str>, Life)> {
        let unborn = self.next_life();
        let worker = self.met(host, pid, now)?;
        (worker.sends_events, worker.is_asked) = (true, false);
        worker.calm.stirred();
        let host = Arc::clone(&worker.host);
        if worker.pid == pid {
            return Some((host, worker.life));
        }
        if let Some(other) = worker.others.iter_mut().find(|other| other.pid == pid) {
            other.heard = now;
            return Some((host, other.life));
        }
        remember(&mut worker.others, Other { pid, life: unborn, heard: now, is_succeeded: false, processed: 0 });
        self.lives += 1;
        Some((host, unborn))
    }

    fn next_life(&self) -> Life {
        Life(NonZeroU64::MIN.saturating_add(self.lives))
    }

    /// A worker told that it started a task.
    pub(super) fn started(&mut self, host: &str, pid: u64) {
        if let Some(worker) = self.by_host.get_mut(host).filter(|worker| worker.pid == pid) {
            worker.started += 1;
        }
    }

    fn met(&mut self, host: &str, pid: u64, now: Instant) -> Option<&mut Worker> {
        if !self.by_host.contains_key(host) {
            if self.by_host.len() >= MOST_WORKERS {
                self.not_taken += 1;
                return None;
            }
            let (host, life): (Arc<str>, Life) = (Arc::from(host), self.next_life());
            self.lives += 1;
            self.by_host.insert(Arc::clone(&host), Worker::new(host, pid, life, now));
        }
        let worker = self.by_host.get_mut(host)?;
        if worker.pid == pid {
            worker.heard = now;
        }
        Some(worker)
    }

    fn forget(&mut self, host: &str) -> Option<Worker> {
        let mut worker = self.by_host.remove(host)?;
        // nothing waits in its buffer any more
        worker.missed = worker.missed.max(worker.told_by_nobody());
        self.missed_before += if worker.sends_events { worker.missed } else { 0 };
        Some(worker)
    }

    /// Makes way for another process of this name, which remembers those before it.
    fn succeed(&mut self, host: &str) -> Vec<Other> {
        let Some(mut worker) = self.forget(host) else { return Vec::new() };
        let Worker { pid, life, heard, .. } = worker;
        let processed = worker.processed_at_least();
        remember(&mut worker.others, Other { pid, life, heard, is_succeeded: true, processed });
        worker.others
    }

    /// For how long the life that runs a task has been silent, beyond what is usual; zero while it lives.
    ///
    /// `listening` is since when we hear: what nobody could hear is no silence. A worker that never sent a heartbeat
    /// may live without any, so its silence says nothing.
    pub(super) fn silence(&self, host: &str, life: Life, listening: Instant, now: Instant) -> Duration {
        let Some(worker) = self.by_host.get(host) else { return now - listening };
        let silent = now.saturating_duration_since(worker.heard_of(life).max(listening));
        match () {
            () if worker.life != life => silent,
            () if worker.beats == 0 => Duration::ZERO,
            () => silent.saturating_sub(worker.period * SILENT_PERIODS),
        }
    }

    /// The lives that are not known to be over, as no other process has told of itself under their name.
    pub(super) fn living(&self) -> HashSet<Life> {
        let others = self.by_host.values().flat_map(|worker| &worker.others).filter(|other| !other.is_succeeded);
        self.by_host.values().map(|worker| worker.life).chain(others.map(|other| other.life)).collect()
    }

    /// What workers tell is not heard any more.
    pub(super) fn deaf(&mut self) {
        self.by_host.values_mut().for_each(|worker| worker.calm.interrupted());
    }

    /// A task of this worker has ended, as somebody else told.
    pub(super) fn stirred(&mut self, host: &str) {
        if let Some(worker) = self.by_host.get_mut(host) {
            worker.calm.stirred();
        }
    }

    /// Since when this life has had nothing to do.
    pub(super) fn idle_since(&self, host: &str, life: Life) -> Option<Instant> {
        self.by_host.get(host).filter(|worker| worker.life == life).and_then(|worker| worker.idle_since)
    }

    /// What workers send may have changed while we did not hear.
    pub(super) fn ask_again(&mut self) {
        self.by_host.values_mut().for_each(Worker::ask_again);
    }

    /// The workers that should be asked for events now, because none of a task was heard since; they count as asked.
    pub(super) fn due_for_asking(&mut self, now: Instant) -> Vec<Arc<str>> {
        let mut asked = Vec::new();
        for worker in self.by_host.values_mut().filter(|worker| worker.is_asked && !worker.is_offline) {
            let (last, times) = worker.asked.unwrap_or((worker.born, 0));
            let wait = if times < QUICK_ASKS { QUICK_ASK } else { SLOW_ASK };
            let is_alive = now.saturating_duration_since(worker.heard) <= worker.period * SILENT_PERIODS;
            if is_alive && (times == 0 || now.saturating_duration_since(last) >= wait) {
                worker.asked = Some((now, times + 1));
                asked.push(Arc::clone(&worker.host));
            }
        }
        asked
    }

    /// Every worker, and whether it lives.
    pub(super) fn all(&self, listening: Option<Instant>, now: Instant) -> impl Iterator<Item = (&Worker, bool)> {
        self.by_host.values().map(move |worker| (worker, worker.is_alive(listening, now)))
    }

    /// Tasks started that nobody told us of, in all lives that send events.
    pub(super) fn missed(&self) -> u64 {
        let senders = self.by_host.values().filter(|worker| worker.sends_events);
        self.missed_before + senders.map(|worker| worker.missed).sum::<u64>()
    }

    /// Forgets those that have been gone for long.
    pub(super) fn tidy(&mut self, now: Instant) {
        let gone = |worker: &&Worker| now.saturating_duration_since(worker.heard) > SHOWN_FOR;
        let gone: Vec<Arc<str>> = self.by_host.values().filter(gone).map(|worker| Arc::clone(&worker.host)).collect();
        gone.iter().for_each(|host| drop(self.forget(host)));
    }
}

/// Of too many the one goes that has been silent for longest.
fn remember(others: &mut Vec<Other>, other: Other) {
    if others.len() >= MOST_OTHERS
        && let Some((oldest, _)) = others.iter().enumerate().min_by_key(|(_, other)| other.heard)
    {
        others.swap_remove(oldest);
    }
    others.push(other);
}

impl Worker {
    fn new(host: Arc<str>, pid: u64, life: Life, now: Instant) -> Self {
        Self {
            host,
            pid,
            version: String::new(),
            active: 0,
            processed: 0,
            heard: now,
            idle_since: None,
            sends_events: false,
            missed: 0,
            life,
            born: now,
            period: USUAL_PERIOD,
            is_offline: false,
            beats: 0,
            base: 0,
            started: 0,
            is_asked: true,
            asked: None,
            calm: Calm::default(),
            others: Vec::new(),
        }
    }

    /// Takes in what it tells of itself; gives how many of its runs that are known were on a moment ago.
    fn take_in(&mut self, event: &WorkerEvent, now: Instant) -> Option<u64> {
        self.period = event.period;
        self.version.clone_from(&event.version);
        self.is_offline = event.sign == Sign::Offline;
        if event.sign == Sign::Online {
            self.ask_again();
            self.calm.interrupted();
        }
        if self.beats == 0 {
            self.base = event.processed.saturating_sub(self.started);
            self.calm = Calm::met(event.active);
        }
        // one heartbeat late: what it has just started may still wait in its buffer of events
        let missed = self.told_by_nobody().saturating_sub(self.missed);
        if missed > 0 {
            // somebody may have switched its events off
            (self.missed, self.is_asked) = (self.missed + missed, true);
        }
        let has_moved = self.processed != event.processed && self.beats > 0;
        (self.active, self.processed) = (event.active, event.processed);
        self.beats += 1;
        match (event.active, has_moved) {
            (0, false) => drop(self.idle_since.get_or_insert(now)),
            (0, true) => self.idle_since = Some(now),
            _ => self.idle_since = None,
        }
        self.calm.beat(event.active, missed, event.period, now)
    }

    /// Tasks that it has started by its last heartbeat, and of whose start we have not heard.
    fn told_by_nobody(&self) -> u64 {
        self.processed.saturating_sub(self.base).saturating_sub(self.started)
    }

    /// Tasks that it has started: by its own count, or by its events, which may be ahead of it.
    fn processed_at_least(&self) -> u64 {
        self.processed.max(self.started)
    }

    /// Whether it is this process. In a container each has the same number, and its count begins anew.
    fn is_told_of_by(&self, event: &WorkerEvent) -> bool {
        self.pid == event.pid && event.processed >= self.processed_at_least()
    }

    /// When a life of this name was heard last; one that is not remembered had been silent before all others.
    fn heard_of(&self, life: Life) -> Instant {
        if self.life == life {
            return self.heard;
        }
        let known = self.others.iter().find(|other| other.life == life);
        let heard = known.or_else(|| self.others.iter().min_by_key(|other| other.heard));
        heard.map_or(self.born, |other| other.heard)
    }

    fn ask_again(&mut self) {
        (self.is_asked, self.asked) = (true, None);
    }

    fn is_alive(&self, listening: Option<Instant>, now: Instant) -> bool {
        let heard = listening.map_or(self.heard, |listening| self.heard.max(listening));
        !self.is_offline && now.saturating_duration_since(heard) <= self.period * SILENT_PERIODS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(2);

    fn beat(pid: u64, active: u64, processed: u64) -> WorkerEvent {
        let (host, version) = ("w@h".into(), "5.7.0".into());
        WorkerEvent { host, pid, sign: Sign::Heartbeat, period: BEAT, active, processed, version }
    }

    fn alive(workers: &Workers, now: Instant) -> Vec<bool> {
        workers.all(Some(now - BEAT * 10), now).map(|(_, alive)| alive).collect()
    }

    #[tokio::test]
    async fn a_worker_lives_as_long_as_its_heartbeats_come() {
        let (mut workers, now) = (Workers::default(), Instant::now() + BEAT * 100);
        workers.told(&beat(1, 2, 7), now);
        assert_eq!(alive(&workers, now + BEAT * 2), [true]);
        assert_eq!(alive(&workers, now + BEAT * 2 + Duration::from_millis(1)), [false]);
        workers.told(&WorkerEvent { sign: Sign::Offline, ..beat(1, 0, 7) }, now + BEAT);
        assert_eq!(alive(&workers, now + BEAT), [false]);
        workers.tidy(now + SHOWN_FOR + BEAT * 2);
        assert_eq!(alive(&workers, now), [false; 0]);
    }

    #[tokio::test]
    async fn a_new_process_under_an_old_name_is_another_life() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.told(&beat(1, 1, 7), now);
        let (host, old) = workers.told_of_task("w@h", 1, now).unwrap();
        assert_eq!(workers.silence(&host, old, now, now + BEAT), Duration::ZERO);
        workers.told(&beat(2, 0, 0), now + BEAT);
        assert_eq!(workers.silence(&host, old, now, now + BEAT * 3), BEAT * 3);
        // the next one may tell of a task before its first heartbeat
        let (_, unborn) = workers.told_of_task("w@h", 3, now + BEAT * 3).unwrap();
        assert_eq!(workers.told_of_task("w@h", 3, now + BEAT * 3).unwrap().1, unborn);
        assert_eq!(workers.silence(&host, unborn, now, now + BEAT * 4), BEAT);
        workers.told(&beat(3, 1, 1), now + BEAT * 4);
        assert_eq!(workers.told_of_task("w@h", 3, now + BEAT * 4).unwrap().1, unborn);
        workers.told(&beat(2, 0, 0), now + BEAT * 5);
        // one that only connects anew is the same
        let (_, same) = workers.told_of_task("w@h", 2, now).unwrap();
        workers.told(&WorkerEvent { sign: Sign::Online, ..beat(2, 0, 0) }, now + BEAT);
        assert_eq!(workers.told_of_task("w@h", 2, now).unwrap().1, same);
        // a container's process has the same number each time; its count begins anew
        let (_, second) = workers.told_of_task("w@h", 2, now).unwrap();
        workers.told(&beat(2, 0, 9), now + BEAT);
        workers.told(&beat(2, 0, 1), now + BEAT * 2);
        assert_ne!(workers.told_of_task("w@h", 2, now).unwrap().1, second);
    }

    #[tokio::test]
    async fn lives_that_follow_each_other_quickly_do_not_hide_the_silence_of_those_before() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.told(&beat(1, 1, 1), now);
        let (host, first) = workers.told_of_task("w@h", 1, now).unwrap();
        for (pid, beats) in (2..).zip(1..=u32::try_from(MOST_OTHERS).unwrap() * 2) {
            workers.told(&beat(pid, 0, 0), now + BEAT * beats);
            let silence = workers.silence(&host, first, now, now + BEAT * beats);
            assert!(
                silence >= (BEAT * beats).min(BEAT * u32::try_from(MOST_OTHERS - 1).unwrap()),
                "{pid}: {silence:?}"
            );
        }
    }

    #[tokio::test]
    async fn two_processes_that_share_a_name_are_each_heard() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.told(&beat(1, 1, 5), now);
        let (host, first) = workers.told_of_task("w@h", 1, now).unwrap();
        for beats in 0..30 {
            workers.told(&beat(2, 1, 9), now + BEAT * beats);
            workers.told(&beat(1, 1, 5), now + BEAT * beats);
        }
        assert_eq!(workers.silence(&host, first, now, now + BEAT * 30), Duration::ZERO);
    }

    #[tokio::test]
    async fn in_a_container_a_process_that_has_started_less_is_another_one() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.told(&beat(1, 0, 0), now);
        let (host, killed) = workers.told_of_task("w@h", 1, now).unwrap();
        // it dies before a heartbeat tells of the task
        workers.started("w@h", 1);
        workers.told(&beat(1, 0, 0), now + BEAT);
        assert_ne!(workers.told_of_task("w@h", 1, now + BEAT).unwrap().1, killed);
        assert_eq!(workers.silence(&host, killed, now, now + BEAT * 3), BEAT * 3);
    }

    #[tokio::test]
    async fn silence_is_what_we_could_have_heard() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        let (host, life) = workers.told_of_task("w@h", 1, now).unwrap();
        assert_eq!(workers.silence(&host, life, now, now + BEAT * 50), Duration::ZERO, "it never sent a heartbeat");
        workers.told(&beat(1, 1, 1), now);
        assert_eq!(workers.silence(&host, life, now, now + BEAT * 5), BEAT * 3);
        let back = now + BEAT * 4;
        assert_eq!(workers.silence(&host, life, back, now + BEAT * 5), Duration::ZERO);
    }

    #[tokio::test]
    async fn tasks_that_nobody_told_us_of_are_missed_one_heartbeat_later_and_only_once() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.told(&beat(1, 0, 100), now);
        workers.told_of_task("w@h", 1, now);
        for _ in 0..3 {
            workers.started("w@h", 1);
        }
        workers.told(&beat(1, 0, 105), now);
        assert_eq!(workers.missed(), 0, "two may still be on their way");
        workers.told(&beat(1, 0, 105), now);
        assert_eq!(workers.missed(), 2);
        workers.told(&beat(1, 0, 105), now);
        assert_eq!(workers.missed(), 2);
        workers.told(&beat(2, 0, 0), now);
        assert_eq!(workers.missed(), 2, "a life that is over keeps its count");
    }

    #[tokio::test]
    async fn what_a_worker_told_of_by_its_last_heartbeat_alone_is_missed_once_another_one_follows() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        workers.told(&beat(1, 0, 0), now);
        workers.told_of_task("w@h", 1, now);
        workers.started("w@h", 1);
        workers.told(&beat(1, 2, 3), now + BEAT);
        assert_eq!(workers.missed(), 0, "two may still be on their way");
        workers.told(&beat(2, 0, 0), now + BEAT * 2);
        assert_eq!(workers.missed(), 2);
    }

    #[tokio::test]
    async fn a_worker_is_asked_with_its_heartbeats_until_an_event_of_a_task_comes() {
        let (mut workers, mut now) = (Workers::default(), Instant::now());
        let mut asks = 0;
        for _ in 0..60 {
            workers.told(&beat(1, 0, 0), now);
            asks += workers.due_for_asking(now).len();
            now += BEAT;
        }
        assert!((21..=23).contains(&asks), "twenty quickly, then once a minute: {asks}");
        workers.told_of_task("w@h", 1, now);
        workers.told(&beat(1, 0, 0), now + SLOW_ASK);
        assert!(workers.due_for_asking(now + SLOW_ASK).is_empty());
        // after it has connected anew it sends none, whatever it sent before
        workers.told(&WorkerEvent { sign: Sign::Online, ..beat(1, 0, 0) }, now + SLOW_ASK);
        assert_eq!(workers.due_for_asking(now + SLOW_ASK).len(), 1);
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_and_the_rest_is_counted() {
        let (mut workers, now) = (Workers::default(), Instant::now());
        for number in 0..MOST_WORKERS + 5 {
            workers.told(&WorkerEvent { host: number.to_string(), ..beat(1, 0, 0) }, now);
        }
        assert_eq!((workers.all(None, now).count(), workers.not_taken), (MOST_WORKERS, 5));
    }
}
