//! When telemetry goes to the disk: each second while the receiver is away or lets it wait, at once when memory is half full,
//! and at the end. What is on its way for longer is written by its delivery.

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::model::telemetry::{ExportCondition, Signal};
use crate::telemetry::sender::delivery::Stage;
use crate::telemetry::spool::{EXPOSED, Spool};

impl Spool {
    /// Keeps what must not be lost until the stage is `Finishing`. May be called again after a panic.
    pub(crate) async fn run(&self, mut stage: watch::Receiver<Stage>) {
        let mut is_recovered = false;
        let mut ticks = interval(EXPOSED);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.desk.settled() => {}
                () = self.pressed() => {}
                () = self.placed(), if !is_recovered => {}
                _ = stage.wait_for(|stage| *stage == Stage::Finishing) => return,
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
    }

    /// Keeps all that memory holds: the process ends.
    pub(crate) async fn keep_all(&self) {
        for signal in Signal::ALL {
            self.keep(signal, 0).await;
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
