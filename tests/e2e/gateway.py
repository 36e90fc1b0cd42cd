"""Starts the real collector with the gateway's files, and sends OTLP to it over HTTP."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "otel-collector"
OVERRIDES = ROOT / "tests/e2e/gateway-overrides.yaml"
TOKEN = "an-accepted-token"

# The gateway's ports are fixed, as they are in a pod; so each one in a test gets a loopback address of its own.
_addresses = itertools.count(1)


@functools.cache
def collector_binary() -> str:
    """The path of the built collector. Builds it when it is not in the cache, which takes minutes."""
    built = subprocess.run([ROOT / "tests/setup/collector.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return built.stdout.splitlines()[-1]


def free_address() -> str:
    """A loopback address that no other gateway of this process or of a concurrent run uses."""
    number = next(_addresses)
    return f"127.{100 + number % 100}.{os.getpid() >> 8 & 255}.{1 + os.getpid() % 254}"


class Collector:
    """A collector process. A context manager: leaving it sends SIGTERM and expects exit code 0."""

    def __init__(self, command: list[str], environment: dict[str, str], health: str, log: Path):
        self.command, self.environment, self.health, self.log = command, environment, health, log
        self.process: subprocess.Popen | None = None

    def start(self, seconds: float = 30) -> None:
        """Returns once its health check answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the collector ended with {self.process.returncode}:\n{self.said()}")
            try:
                urllib.request.urlopen(f"http://{self.health}/", timeout=1).close()
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        raise AssertionError(f"the collector is not healthy after {seconds} s:\n{self.said()}")

    def stop(self) -> None:
        """Asks it to end and expects that it does, cleanly."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=30)
        assert code == 0, f"the collector ended with {code}, expected 0:\n{self.said()}"

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self.process.kill()
        self.process.wait(timeout=10)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is not None:
            return
        if kind is None:
            self.stop()
        else:
            self.kill()


class Gateway(Collector):
    """The gateway as an operator runs it: `gateway.sh` with the vendors' keys in the environment."""

    def __init__(self, folder: Path, vendors: dict[str, str], overrides: tuple[Path, ...] = (OVERRIDES,)):
        self.address = free_address()
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        environment = {
            "PATH": os.environ["PATH"],
            "OTELCOL": collector_binary(),
            "MY_POD_IP": self.address,
            "OTELCOL_DATA": str(folder / "data"),
            "OTLP_TOKEN_FILE": str(token),
        } | vendors
        flags = [flag for path in overrides for flag in ("--config", str(path))]
        super().__init__([str(FILES / "gateway.sh"), *flags], environment, f"{self.address}:13133", folder / "gateway.log")

    @property
    def grpc(self) -> str:
        """Its OTLP/gRPC endpoint."""
        return f"http://{self.address}:4317"

    @property
    def http(self) -> str:
        """Its OTLP/HTTP endpoint."""
        return f"http://{self.address}:4318"

    def send(self, message, token: str = TOKEN) -> int:
        """Posts one OTLP message and returns the status."""
        return post(self.http, message, {"authorization": f"Bearer {token}"})


def post(endpoint: str, message, headers: dict[str, str]) -> int:
    """Posts one OTLP message to the path of its signal and returns the status."""
    signal_name = {"ExportTraceServiceRequest": "traces", "ExportMetricsServiceRequest": "metrics", "ExportLogsServiceRequest": "logs"}
    request = urllib.request.Request(
        f"{endpoint}/v1/{signal_name[type(message).__name__]}",
        data=message.SerializeToString(),
        headers={"content-type": "application/x-protobuf"} | headers,
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as refusal:
        return refusal.code
