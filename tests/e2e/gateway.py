"""Starts the real collector with the gateway's files, and sends OTLP to it over HTTP."""

from __future__ import annotations

import functools
import itertools
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from processes import ROOT, Process
from waiting import eventually

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


class Collector(Process):
    """A collector process. A context manager: leaving it sends SIGTERM and expects exit code 0."""

    def __init__(self, command: list[str], environment: dict[str, str], health: str, log: Path):
        super().__init__(log.stem, command, environment, log.parent)
        self.health = health

    def start(self, seconds: float = 30) -> None:
        """Returns once its health check answers."""
        self.spawn()

        def healthy() -> bool:
            self.must_live()
            with urllib.request.urlopen(f"http://{self.health}/", timeout=1) as answer:
                return answer.status == 200

        eventually(healthy, f"{self.name} is healthy", seconds)

    def stop(self, seconds: float = 30) -> int:
        """Asks it to end and expects that it does, cleanly."""
        code = super().stop(seconds)
        assert code == 0, f"{self.name} ended with {code}, expected 0:\n{self.said()}"
        return code

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        if self not in Process.alive:
            return
        if kind is None:
            self.stop()
        else:
            self.kill()


class Intake:
    """What takes OTLP from sidecars on the two usual ports of an address of its own: a gateway or a balancer."""

    address: str

    @property
    def grpc(self) -> str:
        """Its OTLP/gRPC endpoint."""
        return f"http://{self.address}:4317"

    @property
    def http(self) -> str:
        """Its OTLP/HTTP endpoint."""
        return f"http://{self.address}:4318"

    def export(self, message, token: str = TOKEN) -> int:
        """Posts one OTLP message and returns the status."""
        return post(self.http, message, {"authorization": f"Bearer {token}"})

    def call(self, message, token: str = TOKEN) -> grpc.StatusCode:
        """Sends one OTLP message by gRPC, over a connection of its own, and returns the status."""
        return call(f"{self.address}:4317", message, {"authorization": f"Bearer {token}"})

    def own_metrics(self) -> dict[str, float]:
        """The collector's metrics of itself, each name's series added up."""
        with urllib.request.urlopen(f"http://{self.address}:8888/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        sums: dict[str, float] = {}
        for line in lines:
            if line and not line.startswith("#"):
                name, value = line.partition("{")[0].split(" ")[0], line.rpartition(" ")[2]
                sums[name] = sums.get(name, 0) + float(value)
        return sums


class Gateway(Intake, Collector):
    """The gateway as an operator runs it: `gateway.sh` with the vendors' keys in the environment."""

    def __init__(self, folder: Path, vendors: dict[str, str], overrides: tuple[Path, ...] = (OVERRIDES,)):
        self.address = free_address()
        token = folder / "token"
        token.write_text(TOKEN + "\n")
        environment = {
            "OTELCOL": collector_binary(),
            "MY_POD_IP": self.address,
            "OTELCOL_DATA": str(folder / "data"),
            "OTLP_TOKEN_FILE": str(token),
        } | vendors
        flags = [flag for path in overrides for flag in ("--config", str(path))]
        super().__init__([str(FILES / "gateway.sh"), *flags], environment, f"{self.address}:13133", folder / "gateway.log")


class Balancer(Intake, Collector):
    """The first of two tiers. Its gateways are given as a name, as in production, or as a fixed list."""

    def __init__(self, folder: Path, gateways: str | list[Gateway], name: str = "balancer", more: dict[str, str] | None = None):
        self.address = free_address()
        token = folder / f"{name}-token"
        token.write_text(TOKEN + "\n")
        environment = {"MY_POD_IP": self.address, "OTLP_TOKEN_FILE": str(token), "OTLP_TOKEN": TOKEN}
        command = [collector_binary(), "--config", str(FILES / "balancer.yaml")]
        if isinstance(gateways, str):
            environment["GATEWAY_HOSTNAME"] = gateways
        else:
            resolver = {"dns": None, "static": {"hostnames": [f"{gateway.address}:4317" for gateway in gateways]}}
            exporters = {f"load_balancing/{signal}": {"resolver": resolver} for signal in ("traces", "metrics", "logs")}
            fixed = folder / f"{name}-gateways.yaml"
            fixed.write_text(yaml.safe_dump({"exporters": exporters}))
            command += ["--config", str(fixed)]
        if more and "OTLP_TLS_CERT_FILE" in more:
            command += ["--config", str(FILES / "tls.yaml")]
        super().__init__(command, environment | (more or {}), f"{self.address}:13133", folder / f"{name}.log")


class Agent(Collector):
    """The agent as an operator runs it, on its own two ports."""

    def __init__(self, folder: Path, gateway: Intake, more: dict[str, str] | None = None):
        self.address = free_address()
        environment = {
            "OTELCOL_DATA": str(folder / "agent-data"),
            "OTLP_TOKEN": TOKEN,
            "GATEWAY_ENDPOINT": f"dns:///{gateway.address}:4317",
            "AGENT_GRPC_ADDRESS": f"{self.address}:14317",
            "AGENT_HTTP_ADDRESS": f"{self.address}:14318",
            "AGENT_HEALTH_ADDRESS": f"{self.address}:13134",
        }
        command = [collector_binary(), "--config", str(FILES / "agent.yaml")]
        super().__init__(command, environment | (more or {}), environment["AGENT_HEALTH_ADDRESS"], folder / "agent.log")

    def export(self, message) -> int:
        """Posts one OTLP message and returns the status."""
        return post(f"http://{self.address}:14318", message, {})


def call(address: str, message, headers: dict[str, str]) -> grpc.StatusCode:
    """Sends one OTLP message by gRPC and returns the status."""
    stubs = {
        "ExportTraceServiceRequest": TraceServiceStub,
        "ExportMetricsServiceRequest": MetricsServiceStub,
        "ExportLogsServiceRequest": LogsServiceStub,
    }
    with grpc.insecure_channel(address) as channel:
        try:
            stubs[type(message).__name__](channel).Export(message, timeout=10, metadata=list(headers.items()))
        except grpc.RpcError as refusal:
            return refusal.code()
        return grpc.StatusCode.OK


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
        with refusal:
            return refusal.code
