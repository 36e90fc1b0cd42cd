//! Health: the status of a service, the report of one check, and the worst-of rule.

use std::time::Duration;

use tokio::time::Instant;

use crate::redact::Clean;

/// The status of a service, or of all. Later is worse, and `Unknown` is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HealthStatus {
    /// Nothing is known: not configured, no result yet, or the last one is stale.
    #[default]
    Unknown,
    /// Works.
    Healthy,
    /// Works in part, or slowly.
    Degraded,
    /// Does not work.
    Unhealthy,
}

impl HealthStatus {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::Healthy, Self::Degraded, Self::Unhealthy];

    /// The word in the endpoints.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One check as everyone else sees it. A value: the runner makes it, others only read it.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// The key under `services` in `/health`, for example `database`.
    pub name: String,
    /// After `failure_threshold`, so that one lost packet does not flip it.
    pub status: HealthStatus,
    /// For people; at most 200 characters.
    pub message: Clean<'static>,
    /// Whether readiness may depend on it.
    pub criticality: Criticality,
    /// How long the last run took; `None` before the first.
    pub latency: Option<Duration>,
    /// When the last run ended, in seconds since the Unix epoch; `None` before the first.
    pub checked_at: Option<f64>,
    /// From then on the result is too old to be believed; `None` before the first run.
    pub expires_at: Option<Instant>,
    /// What kind of check it is, such as `http`.
    pub kind: &'static str,
    /// Time between two runs.
    pub period: Duration,
    /// What it went through.
    pub history: CheckHistory,
}

/// What a check went through, as far as its reader is concerned.
#[derive(Clone, Debug, Default)]
pub struct CheckHistory {
    /// What the last run found by itself, before any threshold.
    pub result: HealthStatus,
    /// How many results in a row were the same as the last one.
    pub streak: u32,
    /// When the status that stands began, in seconds since the Unix epoch.
    pub since: Option<f64>,
    /// When a run last found it working, well or in part, in seconds since the Unix epoch.
    pub last_ok: Option<f64>,
    /// The median, 95th and 99th percentile of the durations of the last runs; `None` before the first.
    pub latencies: Option<[Duration; 3]>,
    /// The share of results of the last 24 hours that were no failure, from 0 to 1; `None` without any.
    pub uptime_ratio: Option<f64>,
    /// Runs by result, in the order of `HealthStatus::ALL`.
    pub runs: [u64; 4],
    /// Whether its results change too often for any of them to be believed.
    pub flapping: bool,
    /// Whether it is expected not to work now.
    pub in_maintenance: bool,
    /// A check that is down and that this one depends on: it is not run meanwhile.
    pub waits_for: Option<String>,
}

impl CheckReport {
    /// The report as it is to be read now: a result that is too old is no result.
    ///
    /// The reader asks, so that a scheduler that stands still cannot keep a green face.
    #[must_use]
    pub fn as_of(&self, now: Instant) -> Self {
        let mut report = self.clone();
        if self.expires_at.is_some_and(|expires_at| now >= expires_at) {
            report.status = HealthStatus::Unknown;
            report.message = Clean::literal("no fresh result");
        }
        report
    }
}

/// Whether a failing check makes the application unfit for traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criticality {
    /// The application cannot work without it.
    Critical,
    /// The application works without it.
    Optional,
}

/// The whole is as healthy as its worst known service; with nothing known it is `Unknown`.
#[must_use]
pub fn overall(reports: &[CheckReport]) -> HealthStatus {
    reports.iter().map(|report| report.status).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: HealthStatus) -> CheckReport {
        CheckReport {
            name: "x".into(),
            status,
            message: Clean::literal("x"),
            criticality: Criticality::Critical,
            latency: None,
            checked_at: None,
            expires_at: None,
            kind: "tcp",
            period: Duration::from_secs(10),
            history: CheckHistory::default(),
        }
    }

    #[test]
    fn a_result_that_is_too_old_is_unknown() {
        let now = Instant::now();
        let report = CheckReport { expires_at: Some(now), ..report(HealthStatus::Healthy) };
        assert_eq!(report.as_of(now).status, HealthStatus::Unknown);
        assert_eq!(report.as_of(now - Duration::from_millis(1)).status, HealthStatus::Healthy);
    }

    #[test]
    fn the_whole_is_as_healthy_as_its_worst_known_service() {
        use HealthStatus::{Degraded, Healthy, Unhealthy, Unknown};
        for (services, expected) in [
            (vec![], Unknown),
            (vec![Unknown, Unknown], Unknown),
            (vec![Healthy, Unknown], Healthy),
            (vec![Degraded, Healthy], Degraded),
            (vec![Unhealthy, Degraded, Unknown], Unhealthy),
        ] {
            let reports: Vec<_> = services.iter().copied().map(report).collect();
            assert_eq!(overall(&reports), expected, "{services:?}");
        }
    }
}
