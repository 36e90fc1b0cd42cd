//! A change of the spool's file that is under way: a transaction, and what it means for the account.
//!
//! SQLite writes on a thread of its own, which goes on when nobody waits for it any more. So a change whose commit was sent is
//! never let go: until its outcome is known its requests stay leased and its rows are where they were, and then whoever hears of
//! it counts. Before its commit it may be let go: what nobody commits is not in the file.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::telemetry::{DropReason, Signal};
use crate::telemetry::queue::{Fate, Lease};
use crate::telemetry::spool::desk::Desk;
use crate::telemetry::spool::store::{NewRow, Slip, Store, StoreError};

/// What is changed.
#[derive(Debug)]
pub(super) enum Change {
    /// Leased requests become rows, of so many bytes; some rows make room for them.
    Keep { signal: Signal, leases: Vec<Lease>, bytes: u64, gone: Vec<Slip> },
    /// What was settled goes.
    Remove(Vec<Slip>),
    /// What is too old goes.
    Expire(Signal, Vec<Slip>),
    /// A row is replaced by its parts, of so many bytes.
    Cut(Signal, Slip, u64),
}

impl Change {
    /// The rows that go.
    fn gone(&self) -> &[Slip] {
        match self {
            Self::Keep { gone, .. } => gone,
            Self::Remove(rows) | Self::Expire(_, rows) => rows,
            Self::Cut(_, row, _) => std::slice::from_ref(row),
        }
    }

    /// It is in the file.
    fn done(self, desk: &Desk) {
        match self {
            Self::Keep { signal, leases, bytes, gone } => {
                leases.into_iter().for_each(Lease::spooled);
                desk.queue(signal).came_to_disk(bytes);
                desk.gone(signal, &gone, Fate::Dropped(DropReason::SpoolFull));
            }
            Self::Remove(rows) => desk.removed(&rows),
            Self::Expire(signal, rows) => desk.gone(signal, &rows, Fate::Dropped(DropReason::TooOld)),
            Self::Cut(signal, row, bytes) => desk.cut(signal, &row, bytes),
        }
    }

    /// It is not in the file, and never will be.
    fn undone(self) -> Outcome {
        Outcome::Undone(if let Self::Keep { leases, .. } = self { leases } else { Vec::new() })
    }
}

/// What became of a change.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The file has it, with these new rows.
    Done(Vec<Slip>),
    /// The file does not have it, and what it would have had is given back.
    Undone(Vec<Lease>),
    /// The disk was told to commit it, and has not said that it did.
    Unknown,
}

impl Outcome {
    /// Whether the file has it. What it does not have waits again, each request at the front, in their order.
    pub(super) fn done(self) -> bool {
        match self {
            Self::Done(_) => true,
            Self::Undone(leases) => {
                leases.into_iter().rev().for_each(drop);
                false
            }
            Self::Unknown => false,
        }
    }
}

/// What the file's thread says in the end, with the file.
type Word = (Store, Result<Vec<Slip>, StoreError>);

/// A transaction under way.
pub(super) struct Work {
    word: Pin<Box<dyn Future<Output = Word> + Send>>,
    change: Change,
    /// The commit was sent.
    commits: Arc<AtomicBool>,
    /// Somebody has waited for it, and gave up.
    is_late: bool,
}

impl Work {
    /// Writes rows, and removes those that go.
    pub(super) fn begin(mut store: Store, change: Change, rows: Vec<NewRow>) -> Self {
        let commits = Arc::new(AtomicBool::new(false));
        let (gone, sent) = (change.gone().to_vec(), Arc::clone(&commits));
        let word = Box::pin(async move {
            let result = store.replace(&gone, &rows, &sent).await;
            (store, result)
        });
        Self { word, change, commits, is_late: false }
    }

    /// Waits for the outcome; not to be asked again once it is known.
    pub(super) async fn word(&mut self) -> Word {
        self.word.as_mut().await
    }

    /// Nobody waits for it now: the same again, as long as it may still be committed.
    pub(super) fn is_in_doubt(&mut self) -> bool {
        self.is_late = true;
        self.commits.load(Ordering::Relaxed)
    }

    pub(super) fn is_late(&self) -> bool {
        self.is_late
    }

    /// Counts what is known now; the rows are those that were written.
    pub(super) fn done(self, rows: Vec<Slip>, desk: &Desk) -> Outcome {
        self.change.done(desk);
        Outcome::Done(rows)
    }

    /// It failed, or is let go before its commit.
    pub(super) fn undone(self) -> Outcome {
        self.change.undone()
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Work").field("change", &self.change).finish_non_exhaustive()
    }
}
