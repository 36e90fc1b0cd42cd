"""OTLP messages as the sidecar would send them, built by hand so that the collector's tests need no sidecar."""

from __future__ import annotations

import hashlib
import time

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    AGGREGATION_TEMPORALITY_DELTA,
    Exemplar,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

SECOND = 1_000_000_000


Value = str | int | list[str]


def attributes(values: dict[str, Value]) -> list[KeyValue]:
    """Attributes as OTLP has them."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def any_value(value: Value) -> AnyValue:
    """A value as OTLP has it."""
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(entry) for entry in value]))
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value)


def plain(pairs) -> dict[str, str | int]:
    """The inverse of `attributes`, for strings and integers."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


RESOURCE = Resource(attributes=attributes({"service.name": "content-factory", "service.instance.id": "web-1"}))


def trace_id(name: str) -> bytes:
    """A trace id that is always the same for one name, and random enough for a sampler."""
    return hashlib.sha256(name.encode()).digest()[:16]


def server_span(name: str, *, seconds: float = 0.01, error: bool = False, extra: dict[str, Value] | None = None) -> Span:
    """A request that ended just now, alone in its trace."""
    end = time.time_ns()
    values: dict[str, Value] = {
        "http.request.method": "GET",
        "http.route": "/products",
        "url.path": "/products",
        "http.response.status_code": 200,
    }
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


def piece(trace: str, number: int, *, error: bool = False) -> Span:
    """One of the spans of a trace: the first is the root, the others are its children."""
    span = server_span(trace, error=error)
    span.name = f"{trace} {number}"
    span.span_id = trace_id(span.name)[:8]
    if number > 0:
        span.parent_span_id = trace_id(f"{trace} 0")[:8]
        span.kind = Span.SPAN_KIND_INTERNAL
    return span


def traces(spans: list[Span], resource: Resource = RESOURCE) -> ExportTraceServiceRequest:
    """One export of these spans."""
    message = ExportTraceServiceRequest()
    message.resource_spans.add(resource=resource).scope_spans.add().spans.extend(spans)
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


def delta(name: str, values: list[tuple[int, dict[str, Value]]], resource: Resource = RESOURCE) -> ExportMetricsServiceRequest:
    """A counter's deltas of one moment, a value for each set of attributes."""
    now = time.time_ns()
    points = [
        NumberDataPoint(start_time_unix_nano=now - SECOND, time_unix_nano=now, as_int=value, attributes=attributes(tags))
        for value, tags in values
    ]
    total = Sum(data_points=points, aggregation_temporality=AGGREGATION_TEMPORALITY_DELTA, is_monotonic=True)
    message = ExportMetricsServiceRequest()
    message.resource_metrics.add(resource=resource).scope_metrics.add().metrics.append(Metric(name=name, sum=total))
    return message


def durations(name: str, seconds: list[float], temporality: int = AGGREGATION_TEMPORALITY_DELTA) -> ExportMetricsServiceRequest:
    """A histogram of one moment with one bound, and an exemplar of the longest."""
    now = time.time_ns()
    exemplar = Exemplar(time_unix_nano=now, as_double=max(seconds), trace_id=trace_id(name), span_id=trace_id(name)[:8])
    below = sum(value <= 1 for value in seconds)
    point = HistogramDataPoint(
        start_time_unix_nano=now - SECOND,
        time_unix_nano=now,
        count=len(seconds),
        sum=sum(seconds),
        explicit_bounds=[1],
        bucket_counts=[below, len(seconds) - below],
        exemplars=[exemplar],
    )
    histogram = Histogram(data_points=[point], aggregation_temporality=temporality)
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add(resource=RESOURCE)
    resource.scope_metrics.add().metrics.append(Metric(name=name, unit="s", histogram=histogram))
    return message


def log(body: str, extra: dict[str, Value] | None = None) -> ExportLogsServiceRequest:
    """One log record."""
    return logs([(body, extra or {})])


def logs(records: list[tuple[str, dict[str, Value]]], resource: Resource = RESOURCE) -> ExportLogsServiceRequest:
    """One export of log records: body and attributes of each."""
    message = ExportLogsServiceRequest()
    scope = message.resource_logs.add(resource=resource).scope_logs.add()
    for body, extra in records:
        scope.log_records.append(
            LogRecord(
                time_unix_nano=time.time_ns(),
                severity_text="ERROR",
                body=AnyValue(string_value=body),
                attributes=attributes(extra),
            )
        )
    return message
