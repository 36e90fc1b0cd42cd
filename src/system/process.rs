//! Our own process, from `/proc/self`: two files and a folder, which is all that sysinfo would not tell apart
//! (user and system time) without a list of all processes. Zeros where there is no `/proc`.

use std::fs;
use std::time::Duration;

use crate::model::usage::ProcessUsage;

/// What Linux tells of times is in hundredths of a second, on every machine (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// The numbers of now.
pub(super) fn usage() -> ProcessUsage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let up = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let open_files = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
    // the listing itself holds one descriptor
    parse(&stat, &status, since_boot(&up), open_files.saturating_sub(1))
}

/// The numbers of a process, by the texts of its `stat` and `status`; its age is of the time since boot.
pub(super) fn parse(stat: &str, status: &str, since_boot: Duration, open_files: u64) -> ProcessUsage {
    // fields from the third on: the second one, the name in brackets, may hold spaces
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let seconds = |field| number(field) as f64 / TICKS_PER_SECOND;
    ProcessUsage {
        cpu_seconds: (seconds(14), seconds(15)),
        memory_bytes: kibibytes(status, "VmRSS:"),
        memory_virtual_bytes: number(23),
        threads: number(20),
        open_files,
        uptime_seconds: (since_boot.as_secs_f64() - seconds(22)).max(0.0),
    }
}

/// When a process started, by its `stat`: with its number that tells it from any other one.
pub(super) fn started_ticks(stat: &str) -> u64 {
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.nth(22 - 3).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The value of a line such as `VmRSS:     9000 kB`, in bytes.
fn kibibytes(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default() * 1_024
}

fn since_boot(uptime: &str) -> Duration {
    let seconds = uptime.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or_default();
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat =
            "7 (a b) c) S 1 7 7 0 -1 4194304 900 0 0 0 250 50 0 0 20 0 6 0 1000 73728000 2200 18446744073709551615";
        let usage = parse(stat, "Name:\tx\nVmRSS:\t    9000 kB\n", Duration::from_secs(70), 12);
        let expected = ProcessUsage {
            cpu_seconds: (2.5, 0.5),
            memory_bytes: 9_216_000,
            memory_virtual_bytes: 73_728_000,
            threads: 6,
            open_files: 12,
            uptime_seconds: 60.0,
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn our_own_process_is_seen() {
        let usage = usage();
        assert!(usage.memory_bytes > 1 << 20 && usage.memory_virtual_bytes > usage.memory_bytes, "{usage:?}");
        assert!(usage.threads > 0 && usage.open_files > 2, "{usage:?}");
    }
}
