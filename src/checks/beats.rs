//! Signs of life that others send: when each heartbeat was last received. Their names are those of the configuration.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// Takes heartbeats and tells of them. Cheap to clone; one owner of when each came.
#[derive(Clone, Debug, Default)]
pub(super) struct Beats(Arc<BTreeMap<String, Mutex<Option<Instant>>>>);

impl Beats {
    /// Takes the heartbeats of these names, and no others; of those that stay it is known when one came.
    pub(super) fn renamed(&self, names: impl Iterator<Item = String>) -> Self {
        let beats = names.map(|name| {
            let last = self.last(&name);
            (name, Mutex::new(last))
        });
        Self(Arc::new(beats.collect()))
    }

    /// Takes one; `false` when nobody waits for it.
    pub(super) fn take(&self, name: &str) -> bool {
        let beat = self.0.get(name);
        if let Some(beat) = beat {
            *beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        beat.is_some()
    }

    /// When the last one came.
    pub(super) fn last(&self, name: &str) -> Option<Instant> {
        self.0.get(name).and_then(|beat| *beat.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
