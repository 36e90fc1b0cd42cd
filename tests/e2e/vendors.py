"""Loopback stand-ins for Datadog, New Relic and Sentry.

Each keeps what arrives as it arrived and answers as the vendor would: 404 for a path it does not have, 403 without its
key, 503 while it is told to be down. They know the vendors' paths and headers, and nothing about our collector files.
"""

from __future__ import annotations

import dataclasses
import gzip
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MESSAGES = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}


@dataclasses.dataclass(frozen=True)
class Request:
    """One request as the vendor saw it, and what it was answered."""

    path: str
    signal: str | None
    headers: dict[str, str]
    body: bytes
    status: int

    def message(self):
        """The decoded OTLP request; fails when body and `content-encoding` do not fit."""
        return MESSAGES[self.signal].FromString(_decompressed(self.body, self.headers.get("content-encoding", "identity")))


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "zstd":
        # the frame need not carry its size, which the one-shot function would ask for
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    raise ValueError(f"content-encoding {encoding!r}, expected identity, gzip or zstd")


class Vendor:
    """An HTTP server on a port of its own. `signals` maps each path it has to a signal."""

    def __init__(self, signals: dict[str, str], key: tuple[str, str]):
        self.signals = signals
        self.key_header, self.key_value = key
        self.down = False
        self.requests: list[Request] = []
        self._arrived = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()

    def accepted(self, signal: str) -> list[Request]:
        """What it has taken of one signal, in order of arrival."""
        with self._arrived:
            return [request for request in self.requests if request.signal == signal and request.status == 200]

    def wait_for(self, condition: Callable[[Vendor], bool], what: str, seconds: float = 30) -> None:
        """Waits until the condition holds; looks again at each arrival."""
        with self._arrived:
            if self._arrived.wait_for(lambda: condition(self), timeout=seconds):
                return
            seen = [(request.path, request.status) for request in self.requests]
        raise AssertionError(f"after {seconds} s: {seen}, expected {what}")

    def spans(self) -> Iterator:
        """Every accepted span."""
        for request in self.accepted("traces"):
            for resource in request.message().resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans

    def metrics(self, name: str) -> Iterator:
        """Every accepted metric of that name, one per export."""
        for request in self.accepted("metrics"):
            for resource in request.message().resource_metrics:
                for scope in resource.scope_metrics:
                    yield from (metric for metric in scope.metrics if metric.name == name)

    def log_records(self) -> Iterator:
        """Every accepted log record."""
        for request in self.accepted("logs"):
            for resource in request.message().resource_logs:
                for scope in resource.scope_logs:
                    yield from scope.log_records

    def _keep(self, request: Request) -> None:
        with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()

    def _status(self, signal: str | None, headers: dict[str, str]) -> int:
        if self.down:
            return 503
        if signal is None:
            return 404
        return 200 if headers.get(self.key_header) == self.key_value else 403

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                signal = vendor.signals.get(self.path)
                status = vendor._status(signal, headers)
                # answered before it is kept: who waits for the request may then stop the collector at once
                self.send_response(status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()
                self.wfile.flush()
                vendor._keep(Request(self.path, signal, headers, body, status))

            def log_message(self, *_args) -> None:
                """Quiet: a failed test prints what arrived."""

        return Handler


def datadog() -> Vendor:
    """Datadog's OTLP intake."""
    return Vendor(
        {"/v1/traces": "traces", "/api/v2/otlpmetrics": "metrics", "/v1/logs": "logs"},
        ("dd-api-key", "datadog-key-1"),
    )


def new_relic() -> Vendor:
    """New Relic's OTLP intake."""
    return Vendor(
        {"/v1/traces": "traces", "/v1/metrics": "metrics", "/v1/logs": "logs"},
        ("api-key", "newrelic-key-2"),
    )


SENTRY_PROJECT = "/api/4500/integration/otlp"


def sentry() -> Vendor:
    """Sentry's OTLP intake: it has no path for metrics."""
    return Vendor(
        {f"{SENTRY_PROJECT}/v1/traces": "traces", f"{SENTRY_PROJECT}/v1/logs": "logs"},
        ("x-sentry-auth", "sentry sentry_key=sentry-key-3"),
    )


class Vendors:
    """The three of them, and the environment that points the gateway at each."""

    def __init__(self):
        self.datadog, self.new_relic, self.sentry = datadog(), new_relic(), sentry()
        self.all = [self.datadog, self.new_relic, self.sentry]

    def environment(self, *chosen: str) -> dict[str, str]:
        """Keys of the chosen ones; where each listens is said in any case."""
        keys = {
            "datadog": {"DD_API_KEY": self.datadog.key_value},
            "newrelic": {"NEW_RELIC_LICENSE_KEY": self.new_relic.key_value},
            "sentry": {"SENTRY_PUBLIC_KEY": self.sentry.key_value.removeprefix("sentry sentry_key=")},
        }
        addresses = {
            "DD_OTLP_URL": self.datadog.url,
            "NR_OTLP_URL": self.new_relic.url,
            "SENTRY_OTLP_URL": self.sentry.url + SENTRY_PROJECT,
        }
        return addresses | {name: value for vendor in chosen for name, value in keys[vendor].items()}

    def __enter__(self) -> Vendors:
        return self

    def __exit__(self, *_) -> None:
        for vendor in self.all:
            vendor.close()
