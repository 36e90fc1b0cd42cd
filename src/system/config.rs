//! The settings of the sampler.

use std::path::PathBuf;
use std::time::Duration;

use crate::settings::Section;

/// How often the node is sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Time between two samples.
    pub period: Duration,
    /// The folder of the cgroup that is read; `None` for our own.
    pub cgroup: Option<PathBuf>,
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
        let about = "The folder of the cgroup whose limits and use are told, of version 2, or of 1 with a folder for each controller; without, that of the sidecar itself.";
        let cgroup = section.optional_text("cgroup", about).map(PathBuf::from);
        Self { period: period.max(SHORTEST), cgroup }
    }
}
