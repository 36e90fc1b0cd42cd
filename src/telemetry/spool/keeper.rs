//! When telemetry goes to the disk: once it is a second old, each second while the receiver is away or lets it wait, at once when memory is half full, in
//! short turns during the last deliveries, and all of it at the end. What is on its way for longer is written by its delivery.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::model::telemetry::{ExportCondition, Signal};
use crate::telemetry::sender::delivery::Stage;
use crate::telemetry::spool::{EXPOSED, LAST_PAUSE, Spool};

impl Spool {
    /// Keeps what must not be lost until the stage is `Leaving`, then all that memory holds, and closes the file. May be called
    /// again after a panic.
    pub(crate) async fn run(&self, mut stage: watch::Receiver<Stage>) {
        let mut is_recovered = false;
        loop {
            match *stage.borrow_and_update() {
                Stage::Running => {}
                Stage::Finishing => self.hurries.store(true, Ordering::Relaxed),
                Stage::Leaving => break,
            }
            tokio::select! {
                () = sleep(next_look(Signal::ALL.map(|signal| self.desk.queue(signal).oldest_in_memory()))) => {}
                () = sleep(LAST_PAUSE), if self.hurries() => {}
                () = self.desk.settled() => {}
                () = self.pressed() => {}
                () = self.placed(), if !is_recovered => {}
                changed = stage.changed() => if changed.is_err() { return },
            }
            if !is_recovered && self.has_place() {
                self.recover().await;
                is_recovered = true;
            }
            for signal in Signal::ALL {
                let queue = self.desk.queue(signal);
                match &self.destinations[signal as usize] {
                    Some(destination) if destination.condition() == ExportCondition::Failing => {
                        self.keep(signal, 0).await
                    }
                    Some(_) if queue.oldest_in_memory() >= EXPOSED => self.keep(signal, 0).await,
                    Some(_) if queue.is_half_full() => {
                        self.keep(signal, queue.capacity() / 4).await;
                    }
                    _ => {}
                }
            }
            self.sweep().await;
        }
        self.keep_all().await;
        self.close().await;
    }

    /// Keeps all that memory holds: the process ends. A disk that fails is tried until whoever waits for this gives up.
    async fn keep_all(&self) {
        self.hurries.store(true, Ordering::Relaxed);
        while self.has_place() {
            for signal in Signal::ALL {
                self.keep(signal, 0).await;
            }
            if Signal::ALL.iter().all(|signal| self.desk.queue(*signal).waiting_bytes() == 0) {
                return;
            }
            sleep(LAST_PAUSE).await;
        }
    }

    async fn pressed(&self) {
        let [traces, metrics, logs, envelopes] = Signal::ALL.map(|signal| self.desk.queue(signal).pressed());
        tokio::select! {
            () = traces => {}
            () = metrics => {}
            () = logs => {}
            () = envelopes => {}
        }
    }
}

/// In how long something becomes too old for memory alone, given the ages of the oldest of each signal; what is so already was
/// looked at, and is again after as long a time.
fn next_look(ages: [Duration; Signal::ALL.len()]) -> Duration {
    let rests = ages.into_iter().map(|age| EXPOSED.saturating_sub(age)).filter(|rest| !rest.is_zero());
    rests.min().unwrap_or(EXPOSED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_when_the_oldest_is_as_old_as_it_may_be() {
        let in_millis = |ages: [u64; 4]| next_look(ages.map(Duration::from_millis)).as_millis();
        assert_eq!(in_millis([0; 4]), 1_000);
        assert_eq!(in_millis([700, 0, 400, 0]), 300);
        assert_eq!(in_millis([1_000, 5_000, 400, 0]), 600, "what the disk did not take hurries nobody");
        assert_eq!(in_millis([5_000; 4]), 1_000);
    }
}
