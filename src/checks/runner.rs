//! The runner: each check in its own time, cut off at its limit, and never in another's way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::checks::archive::{Archive, Memory};
use crate::checks::beats::Beats;
use crate::checks::check::{Check, Finding};
use crate::checks::desk::Desk;
use crate::checks::door::Door;
use crate::checks::failure::{Class, Failure};
use crate::checks::service::Service;
use crate::checks::track::{Run, Shown, Track};
use crate::lifecycle::{Drain, Pulse};
use crate::model::health::{CheckHistory, CheckReport, HealthStatus};
use crate::redact::{Clean, Outlet, Redactor};
use crate::wall_clock::since_epoch;

/// Between the first runs, so that a start is no burst.
const STAGGER: Duration = Duration::from_millis(100);
/// How often the scheduler shows that it turns.
const BEAT: Duration = Duration::from_secs(1);
/// A result is believed for this many periods.
const FRESH_PERIODS: u32 = 3;

/// A service, how it is checked, and the words for it.
pub(super) struct Entry {
    pub(super) service: Service,
    pub(super) kind: &'static str,
    /// As in `Redis check failed: timeout`.
    pub(super) subject: Clean<'static>,
    /// As in `Redis connection successful`.
    pub(super) noun: &'static str,
    /// `None`: not configured.
    pub(super) check: Option<Box<dyn Check>>,
}

/// Runs the checks and writes their reports. One owner of all state of this room.
pub struct Runner {
    shared: Arc<Shared>,
    beats: Beats,
    pulse: Pulse,
}

struct Shared {
    entries: Vec<(Entry, Arc<Door>)>,
    /// What each check remembers over a restart, by its name.
    memories: Vec<(String, Memory)>,
    archive: Archive,
    reports: watch::Sender<Arc<[CheckReport]>>,
    places: Semaphore,
    redactor: Arc<Redactor>,
}

/// What the runner writes to and shares.
pub(super) struct Seat {
    pub(super) reports: watch::Sender<Arc<[CheckReport]>>,
    pub(super) beats: Beats,
    pub(super) redactor: Arc<Redactor>,
    /// Checks at once.
    pub(super) concurrency: usize,
}

impl Runner {
    /// A runner of these checks, all unknown until they have run.
    pub(super) fn new(entries: Vec<Entry>, seat: Seat) -> Self {
        let Seat { reports, beats, redactor, concurrency } = seat;
        reports.send_replace(entries.iter().map(first_report).collect());
        let entries = entries.into_iter().map(|entry| {
            let door = Arc::new(Door::new(entry.service.timeout));
            (entry, door)
        });
        let entries: Vec<(Entry, Arc<Door>)> = entries.collect();
        let memories = entries.iter().map(|(entry, _)| (entry.service.name.to_string(), Memory::default())).collect();
        let places = Semaphore::new(concurrency);
        let shared = Shared { entries, memories, archive: Archive::default(), reports, places, redactor };
        Self { shared: Arc::new(shared), beats, pulse: Pulse::new("checks") }
    }

    /// Beats while the scheduler turns, whatever the checks do.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Where others ask for runs and hand in heartbeats.
    #[must_use]
    pub fn desk(&self) -> Desk {
        let configured = self.shared.entries.iter().filter(|(entry, _)| entry.check.is_some());
        let doors = configured.map(|(entry, door)| (entry.service.name.to_string(), Arc::clone(door)));
        Desk::new(doors.collect(), self.beats.clone())
    }

    /// Where it is told of a folder for what is remembered over a restart.
    #[must_use]
    pub fn archive(&self) -> Archive {
        self.shared.archive.clone()
    }

    /// Runs until the process drains. May be called again after a panic; streaks then begin anew.
    pub async fn run(&self, mut drain: Drain) {
        let mut loops = JoinSet::new();
        let configured = |index: &usize| self.shared.entries[*index].0.check.is_some();
        for (turn, index) in (0..self.shared.entries.len()).filter(configured).enumerate() {
            let delay = STAGGER * u32::try_from(turn).unwrap_or(0);
            loops.spawn(self.shared.clone().keep_checking(index, delay));
        }
        let shared = self.shared.clone();
        loops.spawn(async move { shared.archive.keep(&shared.memories).await });
        let mut beat = interval(BEAT);
        loop {
            tokio::select! {
                _ = drain.begun() => return self.shared.archive.save(&self.shared.memories).await,
                _ = beat.tick() => self.pulse.beat(),
                // a loop has no end: only a panic ends it, and the supervisor starts this room again
                Some(ended) = loops.join_next() => ended.expect("a check panicked"),
            }
        }
    }
}

impl Shared {
    async fn keep_checking(self: Arc<Self>, index: usize, delay: Duration) {
        let (entry, door) = &self.entries[index];
        let mut track = Track::of(Memory::clone(&self.memories[index].1));
        let mut next = Instant::now() + delay + entry.service.initial_delay;
        door.open();
        loop {
            door.wait(next).await;
            door.begin();
            let started = Instant::now();
            match self.waits_for(entry) {
                Some(name) => self.publish_waiting(index, &mut track, name),
                None => {
                    let (result, latency) = self.run_once(entry).await;
                    self.publish(index, &mut track, result, latency);
                }
            }
            door.end();
            // a run that took longer than its period skips turns; it does not hurry after them
            next = (started + jittered(entry.service.period)).max(Instant::now());
        }
    }

