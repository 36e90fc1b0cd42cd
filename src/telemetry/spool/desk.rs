//! Where each row of the spool is: waiting, on its way, or settled and to be removed. Never asks the file.
//!
//! The account changes under the same lock, so that it is exact whenever the file is counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::model::telemetry::Signal;
use crate::telemetry::config::Compression;
use crate::telemetry::queue::{Fate, Lent, Queue};
use crate::telemetry::sealed::Form;
use crate::telemetry::spool::store::{Slip, Total};

/// The rows of one file.
#[derive(Debug)]
pub(super) struct Desk {
    queues: [Arc<Queue>; Signal::ALL.len()],
    state: Mutex<State>,
    /// Rows are to be removed.
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    shelves: [Shelf; Signal::ALL.len()],
    /// Counts the files: rows of one that was set aside are nobody's any more.
    generation: u64,
}

#[derive(Debug, Default)]
struct Shelf {
    /// All rows up to this one were taken; some behind it may be on their way, too.
    after: i64,
    /// Taken, and given back.
    back: BTreeMap<i64, Slip>,
    /// On their way, with their items.
    out: BTreeMap<i64, u64>,
    /// Acknowledged or refused, and to be removed.
    settled: Vec<Slip>,
}

impl Desk {
    pub(super) fn new(queues: [Arc<Queue>; Signal::ALL.len()]) -> Self {
        Self { queues, state: Mutex::default(), settled: Notify::new() }
    }

    pub(super) fn queue(&self, signal: Signal) -> &Arc<Queue> {
        &self.queues[signal as usize]
    }

    /// Items that wait and are not on their way.
    pub(super) fn waiting(&self, signal: Signal) -> u64 {
        let state = self.state();
        let out: u64 = state.shelves[signal as usize].out.values().sum();
        self.queue(signal).on_disk().0.saturating_sub(out)
    }

    /// Items on disk, of all signals, on their way or not.
    pub(super) fn items(&self) -> u64 {
        self.queues.iter().map(|queue| queue.on_disk().0).sum()
    }

    /// The rows that came back, and the last one that was ever taken.
    pub(super) fn place(&self, signal: Signal) -> (Vec<Slip>, i64) {
        let state = self.state();
        let shelf = &state.shelves[signal as usize];
        (shelf.back.values().copied().collect(), shelf.after)
    }

    /// Leaves those that may be removed: neither on their way nor settled already.
    pub(super) fn retain_free(&self, signal: Signal, rows: &mut Vec<Slip>) {
        let state = self.state();
        let shelf = &state.shelves[signal as usize];
        rows.retain(|row| {
            !shelf.out.contains_key(&row.id) && !shelf.settled.iter().any(|settled| settled.id == row.id)
        });
    }

    /// These rows are on their way from now on.
    pub(super) fn lease(
        self: &Arc<Self>,
        signal: Signal,
        rows: Vec<Slip>,
        framed: Vec<u8>,
        limit: usize,
    ) -> SpoolLease {
        let raw_len = rows.iter().map(|row| row.raw_len).sum();
        let coding = rows.first().map_or(Compression::Zstd, |row| row.coding);
        let is_indivisible = rows.len() == 1 && (rows[0].items <= 1 || raw_len > limit);
        let mut state = self.state();
        let generation = state.generation;
        let shelf = &mut state.shelves[signal as usize];
        for row in &rows {
            shelf.out.insert(row.id, row.items);
            // one that came back may be far ahead of the others: it was on its way when it was written
            if shelf.back.remove(&row.id).is_none() {
                shelf.after = shelf.after.max(row.id);
            }
        }
        drop(state);
        let form = Form::of(framed, coding, raw_len);
        let sent = Sent { _lent: self.lend(signal, &form), form, is_indivisible };
        SpoolLease { desk: Arc::clone(self), signal, rows, sent, generation }
    }

    /// Counts what is sent for as long as it is held.
    pub(super) fn lend(&self, signal: Signal, form: &Form) -> Lent {
        self.queue(signal).lend(form.framed().len())
    }

