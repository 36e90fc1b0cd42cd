//! The account and the file agree, wherever whoever waits for the disk gives up.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use proptest::prelude::*;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::model::telemetry::{Account, DropReason};
use crate::telemetry::otlp::Request;
use crate::telemetry::queue::Fate;

const SIGNAL: Signal = Signal::Logs;
const INFO: u8 = 9;
const ERROR: u8 = 17;
/// So small that the oldest are dropped, here and there.
const IN_MEMORY: usize = 3_000;
const ON_DISK: u64 = 5_000;
const AGE: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(30);

/// What one process has: its queue, and the spool in a folder that may have been another's.
struct Process {
    queue: Arc<Queue>,
    spool: Spool,
    /// What came in here, and what the last one left.
    produced: u64,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let queues = Signal::ALL.map(|signal| Arc::new(Queue::new(signal, IN_MEMORY, 64 << 10)));
        let config = SpoolConfig { enabled: true, bytes: ON_DISK, age: AGE };
        let spool = Spool::new(&config, &queues, &Destinations::default(), &Arc::default()).expect("it is enabled");
        spool.keep_in(folder);
        Self { queue: Arc::clone(&queues[SIGNAL as usize]), spool, produced: 0 }
    }

    fn push(&mut self, severities: &[u8]) {
        self.queue.push(logs(severities).into());
        self.produced += severities.len() as u64;
    }

    /// The account, which must be balanced, and nothing in it twice.
    fn account(&self) -> Account {
        let account = self.queue.account();
        let ends = account.delivered + account.rejected + account.dropped.iter().sum::<u64>();
        assert_eq!(account.produced, ends + account.queued + account.spooled, "{account:?}");
        assert_eq!(account.produced, self.produced, "{account:?}");
        account
    }

    /// What is in the file is what the account says, and what was settled and not removed yet.
    async fn check(&self) {
        let account = self.account();
        if let File::Open(store, _) = &mut *self.spool.file.lock().await {
            let rows = store.next(SIGNAL, 0, i64::MAX).await.expect("it can be read");
            let items: u64 = rows.iter().map(|row| row.items).sum();
            assert_eq!(items, account.spooled + self.settled(), "{account:?}");
        }
    }

    /// On disk, and nobody's any more.
    fn settled(&self) -> u64 {
        self.spool.desk.to_remove().iter().map(|row| row.items).sum()
    }

    /// Nothing fails so recently that it would not be tried again.
    async fn forgives(&self) {
        match &mut *self.spool.file.lock().await {
            File::Open(_, since) => *since = None,
            file @ File::Failed(_) => *file = File::Closed,
            File::Changing(_) | File::Closed => {}
        }
    }

    /// The file, closed and free for somebody else.
    async fn closed(&self) -> &Path {
        let mut file = self.spool.file.lock().await;
        self.spool.hear(&mut file).await;
        if let File::Open(store, _) = std::mem::replace(&mut *file, File::Closed) {
            store.close().await;
        }
        self.spool.readable.store(false, Ordering::Relaxed);
        self.spool.path()
    }

    /// Opens the file, however long a thread that nobody waits for still has it.
    async fn opens(&self) {
        let until = Instant::now() + SOON;
        while self.spool.path().exists() && !self.spool.readable.load(Ordering::Relaxed) {
            assert!(Instant::now() < until, "the file cannot be opened");
            self.forgives().await;
            self.spool.recover().await;
            tokio::task::yield_now().await;
        }
    }

    /// From now on each row brings so much with it that its commit takes a while: the file's log is copied in it.
    async fn slow(&self) {
        let url = format!("sqlite://{}", self.closed().await.display());
        let mut other = SqliteConnection::connect(&url).await.expect("it is there");
        let slow = "CREATE TABLE ballast (noise BLOB); \
                    CREATE TRIGGER slow AFTER INSERT ON spool BEGIN INSERT INTO ballast VALUES (randomblob(16777216)); END";
        sqlx::raw_sql(slow).execute(&mut other).await.expect("it is ours");
        other.close().await.expect("it closes");
        self.opens().await;
    }

    /// As the process ends, with a deadline that is over after so many turns. Gives what the next one must find.
    async fn end(self, wakes: usize) -> u64 {
        cut_after(wakes, async {
            self.spool.keep(SIGNAL, 0).await;
            self.spool.close().await;
        })
        .await;
        self.spool.last_word(Instant::now() + SOON).await;
        self.queue.drop_waiting(DropReason::Shutdown);
        self.check().await;
        let account = self.account();
        assert_eq!(account.queued, 0, "{account:?}");
        account.spooled + self.settled()
    }

    /// Reads what the last process left.
    async fn recovers(&mut self) -> u64 {
        self.opens().await;
        self.produced = self.queue.account().spooled;
        self.produced
    }
}

