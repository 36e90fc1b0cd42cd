//! What the server counts and estimates: transactions, cache, dead rows, transaction numbers, replication.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::time::Instant;

use crate::database::deltas::{Counted, Meter};
use crate::database::fault::Fault;
use crate::database::session::Session;
use crate::database::texts::{amount, count, name};
use crate::model::database::values::{Counters, Slot, Standby, Statistics, Storage, Table, TableRows, Wraparound};
use crate::model::trouble::Trouble;
use crate::redact::Redactor;

const COUNTERS: &str = "SELECT numbackends::int8, xact_commit, xact_rollback, blks_read, blks_hit, temp_files, temp_bytes, \
     deadlocks, coalesce(extract(epoch FROM stats_reset), 0)::float8 \
     FROM pg_stat_database WHERE datname = current_database()";
const WRAPAROUND: &str =
    "SELECT max(age(datfrozenxid))::int8, current_setting('autovacuum_freeze_max_age')::int8 FROM pg_database";
/// The sums are of all tables, whatever the limit shows.
const TABLES: &str = "SELECT schemaname || '.' || relname, n_live_tup, n_dead_tup, \
     extract(epoch FROM clock_timestamp() - greatest(last_autovacuum, last_vacuum))::float8, \
     (sum(n_live_tup) OVER ())::int8, (sum(n_dead_tup) OVER ())::int8 \
     FROM pg_stat_user_tables ORDER BY n_dead_tup DESC, 1 LIMIT 5";
const TABLES_SHOWN: usize = 5;
const STANDBYS: &str = "SELECT coalesce(host(client_addr), 'unix'), coalesce(state, 'unknown'), \
     pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, replay_lsn)::float8, \
     extract(epoch FROM write_lag)::float8, extract(epoch FROM flush_lag)::float8, extract(epoch FROM replay_lag)::float8 \
     FROM pg_stat_replication ORDER BY 1 LIMIT 20";
const SLOTS: &str = "SELECT slot_name::text, active, \
     coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::float8 \
     FROM pg_replication_slots ORDER BY 3 DESC LIMIT 20";
const FOLLOWERS: usize = 20;
/// While nothing is written at the primary, the time of the last replay says nothing: what came was replayed.
const REPLAY_LAG: &str = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN NULL \
     WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 \
     ELSE extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END::float8";
const SIZE: &str = "SELECT pg_database_size(current_database())";

/// Asks for counters and estimates. What a server does not have, or not for us, is left out.
///
/// # Errors
/// When the server does not answer.
pub(super) async fn read(
    session: &mut Session,
    meter: &mut Meter,
    redactor: &Redactor,
    started: Instant,
) -> Result<Statistics, Fault> {
    let rows = session.rows(COUNTERS, 1).await?;
    let (backends, counted) = counted(first(&rows)?, started)?;
    let recent = meter.take(counted);
    let (rows, tables) = tables(session, redactor).await?;
    Ok(Statistics {
        backends,
        recent,
        totals: meter.totals,
        resets: meter.resets,
        wraparound: wraparound(session).await?,
        rows,
        tables,
        standbys: standbys(session, redactor).await?,
        slots: slots(session, redactor).await?,
        replay_lag_seconds: replay_lag(session).await?,
    })
}

/// Asks for the size of the database.
///
/// # Errors
/// When the server does not answer, or not to us.
pub(super) async fn storage(session: &mut Session) -> Result<Storage, Fault> {
    let rows = session.rows(SIZE, 1).await?;
    Ok(Storage { size_bytes: count(first(&rows)?, 0)? })
}

fn first(rows: &[PgRow]) -> Result<&PgRow, Fault> {
    rows.first().ok_or_else(|| Fault::plain(Trouble::Protocol))
}

fn counted(row: &PgRow, started: Instant) -> Result<(u64, Counted), Fault> {
    let counters = Counters {
        commits: count(row, 1)?,
        rollbacks: count(row, 2)?,
        blocks_read: count(row, 3)?,
        blocks_hit: count(row, 4)?,
        temp_files: count(row, 5)?,
        temp_bytes: count(row, 6)?,
        deadlocks: count(row, 7)?,
    };
    let reset_at = amount(row, 8)?.unwrap_or_default();
    Ok((count(row, 0)?, Counted { at: started.elapsed().as_secs_f64(), reset_at, counters }))
}

async fn wraparound(session: &mut Session) -> Result<Option<Wraparound>, Fault> {
    let Some(rows) = session.rows_if_any(WRAPAROUND, 1).await? else { return Ok(None) };
    let row = first(&rows)?;
    Ok(Some(Wraparound { age: count(row, 0)?, forced_at: count(row, 1)? }))
}

async fn tables(session: &mut Session, redactor: &Redactor) -> Result<(Option<TableRows>, Vec<Table>), Fault> {
    let Some(rows) = session.rows_if_any(TABLES, TABLES_SHOWN).await? else { return Ok((None, Vec::new())) };
    let table = |row: &PgRow| -> Result<Table, Fault> {
        let rows = TableRows { live: count(row, 1)?, dead: count(row, 2)? };
        Ok(Table { name: name(redactor, row, 0)?, rows, vacuumed_seconds_ago: amount(row, 3)? })
    };
    let all = match rows.first() {
        Some(row) => TableRows { live: count(row, 4)?, dead: count(row, 5)? },
        None => TableRows::default(),
    };
    Ok((Some(all), rows.iter().map(table).collect::<Result<_, _>>()?))
}

async fn standbys(session: &mut Session, redactor: &Redactor) -> Result<Vec<Standby>, Fault> {
    let rows = session.rows_if_any(STANDBYS, FOLLOWERS).await?.unwrap_or_default();
    let standby = |row: &PgRow| -> Result<Standby, Fault> {
        Ok(Standby {
            client: name(redactor, row, 0)?,
            state: name(redactor, row, 1)?,
            behind_bytes: amount(row, 2)?,
            delays_seconds: [amount(row, 3)?, amount(row, 4)?, amount(row, 5)?],
        })
    };
    rows.iter().map(standby).collect()
}

async fn slots(session: &mut Session, redactor: &Redactor) -> Result<Vec<Slot>, Fault> {
    let rows = session.rows_if_any(SLOTS, FOLLOWERS).await?.unwrap_or_default();
    let slot = |row: &PgRow| -> Result<Slot, Fault> {
        let retained_bytes = amount(row, 2)?.unwrap_or_default();
        Ok(Slot { name: name(redactor, row, 0)?, is_active: row.try_get(1)?, retained_bytes })
    };
    rows.iter().map(slot).collect()
}

async fn replay_lag(session: &mut Session) -> Result<Option<f64>, Fault> {
    let Some(rows) = session.rows_if_any(REPLAY_LAG, 1).await? else { return Ok(None) };
    amount(first(&rows)?, 0)
}
