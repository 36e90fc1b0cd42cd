//! One look at the node. Blocks: reads files.

use std::path::{Path, PathBuf};

use sysinfo::{CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind, Networks, RefreshKind, System};

use tokio::time::Instant;

use crate::model::usage::SystemUsage;
use crate::system::process;

/// Remembers the counters of the last look; every part is refreshed alone, so that nothing is read for nobody.
pub(super) struct Sampler {
    system: System,
    disks: Disks,
    networks: Networks,
    folder: PathBuf,
    platform: String,
}

impl Sampler {
    /// A sampler that has not looked yet.
    pub(super) fn new(folder: PathBuf) -> Self {
        let nothing = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing().with_usage());
        let kernel = System::kernel_version().unwrap_or_default();
        Self {
            system: System::new_with_specifics(nothing).expect("this system is one that sysinfo knows"),
            disks: Disks::new().expect("this system is one that sysinfo knows"),
            networks: Networks::new().expect("this system is one that sysinfo knows"),
            folder,
            platform: [name(std::env::consts::OS), &kernel, &System::cpu_arch()].join("-"),
        }
    }

    /// Looks once. The share of CPU is the mean since the look before.
    pub(super) fn look(&mut self) -> SystemUsage {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        self.disks.refresh_specifics(true, DiskRefreshKind::nothing().with_storage());
        self.networks.refresh(true);
        let (disk_total_bytes, disk_free_bytes) = self.disk();
        SystemUsage {
            read_at: Some(Instant::now()),
            cpu_ratio: (f64::from(self.system.global_cpu_usage()) / 100.0).clamp(0.0, 1.0),
            memory_total_bytes: self.system.total_memory(),
            memory_available_bytes: self.system.available_memory(),
            disk_total_bytes,
            disk_free_bytes,
            platform: self.platform.clone(),
            process: process::usage(),
            network_bytes: self.network(),
        }
    }

    /// Total and free bytes of the file system that holds the folder.
    fn disk(&self) -> (u64, u64) {
        let folder = self.folder.canonicalize().unwrap_or_else(|_| PathBuf::from("/"));
        let disks = self.disks.iter().filter(|disk| folder.starts_with(disk.mount_point()));
        let nearest = disks.max_by_key(|disk| depth(disk.mount_point()));
        nearest.map_or((0, 0), |disk| (disk.total_space(), disk.available_space()))
    }

    fn network(&self) -> (u64, u64) {
        let outward = self.networks.iter().filter(|(name, _)| *name != "lo");
        outward.fold((0, 0), |(received, sent), (_, network)| {
            (received + network.total_received(), sent + network.total_transmitted())
        })
    }
}

/// The system as `uname` names it, which is how the application's `platform` begins too.
fn name(system: &str) -> &str {
    match system {
        "linux" => "Linux",
        "macos" => "Darwin",
        other => other,
    }
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_seen_as_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut sampler = Sampler::new(folder.path().into());
        let usage = sampler.look();
        assert!(usage.memory_total_bytes > usage.memory_available_bytes, "{usage:?}");
        assert!(usage.memory_available_bytes > 0, "{usage:?}");
        assert!(usage.disk_total_bytes >= usage.disk_free_bytes && usage.disk_total_bytes > 0, "{usage:?}");
        assert!(usage.platform.starts_with(name(std::env::consts::OS)), "{usage:?}");
        assert!(usage.platform.ends_with(std::env::consts::ARCH), "{usage:?}");
        assert!((0.0..=1.0).contains(&usage.cpu_ratio));
    }
}
