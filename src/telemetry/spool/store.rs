//! The spool's file: one table of compressed export requests, in SQLite.
//!
//! Only SQL and the file's life are here; what is kept, and what goes first, is decided in `mod`. A file of an earlier version
//! is taken over; one that is damaged or of a later version is set aside, never overwritten in place and never a reason not to start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection};
use tokio::time::Instant;

use crate::model::telemetry::Signal;
use crate::telemetry::config::Compression;
use crate::telemetry::sealed::Worth;

/// The version of the table below, kept in the file's header.
const VERSION: i64 = 2;
/// Before anything is read.
const ALONE: &str = "PRAGMA locking_mode = EXCLUSIVE";
/// Exclusive, which also spares the shared index, a file mapped into memory. A killed process loses nothing, a power cut a
/// second. What was delivered is found in no file. Little cache, as rows are read once; a log of a MiB, as the disk may be small.
const PRAGMAS: &str = "
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA secure_delete = ON;
PRAGMA cache_size = -256;
PRAGMA wal_autocheckpoint = 256;
";
/// `AUTOINCREMENT`: a row's number is never used again, so that a reader's place stays true when the table was empty.
const SCHEMA: &str = "
CREATE TABLE spool (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  signal INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  worth INTEGER NOT NULL,
  items INTEGER NOT NULL,
  raw_len INTEGER NOT NULL,
  body BLOB NOT NULL,
  coding INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX spool_by_age ON spool (signal, id);
CREATE INDEX spool_by_worth ON spool (signal, worth, id);
PRAGMA user_version = 2;
";
/// In the first version all bodies were compressed by zstd.
const FROM_VERSION_1: &str = "
ALTER TABLE spool ADD COLUMN coding INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 2;
";
/// In the column `coding`; zstd is 0.
const GZIP: u64 = 1;
/// Its own process alone has the file, so a lock that is taken is a fault, not a wait.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// What is written: one export request, as it is sent.
#[derive(Debug)]
pub(super) struct NewRow {
    pub(super) signal: Signal,
    pub(super) worth: Worth,
    /// Milliseconds since the Unix epoch.
    pub(super) created_ms: i64,
    pub(super) items: u64,
    pub(super) raw_len: usize,
    pub(super) coding: Compression,
    pub(super) body: Bytes,
}

impl NewRow {
    fn slip(&self, id: i64) -> Slip {
        let Self { created_ms, items, raw_len, coding, .. } = *self;
        Slip { id, created_ms, items, raw_len, bytes: self.body.len() as u64, coding }
    }
}

/// A row without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slip {
    pub(super) id: i64,
    /// Milliseconds since the Unix epoch.
    pub(super) created_ms: i64,
    pub(super) items: u64,
    /// Before compression.
    pub(super) raw_len: usize,
    /// Of the body as stored.
    pub(super) bytes: u64,
    /// How it is compressed.
    pub(super) coding: Compression,
}

/// What the file holds of one signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// SQLite's own words.
    #[error(transparent)]
    Sqlite(#[from] sqlx::Error),
    /// It is there, and was made by another version or another program.
    #[error("it has version {0}, expected {VERSION}")]
    OtherVersion(i64),
    /// A file cannot be moved or removed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The disk does not answer.
    #[error("no answer from the disk within {0:?}")]
    Stalled(Duration),
}

