//! The metrics of the process and of the node, as the conventions name them: read by a sampler in the background.

use crate::model::catalogue::metric::{Metric, MetricKind, sampled};
use crate::semconv;

/// CPU time of the sidecar.
pub static PROCESS_CPU_TIME: Metric =
    sampled("process.cpu.time", "s", MetricKind::Counter, &[semconv::CPU_MODE], "CPU time that the sidecar used.");

/// Resident memory of the sidecar.
pub static PROCESS_MEMORY_USAGE: Metric =
    sampled("process.memory.usage", "By", MetricKind::UpDownCounter, &[], "Physical memory that the sidecar uses.");

/// Virtual memory of the sidecar.
pub static PROCESS_MEMORY_VIRTUAL: Metric =
    sampled("process.memory.virtual", "By", MetricKind::UpDownCounter, &[], "Virtual memory of the sidecar.");

/// Threads of the sidecar.
pub static PROCESS_THREAD_COUNT: Metric =
    sampled("process.thread.count", "{thread}", MetricKind::UpDownCounter, &[], "Threads of the sidecar.");

/// Open file descriptors of the sidecar.
pub static PROCESS_UNIX_FILE_DESCRIPTOR_COUNT: Metric = sampled(
    "process.unix.file_descriptor.count",
    "{file_descriptor}",
    MetricKind::UpDownCounter,
    &[],
    "File descriptors that the sidecar has open, connections among them.",
);

/// Age of the sidecar.
pub static PROCESS_UPTIME: Metric =
    sampled("process.uptime", "s", MetricKind::Gauge, &[], "Time since the sidecar was started.");

/// CPU of the node.
pub static SYSTEM_CPU_UTILIZATION: Metric = sampled(
    "system.cpu.utilization",
    "1",
    MetricKind::Gauge,
    &[],
    "Share of the node's CPU time in use, over all cores, in the last interval.",
);

/// Memory of the node, by state.
pub static SYSTEM_MEMORY_USAGE: Metric = sampled(
    "system.memory.usage",
    "By",
    MetricKind::UpDownCounter,
    &[semconv::SYSTEM_MEMORY_STATE],
    "Memory of the node in use: what cannot be had without swapping.",
);

/// All memory of the node.
pub static SYSTEM_MEMORY_LIMIT: Metric =
    sampled("system.memory.limit", "By", MetricKind::UpDownCounter, &[], "Memory of the node.");

/// Available memory of the node.
pub static SYSTEM_MEMORY_LINUX_AVAILABLE: Metric = sampled(
    "system.memory.linux.available",
    "By",
    MetricKind::UpDownCounter,
    &[],
    "Memory of the node that can be had without swapping.",
);

/// Share of the node's memory, by state.
pub static SYSTEM_MEMORY_UTILIZATION: Metric = sampled(
    "system.memory.utilization",
    "1",
    MetricKind::Gauge,
    &[semconv::SYSTEM_MEMORY_STATE],
    "Share of the node's memory in use.",
);

/// The file system of the data folder, by state.
pub static SYSTEM_FILESYSTEM_USAGE: Metric = sampled(
    "system.filesystem.usage",
    "By",
    MetricKind::UpDownCounter,
    &[semconv::SYSTEM_FILESYSTEM_STATE],
    "Space used, free for everybody, and reserved for root, on the file system of the data folder.",
);

/// Traffic of the node.
pub static SYSTEM_NETWORK_IO: Metric = sampled(
    "system.network.io",
    "By",
    MetricKind::Counter,
    &[semconv::NETWORK_IO_DIRECTION],
    "Bytes received and sent by all interfaces but loopback.",
);
