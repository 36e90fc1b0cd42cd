//! What a container and the application's processes use, and how much everybody had to wait for the machine: as the kernel accounts it.

use crate::model::catalogue::container::{
    APPLICATION_CPU_TIME, APPLICATION_MEMORY, APPLICATION_PROCESSES, CONTAINER_CPU_LIMIT, CONTAINER_CPU_PERIODS,
    CONTAINER_CPU_THROTTLED, CONTAINER_CPU_TIME, CONTAINER_MEMORY_LIMIT, CONTAINER_MEMORY_USAGE,
    CONTAINER_MEMORY_WORKING_SET, CONTAINER_OOM_KILLS, PRESSURE_TIME, SYSTEM_INODES,
};
use crate::model::sample::Sample;
use crate::semconv;

/// A container by its cgroup; what this kernel does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerUsage {
    /// CPU time since its start, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Cores that it may use at once; `None` without a limit.
    pub cpu_limit: Option<f64>,
    /// How it fared with that limit.
    pub throttling: Option<Throttling>,
    /// Memory, with the page cache.
    pub memory_bytes: Option<u64>,
    /// Memory that cannot be had back without swapping, which is what a kubelet looks at.
    pub working_set_bytes: Option<u64>,
    /// Memory that it may use; `None` without a limit.
    pub memory_limit_bytes: Option<u64>,
    /// Processes of it that the kernel killed for want of memory.
    pub oom_kills: Option<u64>,
}

/// Periods in which a container wanted CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Throttling {
    /// All of them.
    pub periods: u64,
    /// Those in which its share was used up before their end.
    pub throttled: u64,
    /// How long it was held up in them, in seconds.
    pub seconds: f64,
}

/// Pressure stall information: for how long somebody, and everybody, waited for a resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pressure {
    /// `cpu`, `memory` or `io`.
    pub resource: &'static str,
    /// At least one task waited, in seconds.
    pub some_seconds: f64,
    /// All tasks waited at once; older kernels do not tell it of CPU.
    pub full_seconds: Option<f64>,
}

/// The file system of the data folder, in files that it can hold; 0 where it has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inodes {
    /// All.
    pub total: u64,
    /// Not used.
    pub free: u64,
}

/// All processes of the application that run one program.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProgramUsage {
    /// The program.
    pub program: &'static str,
    /// How many there are.
    pub processes: u64,
    /// Resident memory of all, in which what they share counts for each.
    pub memory_bytes: u64,
    /// CPU time of all, those that have ended among them, in seconds.
    pub cpu_seconds: f64,
}

impl ProgramUsage {
    /// The samples of one program.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        let samples = [
            Sample::level(&APPLICATION_PROCESSES, self.processes as f64),
            Sample::level(&APPLICATION_MEMORY, self.memory_bytes as f64),
            Sample::sum(&APPLICATION_CPU_TIME, self.cpu_seconds),
        ];
        out.extend(samples.map(|sample| sample.with_literal("program", self.program)));
    }
}

impl ContainerUsage {
    /// The samples of what is known.
    pub fn samples(&self, out: &mut Vec<Sample>) {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        for (metric, level) in [
            (&CONTAINER_CPU_LIMIT, self.cpu_limit),
            (&CONTAINER_MEMORY_USAGE, bytes(self.memory_bytes)),
            (&CONTAINER_MEMORY_WORKING_SET, bytes(self.working_set_bytes)),
            (&CONTAINER_MEMORY_LIMIT, bytes(self.memory_limit_bytes)),
        ] {
            out.extend(level.map(|level| Sample::level(metric, level)));
        }
        out.extend(self.cpu_seconds.map(|seconds| Sample::sum(&CONTAINER_CPU_TIME, seconds)));
        out.extend(self.oom_kills.map(|kills| Sample::count(&CONTAINER_OOM_KILLS, kills)));
        let Some(throttling) = self.throttling else { return };
        let whole = throttling.periods.saturating_sub(throttling.throttled);
        for (throttled, periods) in [("yes", throttling.throttled), ("no", whole)] {
            out.push(Sample::count(&CONTAINER_CPU_PERIODS, periods).with_literal("throttled", throttled));
        }
        out.push(Sample::sum(&CONTAINER_CPU_THROTTLED, throttling.seconds));
    }
}

impl Pressure {
    /// The samples of one place, `node` or `container`.
    pub fn samples(&self, place: &'static str, out: &mut Vec<Sample>) {
        for (kind, seconds) in [("some", Some(self.some_seconds)), ("full", self.full_seconds)] {
            let Some(seconds) = seconds else { continue };
            let sample = Sample::sum(&PRESSURE_TIME, seconds).with_literal("place", place);
            out.push(sample.with_literal("resource", self.resource).with_literal("kind", kind));
        }
    }
}

impl Inodes {
    /// The samples, where the file system has such a limit.
    pub fn samples(self, out: &mut Vec<Sample>) {
        if self.total == 0 {
            return;
        }
        for (state, count) in [("used", self.total.saturating_sub(self.free)), ("free", self.free)] {
            let sample = Sample::level(&SYSTEM_INODES, count as f64);
            out.push(sample.with_literal(semconv::SYSTEM_FILESYSTEM_STATE, state));
        }
    }
}
