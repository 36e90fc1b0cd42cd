//! Signals: the first SIGTERM or SIGINT begins the drain, a second one ends it at once; SIGHUP asks for the configuration.
//!
//! Each is taken over before the configuration is read: until then the system ends the process by it, as it does before `main`.
//! What comes before somebody waits for it is remembered, once of each kind.

use std::io;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the process.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

/// Takes SIGHUP over, for the life of the process, and those that end it.
///
/// To be called while no runtime runs yet, and outside of any.
///
/// # Errors
/// When the system refuses, which it does only without file descriptors.
pub fn take_over() -> io::Result<(StopSignals, Signal)> {
    before_any_runtime(|| {
        let hangups = signal(SignalKind::hangup())?;
        Ok((StopSignals::listen()?, hangups))
    })
}

/// Registers signals while nobody reads them. A runtime that runs already would read one that comes in the midst of it, find
/// that nobody waits for it, and forget it; read by the first runtime that runs, it finds whoever was registered.
fn before_any_runtime<T>(register: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let idle = Builder::new_current_thread().enable_io().build()?;
    let _entered = idle.enter();
    register()
}

impl StopSignals {
    /// Takes these signals over alone, as `take_over` does.
    ///
    /// # Errors
    /// When the system refuses, which it does only without file descriptors.
    pub fn take_over() -> io::Result<Self> {
        before_any_runtime(Self::listen)
    }

    fn listen() -> io::Result<Self> {
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
