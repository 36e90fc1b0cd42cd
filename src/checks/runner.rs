//! The runner: each check in its own time, cut off at its limit, and never in another's way.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use crate::checks::check::{Check, Finding};
use crate::checks::config::Service;
use crate::checks::damping::Damping;
use crate::checks::failure::{Class, Failure};
use crate::lifecycle::{Drain, Pulse};
use crate::model::health::{CheckReport, HealthStatus};
use crate::redact::{Clean, Outlet, Redactor};

/// Checks at once: more than there are, so that hanging ones never keep the others from their turn for long.
const AT_ONCE: usize = 8;
/// Between the first runs, so that a start is no burst.
const STAGGER: Duration = Duration::from_millis(100);
/// How often the scheduler shows that it turns.
const BEAT: Duration = Duration::from_secs(1);
/// A result is believed for this many periods.
const FRESH_PERIODS: u32 = 3;

/// Reads the last reports, from memory.
pub type Reader = watch::Receiver<Arc<[CheckReport]>>;

/// A service, how it is checked, and the words for it.
pub(super) struct Entry {
    pub(super) service: Service,
    /// As in `Redis check failed: timeout`.
    pub(super) subject: &'static str,
    /// `None`: not configured.
    pub(super) check: Option<Box<dyn Check>>,
}

/// Runs the checks and writes their reports. One owner of all state of this room.
pub struct Runner {
    shared: Arc<Shared>,
    pulse: Pulse,
}

struct Shared {
    entries: Vec<Entry>,
    reports: watch::Sender<Arc<[CheckReport]>>,
    places: Semaphore,
    redactor: Arc<Redactor>,
}

/// What a check remembers between its runs.
#[derive(Default)]
struct State {
    damping: Damping,
    /// The last words of each status: while a status is held against newer results, so are its words.
    words: [Option<Clean<'static>>; 4],
}

impl Runner {
    /// A runner of these checks, all unknown until they have run.
    pub(super) fn new(entries: Vec<Entry>, redactor: Arc<Redactor>) -> (Self, Reader) {
        let reports: Arc<[CheckReport]> = entries.iter().map(first_report).collect();
        let (reports, reader) = watch::channel(reports);
        let shared = Shared { entries, reports, places: Semaphore::new(AT_ONCE), redactor };
        (Self { shared: Arc::new(shared), pulse: Pulse::new("checks") }, reader)
    }

    /// Beats while the scheduler turns, whatever the checks do.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Runs until the process drains. May be called again after a panic; streaks then begin anew.
    pub async fn run(&self, mut drain: Drain) {
        let mut loops = JoinSet::new();
        let configured = |index: &usize| self.shared.entries[*index].check.is_some();
        for (turn, index) in (0..self.shared.entries.len()).filter(configured).enumerate() {
            let delay = STAGGER * u32::try_from(turn).unwrap_or(0);
            loops.spawn(self.shared.clone().keep_checking(index, delay));
        }
        let mut beat = interval(BEAT);
        loop {
            tokio::select! {
                _ = drain.begun() => return,
                _ = beat.tick() => self.pulse.beat(),
                // a loop has no end: only a panic ends it, and the supervisor starts this room again
                Some(ended) = loops.join_next() => ended.expect("a check panicked"),
            }
        }
    }
}

impl Shared {
    async fn keep_checking(self: Arc<Self>, index: usize, delay: Duration) {
        let entry = &self.entries[index];
        let mut state = State::default();
        sleep(delay).await;
        loop {
            let started = Instant::now();
            let result = self.run_once(entry).await;
            let latency = started.elapsed();
            self.publish(index, &mut state, (result, latency));
            // a run that took longer than its period skips turns; it does not hurry after them
            sleep_until((started + jittered(entry.service.period)).max(Instant::now())).await;
        }
    }

    async fn run_once(&self, entry: &Entry) -> Result<Finding, Failure> {
        let Some(check) = &entry.check else { return Ok(Finding::Told(HealthStatus::Unknown, NOT_CONFIGURED)) };
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        match timeout(entry.service.timeout, check.run()).await {
            Ok(result) => result,
            Err(_) => Err(Failure::plain(Class::Timeout)),
        }
    }

    fn publish(&self, index: usize, state: &mut State, run: (Result<Finding, Failure>, Duration)) {
        let (entry, (result, latency)) = (&self.entries[index], run);
        let (status, message) = judge(entry, &result, latency);
        state.words[status as usize] = Some(message.cut(MESSAGE_LIMIT));
        let standing = state.damping.take(status, entry.service.thresholds);
        self.reports.send_modify(|reports| {
            let mut next = reports.to_vec();
            let report = &mut next[index];
            if standing != report.status {
                self.log_change(entry, standing, &result);
            }
            if let Some(words) = &state.words[standing as usize] {
                report.message = words.clone();
            }
            report.status = standing;
            report.latency = Some(latency);
            report.checked_at = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
            report.expires_at = Some(Instant::now() + entry.service.period * FRESH_PERIODS);
            *reports = next.into();
        });
    }

    fn log_change(&self, entry: &Entry, standing: HealthStatus, result: &Result<Finding, Failure>) {
        let (name, status) = (entry.service.name, standing.label());
        match result {
            Ok(_) => tracing::info!(check = name, status, "a service has changed"),
            Err(failure) => {
                let detail = self.redactor.text(Outlet::OwnLog, failure.detail.as_bytes());
                tracing::warn!(check = name, status, class = %failure.class.word(), %detail, "a service has changed");
            }
        }
    }
}

/// What is told of a message at most.
const MESSAGE_LIMIT: usize = 200;
const NOT_CONFIGURED: Clean<'static> = Clean::literal("not configured");

fn first_report(entry: &Entry) -> CheckReport {
    let message = if entry.check.is_some() { Clean::literal("not checked yet") } else { NOT_CONFIGURED };
    CheckReport {
        name: entry.service.name.to_owned(),
        status: HealthStatus::Unknown,
        message,
        criticality: entry.service.criticality,
        latency: None,
        checked_at: None,
        expires_at: None,
    }
}

/// The status and words of one run, by itself.
fn judge(entry: &Entry, result: &Result<Finding, Failure>, latency: Duration) -> (HealthStatus, Clean<'static>) {
    let words = |tail| Clean::concat(&[Clean::literal(entry.subject), Clean::literal(tail)]);
    match result {
        Ok(Finding::Works) if latency > entry.service.degraded_above => {
            (HealthStatus::Degraded, words(" connection slow"))
        }
        Ok(Finding::Works) => (HealthStatus::Healthy, words(" connection successful")),
        Ok(Finding::Told(status, message)) => (*status, message.clone()),
        Err(failure) => (HealthStatus::Unhealthy, Clean::concat(&[words(" check failed: "), failure.class.word()])),
    }
}

/// The period, varied by a tenth both ways, so that checks of many replicas do not meet.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(0.9 + 0.2 * fastrand::f64())
}
