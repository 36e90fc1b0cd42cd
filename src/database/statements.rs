//! The statements that took most of the server's time in the last interval, from `pg_stat_statements`.
//!
//! The numbers of fifty of them each time, without their texts: those stand in one file, which the server would read whole.
//! Texts are asked for once, of those that are shown.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::database::fault::Fault;
use crate::database::literals::without_literals;
use crate::database::session::{MARK, Session};
use crate::database::texts::{amount, count, name};
use crate::database::top::{Counted, Key, Snapshot, since};
use crate::model::database::statements::{Statement, StatementSource, Statements};
use crate::model::trouble::Trouble;
use crate::redact::{Clean, Outlet, Redactor};

/// Where the extension is, and which columns it has: it is made in one database, and upgraded apart from the server.
const EXTENSION: &str = "SELECT quote_ident(n.nspname), e.extversion, has_schema_privilege(n.oid, 'USAGE') FROM pg_extension e \
     JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'";
const READ: usize = 50;
const SHOWN: usize = 10;
/// Those of which it is looked whose they are: our own questions are never among those shown.
const LOOKED_AT: usize = 25;
/// Forgotten all at once: whatever is still shown is asked for again.
const TEXTS: usize = 200;
/// Of a statement, in bytes; the server cuts it.
const LONGEST: usize = 300;
/// `object_not_in_prerequisite_state`: the library is not loaded.
const NOT_LOADED: &str = "55000";

/// Turns in which a server that refused is not asked: each refusal is a line in its log.
const REST: u32 = 10;

/// What is remembered between two readings.
#[derive(Debug, Default)]
pub(super) struct Memory {
    last: Option<Snapshot>,
    texts: BTreeMap<i64, Clean<'static>>,
    /// Those of `texts` that are our own.
    own: BTreeSet<i64>,
    /// Why it was refused, and the turns that are left of the rest.
    refused: Option<(StatementSource, u32)>,
}

/// The extension in this database.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Extension {
    /// As it is written in a statement.
    schema: String,
    /// Its version: major and minor.
    version: (u32, u32),
    /// Whether our role may use what is in the schema.
    is_usable: bool,
}

/// One entry as it was read.
struct Entry {
    key: Key,
    counted: Counted,
    max_seconds: f64,
    role: Clean<'static>,
}

/// Asks for the statements of the time since it was asked last.
///
/// # Errors
/// When the server does not answer.
pub(super) async fn read(
    session: &mut Session,
    memory: &mut Memory,
    redactor: &Redactor,
    at: f64,
) -> Result<Statements, Fault> {
    if let Some(source) = memory.resting() {
        return Ok(none(source));
    }
    let Some(extension) = extension(session).await? else { return Ok(none(StatementSource::Absent)) };
    if !extension.is_usable {
        return Ok(none(StatementSource::Refused));
    }
    let rows = match session.rows(&extension.entries(), READ).await {
        Ok(rows) => rows,
        Err(fault) if fault.is_answer => {
            let source = refusal(&fault).ok_or(fault)?;
            memory.refused = Some((source, REST));
            return Ok(none(source));
        }
        Err(fault) => return Err(fault),
    };
    let entries: Vec<Entry> = rows.iter().map(|row| entry(row, redactor)).collect::<Result<_, _>>()?;
    let by_key = entries.iter().map(|entry| (entry.key, entry.counted)).collect();
    let now = Snapshot { at, entries: by_key, is_cut: entries.len() >= READ };
    let Some(before) = memory.last.replace(now.clone()) else { return Ok(none(StatementSource::Readable)) };
    let new = since(&before, &now, LOOKED_AT);
    let looked_at: Vec<i64> = new.top.iter().map(|(key, _)| key.query).collect();
    memory.learn(session, &extension, &looked_at, redactor).await?;
    let find = |key: &Key| entries.iter().find(|entry| entry.key == *key);
    let others = new.top.iter().filter(|(key, _)| !memory.own.contains(&key.query)).take(SHOWN);
    let top = others.filter_map(|(key, counted)| Some(memory.statement(find(key)?, counted))).collect();
    Ok(Statements { source: StatementSource::Readable, seconds: Some(new.seconds), top })
}

fn refusal(fault: &Fault) -> Option<StatementSource> {
    match (fault.code.as_deref(), fault.trouble) {
        (Some(NOT_LOADED), _) => Some(StatementSource::NotLoaded),
        (_, Trouble::Auth) => Some(StatementSource::Refused),
        _ => None,
    }
}

/// No statements, for this reason.
pub(super) fn none(source: StatementSource) -> Statements {
    Statements { source, seconds: None, top: Vec::new() }
}

async fn extension(session: &mut Session) -> Result<Option<Extension>, Fault> {
    let rows = session.rows(EXTENSION, 1).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let version: &str = row.try_get(1)?;
    Ok(Some(Extension { schema: row.try_get(0)?, version: parse_version(version), is_usable: row.try_get(2)? }))
}

/// `1.10` is above `1.9`.
fn parse_version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

