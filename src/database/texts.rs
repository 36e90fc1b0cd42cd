//! Texts from the server, cleaned and cut before they go anywhere.

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::database::fault::Fault;
use crate::redact::{Clean, Outlet, Redactor};

/// Names of the server's have at most 63 bytes, unless somebody lies.
const LONGEST_NAME: usize = 128;

/// A name of the server's.
///
/// # Errors
/// When the column is not a text.
pub(super) fn name(redactor: &Redactor, row: &PgRow, column: usize) -> Result<Clean<'static>, Fault> {
    Ok(optional_name(redactor, row, column)?.unwrap_or(Clean::literal("")))
}

/// The same that may be absent.
///
/// # Errors
/// When the column is not a text.
pub(super) fn optional_name(redactor: &Redactor, row: &PgRow, column: usize) -> Result<Option<Clean<'static>>, Fault> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(text.map(|text| redactor.text(Outlet::Endpoint, text.as_bytes()).into_owned().cut(LONGEST_NAME)))
}

/// A count: what is negative or absent is nothing.
///
/// # Errors
/// When the column is no whole number.
pub(super) fn count(row: &PgRow, column: usize) -> Result<u64, Fault> {
    let number: Option<i64> = row.try_get(column)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default())
}

/// Seconds or bytes that may be absent; what is no number is absent, too.
///
/// # Errors
/// When the column is no number.
pub(super) fn amount(row: &PgRow, column: usize) -> Result<Option<f64>, Fault> {
    let number: Option<f64> = row.try_get(column)?;
    Ok(number.filter(|number| number.is_finite()))
}
