//! What the admin port reads: handles of the rooms, as `app` hands them over.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::contract::{Moment, Stale};
use crate::checks::Desk;
use crate::lifecycle::{Drain, Latch, Pulse};
use crate::model::application::About;
use crate::model::database::DatabaseState;
use crate::model::export::ExportState;
use crate::model::health::CheckReport;
use crate::model::lease::Standing;
use crate::model::reload::ReloadState;
use crate::model::sample::{Sample, SampleSource};
use crate::model::traffic::{Failure, RouteTraffic, Totals, Window};
use crate::model::usage::SystemUsage;
use crate::redact::Clean;
use crate::tasks::Tasks;
use crate::tasks::celery::reader::Reader as CeleryReader;
use crate::traffic::reader::Reader;
use crate::wall_clock::since_epoch;

/// Everything that is shown. Each part is read when asked for, and none of them blocks.
#[derive(Clone)]
pub struct State {
    /// The checks, in the order in which they are shown.
    pub checks: watch::Receiver<Arc<[CheckReport]>>,
    /// Where runs of checks are asked for, and heartbeats handed in.
    pub desk: Desk,
    /// The last sample of the node.
    pub system: watch::Receiver<SystemUsage>,
    /// What the application says of itself.
    pub about: watch::Receiver<About>,
    /// What the application's database told last.
    pub database: watch::Receiver<DatabaseState>,
    /// What Celery's workers do.
    pub celery: CeleryReader,
    /// Who exports the cluster's numbers; `None` when this sidecar is alone.
    pub standing: Arc<dyn Fn() -> Option<Standing> + Send + Sync>,
    /// What became of the configuration's changes; `None` of one that comes from nowhere.
    pub reloads: Option<watch::Receiver<ReloadState>>,
    /// What the proxy measured.
    pub traffic: Traffic,
    /// The tasks that the application tells of.
    pub tasks: Tasks,
    /// The samples of all rooms, for `/metrics`.
    pub samples: Vec<SampleSource>,
    /// How the export fares.
    pub export: Arc<dyn Fn() -> ExportState + Send + Sync>,
    /// What readiness waits for.
    pub latches: Vec<Latch>,
    /// The loops that liveness looks at.
    pub pulses: Vec<Pulse>,
    /// Whether the proxy is draining: `/readyz` says so.
    pub drain: Drain,
    /// When the process started.
    pub started: Instant,
    /// Where the proxy listens; `None` when it is switched off.
    pub proxy: Option<SocketAddr>,
    /// The application, as scheme, host and port.
    pub upstream: String,
    /// The application's name at the vendors.
    pub service: Clean<'static>,
}

/// What the proxy measured.
#[derive(Clone)]
pub struct Traffic {
    /// The totals since the start.
    pub totals: Arc<dyn Fn() -> Totals + Send + Sync>,
    /// The last 1, 5 and 15 minutes.
    pub windows: Arc<dyn Fn() -> [Window; 3] + Send + Sync>,
    /// The routes of the last 5 minutes, busiest first.
    pub routes: Arc<dyn Fn() -> Vec<RouteTraffic> + Send + Sync>,
    /// The last failures, newest first.
    pub failures: Arc<dyn Fn() -> Vec<Failure> + Send + Sync>,
    /// Ends once every answer that a client may already hold is counted; a few microseconds, with a deadline.
    pub settled: Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>,
}

impl State {
    /// All that the application's own shapes need, of one moment.
    pub(super) fn moment(&self) -> Moment {
        let (system, now) = (self.system.borrow().clone(), Instant::now());
        let age_seconds = system.age(now).map(|age| age.as_secs_f64());
        Moment {
            reports: self.reports(),
            stale_system: system.is_stale(now).then_some(Stale { age_seconds }),
            system,
            about: self.about.borrow().clone(),
            rows: self.database.borrow().business_rows(),
            totals: (self.traffic.totals)(),
            tasks: self.tasks.totals(),
            celery: self.celery.counts(),
            standing: (self.standing)(),
            reload: self.reloads.as_ref().map(|reloads| reloads.borrow().clone()).unwrap_or_default(),
            unix_seconds: unix_seconds(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
        }
    }

    /// The checks as they are to be read now.
    pub(super) fn reports(&self) -> Vec<CheckReport> {
        let now = Instant::now();
        self.checks.borrow().iter().map(|report| report.as_of(now)).collect()
    }

    /// The samples of all rooms.
    pub(super) fn all_samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for source in &self.samples {
            source(&mut samples);
        }
        samples
    }
}

impl From<Reader> for Traffic {
    fn from(reader: Reader) -> Self {
        let [totals, windows, routes, failures, settled] = std::array::from_fn(|_| reader.clone());
        Self {
            totals: Arc::new(move || totals.totals()),
            windows: Arc::new(move || windows.windows()),
            routes: Arc::new(move || routes.routes()),
            failures: Arc::new(move || failures.recent_failures()),
            settled: Arc::new(move || {
                let reader = settled.clone();
                Box::pin(async move { reader.settled().await })
            }),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

/// Now, in seconds since the Unix epoch; 0 before it.
pub(super) fn unix_seconds() -> f64 {
    since_epoch().as_secs_f64()
}
