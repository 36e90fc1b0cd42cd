//! A mistake in the configuration: where it stands, what was found, and what was expected.

use std::fmt;

/// One mistake. All of them are collected before the start fails, so one restart shows every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The path of the key, such as `proxy.workers`.
    pub path: String,
    /// The value found, `***` for a secret.
    pub found: String,
    /// What would be right.
    pub expected: String,
    /// Where the value was set, such as `SIDECAR_PROXY__WORKERS` or `sidecar.yaml`.
    pub place: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, expected {}", self.path, self.found, self.expected)?;
        if self.place.is_empty() { Ok(()) } else { write!(f, " (set in {})", self.place) }
    }
}
