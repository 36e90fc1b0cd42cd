"""The numbers of node, container and processes, beside those of this machine's own kernel: whichever version of cgroups it has."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest
from conftest import SidecarMaker
from factory import Application
from sidecar import Sidecar
from waiting import eventually

GB = 2**30


@pytest.fixture
def sampled(start_sidecar: SidecarMaker) -> Sidecar:
    """A sidecar that looks often, and has looked."""
    sidecar = start_sidecar({"system": {"period": "200ms"}, "telemetry": {"enabled": False}})
    eventually(lambda: sidecar.metric("system_memory_limit_bytes"), "a first look at the node")
    return sidecar


def number(text: str, pattern: str) -> float:
    """The number in the line of this pattern."""
    found = re.search(pattern, text, re.MULTILINE)
    assert found, f"{pattern} in {text}"
    return float(found[1])


def is_between(counted: Callable[[], float], shown: Callable[[], float], what: str) -> None:
    """What only grows is shown as the kernel had it after we began to look, and before we end."""
    before = counted()
    seen = eventually(lambda: (value := shown()) + 1e-6 >= before and (value,), f"{what} of at least {before}")[0]
    assert seen <= counted() + 1e-6, what


def test_memory_and_disk_of_the_node_are_the_kernels(sampled: Sidecar):
    total = number(Path("/proc/meminfo").read_text(), r"^MemTotal: +(\d+) kB") * 1024
    assert sampled.metric("system_memory_limit_bytes") == total
    shown = sampled.json("/status")["system"]
    assert shown["memory_total"] == f"{total / GB:.2f} GB"
    assert shown["platform"].startswith(f"Linux-{os.uname().release}")

    data = sampled.folder / "sidecar-data"
    disk, files = shutil.disk_usage(data), os.statvfs(data)

    def of_disk(state: str) -> float:
        return sampled.metric("system_filesystem_usage_bytes", system_filesystem_state=state)

    # as `df` and the application's psutil have it: what is reserved for root is neither used nor free
    assert sum(map(of_disk, ("used", "free", "reserved"))) == disk.total
    assert of_disk("reserved") == (files.f_bfree - files.f_bavail) * files.f_frsize
    assert shown["disk_total"] == f"{disk.total / GB:.2f} GB"
    # others write meanwhile
    assert abs(of_disk("used") - disk.used) < GB

    def of_files(state: str) -> float:
        return sampled.metric("content_factory_system_filesystem_inodes", system_filesystem_state=state)

    assert of_files("used") + of_files("free") == files.f_files
    assert abs(of_files("free") - files.f_ffree) < 100_000


class Cgroup:
    """The files of the sidecar's cgroup, found by what the kernel says of its process."""

    def __init__(self, pid: int):
        self.places: dict[str, Path] = {}
        mounts = [line.split(" - ") for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                kind = "cgroup" if controller else "cgroup2"
                for mount, told in mounts:
                    root, point = mount.split()[3:5]
                    if told.split()[0] == kind and (not controller or controller in told.split()[2].split(",")):
                        below = os.path.relpath(path, root) if path.startswith(root) else "."
                        self.places[controller] = Path(point) / below

    def text(self, controller: str, one: str, two: str) -> str | None:
        """A file of version 2 by its name there, else of version 1."""
        for place, name in ((self.places.get(""), two), (self.places.get(controller), one)):
            if place and name and (place / name).is_file():
                return (place / name).read_text()
        return None

    def limits(self, controller: str, one: str, two: str) -> list[str]:
        """The first words of a file of its own and of the groups above, as far as they are groups."""
        for place, name in ((self.places.get(""), two), (self.places.get(controller), one)):
            if place and (place / name).is_file():
                above = takewhile(lambda folder: (folder / "cgroup.procs").is_file(), place.parents)
                return [(folder / name).read_text().split()[0] for folder in (place, *above) if (folder / name).is_file()]
        return []


@pytest.mark.parametrize("place", ["node", "container"])
@pytest.mark.parametrize("resource", ["cpu", "memory", "io"])
def test_the_pressure_is_the_kernels(sampled: Sidecar, resource: str, place: str):
    """The container's is told by cgroups of version 2 alone."""
    assert sampled.process
    unified = Cgroup(sampled.process.pid).places.get("", Path("/nowhere"))
    file = Path("/proc/pressure") / resource if place == "node" else unified / f"{resource}.pressure"
    if not file.exists():
        shown = sampled.metric("content_factory_pressure_time_seconds_total", place=place, resource=resource)
        assert shown == 0, "this kernel tells of none"
        return
    is_between(
        lambda: number(file.read_text(), r"^some .*total=(\d+)") / 1e6,
        lambda: sampled.metric("content_factory_pressure_time_seconds_total", place=place, resource=resource, kind="some"),
        f"pressure of {resource}",
    )


def test_cpu_time_and_memory_of_the_container_are_its_cgroups(sampled: Sidecar):
    assert sampled.process
    cgroup = Cgroup(sampled.process.pid)

    def cpu_seconds() -> float:
        if cgroup.places.get("") and (cgroup.places[""] / "cpu.stat").is_file():
            return number((cgroup.places[""] / "cpu.stat").read_text(), r"^usage_usec (\d+)") / 1e6
        return float((cgroup.places["cpuacct"] / "cpuacct.usage").read_text()) / 1e9

    if "cpuacct" in cgroup.places or cgroup.text("cpu", "", "cpu.stat"):
        is_between(cpu_seconds, lambda: sampled.metric("container_cpu_time_seconds_total"), "CPU time")

    limits = [int(limit) for limit in cgroup.limits("memory", "memory.limit_in_bytes", "memory.max") if limit != "max"]
    expected = min((limit for limit in limits if limit < 2**60), default=0)
    assert sampled.metric("content_factory_container_memory_limit_bytes") == expected

    quotas = [quota for quota in cgroup.limits("cpu", "cpu.cfs_quota_us", "cpu.max") if quota not in ("max", "-1")]
    assert (sampled.metric("content_factory_container_cpu_limit") > 0) == bool(quotas)

    if cgroup.text("memory", "memory.usage_in_bytes", "memory.current"):
        usage = sampled.metric("container_memory_usage_bytes")
        assert 0 < sampled.metric("container_memory_working_set_bytes") <= usage
        kills = cgroup.text("memory", "memory.oom_control", "memory.events") or ""
        if re.search(r"^oom_kill ", kills, re.MULTILINE):
            is_between(
                lambda: number(cgroup.text("memory", "memory.oom_control", "memory.events") or "", r"^oom_kill (\d+)"),
                lambda: sampled.metric("content_factory_container_oom_kills_total"),
                "processes killed for want of memory",
            )


LIMIT_BYTES = 64 << 20
# A tenth of a core, in each tenth of a second.
QUOTA, PERIOD = 10_000, 100_000
BUSY_SECONDS = 0.2


@dataclass
class Container:
    """A cgroup of our own with limits, of whichever version this kernel has, and the folder that shows it to the sidecar."""

    shown: Path
    parts: list[Path]

    def run(self, script: str) -> int:
        """A Python of its own in it, to its end; the exit code."""
        enter = "".join(f"echo $$ > {part}/cgroup.procs; " for part in self.parts)
        return subprocess.run(["sh", "-ec", f'{enter}exec "$0" -c "$1"', sys.executable, script], timeout=60, check=False).returncode


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container | None]:
    """None where nobody may make one: without root, or where all of it is the business of somebody else."""
    name, own = f"content-factory-{os.getpid()}", Cgroup(os.getpid()).places
    of_two = own.get("", tmp_path) / "cgroup.subtree_control"
    limits = {"cpu.max": f"{QUOTA} {PERIOD}", "memory.swap.max": "0", "memory.max": str(LIMIT_BYTES)}
    parts = {"": own[""] / name} if of_two.is_file() and {"cpu", "memory"} <= set(of_two.read_text().split()) else {}
    if not parts and {"cpu", "cpuacct", "memory"} <= own.keys():
        limits = {"cpu.cfs_period_us": str(PERIOD), "cpu.cfs_quota_us": str(QUOTA), "memory.limit_in_bytes": str(LIMIT_BYTES)}
        limits["memory.memsw.limit_in_bytes"] = str(LIMIT_BYTES)
        parts = {controller: own[controller] / name for controller in ("cpu", "cpuacct", "memory")}
    if not parts or not all(os.access(part.parent, os.W_OK) for part in parts.values()):
        yield None
        return
    shown = tmp_path / "container"
    for controller, part in parts.items():
        part.mkdir(exist_ok=True)
        for file, limit in limits.items():
            if (part / file).exists():
                (part / file).write_text(limit)
        (shown / controller if controller else shown).parent.mkdir(parents=True, exist_ok=True)
        (shown / controller if controller else shown).symlink_to(part)
    yield Container(shown, list(dict.fromkeys(parts.values())))
    for part in parts.values():
        part.rmdir()


