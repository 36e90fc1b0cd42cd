"""Loopback stand-ins for Datadog, New Relic and Sentry.

Each keeps what arrives as it arrived, refuses what the vendor refuses (vendor_rules.py) and answers the rest as the vendor
would. Each can be away in the ways in which a vendor is: down (503), over its quota (429), a black hole that takes
requests and never answers, and gone, its port closed. They know nothing about our collector files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from processes import free_port
from vendor_rules import PROTOBUF, Datadog, Headers, NewRelic, Refusal, Sentry, decoded, decompressed, envelope_items

# A request that was read and never answered.
UNANSWERED = 0
OUTAGE = {UNANSWERED, 429, 503}


@dataclasses.dataclass(frozen=True)
class Request:
    """One request as the vendor saw it, and what it was answered."""

    path: str
    signal: str | None
    headers: dict[str, str]
    body: bytes
    status: int
    why: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the vendor took it."""
        return self.status in (200, 202)

    def message(self) -> Any:
        """The decoded OTLP request; fails when body and `content-encoding` do not fit."""
        return self._message

    @functools.cached_property
    def _message(self) -> Any:
        return decoded(self.signal, self.headers, self.body)[1]


class Server(ThreadingHTTPServer):
    """Takes bursts, and its port again after a pause. Closing it cuts the connections that it has."""

    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, *arguments: Any):
        self._connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        """Remembers the connection."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        """Forgets it."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Nobody is answered any more."""
        super().server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_arguments: Any) -> None:
        """A client that went away, or was cut off."""


class Vendor:
    """An HTTP server on a port of its own that keeps to the rules of one vendor."""

    def __init__(self, rules: Datadog | NewRelic | Sentry):
        self.rules = rules
        self.key_header, self.key_value = rules.key_header, rules.key_value
        self.down = False
        self.requests: list[Request] = []
        # what it accepted and then lost, in its own words
        self.losses: list[str] = []
        self._quota: dict[str, float] = {}
        self._answers = threading.Event()
        self._answers.set()
        self._arrived = threading.Condition()
        self._server: Server | None = None
        # not of the kernel's choice: it would give the port to somebody's connection while this one is closed
        self.port = free_port()
        self._open(self.port)

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def refusals(self) -> list[tuple[str, int, str]]:
        """What broke one of the vendor's rules; an outage is none."""
        with self._arrived:
            return [
                (request.path, request.status, request.why)
                for request in self.requests
                if not request.accepted and request.status not in OUTAGE
            ]

    def close(self) -> None:
        """Its port refuses connections, and those that it has are cut. `reopen` undoes it."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        # last: what comes into a black hole until the connections are cut must not be answered
        self._answers.set()

    def reopen(self) -> None:
        """Listens again where it did."""
        self._open(self.port)

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """Takes requests and never answers; at the end their connections are cut."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()

    def over_quota(self, signal: str, seconds: float) -> None:
        """Refuses one signal by 429 for a while, as Sentry tells it."""
        self._quota[signal] = time.monotonic() + seconds

    def accepted(self, signal: str) -> list[Request]:
        """What it has taken of one signal, in order of arrival."""
        with self._arrived:
            return [request for request in self.requests if request.signal == signal and request.accepted]

    def wait_for(self, condition: Callable[[Vendor], bool], what: str, seconds: float = 30) -> None:
        """Waits until the condition holds; looks again at each arrival."""
        with self._arrived:
            if self._arrived.wait_for(lambda: condition(self), timeout=seconds):
                return
            seen = [(request.path, request.status, request.why) for request in self.requests]
        raise AssertionError(f"after {seconds} s: {dict(Counter(seen))}, of which the last are {seen[-10:]}, expected {what}")

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

    def events(self) -> list[bytes]:
        """Every accepted item of an envelope."""
        return [
            payload
            for request in self.accepted("envelopes")
            for _, payload in envelope_items(decompressed(request.body, request.headers.get("content-encoding", "identity")))
        ]

    def _open(self, port: int) -> None:
        self._server = Server(("127.0.0.1", port), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _keep(self, request: Request) -> None:
        with self._arrived:
            self.requests.append(request)
            if request.accepted and request.signal != "envelopes":
                self.losses.extend(self.rules.losses(request.signal, request.headers, request.message()))
            self._arrived.notify_all()

    def _refused(self, path: str, signal: str | None, headers: Headers, body: bytes) -> Refusal | None:
        if self.down:
            return Refusal(503, "told to be down")
        if signal is None:
            return Refusal(404, f"no such path: {path}")
        if refusal := self.rules.refused(signal, headers, body):
            return refusal
        left = self._quota.get(signal, 0) - time.monotonic()
        if left > 0:
            seconds = str(math.ceil(left))
            category = {"traces": "span", "logs": "log_item", "envelopes": "error"}.get(signal, signal)
            told = {"retry-after": seconds, "x-sentry-rate-limits": f"{seconds}:{category}:organization"}
            return Refusal(429, f"over its quota of {category}", told)
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                signal = vendor.rules.paths.get(self.path)
                if not vendor._answers.is_set():
                    vendor._keep(Request(self.path, signal, headers, body, UNANSWERED, "a black hole"))
                    vendor._answers.wait()
                    self.close_connection = True
                    return
                refusal = vendor._refused(self.path, signal, headers, body)
                status = refusal.status if refusal else vendor.rules.success(signal)
                # answered before it is kept: who waits for the request may then stop the collector at once
                self.send_response(status)
                self.send_header("content-type", PROTOBUF)
                self.send_header("content-length", "0")
                for name, value in (refusal.headers if refusal else {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.flush()
                vendor._keep(Request(self.path, signal, headers, body, status, refusal.why if refusal else ""))

            def log_message(self, *_args: Any) -> None:
                """Quiet: a failed test prints what arrived."""

        return Handler


class Vendors:
    """The three of them, and the environment that points the gateway at each."""

    def __init__(self):
        self.datadog, self.new_relic, self.sentry = Vendor(Datadog()), Vendor(NewRelic()), Vendor(Sentry())
        self.all = [self.datadog, self.new_relic, self.sentry]

    @property
    def dsn(self) -> str:
        """The address of Sentry's project, as its settings show it."""
        return f"http://{Sentry.KEY}@127.0.0.1:{self.sentry.port}/{Sentry.PROJECT}"

    def environment(self, *chosen: str) -> dict[str, str]:
        """Keys of the chosen ones; where each listens is said in any case."""
        keys = {
            "datadog": {"DD_API_KEY": Datadog.KEY},
            "newrelic": {"NEW_RELIC_LICENSE_KEY": NewRelic.KEY},
            "sentry": {"SENTRY_PUBLIC_KEY": Sentry.KEY},
        }
        addresses = {
            "DD_OTLP_URL": self.datadog.url,
            "NR_OTLP_URL": self.new_relic.url,
            "SENTRY_OTLP_URL": self.sentry.url + Sentry.OTLP,
        }
        return addresses | {name: value for vendor in chosen for name, value in keys[vendor].items()}

    def __enter__(self) -> Vendors:
        return self

    def __exit__(self, *_) -> None:
        for vendor in self.all:
            vendor.close()
