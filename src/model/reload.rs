//! Settings that change while the process runs: what a room does with them, and what became of the last change.

use std::time::Duration;

/// A room that takes settings while it works. One that does not needs a restart for each of its settings.
pub trait Retune: Send + Sync + 'static {
    /// The settings of the room.
    type Config;

    /// Paths of the settings that it takes; one that ends with a dot is a section.
    const LIVE: &'static [&'static str];

    /// Takes what is live of these settings; whatever else they say stays as it was.
    ///
    /// # Errors
    /// Why they cannot be used, though they are well written; those of before stay.
    fn retune(&self, config: &Self::Config) -> Result<(), String>;
}

/// Whether a setting is one of these paths, or in a section that is.
#[must_use]
pub fn is_within(setting: &str, paths: &[&str]) -> bool {
    paths.iter().any(|path| *path == setting || path.ends_with('.') && setting.starts_with(path))
}

/// What became of the configuration's changes.
#[derive(Clone, Debug, Default)]
pub struct ReloadState {
    /// Times that the configuration was read again.
    pub reloads: u64,
    /// Those of which nothing was taken, because it was wrong.
    pub failures: u64,
    /// Whether the last time was one of them.
    pub has_failed: bool,
    /// When it was last read and right, since the Unix epoch; the start is the first time.
    pub succeeded_at: Duration,
    /// What is wrong with it, one mistake each, without secrets.
    pub problems: Vec<String>,
    /// Settings that were changed and wait for a restart.
    pub waiting: Vec<String>,
}
