"""What the collector wrote into its files: OTLP as JSON, one export a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER, CLIENT = 2, 3
DELTA = 1


@dataclass(frozen=True)
class Span:
    """A span, as far as the tests look at it."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    attributes: dict[str, Any]


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
        for metric in self._metrics():
            if metric["name"] == metric_name:
                histogram = metric.get("exponentialHistogram") or metric["histogram"]
                assert histogram["aggregationTemporality"] == DELTA, f"{metric_name} is not delta"
                total += sum(int(point.get("count", 0)) for point in histogram["dataPoints"])
        return total

    def _metrics(self) -> Iterator[dict[str, Any]]:
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


def _plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """Attributes as a dictionary; integers come as strings in OTLP's JSON."""
    values = {}
    for attribute in attributes:
        kind, value = next(iter(attribute["value"].items()), ("stringValue", ""))
        values[attribute["key"]] = int(value) if kind == "intValue" else value
    return values