def test_limits_throttling_and_kills_are_told_as_the_kernel_made_them(container: Container | None, start_sidecar: SidecarMaker):
    if container is None:
        assert os.geteuid() != 0 or not Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists(), "a machine of ours"
        return
    system = {"period": "200ms", "cgroup": str(container.shown)}
    sidecar = start_sidecar({"system": system, "telemetry": {"enabled": False}})
    eventually(lambda: sidecar.metric("content_factory_container_memory_limit_bytes") == LIMIT_BYTES, "the limit of memory")
    assert sidecar.metric("content_factory_container_cpu_limit") == QUOTA / PERIOD
    before = {name: sidecar.metric(f"content_factory_container_{name}_total") for name in ("oom_kills", "cpu_throttled_seconds")}
    assert before == {"oom_kills": 0, "cpu_throttled_seconds": 0}

    assert container.run(f"import time\nwhile time.process_time() < {BUSY_SECONDS}: pass") == 0
    eventually(lambda: sidecar.metric("content_factory_container_cpu_throttled_seconds_total") > 0, "the time that it was held back")
    eventually(lambda: sidecar.metric("container_cpu_time_seconds_total") >= BUSY_SECONDS, "the time that it had")

    assert container.run(f"bytearray({4 * LIMIT_BYTES})") == -signal.SIGKILL
    eventually(lambda: sidecar.metric("content_factory_container_oom_kills_total") == 1, "the kill")


def test_the_applications_processes_are_seen_and_what_they_use(sampled: Sidecar, application: Application):
    assert application.process
    master = application.process.pid
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    assert len(workers) == application.workers

    def ticks(pid: int | str) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    used = sum(map(ticks, [master, *workers])) / os.sysconf("SC_CLK_TCK")
    # there may be others of its kind on this machine
    eventually(lambda: sampled.metric("content_factory_application_processes", program="gunicorn") >= 1 + len(workers), "all of them")
    eventually(lambda: sampled.metric("content_factory_application_cpu_time_seconds_total", program="gunicorn") >= used, "their CPU time")
    assert sampled.metric("content_factory_application_memory_bytes", program="gunicorn") > 1e7 * len(workers)
