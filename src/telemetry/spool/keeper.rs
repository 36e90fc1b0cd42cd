//! When telemetry goes to the disk: each second while the receiver is away or lets it wait, at once when memory is half full, in
//! short turns during the last deliveries, and all of it at the end. What is on its way for longer is written by its delivery.

use std::sync::atomic::Ordering;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::model::telemetry::{ExportCondition, Signal};
use crate::telemetry::sender::delivery::Stage;
use crate::telemetry::spool::{EXPOSED, LAST_PAUSE, Spool};

impl Spool {
    /// Keeps what must not be lost until the stage is `Leaving`, then all that memory holds, and closes the file. May be called
    /// again after a panic.
    pub(crate) async fn run(&self, mut stage: watch::Receiver<Stage>) {
        let mut is_recovered = false;
        let mut ticks = interval(EXPOSED);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match *stage.borrow_and_update() {
                Stage::Running => {}
                Stage::Finishing => self.hurries.store(true, Ordering::Relaxed),
                Stage::Leaving => break,
            }
            tokio::select! {
                _ = ticks.tick() => {}
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