impl Extension {
    /// The longest, by their numbers alone.
    fn entries(&self) -> String {
        let time = if self.version >= (1, 8) { "exec_time" } else { "time" };
        format!(
            "SELECT userid::int8, dbid::int8, queryid::int8, {}, calls::int8, total_{time}::float8, max_{time}::float8, \
             rows::int8, shared_blks_hit::int8, shared_blks_read::int8, temp_blks_written::int8, \
             pg_get_userbyid(userid)::text FROM {}.pg_stat_statements(false) \
             WHERE {OURS} AND queryid IS NOT NULL ORDER BY total_{time} DESC LIMIT {READ}",
            self.top_level(),
            self.schema
        )
    }

    /// The texts of these.
    fn texts(&self, queries: &[i64]) -> String {
        let queries: Vec<String> = queries.iter().map(i64::to_string).collect();
        format!(
            "SELECT queryid::int8, min(left(query, {LONGEST})) FROM {}.pg_stat_statements(true) \
             WHERE {OURS} AND queryid IN ({}) GROUP BY 1 LIMIT {LOOKED_AT}",
            self.schema,
            queries.join(", ")
        )
    }

    fn top_level(&self) -> &'static str {
        if self.version >= (1, 9) { "toplevel" } else { "true" }
    }
}

/// The extension counts all databases of the server.
const OURS: &str = "dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

fn entry(row: &PgRow, redactor: &Redactor) -> Result<Entry, Fault> {
    let key =
        Key { user: row.try_get(0)?, database: row.try_get(1)?, query: row.try_get(2)?, is_top_level: row.try_get(3)? };
    let seconds = |column| Ok::<f64, Fault>(amount(row, column)?.unwrap_or_default() / 1_000.0);
    let counted = Counted {
        calls: count(row, 4)?,
        total_seconds: seconds(5)?,
        rows: count(row, 7)?,
        blocks_hit: count(row, 8)?,
        blocks_read: count(row, 9)?,
        temp_blocks: count(row, 10)?,
    };
    Ok(Entry { key, counted, max_seconds: seconds(6)?, role: name(redactor, row, 11)? })
}

impl Memory {
    /// Why it was refused lately; counts this turn.
    fn resting(&mut self) -> Option<StatementSource> {
        let (source, turns) = self.refused.take()?;
        self.refused = turns.checked_sub(1).map(|turns| (source, turns));
        self.refused.map(|(source, _)| source)
    }

    /// Asks for the texts that are not known yet.
    async fn learn(
        &mut self,
        session: &mut Session,
        extension: &Extension,
        looked_at: &[i64],
        redactor: &Redactor,
    ) -> Result<(), Fault> {
        if self.texts.len() + LOOKED_AT > TEXTS {
            self.texts.clear();
            self.own.clear();
        }
        let mut unknown: Vec<i64> = looked_at.iter().copied().filter(|query| !self.texts.contains_key(query)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        for row in session.rows_if_any(&extension.texts(&unknown), LOOKED_AT).await?.unwrap_or_default() {
            let text = row.try_get::<Option<&str>, _>(1)?.unwrap_or_default();
            if text.contains(MARK) {
                self.own.insert(row.try_get(0)?);
            }
            let text = without_literals(text);
            let clean = redactor.text(Outlet::Endpoint, text.as_bytes()).into_owned().cut(LONGEST);
            self.texts.insert(row.try_get(0)?, clean);
        }
        Ok(())
    }

    fn statement(&self, entry: &Entry, new: &Counted) -> Statement {
        Statement {
            query_id: entry.key.query,
            role: entry.role.clone(),
            is_top_level: entry.key.is_top_level,
            text: self.texts.get(&entry.key.query).cloned(),
            calls: new.calls,
            total_seconds: new.total_seconds,
            max_seconds: entry.max_seconds,
            rows: new.rows,
            blocks_hit: new.blocks_hit,
            blocks_read: new.blocks_read,
            temp_blocks: new.temp_blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_of_the_extension_is_asked_for_the_columns_that_it_has() {
        for (version, time, top_level) in [
            ("1.7", "total_time", false),
            ("1.8", "total_exec_time", false),
            ("1.9", "total_exec_time", true),
            ("1.10", "total_exec_time", true),
            ("1.11", "total_exec_time", true),
            ("2.0", "total_exec_time", true),
        ] {
            let extension = Extension { schema: "\"Odd\"".into(), version: parse_version(version), is_usable: true };
            let question = extension.entries();
            assert!(question.contains(&format!(", {time}::float8")), "{version}: {question}");
            assert_eq!(question.contains(", toplevel,"), top_level, "{version}: {question}");
            assert!(question.contains(" FROM \"Odd\".pg_stat_statements(false) "), "{question}");
        }
    }

    #[test]
    fn who_was_refused_rests_and_asks_again() {
        let mut memory = Memory { refused: Some((StatementSource::NotLoaded, REST)), ..Memory::default() };
        for _ in 0..REST {
            assert_eq!(memory.resting(), Some(StatementSource::NotLoaded));
        }
        assert_eq!(memory.resting(), None);
    }

    #[test]
    fn texts_are_asked_for_by_number_and_cut_by_the_server() {
        let extension = Extension { schema: "public".into(), version: (1, 10), is_usable: true };
        let question = extension.texts(&[-7, 9]);
        assert!(question.contains("left(query, 300)") && question.contains("IN (-7, 9)"), "{question}");
    }
}
