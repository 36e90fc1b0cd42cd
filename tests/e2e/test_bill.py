"""The bill, as the sidecar reckons it, against what arrived: bytes and items at a receiver, and at each vendor."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import httpx
import vendors
from factory import Application
from gateway import OVERRIDES, Gateway
from sidecar import Sidecar
from test_receipts import EXPORT, environment_of
from vendor_rules import decompressed
from waiting import eventually

REQUESTS = 400
DECISIONS = "otelcol_processor_tail_sampling_global_count_traces_sampled"


def ask(sidecar: Sidecar) -> None:
    """The same number of requests each time, of a route and of none."""
    with httpx.Client(base_url=sidecar.proxy) as client:
        for number in range(REQUESTS):
            client.get("/" if number % 2 else f"/no-such-page/{number}")


def items_of(request: vendors.Request) -> int:
    """How many spans, log records or points of metrics are in it."""
    message = request.message()
    if request.signal == "traces":
        return sum(len(scope.spans) for part in message.resource_spans for scope in part.scope_spans)
    if request.signal == "logs":
        return sum(len(scope.log_records) for part in message.resource_logs for scope in part.scope_logs)
    metrics = [metric for part in message.resource_metrics for scope in part.scope_metrics for metric in scope.metrics]
    return sum(len(getattr(metric, metric.WhichOneof("data")).data_points) for metric in metrics)


def raw(request: vendors.Request) -> int:
    """Its bytes before compression."""
    return len(decompressed(request.body, request.headers.get("content-encoding", "identity")))


def test_what_is_billed_of_each_signal_is_what_arrived_to_the_byte(
    tmp_path: Path, application: Application, start_sidecar: Callable[..., Sidecar]
):
    with vendors.Vendors() as three:
        receiver = three.new_relic
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_HEADERS": f"{receiver.key_header}={receiver.key_value}",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
        sidecar = start_sidecar({"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}}, environment)
        ask(sidecar)
        receiver.wait_for(lambda seen: sum(1 for _ in seen.spans()) >= REQUESTS * 2, "both spans of each request")
        for signal in ("traces", "metrics", "logs"):

            def settled(signal: str = signal) -> tuple[dict, list[vendors.Request]] | None:
                """The bill at a moment when all that was billed has been seen, and the other way round."""
                bill, arrived = sidecar.json(EXPORT)["bill"], receiver.accepted(signal)
                return (bill, arrived) if bill["signals"][signal]["requests"] == len(arrived) > 0 else None

            bill, arrived = eventually(settled, f"a moment of rest of {signal}")
            billed = bill["signals"][signal]
            assert billed["compressed_bytes"] == sum(len(request.body) for request in arrived), signal
            assert billed["bytes"] == sum(raw(request) for request in arrived), signal
            assert billed["items"] == sum(items_of(request) for request in arrived), signal
            assert bill["requests"] == REQUESTS
            for what in ("items", "bytes", "compressed_bytes"):
                assert billed["per_million_requests"][what] == round(billed[what] / REQUESTS * 1_000_000), (signal, what)
            size = sidecar.metric("content_factory_telemetry_delivered_size_bytes_total", signal=signal)
            assert size >= billed["bytes"]
        # a process's own series come in their time, between two readings too
        series = "content_factory_telemetry_series"
        eventually(lambda: sidecar.json(EXPORT)["bill"]["series"] == sidecar.metric(series) > 30, "the same number of series")
        assert sidecar.stop() == 0


def decisions(gateway: Gateway) -> Counter[str]:
    """How many traces its sampler has kept (`true`) and left out (`false`)."""
    with urlopen(f"http://{gateway.address}:8888/metrics", timeout=10) as answer:
        page = answer.read().decode()
    counted: Counter[str] = Counter()
    for sampled, count in re.findall(rf'^{DECISIONS}(?:_total)?{{.*?sampled="(\w+)".*?}} (\S+)$', page, re.MULTILINE):
        counted[sampled] += int(float(count))
    return counted


def test_each_vendors_share_is_what_the_collector_let_through(
    tmp_path: Path, application: Application, start_sidecar: Callable[..., Sidecar]
):
    half = tmp_path / "half.yaml"
    half.write_text(
        "processors: {tail_sampling: {decision_wait: 1s, policies: [{name: errors, type: status_code, status_code:"
        " {status_codes: [ERROR]}}, {name: half, type: probabilistic, probabilistic: {sampling_percentage: 50}}]}}\n"
    )
    with vendors.Vendors() as three:
        overrides = (OVERRIDES, half)
        with Gateway(tmp_path, three.environment("datadog", "newrelic", "sentry"), overrides) as gateway:
            sidecar = start_sidecar(
                {"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}}, environment_of(gateway)
            )
            ask(sidecar)
            arrived = lambda: sum(1 for _ in three.sentry.spans())  # noqa: E731
            at_sentry = lambda: sum(raw(request) for request in three.sentry.accepted("traces"))  # noqa: E731

            def reckoned() -> dict | None:
                """The shares once the collector has decided on all traces, and has told all that Sentry has seen."""
                export = sidecar.json(EXPORT)
                shares = {entry["vendor"]: entry["signals"] for entry in export["bill"]["vendors"] or []}
                traces = shares.get("Sentry", {}).get("traces", {})
                decided = decisions(gateway)
                delivered = export["signals"]["traces"]["delivered"]
                is_decided = (sum(decided.values()), delivered) == (REQUESTS, REQUESTS * 2)
                is_there = is_decided and arrived() == decided["true"] * 2 and traces.get("sent_bytes") == at_sentry()
                return shares if is_there and round(traces["share"] * delivered) == arrived() else None

            shares = eventually(reckoned, "Sentry's share of the spans, as many as arrived", 40)
            assert 0.3 < shares["Sentry"]["traces"]["share"] < 0.9
            per_million = shares["Sentry"]["traces"]["per_million_requests"]
            assert per_million["items"] == round(arrived() / REQUESTS * 1_000_000)
            assert per_million["bytes"] == round(at_sentry() / REQUESTS * 1_000_000)
            assert "metrics" not in shares["Sentry"]

            def metrics_settled() -> dict | None:
                """Those that the gateway makes itself are among them."""
                bytes_at_datadog = sum(raw(request) for request in three.datadog.accepted("metrics"))
                shares = {entry["vendor"]: entry["signals"] for entry in sidecar.json(EXPORT)["bill"]["vendors"]}
                metrics = shares["Datadog"]["metrics"]
                return metrics if metrics["sent_bytes"] == bytes_at_datadog > 0 else None

            assert eventually(metrics_settled, "the bytes of metrics at Datadog")["per_million_requests"]["bytes"] > 0
            assert sidecar.stop() == 0
