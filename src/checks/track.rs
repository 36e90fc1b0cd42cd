//! What a check remembers of its runs: the status that stands, and the numbers that are told of it. Pure.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use crate::checks::archive::Memory;
use crate::checks::damping::Damping;
use crate::checks::service::Service;
use crate::model::health::{CheckHistory, HealthStatus};
use crate::redact::Clean;

/// Results that are looked at for changes.
const RECENT: usize = 20;
/// So many changes among them, and no result is to be believed.
const FLAPS: usize = 5;
/// So few, and they are again: a check on the edge is told of once.
const CALMS: usize = 2;
/// Durations that the percentiles are of: at the usual periods some minutes.
const LATENCIES: usize = 128;
/// What is told of a message at most.
const MESSAGE_LIMIT: usize = 200;

/// One run of a check, judged by itself.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) status: HealthStatus,
    pub(super) message: Clean<'static>,
    pub(super) latency: Duration,
    /// When it ended, in seconds since the Unix epoch.
    pub(super) at: f64,
}

/// The memory of one check, bounded.
#[derive(Default)]
pub(super) struct Track {
    damping: Damping,
    /// The last words of each status: while a status is held against newer results, so are its words.
    words: [Option<Clean<'static>>; 4],
    recent: VecDeque<HealthStatus>,
    latencies: VecDeque<Duration>,
    /// What outlives this process.
    memory: Memory,
    shown: HealthStatus,
    history: CheckHistory,
}

/// What is shown of a check.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) status: HealthStatus,
    pub(super) message: Clean<'static>,
    pub(super) history: CheckHistory,
}

impl Track {
    /// One that goes on from what is remembered.
    pub(super) fn of(memory: Memory) -> Self {
        Self { memory, ..Self::default() }
    }

    /// Takes a run.
    pub(super) fn take(&mut self, run: &Run, service: &Service) -> Shown {
        let in_maintenance = service.is_in_maintenance(run.at);
        self.words[run.status as usize] = Some(run.message.clone().cut(MESSAGE_LIMIT));
        let standing = self.damping.take(run.status, service.thresholds);
        self.count(run);
        let counts = run.status != HealthStatus::Unknown && !in_maintenance;
        if counts {
            self.judge_changes(run.status);
        }
        let history = &mut self.history;
        (history.in_maintenance, history.waits_for) = (in_maintenance, None);
        let mut past = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if counts {
            past.uptime.take(run.at, run.status != HealthStatus::Unhealthy);
        }
        if matches!(run.status, HealthStatus::Healthy | HealthStatus::Degraded) {
            past.last_ok = Some(run.at);
        }
        (history.uptime_ratio, history.last_ok) = (past.uptime.ratio(), past.last_ok);
        drop(past);
        let is_flapping = history.flapping && standing != HealthStatus::Unknown;
        let status = match standing {
            _ if in_maintenance => HealthStatus::Unknown,
            _ if is_flapping => standing.max(HealthStatus::Degraded),
            _ => standing,
        };
        let words = self.words[standing as usize].clone().unwrap_or(Clean::literal("no result"));
        let message = match () {
            () if in_maintenance => Clean::literal("in maintenance"),
            () if is_flapping => Clean::concat(&[words, Clean::literal(", but its results change too often")]),
            () => words,
        };
        self.show(status, message, run.at)
    }

    /// Is not run while this check is down.
    pub(super) fn wait_for(&mut self, name: &str, message: Clean<'static>, at: f64) -> Shown {
        self.history.waits_for = Some(name.to_owned());
        self.show(HealthStatus::Unknown, message, at)
    }

    fn count(&mut self, run: &Run) {
        let history = &mut self.history;
        let goes_on = history.runs.iter().any(|runs| *runs > 0) && history.result == run.status;
        history.streak = if goes_on { history.streak.saturating_add(1) } else { 1 };
        history.result = run.status;
        history.runs[run.status as usize] += 1;
        keep(&mut self.latencies, run.latency, LATENCIES);
        let mut sorted: Vec<Duration> = self.latencies.iter().copied().collect();
        sorted.sort_unstable();
        history.latencies = Some([50, 95, 99].map(|percent| percentile(&sorted, percent)));
    }

    fn judge_changes(&mut self, status: HealthStatus) {
        keep(&mut self.recent, status, RECENT);
        let changes = self.recent.iter().zip(self.recent.iter().skip(1)).filter(|(before, after)| before != after);
        let changes = changes.count();
        self.history.flapping = changes >= FLAPS || (self.history.flapping && changes > CALMS);
    }

