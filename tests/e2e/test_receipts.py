"""What each vendor accepted, as the sidecar tells it: the real gateway's own metrics, with a vendor that refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import vendors
from factory import Application
from gateway import TOKEN, Gateway
from sidecar import Sidecar
from waiting import eventually

EXPORT = "/api/v1/monitoring/export"
REQUESTS = 20


def environment_of(gateway: Gateway) -> dict[str, str]:
    """What points a sidecar at the gateway, and at its metrics."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": gateway.grpc,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "SIDECAR_TELEMETRY__RECEIPTS__URL": f"http://{gateway.address}:8888/metrics",
        "SIDECAR_TELEMETRY__RECEIPTS__INTERVAL": "300ms",
    }


def test_a_vendor_that_refuses_is_told_from_those_that_accept(
    tmp_path: Path, application: Application, start_sidecar: Callable[..., Sidecar]
):
    with vendors.Vendors() as three:
        keys = three.environment("datadog", "newrelic", "sentry") | {"NEW_RELIC_LICENSE_KEY": "a-wrong-key"}
        with Gateway(tmp_path, keys) as gateway:
            sidecar = start_sidecar(
                {"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}}, environment_of(gateway)
            )
            with httpx.Client(base_url=sidecar.proxy) as client:
                assert [client.get("/").status_code for _ in range(REQUESTS)] == [200] * REQUESTS

            def receipts() -> dict | None:
                """By vendor and signal, once all three have had spans and metrics."""
                seen = {entry["vendor"]: entry["signals"] for entry in sidecar.json(EXPORT)["vendors"]}
                told = (
                    seen["Datadog"]["traces"]["accepted"] >= REQUESTS
                    and seen["Datadog"]["metrics"]["accepted"] > 0
                    and seen["Sentry"]["traces"]["accepted"] >= REQUESTS
                    and seen["New Relic"]["traces"]["failed"] >= REQUESTS
                    and seen["New Relic"]["metrics"]["failed"] > 0
                    # what the collector gathers for a second looks as if it waited
                    and {seen["Datadog"][signal]["condition"] for signal in ("traces", "metrics")} == {"accepting"}
                )
                return seen if told else None

            def told() -> dict | None:
                try:
                    return receipts()
                except KeyError:
                    return None  # an exporter is on the page once it has started

            seen = eventually(told, "each vendor's spans and metrics", 30)
            for signal in ("traces", "metrics"):
                refused = seen["New Relic"][signal]
                assert (refused["condition"], refused["accepted"]) == ("refusing", 0)
                assert refused["since"] == pytest.approx(sidecar.json(EXPORT)["timestamp"], abs=60)
            assert "metrics" not in seen["Sentry"], "it gets none"
            assert sidecar.metric("content_factory_exporter_refusing", exporter="otlp_http/newrelic", signal="traces") == 1
            assert sidecar.metric("content_factory_exporter_refusing", exporter="otlp_http/datadog") == 0
            page = sidecar.text("/dashboard")
            assert "New Relic" in page and "refusing for" in page
            assert "a-wrong-key" not in page + sidecar.text(EXPORT)
            assert sidecar.stop() == 0
    assert {request.status for request in three.new_relic.requests} == {403}
