//! A container's limits and what it uses of them, from the files of its cgroup, version 1 or 2.
//!
//! By default the cgroup that our own process is in. Where each container has its own, that is the sidecar's alone: to see the
//! application's, `system.cgroup` names a folder that was mounted for it. A limit is the smallest of its own and of those of the groups
//! above, as far as they can be seen from here: in a namespace of its own, or below a mounted folder, there are none.

use std::fs;
use std::path::{Path, PathBuf};

use crate::model::container::{ContainerUsage, Throttling};

/// The folders of one cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Of version 2, where all is in one.
    pub(super) unified: Option<PathBuf>,
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
}

/// Version 1 writes the largest number of pages for none.
const NO_LIMIT: u64 = 1 << 60;

impl Places {
    /// The cgroup that the texts of `/proc/self/cgroup` and `/proc/self/mountinfo` lead to.
    pub(super) fn of_process(cgroup: &str, mountinfo: &str) -> Self {
        let mut places = Self::default();
        for line in cgroup.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                places.unified = folder(mountinfo, "cgroup2", "", path);
            }
            for controller in controllers.split(',') {
                let place = match controller {
                    "memory" => &mut places.memory,
                    "cpu" => &mut places.cpu,
                    "cpuacct" => &mut places.cpuacct,
                    _ => continue,
                };
                *place = folder(mountinfo, "cgroup", controller, path);
            }
        }
        places
    }

    /// The cgroup of a folder: of version 2, or of version 1 with a folder for each controller.
    pub(super) fn of_folder(folder: &Path) -> Self {
        let below = |controller: &str| Some(folder.join(controller)).filter(|folder| folder.is_dir());
        Self { unified: Some(folder.to_owned()), memory: below("memory"), cpu: below("cpu"), cpuacct: below("cpuacct") }
    }

    /// Reads what there is. Blocks: a few small files.
    pub(super) fn usage(&self) -> ContainerUsage {
        let one = self.unified.as_deref().map(version_2).unwrap_or_default();
        let other = self.version_1();
        ContainerUsage {
            cpu_seconds: one.cpu_seconds.or(other.cpu_seconds),
            cpu_limit: one.cpu_limit.or(other.cpu_limit),
            throttling: one.throttling.or(other.throttling),
            memory_bytes: one.memory_bytes.or(other.memory_bytes),
            working_set_bytes: one.working_set_bytes.or(other.working_set_bytes),
            memory_limit_bytes: one.memory_limit_bytes.or(other.memory_limit_bytes),
            oom_kills: one.oom_kills.or(other.oom_kills),
        }
    }

    fn version_1(&self) -> ContainerUsage {
        let of = |folder: &Option<PathBuf>, name: &str| folder.as_deref().and_then(|folder| text(folder, name));
        let number = |folder: &Option<PathBuf>, name: &str| of(folder, name)?.trim().parse::<f64>().ok();
        let stat = of(&self.cpu, "cpu.stat").unwrap_or_default();
        let memory_bytes = of(&self.memory, "memory.usage_in_bytes").and_then(|text| text.trim().parse().ok());
        let inactive = of(&self.memory, "memory.stat").and_then(|text| value(&text, "total_inactive_file"));
        let limit = |folder: &Path| text(folder, "memory.limit_in_bytes")?.trim().parse::<u64>().ok();
        ContainerUsage {
            cpu_seconds: number(&self.cpuacct, "cpuacct.usage").map(|nanos| nanos / 1e9),
            cpu_limit: self.cpu.as_deref().and_then(|folder| lineage(folder).filter_map(quota).reduce(f64::min)),
            throttling: throttling(&stat, "throttled_time", 1e9),
            memory_bytes,
            working_set_bytes: working_set(memory_bytes, inactive),
            memory_limit_bytes: self
                .memory
                .as_deref()
                .and_then(|folder| lineage(folder).filter_map(limit).filter(|limit| *limit < NO_LIMIT).min()),
            oom_kills: of(&self.memory, "memory.oom_control").and_then(|text| value(&text, "oom_kill")),
        }
    }
}

