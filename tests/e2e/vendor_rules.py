"""What each vendor documents that it refuses, as far as a stand-in can tell; docs/vendors/ says where each rule is from.

A rule looks at one request and says why it is refused, and how. Some vendors accept a request and then drop records in it
without a word to the sender: those are `losses`, told apart because no status shows them.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any

import zstandard
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA, Metric

MESSAGES = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
PROTOBUF = "application/x-protobuf"
Headers = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An answer that is no success, and the rule behind it."""

    status: int
    why: str
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


def decompressed(body: bytes, encoding: str) -> bytes:
    """The body as it was before `content-encoding`."""
    if encoding == "identity":
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "zstd":
        # a frame need not carry its size, which the one-shot function would ask for, and there may be several (RFC 8878, section 3):
        # what has waited on the sidecar's disk was compressed there, piece by piece
        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(body)
    raise ValueError(f"content-encoding {encoding!r}, expected identity, gzip or zstd")


def decoded(signal: str, headers: Headers, body: bytes) -> tuple[bytes, Any]:
    """The raw body and the OTLP message in it; a `ValueError` when it is none."""
    try:
        raw = decompressed(body, headers.get("content-encoding", "identity"))
        return raw, MESSAGES[signal].FromString(raw)
    except (DecodeError, OSError, zstandard.ZstdError) as error:
        raise ValueError(f"the body is no OTLP: {error}") from error


def refused_form(signal: str, headers: Headers, body: bytes) -> Refusal | None:
    """What is no protobuf, or does not decode."""
    if headers.get("content-type") != PROTOBUF:
        return Refusal(415, f"content-type {headers.get('content-type')!r}, expected {PROTOBUF}")
    try:
        decoded(signal, headers, body)
    except ValueError as error:
        return Refusal(400, str(error))
    return None


class Datadog:
    """Datadog's OTLP intake."""

    KEY = "datadog-key-1"
    # In bytes. Newer pages allow 15 MiB of traces and 5.1 MiB of logs: a sender that keeps to these keeps to both.
    TRACES, LOGS = 3_200_000, 5_000_000
    METRICS, METRICS_RAW = 500_000, 5_000_000

    paths = {"/v1/traces": "traces", "/api/v2/otlpmetrics": "metrics", "/v1/logs": "logs"}
    key_header, key_value = "dd-api-key", KEY

    def __init__(self) -> None:
        self._written: set[tuple] = set()

    def success(self, signal: str) -> int:
        """The status of what is taken."""
        return 202 if signal == "traces" else 200

    def refused(self, signal: str, headers: Headers, body: bytes) -> Refusal | None:
        """A wrong key, what is no protobuf, too large a body, and whatever metric is not delta."""
        if headers.get(self.key_header) != self.KEY:
            return Refusal(403, "a wrong dd-api-key")
        if refusal := refused_form(signal, headers, body):
            return refusal
        raw, message = decoded(signal, headers, body)
        limit = {"traces": self.TRACES, "logs": self.LOGS, "metrics": self.METRICS_RAW}[signal]
        if len(raw) > limit:
            return Refusal(413, f"{len(raw)} bytes of {signal}, at most {limit}")
        if signal == "metrics":
            if len(body) > self.METRICS:
                return Refusal(413, f"{len(body)} bytes of metrics as they were sent, at most {self.METRICS}")
            not_delta = sorted({metric.name for _, metric in metrics_of(message) if not is_delta(metric)})
            if not_delta:
                return Refusal(400, f"not delta: {', '.join(not_delta)}")
        return None

    def losses(self, signal: str, headers: Headers, message: Any) -> Iterator[str]:
        """Of two points of one series in one second it keeps the last: of deltas, the other's count is gone."""
        if signal != "metrics":
            return
        whole = json.loads(headers.get("dd-otel-metric-config", "{}")).get("resource_attributes_as_tags", False)
        for resource, metric in metrics_of(message):
            data = getattr(metric, metric.WhichOneof("data"))
            if getattr(data, "aggregation_temporality", None) != AGGREGATION_TEMPORALITY_DELTA:
                continue
            tags = identity(resource.attributes) if whole else ()
            for point in data.data_points:
                second = point.time_unix_nano // 1_000_000_000
                series = (metric.name, tags, identity(point.attributes), second)
                if series in self._written:
                    yield f"{metric.name} {dict(identity(point.attributes))}: two points in the second {second}"
                self._written.add(series)


class NewRelic:
    """New Relic's OTLP intake."""

    KEY = "newrelic-key-2"
    BODY = 1_000_000
    NAME, VALUE, LIST = 255, 4095, 64

    paths = {"/v1/traces": "traces", "/v1/metrics": "metrics", "/v1/logs": "logs"}
    key_header, key_value = "api-key", KEY

    def success(self, _signal: str) -> int:
        """The status of what is taken."""
        return 200

    def refused(self, signal: str, headers: Headers, body: bytes) -> Refusal | None:
        """No key, a wrong one, and a body of a million bytes; it says "payload", so before compression too."""
        if self.key_header not in headers:
            return Refusal(401, "no api-key")
        if headers[self.key_header] != self.KEY:
            return Refusal(403, "a wrong api-key")
        if refusal := refused_form(signal, headers, body):
            return refusal
        size = max(len(body), len(decoded(signal, headers, body)[0]))
        return Refusal(413, f"{size} bytes, fewer than {self.BODY}") if size >= self.BODY else None

    def losses(self, _signal: str, _headers: Headers, message: Any) -> Iterator[str]:
        """What becomes an `NrIntegrationError` instead of a record, or a record that was cut."""
        for attribute in attributes_of(message):
            if len(attribute.key) > self.NAME:
                yield f"{attribute.key[:40]}…: a name of {len(attribute.key)} characters, at most {self.NAME}"
            kind = attribute.value.WhichOneof("value")
            if kind == "string_value" and len(attribute.value.string_value) > self.VALUE:
                yield f"{attribute.key}: {len(attribute.value.string_value)} characters, at most {self.VALUE}"
            if kind == "array_value" and len(attribute.value.array_value.values) > self.LIST:
                yield f"{attribute.key}: a list of {len(attribute.value.array_value.values)}, at most {self.LIST}"
        if isinstance(message, ExportMetricsServiceRequest):
            for _, metric in metrics_of(message):
                if metric.HasField("sum") and not metric.sum.is_monotonic and is_delta_sum(metric):
                    yield f"{metric.name}: delta of what may fall, which it does not support"


