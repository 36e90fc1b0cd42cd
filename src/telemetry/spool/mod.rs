//! The spool: telemetry that waits on disk while the receiver is away, memory is short, or the process ends.
//!
//! Whole export requests, stored as they were compressed for the receiver and sent as stored. Bounded in bytes and age; the oldest go first, errors last.
//! A row goes after its acknowledgement: what was on its way when the process was killed is sent again. Nothing
//! depends on the disk: while it fails, telemetry waits in memory, and the log says so. Only what a commit holds that the disk has
//! not confirmed waits for its word, so that nothing is in both places.

mod changes;
mod desk;
pub(crate) mod keeper;
mod store;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::SetOnce;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::model::telemetry::Signal;
use crate::telemetry::config::{Compression, SpoolConfig};
use crate::telemetry::otlp;
use crate::telemetry::queue::{Lease, Queue};
use crate::telemetry::sealed::{Errors, Form, Part, Sealed};
use crate::telemetry::sender::compression::{self, Occasion, Press};
use crate::telemetry::sender::destination::Destinations;
use crate::wall_clock::since_epoch;

use desk::{Desk, Sent};
use store::{NewRow, Slip, Store, StoreError};
use work::{Change, Outcome, Work};

pub(crate) use desk::SpoolLease;

/// The longest that anything is in memory alone: what a killed process may lose, besides what its workers hold.
pub(crate) const EXPOSED: Duration = Duration::from_secs(1);
/// In the data folder.
const FILE: &str = "spool.db";
/// One request on disk, before compression; as large as the largest that is sent.
const ROW_BYTES: usize = 1 << 20;
/// In one transaction, before compression: the file's log grows to what it makes of them.
const TURN_BYTES: usize = 4 << 20;
/// Rows that one request may be made of: a quiet outage leaves one a second.
const ROWS_A_REQUEST: i64 = 64;
/// Rows that are looked at when some are too old, and first when room is made: a clock that jumped between two runs does not empty
/// the file at once.
const ROWS_A_LOOK: i64 = 256;
/// Rows that go at once at most: when what was written in small pieces makes room for large ones.
const ROWS_THAT_GO: i64 = 64 * ROWS_A_LOOK;
/// A disk that does not answer for so long is as good as none.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failure of the disk.
const PAUSE: Duration = Duration::from_secs(5);
/// The same while the process ends.
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// The share of each signal, in percent, by `Signal`: spans are most of it, and metrics are few.
const SHARES: [u64; Signal::ALL.len()] = [60, 8, 30, 2];

/// Telemetry on disk. One for the process, shared by the deliveries and by what fills it.
#[derive(Debug)]
pub(crate) struct Spool {
    /// Unknown until the folder is ours: another process may have it.
    path: SetOnce<PathBuf>,
    config: SpoolConfig,
    /// When it was made, by the clock of the machine, in milliseconds since the Unix epoch, and by the one that nobody sets.
    made: (i64, Instant),
    desk: Arc<Desk>,
    destinations: Destinations,
    press: Arc<Press>,
    file: tokio::sync::Mutex<File>,
    /// Rows can be read at present.
    readable: AtomicBool,
    /// The process ends: what fails is tried again soon.
    hurries: AtomicBool,
    errors: AtomicU64,
    /// What was said last of the disk, so that a line is written once; empty while it works.
    said: Mutex<String>,
}

#[derive(Debug)]
enum File {
    /// Not made before it is needed.
    Closed,
    /// With the instant at which it could not be written: not before a pause again.
    Open(Store, Option<Instant>),
    /// A transaction has it.
    Changing(Work),
    /// Could not be used then: not before a pause again.
    Failed(Instant),
}

impl Spool {
    /// Opens nothing yet; `None` when it is switched off.
    pub(crate) fn new(
        config: &SpoolConfig,
        queues: &[Arc<Queue>; Signal::ALL.len()],
        destinations: &Destinations,
        press: &Arc<Press>,
    ) -> Option<Self> {
        if !config.enabled {
            return None;
        }
        let (desk, file) = (Arc::new(Desk::new(queues.clone())), tokio::sync::Mutex::new(File::Closed));
        let (readable, hurries, errors) = Default::default();
        Some(Self {
            path: SetOnce::new(),
            config: config.clone(),
            made: (unix_ms(), Instant::now()),
            desk,
            destinations: destinations.clone(),
            press: Arc::clone(press),
            file,
            readable,
            hurries,
            errors,
            said: Mutex::default(),
        })
    }

