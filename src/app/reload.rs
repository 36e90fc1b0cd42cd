//! Reload: at SIGHUP and when the file has changed the configuration is read again, whole, and rooms take what they can.
//!
//! What is wrong changes nothing: one line of log says what, and the configuration in force is kept. What no room takes waits
//! for a restart and is named. Owns which settings are in force. Holds no knowledge of any room: each says itself what it
//! takes (`model::reload::Retune`).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::app::live::is_listed;
use crate::config::sources::{Sources, marks};
use crate::config::{Config, Loaded, Marks, changes};
use crate::lifecycle::Drain;
use crate::model::catalogue::reload::{
    CONFIG_RELOAD_FAILURES, CONFIG_RELOAD_SUCCESS, CONFIG_RELOAD_SUCCESS_TIME, CONFIG_RELOADS, CONFIG_RESTART_NEEDED,
};
use crate::model::reload::{ReloadState, Retune, is_within};
use crate::model::sample::Sample;
use crate::redact::{Outlet, Redactor};
use crate::settings::Key;
use crate::wall_clock::since_epoch;

/// Between two looks at the files; a change is taken when it stands for one of them, so that nobody is caught writing.
const LOOK: Duration = Duration::from_secs(1);
/// Problems that are shown: a file that is none at all has one for each line.
const MOST_PROBLEMS: usize = 20;

/// Where a configuration comes from, and how one is asked to read it again.
pub(super) struct Origin {
    /// What was read at the start, and is read again.
    sources: Sources,
    /// SIGHUP.
    hangups: Signal,
    keys: Vec<Key>,
    files: Vec<PathBuf>,
    marks: Marks,
    secrets: BTreeSet<String>,
}

impl Origin {
    /// Of what was loaded from these sources.
    #[must_use]
    pub(super) fn new(sources: Sources, loaded: &Loaded, hangups: Signal) -> Self {
        let secrets = loaded.config.secrets.expose().iter().cloned().collect();
        Self {
            sources,
            hangups,
            keys: loaded.keys.clone(),
            files: loaded.files.clone(),
            marks: loaded.marks.clone(),
            secrets,
        }
    }
}

/// The rooms that take settings while they work, and where those come from; `None` when they come from nowhere.
#[derive(Default)]
pub(super) struct Takers {
    origin: Option<Origin>,
    rooms: Vec<Taker>,
}

/// Hands a room its settings.
type Take = Box<dyn Fn(&Config) -> Result<(), String> + Send + Sync>;

struct Taker {
    live: &'static [&'static str],
    take: Take,
}

impl Takers {
    /// No room yet.
    pub(super) fn new(origin: Option<Origin>) -> Self {
        Self { origin, rooms: Vec::new() }
    }

    /// Adds a room, and where its settings are.
    pub(super) fn add<R: Retune>(&mut self, room: R, settings: fn(&Config) -> &R::Config) {
        debug_assert!(is_listed(R::LIVE), "{:?} are no settings of app::live", R::LIVE);
        self.rooms.push(Taker { live: R::LIVE, take: Box::new(move |config| room.retune(settings(config))) });
    }
}

/// Reads what became of changes; cheap to clone.
pub(super) type Reader = watch::Receiver<ReloadState>;

/// Reads the configuration again; owns which settings are in force.
pub(super) struct Reload {
    /// Held by `run` for its whole life, so that it can be started again after a panic.
    origin: Mutex<Origin>,
    takers: Vec<Taker>,
    state: watch::Sender<ReloadState>,
    redactor: Arc<Redactor>,
}

impl Reload {
    /// The room; `None` when there is nothing to read again.
    pub(super) fn new(takers: Takers, redactor: Arc<Redactor>) -> Option<(Self, Reader)> {
        let Takers { origin, rooms: takers } = takers;
        let origin = Mutex::new(origin?);
        let started = ReloadState { succeeded_at: since_epoch(), ..ReloadState::default() };
        let (state, reader) = watch::channel(started);
        Some((Self { origin, takers, state, redactor }, reader))
    }

    /// Follows signals and files until the process drains.
    pub(super) async fn run(&self, mut drain: Drain) {
        let mut origin = self.origin.lock().await;
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut used = origin.marks.clone();
        let mut seen = used.clone();
        loop {
            tokio::select! {
                Some(()) = origin.hangups.recv() => tracing::info!("SIGHUP: the configuration is read again"),
                _ = looks.tick() => {
                    let now = look(&origin.files).await;
                    let stands = std::mem::replace(&mut seen, now.clone()) == now;
                    if !stands || now == used {
                        continue;
                    }
                    tracing::info!("the file of the configuration has changed");
                }
                _ = drain.begun() => return,
            }
            // before it is read: what changes meanwhile is seen by the next look
            used = look(&origin.files).await;
            origin.marks.clone_from(&used);
            seen.clone_from(&used);
            let sources = origin.sources.clone();
            let read = tokio::task::spawn_blocking(move || sources.load()).await;
            match read {
                Ok(Ok(loaded)) => self.take(&mut origin, loaded),
                Ok(Err(error)) => self.refuse(error.0.iter().map(ToString::to_string).collect()),
                Err(_) => self.refuse(vec!["the configuration could not be read".into()]),
            }
        }
    }