fn version_2(folder: &Path) -> ContainerUsage {
    let of = |name: &str| text(folder, name).unwrap_or_default();
    let limit = |folder: &Path| text(folder, "memory.max")?.trim().parse::<u64>().ok(); // `max` is no number
    let stat = of("cpu.stat");
    let memory_bytes = of("memory.current").trim().parse().ok();
    ContainerUsage {
        cpu_seconds: value(&stat, "usage_usec").map(|micros| micros as f64 / 1e6),
        cpu_limit: lineage(folder).filter_map(|folder| cores(&text(folder, "cpu.max")?)).reduce(f64::min),
        throttling: throttling(&stat, "throttled_usec", 1e6),
        memory_bytes,
        working_set_bytes: working_set(memory_bytes, value(&of("memory.stat"), "inactive_file")),
        memory_limit_bytes: lineage(folder).filter_map(limit).min(),
        oom_kills: value(&of("memory.events"), "oom_kill"),
    }
}

/// A group and those above it, the nearest first: a folder that is a group lists its processes, in both versions.
fn lineage(folder: &Path) -> impl Iterator<Item = &Path> {
    let above = folder.ancestors().skip(1).take_while(|above| above.join("cgroup.procs").is_file());
    std::iter::once(folder).chain(above)
}

fn text(folder: &Path, name: &str) -> Option<String> {
    fs::read_to_string(folder.join(name)).ok()
}

/// Where the hierarchy of a controller is mounted, and in it the path: as far as the mount does not begin there already.
fn folder(mountinfo: &str, kind: &str, controller: &str, path: &str) -> Option<PathBuf> {
    let mount = mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let is_kind = file_system.next()? == kind;
        let options = file_system.nth(1)?;
        let has_controller = controller.is_empty() || options.split(',').any(|option| option == controller);
        (is_kind && has_controller).then_some((root, point))
    });
    let (root, point) = mount?;
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    Some(Path::new(point).join(below))
}

/// The number behind a key, as in `nr_periods 12`.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Version 1 has two files for what `cores` reads of one; a negative quota is no limit.
fn quota(folder: &Path) -> Option<f64> {
    let number = |name: &str| text(folder, name)?.trim().parse().ok().filter(|number: &f64| *number > 0.0);
    Some(number("cpu.cfs_quota_us")? / number("cpu.cfs_period_us")?)
}

/// `max 100000` is no limit, `150000 100000` one and a half cores.
fn cores(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then(|| quota / period)
}

fn throttling(stat: &str, time: &str, per_second: f64) -> Option<Throttling> {
    let seconds = value(stat, time)? as f64 / per_second;
    Some(Throttling { periods: value(stat, "nr_periods")?, throttled: value(stat, "nr_throttled")?, seconds })
}

