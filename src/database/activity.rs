//! What goes on at this moment: sessions by state, what runs longest, and who waits for whom.

use std::collections::BTreeMap;

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::database::chains::{self, Head};
use crate::database::fault::Fault;
use crate::database::server::{V14, Version};
use crate::database::session::Session;
use crate::database::texts::{amount, count, name, optional_name};
use crate::model::database::values::{Activity, Running, SessionState, Sessions, Waiting};
use crate::redact::{Clean, Redactor};

/// Without `pg_monitor` the sessions of others have neither type nor state.
const SESSIONS: &str = "SELECT coalesce(state, 'unknown'), count(*), \
     coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity \
     WHERE datid IS NOT NULL AND (backend_type = 'client backend' OR backend_type IS NULL) GROUP BY 1";
/// The states that there are, with room for those of later versions.
const STATES: usize = 32;
/// What runs longest.
const RUNNING: usize = 5;
/// Each of them costs the server a look at all locks.
const WAITING: usize = 50;

/// Asks all of it.
///
/// # Errors
/// When the server does not answer.
pub(super) async fn read(session: &mut Session, version: Version, redactor: &Redactor) -> Result<Activity, Fault> {
    let rows = session.rows(SESSIONS, STATES).await?;
    let sessions = by_state(rows.iter().map(sessions).collect::<Result<_, _>>()?);
    let rows = session.rows(&running(version), RUNNING).await?;
    let running = rows.iter().map(|row| one_running(row, redactor)).collect::<Result<_, _>>()?;
    let rows = session.rows(&waiting(version), WAITING).await?;
    let waiting: Vec<Waiting> = rows.iter().map(|row| one_waiting(row, redactor)).collect::<Result<_, _>>()?;
    let heads = heads(session, &waiting).await?;
    Ok(Activity { sessions, running, chains: chains::chains(&waiting, &heads), waiting })
}

/// Never `query`: literals are raw there.
fn running(version: Version) -> String {
    let query_id = if version >= V14 { "query_id::text" } else { "NULL::text" };
    format!(
        "SELECT pid::int8, coalesce(state, 'unknown'), {query_id}, wait_event_type || ':' || wait_event, \
         extract(epoch FROM clock_timestamp() - query_start)::float8 FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid() \
         ORDER BY query_start LIMIT {RUNNING}"
    )
}

fn waiting(version: Version) -> String {
    let since = if version >= V14 { "coalesce(min(l.waitstart), min(a.query_start))" } else { "min(a.query_start)" };
    format!(
        "SELECT pid::int8, array_to_string(pg_blocking_pids(pid), ','), \
         extract(epoch FROM clock_timestamp() - since)::float8, lock, mode \
         FROM (SELECT l.pid, {since} AS since, min(l.locktype) AS lock, min(l.mode) AS mode FROM pg_locks l \
         LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE NOT l.granted AND l.pid IS NOT NULL \
         GROUP BY l.pid ORDER BY 2 LIMIT {WAITING}) AS waiting"
    )
}

fn sessions(row: &PgRow) -> Result<Sessions, Fault> {
    Ok(Sessions {
        state: state(row.try_get(0)?),
        count: count(row, 1)?,
        longest_transaction_seconds: amount(row, 2)?.unwrap_or_default(),
    })
}

/// States that are one to us are one entry.
fn by_state(rows: Vec<Sessions>) -> Vec<Sessions> {
    let mut found: BTreeMap<SessionState, Sessions> = BTreeMap::new();
    for row in rows {
        let state = row.state;
        let entry = found.entry(state).or_insert(Sessions { state, count: 0, longest_transaction_seconds: 0.0 });
        entry.count = entry.count.saturating_add(row.count);
        entry.longest_transaction_seconds = entry.longest_transaction_seconds.max(row.longest_transaction_seconds);
    }
    found.into_values().collect()
}

fn state(text: &str) -> SessionState {
    match text {
        "active" | "fastpath function call" => SessionState::Active,
        "idle" => SessionState::Idle,
        "idle in transaction" => SessionState::IdleInTransaction,
        "idle in transaction (aborted)" => SessionState::IdleInAbortedTransaction,
        _ => SessionState::Unknown,
    }
}