    /// These were written while what they hold is on its way.
    pub(super) fn hold(self: &Arc<Self>, signal: Signal, rows: Vec<Slip>, sent: Sent) -> SpoolLease {
        let mut state = self.state();
        let generation = state.generation;
        state.shelves[signal as usize].out.extend(rows.iter().map(|row| (row.id, row.items)));
        drop(state);
        SpoolLease { desk: Arc::clone(self), signal, rows, sent, generation }
    }

    /// These were removed from the file without being sent.
    pub(super) fn gone(&self, signal: Signal, rows: &[Slip], fate: Fate) {
        let mut state = self.state();
        for row in rows {
            state.shelves[signal as usize].back.remove(&row.id);
        }
        self.settle(signal, rows, fate);
    }

    /// This one was replaced by others with the same items, of so many bytes.
    pub(super) fn cut(&self, signal: Signal, row: &Slip, bytes: u64) {
        self.state().shelves[signal as usize].back.remove(&row.id);
        self.queue(signal).was_rewritten(row.bytes, bytes);
    }

    /// Ends when rows are to be removed.
    pub(super) async fn settled(&self) {
        self.settled.notified().await;
    }

    /// The rows that are to be removed.
    pub(super) fn to_remove(&self) -> Vec<Slip> {
        self.state().shelves.iter().flat_map(|shelf| shelf.settled.iter().copied()).collect()
    }

    /// They are.
    pub(super) fn removed(&self, rows: &[Slip]) {
        for shelf in &mut self.state().shelves {
            shelf.settled.retain(|settled| !rows.iter().any(|row| row.id == settled.id));
        }
    }

    /// Another file: what was known of the rows of the last one is void.
    pub(super) fn new_file(&self) {
        let mut state = self.state();
        *state = State { generation: state.generation + 1, ..State::default() };
    }

    /// Brings the accounts in line with what the file holds, by signal.
    pub(super) fn reconcile(&self, totals: &[Total; Signal::ALL.len()]) {
        let state = self.state();
        for signal in Signal::ALL {
            let total = totals[signal as usize];
            // settled since the last removal: in the file, and not in the account
            let settled = &state.shelves[signal as usize].settled;
            let items: u64 = settled.iter().map(|row| row.items).sum();
            let bytes: u64 = settled.iter().map(|row| row.bytes).sum();
            self.queue(signal).reconcile(total.items.saturating_sub(items), total.bytes.saturating_sub(bytes));
        }
    }

    /// Only with the state in hand.
    fn settle(&self, signal: Signal, rows: &[Slip], fate: Fate) {
        let items = rows.iter().map(|row| row.items).sum();
        let bytes = rows.iter().map(|row| row.bytes).sum();
        self.queue(signal).left_disk(items, bytes, fate);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the desk")
    }
}

/// How rows are sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) form: Form,
    /// A smaller limit would not make it smaller.
    pub(super) is_indivisible: bool,
    pub(super) _lent: Lent,
}

/// Rows on their way. Dropped without being settled, they wait again.
#[derive(Debug)]
pub(crate) struct SpoolLease {
    desk: Arc<Desk>,
    signal: Signal,
    rows: Vec<Slip>,
    sent: Sent,
    generation: u64,
}

impl SpoolLease {
    /// What is sent.
    pub(crate) fn form(&self) -> &Form {
        &self.sent.form
    }

    /// Whether a smaller limit would not make it smaller.
    pub(crate) fn is_indivisible(&self) -> bool {
        self.sent.is_indivisible
    }

    /// Nobody needs these rows any more.
    pub(crate) fn settle(mut self, fate: Fate) {
        let rows = std::mem::take(&mut self.rows);
        let mut state = self.desk.state();
        if state.generation != self.generation {
            return; // counted when their file was set aside
        }
        self.desk.settle(self.signal, &rows, fate);
        let shelf = &mut state.shelves[self.signal as usize];
        for row in rows {
            shelf.out.remove(&row.id);
            shelf.settled.push(row);
        }
        drop(state);
        self.desk.settled.notify_one();
    }
}

impl Drop for SpoolLease {
    fn drop(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        let mut state = self.desk.state();
        if state.generation == self.generation {
            let shelf = &mut state.shelves[self.signal as usize];
            for row in self.rows.drain(..) {
                shelf.out.remove(&row.id);
                shelf.back.insert(row.id, row);
            }
        }
    }
}
