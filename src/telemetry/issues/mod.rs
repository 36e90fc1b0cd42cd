//! Failures as issues at Sentry: of the application, seen at the proxy, told of its tasks or logged by it, and of the sidecar
//! itself, seen in its own log.
//!
//! Only with a DSN: without one nothing here exists. Events are made away from the data path, from the failures that it
//! keeps in any case and from the incidents that other rooms put into a bounded channel; they take the same queue, spool and
//! sender as all telemetry, as envelopes.

mod client;
pub mod config;
mod event;
mod limit;
mod transport;

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sentry::{Client, Hub};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::lifecycle::Drain;
use crate::model::catalogue::SENTRY_LEFT_OUT;
use crate::model::incident::{Incident, IncidentSource, Mishap};
use crate::model::sample::Sample;
use crate::model::task::TaskId;
use crate::model::traffic::NewFailures;
use crate::redact::Redactor;
use crate::telemetry::issues::config::IssuesConfig;
use crate::telemetry::issues::event::{Application, LeftOut, fingerprint, issue};
use crate::telemetry::issues::limit::{Limiter, Verdict};
use crate::telemetry::resource::Resource;

pub use crate::telemetry::issues::transport::Envelopes;

/// Between two looks at what failed.
const PERIOD: Duration = Duration::from_millis(500);

/// Failed tasks of Celery that are remembered: those of the seconds in which all tell of them.
const REMEMBERED: usize = 1_024;

/// Gives what failed since it was asked last.
pub type FailureSource = Box<dyn FnMut() -> NewFailures + Send>;

/// Where it is learned what failed.
pub struct Sources {
    /// Requests, at the proxy.
    pub failures: FailureSource,
    /// Tasks, and exceptions in log records.
    pub incidents: IncidentSource,
}

/// Tells Sentry of failures. One for the process.
pub struct Issues {
    client: Arc<Client>,
    application: Application,
    state: Mutex<State>,
    /// Failures that no event was made of.
    left_out: AtomicU64,
}

struct State {
    limiter: Limiter,
    /// Failures that were not kept, and of which no event has told yet.
    missed: u64,
    /// Tasks of Celery that were told of, the oldest first: two tell of the same.
    told: VecDeque<TaskId>,
}

impl Issues {
    /// Sets the client up; nothing is sent before something fails.
    #[must_use]
    pub fn new(config: &IssuesConfig, identity: &Resource, redactor: &Arc<Redactor>, out: Envelopes) -> Self {
        let application = Application::new(identity);
        let client = Arc::new(client::client(config, &application, redactor, out));
        let limiter = Limiter::new(config.burst, config.interval);
        let state = Mutex::new(State { limiter, missed: 0, told: VecDeque::new() });
        Self { client, application, state, left_out: AtomicU64::new(0) }
    }

    /// From now on the errors of the process's log become events: `logging` has the layers that make them.
    pub(crate) fn listen(&self) {
        Hub::main().bind_client(Some(Arc::clone(&self.client)));
    }

    /// Makes events of what fails until the drain begins, then of the last. May be called again after a panic.
    pub async fn run(&self, sources: &Mutex<Sources>, mut drain: Drain) {
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_over = tokio::select! {
                _ = looks.tick() => false,
                _ = drain.begun() => true,
            };
            if let Ok(mut sources) = sources.lock() {
                let new = (sources.failures)();
                self.tell(&new);
                let (incidents, missed) = sources.incidents.take();
                self.tell_incidents(&incidents, missed);
            }
            if is_over {
                return;
            }
        }
    }

    fn tell(&self, new: &NewFailures) {
        let Ok(mut state) = self.state.lock() else { return };
        self.count_missed(&mut state, new.missed);
        for failure in &new.failures {
            if let Some(left_out) = self.judged(&mut state, &issue(failure).join(" ")) {
                self.client.capture_event(self.application.event(failure, left_out), None);
            }
        }
    }

    fn tell_incidents(&self, incidents: &[Incident], missed: u64) {
        let Ok(mut state) = self.state.lock() else { return };
        self.count_missed(&mut state, missed);
        for incident in incidents {
            if state.is_told(incident) {
                continue;
            }
            if let Some(left_out) = self.judged(&mut state, &fingerprint(incident).join(" ")) {
                self.client.capture_event(self.application.event_of(incident, left_out), None);
            }
        }
    }

    fn count_missed(&self, state: &mut State, missed: u64) {
        state.missed += missed;
        self.left_out.fetch_add(missed, Ordering::Relaxed);
    }

    /// What the event of this issue has to tell of others; `None` when there are too many already.
    fn judged(&self, state: &mut State, issue: &str) -> Option<LeftOut> {
        match state.limiter.judge(issue, Instant::now()) {
            Verdict::LeaveOut => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
            Verdict::Tell { left_out } => Some(LeftOut { alike: left_out, any: std::mem::take(&mut state.missed) }),
        }
    }

    /// How many failures no event was made of.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        out.push(Sample::count(&SENTRY_LEFT_OUT, self.left_out.load(Ordering::Relaxed)));
    }
}

impl State {
    /// Whether somebody else has told of the same task; remembers it.
    fn is_told(&mut self, incident: &Incident) -> bool {
        let Mishap::Task { task_id: Some(id), .. } = incident.what else { return false };
        if self.told.contains(&id) {
            return true;
        }
        if self.told.len() >= REMEMBERED {
            self.told.pop_front();
        }
        self.told.push_back(id);
        false
    }
}

impl fmt::Debug for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issues").field("application", &self.application).finish_non_exhaustive()
    }
}
