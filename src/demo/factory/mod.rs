//! A small content factory: the application that the demo puts behind the sidecar.
//!
//! Has the routes of the real one and its habits: a stream, a slow report, an AI service that refuses at a known
//! rate, failures inside answers that are 200. Knows nothing of the sidecar in front of it.

mod handlers;
mod operations;
mod progress;
mod store;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;

use crate::demo::factory::store::Store;

/// Its AI services are as invented as their keys.
const KEYS: &str = "OPENAI_API_KEY=demo\nAI_AVATAR_API_KEY=demo\n";

/// A factory whose port is open.
pub(super) struct Factory {
    listener: TcpListener,
    address: SocketAddr,
    store: Store,
    database: PathBuf,
    env_file: PathBuf,
}

/// Why there is no factory.
#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    /// Another process has the port.
    #[error("{0} is in use, expected a free port for the built-in application (set --app)")]
    InUse(SocketAddr),
    /// The port could not be opened for another reason.
    #[error("cannot listen on {0} (set --app)")]
    Refused(SocketAddr, #[source] io::Error),
    /// Its database could not be made.
    #[error("cannot make the built-in application's database")]
    Store(#[source] sqlx::Error),
    /// Its `.env` could not be written.
    #[error("cannot write the built-in application's .env")]
    EnvFile(#[source] io::Error),
}

impl Factory {
    /// Opens the port and makes the data in `folder`.
    pub(super) async fn open(address: SocketAddr, folder: &Path) -> Result<Self, FactoryError> {
        let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => FactoryError::InUse(address),
            _ => FactoryError::Refused(address, error),
        })?;
        let address = listener.local_addr().map_err(|error| FactoryError::Refused(address, error))?;
        let database = folder.join("factory.db");
        let store = Store::create(&database).await.map_err(FactoryError::Store)?;
        let env_file = folder.join("factory.env");
        fs::write(&env_file, KEYS).map_err(FactoryError::EnvFile)?;
        Ok(Self { listener, address, store, database, env_file })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The SQLite file.
    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// Where it keeps the keys of its AI services.
    pub(super) fn env_file(&self) -> &Path {
        &self.env_file
    }

    /// Serves until `ended`, then closes the file.
    pub(super) async fn serve_until(self, ended: impl Future<Output = ()>) {
        let router = operations::router(self.store.clone());
        let serving = axum::serve(self.listener, router).into_future();
        tokio::select! {
            _ = serving => {}
            () = ended => {}
        }
        self.store.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_port_is_named_with_the_flag_that_changes_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let address = taken.local_addr().unwrap();
        let error = Factory::open(address, folder.path()).await.err().unwrap();
        let expected = format!("{address} is in use, expected a free port for the built-in application (set --app)");
        assert_eq!(error.to_string(), expected);
    }
}
