"""Runs every suite, tells each one's counts, and ends with the line `N passed, N failed`.

`make test` calls it once everything is installed. A suite that ends without counts (it did not compile, it crashed)
counts as one failure. What is skipped is told, and with CI=true it is a failure: there everything can be installed.

A few failed tests are run once more, each suite's by themselves: what passes then is counted as passed, and named as
flaky, because it is a defect of the test or of the product all the same. Both runs' output is kept. What proves that
nothing is miscounted, misread or lost has no second chance: there, one failure among many runs is the finding.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Where .ci/run finds the totals, whatever make prints after them.
TOTALS = TARGET / "test-totals"

PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
SUITES = {
    "cargo test": ["cargo", "test", "--no-fail-fast"],
    "end to end": [*PYTEST, "tests/e2e"],
    # Measures SIDECAR_BIN; the measuring program itself shares the build of the tests.
    "cost of a request": ["cargo", "bench", "--profile", "dev", "--bench", "cost", "--", *"instructions syscalls start footprint".split()],
    "chart": [*PYTEST, "tests/chart"],
    "what the tests stand on": [*PYTEST, "tests/setup"],
    "code of others": ["tests/deny.sh"],
}
# These print no counts: each is one test, and its exit code is the result.
ONE_TEST = {"code of others"}

# More failures than these are no coincidence, and are not run again.
MOST_RUN_AGAIN = 5
# Neither are these, by the name of the suite or of the test.
EXACT = re.compile(r"oracle|count(?:ed|ing)|drain|restarts|rolling|supervisor|sigterm|kills")

# Some machines ask every program for colour.
COLOUR = re.compile(r"\x1b\[[\d;]*m|\x1b\(B")
CARGO_TARGET = re.compile(r"^\s+Running (?:unittests )?(\S+)|^\s+(Doc-tests) ")
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")
PYTEST_RESULT = re.compile(r"^=+ .*\b\d+ (?:passed|failed|skipped|error).* in [\d.]+s.* =+$")
PYTEST_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)")
CARGO_FAILED = re.compile(r"^test (\S+) (?:- should panic )?\.\.\. FAILED$")
CARGO_SUITE = re.compile(r"^tests/(\w+)(?:/main)?\.rs$")
PYTEST_FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+::.*?)(?: - .*)?$")


@dataclass
class Counts:
    """What became of the tests of one suite, or of one part of it."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    flaky: int = 0

    def __str__(self) -> str:
        if self.flaky:
            return f"{self.name}: {self.flaky} of the failed passed"
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.name}: {self.passed} passed, {self.failed} failed{skipped}"


def output(name: str, command: list[str]) -> tuple[int, list[str]]:
    """Runs a command, shows what it says, and returns its exit code and its lines without colour."""
    print(f"\n=== {name}: {' '.join(command)}", flush=True)
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    lines = []
    with subprocess.Popen(command, cwd=ROOT, **said) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(COLOUR.sub("", line.rstrip("\n")))
    return process.returncode, lines


def counted(name: str, lines: list[str]) -> list[Counts]:
    """What the suite's own lines say of its tests."""
    return list(cargo_counts(lines)) + list(pytest_counts(name, lines))


def failures(lines: list[str]) -> dict[tuple[str, ...], list[str]]:
    """The failed tests' names, by the command that runs them alone; empty when one of them cannot be run alone."""
    found: dict[tuple[str, ...], list[str]] = {}
    target = ""
    for line in lines:
        if running := CARGO_TARGET.match(line):
            target = running[1] or ""
        elif failed := CARGO_FAILED.match(line):
            if target == "src/lib.rs":
                which = ["--lib"]
            elif suite := CARGO_SUITE.match(target):
                which = ["--test", suite[1]]
            else:
                return {}
            found.setdefault(("cargo", "test", *which, "--", "--test-threads=1", "--exact"), []).append(failed[1])
        elif failed := PYTEST_FAILED.match(line):
            found.setdefault(tuple(PYTEST), []).append(failed[1])
    return found


