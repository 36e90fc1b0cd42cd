"""The real collector that writes what it gets into files."""

from __future__ import annotations

import os
from pathlib import Path

from exported import Exported
from gateway import Collector, collector_binary
from processes import ROOT, free_port


class FileCollector(Collector):
    """`collector-file.yaml` on three ports of its own; it may be killed and started again."""

    def __init__(self, folder: Path):
        self.port, self.http_port, health = free_port(), free_port(), free_port()
        self.exported = Exported(folder / "exported")
        self.lives = 0
        environment = {
            "PATH": os.environ["PATH"],
            "OTLP_GRPC_ADDRESS": f"127.0.0.1:{self.port}",
            "OTLP_HTTP_ADDRESS": f"127.0.0.1:{self.http_port}",
            "HEALTH_ADDRESS": f"127.0.0.1:{health}",
        }
        command = [collector_binary(), "--config", str(ROOT / "tests/e2e/collector-file.yaml")]
        super().__init__(command, environment, environment["HEALTH_ADDRESS"], folder / "collector.log")

    def start(self, seconds: float = 30) -> None:
        """Returns once it is healthy. Each life has a folder of its own, because the exporter empties its files."""
        self.lives += 1
        out = self.exported.folder / str(self.lives)
        out.mkdir(parents=True)
        self.environment["OUT"] = str(out)
        super().start(seconds)

    @property
    def url(self) -> str:
        """Its OTLP endpoint, gRPC."""
        return f"http://127.0.0.1:{self.port}"
