//! The check of keys: whether they are present in the environment or an env file. Never reads on to their values.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::task::spawn_blocking;

use crate::checks::check::{Check, Finding};
use crate::checks::failure::Failure;
use crate::checks::plan::{Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::health::HealthStatus;
use crate::model::trouble::Trouble;
use crate::redact::{Clean, Outlet, Redactor};

/// An env file is a page of text; what is larger is none.
const LARGEST_FILE: u64 = 256 * 1024;

/// A key that is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::checks) struct Key {
    /// The name of the variable.
    pub(in crate::checks) name: String,
    /// The words for it.
    pub(in crate::checks) words: Clean<'static>,
    /// Whether the sidecar's own environment has it.
    pub(in crate::checks) in_environment: bool,
}

/// Looks for keys.
pub(in crate::checks) struct Env {
    keys: Vec<Key>,
    file: Option<PathBuf>,
}

pub(super) const KIND: Kind = Kind {
    word: "env",
    about: "variables that are set, in the sidecar's environment or in a file; their values are not read",
    pace: Pace::seconds(30, 2).at_once(),
    read,
};

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let names = reading.section.list("keys", &[], "Variables that must be set.");
    if names.is_empty() {
        reading.section.problem("keys", "nothing", "names of variables such as STRIPE_KEY");
    }
    let about = "A file of NAME=value lines that may hold these variables, as the application's own .env.";
    let file = reading.section.optional_text("env_file", about).map(PathBuf::from);
    let in_environment = reading.surroundings.in_environment;
    let keys: Vec<Key> = names.into_iter().map(|name| Key::new(name, in_environment)).collect();
    Some(Plan::new(move |_| Env::new(keys.clone(), file.clone())))
}

impl Key {
    /// A key of this name; `in_environment` tells whether a variable is set.
    pub(in crate::checks) fn new(name: String, in_environment: &dyn Fn(&str) -> bool) -> Self {
        Self { words: words(&name), in_environment: in_environment(&name), name }
    }
}

/// The application's own words for its keys, else the name.
fn words(name: &str) -> Clean<'static> {
    match name {
        "OPENAI_API_KEY" => Clean::literal("OpenAI API key"),
        "AI_AVATAR_API_KEY" => Clean::literal("AI Avatar service"),
        // a name is written into the configuration to be shown; it is still no text of ours
        other => Redactor::new([]).text(Outlet::Endpoint, other.as_bytes()).into_owned(),
    }
}

impl Env {
    /// Looks for these keys, also in this file, which is read anew each time.
    pub(in crate::checks) fn new(keys: Vec<Key>, file: Option<PathBuf>) -> Self {
        Self { keys, file }
    }
}

#[async_trait]
impl Check for Env {
    async fn run(&self) -> Result<Finding, Failure> {
        let in_file = match self.file.clone() {
            Some(file) => {
                let names = spawn_blocking(move || names_in(&file)).await;
                names.map_err(|error| Failure::of(&error))?.map_err(|error| {
                    // whatever else keeps a file from being read, the keys are not there
                    let is_denied = error.kind() == std::io::ErrorKind::PermissionDenied;
                    Failure::known(Some(if is_denied { Trouble::Auth } else { Trouble::NotFound }), &error)
                })?
            }
            None => Vec::new(),
        };
        Ok(finding(&self.keys, &in_file))
    }
}

fn finding(keys: &[Key], in_file: &[String]) -> Finding {
    let present = |key: &Key| key.in_environment || in_file.contains(&key.name);
    let texts: Vec<Clean<'static>> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let comma = Clean::literal(if index == 0 { "" } else { ", " });
            let word = Clean::literal(if present(key) { " configured" } else { " missing" });
            Clean::concat(&[comma, key.words.clone(), word])
        })
        .collect();
    let found = keys.iter().filter(|key| present(key)).count();
    let status = match found {
        0 => HealthStatus::Unhealthy,
        _ if found < keys.len() => HealthStatus::Degraded,
        _ => HealthStatus::Healthy,
    };
    Finding::Told(status, Clean::concat(&texts))
}

/// The names that a file of `NAME=value` lines gives a value.
fn names_in(file: &Path) -> std::io::Result<Vec<String>> {
    let length = std::fs::metadata(file)?.len();
    if length > LARGEST_FILE {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "an env file of more than 256 KiB"));
    }
    Ok(std::fs::read_to_string(file)?.lines().filter_map(name_in).map(str::to_owned).collect())
}

/// The name in one line, if it is given a value that is not empty.
fn name_in(line: &str) -> Option<&str> {
    let line = line.trim();
    let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!line.starts_with('#') && !value.is_empty()).then(|| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(in_environment: [bool; 2]) -> Vec<Key> {
        let key = |(name, words), in_environment| Key {
            name: String::from(name),
            words: Clean::literal(words),
            in_environment,
        };
        vec![
            key(("OPENAI_API_KEY", "OpenAI API key"), in_environment[0]),
            key(("AI_AVATAR_API_KEY", "AI Avatar service"), in_environment[1]),
        ]
    }

    #[test]
    fn each_key_is_told_and_half_of_them_is_degraded() {
        for (present, status, message) in [
            ([true, true], HealthStatus::Healthy, "OpenAI API key configured, AI Avatar service configured"),
            ([false, true], HealthStatus::Degraded, "OpenAI API key missing, AI Avatar service configured"),
            ([false, false], HealthStatus::Unhealthy, "OpenAI API key missing, AI Avatar service missing"),
        ] {
            assert_eq!(finding(&keys(present), &[]), Finding::Told(status, Clean::literal(message)));
        }
    }

    #[tokio::test]
    async fn a_key_in_the_file_counts_unless_it_is_empty_or_a_comment() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let text = "# OPENAI_API_KEY=x\nexport AI_AVATAR_API_KEY='canary-canary'\nOPENAI_API_KEY=\"\"\n";
        std::fs::write(file.path(), text).expect("a temporary file");
        let check = Env::new(keys([false, false]), Some(file.path().into()));
        let message = "OpenAI API key missing, AI Avatar service configured";
        assert_eq!(check.run().await, Ok(Finding::Told(HealthStatus::Degraded, Clean::literal(message))));
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_told() {
        let check = Env::new(keys([true, true]), Some("/nowhere/.env".into()));
        assert_eq!(check.run().await.map_err(|failure| failure.class), Err(Trouble::NotFound.into()));
    }
}
