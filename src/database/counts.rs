//! Rows of the business tables: exact while they are few, else the server's own estimate.

use sqlx::{Row, SqliteConnection};

use crate::database::fault::Fault;
use crate::database::session::Session;
use crate::model::database::values::Storage;
use crate::model::usage::BusinessRows;

/// From this many rows on PostgreSQL's own estimate is taken: an exact count would read too much.
const EXACT_BELOW: i64 = 100_000;
/// A table that nobody has counted yet is counted exactly only if it cannot be large.
const SMALL_BYTES: i64 = 16 << 20;

/// A table's statements; literals, because a name cannot be a parameter.
struct Table {
    name: &'static str,
    /// Nothing when the table is not there or may not be read: asking for it would fill the server's log with errors.
    ///
    /// `reltuples` is of the last vacuum or analysis, -1 before the first, and what was written since is in the statistics.
    estimate: &'static str,
    count: &'static str,
}

const PRODUCTS: Table = Table {
    name: "products",
    estimate: "SELECT greatest(reltuples::int8, pg_stat_get_live_tuples(oid)), pg_relation_size(oid) FROM pg_class WHERE oid = to_regclass('products') AND has_any_column_privilege(oid, 'SELECT')",
    count: "SELECT count(*) FROM products",
};
const VIDEOS: Table = Table {
    name: "videos",
    estimate: "SELECT greatest(reltuples::int8, pg_stat_get_live_tuples(oid)), pg_relation_size(oid) FROM pg_class WHERE oid = to_regclass('videos') AND has_any_column_privilege(oid, 'SELECT')",
    count: "SELECT count(*) FROM videos",
};
const SOCIAL_MEDIA_POSTS: Table = Table {
    name: "social_media_posts",
    estimate: "SELECT greatest(reltuples::int8, pg_stat_get_live_tuples(oid)), pg_relation_size(oid) FROM pg_class WHERE oid = to_regclass('social_media_posts') AND has_any_column_privilege(oid, 'SELECT')",
    count: "SELECT count(*) FROM social_media_posts",
};

/// In the order of `BusinessRows`.
const TABLES: [Table; 3] = [PRODUCTS, VIDEOS, SOCIAL_MEDIA_POSTS];

/// How a table's rows become known.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// By counting.
    Exact,
    /// By the server's estimate.
    Estimate(u64),
    /// Not: nobody has looked yet, and to count would read too much.
    Unknown,
}

/// The rows, and which of the tables can be read at all, in the same order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) rows: BusinessRows,
    pub(super) readable: [bool; 3],
}

/// Counts all tables in PostgreSQL; one that cannot be read is `None`.
///
/// # Errors
/// When the server does not answer.
pub(super) async fn in_postgres(session: &mut Session) -> Result<Tables, Fault> {
    let (mut counts, mut readable) = ([None; 3], [false; 3]);
    for (index, table) in TABLES.iter().enumerate() {
        let seen = one_in_postgres(session, table).await?;
        (counts[index], readable[index]) = (seen.flatten(), seen.is_some());
    }
    Ok(tables(counts, readable))
}

fn tables([products, videos, social_media_posts]: [Option<u64>; 3], readable: [bool; 3]) -> Tables {
    Tables { rows: BusinessRows { products, videos, social_media_posts }, readable }
}

/// Counts all tables in a file of SQLite; one that cannot be read is `None`.
///
/// # Errors
/// When the file cannot be read.
pub(super) async fn in_sqlite(connection: &mut SqliteConnection) -> Result<Tables, Fault> {
    let mut counts = [None; 3];
    for (count, table) in counts.iter_mut().zip(&TABLES) {
        *count = one_in_sqlite(connection, table).await?;
    }
    Ok(tables(counts, counts.map(|count| count.is_some())))
}

/// The size of a file of SQLite, with what is free in it.
///
/// # Errors
/// When the file cannot be read.
pub(super) async fn size_of_sqlite(connection: &mut SqliteConnection) -> Result<Storage, Fault> {
    let size = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    let row = sqlx::raw_sql(size).fetch_one(connection).await?;
    Ok(Storage { size_bytes: u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default() })
}

/// `None` when the table cannot be read, and inside it when its rows cannot be known.
async fn one_in_postgres(session: &mut Session, table: &Table) -> Result<Option<Option<u64>>, Fault> {
    let rows = session.rows_if_any(table.estimate, 1).await?.unwrap_or_default();
    let Some(row) = rows.first() else { return Ok(None) };
    let (estimate, bytes): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    match way(estimate.unwrap_or(-1), bytes.unwrap_or_default()) {
        Way::Estimate(rows) => Ok(Some(Some(rows))),
        Way::Unknown => Ok(Some(None)),
        Way::Exact => {
            let Some(rows) = session.rows_if_any(table.count, 1).await? else { return Ok(None) };
            let count = rows.first().map(|row| row.try_get::<i64, _>(0)).transpose()?;
            Ok(Some(count.and_then(|count| u64::try_from(count).ok())))
        }
    }
}

fn way(estimate: i64, bytes: i64) -> Way {
    match estimate {
        EXACT_BELOW.. => Way::Estimate(estimate.unsigned_abs()),
        // also 0: a server that has lost its statistics in a crash says so of every table
        ..=0 if bytes > SMALL_BYTES => Way::Unknown,
        _ => Way::Exact,
    }
}

async fn one_in_sqlite(connection: &mut SqliteConnection, table: &Table) -> Result<Option<u64>, Fault> {
    let row = sqlx::raw_sql(table.count).fetch_one(&mut *connection).await;
    match row.and_then(|row| row.try_get::<i64, _>(0)).map_err(Fault::from) {
        Ok(count) => Ok(u64::try_from(count).ok()),
        // not there
        Err(fault) if fault.is_answer => {
            tracing::debug!(table = table.name, code = fault.code.as_deref(), "a table cannot be counted");
            Ok(None)
        }
        Err(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_is_of_its_table() {
        for table in TABLES {
            assert!(table.estimate.contains(&format!("to_regclass('{}')", table.name)));
            assert!(table.count.ends_with(&format!("FROM {}", table.name)));
        }
    }

    #[test]
    fn what_is_large_or_may_be_is_never_counted() {
        for (estimate, bytes, expected) in [
            (0, 0, Way::Exact),
            (-1, SMALL_BYTES, Way::Exact),
            (-1, SMALL_BYTES + 1, Way::Unknown),
            (0, SMALL_BYTES + 1, Way::Unknown),
            (1, 1 << 40, Way::Exact),
            (99_999, 1 << 40, Way::Exact),
            (100_000, 0, Way::Estimate(100_000)),
            (i64::MAX, 0, Way::Estimate(i64::MAX as u64)),
        ] {
            assert_eq!(way(estimate, bytes), expected, "{estimate} rows, {bytes} bytes");
        }
    }
}
