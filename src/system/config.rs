//! The settings of the sampler.

use std::time::Duration;

use crate::settings::Section;

/// How often the node is sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time between two samples.
    pub period: Duration,
}

/// Often enough for an alert, and a fraction of a millisecond of work each time.
const PERIOD: Duration = Duration::from_secs(5);
/// sysinfo's shares of CPU are noise below this.
const SHORTEST: Duration = Duration::from_millis(200);

impl Config {
    /// Reads `system.*` below the root of the settings.
    pub fn read(root: &mut Section<'_>) -> Self {
        let mut section = root.section("system");
        let period = section.duration("period", PERIOD, "Time between two samples of CPU, memory, disk and network.");
        if period < SHORTEST {
            section.problem("period", crate::settings::show_duration(period), "at least 200ms");
        }
        Self { period: period.max(SHORTEST) }
    }
}
