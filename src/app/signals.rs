//! Signals: the first SIGTERM or SIGINT begins the drain, a second one ends it at once; SIGHUP asks for the configuration.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the process. Both are taken over when this is made.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// Takes SIGHUP over, for the life of the process: without that it would end it.
///
/// # Errors
/// When the system refuses, which it does only without file descriptors.
pub fn hangups() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

impl StopSignals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// When the system refuses, which it does only without file descriptors.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one, and gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