/// A request of log records of these severities, of some hundred bytes each that no compression makes smaller.
fn logs(severities: &[u8]) -> Request {
    let mut records = Vec::new();
    for severity in severities {
        let noise: Vec<u8> = (0..100).map(|_| fastrand::u8(..)).collect();
        records.extend([&[0x12, 104, 0x10, *severity, 0x4a, 100][..], &noise].concat());
    }
    Request { items: severities.len() as u64, body: otlp::request(b"", b"", &records) }
}

/// Lets go of the work when it has been woken so many times: it may be anywhere, as when a deadline is over.
async fn cut_after<T>(mut wakes: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if wakes == 0 => Poll::Ready(None),
        Poll::Pending => {
            wakes -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test]
async fn what_is_cut_short_at_the_end_is_dropped_or_on_disk_and_never_both() {
    for wakes in (0..40).flat_map(|wakes| [wakes; 3]) {
        let folder = TempDir::new().expect("a folder");
        let mut last = Process::start(folder.path());
        last.push(&[INFO, ERROR, INFO]);
        let left = last.end(wakes).await;
        assert_eq!(Process::start(folder.path()).recovers().await, left, "cut short after {wakes} turns");
    }
}

#[tokio::test]
async fn a_commit_that_was_sent_and_not_confirmed_is_neither_counted_nor_given_back_before_its_word() {
    let until = Instant::now() + SOON;
    for wakes in (0..40).cycle() {
        assert!(Instant::now() < until, "no commit was ever in doubt");
        let folder = TempDir::new().expect("a folder");
        let mut process = Process::start(folder.path());
        process.push(&[INFO]);
        process.spool.keep(SIGNAL, 0).await;
        process.slow().await;
        process.push(&[INFO; 3]);
        cut_after(wakes, process.spool.keep(SIGNAL, 0)).await;
        let mut file = process.spool.file.lock().await;
        let File::Changing(work) = &mut *file else { continue };
        if !work.is_in_doubt() {
            continue;
        }
        process.spool.hear(&mut file).await; // one look, because nobody waits for it any more
        if matches!(&*file, File::Open(..)) {
            continue; // it was quick
        }
        assert!(matches!(&*file, File::Changing(_)), "it was let go: {file:?}");
        drop(file);
        let account = process.account();
        assert_eq!((account.queued, account.spooled), (3, 1), "nobody knows yet");
        assert!(process.queue.lease(1 << 10).is_none(), "what may be on disk is not sent from memory");
        process.spool.last_word(until).await;
        let account = process.account();
        assert_eq!((account.queued, account.spooled), (0, 4), "now it is known");
        return;
    }
}

/// What a receiver says.
#[derive(Clone, Copy, Debug)]
enum Said {
    Yes { rejected: u64 },
    No,
    Later,
    TooLarge,
}

#[derive(Clone, Debug)]
enum Step {
    Push(Vec<u8>),
    Keep {
        wakes: usize,
    },
    /// A request is on its way from memory.
    Take,
    /// One from disk is.
    TakeFromDisk {
        goal: usize,
        wakes: usize,
    },
    /// The last one that is on its way goes to the disk, if it was in memory.
    Hold {
        wakes: usize,
    },
    /// The first one that is on its way is answered.
    Answer(Said),
    Sweep {
        wakes: usize,
    },
    /// All that waits is too old.
    Age,
    /// The disk has room for so many rows.
    Room(u32),
    /// Something writes over the file.
    Damage,
    /// The process ends and another one begins so long after it, which may find all too old.
    Restart {
        wakes: usize,
        pause: Duration,
    },
}

/// A request that is on its way.
enum Sending {
    Memory(Lease),
    Disk(SpoolLease),
}

/// What goes on beside one spool.
struct Course {
    folder: TempDir,
    process: Process,
    sending: Vec<Sending>,
    /// By which the clock of the process is ahead.
    ahead_ms: i64,
}

impl Course {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let process = Process::start(folder.path());
        Self { folder, process, sending: Vec::new(), ahead_ms: 0 }
    }

    async fn step(&mut self, step: Step) {
        let (queue, spool) = (&self.process.queue, &self.process.spool);
        match step {
            Step::Push(severities) => self.process.push(&severities),
            Step::Keep { wakes } => drop(cut_after(wakes, spool.keep(SIGNAL, 0)).await),
            Step::Take => self.sending.extend(queue.lease(1 << 10).map(Sending::Memory)),
            Step::TakeFromDisk { goal, wakes } => {
                let lease = cut_after(wakes, spool.lease(SIGNAL, goal)).await.flatten();
                self.sending.extend(lease.map(Sending::Disk));
            }
            Step::Hold { wakes } => {
                let held = match self.sending.pop() {
                    Some(Sending::Memory(mut lease)) => {
                        let form = lease.seal(Compression::Zstd, &spool.press).expect("memory").form().clone();
                        match cut_after(wakes, spool.hold(SIGNAL, &form, lease)).await {
                            Some(Ok(lease)) => Some(Sending::Disk(lease)),
                            Some(Err(lease)) => lease.map(Sending::Memory),
                            None => None,
                        }
                    }
                    other => other,
                };
                self.sending.extend(held);
            }
            Step::Answer(said) if !self.sending.is_empty() => answer(self.sending.remove(0), queue, said),
            Step::Answer(_) => {}
            Step::Sweep { wakes } => drop(cut_after(wakes, spool.sweep()).await),
            Step::Age => self.grow_old(2 * AGE),
            Step::Room(rows) => self.room(rows).await,
            Step::Damage => {
                let path = self.process.closed().await;
                if path.exists() {
                    std::fs::write(path, [b'x'; 4_096]).expect("it is ours");
                }
                self.process.opens().await; // what it knew is lost; a later process could not tell
            }
            Step::Restart { wakes, pause } => self.restart(wakes, pause).await,
        }
        self.process.forgives().await;
        self.process.check().await;
    }

    async fn room(&self, rows: u32) {
        let path = self.process.closed().await;
        let url = format!("sqlite://{}", path.display());
        let Ok(mut other) = SqliteConnection::connect(&url).await else { return };
        let refuse = format!(
            "DROP TRIGGER IF EXISTS room; \
             CREATE TRIGGER room BEFORE INSERT ON spool WHEN (SELECT count(*) FROM spool) >= {rows} \
             BEGIN SELECT RAISE(ABORT, 'no room'); END"
        );
        let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(&mut other).await; // there may be no table, or no file of SQLite
        other.close().await.expect("it closes");
    }

    fn grow_old(&mut self, time: Duration) {
        let ahead_ms = i64::try_from(time.as_millis()).expect("it is small");
        self.ahead_ms += ahead_ms;
        self.process.spool.made.0 += ahead_ms;
    }

    async fn restart(&mut self, wakes: usize, pause: Duration) {
        self.sending.clear();
        let next = Process::start(self.folder.path());
        let left = std::mem::replace(&mut self.process, next).end(wakes).await;
        self.process.spool.made.0 += self.ahead_ms;
        self.grow_old(pause);
        assert_eq!(self.process.recovers().await, left);
    }
}