/// As a kubelet counts it.
fn working_set(memory: Option<u64>, inactive: Option<u64>) -> Option<u64> {
    Some(memory?.saturating_sub(inactive?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).expect("a folder");
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("a file");
        }
    }

    #[test]
    fn a_cgroup_of_version_2_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(
            folder.path(),
            &[
                ("cpu.max", "150000 100000\n"),
                (
                    "cpu.stat",
                    "usage_usec 2500000\nuser_usec 2000000\nnr_periods 40\nnr_throttled 10\nthrottled_usec 750000\n",
                ),
                ("memory.current", "104857600\n"),
                ("memory.max", "209715200\n"),
                ("memory.stat", "anon 50000000\nfile 54857600\ninactive_file 4857600\n"),
                ("memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_group_kill 3\noom_kill 1\n"),
            ],
        );
        let expected = ContainerUsage {
            cpu_seconds: Some(2.5),
            cpu_limit: Some(1.5),
            throttling: Some(Throttling { periods: 40, throttled: 10, seconds: 0.75 }),
            memory_bytes: Some(104_857_600),
            working_set_bytes: Some(100_000_000),
            memory_limit_bytes: Some(209_715_200),
            oom_kills: Some(1),
        };
        assert_eq!(Places::of_folder(folder.path()).usage(), expected);
        write(folder.path(), &[("cpu.max", "max 100000\n"), ("memory.max", "max\n")]);
        let free = Places::of_folder(folder.path()).usage();
        assert_eq!((free.cpu_limit, free.memory_limit_bytes), (None, None));
    }

    #[test]
    fn a_cgroup_of_version_1_is_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(
            &folder.path().join("cpu"),
            &[
                ("cpu.cfs_quota_us", "50000\n"),
                ("cpu.cfs_period_us", "100000\n"),
                ("cpu.stat", "nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000\n"),
            ],
        );
        write(&folder.path().join("cpuacct"), &[("cpuacct.usage", "1250000000\n")]);
        let memory = folder.path().join("memory");
        write(
            &memory,
            &[
                ("memory.usage_in_bytes", "1000\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.stat", "inactive_file 1\ntotal_inactive_file 400\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
            ],
        );
        let mut expected = ContainerUsage {
            cpu_seconds: Some(1.25),
            cpu_limit: Some(0.5),
            throttling: Some(Throttling { periods: 9, throttled: 3, seconds: 1.5 }),
            memory_bytes: Some(1_000),
            working_set_bytes: Some(600),
            memory_limit_bytes: None,
            oom_kills: Some(5),
        };
        assert_eq!(Places::of_folder(folder.path()).usage(), expected);
        write(&memory, &[("memory.limit_in_bytes", "2000\n")]);
        write(&folder.path().join("cpu"), &[("cpu.cfs_quota_us", "-1\n")]);
        (expected.memory_limit_bytes, expected.cpu_limit) = (Some(2_000), None);
        assert_eq!(Places::of_folder(folder.path()).usage(), expected);
    }

    #[test]
    fn the_smallest_limit_of_a_group_and_those_above_it_holds() {
        let top = tempfile::tempdir().expect("a temporary folder");
        let of_two = |cpu: &'static str, memory: &'static str| {
            [("cpu.max", cpu), ("memory.max", memory), ("memory.current", "9"), ("cgroup.procs", "")]
        };
        let of_one = |quota: &'static str, memory: &'static str| {
            [
                ("cpu.cfs_quota_us", quota),
                ("cpu.cfs_period_us", "100000"),
                ("memory.limit_in_bytes", memory),
                ("cgroup.procs", ""),
            ]
        };
        // above the highest group its mount ends: what stands there is of something else
        write(top.path(), &[("cpu.max", "1 100000"), ("memory.max", "1"), ("memory.limit_in_bytes", "1")]);
        for (name, own, slice, pod) in [
            ("two", of_two("max 100000", "max"), of_two("50000 100000", "4000"), of_two("90000 100000", "3000")),
            ("one", of_one("-1", "9223372036854771712"), of_one("50000", "4000"), of_one("90000", "3000")),
        ] {
            let highest = top.path().join(name);
            write(&highest, &slice);
            write(&highest.join("pod"), &pod);
            write(&highest.join("pod/own"), &own);
            let own = highest.join("pod/own");
            let places =
                Places { memory: Some(own.clone()), cpu: Some(own.clone()), unified: Some(own), cpuacct: None };
            let usage = places.usage();
            assert_eq!((usage.cpu_limit, usage.memory_limit_bytes), (Some(0.5), Some(3_000)), "version {name}");
        }
    }

    #[test]
    fn a_folder_without_a_cgroup_tells_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(Places::of_folder(folder.path()).usage(), ContainerUsage::default());
        assert_eq!(Places::of_process("", "").usage(), ContainerUsage::default());
    }

    const HYBRID: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
         35 31 0:32 /docker/ab /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
         40 31 0:37 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_process_leads_to_its_folders() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        for (cgroup, mountinfo, expected) in [
            // version 2: in a namespace of its own, and without one
            ("0::/\n", unified, [Some("/sys/fs/cgroup/"), None, None, None]),
            ("0::/user.slice/a:b\n", unified, [Some("/sys/fs/cgroup/user.slice/a:b"), None, None, None]),
            // version 1 beside it; memory is mounted where the container begins
            (
                "4:memory:/docker/ab/web\n2:cpu,cpuacct:/x\n0::/\n",
                HYBRID,
                [
                    Some("/sys/fs/cgroup/unified/"),
                    Some("/sys/fs/cgroup/memory/web"),
                    Some("/sys/fs/cgroup/cpu/x"),
                    Some("/sys/fs/cgroup/cpu/x"),
                ],
            ),
            // a mount that begins elsewhere
            ("4:memory:/other\n", HYBRID, [None, Some("/sys/fs/cgroup/memory/"), None, None]),
            ("nonsense\n4:memory\n", HYBRID, [None; 4]),
        ] {
            let found = Places::of_process(cgroup, mountinfo);
            let found = [found.unified, found.memory, found.cpu, found.cpuacct];
            assert_eq!(found, expected.map(|path| path.map(PathBuf::from)), "{cgroup}");
        }
    }
}
