"""A gateway that is short of memory: what it refuses comes again, and neither a span nor a count of one is lost."""

from __future__ import annotations

import random
from pathlib import Path

import messages
import pytest
import vendors
from conftest import SidecarMaker
from factory import Application
from gateway import OVERRIDES, Gateway, post
from processes import free_port
from sidecar import Sidecar
from test_a_day import calls_of, count
from test_intake import with_intake
from test_receipts import EXPORT, environment_of
from waiting import eventually

# Production's files with little memory, all of which the flood takes, because each trace is held for a while.
LITTLE_MEMORY = """
processors:
  memory_limiter: {check_interval: 100ms, limit_mib: 100, spike_limit_mib: 40, min_gc_interval_when_soft_limited: 1s}
  tail_sampling: {decision_wait: 8s}
"""
POSTS, SPANS = 80, 100
REFUSED = "data refused due to high memory usage"


def flood(port: int) -> None:
    """Spans of 4 KB, to the intake of a sidecar, as fast as it takes them: all are made before the first is sent."""
    letters = random.Random(7)
    requests = []
    for number in range(POSTS):
        spans = [messages.server_span(f"{number} {span}") for span in range(SPANS)]
        for span in spans:
            span.attributes.extend(messages.attributes({"payload": letters.randbytes(2000).hex()}))
        requests.append(messages.traces(spans))
    for request in requests:
        assert post(f"http://127.0.0.1:{port}", request, {}) == 200


def is_told(sidecar: Sidecar) -> bool:
    """What the page of export says while the gateway refuses."""
    seen = sidecar.json(EXPORT)
    own, collector = seen["signals"]["traces"], seen["collector"]["received"]["traces"]
    return REFUSED in (own["problem"] or "") and own["retries"] > 0 and collector["refused"] > 0


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_what_a_gateway_short_of_memory_refuses_is_delivered_once_it_has_room(
    protocol: str, tmp_path: Path, application: Application, start_sidecar: SidecarMaker
):
    little = tmp_path / "little-memory.yaml"
    little.write_text(LITTLE_MEMORY)
    with vendors.Vendors() as three, Gateway(
        tmp_path, three.environment("datadog", "newrelic", "sentry"), (OVERRIDES, little)
    ) as gateway:
        port = free_port()
        settings = {"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}, "telemetry": {}}
        environment = environment_of(gateway) | {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": {"grpc": gateway.grpc, "http/protobuf": gateway.http}[protocol],
            # a gateway that is busy answers late: who gives up and asks again has sent twice
            "OTEL_EXPORTER_OTLP_TIMEOUT": "60000",
        }
        sidecar = start_sidecar(with_intake(settings, port), environment)
        flood(port)
        eventually(lambda: is_told(sidecar), "the refusal, in the gateway's words and in its receipts", 60)
        for vendor in three.all:
            vendor.wait_for(lambda seen: count(seen, "traces") >= POSTS * SPANS, "all spans", 120)
        for vendor in (three.datadog, three.new_relic):
            vendor.wait_for(lambda seen: calls_of(seen) >= POSTS * SPANS, "the count of each span")
        delivered = eventually(lambda: settled(sidecar), "everything delivered, and nothing wrong any more")
        assert delivered >= POSTS * SPANS
        own = gateway.own_metrics()
        assert own["otelcol_processor_memory_limiter_refused_spans"] > 0
        assert own["otelcol_receiver_accepted_spans"] == POSTS * SPANS
        assert sidecar.stop() == 0
    for vendor in three.all:
        ids = [span.span_id for span in vendor.spans()]
        assert len(ids) == len(set(ids)) == POSTS * SPANS
        assert vendor.refusals == []
    assert [calls_of(vendor) for vendor in (three.datadog, three.new_relic)] == [POSTS * SPANS] * 2


def settled(sidecar: Sidecar) -> int | None:
    """How many spans were delivered, once they are all that there were."""
    own = sidecar.json(EXPORT)["signals"]["traces"]
    assert (own["rejected"], own["dropped"]) == (0, {})
    is_over = own["problem"] is None and own["breaker"] == "closed" and own["condition"] == "delivering"
    return own["delivered"] if is_over and own["delivered"] == own["produced"] else None
