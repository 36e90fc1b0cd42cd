//! What the system, the database and the application's processes were last seen to use.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::age;
use crate::model::catalogue::machine::{
    PROCESS_CPU_TIME, PROCESS_MEMORY_USAGE, PROCESS_MEMORY_VIRTUAL, PROCESS_THREAD_COUNT,
    PROCESS_UNIX_FILE_DESCRIPTOR_COUNT, PROCESS_UPTIME, SYSTEM_CPU_UTILIZATION, SYSTEM_FILESYSTEM_USAGE,
    SYSTEM_MEMORY_LIMIT, SYSTEM_MEMORY_LINUX_AVAILABLE, SYSTEM_MEMORY_USAGE, SYSTEM_MEMORY_UTILIZATION,
    SYSTEM_NETWORK_IO,
};
use crate::model::container::{ContainerUsage, Inodes, Pressure, ProgramUsage};
use crate::model::sample::Sample;
use crate::semconv;

/// The node's numbers, as the last background interval saw them; bytes and ratios.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SystemUsage {
    /// When they were read; `None` before the first time.
    pub read_at: Option<Instant>,
    /// How often they are.
    pub period: Duration,
    /// Mean of the last interval over all cores, 0 to 1.
    pub cpu_ratio: f64,
    /// All of the memory.
    pub memory_total_bytes: u64,
    /// What can be had without swapping.
    pub memory_available_bytes: u64,
    /// The file system of the data folder.
    pub disk_total_bytes: u64,
    /// What files take of it.
    pub disk_used_bytes: u64,
    /// What is free of it for everybody; the rest is the reserve of root.
    pub disk_free_bytes: u64,
    /// Kernel and architecture, such as `Linux-6.1.0-x86_64`.
    pub platform: String,
    /// The sidecar's own process.
    pub process: ProcessUsage,
    /// Bytes received and sent by all interfaces but loopback, since boot.
    pub network_bytes: (u64, u64),
    /// The container, by its cgroup.
    pub container: ContainerUsage,
    /// What was waited for at the node, and in the container.
    pub pressure: [Vec<Pressure>; 2],
    /// Files on the file system of the data folder.
    pub inodes: Inodes,
    /// The application's processes, where they can be seen.
    pub programs: Vec<ProgramUsage>,
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessUsage {
    /// CPU time used since its start, in seconds: user and system.
    pub cpu_seconds: (f64, f64),
    /// Resident memory.
    pub memory_bytes: u64,
    /// Virtual memory.
    pub memory_virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub open_files: u64,
    /// Age in seconds.
    pub uptime_seconds: f64,
}

/// The rows of the business tables; `None` when they cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusinessRows {
    /// Rows of `products`.
    pub products: Option<u64>,
    /// Rows of `videos`.
    pub videos: Option<u64>,
    /// Rows of `social_media_posts`.
    pub social_media_posts: Option<u64>,
}

/// What was read longer ago than that says nothing of now.
const RECENT: Duration = Duration::from_secs(60);

impl SystemUsage {
    /// How long ago they were read.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        age::age(self.read_at, now)
    }

    /// Whether there are none, or such that several turns have failed to renew.
    #[must_use]
    pub fn is_stale(&self, now: Instant) -> bool {
        !self.is_recent(now) && age::is_stale(self.age(now), self.period)
    }

    /// How busy the node's cores were of late, 0 to 1; `None` when that was not read lately.
    #[must_use]
    pub fn recent_cpu(&self, now: Instant) -> Option<f64> {
        self.is_recent(now).then_some(self.cpu_ratio)
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.age(now).is_some_and(|age| age <= RECENT)
    }

    /// The samples of the node and of the sidecar's process.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        let used = self.memory_total_bytes.saturating_sub(self.memory_available_bytes);
        let memory_state = |sample: Sample| sample.with_literal(semconv::SYSTEM_MEMORY_STATE, "used");
        out.push(Sample::level(&SYSTEM_CPU_UTILIZATION, self.cpu_ratio));
        out.push(memory_state(Sample::level(&SYSTEM_MEMORY_USAGE, used as f64)));
        out.push(Sample::level(&SYSTEM_MEMORY_LIMIT, self.memory_total_bytes as f64));
        out.push(Sample::level(&SYSTEM_MEMORY_LINUX_AVAILABLE, self.memory_available_bytes as f64));
        if self.memory_total_bytes > 0 {
            let ratio = used as f64 / self.memory_total_bytes as f64;
            out.push(memory_state(Sample::level(&SYSTEM_MEMORY_UTILIZATION, ratio)));
        }
        let (used, free) = (self.disk_used_bytes, self.disk_free_bytes);
        let reserved = self.disk_total_bytes.saturating_sub(used.saturating_add(free));
        for (state, bytes) in [("used", used), ("free", free), ("reserved", reserved)] {
            let sample = Sample::level(&SYSTEM_FILESYSTEM_USAGE, bytes as f64);
            out.push(sample.with_literal(semconv::SYSTEM_FILESYSTEM_STATE, state));
        }
        for (direction, bytes) in [("receive", self.network_bytes.0), ("transmit", self.network_bytes.1)] {
            let sample = Sample::count(&SYSTEM_NETWORK_IO, bytes);
            out.push(sample.with_literal(semconv::NETWORK_IO_DIRECTION, direction));
        }
        self.process.samples(out);
        self.container.samples(out);
        self.inodes.samples(out);
        self.programs.iter().for_each(|program| program.samples(out));
        for (place, pressures) in ["node", "container"].into_iter().zip(&self.pressure) {
            pressures.iter().for_each(|pressure| pressure.samples(place, out));
        }
    }
}

impl ProcessUsage {
    /// The samples of the process.
    fn samples(&self, out: &mut Vec<Sample>) {
        for (mode, seconds) in [("user", self.cpu_seconds.0), ("system", self.cpu_seconds.1)] {
            out.push(Sample::sum(&PROCESS_CPU_TIME, seconds).with_literal(semconv::CPU_MODE, mode));
        }
        out.push(Sample::level(&PROCESS_MEMORY_USAGE, self.memory_bytes as f64));
        out.push(Sample::level(&PROCESS_MEMORY_VIRTUAL, self.memory_virtual_bytes as f64));
        out.push(Sample::level(&PROCESS_THREAD_COUNT, self.threads as f64));
        out.push(Sample::level(&PROCESS_UNIX_FILE_DESCRIPTOR_COUNT, self.open_files as f64));
        out.push(Sample::level(&PROCESS_UPTIME, self.uptime_seconds));
    }
}
