"""The stand-ins bite: each refuses what its vendor says that it refuses, so that a run without refusals means something."""

from __future__ import annotations

import gzip
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator

import httpx
import messages
import pytest
import vendors
import zstandard
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE
from vendor_rules import PROTOBUF, Datadog, NewRelic, Sentry
from vendors import Vendor, Vendors

METRICS = "/api/v2/otlpmetrics"
WITH_RESOURCE = {"dd_otel_metric_config": '{"resource_attributes_as_tags": true}'}


@pytest.fixture
def three() -> Iterator[Vendors]:
    """Fresh stand-ins for one test."""
    with vendors.Vendors() as stand_ins:
        yield stand_ins


def ask(vendor: Vendor, path: str, body: bytes, **changes: str | None) -> int:
    """Posts as its sender should, but for the changes: `None` leaves a header out."""
    headers = {"content-type": PROTOBUF, vendor.key_header: vendor.key_value}
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    sent = {name: value for name, value in headers.items() if value is not None}
    before = len(vendor.requests)
    try:
        with urllib.request.urlopen(urllib.request.Request(vendor.url + path, data=body, headers=sent), timeout=10) as answer:
            status = answer.status
    except urllib.error.HTTPError as refusal:
        with refusal:
            status = refusal.code
    # it answers first, and keeps then
    vendor.wait_for(lambda seen: len(seen.requests) > before, "the request to be kept")
    return status


def span(**extra: messages.Value) -> bytes:
    """An export of one span."""
    return messages.traces([messages.server_span("a request", extra=extra)]).SerializeToString()


