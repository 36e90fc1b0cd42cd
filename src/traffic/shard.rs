//! The counters of one worker thread.
//!
//! The worker alone writes, with plain loads and stores; readers see each count at once. Allocates for a new
//! series only, and waits for nobody.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};

use crate::model::request::{Method, RequestHead, RequestRecord, RequestSink};
use crate::redact::Redactor;
use crate::traffic::config::Config;
use crate::traffic::exemplars::Example;
use crate::traffic::index::Index;
use crate::traffic::recent::{Entry, Recent};
use crate::traffic::series::{Class, Series, SeriesKey, add};

/// Counts the requests of one worker. Belongs to its thread.
#[derive(Debug)]
pub struct Shard {
    cells: Arc<Cells>,
    index: Index,
    /// The series of the last request, which is often the next one's too.
    last: Option<(SeriesKey, usize)>,
    /// Failures that a reader was in the way of.
    waiting: Recent,
    exemplars: bool,
    redactor: Arc<Redactor>,
}

/// What a shard shares with its readers.
#[derive(Debug)]
pub(super) struct Cells {
    begun: [AtomicU64; Method::ALL.len()],
    ended: [AtomicU64; Method::ALL.len()],
    errors: AtomicU64,
    /// Odd from the last write of an answer until its end is counted.
    settling: AtomicU64,
    /// Grows at its end only: a series that is there stays.
    series: Box<[OnceLock<Box<Series>>]>,
    series_count: AtomicUsize,
    /// How many further series all shards together may have.
    budget: Arc<AtomicUsize>,
    failures: Mutex<Recent>,
}

/// The shared part of each worker's shard.
pub(super) fn cells(max_series: usize, workers: usize) -> Arc<[Arc<Cells>]> {
    let budget = Arc::new(AtomicUsize::new(max_series));
    (0..workers).map(|_| Arc::new(Cells::new(max_series, budget.clone()))).collect()
}

impl Shard {
    pub(super) fn new(cells: Arc<Cells>, config: &Config, redactor: Arc<Redactor>) -> Self {
        let exemplars = config.exemplars;
        Self { cells, index: Index::new(), last: None, waiting: Recent::new(), exemplars, redactor }
    }

    fn series_of(&mut self, record: &RequestRecord<'_>) -> usize {
        let key = SeriesKey::of(record);
        if let Some((last, place)) = self.last
            && last == key
        {
            return place;
        }
        let place = match self.index.find(key) {
            Some(place) => place,
            None if self.cells.take_budget() => self.enter(key, record),
            // not entered under its own key: an endless supply of keys must not grow anything
            None => match self.index.find(key.overflow()) {
                Some(place) => place,
                None => self.enter(key.overflow(), record),
            },
        };
        self.last = Some((key, place));
        place
    }

    fn enter(&mut self, key: SeriesKey, record: &RequestRecord<'_>) -> usize {
        let place = self.cells.series_count.load(Ordering::Relaxed);
        self.cells.series[place].get_or_init(|| Box::new(Series::new(key, record, &self.redactor)));
        self.cells.series_count.store(place + 1, Ordering::Release);
        self.index.enter(key, u32::try_from(place).unwrap_or(u32::MAX));
        place
    }

    /// Hands failures to the readers, unless one is reading just now: then they wait for the next occasion.
    fn publish_failures(&mut self) {
        let mut failures = match self.cells.failures.try_lock() {
            Ok(failures) => failures,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        failures.take_from(&mut self.waiting);
    }
}

impl RequestSink for Shard {
    fn begin(&mut self, head: &RequestHead) {
        add(&self.cells.begun[head.method as usize], 1);
    }

    fn last_write(&mut self) {
        let settling = self.cells.settling.load(Ordering::Relaxed);
        self.cells.settling.store(settling | 1, Ordering::Release);
    }

    fn not_yet(&mut self) {
        self.cells.settle();
    }

    fn end(&mut self, record: &RequestRecord<'_>) {
        let place = self.series_of(record);
        if let Some(series) = self.cells.series[place].get() {
            let nanos = u64::try_from(record.duration.as_nanos()).unwrap_or(u64::MAX);
            let example = if self.exemplars { Example::of(record, nanos) } else { None };
            series.record(nanos, [record.request_body_bytes, record.response_body_bytes], example);
        }
        if record.is_error() {
            add(&self.cells.errors, 1);
            self.waiting.push(Entry::of(record, place, self.cells.errors()));
            self.publish_failures();
        }
        let ended = &self.cells.ended[record.method as usize];
        // whoever sees the end sees the begin and the duration too
        ended.store(ended.load(Ordering::Relaxed) + 1, Ordering::Release);
        self.cells.settle();
    }

    fn tick(&mut self) {
        if !self.waiting.is_empty() {
            self.publish_failures();
        }
    }
}

impl Cells {
    fn new(max_series: usize, budget: Arc<AtomicUsize>) -> Self {
        Self {
            begun: Default::default(),
            ended: Default::default(),
            errors: AtomicU64::new(0),
            settling: AtomicU64::new(0),
            series: (0..max_series + Class::ALL.len()).map(|_| OnceLock::new()).collect(),
            series_count: AtomicUsize::new(0),
            budget,
            failures: Mutex::new(Recent::new()),
        }
    }

    /// Takes one series out of the budget; called for a new key only.
    fn take_budget(&self) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        self.budget.load(Ordering::Relaxed) > 0
            && self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn settle(&self) {
        let settling = self.settling.load(Ordering::Relaxed);
        if settling & 1 == 1 {
            self.settling.store(settling + 1, Ordering::Release);
        }
    }

    /// The number to hand to `has_settled`.
    pub(super) fn settling(&self) -> u64 {
        self.settling.load(Ordering::Acquire)
    }

    /// Whether what was being settled at `since` is counted.
    pub(super) fn has_settled(&self, since: u64) -> bool {
        since & 1 == 0 || self.settling() != since
    }

    /// Requests begun and ended, of one method.
    pub(super) fn begun_and_ended(&self, method: Method) -> (u64, u64) {
        // the end is read first: a request that ends meanwhile must not make the difference negative
        let ended = self.ended[method as usize].load(Ordering::Acquire);
        (self.begun[method as usize].load(Ordering::Relaxed), ended)
    }

    /// Ended requests that count as errors.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// All series, in the order in which they came.
    pub(super) fn series(&self) -> impl Iterator<Item = &Series> {
        let count = self.series_count.load(Ordering::Acquire);
        self.series[..count].iter().filter_map(|series| series.get().map(Box::as_ref))
    }

    /// The failures kept, oldest first, each with its series.
    pub(super) fn failures(&self) -> Vec<(Entry, Option<&Series>)> {
        let entries = self.failures.lock().unwrap_or_else(PoisonError::into_inner).entries();
        let with_series = |entry: Entry| (entry, self.series.get(entry.series).and_then(|s| s.get().map(Box::as_ref)));
        entries.into_iter().map(with_series).collect()
    }
}
