//! Start, drain and liveness: the few shared facts about the life of the process.
//!
//! Handles over tokio's `watch` and an atomic; nothing here does I/O or knows a room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How far the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serving.
    Running,
    /// Asked to stop: finish what is begun, until the deadline.
    Draining {
        /// After it, what is not finished is broken off.
        deadline: Instant,
    },
    /// Asked twice, or past the deadline: stop at once.
    Aborting,
}

/// Tells everyone about the phase. One owner: whoever listens to signals.
#[derive(Debug)]
pub struct Conductor(watch::Sender<Phase>);

/// Sees the phase. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Drain(watch::Receiver<Phase>);

/// Makes the pair.
#[must_use]
pub fn drain() -> (Conductor, Drain) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Conductor(sender), Drain(receiver))
}

impl Conductor {
    /// Begins the drain; the first call sets the deadline.
    pub fn drain_within(&self, limit: Duration) {
        self.0.send_if_modified(|phase| {
            let begins = *phase == Phase::Running;
            if begins {
                *phase = Phase::Draining { deadline: Instant::now() + limit };
            }
            begins
        });
    }

    /// Ends the drain at once.
    pub fn abort(&self) {
        self.0.send_replace(Phase::Aborting);
    }
}

impl Drain {
    /// The phase of now; one read of a lock that is written twice in a life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until the process is no longer running, and returns the phase.
    pub async fn begun(&mut self) -> Phase {
        match self.0.wait_for(|phase| *phase != Phase::Running).await {
            Ok(phase) => *phase,
            Err(_) => Phase::Aborting, // the owner is gone: there is nobody left to drain for
        }
    }

    /// A wait for that by itself, for whoever needs one for each connection.
    pub fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut drain = self.clone();
        async move { _ = drain.begun().await }
    }

    /// Waits until the process aborts.
    pub async fn aborted(&mut self) {
        let _ = self.0.wait_for(|phase| *phase == Phase::Aborting).await;
    }
}

/// A sign of life: a loop beats, a probe asks for the age of the last beat.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<PulseState>);

#[derive(Debug)]
struct PulseState {
    name: &'static str,
    origin: Instant,
    last_beat_ms: AtomicU64,
}

impl Pulse {
    /// A pulse that has just beaten.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self(Arc::new(PulseState { name, origin: Instant::now(), last_beat_ms: AtomicU64::new(0) }))
    }

    /// Whose pulse it is, as probes print it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Beats. Two loads and a store; from one loop only.
    pub fn beat(&self) {
        let age = self.0.origin.elapsed().as_millis();
        self.0.last_beat_ms.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time since the last beat.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0.origin.elapsed().saturating_sub(Duration::from_millis(self.0.last_beat_ms.load(Ordering::Relaxed)))
    }
}

/// Something that is done once at start; readiness waits for all of them.
#[derive(Clone, Debug)]
pub struct Latch {
    name: &'static str,
    open: Arc<AtomicBool>,
}

impl Latch {
    /// A latch that holds.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, open: Arc::default() }
    }

    /// What it waits for, as probes print it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Opens it, for good.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_is_seen_by_all_and_keeps_its_first_deadline() {
        let (conductor, drain) = drain();
        assert_eq!(drain.phase(), Phase::Running);
        conductor.drain_within(Duration::from_secs(5));
        let first = drain.clone().begun().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        conductor.drain_within(Duration::from_secs(5));
        assert_eq!(drain.phase(), first);
        conductor.abort();
        assert_eq!(drain.clone().begun().await, Phase::Aborting);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pulse_ages_until_it_beats() {
        let pulse = Pulse::new("proxy");
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(pulse.age(), Duration::from_secs(3));
        pulse.beat();
        assert_eq!(pulse.age(), Duration::ZERO);
    }
}
