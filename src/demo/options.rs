//! What the command line asks of the demo.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where telemetry goes instead of the built-in receiver.
    pub collector: Option<String>,
    /// When to end without being asked.
    pub duration: Option<Duration>,
    /// Where the application's clients connect.
    pub listen: SocketAddr,
    /// Where the sidecar's endpoints are served.
    pub admin: SocketAddr,
    /// Where the built-in application listens.
    pub app: SocketAddr,
    /// The environment, of which only the wishes for colour and for a collector are read.
    pub environment: BTreeMap<String, String>,
}
