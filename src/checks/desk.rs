//! The desk: where others ask for a run of a check, and where heartbeats are handed in. Names are looked up, never made.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checks::beats::Beats;
use crate::checks::door::{Door, Ran};

/// Takes wishes and heartbeats. Cheap to clone; the default one knows no check.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    doors: Arc<BTreeMap<String, Arc<Door>>>,
    beats: Beats,
}

impl Desk {
    /// The desk in front of these doors.
    pub(super) fn new(doors: BTreeMap<String, Arc<Door>>, beats: Beats) -> Self {
        Self { doors: Arc::new(doors), beats }
    }

    /// Has a check run and waits for the end of that run, or of the one in flight; `None` when it is not configured.
    pub async fn run(&self, name: &str) -> Option<Ran> {
        Some(self.doors.get(name)?.ask().await)
    }

    /// Takes a heartbeat; `false` when nobody waits for one of this name.
    #[must_use]
    pub fn beat(&self, name: &str) -> bool {
        let is_awaited = self.beats.take(name);
        if is_awaited && let Some(door) = self.doors.get(name) {
            door.knock(); // who was silent is seen again at once
        }
        is_awaited
    }
}
