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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::telemetry::Signal;
    use crate::settings::{Place, Settings, Tree};
    use crate::telemetry::config::Config;
    use serde_json::json;

    #[test]
    fn a_file_that_is_as_it_was_at_the_start_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, token) = (folder.path().join("ca.pem"), folder.path().join("headers"));
        let certificate = rcgen::generate_simple_self_signed(["collector.test".to_owned()]).unwrap().cert;
        std::fs::write(&ca, certificate.pem() + "\n").unwrap();
        std::fs::write(&token, "api-key=hunter2\n").unwrap();
        let mut tree = Tree::default();
        let tls = json!({"ca_file": ca});
        let telemetry = json!({"endpoint": "https://collector.test:4317", "headers_file": token, "tls": tls});
        tree.merge(json!({"telemetry": telemetry}), &Place("this test".into()));
        let mut settings =
            Settings::new(tree, |path: &str| std::fs::read_to_string(path).map_err(|error| error.to_string()));
        let mut config = Config::read(&mut settings.section("telemetry"));
        let traces = config.destinations[Signal::Traces as usize].take().unwrap();
        assert!(are_in_files(&traces) && traces.tls.ca.is_some());
        assert_eq!(reread(&traces), Ok(traces));
    }
}
