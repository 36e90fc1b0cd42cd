//! Health checks in the background: schedule, thresholds, the last report of each.
//!
//! A check is one function of a target to a finding; everything else (when, how long, how often before it counts,
//! the words) is the runner's. A new kind is one file and one line in `kinds`. Reports are read from memory, always.
//! What the application says of itself is asked here too, because it is here that its comings and goings are seen.
//! Never tells raw errors: fixed words and a class, the rest goes, redacted, to our own log.

mod about;
mod application;
pub mod config;
mod damping;
mod env;
mod failure;
mod http;
mod kinds;
mod lives;
mod redis;
mod runner;
mod sql;

use async_trait::async_trait;

use crate::model::health::HealthStatus;
use crate::redact::Clean;

pub use about::Introduction;
pub use failure::{Class, Failure};
pub use kinds::{Reader, Targets, build, samples};
pub use lives::Lives;
pub use runner::Runner;

/// One kind of check.
///
/// `run` is called again and again, never twice at once, and dropped when its time is over: whatever it holds then,
/// such as a connection, must end with it.
#[async_trait]
pub trait Check: Send + Sync {
    /// Looks once.
    async fn run(&self) -> Result<Finding, Failure>;
}

/// What a check found when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It works: the service's usual words.
    Works,
    /// Words of its own.
    Told(HealthStatus, Clean<'static>),
}