class Sentry:
    """Sentry: OTLP for traces and logs, envelopes for issues, and no metrics."""

    KEY = "sentry-key-3"
    PROJECT = "4500"
    OTLP = f"/api/{PROJECT}/integration/otlp"
    ENVELOPES = f"/api/{PROJECT}/envelope/"
    EVENT, EVENT_COMPRESSED = 1_000_000, 200_000

    paths = {f"{OTLP}/v1/traces": "traces", f"{OTLP}/v1/logs": "logs", ENVELOPES: "envelopes"}
    key_header, key_value = "x-sentry-auth", f"sentry sentry_key={KEY}"

    def success(self, signal: str) -> int:
        """The status of what is taken."""
        return 200 if signal == "envelopes" else 202

    def refused(self, signal: str, headers: Headers, body: bytes) -> Refusal | None:
        """No key, another project's, what is no protobuf or no envelope, and too large an event."""
        auth = headers.get(self.key_header)
        if auth is None:
            return Refusal(401, "no x-sentry-auth")
        # "Sentry key=value, key=value", the word in any case
        fields = dict(field.strip().partition("=")[::2] for field in auth.partition(" ")[2].split(","))
        if fields.get("sentry_key") != self.KEY:
            return Refusal(403, "a wrong sentry_key")
        if signal != "envelopes":
            return refused_form(signal, headers, body)
        if len(body) > self.EVENT_COMPRESSED and headers.get("content-encoding", "identity") != "identity":
            return Refusal(413, f"{len(body)} bytes of an envelope, compressed, at most {self.EVENT_COMPRESSED}")
        try:
            items = list(envelope_items(decompressed(body, headers.get("content-encoding", "identity"))))
        except (ValueError, KeyError, OSError) as error:
            return Refusal(400, f"the body is no envelope: {error}")
        too_large = [len(payload) for _, payload in items if len(payload) > self.EVENT]
        return Refusal(413, f"{too_large[0]} bytes of an event, at most {self.EVENT}") if too_large else None

    def losses(self, _signal: str, _headers: Headers, _message: Any) -> Iterator[str]:
        """None that a document tells of."""
        return iter(())


def envelope_items(raw: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Header and payload of each item of an envelope; a `ValueError` when it is none."""
    head, _, rest = raw.partition(b"\n")
    if not isinstance(json.loads(head), dict):
        raise ValueError("the first line is no object")
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        header = json.loads(line)
        length = header.get("length", len(rest.partition(b"\n")[0]))
        if "type" not in header or length > len(rest):
            raise ValueError(f"the item {line[:100]!r} does not fit {len(rest)} bytes")
        yield header, rest[:length]
        rest = rest[length:].removeprefix(b"\n")


def metrics_of(message: Any) -> Iterator[tuple[Any, Metric]]:
    """Each metric with its resource."""
    for resource in message.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                yield resource.resource, metric


def is_delta_sum(metric: Metric) -> bool:
    """Whether a sum is delta."""
    return metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA


def is_delta(metric: Metric) -> bool:
    """Counters and histograms as deltas. What may fall is a level, and a level has no deltas: it becomes a gauge."""
    kind = metric.WhichOneof("data")
    if kind == "gauge" or (kind == "sum" and not metric.sum.is_monotonic):
        return True
    return getattr(getattr(metric, kind), "aggregation_temporality", None) == AGGREGATION_TEMPORALITY_DELTA


def identity(attributes: Any) -> tuple[tuple[str, str], ...]:
    """Attributes as something that can be compared."""
    return tuple(sorted((attribute.key, str(attribute.value)) for attribute in attributes))


def attributes_of(message: Any) -> Iterator[Any]:
    """Every attribute in a message: of resources, scopes, spans, their events and links, log records and points."""
    if isinstance(message, ExportTraceServiceRequest):
        for resource in message.resource_spans:
            yield from resource.resource.attributes
            for scope in resource.scope_spans:
                yield from scope.scope.attributes
                for span in scope.spans:
                    yield from span.attributes
                    for part in (*span.events, *span.links):
                        yield from part.attributes
    elif isinstance(message, ExportLogsServiceRequest):
        for resource in message.resource_logs:
            yield from resource.resource.attributes
            for scope in resource.scope_logs:
                yield from scope.scope.attributes
                for record in scope.log_records:
                    yield from record.attributes
    else:
        for resource, metric in metrics_of(message):
            yield from resource.attributes
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                yield from point.attributes