    /// Keeps in this folder from now on; for good.
    pub(crate) fn keep_in(&self, folder: &Path) {
        let _ = self.path.set(folder.join(FILE)); // it was told already
    }

    /// Whether there is a folder.
    pub(crate) fn has_place(&self) -> bool {
        self.path.initialized()
    }

    /// Where the file is, once there is a folder.
    fn path(&self) -> &Path {
        self.path.get().map_or(Path::new(FILE), PathBuf::as_path)
    }

    /// Ends when there is one.
    pub(crate) async fn placed(&self) {
        self.path.wait().await;
    }

    /// Reads what an earlier process left in the folder, if it left anything.
    pub(crate) async fn recover(&self) {
        let path = self.path();
        let mut file = self.file.lock().await;
        if path.exists() && self.open(&mut file).await.is_some() {
            let items = self.desk.items();
            if items > 0 {
                info!(items, path = %path.display(), "telemetry that an earlier process left is delivered now");
            }
        }
    }

    /// Items of a signal that wait, can be read, and are not on their way.
    pub(crate) fn waiting(&self, signal: Signal) -> u64 {
        if self.readable.load(Ordering::Relaxed) { self.desk.waiting(signal) } else { 0 }
    }

    /// Failures of the disk since the start.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Writes what waits in memory, oldest first, until at most `rest` bytes of a signal are left there. Ends early when the
    /// disk fails; what it did not take stays in memory.
    pub(crate) async fn keep(&self, signal: Signal, rest: usize) {
        let queue = self.desk.queue(signal);
        while self.has_place() {
            let mut leases = Vec::new();
            let mut bytes = 0;
            while bytes < TURN_BYTES && queue.waiting_bytes() > rest {
                let Some(lease) = queue.lease(ROW_BYTES) else { break };
                bytes += lease.raw_len();
                leases.push(lease);
            }
            if leases.is_empty() {
                return;
            }
            let mut file = self.file.lock().await;
            if !self.write(&mut file, signal, leases).await.done() {
                return;
            }
        }
    }

    /// Writes a request that is on its way: a receiver that is silent holds nothing that is in memory alone. Gives it back when
    /// it cannot; when the disk does not say whether it has it, `None`: it is the disk's, and sent again.
    pub(crate) async fn hold(&self, signal: Signal, form: &Form, lease: Lease) -> Result<SpoolLease, Option<Lease>> {
        let is_indivisible = lease.is_indivisible();
        let mut file = self.file.lock().await;
        match self.write(&mut file, signal, vec![lease]).await {
            Outcome::Done(rows) => {
                let sent = Sent { _lent: self.desk.lend(signal, form), form: form.clone(), is_indivisible };
                Ok(self.desk.hold(signal, rows, sent))
            }
            Outcome::Undone(mut leases) => Err(leases.pop()),
            Outcome::Unknown => Err(None),
        }
    }

    /// The coding in which what was never compressed is stored: that of the receiver, or zstd when it wants none.
    fn coding(&self, signal: Signal) -> Compression {
        let wanted = self.destinations[signal as usize].as_ref().map(|destination| destination.compression());
        wanted.filter(|coding| *coding != Compression::None).unwrap_or(Compression::Zstd)
    }

    /// Writes leased requests as rows, or gives them back.
    async fn write(&self, file: &mut File, signal: Signal, mut leases: Vec<Lease>) -> Outcome {
        let Some(store) = self.writable(file).await else { return Outcome::Undone(leases) };
        let made = async {
            let mut rows = Vec::with_capacity(leases.len());
            for lease in &mut leases {
                let coding = lease.coding().filter(|coding| *coding != Compression::None);
                let sealed = lease.seal(coding.unwrap_or_else(|| self.coding(signal)), &self.press)?;
                rows.extend(rows_of(signal, &sealed, self.now_ms()));
                tokio::task::yield_now().await; // a MiB takes milliseconds
            }
            let bytes = rows.iter().map(|row| row.body.len() as u64).sum();
            let gone = self.worth_least(store, signal, bytes).await?;
            Ok((rows, bytes, gone))
        };
        match made.await {
            Ok((rows, bytes, gone)) => self.change(file, Change::Keep { signal, leases, bytes, gone }, rows).await,
            Err(error) => {
                self.failed(file, &error).await;
                Outcome::Undone(leases)
            }
        }
    }

