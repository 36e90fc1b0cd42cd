//! Counting the business tables, in PostgreSQL and in SQLite.

use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions};
use sqlx::{PgConnection, Row};

use crate::model::dsn::DatabaseAddress;
use crate::model::usage::BusinessRows;

/// One for the counts, one to spare; opened when needed.
const CONNECTIONS: u32 = 2;
const ACQUIRE_LIMIT: Duration = Duration::from_secs(2);
/// Longer than a period, so that a count does not begin with a login.
const IDLE_LIMIT: Duration = Duration::from_secs(180);

/// Above this many rows PostgreSQL's own estimate is taken: an exact count would read too much.
const EXACT_BELOW: i64 = 100_000;

/// The pool.
pub(super) enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// A table's statements; literals, because a name cannot be a parameter.
struct Table {
    name: &'static str,
    /// Nothing when the table is not there or may not be read: asking for it would fill the server's log with errors.
    postgres_estimate: &'static str,
    count: &'static str,
}

const PRODUCTS: Table = Table {
    name: "products",
    postgres_estimate: "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass('products') AND has_any_column_privilege(oid, 'SELECT')",
    count: "SELECT count(*) FROM products",
};
const VIDEOS: Table = Table {
    name: "videos",
    postgres_estimate: "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass('videos') AND has_any_column_privilege(oid, 'SELECT')",
    count: "SELECT count(*) FROM videos",
};
const SOCIAL_MEDIA_POSTS: Table = Table {
    name: "social_media_posts",
    postgres_estimate: "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass('social_media_posts') AND has_any_column_privilege(oid, 'SELECT')",
    count: "SELECT count(*) FROM social_media_posts",
};

/// In a transaction rather than as options of the connection, because a pooler in front refuses those.
const LIMITS: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '500ms'; SET LOCAL idle_in_transaction_session_timeout = '5s'";

impl Pool {
    /// A pool that connects when it is first asked; `None` for a database that nobody else can see.
    pub(super) fn open(address: &DatabaseAddress) -> Option<Self> {
        match address {
            DatabaseAddress::Postgres(options) => {
                let pool = PgPoolOptions::new()
                    .max_connections(CONNECTIONS)
                    .acquire_timeout(ACQUIRE_LIMIT)
                    .idle_timeout(IDLE_LIMIT);
                Some(Self::Postgres(pool.connect_lazy_with((**options).clone())))
            }
            DatabaseAddress::Sqlite(file) => {
                let pool =
                    SqlitePoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_LIMIT).idle_timeout(IDLE_LIMIT);
                Some(Self::Sqlite(pool.connect_lazy_with(file.options())))
            }
            DatabaseAddress::InProcess => None,
        }
    }

    /// Counts all tables.
    ///
    /// # Errors
    /// When the database does not answer; a table that cannot be read is `None` instead.
    pub(super) async fn count(&self) -> Result<BusinessRows, sqlx::Error> {
        Ok(BusinessRows {
            products: self.count_one(&PRODUCTS).await?,
            videos: self.count_one(&VIDEOS).await?,
            social_media_posts: self.count_one(&SOCIAL_MEDIA_POSTS).await?,
        })
    }

    async fn count_one(&self, table: &Table) -> Result<Option<u64>, sqlx::Error> {
        let counted = match self {
            Self::Postgres(pool) => {
                let mut connection = pool.acquire().await?;
                let counted = count_postgres(&mut connection, table).await;
                // also after an error: a transaction left open would hold back the application's vacuum
                sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
                counted
            }
            Self::Sqlite(pool) => {
                let mut connection = pool.acquire().await?;
                let row = sqlx::raw_sql(table.count).fetch_one(&mut *connection).await;
                row.and_then(|row| row.try_get::<i64, _>(0)).map(Some)
            }
        };
        match counted {
            Ok(count) => Ok(count.and_then(|count| u64::try_from(count).ok())),
            // not there, not allowed, locked for too long
            Err(sqlx::Error::Database(error)) => {
                tracing::debug!(table = table.name, code = error.code().as_deref(), "a table cannot be counted");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

async fn count_postgres(connection: &mut PgConnection, table: &Table) -> Result<Option<i64>, sqlx::Error> {
    sqlx::raw_sql(LIMITS).execute(&mut *connection).await?;
    let estimate = sqlx::raw_sql(table.postgres_estimate).fetch_optional(&mut *connection).await?;
    let Some(estimate) = estimate.map(|row| row.try_get::<i64, _>(0)).transpose()? else { return Ok(None) };
    if estimate >= EXACT_BELOW {
        return Ok(Some(estimate));
    }
    let row = sqlx::raw_sql(table.count).fetch_one(&mut *connection).await?;
    row.try_get::<i64, _>(0).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_is_of_its_table() {
        for table in [PRODUCTS, VIDEOS, SOCIAL_MEDIA_POSTS] {
            assert!(table.postgres_estimate.contains(&format!("to_regclass('{}')", table.name)));
            assert!(table.count.ends_with(&format!("FROM {}", table.name)));
        }
    }
}
