//! The command line: subcommands, flags and exit codes.
//!
//! Writes to what it is given, so that tests can read it; the logs go elsewhere (standard error).

mod arguments;
mod check_export;
mod health;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::app::{self, StartError};
use crate::cli::arguments::{Arguments, Command, Page};
use crate::config::document;
use crate::config::{self, ConfigError};
use crate::demo::{self, DemoError};
use crate::{api, checks, model};

/// The exit code of a wrong configuration or command line: `EX_USAGE` of sysexits.
pub const EXIT_USAGE: u8 = 64;

/// What the command line is given by its process.
pub struct Process<'a> {
    /// The arguments, the name of the program first.
    pub arguments: Vec<String>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// Standard output.
    pub out: &'a mut (dyn Write + Send),
    /// Standard error.
    pub err: &'a mut (dyn Write + Send),
}

/// Runs a command to its end.
///
/// # Errors
/// Only when an output cannot be written.
pub fn run(process: Process<'_>) -> io::Result<ExitCode> {
    let Process { arguments, environment, out, err } = process;
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        // clap writes help and version here, too; those are no mistake
        Err(error) if error.use_stderr() => {
            write!(err, "{error}")?;
            return Ok(ExitCode::from(EXIT_USAGE));
        }
        Err(text) => {
            write!(out, "{text}")?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let command = parsed.command.unwrap_or(Command::Run(parsed.run));
    if matches!(command, Command::Run(_) | Command::Demo(_)) {
        app::panics::tell_without_data();
    }
    match command {
        Command::Run(flags) => match app::run(flags.sources(environment), out) {
            Err(StartError::Config(error)) => refuse(&error, err),
            result => report(result, err),
        },
        Command::Demo(flags) => match demo::run(flags.options(environment), out) {
            Err(DemoError::Config(error)) => refuse(&error, err),
            result => report(result, err),
        },
        Command::CheckConfig(flags) => match flags.sources(environment).load() {
            Ok(loaded) => {
                for notice in loaded.notices {
                    writeln!(err, "note: {notice}")?;
                }
                writeln!(out, "the configuration is valid")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => refuse(&error, err),
        },
        Command::CheckExport(flags) => {
            let patience = flags.patience;
            match flags.run.sources(environment).load() {
                Ok(loaded) => check_export::run(&loaded.config, patience, out, err),
                Err(error) => refuse(&error, err),
            }
        }
        Command::PrintConfig(flags) => match flags.sources(environment).load() {
            Ok(loaded) => print(&document::yaml(&loaded.keys), out),
            Err(error) => refuse(&error, err),
        },
        Command::Health(target) => health::ask(&target, out, err),
        Command::Openapi => print(&api::openapi(), out),
        Command::Docs { page: Page::Metrics } => print(&model::exposition::metrics_markdown(), out),
        Command::Docs { page: Page::Configuration } => {
            print(&document::markdown(&config::keys(), &checks::documentation(), app::is_live), out)
        }
    }
}

fn print(text: &str, out: &mut dyn Write) -> io::Result<ExitCode> {
    out.write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn refuse(error: &ConfigError, err: &mut dyn Write) -> io::Result<ExitCode> {
    let count = error.0.len();
    let noun = if count == 1 { "mistake" } else { "mistakes" };
    writeln!(err, "the configuration has {count} {noun}:")?;
    for problem in &error.0 {
        writeln!(err, "  {problem}")?;
    }
    Ok(ExitCode::from(EXIT_USAGE))
}

fn report<E: Error>(result: Result<(), E>, err: &mut dyn Write) -> io::Result<ExitCode> {
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            writeln!(err, "{}", with_causes(&error))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The error and its causes on one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        // some libraries repeat their cause in their own text
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}