impl StoreError {
    /// Whether the file itself is bad: it is no use to try again.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::OtherVersion(_) => true,
            Self::Sqlite(sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound) => true,
            // SQLITE_CORRUPT and SQLITE_NOTADB; SQLITE_ERROR is a table that is not ours
            _ => matches!(self.code(), Some(1 | 11 | 26)),
        }
    }

    /// What the name of the file ends in once it is set aside.
    fn suffix(&self) -> String {
        match self {
            Self::OtherVersion(version) => format!(".version-{version}"),
            _ => ".aside".to_owned(),
        }
    }

    /// Whether it can be read, and only not be written: SQLITE_FULL and SQLITE_READONLY.
    pub(super) fn is_lack_of_room(&self) -> bool {
        matches!(self.code(), Some(13 | 8))
    }

    /// SQLite's primary result code.
    fn code(&self) -> Option<u32> {
        match self {
            Self::Sqlite(sqlx::Error::Database(error)) => Some(error.code()?.parse::<u32>().ok()? & 0xff),
            _ => None,
        }
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Store {
    connection: SqliteConnection,
    /// The file was made by this version, and has been taken over.
    migrated_from: Option<i64>,
    /// Since when the file's log may still hold rows that were removed.
    residue: Option<Instant>,
}

impl Store {
    /// Opens the file, or makes it, and tells what it holds of each signal.
    ///
    /// # Errors
    /// It cannot be opened or read, or is not ours.
    pub(super) async fn open(path: &Path) -> Result<(Self, [Total; Signal::ALL.len()]), StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        // a process that was killed leaves the log as it was
        let residue = with_suffix(path, "-wal").exists().then(Instant::now);
        let mut store = Self { connection: options.connect().await?, migrated_from: None, residue };
        match store.prepare().await {
            Ok(totals) => Ok((store, totals)),
            Err(error) => {
                store.close().await; // before anybody moves the file
                Err(error)
            }
        }
    }

    async fn prepare(&mut self) -> Result<[Total; Signal::ALL.len()], StoreError> {
        sqlx::raw_sql(ALONE).execute(&mut self.connection).await?;
        // what is not ours is left as it is
        let version = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut self.connection).await?;
        let steps = match version {
            0 => Some(SCHEMA),
            1 => Some(FROM_VERSION_1),
            VERSION => None,
            other => return Err(StoreError::OtherVersion(other)),
        };
        sqlx::raw_sql(PRAGMAS).execute(&mut self.connection).await?;
        if let Some(steps) = steps {
            let mut transaction = self.connection.begin().await?;
            sqlx::raw_sql(steps).execute(&mut *transaction).await?;
            transaction.commit().await?;
            self.migrated_from = Some(version).filter(|version| *version > 0);
        }
        self.totals().await
    }

    /// Which version had made the file, when that was another one.
    pub(super) fn migrated_from(&self) -> Option<i64> {
        self.migrated_from
    }

    async fn totals(&mut self) -> Result<[Total; Signal::ALL.len()], StoreError> {
        let mut totals = [Total::default(); Signal::ALL.len()];
        let sums = "SELECT signal, sum(items), sum(length(body)) FROM spool GROUP BY signal";
        for row in sqlx::query(sums).fetch_all(&mut self.connection).await? {
            let signal = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
            if let Some(total) = totals.get_mut(signal) {
                *total = Total { items: unsigned(&row, 1)?, bytes: unsigned(&row, 2)? };
            }
        }
        Ok(totals)
    }

    /// Writes rows and removes others, or neither; gives the new ones. Let go before `commits` is set, it does neither; behind
    /// it only its end tells.
    pub(super) async fn replace(
        &mut self,
        gone: &[Slip],
        rows: &[NewRow],
        commits: &AtomicBool,
    ) -> Result<Vec<Slip>, StoreError> {
        let mut transaction = self.connection.begin().await?;
        for slip in gone {
            sqlx::query("DELETE FROM spool WHERE id = ?").bind(slip.id).execute(&mut *transaction).await?;
        }
        let mut written = Vec::with_capacity(rows.len());
        for row in rows {
            let insert = "INSERT INTO spool (signal, created_ms, worth, items, raw_len, body, coding) VALUES (?, ?, ?, ?, ?, ?, ?)";
            let result = sqlx::query(insert)
                .bind(row.signal as i64)
                .bind(row.created_ms)
                .bind(row.worth as i64)
                .bind(signed(row.items))
                .bind(signed(row.raw_len as u64))
                .bind(&row.body[..])
                .bind(number_of(row.coding))
                .execute(&mut *transaction)
                .await?;
            written.push(row.slip(result.last_insert_rowid()));
        }
        commits.store(true, Ordering::Relaxed);
        transaction.commit().await?;
        if !gone.is_empty() {
            self.residue.get_or_insert_with(Instant::now);
        }
        Ok(written)
    }

    /// Since when the file's log may still hold rows that were removed; the file itself holds none.
    pub(super) fn residue(&self) -> Option<Instant> {
        self.residue
    }

    /// Cuts the file's log, once all of it is in the file: what was removed is found nowhere any more.
    pub(super) async fn wipe(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut self.connection).await?;
        self.residue = None;
        Ok(())
    }

    /// The next rows of a signal behind this one, oldest first.
    pub(super) async fn next(&mut self, signal: Signal, after: i64, most: i64) -> Result<Vec<Slip>, StoreError> {
        let select = "SELECT id, created_ms, items, raw_len, length(body), coding FROM spool \
                      WHERE signal = ? AND id > ? ORDER BY id LIMIT ?";
        let rows = sqlx::query(select).bind(signal as i64).bind(after).bind(most).fetch_all(&mut self.connection);
        rows.await?.iter().map(slip).collect()
    }

    /// The rows of a signal that are worth least, the oldest of them first.
    pub(super) async fn least_worth(&mut self, signal: Signal, most: i64) -> Result<Vec<Slip>, StoreError> {
        let select = "SELECT id, created_ms, items, raw_len, length(body), coding FROM spool \
                      WHERE signal = ? ORDER BY worth, id LIMIT ?";
        let rows = sqlx::query(select).bind(signal as i64).bind(most).fetch_all(&mut self.connection);
        rows.await?.iter().map(slip).collect()
    }

    /// The oldest rows of a signal that were written before then.
    pub(super) async fn before(&mut self, signal: Signal, then_ms: i64, most: i64) -> Result<Vec<Slip>, StoreError> {
        let select = "SELECT id, created_ms, items, raw_len, length(body), coding FROM spool \
                      WHERE signal = ? AND created_ms < ? ORDER BY id LIMIT ?";
        let rows = sqlx::query(select).bind(signal as i64).bind(then_ms).bind(most).fetch_all(&mut self.connection);
        rows.await?.iter().map(slip).collect()
    }

    /// Appends the body of a row.
    pub(super) async fn body(&mut self, id: i64, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let row = sqlx::query("SELECT body FROM spool WHERE id = ?").bind(id).fetch_one(&mut self.connection).await?;
        out.extend_from_slice(row.try_get::<&[u8], _>(0)?);
        Ok(())
    }

    /// Gives the disk back what deleted rows held, in the file and in its log.
    pub(super) async fn shrink(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("PRAGMA incremental_vacuum").execute(&mut self.connection).await?;
        self.wipe().await
    }

    /// Closes the file, its log written into it.
    pub(super) async fn close(self) {
        let _ = self.connection.close().await; // what is committed is safe in the log, too
    }
}

