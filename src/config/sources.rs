//! The sources of the configuration: file, environment and flags, merged into one tree.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{ConfigError, Loaded, Marks, read};
use crate::problem::Problem;
use crate::redact::{Outlet, Redactor, environment_secrets};
use crate::settings::{Place, Tree};
use crate::telemetry;
use crate::telemetry::container::container_id;
use crate::telemetry::resource::OWN_CONTAINER_ID;

/// The file that is read when none is named, if it is there.
pub const DEFAULT_FILE: &str = "sidecar.yaml";

/// What there is to read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// Flags as (flag, path of the key, value).
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// The variables of others that set one of our keys.
const FOREIGN: &[(&str, &str)] =
    &[("DATABASE_URL", "database.url"), ("REDIS_URL", "redis.url"), ("SENTRY_DSN", "sentry.dsn")];

/// Variables that Kubernetes sets for a Service named `sidecar`; they are no settings. Those of `service.*` have two underscores.
const SERVICE_LINKS: &[&str] = &["SIDECAR_SERVICE_", "SIDECAR_PORT"];

/// By which the application finds the sidecar's admin port (`clients/python`): both may have the same environment.
const OF_CLIENTS: &[&str] = &["SIDECAR_URL", "SIDECAR_TOKEN", "SIDECAR_TOKEN_FILE"];

impl Sources {
    /// Reads all of them into a configuration.
    ///
    /// # Errors
    /// Every mistake at once: an unreadable file, YAML that is none, and each wrong or unknown key.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut tree = Tree::default();
        let mut notices = Vec::new();
        let files = Vec::from_iter(self.path());
        let marks = marks(&files);
        let mut problems: Vec<Problem> = self.merge_file(&mut tree).err().into_iter().collect();
        // an empty variable counts as unset, as OpenTelemetry's specification has it
        let mut environment: BTreeMap<String, String> = self
            .environment
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        name_the_host(&mut environment);
        name_the_container(&mut environment);
        for (variable, path) in FOREIGN {
            if let Some(value) = environment.get(*variable) {
                tree.set(path, Value::from(value.clone()), &Place((*variable).into()));
            }
        }
        let told = telemetry::environment::apply(&environment, &mut tree);
        notices.extend(told.remarks);
        problems.extend(told.problems);
        for (variable, value) in environment.iter().filter_map(|(name, value)| Some((own(name)?, value))) {
            tree.set(&variable.path, Value::from(value.clone()), &Place(variable.name.to_owned()));
        }
        for (flag, path, value) in &self.flags {
            tree.set(path, Value::from(value.clone()), &Place((*flag).into()));
        }
        match read(tree, &environment, read_secret_file) {
            Ok((config, mut keys)) if problems.is_empty() => {
                let redactor = Redactor::new(config.secrets.expose().iter().map(String::as_str));
                let told = keys.iter_mut().map(|key| &mut key.value).chain(&mut notices);
                told.for_each(|text| clean(&redactor, text));
                Ok(Loaded { config, keys, files, marks, notices })
            }
            Ok(_) => Err(ConfigError(without_secrets(problems, &environment))),
            Err(ConfigError(more)) => {
                problems.extend(more);
                Err(ConfigError(without_secrets(problems, &environment)))
            }
        }
    }

    /// The file: the one that was named, else the default one if there is one.
    fn path(&self) -> Option<PathBuf> {
        let default = || Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE));
        self.file.clone().or_else(default)
    }

    fn merge_file(&self, tree: &mut Tree) -> Result<(), Problem> {
        let Some(path) = self.path() else { return Ok(()) };
        let place = path.display().to_string();
        let wrong = |found: String, expected: &str| Problem {
            path: place.clone(),
            found,
            expected: expected.into(),
            place: if self.file.is_some() { "--config".into() } else { String::new() },
        };
        let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string(), "a readable file"))?;
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(());
        }
        let document: Value =
            serde_saphyr::from_str(&text).map_err(|error| wrong(first_line(&error.to_string()), "a YAML document"))?;
        if !document.is_object() {
            return Err(wrong("a document that is no mapping".into(), "a mapping such as `proxy: {listen: …}`"));
        }
        tree.merge(document, &Place(place));
        Ok(())
    }
}

/// How these files are found now; blocks.
#[must_use]
pub fn marks(files: &[PathBuf]) -> Marks {
    let mark = |path: &PathBuf| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    };
    files.iter().map(mark).collect()
}

/// Mistakes are told to people, and their terminal is often somebody's log.
fn without_secrets(mut problems: Vec<Problem>, environment: &BTreeMap<String, String>) -> Vec<Problem> {
    let secrets = environment_secrets(environment);
    let redactor = Redactor::new(secrets.iter().map(String::as_str));
    for problem in &mut problems {
        clean(&redactor, &mut problem.found);
        clean(&redactor, &mut problem.expected);
    }
    problems
}

fn clean(redactor: &Redactor, text: &mut String) {
    let cleaned = redactor.text(Outlet::OwnLog, text.as_bytes());
    if cleaned.as_str() != text {
        *text = cleaned.as_str().to_owned();
    }
}

struct OwnVariable<'a> {
    name: &'a str,
    path: String,
}

/// `SIDECAR_PROXY__POOL_IDLE` is `proxy.pool_idle`.
fn own(name: &str) -> Option<OwnVariable<'_>> {
    let is_link = SERVICE_LINKS.iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with("SIDECAR_SERVICE__");
    if is_link || OF_CLIENTS.contains(&name) {
        return None;
    }
    let rest = name.strip_prefix("SIDECAR_").filter(|rest| !rest.is_empty())?;
    Some(OwnVariable { name, path: rest.to_lowercase().replace("__", ".") })
}

/// Shells keep `HOSTNAME` to themselves, and telemetry without an instance cannot be told apart: the kernel knows it.
fn name_the_host(environment: &mut BTreeMap<String, String>) {
    if environment.contains_key("HOSTNAME") {
        return;
    }
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if !name.trim().is_empty() {
        environment.insert("HOSTNAME".into(), name.trim().to_owned());
    }
}

/// Nobody tells a process its container: the kernel does, in its own way for each runtime.
fn name_the_container(environment: &mut BTreeMap<String, String>) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let id = container_id(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    environment.remove(OWN_CONTAINER_ID); // it is no setting
    environment.extend(id.map(|id| (OWN_CONTAINER_ID.to_owned(), id)));
}

fn read_secret_file(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| error.to_string())
}

fn first_line(text: &str) -> String {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unreadable").trim().to_owned()
}
