//! Health checks in the background: schedule, thresholds, the last report of each.
//!
//! A check is one function of a target to a finding; everything else (when, how long, how often before it counts,
//! the words) is the runner's. A new kind is one file and one line in `kinds`. Reports are read from memory, always.
//! What the application says of itself is asked here too, because it is here that its comings and goings are seen.
//! Never tells raw errors: fixed words and a class, the rest goes, redacted, to our own log.

mod about;
mod archive;
mod beats;
mod build;
mod certificate;
mod check;
pub mod config;
mod damping;
mod desk;
mod door;
mod failure;
mod kinds;
mod lives;
mod maintenance;
mod own;
mod past;
mod plan;
mod runner;
mod samples;
mod service;
mod track;
mod uptime;

pub use about::{Introduction, Page};
pub use archive::Archive;
pub use build::{Targets, build};
pub use check::{Check, Finding, Reader};
pub use desk::Desk;
pub use door::Ran;
pub use failure::{Class, Failure};
pub use lives::Lives;
pub use own::documentation;
pub use runner::{Runner, Tuner};
pub use samples::samples;
