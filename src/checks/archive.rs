//! A small file of the data folder that keeps what checks remember over a restart; without the folder nothing is kept.
//!
//! Read once, when the folder is there; written each minute and at the end, as a whole.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::checks::past::Past;
use crate::wall_clock::since_epoch;

/// The memory of one check, which its runs and the archive share.
pub(super) type Memory = Arc<Mutex<Past>>;

/// Where the file is, as soon as that is known. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Archive(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    folder: watch::Sender<Option<PathBuf>>,
    /// What was written in the life before has been added; until then nothing is written over it.
    is_read: AtomicBool,
    /// The log has said that the file fails.
    is_told: AtomicBool,
}

const NAME: &str = "checks.json";
/// A kill loses this much at most.
const PAUSE: Duration = Duration::from_secs(60);
/// At the end: a disk that takes longer keeps nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// A hundred checks and a day need a fifth of it.
const LARGEST: u64 = 1 << 20;

impl Archive {
    /// Keeps in this folder, which is this process's own.
    pub fn keep_in(&self, folder: &Path) {
        self.0.folder.send_replace(Some(folder.to_owned()));
    }

    /// Reads what was kept, and then writes each minute, for ever.
    pub(super) async fn keep(&self, memories: &[(String, Memory)]) {
        let mut folders = self.0.folder.subscribe();
        let Ok(folder) = folders.wait_for(Option::is_some).await.map(|folder| folder.clone().unwrap_or_default())
        else {
            return std::future::pending().await;
        };
        if !self.0.is_read.load(Ordering::Relaxed) {
            let read = tokio::task::spawn_blocking(move || read(&folder.join(NAME))).await;
            match read {
                Ok(Ok(told)) => remember(memories, &told),
                Ok(Err(error)) => self.complain(&error),
                Err(_) => {} // the runtime ends
            }
            self.0.is_read.store(true, Ordering::Relaxed);
        }
        loop {
            sleep(PAUSE).await;
            self.save(memories).await;
        }
    }

    /// Writes what is remembered now, if there is a folder.
    pub(super) async fn save(&self, memories: &[(String, Memory)]) {
        let folder = self.0.folder.borrow().clone();
        let Some(folder) = folder.filter(|_| self.0.is_read.load(Ordering::Relaxed)) else { return };
        let text = told(memories).to_string();
        let writing = tokio::task::spawn_blocking(move || write(&folder, text.as_bytes()));
        if let Ok(Ok(Err(error))) = timeout(PATIENCE, writing).await {
            self.complain(&error);
        }
    }

    fn complain(&self, error: &io::Error) {
        if !self.0.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, path = NAME, "what checks remember cannot be kept over a restart");
        }
    }
}

fn told(memories: &[(String, Memory)]) -> Value {
    let told = |memory: &Memory| memory.lock().unwrap_or_else(PoisonError::into_inner).told();
    memories.iter().map(|(name, memory)| (name.clone(), told(memory))).collect::<Map<_, _>>().into()
}

fn remember(memories: &[(String, Memory)], told: &Value) {
    let now = since_epoch().as_secs_f64();
    for (name, memory) in memories {
        memory.lock().unwrap_or_else(PoisonError::into_inner).add(&told[name.as_str()], now);
    }
}

/// No file is as good as one that tells nothing.
fn read(path: &Path) -> io::Result<Value> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(LARGEST).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Value::Null),
        Err(error) => return Err(error),
    };
    // its words would tell what stands in the file
    serde_json::from_slice(&text).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "found no JSON in it"))
}

/// By a new file that takes the old one's place, so that a kill leaves one of the two.
fn write(folder: &Path, text: &[u8]) -> io::Result<()> {
    let new = folder.join(format!("{NAME}.new"));
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_data()?;
    fs::rename(new, folder.join(NAME))
}
