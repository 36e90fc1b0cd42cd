"""What the collector wrote into its files: OTLP as JSON, one export a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
DELTA, CUMULATIVE = 1, 2


@dataclass(frozen=True)
class Span:
    """A span, as far as the tests look at it."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    attributes: dict[str, Any]
    start: int
    end: int
    resource: dict[str, Any]


@dataclass(frozen=True)
class Exemplar:
    """A request that stands for a bucket of a histogram."""

    trace_id: str
    span_id: str
    value: float
    time: int


@dataclass(frozen=True)
class Point:
    """A point of a sum or a histogram. `form` is OTLP's word for the metric's kind."""

    form: str
    temporality: int
    attributes: dict[str, Any]
    start: int
    end: int
    count: int
    exemplars: list[Exemplar]


class Exported:
    """The folder that the collector writes into: one folder in it for each of its lives."""

    def __init__(self, folder: Path):
        self.folder = folder

    def spans(self, kind: int | None = None) -> list[Span]:
        """All spans, or those of one kind."""
        spans = [
            Span(
                trace_id=span["traceId"],
                span_id=span["spanId"],
                parent_id=span.get("parentSpanId", ""),
                name=span["name"],
                kind=span.get("kind", 0),
                attributes=_plain(span.get("attributes", [])),
                start=int(span["startTimeUnixNano"]),
                end=int(span["endTimeUnixNano"]),
                resource=_plain(resource["resource"].get("attributes", [])),
            )
            for export in self._exports("traces")
            for resource in export.get("resourceSpans", [])
            for scope in resource.get("scopeSpans", [])
            for span in scope.get("spans", [])
        ]
        return [span for span in spans if kind is None or span.kind == kind]

    def resources(self) -> list[dict[str, Any]]:
        """The resources of all exported spans."""
        return [
            _plain(resource["resource"].get("attributes", []))
            for export in self._exports("traces")
            for resource in export.get("resourceSpans", [])
        ]

    def requests(self, metric_name: str) -> int:
        """How many measurements a histogram has seen: the sum of its delta points."""
        total = 0
        for metric in self.metrics():
            if metric["name"] == metric_name:
                histogram = metric.get("exponentialHistogram") or metric["histogram"]
                assert histogram["aggregationTemporality"] == DELTA, f"{metric_name} is not delta"
                total += sum(int(point.get("count", 0)) for point in histogram["dataPoints"])
        return total

    def points(self, metric_name: str) -> list[Point]:
        """All points of a sum or a histogram, in the order in which they were delivered."""
        points = []
        for metric in self.metrics():
            if metric["name"] == metric_name:
                [form] = metric.keys() & {"sum", "histogram", "exponentialHistogram"}
                points += [_point(form, metric[form]["aggregationTemporality"], point) for point in metric[form]["dataPoints"]]
        return points

    def metrics(self) -> Iterator[dict[str, Any]]:
        """All metrics, as often as they were exported."""
        for export in self._exports("metrics"):
            for resource in export.get("resourceMetrics", []):
                for scope in resource.get("scopeMetrics", []):
                    yield from scope.get("metrics", [])

    def _exports(self, signal: str) -> Iterator[dict[str, Any]]:
        for file in sorted(self.folder.glob(f"*/{signal}.jsonl")):
            # a line that is still being written, or was when the collector was killed, has no end
            for line in file.read_text().splitlines(keepends=True):
                if line.endswith("\n"):
                    yield json.loads(line)


def _point(form: str, temporality: int, point: dict[str, Any]) -> Point:
    return Point(
        form=form,
        temporality=temporality,
        attributes=_plain(point.get("attributes", [])),
        start=int(point["startTimeUnixNano"]),
        end=int(point["timeUnixNano"]),
        count=int(point.get("count", 0)),
        exemplars=[
            Exemplar(exemplar["traceId"], exemplar["spanId"], exemplar["asDouble"], int(exemplar["timeUnixNano"]))
            for exemplar in point.get("exemplars", [])
        ],
    )


def _plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """Attributes as a dictionary; integers come as strings in OTLP's JSON."""
    values = {}
    for attribute in attributes:
        kind, value = next(iter(attribute["value"].items()), ("stringValue", ""))
        values[attribute["key"]] = int(value) if kind == "intValue" else value
    return values
