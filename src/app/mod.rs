//! Composition: makes the rooms, carries values from one to another, restarts them, and drains.
//!
//! Holds no logic of its own: everything it knows is who needs what. Two phases end a life: first the proxy
//! drains, then the rooms behind it, so that the last request's telemetry still leaves.

mod addresses;
pub mod data_dir;
mod descriptors;
mod live;
pub mod panics;
mod reload;
mod rooms;
pub mod signals;
pub mod supervisor;

use std::io::{self, Write};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::app::reload::Origin;
use crate::app::rooms::Rooms;
use crate::config::sources::Sources;
use crate::config::{Config, ConfigError};
use crate::lifecycle::{self, Conductor};

pub use addresses::Addresses;
pub use live::is_live;
pub use rooms::{Readers, RoomError};

/// Threads of the control runtime: one may wait for a disk while the other answers a probe.
const CONTROL_THREADS: usize = 2;

/// How long rooms may take to end once telemetry has had its own deadline.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// Why the sidecar could not start; exit code 1, or 64 where the configuration is wrong.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Reading it has panicked, of which standard error tells the place.
    #[error("the configuration cannot be read because of a bug")]
    Reading,
    /// The control runtime could not be made.
    #[error("cannot start the control runtime")]
    Runtime(#[source] io::Error),
    /// A room.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// The output that names the addresses is closed.
    #[error("cannot write the addresses to standard output")]
    Output(#[source] io::Error),
}

/// A sidecar that serves.
pub struct App {
    addresses: Addresses,
    readers: Readers,
    rooms: Rooms,
    /// Begins the drain of the data path.
    data: Conductor,
    /// Begins the end of everything behind it.
    control: Conductor,
}

/// Runs what these sources say until a signal, with its own runtime and its addresses on `out`.
///
/// Signals are taken over before anything is read; one that ends the process while it is read ends it well.
///
/// # Errors
/// When the configuration is wrong, a port is taken or the runtime cannot be made; nothing that fails later ends it.
pub fn run(sources: Sources, out: &mut (dyn Write + Send)) -> Result<(), StartError> {
    let (mut signals, hangups) = signals::take_over().map_err(StartError::Runtime)?;
    let runtime = control_runtime()?;
    let ended = runtime.block_on(async {
        let read = sources.clone();
        let loaded = tokio::select! {
            // a file may be slow to come, on a disk that is not there
            loaded = spawn_blocking(move || read.load()) => loaded.map_err(|_| StartError::Reading)??,
            _ = signals.next() => return Ok(()),
        };
        let origin = Origin::new(sources, &loaded, hangups);
        let app = App::begin(loaded.config, Some(origin)).await?;
        for notice in &loaded.notices {
            tracing::warn!("{notice}");
        }
        app.addresses().write_to(out).map_err(StartError::Output)?;
        app.serve_until(async move || signals.next().await).await;
        Ok(())
    });
    // a name that is still being resolved would hold the process for as long as the system likes
    runtime.shutdown_timeout(LAST_MOMENTS);
    ended
}

/// The runtime of everything but the data path.
///
/// # Errors
/// When the system gives no threads.
pub fn control_runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)
}

impl App {
    /// Binds the ports, then starts every room; serves when this returns.
    ///
    /// # Errors
    /// When a port is taken or the way out cannot be set up.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::begin(config, None).await
    }

    /// The same, and follows the origin of the configuration, if there is one.
    async fn begin(config: Config, origin: Option<Origin>) -> Result<Self, StartError> {
        let (data, data_drain) = lifecycle::drain();
        let (control, control_drain) = lifecycle::drain();
        let (rooms, addresses, readers) = Rooms::start(config, origin, data_drain, control_drain).await?;
        Ok(Self { addresses, readers, rooms, data, control })
    }

    /// Where it serves.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Handles for whoever shows what goes on.
    #[must_use]
    pub fn readers(&self) -> Readers {
        self.readers.clone()
    }

    /// Serves until `stop` gives the reason, then drains; a second `stop` ends the drain at once.
    pub async fn serve_until(mut self, mut stop: impl AsyncFnMut() -> &'static str) {
        let reason = tokio::select! {
            reason = stop() => reason,
            () = self.rooms.supervisor.watch() => unreachable!("the rooms are watched for ever"),
        };
        let limit = self.rooms.drain_limit;
        tracing::info!(reason, limit_seconds = limit.as_secs_f64(), "draining");
        self.data.drain_within(limit);
        tokio::select! {
            () = self.rooms.proxy_finished() => {}
            reason = stop() => {
                tracing::warn!(reason, "stopped again: the drain ends at once");
                self.data.abort();
            }
        }
        let limit = self.rooms.shutdown_limit;
        self.control.drain_within(limit);
        let cut_off = self.rooms.supervisor.finish_by(Instant::now() + limit + LAST_MOMENTS).await;
        if !cut_off.is_empty() {
            tracing::warn!(rooms = cut_off.join(" "), "rooms did not end in time");
        }
    }
}
