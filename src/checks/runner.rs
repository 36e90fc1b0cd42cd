//! The runner: each check in its own time, cut off at its limit, and never in another's way.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use crate::checks::archive::{Archive, Memory};
use crate::checks::beats::Beats;
use crate::checks::check::{Check, Finding};
use crate::checks::config::Config;
use crate::checks::desk::{Counter, Desk};
use crate::checks::door::Door;
use crate::checks::failure::Failure;
use crate::checks::service::Service;
use crate::checks::track::{Run, Shown, Track};
use crate::lifecycle::{Drain, Pulse};
use crate::model::health::{CheckHistory, CheckReport, HealthStatus};
use crate::model::reload::Retune;
use crate::model::trouble::Trouble;
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

/// Makes the checks of a configuration, which read these heartbeats.
pub(super) type Maker = Box<dyn Fn(&Config, &Beats) -> Vec<Entry> + Send + Sync>;

/// Runs the checks and writes their reports. One owner of all state of this room.
pub struct Runner {
    settings: Tuner,
    make: Maker,
    /// The checks as they are laid out now.
    shared: Mutex<Arc<Shared>>,
    archive: Archive,
    desk: Desk,
    pulse: Pulse,
}

/// Takes other settings while checks run. One that stays keeps its history, and a run in flight is finished.
#[derive(Clone)]
pub struct Tuner(watch::Sender<Config>);

impl Retune for Tuner {
    type Config = Config;
    const LIVE: &'static [&'static str] = &["checks.", "external_api.", "ai_services.", "health."];

    fn retune(&self, config: &Config) -> Result<(), String> {
        self.0.send_modify(|used| used.take_checks(config));
        Ok(())
    }
}

/// The checks of one configuration.
struct Shared {
    entries: Vec<(Entry, Arc<Door>, Arc<Mutex<Kept>>)>,
    /// What each check remembers over a restart, by its name.
    memories: Vec<(String, Memory)>,
    beats: Beats,
    reports: watch::Sender<Arc<[CheckReport]>>,
    places: Semaphore,
    redactor: Arc<Redactor>,
}

/// What a check keeps over a change of settings.
struct Kept {
    track: Track,
    /// When its next run is due; `None` before the first.
    due: Option<Instant>,
}

impl Runner {
    /// A runner of the checks of this configuration, all unknown until they have run.
    pub(super) fn new(
        config: Config,
        make: Maker,
        reports: watch::Sender<Arc<[CheckReport]>>,
        redactor: Arc<Redactor>,
    ) -> Self {
        let (beats, places) = (Beats::default(), Semaphore::new(0));
        let none = Shared { entries: Vec::new(), memories: Vec::new(), beats, reports, places, redactor };
        let (settings, shared) = (Tuner(watch::Sender::new(config)), Mutex::new(Arc::new(none)));
        let (desk, archive, pulse) = (Desk::default(), Archive::default(), Pulse::new("checks"));
        let runner = Self { settings, make, shared, archive, desk, pulse };
        let config = runner.settings.0.borrow().clone();
        runner.lay_out(&config);
        runner
    }

    /// Lays the checks of this configuration out. Nothing runs meanwhile.
    fn lay_out(&self, config: &Config) -> Arc<Shared> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(shared.followed_by(config, &self.make));
        self.desk.place(next.counter());
        *shared = Arc::clone(&next);
        next
    }

    /// Takes other settings.
    #[must_use]
    pub fn tuner(&self) -> Tuner {
        self.settings.clone()
    }

    /// Beats while the scheduler turns, whatever the checks do.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Where others ask for runs and hand in heartbeats.
    #[must_use]
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Where it is told of a folder for what is remembered over a restart.
    #[must_use]
    pub fn archive(&self) -> Archive {
        self.archive.clone()
    }

    /// Runs until the process drains. May be called again after a panic.
    pub async fn run(&self, mut drain: Drain) {
        let (mut settings, mut beat) = (self.settings.0.subscribe(), interval(BEAT));
        loop {
            let config = settings.borrow_and_update().clone();
            let shared = self.lay_out(&config);
            let (stop, stopping) = watch::channel(false);
            let mut loops = Arc::clone(&shared).start(&stopping);
            let mut keeping = pin!(self.archive.keep(&shared.memories));
            let mut goes_on = true;
            while goes_on || !loops.is_empty() {
                tokio::select! {
                    _ = drain.begun() => return self.archive.save(&shared.memories).await,
                    _ = beat.tick() => self.pulse.beat(),
                    () = &mut keeping => {}
                    _ = settings.changed(), if goes_on => {
                        goes_on = false;
                        stop.send_replace(true);
                    }
                    // a loop ends when it is told to, or by a panic: the supervisor then starts this room again
                    Some(ended) = loops.join_next() => ended.expect("a check panicked"),
                }
            }
        }
    }
}

