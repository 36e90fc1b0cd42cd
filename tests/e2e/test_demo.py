"""`demo --collector URL`: the demo's telemetry in a real collector."""

from __future__ import annotations

import re
from pathlib import Path

from collecting import FileCollector
from exported import SERVER
from processes import Process
from sidecar import binary
from waiting import eventually

ANY_PORTS = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--app", "127.0.0.1:0"]


def test_a_demo_sends_each_of_its_requests_to_the_real_collector(tmp_path: Path, collector: FileCollector):
    command = [binary(), "demo", "--duration", "3s", "--collector", collector.url, *ANY_PORTS]
    demo = Process("demo", command, {"TMPDIR": str(tmp_path)}, tmp_path)
    demo.spawn()
    assert demo.wait(60) == 0, demo.said()
    assert re.search(rf"^telemetry goes to\s+{collector.url}$", demo.said(), re.MULTILINE), demo.said()
    last = demo.said().splitlines()[-1]
    requests = int(re.search(r"(\d+) requests", last)[1])
    assert requests > 10, last
    # the collector has taken them, and writes them in its own time
    eventually(lambda: len(collector.exported.spans(SERVER)) >= requests, f"{requests} spans")
    spans = collector.exported.spans(SERVER)
    assert len({span.span_id for span in spans}) == len(spans) == requests, last
    eventually(lambda: collector.exported.requests("http.server.request.duration") > 0, "durations")
