//! Failures as issues at Sentry: of the application, seen at the proxy, and of the sidecar itself, seen in its own log.
//!
//! Only with a DSN: without one nothing here exists. Events are made away from the data path, from the failures that it
//! keeps in any case; they take the same queue, spool and sender as all telemetry, as envelopes.

mod client;
pub mod config;
mod event;
mod limit;
mod transport;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sentry::{Client, Hub};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::lifecycle::Drain;
use crate::model::catalogue::SENTRY_LEFT_OUT;
use crate::model::sample::Sample;
use crate::model::traffic::NewFailures;
use crate::redact::Redactor;
use crate::telemetry::issues::config::IssuesConfig;
use crate::telemetry::issues::event::{Application, LeftOut, issue};
use crate::telemetry::issues::limit::{Limiter, Verdict};
use crate::telemetry::resource::Resource;

pub use crate::telemetry::issues::transport::Envelopes;

/// Between two looks at what failed.
const PERIOD: Duration = Duration::from_millis(500);

/// Gives what failed since it was asked last.
pub type FailureSource = Box<dyn FnMut() -> NewFailures + Send>;

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
}

impl Issues {
    /// Sets the client up; nothing is sent before something fails.
    #[must_use]
    pub fn new(config: &IssuesConfig, identity: &Resource, redactor: &Arc<Redactor>, out: Envelopes) -> Self {
        let application = Application::new(identity);
        let client = Arc::new(client::client(config, &application, redactor, out));
        let state = Mutex::new(State { limiter: Limiter::new(config.burst, config.interval), missed: 0 });
        Self { client, application, state, left_out: AtomicU64::new(0) }
    }

    /// From now on the errors of the process's log become events: `logging` has the layers that make them.
    pub(crate) fn listen(&self) {
        Hub::main().bind_client(Some(Arc::clone(&self.client)));
    }

    /// Makes events of what fails until the drain begins, then of the last. May be called again after a panic.
    pub async fn run(&self, source: &Mutex<FailureSource>, mut drain: Drain) {
        let mut looks = interval(PERIOD);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_over = tokio::select! {
                _ = looks.tick() => false,
                _ = drain.begun() => true,
            };
            let new = source.lock().map(|mut source| source()).unwrap_or_default();
            self.tell(&new);
            if is_over {
                return;
            }
        }
    }

    fn tell(&self, new: &NewFailures) {
        let Ok(mut state) = self.state.lock() else { return };
        state.missed += new.missed;
        self.left_out.fetch_add(new.missed, Ordering::Relaxed);
        for failure in &new.failures {
            match state.limiter.judge(&issue(failure).join(" "), Instant::now()) {
                Verdict::LeaveOut => {
                    self.left_out.fetch_add(1, Ordering::Relaxed);
                }
                Verdict::Tell { left_out } => {
                    let left_out = LeftOut { alike: left_out, any: std::mem::take(&mut state.missed) };
                    self.client.capture_event(self.application.event(failure, left_out), None);
                }
            }
        }
    }

    /// How many failures no event was made of.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        out.push(Sample::count(&SENTRY_LEFT_OUT, self.left_out.load(Ordering::Relaxed)));
    }
}

impl fmt::Debug for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issues").field("application", &self.application).finish_non_exhaustive()
    }
}
