//! `health`: asks a running sidecar, for containers without a shell.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use reqwest::{Certificate, Client};
use serde_json::Value;
use url::Url;

use crate::cli::arguments::HealthTarget;
use crate::credentials;
use crate::fetch::USER_AGENT;
use crate::redact::Secret;

/// Longer than any answer from memory takes, shorter than a probe's patience.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the target and prints the answer; success when it is 200 and not `unhealthy`.
pub(super) fn ask(target: &HealthTarget, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let (client, token) = match client(target).and_then(|client| Ok((client, token(target)?))) {
        Ok(way) => way,
        Err(mistake) => {
            writeln!(err, "{mistake}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(fetch(&client, &target.url, token.as_ref())) {
        Ok((status, body)) => {
            writeln!(out, "{}", body.trim_end())?;
            let word = serde_json::from_str::<Value>(&body)
                .ok()
                .and_then(|value| Some(value.get("status")?.as_str()?.to_owned()));
            let well = status == 200 && word.as_deref() != Some("unhealthy");
            Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            writeln!(err, "{} does not answer: {}", target.url, root_cause(&error))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Trusts whom it is told to. Nobody is between us and our own machine, so there no certificate is looked at, as the kubelet
/// looks at none: it is made for the names that others know.
fn client(target: &HealthTarget) -> Result<Client, String> {
    let builder = Client::builder().user_agent(USER_AGENT).timeout(TIMEOUT).no_proxy();
    let builder = match &target.ca {
        Some(file) => {
            let pem = credentials::read(file)?;
            let trusted = credentials::certificates(&pem)
                .and_then(|found| {
                    found
                        .iter()
                        .map(|der| Certificate::from_der(der))
                        .collect::<Result<Vec<_>, _>>()
                        .map_err(|error| error.to_string())
                })
                .map_err(|expected| format!("{}: expected {expected}", file.display()))?;
            builder.tls_certs_only(trusted)
        }
        None if is_loopback(&target.url) => builder.tls_danger_accept_invalid_certs(true),
        None => builder,
    };
    builder.build().map_err(|error| root_cause(&error))
}

/// The first word of the file of tokens, so that the sidecar's own will do.
fn token(target: &HealthTarget) -> Result<Option<Secret<String>>, String> {
    let Some(file) = &target.token_file else { return Ok(None) };
    let text = credentials::read(file)?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let token = lines.flat_map(|line| line.split([',', ' ', '\t'])).find(|word| !word.is_empty());
    let token = token.ok_or_else(|| format!("{}: expected a token", file.display()))?;
    Ok(Some(Secret::new(token.to_owned())))
}

fn is_loopback(url: &str) -> bool {
    let url = Url::parse(url).ok();
    url.is_some_and(|url| match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    })
}

async fn fetch(client: &Client, url: &str, token: Option<&Secret<String>>) -> reqwest::Result<(u16, String)> {
    let request = client.get(url);
    let request = match token {
        Some(token) => request.bearer_auth(token.expose()),
        None => request,
    };
    let response = request.send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