fn one_running(row: &PgRow, redactor: &Redactor) -> Result<Running, Fault> {
    Ok(Running {
        pid: row.try_get(0)?,
        state: state(row.try_get(1)?),
        query_id: optional_name(redactor, row, 2)?,
        waits_for: optional_name(redactor, row, 3)?,
        seconds: amount(row, 4)?.unwrap_or_default(),
    })
}

fn one_waiting(row: &PgRow, redactor: &Redactor) -> Result<Waiting, Fault> {
    let blockers: Option<&str> = row.try_get(1)?;
    let unknown = || Clean::literal("unknown");
    Ok(Waiting {
        pid: row.try_get(0)?,
        blockers: pids(blockers.unwrap_or_default()),
        seconds: amount(row, 2)?.unwrap_or_default().max(0.0),
        lock: optional_name(redactor, row, 3)?.unwrap_or_else(unknown),
        mode: name(redactor, row, 4)?,
    })
}

/// Numbers of processes with commas between them; each once, because a parallel statement has its leader in it several times.
fn pids(text: &str) -> Vec<i64> {
    let mut pids: Vec<i64> = text.split(',').filter_map(|pid| pid.parse().ok()).take(WAITING).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// What the sessions at the heads do, if anybody waits at all.
async fn heads(session: &mut Session, waiting: &[Waiting]) -> Result<BTreeMap<i64, Head>, Fault> {
    let roots: Vec<String> = chains::roots(waiting).iter().take(WAITING).map(i64::to_string).collect();
    if roots.is_empty() {
        return Ok(BTreeMap::new());
    }
    let question = format!(
        "SELECT pid::int8, coalesce(state, 'unknown'), \
         coalesce(extract(epoch FROM clock_timestamp() - xact_start), 0)::float8 \
         FROM pg_stat_activity WHERE pid IN ({})",
        roots.join(", ")
    );
    let rows = session.rows(&question, WAITING).await?;
    let head = |row: &PgRow| -> Result<(i64, Head), Fault> {
        let transaction_seconds = amount(row, 2)?.unwrap_or_default();
        Ok((row.try_get(0)?, Head { state: state(row.try_get(1)?), transaction_seconds }))
    };
    rows.iter().map(head).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_asked_for_what_it_has() {
        for (version, has_query_id, has_waitstart) in
            [(130_000, false, false), (140_000, true, true), (150_014, true, true), (170_002, true, true)]
        {
            let version = Version(version);
            assert_eq!(running(version).contains("query_id"), has_query_id, "{version:?}");
            assert_eq!(waiting(version).contains("waitstart"), has_waitstart, "{version:?}");
            assert!(!running(version).contains(" query,"), "its text holds literals");
        }
    }

    #[test]
    fn states_of_the_server_are_five_of_ours() {
        let row = |text, count, seconds| Sessions { state: state(text), count, longest_transaction_seconds: seconds };
        let rows = vec![
            row("idle", 3, 0.0),
            row("disabled", 1, 0.5),
            row("idle in transaction (aborted)", 1, 2.0),
            row("unknown", 2, 0.25),
            row("active", 1, 0.0),
            row("fastpath function call", 1, 0.125),
            row("idle in transaction", 1, 9.0),
        ];
        let found: Vec<_> = by_state(rows)
            .into_iter()
            .map(|sessions| (sessions.state.word(), sessions.count, sessions.longest_transaction_seconds))
            .collect();
        let expected = [
            ("active", 2, 0.125),
            ("idle", 3, 0.0),
            ("idle_in_transaction", 1, 9.0),
            ("idle_in_aborted_transaction", 1, 2.0),
            ("unknown", 3, 0.5),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn numbers_of_processes_are_read_once_each_and_nonsense_is_left_out() {
        for (text, expected) in
            [("", &[][..]), ("7", &[7]), ("9,7,9", &[7, 9]), ("0", &[0]), ("7,x,99999999999999999999", &[7])]
        {
            assert_eq!(pids(text), expected, "{text}");
        }
    }
}