    /// Hands a right configuration to the rooms, and notes what waits.
    fn take(&self, origin: &mut Origin, loaded: Loaded) {
        let Loaded { config, keys, files, .. } = loaded;
        let new: Vec<&String> = config.secrets.expose().iter().filter(|one| !origin.secrets.contains(*one)).collect();
        if !new.is_empty() && !self.redactor.learn(new.iter().map(|secret| secret.as_str())) {
            return self.refuse(vec!["secrets have changed too often since the start: a restart takes them".into()]);
        }
        origin.secrets.extend(new.into_iter().cloned());
        let mut waiting = changes(&origin.keys, &keys);
        let (taken, problems) = self.hand_out(&config, &mut waiting);
        origin.keys.retain(|key| !taken.contains(&key.path));
        origin.keys.extend(keys.into_iter().filter(|key| taken.contains(&key.path)));
        origin.files = files;
        let waiting: Vec<String> = waiting.into_iter().collect();
        if !problems.is_empty() {
            self.state.send_modify(|state| state.waiting.clone_from(&waiting));
            return self.refuse(problems);
        }
        let taken: Vec<String> = taken.into_iter().collect();
        tracing::info!(settings = %self.told(&taken), "the configuration is read again and right, and these settings are in force");
        if !waiting.is_empty() {
            tracing::warn!(settings = %self.told(&waiting), "these settings were changed and need a restart");
        }
        self.state.send_modify(|state| {
            state.reloads += 1;
            (state.has_failed, state.succeeded_at) = (false, since_epoch());
            state.problems.clear();
            state.waiting = waiting;
        });
    }

    /// Lets each room take what it can of what has changed; gives what was taken, and why the rest of it could not be.
    fn hand_out(&self, config: &Config, changed: &mut BTreeSet<String>) -> (BTreeSet<String>, Vec<String>) {
        let (mut taken, mut refused, mut problems) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for taker in &self.takers {
            // of two rooms that need the same setting both are told
            let theirs = || changed.iter().filter(|path| is_within(path, taker.live)).cloned();
            if theirs().next().is_none() {
                continue;
            }
            match (taker.take)(config) {
                Ok(()) => taken.extend(theirs()),
                Err(problem) => {
                    refused.extend(theirs());
                    problems.push(problem);
                }
            }
        }
        taken.retain(|path| !refused.contains(path));
        changed.retain(|path| !taken.contains(path));
        (taken, problems)
    }

    /// Keeps what is in force.
    fn refuse(&self, mut problems: Vec<String>) {
        problems.truncate(MOST_PROBLEMS);
        let mistake = self.redactor.text(Outlet::OwnLog, problems.join("; ").as_bytes()).into_owned();
        tracing::error!(%mistake, "the configuration is wrong, and the one in force is kept");
        let shown = |problem: &String| self.redactor.text(Outlet::Endpoint, problem.as_bytes()).as_str().to_owned();
        let problems = problems.iter().map(shown).collect();
        self.state.send_modify(|state| {
            state.reloads += 1;
            state.failures += 1;
            (state.has_failed, state.problems) = (true, problems);
        });
    }

    /// Names of settings: those of checks are chosen by people.
    fn told(&self, paths: &[String]) -> String {
        let text = if paths.is_empty() { "none".to_owned() } else { paths.join(" ") };
        self.redactor.text(Outlet::OwnLog, text.as_bytes()).as_str().to_owned()
    }
}

/// What became of changes, as metrics.
pub(super) fn samples(reader: &Reader, out: &mut Vec<Sample>) {
    let state = reader.borrow();
    out.push(Sample::level(&CONFIG_RELOAD_SUCCESS, (!state.has_failed).into()));
    out.push(Sample::level(&CONFIG_RELOAD_SUCCESS_TIME, state.succeeded_at.as_secs_f64()));
    out.push(Sample::count(&CONFIG_RELOADS, state.reloads));
    out.push(Sample::count(&CONFIG_RELOAD_FAILURES, state.failures));
    out.push(Sample::level(&CONFIG_RESTART_NEEDED, state.waiting.len() as f64));
}

/// How the files are found now; a disk is never waited for on a thread that answers.
async fn look(files: &[PathBuf]) -> Marks {
    let files = files.to_vec();
    tokio::task::spawn_blocking(move || marks(&files)).await.unwrap_or_default()
}
