"""The whole way: a request through the sidecar, its telemetry through the real gateway, and what each vendor gets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import messages
import pytest
import vendors
from factory import Application
from gateway import TOKEN, Gateway
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sidecar import Sidecar
from vendors import Vendor, Vendors
from waiting import eventually

REQUESTS = 30
DURATION = "http.server.request.duration"


@pytest.fixture
def three() -> Iterator[Vendors]:
    """Fresh stand-ins for one test."""
    with vendors.Vendors() as stand_ins:
        yield stand_ins


def server_spans(vendor: Vendor) -> list[Span]:
    """The spans of the requests for `/` that the vendor has taken."""
    return [
        span
        for span in vendor.spans()
        if span.kind == Span.SPAN_KIND_SERVER and messages.plain(span.attributes).get("url.path") == "/"
    ]


def measured(vendor: Vendor) -> int:
    """How many requests the vendor's durations speak of; every export must be a delta, or sums mean nothing."""
    count = 0
    for metric in vendor.metrics(DURATION):
        histogram = getattr(metric, metric.WhichOneof("data"))
        assert histogram.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
        count += sum(point.count for point in histogram.data_points)
    return count


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_each_request_reaches_every_vendor_once(
    protocol: str, tmp_path: Path, three: Vendors, application: Application, start_sidecar: Callable[..., Sidecar]
):
    with Gateway(tmp_path, three.environment("datadog", "newrelic", "sentry")) as gateway:
        endpoint = {"grpc": gateway.grpc, "http/protobuf": gateway.http}[protocol]
        sidecar = start_sidecar(
            {"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}},
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}",
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
            },
        )
        with httpx.Client(base_url=sidecar.proxy) as client:
            assert [client.get("/").status_code for _ in range(REQUESTS)] == [200] * REQUESTS
        for vendor in three.all:
            vendor.wait_for(lambda seen: len(server_spans(seen)) >= REQUESTS, f"{REQUESTS} spans of requests")
        for vendor in (three.datadog, three.new_relic):
            vendor.wait_for(lambda seen: measured(seen) >= REQUESTS, f"{REQUESTS} measured requests")
        assert sidecar.stop() == 0
    for vendor in three.all:
        assert len({span.trace_id for span in server_spans(vendor)}) == len(server_spans(vendor)) == REQUESTS
        assert vendor.refusals == [] and all(request.accepted for request in vendor.requests)
    assert [measured(vendor) for vendor in (three.datadog, three.new_relic)] == [REQUESTS, REQUESTS]
    assert [request.path for request in three.sentry.requests if "metric" in request.path] == []


def test_a_wrong_token_costs_the_telemetry_and_no_request(
    tmp_path: Path, three: Vendors, application: Application, start_sidecar: Callable[..., Sidecar]
):
    with Gateway(tmp_path, three.environment("datadog", "newrelic", "sentry")) as gateway:
        sidecar = start_sidecar(
            {"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}},
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": gateway.grpc,
                "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20not-the-token",
            },
        )
        with httpx.Client(base_url=sidecar.proxy) as client:
            assert [client.get("/").status_code for _ in range(REQUESTS)] == [200] * REQUESTS
        eventually(
            lambda: sidecar.metric("content_factory_telemetry_produced_total", signal="traces") >= REQUESTS,
            f"{REQUESTS} spans produced",
        )
        assert sidecar.metric("content_factory_telemetry_delivered_total") == 0
    assert [vendor.requests for vendor in three.all] == [[], [], []]


def test_issues_wait_while_sentry_is_over_its_quota_and_none_is_lost(
    three: Vendors, application: Application, start_sidecar: Callable[..., Sidecar]
):
    sidecar = start_sidecar(
        {"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}, "telemetry": {"endpoint": "http://127.0.0.1:9"}},
        {"SENTRY_DSN": three.dsn},
    )
    sidecar.await_routes()
    with httpx.Client(base_url=sidecar.proxy, timeout=20) as client:
        products = [client.post("/api/v1/products", json={"name": "refused a script"}).json()["id"] for _ in range(10)]
        [refused] = [product for product in products if product % 10 == 0]
        # from now on: the first event must come before it is over
        three.sentry.over_quota("envelopes", seconds=10)
        # as many as go at once for one issue
        assert [client.post(f"/api/v1/products/{refused}/scripts").status_code for _ in range(3)] == [502] * 3
    three.sentry.wait_for(lambda seen: len(seen.events()) >= 3, "the three events")
    told = [request.status for request in three.sentry.requests]
    # the first is refused and told for how long; nothing is sent until then
    assert told == [429, 200, 200, 200]
    events = [json.loads(event) for event in three.sentry.events()]
    assert len({event["event_id"] for event in events}) == 3
    assert {tuple(event["fingerprint"]) for event in events} == {("POST", "/api/v1/products/{product_id}/scripts", "502")}
    assert three.sentry.refusals == []
