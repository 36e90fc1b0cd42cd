//! What a database tells of itself: values that the room reads, and everybody else only shows.
//!
//! Seconds and bytes as they are; texts are clean and cut. Every list is bounded by who reads it.

use crate::redact::Clean;

/// The server, and how much of it our role may see.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// As it calls itself, such as `15.14`.
    pub version: Clean<'static>,
    /// The database that we are in.
    pub namespace: Clean<'static>,
    /// The role that we are.
    pub role: Clean<'static>,
    /// What of the other roles' sessions and statements is shown to us.
    pub visibility: Visibility,
    /// Whether it replays the log of another server.
    pub is_standby: bool,
    /// Connections that an ordinary role may share with all others.
    pub connection_limit: u64,
}

/// How much the server shows us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// All sessions and statements.
    Full,
    /// Our own only: the role lacks `pg_monitor`, and what others do is hidden without an error.
    Partial,
}

/// What goes on at this moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// Client connections of the whole server by state; states without one are left out.
    pub sessions: Vec<Sessions>,
    /// What has run longest, longest first.
    pub running: Vec<Running>,
    /// Sessions that wait for a lock.
    pub waiting: Vec<Waiting>,
    /// Who makes them wait.
    pub chains: Vec<Chain>,
}

/// The client connections in one state.
#[derive(Clone, Debug, PartialEq)]
pub struct Sessions {
    /// The state.
    pub state: SessionState,
    /// How many there are.
    pub count: u64,
    /// The age of their oldest transaction; 0 without one.
    pub longest_transaction_seconds: f64,
}

/// What a client connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SessionState {
    /// Runs a statement.
    Active,
    /// Waits for the client, outside a transaction.
    Idle,
    /// Waits for the client, inside a transaction.
    IdleInTransaction,
    /// The same, after an error.
    IdleInAbortedTransaction,
    /// Hidden from us, or of a kind that we do not know.
    Unknown,
}

/// A session that does something.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// Its process at the server.
    pub pid: i64,
    /// What it does.
    pub state: SessionState,
    /// The statement by its number, from PostgreSQL 14 on; never its text, in which literals are raw.
    pub query_id: Option<Clean<'static>>,
    /// What it waits for, such as `Lock:transactionid`.
    pub waits_for: Option<Clean<'static>>,
    /// Since the statement began.
    pub seconds: f64,
}

/// A session that waits for a lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its process at the server.
    pub pid: i64,
    /// Who must end first; 0 stands for a prepared transaction.
    pub blockers: Vec<i64>,
    /// How long it has waited; before PostgreSQL 14 since its statement began.
    pub seconds: f64,
    /// What is locked, such as `relation` or `transactionid`.
    pub lock: Clean<'static>,
    /// What it wants, such as `AccessExclusiveLock`.
    pub mode: Clean<'static>,
}

/// A session that waits for nobody, and all that wait for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// Who is at its head.
    pub root: i64,
    /// What the head does; unknown when it is hidden or gone.
    pub state: SessionState,
    /// The age of the head's transaction.
    pub transaction_seconds: f64,
    /// Sessions that wait for it, directly or behind others.
    pub sessions: u64,
    /// The longest row of sessions, each waiting for the one before.
    pub depth: u64,
    /// How long the first of them has waited.
    pub longest_seconds: f64,
}

/// Counters of a database, as the server keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counters {
    /// Transactions committed, ours among them.
    pub commits: u64,
    /// Transactions rolled back.
    pub rollbacks: u64,
    /// Blocks that were not in the server's cache.
    pub blocks_read: u64,
    /// Blocks that were.
    pub blocks_hit: u64,
    /// Temporary files of statements that did not fit into memory.
    pub temp_files: u64,
    /// What was written to them.
    pub temp_bytes: u64,
    /// Deadlocks.
    pub deadlocks: u64,
}

