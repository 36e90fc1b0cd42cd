"""What the scripts of this folder say and do where something is missing: on a PATH that holds only what a test puts there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parent
ROOT = SETUP.parents[1]

# What the scripts themselves are written with, and every system has.
BASIC = "awk bash basename cat cut dirname env flock grep head make mkdir mktemp mv rm sed sha256sum sh tail touch tr uname".split()


class Machine:
    """A PATH with the basic programs, and what else a test puts there."""

    def __init__(self, folder: Path):
        self.bin, self.cache, self.calls = folder / "bin", folder / "cache", folder / "calls"
        self.bin.mkdir()
        self.calls.touch()
        for name in BASIC:
            self.has(name)
        self.says("id", "echo 1000")

    def has(self, name: str) -> None:
        """The program of the machine that runs the tests."""
        found = shutil.which(name)
        assert found, f"found no {name}, which the tests need too"
        (self.bin / name).symlink_to(found)

    def says(self, name: str, script: str) -> None:
        """A program of the shell, whose calls are noted."""
        file = self.bin / name
        file.unlink(missing_ok=True)
        file.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self.calls}"\n{script}\n')
        file.chmod(0o755)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs it to its end."""
        environment = {"PATH": str(self.bin), "HOME": str(self.cache), "XDG_CACHE_HOME": str(self.cache)}
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    def called(self, name: str) -> list[str]:
        """What a program was asked, each time."""
        lines = self.calls.read_text().splitlines()
        return [line.removeprefix(f"{name} ") for line in lines if line.startswith(f"{name} ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One that has next to nothing, for an ordinary user."""
    return Machine(tmp_path)


# Of debian.sh, those that no file at a fixed place stands for.
MISSING = "redis-server valgrind strace faketime wrk nghttp2-client build-essential curl git openssl chromium-headless-shell procps python3-venv".split()


def test_without_apt_it_names_everything_that_is_missing(machine: Machine):
    run = machine.run(SETUP / "debian.sh")
    assert run.returncode == 1
    assert all(package in run.stderr for package in MISSING), run.stderr
    assert "there is no apt-get here: install these programs with this system's package manager" in run.stderr


def test_a_user_who_may_not_install_is_given_the_command(machine: Machine):
    machine.says("apt-get", "exit 0")
    run = machine.run(SETUP / "debian.sh")
    assert run.returncode == 1
    [told] = [line for line in run.stderr.splitlines() if "this user may not install packages: run  sudo apt-get install" in line]
    assert all(told.count(package) >= 2 for package in MISSING), "as missing, and in the command"
    assert machine.called("apt-get") == []


# Makes every program that the packages of its arguments bring.
INSTALLS = """
if [ "$1" = install ]; then
    for program in redis-server valgrind strace faketime nginx haproxy wrk h2load cc curl git openssl chromium-headless-shell kill initdb pgbouncer; do
        printf '#!/bin/sh\\n' >"{bin}/$program"
        chmod +x "{bin}/$program"
    done
fi
"""


@pytest.mark.parametrize("is_root", [True, False])
def test_who_may_install_installs_what_is_missing_and_nothing_twice(machine: Machine, is_root: bool):
    machine.has("chmod")
    (machine.bin / "python3").symlink_to(sys.executable)
    machine.says("apt-get", INSTALLS.format(bin=machine.bin))
    machine.says("id", "echo 0" if is_root else "echo 1000")
    if not is_root:
        machine.says("sudo", 'shift; exec "$@"')
        machine.has("true")
    run = machine.run(SETUP / "debian.sh")
    assert run.returncode == 0, run.stderr
    update, install = machine.called("apt-get")
    assert update.startswith("update") and install.startswith("install -y --no-install-recommends ")
    assert set(MISSING) - set(install.split()) <= {"python3-venv"}, install
    assert bool(machine.called("sudo")) is not is_root
    again = machine.run(SETUP / "debian.sh")
    assert (again.returncode, again.stderr) == (0, "Debian packages: all there\n")
    assert len(machine.called("apt-get")) == 2


def test_an_installation_that_brings_nothing_is_told(machine: Machine):
    machine.says("apt-get", "exit 0")
    machine.says("id", "echo 0")
    run = machine.run(SETUP / "debian.sh")
    assert run.returncode == 1
    assert "still missing after apt-get install" in run.stderr and "redis-server" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("script", ["collector.sh", "h2spec.sh", "grpc-interop.sh"])
def test_without_go_what_is_built_from_it_says_which_and_where(machine: Machine, script: str):
    run = machine.run(SETUP / script)
    assert (run.returncode, run.stdout) == (1, "")
    assert "Go 1.26" in run.stderr and "https://go.dev/dl/" in run.stderr


def test_what_was_built_before_needs_no_go(machine: Machine):
    kept = machine.cache / "content-factory-sidecar"
    machine.says("sha256sum", "echo 0123456789abcdef")
    for folder, program in {"h2spec-0123456789ab": "h2spec", "grpc-interop-0123456789ab": "client"}.items():
        (kept / folder).mkdir(parents=True)
        for name in (program, "server"):
            (kept / folder / name).write_text("#!/bin/sh\n")
            (kept / folder / name).chmod(0o755)
    assert machine.run(SETUP / "h2spec.sh").stdout == f"{kept}/h2spec-0123456789ab/h2spec\n"
    assert machine.run(SETUP / "grpc-interop.sh").stdout == f"{kept}/grpc-interop-0123456789ab\n"


@pytest.mark.parametrize("python", [None, 'if [ "$1" = --version ]; then echo "Python 3.9.2"; else exit 1; fi'])
def test_without_a_recent_python_it_says_what_it_found(machine: Machine, python: str | None):
    if python:
        machine.says("python3", python)
    run = machine.run(SETUP / "python.sh")
    assert run.returncode == 1
    found = "Python 3.9.2" if python else "no python3"
    assert run.stderr == f"found {found}, expected Python 3.11 or later as python3 in PATH\n"


def test_make_tools_tells_all_that_is_missing_at_once(machine: Machine):
    run = machine.run("make", "tools")
    assert run.returncode != 0
    for told in (
        "redis-server",
        "expected Python 3.11 or later",
        "to build h2spec",
        "to build the interop tests of gRPC",
        "to build the collector",
        "could not set up: debian python helm h2spec grpc-interop collector deny",
    ):
        assert told in run.stderr, f"{told} is missing in:\n{run.stderr}"


def test_make_test_runs_nothing_where_something_could_not_be_set_up(machine: Machine):
    machine.says("cargo", "exit 1")
    run = machine.run("make", "test")
    assert run.returncode != 0
    assert "could not set up" in run.stderr
    assert "passed" not in run.stdout, "it never skips in silence"
