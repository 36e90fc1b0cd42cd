//! Who answers, and how much of it our role may see.

use sqlx::Row;

use crate::database::fault::Fault;
use crate::database::session::Session;
use crate::database::texts::{count, name};
use crate::model::database::values::{Server, Visibility};
use crate::model::trouble::Trouble;
use crate::redact::Redactor;

/// `reserved_connections` is of PostgreSQL 16 and later, and absent before.
const SERVER: &str = "SELECT current_setting('server_version_num')::int8, current_setting('server_version'), \
     current_database()::text, current_user::text, pg_has_role(current_user, 'pg_read_all_stats', 'usage'), \
     pg_is_in_recovery(), (current_setting('max_connections')::int8 \
     - current_setting('superuser_reserved_connections')::int8 \
     - coalesce(current_setting('reserved_connections', true)::int8, 0))";

/// The version as the server numbers it, such as 150014.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) i64);

/// The first version that is read; before it, statistics have other columns.
const FIRST: Version = Version(130_000);
/// Numbers of statements, and since when a lock is waited for.
pub(super) const V14: Version = Version(140_000);

/// Asks the server of itself.
///
/// # Errors
/// When it does not answer, or is older than we can read.
pub(super) async fn read(session: &mut Session, redactor: &Redactor) -> Result<(Version, Server), Fault> {
    let rows = session.rows(SERVER, 1).await?;
    let row = rows.first().ok_or_else(|| Fault::plain(Trouble::Protocol))?;
    let version = Version(row.try_get(0)?);
    if version < FIRST {
        let detail = "found a server older than PostgreSQL 13".to_owned();
        return Err(Fault { detail, is_answer: true, ..Fault::plain(Trouble::Protocol) });
    }
    let sees_all: bool = row.try_get(4)?;
    let server = Server {
        version: name(redactor, row, 1)?,
        namespace: name(redactor, row, 2)?,
        role: name(redactor, row, 3)?,
        visibility: if sees_all { Visibility::Full } else { Visibility::Partial },
        is_standby: row.try_get(5)?,
        connection_limit: count(row, 6)?,
    };
    Ok((version, server))
}
