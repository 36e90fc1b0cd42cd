//! The check by a command: its exit code decides. Off unless `health.allow_exec` is on.
//!
//! No shell: the list is the program and its arguments. It gets no input, no variable of ours but a fixed `PATH`, and what
//! it writes is read by nobody. At its timeout it is killed with all that it has started.

use std::process::Stdio;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::checks::check::{Check, Finding};
use crate::checks::failure::{Class, Failure};
use crate::checks::plan::{Commands, Kind, Plan, Reading};
use crate::checks::service::Pace;
use crate::model::trouble::Trouble;

/// Runs a command.
struct Exec {
    /// The program and its arguments.
    command: Vec<String>,
}

pub(super) const KIND: Kind = Kind {
    word: "exec",
    about: "a command that ends with 0, where `health.allow_exec` is on",
    pace: Pace::seconds(60, 10),
    read,
};

/// Our own variables hold secrets.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn read(reading: &mut Reading<'_, '_>) -> Option<Plan> {
    let about = "The program and its arguments, as a list; no shell reads it, and what it writes is not shown.";
    let command = reading.section.words("command", about);
    if command.first().is_none_or(String::is_empty) {
        reading.section.problem("command", "nothing", "a list such as [/usr/local/bin/probe, --quick]");
    }
    if reading.surroundings.commands == Commands::Refused {
        reading.section.problem("kind", "exec", "health.allow_exec: true, or another kind");
    }
    Some(Plan::new(move |_| Exec { command: command.clone() }))
}

#[async_trait]
impl Check for Exec {
    async fn run(&self) -> Result<Finding, Failure> {
        let (program, arguments) = self.command.split_first().ok_or(Failure::plain(Trouble::NotFound))?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", PATH).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut group = Group(command.spawn().map_err(|error| Failure::of(&error))?);
        let status = group.0.wait().await.map_err(|error| Failure::of(&error))?;
        match status.code() {
            Some(0) => Ok(Finding::Works),
            Some(code) => Err(Failure::plain(Class::Exit(u8::try_from(code).unwrap_or(u8::MAX)))),
            None => Err(Failure::new(Class::Condition("killed"), status.to_string())),
        }
    }
}

/// A command and whatever it has started; all of them end when it is dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // the number is gone once the command was waited for, and may be another's by then
        let id = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(id) = id {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}
