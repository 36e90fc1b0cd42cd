//! Configuration: file, environment and flags, read into each room's own `Config`.
//!
//! A flag wins over `SIDECAR_*`, that over `OTEL_*`, `DATABASE_URL` and their like, those over the file, the
//! file over defaults. All mistakes are reported at once. Only `sources` touches files and the environment.

pub mod document;
pub mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::model::telemetry::Signal;
use crate::problem::Problem;
use crate::redact::{Secret, environment_secrets};
use crate::settings::{Key, Section, Settings, Tree};
use crate::telemetry::issues::config::IssuesConfig;
use crate::{api, checks, database, egress, lease, proxy, system, tasks, telemetry, traffic};

/// The configuration as used: one value for each room.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data path.
    pub proxy: proxy::Config,
    /// Counting and route templates.
    pub traffic: traffic::config::Config,
    /// The way out.
    pub telemetry: telemetry::config::Config,
    /// The project at Sentry; `None` without one, or when nothing is exported.
    pub sentry: Option<IssuesConfig>,
    /// Health checks.
    pub checks: checks::config::Config,
    /// The tasks of Celery.
    pub celery: tasks::celery::config::Config,
    /// Who speaks for the cluster.
    pub lease: lease::config::Config,
    /// The node's numbers.
    pub system: system::config::Config,
    /// The way out to an AI service; `None` when it is switched off.
    pub egress: Option<egress::config::Config>,
    /// Business rows.
    pub database: database::config::Config,
    /// What the application tells of its tasks.
    pub tasks: tasks::config::Config,
    /// The admin port.
    pub admin: api::config::Config,
    /// How the application is named at the vendors.
    pub service: telemetry::resource::ServiceConfig,
    /// Our own log.
    pub log: telemetry::logging::LogConfig,
    /// The environment, of which the resource tells the pod.
    pub environment: BTreeMap<String, String>,
    /// Where files may be kept.
    pub data_dir: PathBuf,
    /// Every secret, of the settings and of the environment, for the redactor.
    pub secrets: Secret<Vec<String>>,
}

/// Files as they are found: by number, time and length, also behind links that are swapped.
pub type Marks = Vec<Option<(u64, i64, i64, u64)>>;

/// A configuration that was read, and how it was read.
#[derive(Debug)]
pub struct Loaded {
    /// The values to use.
    pub config: Config,
    /// Every key, for `print-config`.
    pub keys: Vec<Key>,
    /// The file that was read, if there is one; those of `_file` keys are followed by the rooms that can.
    pub files: Vec<PathBuf>,
    /// How it was found before it was read.
    pub marks: Marks,
    /// What a person should know though it is no mistake, such as an `OTEL_*` variable that is not supported.
    pub notices: Vec<String>,
}

/// Why there is no configuration to run with; exit code 64.
#[derive(Debug, thiserror::Error)]
#[error("{}", list(.0))]
pub struct ConfigError(pub Vec<Problem>);

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Reads a tree into a configuration; `read_file` gives the content of the files that `_file` keys name.
///
/// # Errors
/// Every mistake of the whole tree, in the order of the rooms.
pub fn read(
    tree: Tree,
    environment: &BTreeMap<String, String>,
    read_file: impl Fn(&str) -> Result<String, String>,
) -> Result<(Config, Vec<Key>), ConfigError> {
    let mut settings = Settings::new(tree, read_file);
    let mut config = rooms(&mut settings.section(""), environment);
    let (keys, problems, mut secrets) = settings.finish();
    if !problems.is_empty() {
        return Err(ConfigError(problems));
    }
    secrets.extend(environment_secrets(environment));
    config.secrets = Secret::new(secrets);
    Ok((config, keys))
}

/// The settings that say something else now, or are new or gone, by their paths.
#[must_use]
pub fn changes(before: &[Key], now: &[Key]) -> BTreeSet<String> {
    let by_path = |keys: &[Key]| keys.iter().map(|key| (key.path.clone(), key.clone())).collect::<BTreeMap<_, _>>();
    let (before, now) = (by_path(before), by_path(now));
    let differ = |path: &&String| match (before.get(*path), now.get(*path)) {
        (Some(before), Some(now)) => !now.says_as(before),
        _ => true,
    };
    before.keys().chain(now.keys()).filter(differ).cloned().collect()
}

fn rooms(root: &mut Section<'_>, environment: &BTreeMap<String, String>) -> Config {
    let about = "a folder for files of our own; when it cannot be written or is taken, all is kept in memory";
    let data_dir = root.text("data_dir", "./sidecar-data", about).into();
    let proxy = proxy::Config::read(&mut root.section("proxy"));
    let admin = api::config::Config::read(root);
    let traffic = traffic::config::Config::read(&mut root.section("traffic"));
    let mut telemetry = telemetry::config::Config::read(&mut root.section("telemetry"));
    let database = database::config::Config::read(root);
    let checks = checks::config::Config::read(root, &|name| environment.contains_key(name));
    let celery = tasks::celery::config::Config::read(root, checks.redis.as_ref());
    let host = environment.get("HOSTNAME").map(String::as_str);
    let lease = lease::config::Config::read(root, checks.redis.as_ref(), host);
    let system = system::config::Config::read(root);
    let tasks = tasks::config::Config::read(&mut root.section("tasks"));
    let egress = egress::config::Config::read(&mut root.section("egress"));
    let sentry = IssuesConfig::read(&mut root.section("sentry")).filter(|_| telemetry.enabled);
    telemetry.destinations[Signal::Envelopes as usize] = sentry.as_ref().and_then(IssuesConfig::destination);
    let service = telemetry::resource::ServiceConfig::read(&mut root.section("service"));
    let log = telemetry::logging::LogConfig::read(&mut root.section("log"));
    let (environment, secrets) = (environment.clone(), Secret::default());
    Config {
        proxy,
        traffic,
        telemetry,
        sentry,
        checks,
        celery,
        lease,
        system,
        egress,
        database,
        tasks,
        admin,
        service,
        log,
        environment,
        data_dir,
        secrets,
    }
}

/// Every key with its default: what an empty tree reads.
#[must_use]
pub fn keys() -> Vec<Key> {
    read(Tree::default(), &BTreeMap::new(), |path| Err(format!("{path} is not read")))
        .map(|(_, keys)| keys)
        .unwrap_or_default()
}
