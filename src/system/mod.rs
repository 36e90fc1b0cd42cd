//! CPU, memory, disk, network and pressure of the node, the container's limits and use, and our own process.
//!
//! Sampled on the blocking pool every few seconds, because it reads files; everybody else reads the last sample.
//! Of other processes it looks at those that run the application.

mod cgroup;
pub mod config;
mod pressure;
mod process;
mod programs;
mod sampler;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::lifecycle::Drain;
use crate::model::reload::Retune;
use crate::model::sample::SampleSource;
use crate::model::usage::SystemUsage;

use config::Config;
use sampler::Sampler;

/// Reads the last sample, from memory.
pub type Reader = watch::Receiver<SystemUsage>;

/// Samples, and owns what the sampler remembers between two samples.
pub struct System {
    period: Tuner,
    sampler: Arc<Mutex<Sampler>>,
    last: watch::Sender<SystemUsage>,
}

/// Takes another period while the room samples.
#[derive(Clone)]
pub struct Tuner(watch::Sender<Duration>);

impl Retune for Tuner {
    type Config = Config;
    const LIVE: &'static [&'static str] = &["system.period"];

    fn retune(&self, config: &Config) -> Result<(), String> {
        self.0.send_replace(config.period);
        Ok(())
    }
}

/// A share of CPU needs two samples; the second one comes this soon after the first.
const SECOND_SAMPLE: Duration = Duration::from_millis(250);

/// Makes the room. The disk shown is the one that holds `folder`.
#[must_use]
pub fn build(config: &Config, folder: PathBuf) -> (System, Reader) {
    let (last, reader) = watch::channel(SystemUsage::default());
    let sampler = Arc::new(Mutex::new(Sampler::new(folder, config.cgroup.as_deref())));
    (System { period: Tuner(watch::Sender::new(config.period)), sampler, last }, reader)
}

/// The samples of the last look at the node; none before the first, nor once it is older than its metrics allow.
#[must_use]
pub fn samples(tuner: &Tuner, reader: Reader) -> SampleSource {
    let periods = tuner.0.subscribe();
    Arc::new(move |out| {
        let period = *periods.borrow();
        let usage = reader.borrow();
        let Some(age) = usage.read_at.map(|at| at.elapsed()) else { return };
        let mut read = Vec::new();
        usage.samples(&mut read);
        out.extend(read.into_iter().filter(|sample| sample.metric.allows(age, period)));
    })
}

impl System {
    /// Samples until the process drains. May be called again after a panic.
    pub async fn run(&self, mut drain: Drain) {
        self.sample().await;
        sleep(SECOND_SAMPLE).await;
        let mut periods = self.period.0.subscribe();
        loop {
            let mut turns = interval(*periods.borrow_and_update());
            turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    _ = turns.tick() => self.sample().await,
                    Ok(()) = periods.changed() => break,
                    _ = drain.begun() => return,
                }
            }
        }
    }

    /// Takes another period.
    #[must_use]
    pub fn tuner(&self) -> Tuner {
        self.period.clone()
    }

    async fn sample(&self) {
        let sampler = self.sampler.clone();
        let look = spawn_blocking(move || sampler.lock().unwrap_or_else(PoisonError::into_inner).look());
        match look.await {
            Ok(usage) => {
                let period = *self.period.0.borrow();
                self.last.send_replace(SystemUsage { period, ..usage });
            }
            Err(error) => tracing::warn!(is_panic = error.is_panic(), "the node could not be sampled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;

    /// How many samples there are of a look, so long after it.
    async fn shown_after(seconds: u64, period: Duration) -> usize {
        let config = Config { period, cgroup: None };
        let (room, reader) = build(&config, "/".into());
        let samples = samples(&room.tuner(), reader);
        let count = || {
            let mut out = Vec::new();
            samples(&mut out);
            out.len()
        };
        assert_eq!(count(), 0, "nothing is known before the first look");
        room.last.send_replace(SystemUsage { read_at: Some(Instant::now()), ..SystemUsage::default() });
        advance(Duration::from_secs(seconds)).await;
        count()
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_are_stale_when_three_turns_and_a_minute_have_not_renewed_them() {
        for (seconds, limit) in [(1, 60), (5, 60), (100, 300)] {
            let config = Config { period: Duration::from_secs(seconds), cgroup: None };
            let (room, reader) = build(&config, "/".into());
            assert!(reader.borrow().is_stale(Instant::now()), "before the first look");
            room.sample().await;
            let usage = reader.borrow().clone();
            let then = usage.read_at.expect("it has looked");
            let after = |seconds| then + Duration::from_secs(seconds);
            assert_eq!((usage.age(after(7)), usage.period), (Some(Duration::from_secs(7)), config.period));
            assert_eq!((usage.is_stale(after(limit)), usage.is_stale(after(limit + 1))), (false, true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_longer_ago_than_the_catalogue_allows_is_not_shown() {
        assert!(shown_after(60, Duration::from_secs(5)).await > 10);
        assert_eq!(shown_after(61, Duration::from_secs(5)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_interval_hides_nothing_between_two_readings() {
        assert!(shown_after(900, Duration::from_secs(300)).await > 10);
        assert_eq!(shown_after(901, Duration::from_secs(300)).await, 0);
    }

    #[tokio::test]
    async fn another_period_is_taken_at_once() {
        let hour = Duration::from_secs(3_600);
        let (room, mut reader) = build(&Config { period: hour, cgroup: None }, "/".into());
        let (_conductor, drain) = crate::lifecycle::drain();
        let tuner = room.tuner();
        let watch = async {
            // the second one is the first of the period
            for _ in 0..2 {
                reader.changed().await.unwrap();
            }
            tuner.retune(&Config { period: Duration::from_millis(200), cgroup: None }).unwrap();
            for _ in 0..3 {
                reader.changed().await.unwrap();
            }
        };
        tokio::select! {
            () = room.run(drain) => unreachable!("it samples until the drain"),
            watched = tokio::time::timeout(Duration::from_secs(20), watch) => watched.unwrap(),
        }
    }
}