    /// The rows that must go so that so many bytes find room.
    async fn worth_least(&self, store: &mut Store, signal: Signal, bytes: u64) -> Result<Vec<Slip>, StoreError> {
        let share = self.config.bytes / 100 * SHARES[signal as usize];
        let excess = (self.desk.queue(signal).on_disk().1 + bytes).saturating_sub(share);
        if excess == 0 {
            return Ok(Vec::new());
        }
        let mut look = ROWS_A_LOOK;
        loop {
            let mut rows = within(store.least_worth(signal, look)).await?;
            let are_all = i64::try_from(rows.len()).unwrap_or(i64::MAX) < look;
            self.desk.retain_free(signal, &mut rows);
            let mut missing = excess;
            rows.retain(|row| {
                let goes = missing > 0;
                missing = missing.saturating_sub(row.bytes);
                goes
            });
            if missing == 0 || are_all || look >= ROWS_THAT_GO {
                return Ok(rows);
            }
            look *= 4;
        }
    }

    /// Takes the oldest rows, at most `goal` bytes of them before compression; more only when a single row is larger, which is
    /// cut when the receiver does not take as much.
    pub(crate) async fn lease(&self, signal: Signal, goal: usize) -> Option<SpoolLease> {
        let mut file = self.file.lock().await;
        match self.take(&mut file, signal, goal).await {
            Ok(lease) => lease,
            Err(error) => {
                self.failed(&mut file, &error).await;
                None
            }
        }
    }

    async fn take(&self, file: &mut File, signal: Signal, goal: usize) -> Result<Option<SpoolLease>, StoreError> {
        let limit = self.desk.queue(signal).limit();
        loop {
            let Some(store) = self.open(file).await else { return Ok(None) };
            let rows = self.choose(store, signal, goal).await?;
            let Some(first) = rows.first() else { return Ok(None) };
            if let Some((change, parts)) = self.parts(store, signal, first, limit).await? {
                if !self.change(file, change, parts).await.done() {
                    return Ok(None);
                }
                continue; // its parts are smaller, and behind it
            }
            let mut framed = compression::empty_frame();
            for row in &rows {
                within(store.body(row.id, &mut framed)).await?;
            }
            return Ok(Some(self.desk.lease(signal, rows, framed, limit)));
        }
    }

    /// Which rows go next: those that came back, else those behind the last, as far as they are in one coding.
    async fn choose(&self, store: &mut Store, signal: Signal, goal: usize) -> Result<Vec<Slip>, StoreError> {
        let (mut rows, after) = self.desk.place(signal);
        if rows.is_empty() {
            rows = within(store.next(signal, after, ROWS_A_REQUEST)).await?;
            self.desk.retain_free(signal, &mut rows);
        }
        let (mut bytes, mut first) = (0, None);
        let together = if signal.joins() { goal } else { 0 };
        rows.retain(|row| {
            let is_first = first.is_none();
            bytes += row.raw_len;
            let is_alike = *first.get_or_insert(row.coding) == row.coding && row.coding.joins_from_disk();
            is_first || (is_alike && bytes <= together)
        });
        Ok(rows)
    }