    fn show(&mut self, status: HealthStatus, message: Clean<'static>, at: f64) -> Shown {
        if self.shown != status || self.history.since.is_none() {
            (self.shown, self.history.since) = (status, Some(at));
        }
        Shown { status, message, history: self.history.clone() }
    }
}

fn keep<T>(values: &mut VecDeque<T>, value: T, most: usize) {
    if values.len() == most {
        values.pop_front();
    }
    values.push_back(value);
}

/// By the nearest rank: a value that was measured, of a sorted list that is not empty.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::maintenance::Window;
    use crate::checks::service::Pace;
    use crate::model::health::Criticality;
    use HealthStatus::{Degraded as D, Healthy as H, Unhealthy as U, Unknown};

    /// 30 November 2026, 00:00 UTC.
    const MIDNIGHT: f64 = 1_795_996_800.0;

    fn service() -> Service {
        Service::new("x".into(), Criticality::Critical, Pace::seconds(10, 2).at_once())
    }

    fn run(status: HealthStatus, at: f64) -> Run {
        Run { status, message: Clean::literal(status.label()), latency: Duration::from_millis(at as u64 % 1_000), at }
    }

    fn last(results: &[HealthStatus], service: &Service) -> Shown {
        let mut track = Track::default();
        let shown = results.iter().enumerate().map(|(turn, result)| track.take(&run(*result, turn as f64), service));
        shown.last().expect("a result")
    }

    #[test]
    fn streak_since_and_last_success_follow_the_results() {
        let shown = last(&[H, H, U, U, U], &service());
        let history = shown.history;
        assert_eq!((shown.status, history.result, history.streak), (U, U, 3));
        assert_eq!((history.since, history.last_ok, history.runs), (Some(2.0), Some(1.0), [0, 2, 0, 3]));
        assert_eq!(history.uptime_ratio, Some(0.4));
    }

    #[test]
    fn five_changes_in_twenty_results_are_flapping_until_only_two_are_left() {
        assert!(!last(&[H, U, H, U, H], &service()).history.flapping, "four changes");
        let mut results = vec![H, U, H, U, H, U];
        assert!(last(&results, &service()).history.flapping);
        results.extend([H; 14]);
        let shown = last(&results, &service());
        assert!(shown.history.flapping, "six changes, all of them still among the last twenty");
        assert_eq!(shown.status, D, "works, and is not to be believed");
        assert_eq!(shown.message.as_str(), "healthy, but its results change too often");
        results.extend([H; 3]);
        assert!(last(&results, &service()).history.flapping, "three changes left");
        results.push(H);
        let shown = last(&results, &service());
        assert_eq!((shown.status, shown.history.flapping), (H, false));
    }

    #[test]
    fn in_maintenance_nothing_is_unhealthy_and_nothing_counts() {
        let window = Window::parse("00:00-00:10").expect("a window");
        let service = Service { maintenance: vec![window], ..service() };
        let mut track = Track::default();
        let shown = track.take(&run(U, MIDNIGHT + 60.0), &service);
        assert_eq!((shown.status, shown.message.as_str()), (Unknown, "in maintenance"));
        assert!(shown.history.in_maintenance && shown.history.uptime_ratio.is_none());
        let shown = track.take(&run(U, MIDNIGHT + 600.0), &service);
        assert_eq!((shown.status, shown.history.uptime_ratio), (U, Some(0.0)));
    }

    #[test]
    fn the_percentiles_are_of_durations_that_were_measured() {
        let mut track = Track::default();
        let shown = (1..=300).map(|at| track.take(&run(H, f64::from(at)), &service())).last().expect("a run");
        let expected = [236, 294, 299].map(Duration::from_millis);
        assert_eq!(shown.history.latencies, Some(expected), "of the last 128, 173 ms to 300 ms");
    }

    #[test]
    fn what_waits_is_unknown_and_takes_up_where_it_was() {
        let mut track = Track::default();
        track.take(&run(H, 1.0), &service());
        let shown = track.wait_for("database", Clean::literal("waits for database"), 2.0);
        assert_eq!((shown.status, shown.history.since, shown.history.streak), (Unknown, Some(2.0), 1));
        assert_eq!(shown.history.waits_for.as_deref(), Some("database"));
        let shown = track.take(&run(H, 3.0), &service());
        assert_eq!((shown.status, shown.history.waits_for, shown.history.streak), (H, None, 2));
    }
}
