//! The data folder: made and locked, so that two processes never share its files.
//!
//! Nothing depends on it: without it everything is kept in memory, and the log says so. It is asked for until it can be
//! had, as the process that a handover replaces leaves it last.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Between two questions for the folder.
const PAUSE: Duration = Duration::from_secs(1);

/// A folder that this process alone uses, as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock; the system frees it however the process ends.
    _lock: File,
}

/// The folder of the settings, which another process may still have.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    held: OnceLock<DataDir>,
}

impl Claim {
    /// Of the folder at this path; touches nothing.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, held: OnceLock::new() }
    }

    /// Asks each second until the folder is this process's, which it then is for as long as this value lives; says once why it is
    /// not, and when it is.
    pub async fn granted(&self) -> &DataDir {
        let mut is_told = false;
        loop {
            if let Some(held) = self.held.get() {
                return held;
            }
            match DataDir::open(&self.path) {
                Ok(folder) => {
                    if is_told {
                        tracing::info!(path = %self.path.display(), "the data folder is used from now on");
                    }
                    return self.held.get_or_init(|| folder);
                }
                Err(error) if !std::mem::replace(&mut is_told, true) => {
                    tracing::warn!(%error, "everything is kept in memory until the folder can be used");
                }
                Err(_) => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("{0} is used by another process, expected a folder of its own (set data_dir)")]
    Taken(PathBuf),
    /// It cannot be made or written.
    #[error("{0} cannot be written: {1} (set data_dir)")]
    Unwritable(PathBuf, #[source] io::Error),
}

impl DataDir {
    /// Makes the folder if need be, readable by its owner alone, and locks it.
    ///
    /// # Errors
    /// When another process has it, or when it cannot be written.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unwritable = |error| DataDirError::Unwritable(path.to_owned(), error);
        if !path.exists() {
            make_private(path).map_err(unwritable)?;
        }
        let lock = File::create(path.join("lock")).map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Taken(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(unwritable(error)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_by_one_process_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Taken(_))));
        drop(first);
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = DataDir::open(Path::new("/proc/nowhere")).unwrap_err();
        assert!(error.to_string().starts_with("/proc/nowhere cannot be written"), "{error}");
    }
}