    /// Several rows that the receiver will take, instead of one that is larger than the limit; `None` when it is not, or has no
    /// parts.
    async fn parts(
        &self,
        store: &mut Store,
        signal: Signal,
        row: &Slip,
        limit: usize,
    ) -> Result<Option<(Change, Vec<NewRow>)>, StoreError> {
        if row.raw_len <= limit || row.items <= 1 {
            return Ok(None);
        }
        let mut body = Vec::new();
        within(store.body(row.id, &mut body)).await?;
        let Ok(raw) = compression::expanded(&body, row.coding, row.raw_len) else { return Ok(None) };
        let Some(parts) = otlp::split(signal, &raw, limit).ok().filter(|parts| parts.len() > 1) else {
            return Ok(None);
        };
        let mut rows = Vec::with_capacity(parts.len());
        for part in &parts {
            let whole = (&part.body[..], part.items, Errors::Unknown);
            let sealed = Sealed::new(signal, whole, row.coding, (&self.press, Occasion::Halved))?;
            rows.extend(rows_of(signal, &sealed, row.created_ms)); // what tells of errors still goes last
        }
        let bytes = rows.iter().map(|row| row.body.len() as u64).sum();
        Ok(Some((Change::Cut(signal, *row, bytes), rows)))
    }

    /// Removes rows that were settled and those that are too old, and gives the disk back what an empty file holds.
    pub(crate) async fn sweep(&self) {
        let mut file = self.file.lock().await;
        if matches!(&*file, File::Closed) {
            return;
        }
        if let Err(error) = self.sweep_in(&mut file).await {
            self.failed(&mut file, &error).await;
        }
    }

    async fn sweep_in(&self, file: &mut File) -> Result<(), StoreError> {
        if self.writable(file).await.is_none() {
            return Ok(());
        }
        let settled = self.desk.to_remove();
        if !settled.is_empty() && !self.change(file, Change::Remove(settled), Vec::new()).await.done() {
            return Ok(());
        }
        let then = self.now_ms().saturating_sub(i64::try_from(self.config.age.as_millis()).unwrap_or(i64::MAX));
        for signal in Signal::ALL {
            let queue = self.desk.queue(signal);
            if queue.on_disk().0 == 0 {
                queue.oldest_on_disk(None);
                continue;
            }
            let Some(store) = self.writable(file).await else { return Ok(()) };
            let oldest = within(store.next(signal, 0, 1)).await?;
            queue.oldest_on_disk(oldest.first().map(|row| self.age(row)));
            let mut old = within(store.before(signal, then, ROWS_A_LOOK)).await?;
            self.desk.retain_free(signal, &mut old);
            if !old.is_empty() && !self.change(file, Change::Expire(signal, old), Vec::new()).await.done() {
                return Ok(());
            }
        }
        let Some(store) = self.writable(file).await else { return Ok(()) };
        match store.residue() {
            Some(_) if self.desk.items() == 0 => within(store.shrink()).await?,
            // not after each row: it waits for the disk
            Some(since) if since.elapsed() >= EXPOSED => within(store.wipe()).await?,
            _ => {}
        }
        self.say("");
        Ok(())
    }

    /// Whether the pause after a failure is over.
    fn is_over(&self, since: Instant) -> bool {
        since.elapsed() >= if self.hurries() { LAST_PAUSE } else { PAUSE }
    }

    /// Whether the process ends.
    fn hurries(&self) -> bool {
        self.hurries.load(Ordering::Relaxed)
    }

    /// Ends it: what is committed is safe, and the next process finds it.
    async fn close(&self) {
        self.sweep().await;
        let mut file = self.file.lock().await;
        match std::mem::replace(&mut *file, File::Closed) {
            // its log is read at the next start, too
            File::Open(store, _) => drop(timeout(PATIENCE, store.close()).await),
            File::Changing(work) => *file = File::Changing(work),
            File::Closed | File::Failed(_) => {}
        }
    }