/// What the server counts, and what is new in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Connections to this database, of any kind.
    pub backends: u64,
    /// The server's counters, added up over its resets: they never fall.
    pub totals: Counters,
    /// What was counted since the reading before; `None` at the first.
    pub recent: Option<Recent>,
    /// Resets that we saw.
    pub resets: u64,
    /// The age of the oldest transaction number of any database, and where the server begins to act by itself.
    pub wraparound: Option<Wraparound>,
    /// Rows of all tables, living and dead.
    pub rows: Option<TableRows>,
    /// The tables with most dead rows.
    pub tables: Vec<Table>,
    /// Servers that follow this one.
    pub standbys: Vec<Standby>,
    /// Logs kept for somebody.
    pub slots: Vec<Slot>,
    /// How far a standby is behind; `None` for a server that follows nobody.
    pub replay_lag_seconds: Option<f64>,
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recent {
    /// The time between them.
    pub seconds: f64,
    /// What was counted in it; after a reset, since that.
    pub counters: Counters,
    /// Whether somebody reset the statistics in it.
    pub was_reset: bool,
}

/// How near the transaction numbers are to their end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wraparound {
    /// Transactions since the oldest one that is not frozen.
    pub age: u64,
    /// From this age on the server freezes by force.
    pub forced_at: u64,
}

/// Rows, as the server estimates them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TableRows {
    /// Rows that can be read.
    pub live: u64,
    /// Rows that nobody can read any more, and that are not yet cleared away.
    pub dead: u64,
}

/// A table with dead rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Schema and name.
    pub name: Clean<'static>,
    /// Its rows.
    pub rows: TableRows,
    /// Since it was vacuumed last, by whomever; `None` if never.
    pub vacuumed_seconds_ago: Option<f64>,
}

/// A server that follows this one.
#[derive(Clone, Debug, PartialEq)]
pub struct Standby {
    /// Its address, or `unix`.
    pub client: Clean<'static>,
    /// Such as `streaming`.
    pub state: Clean<'static>,
    /// Bytes of the log that it has not replayed.
    pub behind_bytes: Option<f64>,
    /// Delay until it has written, flushed and replayed; `None` while idle.
    pub delays_seconds: [Option<f64>; 3],
}

/// A log kept for somebody who may never come.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Its name.
    pub name: Clean<'static>,
    /// Whether somebody reads it.
    pub is_active: bool,
    /// Bytes of the log kept for it.
    pub retained_bytes: f64,
}

/// What is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Storage {
    /// Size of the database.
    pub size_bytes: u64,
}

impl SessionState {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] =
        [Self::Active, Self::Idle, Self::IdleInTransaction, Self::IdleInAbortedTransaction, Self::Unknown];

    /// The word for it, and the value of a label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::IdleInTransaction => "idle_in_transaction",
            Self::IdleInAbortedTransaction => "idle_in_aborted_transaction",
            Self::Unknown => "unknown",
        }
    }
}

impl Visibility {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
        }
    }
}

impl Activity {
    /// Client connections of the whole server.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.sessions.iter().map(|sessions| sessions.count).sum()
    }

    /// The age of the oldest transaction of any client.
    #[must_use]
    pub fn longest_transaction_seconds(&self) -> f64 {
        self.sessions.iter().map(|sessions| sessions.longest_transaction_seconds).fold(0.0, f64::max)
    }

    /// How long the first of those that wait for a lock has waited.
    #[must_use]
    pub fn longest_wait_seconds(&self) -> f64 {
        self.waiting.iter().map(|waiting| waiting.seconds).fold(0.0, f64::max)
    }
}

impl Recent {
    /// Share of the blocks that were in the cache; `None` when none was asked for.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let Counters { blocks_hit, blocks_read, .. } = self.counters;
        let asked = blocks_hit.saturating_add(blocks_read);
        (asked > 0).then(|| blocks_hit as f64 / asked as f64)
    }
}