/// Moves a file that cannot be used away, whole, so that a new one can be made: to a name that tells why. An older one
/// with that name gives way to it.
///
/// # Errors
/// It cannot be moved.
pub(super) fn set_aside(path: &Path, error: &StoreError) -> io::Result<PathBuf> {
    let aside = with_suffix(path, &error.suffix());
    // the log first: without the file it belongs to nothing, with another one's it would be read as its own
    moved(&with_suffix(path, "-wal"), &with_suffix(&aside, "-wal"))?;
    removed(&with_suffix(path, "-shm"))?;
    fs::rename(path, &aside)?;
    Ok(aside)
}

fn moved(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => removed(to),
        other => other,
    }
}

fn removed(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn slip(row: &SqliteRow) -> Result<Slip, StoreError> {
    Ok(Slip {
        id: row.try_get(0)?,
        created_ms: row.try_get(1)?,
        items: unsigned(row, 2)?,
        raw_len: usize::try_from(unsigned(row, 3)?).unwrap_or(usize::MAX),
        bytes: unsigned(row, 4)?,
        coding: if unsigned(row, 5)? == GZIP { Compression::Gzip } else { Compression::Zstd },
    })
}

fn number_of(coding: Compression) -> i64 {
    if coding == Compression::Gzip { signed(GZIP) } else { 0 }
}

fn unsigned(row: &SqliteRow, column: usize) -> Result<u64, sqlx::Error> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or_default())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
