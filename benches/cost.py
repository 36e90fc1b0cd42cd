"""What the sidecar costs: user instructions per request, memory, and the time to the first byte.

Instructions are counted by valgrind: the same number on every machine, whatever else it does. Two runs of 400 and
2,400 requests over 8 kept connections; what they differ by, divided by 2,000, is one request without start and end.
The upstream is nginx with answers of 1 KiB, and telemetry goes to a real collector. `make bench` prints the table;
docs/performance.md keeps it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))

from collecting import FileCollector  # noqa: E402
from processes import Process, free_port  # noqa: E402
from sidecar import Sidecar  # noqa: E402
from traffic import Load  # noqa: E402
from waiting import eventually  # noqa: E402

FEW, MANY = 400, 2_400
CALLGRIND = ["valgrind", "--tool=callgrind", "--trace-children=no"]
# under valgrind everything takes fifty times as long
SLOW_SECONDS = 120

ORIGIN = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {upstream}
  server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }}
}}
"""


class Nginx(Process):
    """One nginx process: the origin, or the proxy that ours is compared with."""

    def __init__(self, folder: Path, name: str, location: str, upstream: str = "", under: list[str] | None = None):
        self.port = free_port()
        folder = folder / name
        folder.mkdir()
        file = folder / "nginx.conf"
        file.write_text(ORIGIN.format(folder=folder, port=self.port, location=location, upstream=upstream))
        super().__init__(name, [*(under or []), "/usr/sbin/nginx", "-c", str(file)], {}, folder)

    def start(self) -> None:
        """Returns once it listens."""
        self.spawn()
        eventually(lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True, self.name, SLOW_SECONDS)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


def press(url: str, requests: int, connections: int = 8) -> None:
    """Sends them all; each must be answered."""
    load = asyncio.run(Load(url, requests, connections).run())
    assert load.answered == requests, load.failures[:3]


def counted(process: Process) -> int:
    """Ends a process under callgrind and returns the instructions of its whole life."""
    process.stop(SLOW_SECONDS)
    return int(re.findall(r"Collected : (\d+)", process.said(20_000))[-1])


def per_request(few: int, many: int) -> str:
    """Instructions of one request."""
    return f"{(many - few) / (MANY - FEW):,.0f}"


class Bench:
    """The origin and the collector, and where everything writes to."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.origin = Nginx(folder, "origin", f'return 200 "{"x" * 1024}";')
        self.collector = FileCollector(folder)
        self.runs = 0

    def sidecar(self, telemetry: dict, under: list[str] | None = None) -> Sidecar:
        """A sidecar before the origin, not yet started."""
        self.runs += 1
        settings = {
            "proxy": {"listen": "127.0.0.1:0", "upstream": self.origin.url},
            "telemetry": {"endpoint": self.collector.url} | telemetry,
        }
        sidecar = Sidecar(self.folder / f"run-{self.runs}", settings)
        sidecar.command = [*(under or []), *sidecar.command]
        return sidecar

    def instructions_of_sidecar(self, telemetry: dict) -> str:
        """One row of the table."""
        totals = []
        for requests in (FEW, MANY):
            sidecar = self.sidecar(telemetry, [*CALLGRIND, "--callgrind-out-file=/dev/null"])
            sidecar.start(SLOW_SECONDS)
            press(sidecar.proxy, requests)
            totals.append(counted(sidecar))
        return per_request(*totals)

    def instructions_of_nginx(self) -> str:
        """The same path through nginx, without any telemetry."""
        totals = []
        upstream = f"upstream origin {{ server 127.0.0.1:{self.origin.port}; keepalive 32; }}"
        location = 'proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";'
        for requests in (FEW, MANY):
            under = [*CALLGRIND, "--callgrind-out-file=/dev/null"]
            nginx = Nginx(self.folder, f"nginx-{requests}", location, upstream, under)
            nginx.start()
            press(nginx.url, requests)
            totals.append(counted(nginx))
        return per_request(*totals)

    def memory_and_start(self) -> dict[str, str]:
        """RSS when idle and under 32 connections at full speed, and the time from exec to the first byte."""
        sidecar = self.sidecar({})
        started = time.monotonic()
        sidecar.start()
        press(sidecar.proxy, 1, 1)
        first = time.monotonic() - started
        idle = resident(sidecar, "VmRSS")
        wrk = ["wrk", "-t1", "-c32", "-d10s", sidecar.proxy]
        rate = re.search(r"Requests/sec:\s+([\d.]+)", subprocess.run(wrk, capture_output=True, text=True, check=True).stdout)
        peak = resident(sidecar, "VmHWM")
        assert sidecar.stop() == 0
        return {
            "first byte after exec": f"{first * 1000:.0f} ms",
            "RSS, idle": f"{idle:.1f} MiB",
            "peak RSS, 32 connections at full speed, all spans": f"{peak:.1f} MiB",
            "requests per second in that run": f"{float(rate[1]):,.0f}",
        }


def resident(process: Process, field: str) -> float:
    """A field of /proc/PID/status, in MiB."""
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024


def main() -> None:
    """Prints the table, row by row."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        bench.origin.start()
        print("| what | figure |\n|---|---|", flush=True)
        with bench.collector:
            for what, figure in bench.memory_and_start().items():
                print(f"| {what} | {figure} |", flush=True)
            rows = {"metrics and all spans": {"spans": "full"}, "metrics, no spans": {"spans": "propagate-only"}}
            for what, telemetry in rows.items():
                print(f"| instructions per request, {what} | {bench.instructions_of_sidecar(telemetry)} |", flush=True)
            print(f"| instructions per request, nginx without telemetry | {bench.instructions_of_nginx()} |", flush=True)
        bench.origin.stop()


if __name__ == "__main__":
    main()
