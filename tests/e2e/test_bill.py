"""The bill, as the sidecar reckons it, against what arrived: bytes and items at a receiver, and at each vendor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import vendors
from factory import Application
from gateway import OVERRIDES, Gateway
from sidecar import Sidecar
from test_receipts import EXPORT, environment_of
from waiting import eventually

REQUESTS = 400


def ask(sidecar: Sidecar) -> None:
    """The same number of requests each time, of a route and of none."""
    with httpx.Client(base_url=sidecar.proxy) as client:
        for number in range(REQUESTS):
            client.get("/" if number % 2 else f"/no-such-page/{number}")


def test_what_is_billed_is_what_arrived_to_the_byte(
    tmp_path: Path, application: Application, start_sidecar: Callable[..., Sidecar]
):
    with vendors.Vendors() as three:
        receiver = three.new_relic
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_HEADERS": f"{receiver.key_header}={receiver.key_value}",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        sidecar = start_sidecar({"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}}, environment)
        ask(sidecar)
        receiver.wait_for(lambda seen: sum(1 for _ in seen.spans()) >= REQUESTS * 2, "both spans of each request")

        def settled() -> dict | None:
            """The bill of spans at a moment when all that was billed has been seen, and the other way round."""
            bill = sidecar.json(EXPORT)["bill"]
            return bill if bill["signals"]["traces"]["requests"] == len(receiver.accepted("traces")) else None

        bill = eventually(settled, "a moment of rest")
        traces, arrived = bill["signals"]["traces"], receiver.accepted("traces")
        assert traces["compressed_bytes"] == sum(len(request.body) for request in arrived)
        assert traces["bytes"] == sum(len(request.message().SerializeToString()) for request in arrived)
        per_million = traces["per_million_requests"]
        assert bill["requests"] == REQUESTS
        assert per_million["items"] == round(traces["items"] / REQUESTS * 1_000_000)
        assert per_million["bytes"] == round(traces["bytes"] / REQUESTS * 1_000_000)
        assert sidecar.metric("content_factory_telemetry_delivered_size_bytes_total", signal="traces") >= traces["bytes"]
        # a process's own series come in their time, between two readings too
        series = "content_factory_telemetry_series"
        eventually(lambda: sidecar.json(EXPORT)["bill"]["series"] == sidecar.metric(series) > 30, "the same number of series")
        assert sidecar.stop() == 0


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

            def reckoned() -> tuple[dict, int] | None:
                """The shares, and what Sentry has: once the collector has told all of it, and has decided on all traces."""
                bill = sidecar.json(EXPORT)["bill"]
                shares = {entry["vendor"]: entry["signals"] for entry in bill["vendors"] or []}
                share = shares.get("Sentry", {}).get("traces", {}).get("share")
                # of one reading: what is delivered between two of them is in the second alone
                items, seen = bill["signals"]["traces"]["items"], arrived()
                told = share and items >= REQUESTS * 2 and abs(share * items - seen) < 10
                return (shares, seen) if told and seen > REQUESTS and "metrics" in shares["Datadog"] else None

            shares, seen = eventually(reckoned, "Sentry's share of the spans, as many as arrived", 40)
            assert 0.3 < shares["Sentry"]["traces"]["share"] < 0.9
            per_million = shares["Sentry"]["traces"]["per_million_requests"]["items"]
            assert abs(per_million - seen / REQUESTS * 1_000_000) < 60_000
            assert "metrics" not in shares["Sentry"]
            assert shares["Datadog"]["metrics"]["per_million_requests"]["bytes"] > 0
            assert sidecar.stop() == 0
