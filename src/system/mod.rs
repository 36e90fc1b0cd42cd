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
use crate::model::sample::SampleSource;
use crate::model::usage::SystemUsage;

use config::Config;
use sampler::Sampler;

/// Reads the last sample, from memory.
pub type Reader = watch::Receiver<SystemUsage>;

/// Samples, and owns what the sampler remembers between two samples.
pub struct System {
    period: Duration,
    sampler: Arc<Mutex<Sampler>>,
    last: watch::Sender<SystemUsage>,
}

/// A share of CPU needs two samples; the second one comes this soon after the first.
const SECOND_SAMPLE: Duration = Duration::from_millis(250);

/// Makes the room. The disk shown is the one that holds `folder`.
#[must_use]
pub fn build(config: &Config, folder: PathBuf) -> (System, Reader) {
    let (last, reader) = watch::channel(SystemUsage::default());
    let sampler = Arc::new(Mutex::new(Sampler::new(folder, config.cgroup.as_deref())));
    (System { period: config.period, sampler, last }, reader)
}

/// The samples of the last look at the node; none before the first, nor once it is older than its metrics allow.
#[must_use]
pub fn samples(config: &Config, reader: Reader) -> SampleSource {
    let period = config.period;
    Arc::new(move |out| {
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
        let mut turns = interval(self.period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = turns.tick() => self.sample().await,
                _ = drain.begun() => return,
            }
        }
    }

    async fn sample(&self) {
        let sampler = self.sampler.clone();
        let look = spawn_blocking(move || sampler.lock().unwrap_or_else(PoisonError::into_inner).look());
        match look.await {
            Ok(usage) => {
                self.last.send_replace(usage);
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
        let samples = samples(&config, reader);
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
    async fn what_was_read_longer_ago_than_the_catalogue_allows_is_not_shown() {
        assert!(shown_after(60, Duration::from_secs(5)).await > 10);
        assert_eq!(shown_after(61, Duration::from_secs(5)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_interval_hides_nothing_between_two_readings() {
        assert!(shown_after(900, Duration::from_secs(300)).await > 10);
        assert_eq!(shown_after(901, Duration::from_secs(300)).await, 0);
    }
}