impl Shared {
    /// The checks of another configuration, with what those of the same name keep.
    fn followed_by(&self, config: &Config, make: &Maker) -> Self {
        let beats = self.beats.renamed(config.heartbeats());
        let place = |entry: Entry| {
            let was = self.entries.iter().find(|(was, ..)| was.service.name == entry.service.name);
            let door = was.map(|(_, door, _)| door).filter(|door| door.fits(entry.service.timeout)).cloned();
            let door = door.unwrap_or_else(|| Arc::new(Door::new(entry.service.timeout)));
            let name = entry.service.name.to_string();
            let memory =
                self.memories.iter().find(|(known, _)| *known == name).map(|(_, memory)| Memory::clone(memory));
            let memory = memory.unwrap_or_default();
            let kept = was.map(|(.., kept)| Arc::clone(kept));
            let kept =
                kept.unwrap_or_else(|| Arc::new(Mutex::new(Kept { track: Track::of(memory.clone()), due: None })));
            ((entry, door, kept), (name, memory))
        };
        let (entries, memories): (Vec<_>, Vec<_>) = make(config, &beats).into_iter().map(place).unzip();
        self.reports.send_modify(|reports| {
            let report = |entry: &Entry| {
                let first = first_report(entry);
                let was = reports.iter().find(|report| report.name == first.name && report.checked_at.is_some());
                let CheckReport { criticality, kind, period, .. } = first;
                let goes_on = |was: &CheckReport| CheckReport { criticality, kind, period, ..was.clone() };
                was.filter(|_| entry.check.is_some()).map_or(first, goes_on)
            };
            *reports = entries.iter().map(|(entry, ..)| report(entry)).collect();
        });
        let (reports, redactor) = (self.reports.clone(), Arc::clone(&self.redactor));
        Self { entries, memories, beats, reports, places: Semaphore::new(config.concurrency), redactor }
    }

    /// What stands behind the desk.
    fn counter(&self) -> Counter {
        let configured = self.entries.iter().filter(|(entry, ..)| entry.check.is_some());
        let doors = configured.map(|(entry, door, _)| (entry.service.name.to_string(), Arc::clone(door)));
        Counter { doors: doors.collect(), beats: self.beats.clone() }
    }

    /// Starts a loop for each check; each ends between two runs when it is told to.
    fn start(self: Arc<Self>, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut loops = JoinSet::new();
        let configured = |index: &usize| self.entries[*index].0.check.is_some();
        for (turn, index) in (0..self.entries.len()).filter(configured).enumerate() {
            let delay = STAGGER * u32::try_from(turn).unwrap_or(0);
            loops.spawn(self.clone().keep_checking(index, delay, stop.clone()));
        }
        loops
    }

