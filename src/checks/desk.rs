//! The desk: where others ask for a run of a check, and where heartbeats are handed in. Names are looked up, never made.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::checks::beats::Beats;
use crate::checks::door::{Door, Ran};

/// Takes wishes and heartbeats. Cheap to clone; the default one knows no check.
#[derive(Clone, Debug, Default)]
pub struct Desk(Arc<RwLock<Counter>>);

/// What stands behind the desk; other settings bring another one.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) doors: BTreeMap<String, Arc<Door>>,
    pub(super) beats: Beats,
}

impl Desk {
    /// Stands in front of these doors from now on.
    pub(super) fn place(&self, counter: Counter) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = counter;
    }

    fn counter(&self) -> RwLockReadGuard<'_, Counter> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a check run and waits for the end of that run, or of the one in flight; `None` when it is not configured.
    pub async fn run(&self, name: &str) -> Option<Ran> {
        let door = Arc::clone(self.counter().doors.get(name)?);
        Some(door.ask().await)
    }

    /// Takes a heartbeat; `false` when nobody waits for one of this name.
    #[must_use]
    pub fn beat(&self, name: &str) -> bool {
        let counter = self.counter();
        let is_awaited = counter.beats.take(name);
        if is_awaited && let Some(door) = counter.doors.get(name) {
            door.knock(); // who was silent is seen again at once
        }
        is_awaited
    }
}