    /// The wait for a place is not the service's: neither its limit nor its latency know of it.
    async fn run_once(&self, entry: &Entry) -> (Result<Finding, Failure>, Duration) {
        let Some(check) = &entry.check else {
            return (Ok(Finding::Told(HealthStatus::Unknown, NOT_CONFIGURED)), Duration::ZERO);
        };
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let started = Instant::now();
        let result = match timeout(entry.service.timeout, check.run()).await {
            Ok(result) => result,
            Err(_) => Err(Failure::plain(Class::Timeout)),
        };
        (result, started.elapsed())
    }

    /// The first of the checks it depends on that is down, as it was last found: thresholds would let this one fail first.
    fn waits_for<'e>(&self, entry: &'e Entry) -> Option<&'e str> {
        let reports = self.reports.borrow();
        let is_down = |name: &&String| {
            reports.iter().find(|report| report.name == **name).is_some_and(|report| {
                let found = [report.status, report.history.result];
                found.contains(&HealthStatus::Unhealthy) || report.history.waits_for.is_some()
            })
        };
        entry.service.depends_on.iter().find(is_down).map(String::as_str)
    }

    fn publish_waiting(&self, index: usize, track: &mut Track, name: &str) {
        let told = self.redactor.text(Outlet::Endpoint, name.as_bytes()).into_owned();
        let message = Clean::concat(&[Clean::literal("waits for "), told]);
        let shown = track.wait_for(name, message, since_epoch().as_secs_f64());
        self.write(index, shown, None, |_| {});
    }

    fn publish(&self, index: usize, track: &mut Track, result: Result<Finding, Failure>, latency: Duration) {
        let (entry, _) = &self.entries[index];
        let (status, message) = judge(entry, &result, latency);
        let at = since_epoch().as_secs_f64();
        let shown = track.take(&Run { status, message, latency, at }, &entry.service);
        self.write(index, shown, result.err().as_ref(), |report| {
            report.latency = Some(latency);
            report.checked_at = Some(at);
        });
    }

    fn write(&self, index: usize, shown: Shown, failure: Option<&Failure>, change: impl FnOnce(&mut CheckReport)) {
        let (entry, _) = &self.entries[index];
        self.reports.send_modify(|reports| {
            let mut next = reports.to_vec();
            let report = &mut next[index];
            self.log_changes(report, &shown, failure);
            change(report);
            (report.status, report.message, report.history) = (shown.status, shown.message, shown.history);
            report.expires_at = Some(Instant::now() + entry.service.period * FRESH_PERIODS);
            *reports = next.into();
        });
    }

    fn log_changes(&self, before: &CheckReport, now: &Shown, failure: Option<&Failure>) {
        let (name, status) = (&before.name, now.status.label());
        match (before.history.flapping, now.history.flapping) {
            (false, true) => tracing::warn!(check = %name, status, "the results of a check change too often"),
            (true, false) => tracing::info!(check = %name, status, "the results of a check are steady again"),
            _ => {}
        }
        if now.status == before.status {
            return;
        }
        match failure {
            None => tracing::info!(check = %name, status, "a service has changed"),
            Some(failure) => {
                let detail = self.redactor.text(Outlet::OwnLog, failure.detail.as_bytes());
                tracing::warn!(check = %name, status, class = %failure.class.word(), %detail, "a service has changed");
            }
        }
    }
}

const NOT_CONFIGURED: Clean<'static> = Clean::literal("not configured");

fn first_report(entry: &Entry) -> CheckReport {
    let message = if entry.check.is_some() { Clean::literal("not checked yet") } else { NOT_CONFIGURED };
    CheckReport {
        name: entry.service.name.to_string(),
        status: HealthStatus::Unknown,
        message,
        criticality: entry.service.criticality,
        latency: None,
        checked_at: None,
        expires_at: None,
        kind: entry.kind,
        period: entry.service.period,
        history: CheckHistory::default(),
    }
}

/// The status and words of one run, by itself.
fn judge(entry: &Entry, result: &Result<Finding, Failure>, latency: Duration) -> (HealthStatus, Clean<'static>) {
    let words = |tail| Clean::concat(&[entry.subject.clone(), Clean::literal(tail)]);
    let noun = |tail| Clean::concat(&[words(" "), Clean::literal(entry.noun), Clean::literal(tail)]);
    match result {
        Ok(Finding::Works) if latency > entry.service.degraded_above => (HealthStatus::Degraded, noun(" slow")),
        Ok(Finding::Works) => (HealthStatus::Healthy, noun(" successful")),
        Ok(Finding::Told(status, message)) => (*status, message.clone()),
        Err(failure) => (HealthStatus::Unhealthy, Clean::concat(&[words(" check failed: "), failure.class.word()])),
    }
}

/// The period, varied by a tenth both ways, so that checks of many replicas do not meet.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(0.9 + 0.2 * fastrand::f64())
}
