//! What a receiver is shown and whom it must convince, read again from their files: a token, a certificate and its key,
//! authorities.
//!
//! What is new is used only if all of it is right; else what was in use stays, and the log says so once. Does not watch:
//! whoever sends looks before an attempt, and again when the receiver does not accept the token.

use crate::credentials::read;
use crate::redact::Secret;
use crate::telemetry::config::DestinationConfig;
use crate::telemetry::headers;

/// Whether there is anything to read again.
pub(crate) fn are_in_files(config: &DestinationConfig) -> bool {
    config.headers_file.is_some() || config.tls.is_of_files()
}

/// The same receiver with what the files hold now. Blocks while it reads.
///
/// # Errors
/// A file cannot be read, or what it holds is wrong: which, and what was expected.
pub(crate) fn reread(config: &DestinationConfig) -> Result<DestinationConfig, String> {
    let mut again = config.clone();
    if let Some(file) = &config.headers_file {
        let headers = headers::parse(&read(file)?);
        again.headers =
            headers.map(Secret::new).map_err(|expected| format!("{}: expected headers, {expected}", file.display()))?;
    }
    again.tls = config.tls.reread(read)?;
    Ok(again)
}