    async fn keep_checking(self: Arc<Self>, index: usize, delay: Duration, mut stop: watch::Receiver<bool>) {
        let (entry, door, kept) = &self.entries[index];
        let first = Instant::now() + delay + entry.service.initial_delay;
        let soonest = Instant::now() + delay + entry.service.period;
        let mut next = lock(kept).due.map_or(first, |due| due.min(soonest));
        door.open();
        loop {
            tokio::select! {
                () = door.wait(next) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            door.begin();
            let started = Instant::now();
            match self.waits_for(entry) {
                Some(name) => self.publish_waiting(index, name),
                None => {
                    let (result, latency) = self.run_once(entry).await;
                    self.publish(index, result, latency);
                }
            }
            // a run that took longer than its period skips turns; it does not hurry after them
            next = (started + jittered(entry.service.period)).max(Instant::now());
            lock(kept).due = Some(next);
            door.end();
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
            Err(_) => Err(Failure::plain(Trouble::Timeout)),
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

    fn publish_waiting(&self, index: usize, name: &str) {
        let told = self.redactor.text(Outlet::Endpoint, name.as_bytes()).into_owned();
        let message = Clean::concat(&[Clean::literal("waits for "), told]);
        let shown = lock(&self.entries[index].2).track.wait_for(name, message, since_epoch().as_secs_f64());
        self.write(index, shown, None, |_| {});
    }

    fn publish(&self, index: usize, result: Result<Finding, Failure>, latency: Duration) {
        let (entry, _, kept) = &self.entries[index];
        let (status, message) = judge(entry, &result, latency);
        let at = since_epoch().as_secs_f64();
        let shown = lock(kept).track.take(&Run { status, message, latency, at }, &entry.service);
        self.write(index, shown, result.err().as_ref(), |report| {
            report.latency = Some(latency);
            report.checked_at = Some(at);
        });
    }

    fn write(&self, index: usize, shown: Shown, failure: Option<&Failure>, change: impl FnOnce(&mut CheckReport)) {
        let (entry, ..) = &self.entries[index];
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

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::service::Pace;
    use crate::model::health::Criticality;
    use crate::settings::{Settings, Tree};
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    proptest! {
        #[test]
        fn a_period_varies_by_a_tenth_and_no_more(millis in 1_u64..86_400_000) {
            let period = Duration::from_millis(millis);
            let found = jittered(period);
            prop_assert!(found >= period.mul_f64(0.899) && found <= period.mul_f64(1.101), "{period:?} {found:?}");
        }
    }

    /// Tells when it was run.
    struct Clock(mpsc::Sender<Instant>);

    #[async_trait::async_trait]
    impl Check for Clock {
        async fn run(&self) -> Result<Finding, Failure> {
            let _ = self.0.try_send(Instant::now());
            Ok(Finding::Works)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_begins_after_its_delay_and_no_two_of_its_periods_are_alike() {
        let mut settings = Settings::new(Tree::default(), |_: &str| Err("no file".into()));
        let config = Config::read(&mut settings.section(""), &|_| false);
        let (told, mut runs) = mpsc::channel(32);
        let make = move |_: &Config, _: &Beats| {
            let service = Service::new("x".into(), Criticality::Critical, Pace::seconds(10, 2));
            let service = Service { initial_delay: Duration::from_secs(60), ..service };
            let (subject, check) = (Clean::literal("x"), Some(Box::new(Clock(told.clone())) as Box<dyn Check>));
            vec![Entry { service, kind: "tcp", subject, noun: "connection", check }]
        };
        let reports = watch::Sender::new(Arc::from([]));
        let runner = Runner::new(config, Box::new(make), reports, Arc::new(Redactor::new([])));
        let (_conductor, drain) = crate::lifecycle::drain();
        let began = Instant::now();
        let listening = async {
            let mut times = Vec::new();
            while times.len() < 21 {
                times.push(runs.recv().await.expect("it runs"));
            }
            times
        };
        let times = tokio::select! {
            () = runner.run(drain) => panic!("nobody ended it"),
            times = listening => times,
        };
        assert!((60..62).contains(&(times[0] - began).as_secs()), "{:?}", times[0] - began);
        let periods: std::collections::BTreeSet<u128> =
            times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        assert!(periods.iter().all(|millis| (9_000..=11_002).contains(millis)), "{periods:?}");
        assert!(periods.len() > 10, "{periods:?}");
    }

    #[test]
    fn replicas_that_start_together_do_not_stay_together() {
        let period = Duration::from_secs(10);
        let found: std::collections::BTreeSet<Duration> = (0..20).map(|_| jittered(period)).collect();
        assert!(found.len() > 10, "{found:?}");
    }
}