def many(count: int, size: int) -> bytes:
    """An export of so many log records of so many characters, which do not compress."""
    return messages.logs([(os.urandom(size // 2).hex(), {}) for _ in range(count)]).SerializeToString()


def test_what_keeps_to_the_rules_is_taken(three: Vendors):
    metrics = messages.delta("requests", [(1, {"route": "/a"}), (2, {"route": "/b"})]).SerializeToString()
    assert ask(three.datadog, "/v1/traces", span()) == 202
    assert ask(three.datadog, METRICS, metrics) == 200
    assert ask(three.new_relic, "/v1/metrics", gzip.compress(metrics), content_encoding="gzip") == 200
    assert ask(three.sentry, Sentry.OTLP + "/v1/traces", span()) == 202
    for vendor in three.all:
        assert (vendor.refusals, vendor.losses) == ([], [])


def test_a_body_of_several_frames_is_taken_whole(three: Vendors):
    for encoding, compress in (("zstd", zstandard.compress), ("gzip", gzip.compress)):
        before = sum(1 for _ in three.new_relic.spans())
        assert ask(three.new_relic, "/v1/traces", compress(span()) + compress(span()), content_encoding=encoding) == 200
        assert sum(1 for _ in three.new_relic.spans()) - before == 2, encoding


@pytest.mark.parametrize(
    ("name", "path", "missing", "wrong"),
    [
        ("datadog", "/v1/traces", 403, 403),
        ("new_relic", "/v1/traces", 401, 403),
        ("sentry", Sentry.OTLP + "/v1/traces", 401, 403),
        ("sentry", Sentry.ENVELOPES, 401, 403),
    ],
)
def test_without_the_right_key_nothing_is_taken(three: Vendors, name: str, path: str, missing: int, wrong: int):
    vendor = getattr(three, name)
    assert ask(vendor, path, span(), **{vendor.key_header: None}) == missing
    assert ask(vendor, path, span(), **{vendor.key_header: "another"}) == wrong
    assert [status for _, status, _ in vendor.refusals] == [missing, wrong]


@pytest.mark.parametrize("name", ["datadog", "new_relic", "sentry"])
def test_only_protobuf_is_taken_and_only_at_its_paths(three: Vendors, name: str):
    vendor = getattr(three, name)
    path = next(path for path, signal in vendor.rules.paths.items() if signal == "traces")
    assert ask(vendor, path, b"{}", content_type="application/json") == 415
    assert ask(vendor, path, b"\xff\xff\xff") == 400
    assert ask(vendor, path, b"no gzip", content_encoding="gzip") == 400
    assert ask(vendor, path + "s", span()) == 404
    assert len(vendor.refusals) == 4


def test_sentry_has_no_path_for_metrics(three: Vendors):
    assert ask(three.sentry, Sentry.OTLP + "/v1/metrics", messages.delta("requests", [(1, {})]).SerializeToString()) == 404


@pytest.mark.parametrize(
    "cumulative",
    [
        messages.Counter("requests").reads(1),
        messages.durations("latency", [0.1], AGGREGATION_TEMPORALITY_CUMULATIVE),
    ],
    ids=["a counter", "a histogram"],
)
def test_datadog_takes_only_deltas_of_counters_and_histograms(three: Vendors, cumulative):
    assert ask(three.datadog, METRICS, cumulative.SerializeToString()) == 400
    assert "not delta" in three.datadog.refusals[0][2]


def test_datadog_takes_levels_as_they_are(three: Vendors):
    level = messages.Counter("active", monotonic=False).reads(7)
    assert ask(three.datadog, METRICS, level.SerializeToString()) == 200


def test_datadog_refuses_too_large_a_body(three: Vendors):
    incompressible = messages.delta("requests", [(1, {"id": os.urandom(50).hex()}) for _ in range(5000)]).SerializeToString()
    assert len(incompressible) > Datadog.METRICS
    assert ask(three.datadog, METRICS, incompressible) == 413
    assert ask(three.datadog, "/v1/logs", many(6, 1_000_000)) == 413
    assert ask(three.datadog, "/v1/logs", many(4, 1_000_000)) == 200
    spans = messages.traces([messages.server_span(str(number), extra={"x": "y" * 4000}) for number in range(1000)])
    assert ask(three.datadog, "/v1/traces", gzip.compress(spans.SerializeToString()), content_encoding="gzip") == 413


def test_datadog_keeps_one_point_of_a_series_in_a_second(three: Vendors):
    message = messages.delta("requests", [(1, {"route": "/a"})])
    for _ in range(2):
        assert ask(three.datadog, METRICS, message.SerializeToString(), **WITH_RESOURCE) == 200
    assert len(three.datadog.losses) == 1 and "two points" in three.datadog.losses[0]


def test_datadog_tells_senders_apart_only_by_resource_attributes_that_are_tags(three: Vendors):
    for changes, losses in ((WITH_RESOURCE, 0), ({}, 1)):
        for instance in ("web-1", "web-2"):
            resource = messages.Resource(attributes=messages.attributes({"service.instance.id": instance}))
            message = messages.delta(f"requests {losses}", [(1, {})], resource)
            # one moment for both
            message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0].time_unix_nano = 1_700_000_000_000_000_000
            assert ask(three.datadog, METRICS, message.SerializeToString(), **changes) == 200
        assert len(three.datadog.losses) == losses


def test_new_relic_refuses_a_million_bytes(three: Vendors):
    assert ask(three.new_relic, "/v1/logs", many(1, 999_000)) == 200
    assert ask(three.new_relic, "/v1/logs", many(1, 1_000_000)) == 413
    assert ask(three.new_relic, "/v1/logs", gzip.compress(many(2, 600_000)), content_encoding="gzip") == 413


@pytest.mark.parametrize(
    ("fits", "too_long"),
    [
        ({"n" * NewRelic.NAME: "x"}, {"n" * (NewRelic.NAME + 1): "x"}),
        ({"value": "ä" * NewRelic.VALUE}, {"value": "ä" * (NewRelic.VALUE + 1)}),
        ({"list": ["x"] * NewRelic.LIST}, {"list": ["x"] * (NewRelic.LIST + 1)}),
    ],
    ids=["name", "value", "list"],
)
def test_new_relic_loses_what_has_too_long_attributes_and_says_nothing(three: Vendors, fits, too_long):
    assert ask(three.new_relic, "/v1/traces", span(**fits)) == 200
    assert three.new_relic.losses == []
    assert ask(three.new_relic, "/v1/traces", span(**too_long)) == 200
    assert len(three.new_relic.losses) == 1


@pytest.mark.parametrize("signal", ["traces", "logs", "metrics"])
def test_attributes_are_looked_at_in_every_signal(three: Vendors, signal: str):
    tags: dict[str, messages.Value] = {"n" * 300: "x"}
    resource = messages.Resource(attributes=messages.attributes({"r" * 300: "x"}))
    message = {
        "traces": messages.traces([messages.server_span("a request", extra=tags)], resource),
        "logs": messages.logs([("a line", tags)], resource),
        "metrics": messages.delta("requests", [(1, tags)], resource),
    }[signal]
    assert ask(three.new_relic, f"/v1/{signal}", message.SerializeToString()) == 200
    assert sorted(loss[0] for loss in three.new_relic.losses) == ["n", "r"]


def envelope(event: dict, **header: str) -> bytes:
    """An envelope with one event."""
    payload = json.dumps(event).encode()
    return b"\n".join([json.dumps(header).encode(), json.dumps({"type": "event", "length": len(payload)}).encode(), payload, b""])


def test_sentry_takes_envelopes_and_refuses_what_is_none(three: Vendors):
    auth = {"x_sentry_auth": f"Sentry sentry_version=7, sentry_client=x/1, sentry_key={Sentry.KEY}"}
    assert ask(three.sentry, Sentry.ENVELOPES, envelope({"message": "failed"}), **auth) == 200
    assert [json.loads(event)["message"] for event in three.sentry.events()] == ["failed"]
    assert ask(three.sentry, Sentry.ENVELOPES, b"no envelope", **auth) == 400
    assert ask(three.sentry, Sentry.ENVELOPES, b'{}\n{"type":"event","length":100}\n{}\n', **auth) == 400
    assert ask(three.sentry, Sentry.ENVELOPES, envelope({"message": "x" * Sentry.EVENT}), **auth) == 413


def test_over_its_quota_it_says_for_how_long_and_of_what(three: Vendors):
    three.sentry.over_quota("traces", 30)
    request = urllib.request.Request(
        three.sentry.url + Sentry.OTLP + "/v1/traces",
        data=span(),
        headers={"content-type": PROTOBUF, three.sentry.key_header: three.sentry.key_value},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    refused.value.close()
    told = refused.value.headers
    assert refused.value.code == 429
    assert told["x-sentry-rate-limits"] == f"{told['retry-after']}:span:organization" and 0 < int(told["retry-after"]) <= 30
    assert ask(three.sentry, Sentry.OTLP + "/v1/logs", messages.log("a line").SerializeToString()) == 202
    assert three.sentry.refusals == [], "an outage is no broken rule"


def test_a_closed_port_refuses_and_a_black_hole_never_answers(three: Vendors):
    vendor = three.new_relic
    vendor.close()
    with pytest.raises(urllib.error.URLError):
        ask(vendor, "/v1/traces", span())
    vendor.reopen()
    assert ask(vendor, "/v1/traces", span()) == 200
    with vendor.black_hole():
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(vendor.url + "/v1/traces", content=span(), timeout=httpx.Timeout(10, read=0.3))
        vendor.wait_for(lambda seen: len(seen.requests) == 2, "the request to be kept")
    assert [request.status for request in vendor.requests] == [200, vendors.UNANSWERED]
