//! One look at the node. Blocks: reads files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{StatVfs, statvfs};
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, Networks, RefreshKind, System};

use tokio::time::Instant;

use crate::model::container::Inodes;
use crate::model::usage::SystemUsage;
use crate::system::cgroup::Places;
use crate::system::programs::Programs;
use crate::system::{pressure, process};

/// Remembers the counters of the last look; every part is refreshed alone, so that nothing is read for nobody.
pub(super) struct Sampler {
    system: System,
    networks: Networks,
    folder: PathBuf,
    /// Ours, or the one that the settings name; looked for once, because a process stays in its cgroup.
    cgroup: Places,
    programs: Programs,
    platform: String,
}

impl Sampler {
    /// A sampler that has not looked yet: at the file system of this folder, and at this cgroup instead of ours.
    pub(super) fn new(folder: PathBuf, cgroup: Option<&Path>) -> Self {
        let nothing = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing().with_usage());
        let kernel = System::kernel_version().unwrap_or_default();
        Self {
            system: System::new_with_specifics(nothing).expect("this system is one that sysinfo knows"),
            networks: Networks::new().expect("this system is one that sysinfo knows"),
            folder,
            cgroup: cgroup.map_or_else(own_cgroup, Places::of_folder),
            programs: Programs::default(),
            platform: [name(std::env::consts::OS), &kernel, &System::cpu_arch()].join("-"),
        }
    }

    /// Looks once. The share of CPU is the mean since the look before.
    pub(super) fn look(&mut self) -> SystemUsage {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        self.networks.refresh(true);
        let disk = file_system(&self.folder);
        let disk_bytes = |blocks: fn(&StatVfs) -> u64| disk.as_ref().map_or(0, |disk| blocks(disk) * disk.f_frsize);
        SystemUsage {
            read_at: Some(Instant::now()),
            period: Duration::ZERO, // that of who has it look
            cpu_ratio: (f64::from(self.system.global_cpu_usage()) / 100.0).clamp(0.0, 1.0),
            memory_total_bytes: self.system.total_memory(),
            memory_available_bytes: self.system.available_memory(),
            disk_total_bytes: disk_bytes(|disk| disk.f_blocks),
            disk_used_bytes: disk_bytes(|disk| disk.f_blocks.saturating_sub(disk.f_bfree)),
            disk_free_bytes: disk_bytes(|disk| disk.f_bavail),
            platform: self.platform.clone(),
            process: process::usage(),
            network_bytes: self.network(),
            container: self.cgroup.usage(),
            pressure: [
                pressure::read(Path::new("/proc/pressure"), ""),
                self.cgroup.unified.as_deref().map(|folder| pressure::read(folder, ".pressure")).unwrap_or_default(),
            ],
            inodes: disk.map_or(Inodes::default(), |disk| Inodes { total: disk.f_files, free: disk.f_ffree }),
            programs: self.programs.look(Path::new("/proc")),
        }
    }

    fn network(&self) -> (u64, u64) {
        let outward = self.networks.iter().filter(|(name, _)| *name != "lo");
        outward.fold((0, 0), |(received, sent), (_, network)| {
            (received + network.total_received(), sent + network.total_transmitted())
        })
    }
}

fn own_cgroup() -> Places {
    let of = |name: &str| fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default();
    Places::of_process(&of("cgroup"), &of("mountinfo"))
}

/// Of the nearest folder above that is there: ours is made when it is first needed. No other one is asked, because one on a network
/// that is away answers never.
fn file_system(folder: &Path) -> Option<StatVfs> {
    folder.ancestors().chain([Path::new(".")]).find_map(|folder| statvfs(folder).ok())
}

/// The system as `uname` names it, which is how the application's `platform` begins too.
fn name(system: &str) -> &str {
    match system {
        "linux" => "Linux",
        "macos" => "Darwin",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_seen_as_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut sampler = Sampler::new(folder.path().into(), None);
        let usage = sampler.look();
        assert!(usage.memory_total_bytes > usage.memory_available_bytes, "{usage:?}");
        assert!(usage.memory_available_bytes > 0, "{usage:?}");
        let taken = usage.disk_used_bytes + usage.disk_free_bytes;
        assert!(usage.disk_total_bytes >= taken && usage.disk_used_bytes > 0, "{usage:?}");
        assert!(usage.platform.starts_with(name(std::env::consts::OS)), "{usage:?}");
        assert!(usage.platform.ends_with(std::env::consts::ARCH), "{usage:?}");
        assert!((0.0..=1.0).contains(&usage.cpu_ratio));
    }

    #[test]
    fn the_cgroup_of_the_settings_is_read_instead_of_ours() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("memory.current"), "123456\n").expect("a file");
        fs::write(folder.path().join("io.pressure"), "some avg10=0.00 total=3000000\n").expect("a file");
        let usage = Sampler::new("/".into(), Some(folder.path())).look();
        assert_eq!(usage.container.memory_bytes, Some(123_456));
        assert_eq!(usage.pressure[1].iter().map(|found| found.some_seconds).collect::<Vec<_>>(), [3.0]);
    }

    #[test]
    fn a_data_folder_that_is_not_there_yet_is_on_the_file_system_above_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let total = |folder: &Path| file_system(folder).map(|found| (found.f_blocks, found.f_files));
        assert_eq!(total(&folder.path().join("not/yet")), total(folder.path()));
        assert_eq!(total(Path::new("not/yet")), total(Path::new(".")));
    }
}