def without_exact(by_command: dict[tuple[str, ...], list[str]]) -> dict[tuple[str, ...], list[str]]:
    """The failed tests that may be run again."""
    left = {}
    for command, tests in by_command.items():
        suite = command[3] if command[0] == "cargo" else ""
        if again := [test for test in tests if not EXACT.search(f"{suite} {test}")]:
            left[command] = again
    return left


def run_again(name: str, lines: list[str], counts: list[Counts]) -> Counts | None:
    """Runs the failed tests alone: the correction of the counts, `None` when they stand as they are."""
    failed = sum(part.failed for part in counts)
    by_command = failures(lines)
    if not 0 < sum(map(len, by_command.values())) == failed <= MOST_RUN_AGAIN:
        return None
    by_command = without_exact(by_command)
    if not by_command:
        return None
    name = f"{name}: again, alone"
    flaky = 0
    for command, tests in by_command.items():
        code, said = output(name, [*command, *tests])
        if code == 0 and sum(part.passed for part in counted(name, said)) == len(tests):
            flaky += len(tests)
    return Counts(name, passed=flaky, failed=-flaky, flaky=flaky)


def run(name: str, command: list[str]) -> list[Counts]:
    """Runs one suite, and what failed of it once more; returns its counts."""
    started = time.monotonic()
    code, lines = output(name, command)
    counts = counted(name, lines)
    if name in ONE_TEST:
        counts.append(Counts(name, passed=int(code == 0), failed=int(code != 0)))
    elif code != 0 and not any(part.failed for part in counts):
        print(f"{name} ended with {code} and named no failed test", flush=True)
        counts.append(Counts(f"{name}: exit code {code}", failed=1))
    elif not any(part.passed for part in counts):
        counts.append(Counts(f"{name}: found no test", failed=1))
    if correction := run_again(name, lines, counts):
        counts.append(correction)
    print(f"=== {name}: {time.monotonic() - started:.0f} s", flush=True)
    return counts


def cargo_counts(lines: list[str]) -> Iterator[Counts]:
    """One entry for each test binary that has tests."""
    target = "cargo"
    for line in lines:
        if found := CARGO_TARGET.match(line):
            target = found[1] or found[2]
        elif found := CARGO_RESULT.match(line):
            passed, failed, ignored = map(int, found.groups())
            if passed or failed or ignored:
                yield Counts(target, passed, failed, ignored)


def pytest_counts(name: str, lines: list[str]) -> Iterator[Counts]:
    """The summary in the last line of pytest."""
    summary = next((line for line in reversed(lines) if PYTEST_RESULT.match(line)), None)
    if summary is None:
        return
    counts = Counts(name)
    for number, word in PYTEST_COUNT.findall(summary):
        if word == "passed":
            counts.passed += int(number)
        elif word in ("skipped", "xfailed", "deselected"):
            counts.skipped += int(number)
        else:
            counts.failed += int(number)
    yield counts


def judged(parts: list[Counts]) -> list[Counts]:
    """The same, and one failure more where something was skipped that could not be."""
    skipped = sum(part.skipped for part in parts)
    if skipped and os.environ.get("CI") == "true":
        return [*parts, Counts(f"{skipped} skipped, expected none in CI", failed=1)]
    return parts


def main() -> int:
    """Runs all suites, also after a failed one."""
    parts = judged([part for name, command in SUITES.items() for part in run(name, command)])
    passed, failed = sum(part.passed for part in parts), sum(part.failed for part in parts)
    flaky = sum(part.flaky for part in parts)
    total = f"{passed} passed, {failed} failed"
    TOTALS.parent.mkdir(parents=True, exist_ok=True)
    TOTALS.write_text(total + "\n")
    print("\n" + "\n".join(str(part) for part in parts))
    if flaky:
        print(f"{flaky} passed only when run again, alone: find out why (what they said is above)")
    print(total, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
