"""The watched application: examples/content-factory under gunicorn with four processes, and its Celery worker."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from processes import ROOT, Process, free_port
from waiting import eventually

SOURCES = ROOT / "examples/content-factory"
BIN = Path(sys.executable).parent
QUEUES = "main-queue,video-queue,publish-queue"

LINE = re.compile(
    r"request method=(?P<method>\S+) path=(?P<path>\S+) status=(?P<status>\d+) seconds=\S+ pid=(?P<pid>\d+)"
    r' trace_id=(?P<trace_id>\S+) span_id=(?P<span_id>\S+) agent="(?P<agent>[^"]*)"'
)
# The sidecar's own questions to the application are no traffic.
SIDECAR_AGENT = "content-factory-sidecar/"


@dataclass(frozen=True)
class LogLine:
    """What the application wrote about one request."""

    method: str
    path: str
    status: str
    pid: str
    trace_id: str
    span_id: str
    agent: str


class Application(Process):
    """gunicorn with uvicorn workers, four unless it is said otherwise."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        module: str = "content_factory.app",
        within: tuple[str, ...] = (),
        workers: int = 4,
        name: str = "application",
    ):
        """`within` is a command that starts gunicorn; `module` holds the application, and may lie beside the tests."""
        self.port, self.workers = free_port(), workers
        paths = f"{SOURCES}:{Path(__file__).parent}"
        settings = environment | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
        command = [
            *within,
            str(BIN / "gunicorn"),
            "--config", str(SOURCES / "gunicorn.conf.py"),
            "--bind", f"127.0.0.1:{self.port}",
            "--workers", str(workers),
            f"{module}:app",
        ]  # fmt: skip
        super().__init__(name, command, settings, folder)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def create_tables(self) -> None:
        """As its README says: once, before the first start."""
        subprocess.run([sys.executable, "-m", "content_factory"], env=self.environment, check=True)

    def start(self) -> None:
        """Returns once all workers are up and one of them answers."""
        booted_before = self._workers_booted()
        self.spawn()

        def ready() -> bool:
            self.must_live()
            assert self._workers_booted() - booted_before == self.workers, "not all workers are up"
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status == 200

        eventually(ready, f"{self.workers} workers to be up", seconds=60)

    def _workers_booted(self) -> int:
        return self.log.read_text(errors="replace").count("Application startup complete") if self.log.exists() else 0

    def position(self) -> int:
        """How much of its log there is; hand it to `lines` later."""
        return self.log.stat().st_size

    def lines(self, since: int) -> list[LogLine]:
        """One entry for each request of a client since then, in the order in which they ended."""
        return [line for line in self._all_lines(since) if not line.agent.startswith(SIDECAR_AGENT)]

    def questions(self, path: str, since: int) -> int:
        """How often a sidecar itself has asked for this path since then."""
        lines = self._all_lines(since)
        return sum(line.path == path and line.agent.startswith(SIDECAR_AGENT) for line in lines)

    def _all_lines(self, since: int) -> list[LogLine]:
        with self.log.open("rb") as log:
            log.seek(since)
            text = log.read().decode(errors="replace")
        return [LogLine(**match.groupdict()) for match in LINE.finditer(text)]


class CeleryWorker(Process):
    """One Celery worker that serves all queues; `within` is a command that starts the one behind it."""

    def __init__(self, folder: Path, environment: dict[str, str], within: tuple[str, ...] = ()):
        settings = environment | {"PYTHONPATH": str(SOURCES), "PYTHONUNBUFFERED": "1"}
        celery = [*within, str(BIN / "celery"), "-A", "content_factory.tasks:celery", "worker"]
        super().__init__("celery", [*celery, "-Q", QUEUES, "-c", "2", "-n", "e2e@%h", "-l", "INFO"], settings, folder)

    def start(self) -> None:
        """Returns once it consumes."""
        self.spawn()

        def ready() -> bool:
            self.must_live()
            return " ready." in self.said()

        eventually(ready, "the Celery worker to be ready", seconds=60)
