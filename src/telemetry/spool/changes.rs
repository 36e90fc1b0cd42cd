//! Changes of the file, each heard to its end: the account is changed when the outcome of a commit is known, and not before.
//!
//! Whoever waits for a change may be cut short, by a deadline or by its own end. The change stays with the file, and the next
//! who needs the file hears it first.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::telemetry::spool::store::{NewRow, StoreError};
use crate::telemetry::spool::work::{Change, Outcome, Work};
use crate::telemetry::spool::{File, PATIENCE, Spool};

impl Spool {
    /// Changes the open file, and the account with it.
    pub(super) async fn change(&self, file: &mut File, change: Change, rows: Vec<NewRow>) -> Outcome {
        match std::mem::replace(file, File::Closed) {
            File::Open(store, _) => *file = File::Changing(Work::begin(store, change, rows)),
            other => unreachable!("who changes the file has opened it: {other:?}"),
        }
        self.heard(file, PATIENCE).await
    }

    /// Hears what has become of a change that somebody else did not wait for, if there is one.
    pub(super) async fn hear(&self, file: &mut File) {
        if let File::Changing(work) = file {
            // one look at a disk that does not answer
            let patience = if work.is_late() { Duration::ZERO } else { PATIENCE };
            self.heard(file, patience).await.done();
        }
    }

    /// Nothing more is written: what is not committed by now is not, and a commit under way is waited for.
    pub(crate) async fn last_word(&self, until: Instant) {
        let Ok(mut file) = timeout_at(until, self.file.lock()).await else { return };
        for patience in [Duration::ZERO, until.saturating_duration_since(Instant::now())] {
            if matches!(&*file, File::Changing(_)) {
                self.heard(&mut file, patience).await.done();
            }
        }
    }

    async fn heard(&self, file: &mut File, patience: Duration) -> Outcome {
        let File::Changing(work) = file else { return Outcome::Undone(Vec::new()) };
        let word = timeout(patience, work.word()).await;
        // no await from here on, until it is counted
        if word.is_err() && work.is_in_doubt() {
            self.fails(&StoreError::Stalled(patience));
            return Outcome::Unknown;
        }
        let File::Changing(work) = std::mem::replace(file, File::Closed) else { unreachable!("it was, above") };
        let (outcome, error) = match word {
            Ok((store, result)) => {
                *file = File::Open(store, None);
                match result {
                    Ok(rows) => {
                        self.readable.store(true, Ordering::Relaxed);
                        self.say("");
                        return work.done(rows, &self.desk);
                    }
                    Err(error) => (work.undone(), error),
                }
            }
            Err(_) => (work.undone(), StoreError::Stalled(patience)),
        };
        self.failed(file, &error).await;
        outcome
    }
}
