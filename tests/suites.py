"""Runs every suite, tells each one's counts, and ends with the line `N passed, N failed`.

`make test` calls it once everything is installed. A suite that ends without counts (it did not compile, it crashed)
counts as one failure. What is skipped is told, and with CI=true it is a failure: there everything can be installed.
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
    "cost of a request": ["cargo", "bench", "--profile", "dev", "--bench", "cost", "--", "instructions", "syscalls"],
    "chart": [*PYTEST, "tests/chart"],
    "code of others": ["tests/deny.sh"],
}
# These print no counts: each is one test, and its exit code is the result.
ONE_TEST = {"code of others"}

# Some machines ask every program for colour.
COLOUR = re.compile(r"\x1b\[[\d;]*m|\x1b\(B")
CARGO_TARGET = re.compile(r"^\s+Running (?:unittests )?(\S+)|^\s+(Doc-tests) ")
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")
PYTEST_RESULT = re.compile(r"^=+ .*\b\d+ (?:passed|failed|skipped|error).* in [\d.]+s.* =+$")
PYTEST_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)")


@dataclass
class Counts:
    """What became of the tests of one suite, or of one part of it."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.name}: {self.passed} passed, {self.failed} failed{skipped}"


def run(name: str, command: list[str]) -> list[Counts]:
    """Runs one suite, shows what it says, and returns its counts."""
    print(f"\n=== {name}: {' '.join(command)}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(COLOUR.sub("", line.rstrip("\n")))
    code = process.wait()
    counts = list(cargo_counts(lines)) + list(pytest_counts(name, lines))
    if name in ONE_TEST:
        counts.append(Counts(name, passed=int(code == 0), failed=int(code != 0)))
    elif code != 0 and not any(part.failed for part in counts):
        print(f"{name} ended with {code} and named no failed test", flush=True)
        counts.append(Counts(f"{name}: exit code {code}", failed=1))
    elif not any(part.passed for part in counts):
        counts.append(Counts(f"{name}: found no test", failed=1))
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


def main() -> int:
    """Runs all suites, also after a failed one."""
    parts = [part for name, command in SUITES.items() for part in run(name, command)]
    skipped = sum(part.skipped for part in parts)
    if skipped and os.environ.get("CI") == "true":
        parts.append(Counts(f"{skipped} skipped, expected none in CI", failed=1))
    passed, failed = sum(part.passed for part in parts), sum(part.failed for part in parts)
    total = f"{passed} passed, {failed} failed"
    TOTALS.parent.mkdir(parents=True, exist_ok=True)
    TOTALS.write_text(total + "\n")
    print("\n" + "\n".join(str(part) for part in parts))
    print(total, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
