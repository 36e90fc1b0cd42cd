"""OTLP messages as the sidecar would send them, built by hand so that the collector's tests need no sidecar."""

from __future__ import annotations

import hashlib
import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

SECOND = 1_000_000_000


def attributes(values: dict[str, str | int]) -> list[KeyValue]:
    """Attributes as OTLP has them."""
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
    ]


def plain(pairs) -> dict[str, str | int]:
    """The inverse of `attributes`, for strings and integers."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


RESOURCE = Resource(attributes=attributes({"service.name": "content-factory", "service.instance.id": "web-1"}))


def trace_id(name: str) -> bytes:
    """A trace id that is always the same for one name, and random enough for a sampler."""
    return hashlib.sha256(name.encode()).digest()[:16]


def server_span(name: str, *, seconds: float = 0.01, error: bool = False, extra: dict[str, str | int] | None = None) -> Span:
    """A request that ended just now, alone in its trace."""
    end = time.time_ns()
    values = {"http.request.method": "GET", "http.route": "/products", "url.path": "/products", "http.response.status_code": 200}
    return Span(
        trace_id=trace_id(name),
        span_id=trace_id(name)[:8],
        name=name,
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=end - int(seconds * SECOND),
        end_time_unix_nano=end,
        attributes=attributes(values | (extra or {})),
        status=Status(code=Status.STATUS_CODE_ERROR if error else Status.STATUS_CODE_UNSET),
    )


def traces(spans: list[Span]) -> ExportTraceServiceRequest:
    """One export of these spans."""
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add(resource=RESOURCE)
    resource.scope_spans.add().spans.extend(spans)
    return message


class Counter:
    """A cumulative counter of one process, as an SDK sends it by default."""

    def __init__(self, name: str, monotonic: bool = True):
        self.name, self.monotonic, self.started = name, monotonic, time.time_ns()

    def reads(self, value: int) -> ExportMetricsServiceRequest:
        """The export that says so."""
        point = NumberDataPoint(start_time_unix_nano=self.started, time_unix_nano=time.time_ns(), as_int=value)
        total = Sum(
            data_points=[point],
            aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE,
            is_monotonic=self.monotonic,
        )
        message = ExportMetricsServiceRequest()
        resource = message.resource_metrics.add(resource=RESOURCE)
        resource.scope_metrics.add().metrics.append(Metric(name=self.name, unit="{request}", sum=total))
        return message


def log(body: str, extra: dict[str, str | int] | None = None) -> ExportLogsServiceRequest:
    """One log record."""
    message = ExportLogsServiceRequest()
    resource = message.resource_logs.add(resource=RESOURCE)
    record = LogRecord(
        time_unix_nano=time.time_ns(),
        severity_text="ERROR",
        body=AnyValue(string_value=body),
        attributes=attributes(extra or {}),
    )
    resource.scope_logs.add().log_records.append(record)
    return message
