//! The metrics of a container's cgroup, of pressure, and of inodes: what the kernel accounts beside the machine's numbers.

use crate::model::catalogue::metric::{Metric, MetricKind, sampled};
use crate::semconv;

/// CPU time of the container.
pub static CONTAINER_CPU_TIME: Metric = sampled(
    "container.cpu.time",
    "s",
    MetricKind::Counter,
    &[],
    "CPU time of the container that the sidecar is in, or of `system.cgroup`.",
);

/// Its limit of CPU.
pub static CONTAINER_CPU_LIMIT: Metric = sampled(
    "content_factory.container.cpu.limit",
    "{cpu}",
    MetricKind::UpDownCounter,
    &[],
    "Cores that the container may use at once; none without a limit.",
);

/// Periods of its limit.
pub static CONTAINER_CPU_PERIODS: Metric = sampled(
    "content_factory.container.cpu.periods",
    "{period}",
    MetricKind::Counter,
    &["throttled"],
    "Periods (of 100 ms, mostly) in which the container wanted CPU, by whether its limit held it up.",
);

/// Time held up.
pub static CONTAINER_CPU_THROTTLED: Metric = sampled(
    "content_factory.container.cpu.throttled",
    "s",
    MetricKind::Counter,
    &[],
    "Time for which the limit of CPU held up the container's threads, all added.",
);

/// Memory of the container.
pub static CONTAINER_MEMORY_USAGE: Metric = sampled(
    "container.memory.usage",
    "By",
    MetricKind::UpDownCounter,
    &[],
    "Memory of the container, the page cache among it.",
);

/// Memory that it needs.
pub static CONTAINER_MEMORY_WORKING_SET: Metric = sampled(
    "container.memory.working_set",
    "By",
    MetricKind::UpDownCounter,
    &[],
    "Memory of the container without the part of the page cache that is easily given back: what its limit is held against.",
);

/// Its limit of memory.
pub static CONTAINER_MEMORY_LIMIT: Metric = sampled(
    "content_factory.container.memory.limit",
    "By",
    MetricKind::UpDownCounter,
    &[],
    "Memory that the container may use; none without a limit.",
);

/// Processes killed for want of memory.
pub static CONTAINER_OOM_KILLS: Metric = sampled(
    "content_factory.container.oom_kills",
    "{process}",
    MetricKind::Counter,
    &[],
    "Processes of the container that the kernel killed for want of memory.",
);

/// Pressure stall information.
pub static PRESSURE_TIME: Metric = sampled(
    "content_factory.pressure.time",
    "s",
    MetricKind::Counter,
    &["place", "resource", "kind"],
    "Time for which some task, or all at once (`full`), waited for cpu, memory or io: of the node, and of the container with cgroup v2.",
);

/// Files that the file system can hold.
pub static SYSTEM_INODES: Metric = sampled(
    "content_factory.system.filesystem.inodes",
    "{inode}",
    MetricKind::UpDownCounter,
    &[semconv::SYSTEM_FILESYSTEM_STATE],
    "Inodes used and free on the file system of the data folder: without a free one no file can be made, whatever the space.",
);

/// The application's processes.
pub static APPLICATION_PROCESSES: Metric = sampled(
    "content_factory.application.processes",
    "{process}",
    MetricKind::UpDownCounter,
    &["program"],
    "Processes that run gunicorn, uvicorn or celery, where the sidecar can see them.",
);

/// Their memory.
pub static APPLICATION_MEMORY: Metric = sampled(
    "content_factory.application.memory",
    "By",
    MetricKind::UpDownCounter,
    &["program"],
    "Resident memory of these processes; what they share counts for each.",
);

/// Their CPU time.
pub static APPLICATION_CPU_TIME: Metric = sampled(
    "content_factory.application.cpu.time",
    "s",
    MetricKind::Counter,
    &["program"],
    "CPU time of these processes, also of those that have ended since.",
);
