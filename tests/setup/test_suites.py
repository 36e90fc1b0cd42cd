"""How the runner of all suites counts, on the words that cargo and pytest really say."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
import suites
from suites import Counts

CARGO = """\
     Running unittests src/lib.rs (target/debug/deps/content_factory_sidecar-1)
test a::passes ... ok
test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s
     Running tests/it/main.rs (target/debug/deps/it-2)
test start::fails ... FAILED
test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
     Running tests/empty.rs (target/debug/deps/empty-3)
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
"""


def says(text: str, code: int = 0) -> list[str]:
    """A command that says this and ends so."""
    return [sys.executable, "-c", f"import sys; print({text!r}, end=''); sys.exit({code})"]


def program(folder: Path, name: str, script: str) -> None:
    """A program of the shell in this folder."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def totals(parts: list[Counts]) -> tuple[int, int, int]:
    """Passed, failed and skipped of all of them."""
    return sum(part.passed for part in parts), sum(part.failed for part in parts), sum(part.skipped for part in parts)


def test_cargo_is_counted_by_test_binary_and_what_it_ignores_is_skipped():
    parts = list(suites.cargo_counts(CARGO.splitlines()))
    assert parts == [Counts("src/lib.rs", 12, 0, 1), Counts("tests/it/main.rs", 3, 1, 0)]


@pytest.mark.parametrize(
    "summary, expected",
    [
        ("===== 7 passed in 3.20s =====", (7, 0, 0)),
        ("= 1 failed, 5 passed, 2 skipped, 1 warning in 61.02s (0:01:01) =", (5, 1, 2)),
        ("== 4 passed, 2 errors in 0.10s ==", (4, 2, 0)),
        ("== 3 passed, 1 xfailed, 2 deselected in 0.10s ==", (3, 0, 3)),
        ("== 3 passed, 1 xpassed in 0.10s ==", (3, 1, 0)),
    ],
)
def test_pytest_is_counted_by_its_last_line(summary: str, expected: tuple[int, int, int]):
    assert totals(list(suites.pytest_counts("e2e", ["noise", summary]))) == expected


def test_colour_changes_no_count():
    coloured = "\x1b[32m===== \x1b[1m7 passed\x1b[0m in 3.20s =====\x1b[0m\n"
    assert totals(suites.run("coloured", says(coloured))) == (7, 0, 0)


@pytest.mark.parametrize("said, code", [("error: could not compile", 101), ("", 0), ("killed", 137)])
def test_a_suite_that_ends_without_counts_is_one_failure(said: str, code: int):
    assert totals(suites.run("broken", says(said, code))) == (0, 1, 0)


def test_a_suite_that_fails_after_passing_all_its_tests_is_a_failure():
    assert totals(suites.run("leaving badly", says("== 7 passed in 3.20s ==\n", 3))) == (7, 1, 0)


@pytest.mark.parametrize("code, expected", [(0, (1, 0, 0)), (1, (0, 1, 0))])
def test_a_suite_that_is_one_test_counts_by_its_exit_code(code: int, expected: tuple[int, int, int]):
    [name] = suites.ONE_TEST
    assert totals(suites.run(name, says("whatever", code))) == expected


def test_what_is_skipped_is_a_failure_in_ci_and_nowhere_else(monkeypatch: pytest.MonkeyPatch):
    parts = [Counts("one", passed=5, skipped=1), Counts("two", passed=2)]
    monkeypatch.delenv("CI", raising=False)
    assert totals(suites.judged(parts)) == (7, 0, 1)
    monkeypatch.setenv("CI", "true")
    assert totals(suites.judged(parts)) == (7, 1, 1)
    assert totals(suites.judged([Counts("all there", passed=3)])) == (3, 0, 0)


@pytest.fixture
def cargo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cargo that passes whatever it is asked for, and notes what that was."""
    asked = tmp_path / "asked"
    asked.touch()
    passes = 'echo "$*" >>"%s"; echo "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured"' % asked
    program(tmp_path, "cargo", passes)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return asked


def failing(*tests: str, target: str = "tests/it/main.rs") -> list[str]:
    """A run of cargo in which these fail and nine others pass."""
    lines = "".join(f"test {test} ... FAILED\n" for test in tests)
    result = f"test result: FAILED. 9 passed; {len(tests)} failed; 0 ignored; 0 measured\n"
    return says(f"     Running {target} (target/debug/deps/x-1)\n{lines}{result}", 101)


def test_a_failed_test_that_passes_alone_is_passed_and_named_flaky(cargo: Path):
    parts = suites.run("cargo test", failing("start::fails"))
    assert totals(parts) == (10, 0, 0)
    assert [part.flaky for part in parts] == [0, 1]
    assert cargo.read_text() == "test --test it -- --test-threads=1 --exact start::fails\n"


def test_many_failures_are_no_coincidence(cargo: Path):
    tests = [f"start::fails_{number}" for number in range(suites.MOST_RUN_AGAIN + 1)]
    assert totals(suites.run("cargo test", failing(*tests))) == (9, 6, 0)
    assert cargo.read_text() == ""


@pytest.mark.parametrize(
    "test, target",
    [
        ("proxy_counting::what_clients_tally_is_what_the_metrics_say", "tests/it/main.rs"),
        ("proxy_drain::no_request_fails_over_a_sigterm_under_load", "tests/it/main.rs"),
        ("h2_drain::no_request_fails_over_a_sigterm_under_load", "tests/it/main.rs"),
        ("supervisor::rooms_that_panic_are_started_again_and_no_request_notices", "tests/it/main.rs"),
        ("requests::nothing_dirty", "tests/oracle/main.rs"),
        ("rolling::no_request_fails", "tests/contract/main.rs"),
    ],
)
def test_what_proves_exactness_has_no_second_chance(cargo: Path, test: str, target: str):
    assert totals(suites.run("cargo test", failing(test, target=target))) == (9, 1, 0)
    assert cargo.read_text() == ""


def test_a_failure_of_exactness_stands_while_its_neighbour_is_tried_again(cargo: Path):
    parts = suites.run("cargo test", failing("start::fails", "proxy_counting::tally"))
    assert totals(parts) == (10, 1, 0)
    assert "proxy_counting" not in cargo.read_text()


def test_the_suites_are_those_that_the_tree_has():
    folders = {word for command in suites.SUITES.values() for word in command if word.startswith("tests/")}
    assert folders == {"tests/e2e", "tests/chart", "tests/setup", "tests/deny.sh"}
    assert all((suites.ROOT / folder).exists() for folder in folders)
