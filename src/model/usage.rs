//! What the system, the database and the application's processes were last seen to use.

/// The node's numbers, as the last background interval saw them; bytes and ratios.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SystemUsage {
    /// Mean of the last interval over all cores, 0 to 1.
    pub cpu_ratio: f64,
    /// All of the memory.
    pub memory_total_bytes: u64,
    /// What can be had without swapping.
    pub memory_available_bytes: u64,
    /// The file system of the data folder, or of `/`.
    pub disk_total_bytes: u64,
    /// What is free of it for everybody (without the reserve of root).
    pub disk_free_bytes: u64,
    /// Kernel and architecture, such as `Linux-6.1.0-x86_64`.
    pub platform: String,
    /// The sidecar's own process.
    pub process: ProcessUsage,
    /// Bytes received and sent by all interfaces but loopback, since boot.
    pub network_bytes: (u64, u64),
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
