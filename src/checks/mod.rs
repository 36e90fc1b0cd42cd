//! Health checks in the background: schedule, thresholds, the last report of each.
//!
//! A check is one function of a target to a finding; everything else (when, how long, how often before it counts,
//! the words) is the runner's. A new kind is one file and one line in `kinds`. Reports are read from memory, always.
//! What the application says of itself is asked here too, because it is here that its comings and goings are seen.
//! Never tells raw errors: fixed words and a class, the rest goes, redacted, to our own log.

mod about;
mod application;
mod check;
pub mod config;
mod damping;
mod env;
mod failure;
mod http;
mod kinds;
mod lives;
mod redis;
mod runner;
mod samples;
mod sql;

pub use about::Introduction;
pub use check::{Check, Finding};
pub use failure::{Class, Failure};
pub use kinds::{Targets, build};
pub use lives::Lives;
pub use runner::{Reader, Runner};
pub use samples::samples;
