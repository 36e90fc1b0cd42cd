"""The conformance suite of HTTP/2, h2spec, against both ports."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from processes import ROOT
from sidecar import Sidecar

# What is no preface is a request of HTTP/1.1 here, and a bad one: both ports speak both, so it gets 400 and the end of its
# connection. h2spec wants the end alone; "MAY omit GOAWAY" (RFC 9113, section 3.4) leaves the rest to a server.
FAILS = {"http2/3.5: Sends invalid connection preface"}
# The admin port answers a POST at once, from its head: what comes behind is then of a stream that is over, and is not
# looked at. Which of the two is faster is chance, so sections whose cases send such frames may fail there.
MAY_FAIL = {"proxy": (), "admin": ("http2/8.1: ", "http2/8.1.2.1: ", "http2/8.1.2.6: ")}
CASES = 145


@pytest.fixture(scope="session")
def h2spec() -> str:
    """The program, built if it is not there yet."""
    built = subprocess.run([ROOT / "tests/setup/h2spec.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return built.stdout.splitlines()[-1]


# a page that is longer than the smallest window, and needs no sign of the reader
@pytest.mark.parametrize(("port", "path"), [("proxy", "/health"), ("admin", "/openapi.json")])
def test_h2spec_passes(h2spec: str, sidecar: Sidecar, tmp_path: Path, port: str, path: str):
    address = urlsplit(getattr(sidecar, port))
    report = tmp_path / "h2spec.xml"
    command = [h2spec, "-h", address.hostname, "-p", str(address.port), "--path", path, "-o", "5", "-j", str(report)]
    said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False).stdout
    cases = list(ElementTree.parse(report).iter("testcase"))
    name = lambda case: f"{case.get('package')}: {case.get('classname')}"  # noqa: E731
    failed = {name(case) for case in cases if case.find("error") is not None or case.find("failure") is not None}
    skipped = {name(case) for case in cases if case.find("skipped") is not None}
    certain = {case for case in failed if not case.startswith(MAY_FAIL[port])}
    assert certain == FAILS, said
    assert not skipped, skipped
    assert len(cases) == CASES
