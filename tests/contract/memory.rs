//! What the sidecar holds: memory and file descriptors, as the kernel counts them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::rig::{PATIENCE, Sidecar};

/// File descriptors of a sidecar without clients: 22, and as many more as its own questions may hold for a moment.
pub(crate) const AT_REST: usize = 32;

/// Memory of a sidecar since a moment.
pub(crate) struct Memory {
    pid: u32,
    before_kib: u64,
}

impl Memory {
    /// From now on.
    pub(crate) fn watch(sidecar: &Sidecar) -> Self {
        let pid = sidecar.pid();
        // 5 forgets the highest value so far: proc(5)
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a child of ours");
        Self { pid, before_kib: line(pid, "VmRSS:") }
    }

    /// KiB by which the highest value since then is above the first.
    pub(crate) fn peak_growth_kib(&self) -> u64 {
        line(self.pid, "VmHWM:").saturating_sub(self.before_kib)
    }

    /// KiB by which it is above the first now.
    pub(crate) fn growth_kib(&self) -> u64 {
        line(self.pid, "VmRSS:").saturating_sub(self.before_kib)
    }

    /// Waits until it is less than this many KiB above the first, as long as patience lasts: the growth in KiB.
    pub(crate) async fn at_rest_kib(&self, enough: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let grown = self.growth_kib();
            if grown < enough || Instant::now() > deadline {
                return grown;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn line(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let value = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
    value.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// File descriptors that it has open.
pub(crate) fn descriptors(sidecar: &Sidecar) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).expect("it runs").count()
}

/// Waits until only the file descriptors are open that a sidecar without clients has: kept connections age out.
pub(crate) async fn descriptors_at_rest(sidecar: &Sidecar) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = descriptors(sidecar);
        if open <= AT_REST {
            return;
        }
        assert!(Instant::now() < deadline, "{open} descriptors with nothing to do");
        sleep(Duration::from_millis(100)).await;
    }
}