fn answer(sending: Sending, queue: &Queue, said: Said) {
    let (is_indivisible, raw_len) = match &sending {
        Sending::Memory(lease) => (lease.is_indivisible(), lease.raw_len()),
        Sending::Disk(lease) => (lease.is_indivisible(), lease.form().raw_len()),
    };
    let fate = match said {
        Said::Yes { rejected } => Fate::Delivered { rejected },
        Said::No => Fate::Dropped(DropReason::Permanent),
        Said::TooLarge if is_indivisible => Fate::Dropped(DropReason::TooLarge),
        Said::TooLarge => return queue.shrink_limit(raw_len / 2),
        Said::Later => return,
    };
    match sending {
        Sending::Memory(lease) => lease.settle(fate),
        Sending::Disk(lease) => lease.settle(fate),
    }
}

/// Some are let go in the middle, most run to their end.
fn wakes() -> impl Strategy<Value = usize> {
    prop_oneof![0..30_usize, Just(usize::MAX)]
}

fn step() -> impl Strategy<Value = Step> {
    let said = prop_oneof![
        4 => (0..3_u64).prop_map(|rejected| Said::Yes { rejected }),
        1 => Just(Said::No),
        3 => Just(Said::Later),
        1 => Just(Said::TooLarge),
    ];
    let severity = prop_oneof![3 => Just(INFO), 1 => Just(ERROR)];
    prop_oneof![
        8 => proptest::collection::vec(severity, 1..8).prop_map(Step::Push),
        6 => wakes().prop_map(|wakes| Step::Keep { wakes }),
        3 => Just(Step::Take),
        5 => (100..2_000_usize, wakes()).prop_map(|(goal, wakes)| Step::TakeFromDisk { goal, wakes }),
        4 => wakes().prop_map(|wakes| Step::Hold { wakes }),
        6 => said.prop_map(Step::Answer),
        4 => wakes().prop_map(|wakes| Step::Sweep { wakes }),
        1 => Just(Step::Age),
        1 => prop_oneof![0..8_u32, Just(u32::MAX)].prop_map(Step::Room),
        1 => Just(Step::Damage),
        2 => (wakes(), prop_oneof![4 => Just(Duration::ZERO), 1 => Just(2 * AGE)])
            .prop_map(|(wakes, pause)| Step::Restart { wakes, pause }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(32) })]

    #[test]
    fn the_account_holds_at_any_moment_whatever_the_disk_and_the_receiver_do(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut course = Course::new();
            for step in steps {
                course.step(step).await;
            }
            course.restart(usize::MAX, Duration::ZERO).await;
            course.process.check().await;
        });
    }
}
