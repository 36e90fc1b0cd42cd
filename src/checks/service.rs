//! How a check is run, whatever its kind: when, how long, what it takes until its status moves, and what it depends on.

use std::borrow::Cow;
use std::time::Duration;

use crate::checks::damping::Thresholds;
use crate::checks::maintenance::Window;
use crate::model::health::Criticality;
use crate::settings::{Section, show_duration};

/// A service, and how it is checked.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: Cow<'static, str>,
    pub(super) criticality: Criticality,
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) thresholds: Thresholds,
    /// An answer that takes longer is `degraded`.
    pub(super) degraded_above: Duration,
    /// Before the first run.
    pub(super) initial_delay: Duration,
    /// Checks that must not be down, or this one is not run.
    pub(super) depends_on: Vec<String>,
    /// When it is expected not to work.
    pub(super) maintenance: Vec<Window>,
}

/// The defaults of a kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) period: Duration,
    pub(super) timeout: Duration,
    pub(super) thresholds: Thresholds,
}

/// One lost packet is no outage, and one lucky answer no recovery.
const USUAL: Thresholds = Thresholds { failure: 3, success: 2 };

impl Pace {
    /// So many seconds between two runs and for one, with the usual thresholds.
    pub(super) const fn seconds(period: u64, timeout: u64) -> Self {
        let (period, timeout) = (Duration::from_secs(period), Duration::from_secs(timeout));
        Self { period, timeout, thresholds: USUAL }
    }

    /// For what does not come and go like a packet: each look counts.
    pub(super) const fn at_once(self) -> Self {
        Self { thresholds: Thresholds { failure: 1, success: 1 }, ..self }
    }
}

impl Service {
    /// A check of this name at the pace of its kind.
    pub(super) const fn new(name: Cow<'static, str>, criticality: Criticality, pace: Pace) -> Self {
        Self {
            name,
            criticality,
            period: pace.period,
            timeout: pace.timeout,
            thresholds: pace.thresholds,
            degraded_above: Duration::from_millis(pace.timeout.as_secs() * 250),
            initial_delay: Duration::ZERO,
            depends_on: Vec::new(),
            maintenance: Vec::new(),
        }
    }

    /// Reads what the section says of it; `names` are those of all checks.
    pub(super) fn read(section: &mut Section<'_>, default: Self, names: &[String]) -> Self {
        let is_critical = section.flag(
            "critical",
            default.criticality == Criticality::Critical,
            "Whether the application cannot work without it; readiness may look at it then.",
        );
        let period = section.duration("period", default.period, "Time between two checks, varied by a tenth.");
        let timeout =
            section.duration("timeout", default.timeout, "Time after which a check has failed; below the period.");
        if timeout >= period || timeout.is_zero() {
            section.problem("timeout", show_duration(timeout), "a duration above 0 and below the period");
        }
        let thresholds = thresholds(section, default.thresholds);
        let about = "A check that takes longer makes the service degraded.";
        let degraded_above = section.duration("degraded_above", default.degraded_above, about);
        let about = "Time before the first check, for what takes its time to start; it is unknown meanwhile.";
        let initial_delay = section.duration("initial_delay", default.initial_delay, about);
        let depends_on = depends_on(section, &default.name, names);
        let maintenance = maintenance(section);
        let criticality = if is_critical { Criticality::Critical } else { Criticality::Optional };
        let name = default.name;
        Self { name, criticality, period, timeout, thresholds, degraded_above, initial_delay, depends_on, maintenance }
    }

    /// Whether it is expected not to work at this moment, in seconds since the Unix epoch.
    pub(super) fn is_in_maintenance(&self, unix_seconds: f64) -> bool {
        self.maintenance.iter().any(|window| window.contains(unix_seconds))
    }
}

fn thresholds(section: &mut Section<'_>, default: Thresholds) -> Thresholds {
    let mut threshold = |name, default: u32, about| {
        u32::try_from(section.number(name, default.into(), 1..=100, about)).unwrap_or(default)
    };
    let about = "Failures in a row until the service is down: one lost packet is no outage.";
    let failure = threshold("failure_threshold", default.failure, about);
    let about = "Successes in a row until it is up again: one lucky answer is no recovery.";
    Thresholds { failure, success: threshold("success_threshold", default.success, about) }
}

fn depends_on(section: &mut Section<'_>, own: &str, names: &[String]) -> Vec<String> {
    let about = "Checks that it depends on: while one of them is down, this one waits, is unknown and alarms nobody.";
    let depends_on = section.list("depends_on", &[], about);
    for name in depends_on.iter().filter(|name| *name == own || !names.contains(name)) {
        section.problem("depends_on", name, "names of other checks");
    }
    depends_on
}

fn maintenance(section: &mut Section<'_>) -> Vec<Window> {
    let about = "Times in UTC in which it is expected not to work, such as 02:00-03:30 or Sun 23:00-01:00: it is unknown then, \
                 and what it finds does not count.";
    let mut windows = Vec::new();
    for text in section.list("maintenance", &[], about) {
        match Window::parse(&text) {
            Some(window) => windows.push(window),
            None => section.problem("maintenance", text, "times in UTC such as 02:00-03:30 or Sun 23:00-01:00"),
        }
    }
    windows
}
