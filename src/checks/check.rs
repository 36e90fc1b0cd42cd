//! What a check is, and what it finds: all that the kinds and the runner know of each other.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::checks::failure::Failure;
use crate::model::health::{CheckReport, HealthStatus};
use crate::redact::Clean;

/// Reads the last reports, from memory.
pub type Reader = watch::Receiver<Arc<[CheckReport]>>;

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
