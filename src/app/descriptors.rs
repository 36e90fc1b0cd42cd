//! File descriptors: as many as the system grants, because each client is one and may need a second.
//!
//! The soft limit is often 1,024 for the sake of programs that use `select`; a program that does not may raise it to
//! the hard one, and is expected to. Who may still not take as many clients as configured is told so by the proxy.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(from = current, to = maximum, "the limit of open files is raised"),
        Err(error) => tracing::warn!(%error, current, maximum, "the limit of open files cannot be raised"),
    }
}
