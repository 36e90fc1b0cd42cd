"""The conformance suite of HTTP/2, h2spec, against both ports."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from processes import ROOT
from sidecar import Sidecar

# What is no preface is a request of HTTP/1.1 here, and a bad one: both ports speak both, so it gets 400 and the end of its
# connection. h2spec wants the end alone.
FAILS = {"http2/3.5: Sends invalid connection preface"}
CASES = 145
# An answer may come before the rest of its request (RFC 9113, section 8.1), and what then comes behind is of a stream that is
# over: which of the two is faster is chance. What is wrong fails each time.
RUNS = 10


@pytest.fixture(scope="session")
def h2spec() -> str:
    """The program, built if it is not there yet."""
    built = subprocess.run([ROOT / "tests/setup/h2spec.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return built.stdout.splitlines()[-1]


def cases(report: Path) -> tuple[set[str], set[str]]:
    """The names of the cases of a report: all that were tried, and those that failed."""
    tried, failed = set(), set()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('package')}: {case.get('classname')}"
        if case.find("skipped") is None:
            tried.add(name)
        if case.find("error") is not None or case.find("failure") is not None:
            failed.add(name)
    return tried, failed


def always_failed(failed: set[str], again: Callable[[str], set[str]]) -> set[str]:
    """Those that fail in each of some more runs of their section."""
    for _ in range(RUNS):
        if failed <= FAILS:
            break
        failed = {name for name in failed if name in FAILS or name in again(name.split(":")[0])}
    return failed


@pytest.mark.parametrize(("port", "path"), [("proxy", "/health"), ("admin", "/openapi.json")])
def test_h2spec_passes(h2spec: str, sidecar: Sidecar, tmp_path: Path, port: str, path: str):
    address = urlsplit(getattr(sidecar, port))
    report = tmp_path / "h2spec.xml"

    def run(*sections: str) -> tuple[set[str], set[str]]:
        command = [h2spec, *sections, "-h", address.hostname, "-p", str(address.port), "--path", path, "-o", "1", "-j", str(report)]
        subprocess.run(command, stdout=subprocess.PIPE, timeout=120, check=False)
        return cases(report)

    tried, failed = run()
    assert len(tried) == CASES, tried
    assert always_failed(failed, lambda section: run(section)[1]) == FAILS
