//! `health`: asks a running sidecar, for containers without a shell.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::fetch::USER_AGENT;

/// Longer than any answer from memory takes, shorter than a probe's patience.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks `url` and prints the answer; success when it is 200 and not `unhealthy`.
pub(super) fn ask(url: &str, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(fetch(url)) {
        Ok((status, body)) => {
            writeln!(out, "{}", body.trim_end())?;
            let word = serde_json::from_str::<Value>(&body)
                .ok()
                .and_then(|value| Some(value.get("status")?.as_str()?.to_owned()));
            let well = status == 200 && word.as_deref() != Some("unhealthy");
            Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            writeln!(err, "{url} does not answer: {}", root_cause(&error))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn fetch(url: &str) -> reqwest::Result<(u16, String)> {
    let client = reqwest::Client::builder().user_agent(USER_AGENT).timeout(TIMEOUT).no_proxy().build()?;
    let response = client.get(url).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
