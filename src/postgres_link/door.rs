//! A socket by which the driver comes in, and nobody else.
//!
//! The driver connects by itself, and only to a name. On Linux that is an abstract one, which needs no file system; elsewhere a path
//! in a folder of our user alone. One connection is taken, of our own process; then the name is gone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Open until somebody came in.
pub(super) struct Door {
    listener: UnixListener,
    folder: Folder,
}

/// What stands before the name of the socket; the driver adds that itself.
enum Folder {
    /// Looks like a folder, and is none.
    Abstract(PathBuf),
    /// Goes with the door.
    Real(PathBuf),
}

impl Door {
    /// Opens one for a driver that connects to this port.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let name = format!("cf-sidecar-{:016x}", fastrand::u64(..));
        let folder = if cfg!(target_os = "linux") {
            Folder::Abstract(format!("\0{name}").into())
        } else {
            Folder::make(std::env::temp_dir().join(name))?
        };
        let listener = UnixListener::bind(folder.path().join(format!(".s.PGSQL.{port}")))?;
        Ok(Self { listener, folder })
    }

    /// As the driver takes it.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Lets the driver in, and shuts the door.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) async fn accept(self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let pid = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
            if pid == Some(std::process::id()) {
                return Ok(stream);
            }
        }
    }
}

impl Folder {
    /// Makes one that only our user can enter.
    fn make(path: PathBuf) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self::Real(path))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Abstract(path) | Self::Real(path) => path,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Self::Real(path) = self {
            let _ = fs::remove_dir_all(path); // it holds a socket that nobody listens to any more
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test]
    async fn our_own_process_comes_in_once() {
        let door = Door::open(5_432).unwrap();
        let name = door.path().join(".s.PGSQL.5432");
        let (driver, taken) = tokio::join!(UnixStream::connect(&name), door.accept());
        drop((driver.unwrap(), taken.unwrap()));
        // a child that is started just now has our files until its program begins
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Ok(late) = UnixStream::connect(&name).await {
            drop(late);
            assert!(Instant::now() < deadline, "the door stays open");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn another_process_is_turned_away_and_the_driver_still_comes_in() {
        let door = Door::open(5_432).unwrap();
        let name = door.path().join(".s.PGSQL.5432");
        let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + sys.argv[1]); print(len(s.recv(1)))";
        let mut intruder = tokio::process::Command::new("python3");
        intruder.args(["-c", script, name.to_str().unwrap().trim_start_matches('\0')]);
        intruder.stdout(std::process::Stdio::piped()).kill_on_drop(true);
        let mut intruder = intruder.spawn().unwrap();
        let mut said = String::new();
        let mut words = intruder.stdout.take().unwrap();
        let mut waiting = Box::pin(door.accept());
        tokio::select! {
            _ = &mut waiting => panic!("a stranger came in"),
            read = timeout(Duration::from_secs(60), words.read_to_string(&mut said)) => { read.unwrap().unwrap(); }
        }
        assert_eq!(said.trim(), "0", "an end, and nothing else");
        let (driver, taken) = tokio::join!(UnixStream::connect(&name), waiting);
        drop((driver.unwrap(), taken.unwrap()));
    }

    #[test]
    fn a_folder_is_our_users_alone_and_goes_with_its_door() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::make(place.path().join("door")).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join(".s.PGSQL.5432"), "").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
