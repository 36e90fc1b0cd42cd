//! The supervisor: holds each room's future, sees its panic, and starts it again with backoff.
//!
//! Knows no room. A room that ends by itself, without a panic, is done and is not started again.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use crate::model::catalogue::ROOM_RESTARTS;
use crate::model::sample::{Sample, SampleSource};

/// A room's future, made anew for each start.
type Start = Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// The first wait before a restart; doubles up to `LONGEST_WAIT`, and starts over after a quiet minute.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const QUIET: Duration = Duration::from_secs(60);

/// Runs the rooms of the control plane.
#[derive(Default)]
pub struct Supervisor {
    rooms: Vec<Room>,
    tasks: JoinSet<()>,
    running: HashMap<Id, usize>,
    restarts: Restarts,
}

/// The restarts of each room, by its name.
type Restarts = Arc<Mutex<Vec<(&'static str, Arc<AtomicU64>)>>>;

struct Room {
    name: &'static str,
    start: Start,
    restarts: Arc<AtomicU64>,
    started: Instant,
    wait: Duration,
}

impl Supervisor {
    /// The counts of restarts, also of rooms that are added later.
    #[must_use]
    pub fn restarts(&self) -> SampleSource {
        let restarts = self.restarts.clone();
        Arc::new(move |out| {
            for (room, count) in restarts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                out.push(Sample::count(&ROOM_RESTARTS, count.load(Ordering::Relaxed)).with_literal("room", room));
            }
        })
    }

    /// Adds a room and starts it; `start` is called again after each panic. Gives the count of its restarts.
    pub fn add<F, R>(&mut self, name: &'static str, start: F) -> Arc<AtomicU64>
    where
        F: Fn() -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let restarts = Arc::new(AtomicU64::new(0));
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner).push((name, restarts.clone()));
        let start: Start = Box::new(move || Box::pin(start()));
        let room = Room { name, start, restarts: restarts.clone(), started: Instant::now(), wait: FIRST_WAIT };
        let id = self.tasks.spawn((room.start)()).id();
        self.running.insert(id, self.rooms.len());
        self.rooms.push(room);
        restarts
    }

    /// Watches until every room is done, or until the deadline, after which the rest is cut off.
    ///
    /// Gives the names of the rooms that were cut off.
    pub async fn finish_by(mut self, deadline: Instant) -> Vec<&'static str> {
        while let Ok(Some(ended)) = timeout_at(deadline, self.tasks.join_next_with_id()).await {
            self.ended(ended);
        }
        self.running.values().map(|index| self.rooms[*index].name).collect()
    }

    /// Watches for ever: for the time until the drain begins.
    pub async fn watch(&mut self) {
        loop {
            match self.tasks.join_next_with_id().await {
                Some(ended) => self.ended(ended),
                None => std::future::pending().await,
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panicked) = match &ended {
            Ok((id, ())) => (*id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let Some(index) = self.running.remove(&id) else { return };
        if panicked {
            self.restart(index);
        }
    }

    fn restart(&mut self, index: usize) {
        let room = &mut self.rooms[index];
        room.wait = if room.started.elapsed() > QUIET { FIRST_WAIT } else { (room.wait * 2).min(LONGEST_WAIT) };
        room.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(room = room.name, wait_ms = room.wait.as_millis(), "a room panicked and is started again");
        let (wait, future) = (room.wait, (room.start)());
        room.started = Instant::now() + wait;
        let id = self
            .tasks
            .spawn(async move {
                sleep(wait).await;
                future.await;
            })
            .id();
        self.running.insert(id, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_room_that_panics_is_started_again_and_counted() {
        let mut supervisor = Supervisor::default();
        let runs = Arc::new(AtomicU64::new(0));
        let seen = runs.clone();
        let restarts = supervisor.add("fragile", move || {
            let run = seen.fetch_add(1, Ordering::Relaxed);
            async move { assert!(run >= 2, "it fails twice") }
        });
        let cut_off = supervisor.finish_by(Instant::now() + Duration::from_secs(5)).await;
        assert!(cut_off.is_empty());
        assert_eq!((runs.load(Ordering::Relaxed), restarts.load(Ordering::Relaxed)), (3, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_does_not_end_is_cut_off_at_the_deadline() {
        let mut supervisor = Supervisor::default();
        let _ = supervisor.add("quick", || async {});
        let _ = supervisor.add("slow", || sleep(Duration::from_secs(3_600)));
        assert_eq!(supervisor.finish_by(Instant::now() + Duration::from_secs(5)).await, ["slow"]);
    }
}