    /// The open file, unless it refused to be written a moment ago.
    async fn writable<'f>(&self, file: &'f mut File) -> Option<&'f mut Store> {
        self.hear(file).await;
        if matches!(&*file, File::Open(_, Some(since)) if !self.is_over(*since)) {
            return None;
        }
        self.open(file).await
    }

    /// The open file; opens or makes it if need be, and brings the account in line with what it holds.
    async fn open<'f>(&self, file: &'f mut File) -> Option<&'f mut Store> {
        self.hear(file).await;
        let may_open = match file {
            File::Open(..) | File::Changing(_) => false,
            File::Closed => self.has_place(),
            File::Failed(since) => self.is_over(*since),
        };
        if may_open {
            match self.opened().await {
                Ok(store) => *file = File::Open(store, None),
                Err(error) => self.failed(file, &error).await,
            }
        }
        match file {
            File::Open(store, _) => Some(store),
            _ => None,
        }
    }

    async fn opened(&self) -> Result<Store, StoreError> {
        let (store, totals) = match within(Store::open(self.path())).await {
            Err(error) if error.is_damage() => {
                self.set_aside(&error)?;
                within(Store::open(self.path())).await?
            }
            other => other?,
        };
        self.desk.reconcile(&totals);
        self.readable.store(true, Ordering::Relaxed);
        if let Some(version) = store.migrated_from() {
            info!(path = %self.path().display(), found = version, "the spool of an earlier version is taken over");
        }
        Ok(store)
    }

    /// Moves a file that is damaged or not ours out of the way of a new one; what was known of it is counted as lost.
    fn set_aside(&self, error: &StoreError) -> io::Result<()> {
        let aside = store::set_aside(self.path(), error)?;
        self.desk.new_file();
        let (path, aside) = (self.path().display(), aside.display());
        warn!(%path, %error, %aside, "the spool cannot be read: it is kept under another name, and a new one is made");
        Ok(())
    }

    /// The disk failed. What it holds can still be read when it is only full; else the file is closed and opened again
    /// later, and set aside if it is damaged.
    async fn failed(&self, file: &mut File, error: &StoreError) {
        self.fails(error);
        let since = Instant::now();
        match std::mem::replace(file, File::Failed(since)) {
            File::Open(mut store, _) if error.is_lack_of_room() => {
                let _ = within(store.shrink()).await; // what its log holds twice is room; without success nothing is worse
                *file = File::Open(store, Some(since));
                self.readable.store(true, Ordering::Relaxed);
            }
            File::Open(store, _) => {
                if !matches!(error, StoreError::Stalled(_)) {
                    let _ = timeout(PATIENCE, store.close()).await;
                }
                if error.is_damage() && self.set_aside(error).is_ok() {
                    self.desk.reconcile(&Default::default());
                    *file = File::Closed;
                }
            }
            File::Changing(work) => *file = File::Changing(work),
            File::Closed | File::Failed(_) => {}
        }
    }

    /// Counts and tells a failure.
    fn fails(&self, error: &StoreError) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.readable.store(false, Ordering::Relaxed);
        self.say(&error.to_string());
    }

    /// Milliseconds since the Unix epoch, as the machine's clock would go on from when this was made: one that is set ahead
    /// meanwhile makes nothing too old.
    fn now_ms(&self) -> i64 {
        let (then, since) = self.made;
        then.saturating_add(i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    /// How long a row has waited; one from a time that is yet to come, by a clock that was set back between two runs, not at all.
    fn age(&self, row: &Slip) -> Duration {
        Duration::from_millis(u64::try_from(self.now_ms().saturating_sub(row.created_ms)).unwrap_or_default())
    }

    /// Tells of the disk, once for each change.
    fn say(&self, failure: &str) {
        let mut said = self.said.lock().expect("no code panics while it holds the text");
        if *said == failure {
            return;
        }
        failure.clone_into(&mut said);
        drop(said);
        let path = self.path().display();
        if failure.is_empty() {
            info!(%path, "the spool is written again");
        } else {
            warn!(%path, reason = failure, "the spool fails: telemetry stays in memory, and the disk is tried again");
        }
    }
}

/// The rows of a batch: what tells of errors apart, as it goes last.
fn rows_of(signal: Signal, sealed: &Sealed, created_ms: i64) -> Vec<NewRow> {
    let coding = sealed.form().coding();
    let row = |(part, body): (Part, Bytes)| NewRow {
        signal,
        worth: part.worth,
        created_ms,
        items: part.items,
        raw_len: part.raw_len,
        coding,
        body,
    };
    sealed.parts().map(row).collect()
}

async fn within<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(PATIENCE, work).await.unwrap_or(Err(StoreError::Stalled(PATIENCE)))
}

fn unix_ms() -> i64 {
    let since = since_epoch();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
