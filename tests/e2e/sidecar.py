"""The sidecar, as a user starts it: one binary, one configuration file, two lines that say where it listens."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from processes import ROOT, Process
from waiting import DEADLINE_SECONDS, eventually

# Metrics leave each half second instead of each quarter of a minute, so that no test waits for them.
QUICK_EXPORT = {"OTEL_METRIC_EXPORT_INTERVAL": "500"}

METRIC = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")


def binary() -> str:
    """`SIDECAR_BIN`, else the newer of what cargo has built here."""
    chosen = os.environ.get("SIDECAR_BIN")
    if chosen:
        assert Path(chosen).is_file(), f"SIDECAR_BIN is {chosen}, expected a file"
        return chosen
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for profile in ("release", "debug") if (path := target / profile / "content-factory-sidecar").is_file()]
    assert built, f"found no sidecar in {target}, expected one: run cargo build --release, or set SIDECAR_BIN"
    return str(max(built, key=lambda path: path.stat().st_mtime))


class Sidecar(Process):
    """One sidecar. `settings` is its configuration file."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        environment: dict[str, str] | None = None,
        name: str = "sidecar",
        within: tuple[str, ...] = (),
    ):
        """`within` is a command that starts the one behind it, in surroundings of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(defaults(folder, name) | settings, sort_keys=False))
        super().__init__(name, [*within, binary(), "run", "--config", str(file)], environment or {}, folder)
        self.proxy = self.admin = ""
        self._read_from = 0

    def start(self, seconds: float = DEADLINE_SECONDS) -> None:
        """Returns once it says where it serves."""
        self._read_from = self.log.stat().st_size if self.log.exists() else 0
        self.spawn()

        def addresses() -> tuple[str, str] | None:
            self.must_live()
            said = self.log.read_bytes()[self._read_from :].decode(errors="replace")
            proxy = re.search(r"^proxy (\S+:\d+) -> \S+$", said, re.MULTILINE)
            admin = re.search(r"^admin (https?://\S+:\d+)$", said, re.MULTILINE)
            return (f"http://{proxy[1]}", admin[1]) if proxy and admin else None

        self.proxy, self.admin = eventually(addresses, "the lines that name the addresses", seconds)

    def await_routes(self) -> None:
        """Until the application's document has been read: what is asked before has no route."""
        eventually(lambda: "route templates read" in self.said(), "the route templates")

    def text(self, path: str) -> str:
        """A page of the admin port."""
        with urllib.request.urlopen(self.admin + path, timeout=10) as answer:
            return answer.read().decode()

    def json(self, path: str) -> Any:
        """A JSON page of the admin port."""
        return json.loads(self.text(path))

    def request_count(self) -> int:
        """How many requests it has counted so far."""
        return self.json("/api/v1/monitoring/metrics")["request_count"]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all series of that name on `/metrics` which carry these labels."""
        total = 0.0
        for line in self.text("/metrics").splitlines():
            match = METRIC.match(line)
            if match and match["name"] == name:
                found = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match["labels"] or ""))
                if labels.items() <= found.items():
                    total += float(match["value"])
        return total

    def account(self) -> str:
        """The series of its telemetry that are not 0, or why it does not tell them."""
        try:
            lines = self.text("/metrics").splitlines()
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return "\n".join(line for line in lines if line.startswith("content_factory_telemetry_") and not line.endswith(" 0"))

    def in_flight(self) -> float:
        """Requests that have begun and not ended."""
        return self.metric("http_server_active_requests")

    def services(self) -> dict[str, str]:
        """The status of each service in `/health`."""
        return {name: service["status"] for name, service in self.json("/health")["services"].items()}


SidecarMaker = Callable[..., Sidecar]


def defaults(folder: Path, name: str) -> dict[str, Any]:
    """Ports of the kernel's choice and a data folder of its own."""
    return {
        "proxy": {"listen": "127.0.0.1:0"},
        "admin": {"listen": "127.0.0.1:0"},
        "data_dir": str(folder / f"{name}-data"),
    }
