"""From OTLP to the three vendors, through the real collector and the files of otel-collector/.

The vendors are loopback stand-ins (vendors.py); everything else is what an operator runs.
"""

from __future__ import annotations

import subprocess

import messages
import pytest
import vendors
from gateway import FILES, OVERRIDES, TOKEN, Collector, Gateway, collector_binary, free_address, post
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, AGGREGATION_TEMPORALITY_DELTA
from processes import ROOT
from waiting import eventually

SPAN_METRIC = "traces.span.metrics.duration"


@pytest.fixture
def three():
    """Fresh stand-ins for one test."""
    with vendors.Vendors() as stand_ins:
        yield stand_ins


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """All three vendors after one export of each signal has come through; read-only for the tests that share it."""
    with vendors.Vendors() as stand_ins:
        folder = tmp_path_factory.mktemp("gateway")
        with Gateway(folder, stand_ins.environment("datadog", "newrelic", "sentry")) as gateway:
            export_everything(gateway, stand_ins)
        yield stand_ins


def export_everything(gateway: Gateway, stand_ins: vendors.Vendors) -> None:
    """Sends spans, counters and a log record, and waits until each vendor has what it should get."""
    # started after the gateway: of a counter that is older than itself it takes the first value as a base
    counter = messages.Counter("content_factory.requests")
    in_flight = messages.Counter("http.server.active_requests", monotonic=False)
    spans = [messages.server_span(f"GET /products {number}") for number in range(20)]
    spans.append(
        messages.server_span(
            "with secrets",
            extra={
                "http.request.header.authorization": "Bearer abcdef",
                "user.contact": "mail jane@example.com now",
                "gen_ai.usage.input_tokens": 42,
                "long": "x" * 5000,
            },
        )
    )
    spans.append(messages.server_span("a probe", extra={"url.path": "/livez"}))
    for message in (
        messages.traces(spans),
        counter.reads(10),
        counter.reads(25),
        in_flight.reads(7),
        messages.log("publishing failed", {"api_key": "sk-123"}),
    ):
        assert gateway.export(message) == 200
    for vendor in stand_ins.all:
        vendor.wait_for(lambda seen: len(list(seen.spans())) >= 21, "21 spans")
        vendor.wait_for(lambda seen: seen.accepted("logs"), "the log record")
    for vendor in (stand_ins.datadog, stand_ins.new_relic):
        vendor.wait_for(lambda seen: list(seen.metrics(SPAN_METRIC)), "metrics made from spans")
        vendor.wait_for(lambda seen: total(seen, "content_factory.requests") >= 25, "the whole counter")
        vendor.wait_for(lambda seen: list(seen.metrics("http.server.active_requests")), "the gauge")


def total(vendor: vendors.Vendor, name: str) -> int:
    """The sum of all deltas that the vendor got."""
    return sum(point.as_int for metric in vendor.metrics(name) for point in metric.sum.data_points)


VENDORS = ["datadog", "new_relic", "sentry"]
EXPECTED_PATHS = {
    "datadog": {"/v1/traces", "/api/v2/otlpmetrics", "/v1/logs"},
    "new_relic": {"/v1/traces", "/v1/metrics", "/v1/logs"},
    "sentry": {"/api/4500/integration/otlp/v1/traces", "/api/4500/integration/otlp/v1/logs"},
}


@pytest.mark.parametrize("name", VENDORS)
def test_each_vendor_is_asked_at_its_own_paths_and_nowhere_else(exported, name):
    assert {request.path for request in getattr(exported, name).requests} == EXPECTED_PATHS[name]


@pytest.mark.parametrize("name", VENDORS)
def test_each_vendor_gets_its_own_key_and_no_other_vendors(exported, name):
    vendor = getattr(exported, name)
    foreign = [other.key_value for other in exported.all if other is not vendor] + [TOKEN]
    for request in vendor.requests:
        assert request.headers[vendor.key_header] == vendor.key_value
        assert not [key for key in foreign if key in str(request.headers)]


@pytest.mark.parametrize(("name", "encoding"), [("datadog", "zstd"), ("new_relic", "zstd"), ("sentry", "gzip")])
def test_bodies_are_compressed_protobuf(exported, name, encoding):
    for request in getattr(exported, name).requests:
        assert (request.headers["content-type"], request.headers["content-encoding"]) == ("application/x-protobuf", encoding)
        request.message()


@pytest.mark.parametrize("name", VENDORS)
def test_every_span_arrives_once_as_it_was_sent(exported, name):
    spans = [span for span in getattr(exported, name).spans() if span.name.startswith("GET /products")]
    assert sorted(span.name for span in spans) == sorted(f"GET /products {number}" for number in range(20))
    for span in spans:
        assert span.trace_id == messages.trace_id(span.name)
        assert messages.plain(span.attributes)["http.route"] == "/products"


@pytest.mark.parametrize("name", VENDORS)
def test_no_secret_reaches_a_vendor(exported, name):
    [span] = [span for span in getattr(exported, name).spans() if span.name == "with secrets"]
    values = messages.plain(span.attributes)
    assert "abcdef" not in values["http.request.header.authorization"]
    assert "jane@example.com" not in values["user.contact"] and "mail" in values["user.contact"]
    assert values["gen_ai.usage.input_tokens"] == 42
    [record] = getattr(exported, name).log_records()
    assert record.body.string_value == "publishing failed"
    assert "sk-123" not in messages.plain(record.attributes)["api_key"]


@pytest.mark.parametrize("name", VENDORS)
def test_values_end_at_the_vendors_limit(exported, name):
    [span] = [span for span in getattr(exported, name).spans() if span.name == "with secrets"]
    assert len(messages.plain(span.attributes)["long"]) == 4095


@pytest.mark.parametrize("name", VENDORS)
def test_spans_of_probes_are_not_sold_to_a_vendor(exported, name):
    assert "a probe" not in [span.name for span in getattr(exported, name).spans()]


@pytest.mark.parametrize("name", ["datadog", "new_relic"])
def test_cumulative_counters_arrive_as_deltas_that_add_up(exported, name):
    vendor = getattr(exported, name)
    assert total(vendor, "content_factory.requests") == 25
    for metric in vendor.metrics("content_factory.requests"):
        assert metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA


@pytest.mark.parametrize("name", ["datadog", "new_relic"])
def test_an_up_down_counter_stays_cumulative(exported, name):
    [metric] = getattr(exported, name).metrics("http.server.active_requests")
    assert metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_CUMULATIVE
    assert [point.as_int for point in metric.sum.data_points] == [7]


@pytest.mark.parametrize("name", ["datadog", "new_relic"])
def test_request_metrics_are_made_from_all_spans_as_exponential_deltas(exported, name):
    histograms = [metric.exponential_histogram for metric in getattr(exported, name).metrics(SPAN_METRIC)]
    assert {histogram.aggregation_temporality for histogram in histograms} == {AGGREGATION_TEMPORALITY_DELTA}
    # 20 requests and the one with secrets; the probe is filtered before
    assert sum(point.count for histogram in histograms for point in histogram.data_points) == 21


def test_sentry_gets_no_metrics(exported):
    assert [request.path for request in exported.sentry.requests if "metric" in request.path] == []


@pytest.mark.parametrize("token", ["a-wrong-token", ""])
def test_who_shows_no_accepted_token_is_refused(tmp_path, three, token):
    with Gateway(tmp_path, three.environment("newrelic")) as gateway:
        assert gateway.export(messages.traces([messages.server_span("from a stranger")]), token=token) == 401
        assert gateway.export(messages.traces([messages.server_span("from a friend")])) == 200
        three.new_relic.wait_for(lambda seen: list(seen.spans()), "the accepted span")
    assert [span.name for span in three.new_relic.spans()] == ["from a friend"]


def test_a_changed_token_file_is_obeyed_without_a_restart(tmp_path, three):
    with Gateway(tmp_path, three.environment()) as gateway:
        # as Kubernetes does with a mounted Secret: the new file takes the place of the old one
        successor = tmp_path / "token.new"
        successor.write_text("the-next-token\nand-a-second-one\n")
        successor.rename(tmp_path / "token")
        message = messages.log("a line")
        for token in ("the-next-token", "and-a-second-one"):
            eventually(lambda: gateway.export(message, token=token) == 200, "the new token is accepted")
        assert gateway.export(message) == 401


@pytest.mark.parametrize("chosen", [("newrelic",), ("datadog", "sentry")], ids="+".join)
def test_only_vendors_with_a_key_get_data(tmp_path, three, chosen):
    by_name = {"datadog": three.datadog, "newrelic": three.new_relic, "sentry": three.sentry}
    with Gateway(tmp_path, three.environment(*chosen)) as gateway:
        gateway.export(messages.traces([messages.server_span("a request")]))
        gateway.export(messages.log("a line"))
        for name in chosen:
            by_name[name].wait_for(lambda seen: list(seen.spans()) and list(seen.log_records()), "a span and a log record")
    # a clean stop has sent all that there was, so what is not here never comes
    assert {name for name, vendor in by_name.items() if vendor.requests} == set(chosen)


def test_the_gateway_runs_without_any_vendor(tmp_path, three):
    with Gateway(tmp_path, three.environment()) as gateway:
        assert gateway.export(messages.traces([messages.server_span("a request")])) == 200
        assert gateway.export(messages.log("a line")) == 200
        assert gateway.export(messages.Counter("content_factory.requests").reads(1)) == 200
    assert [vendor.requests for vendor in three.all] == [[], [], []]


def test_sampling_keeps_every_error_and_everything_slow_and_a_tenth_of_the_rest(tmp_path, three):
    policies = tmp_path / "only-faster.yaml"
    shipped = OVERRIDES.read_text().replace("    policies:\n      - {name: all, type: always_sample}\n", "")
    assert "policies" not in shipped
    policies.write_text(shipped)
    with Gateway(tmp_path, three.environment("newrelic"), overrides=(policies,)) as gateway:
        spans = [messages.server_span(f"ordinary {number}") for number in range(500)]
        spans += [messages.server_span(f"failed {number}", error=True) for number in range(20)]
        spans += [messages.server_span(f"slow {number}", seconds=1.5) for number in range(20)]
        assert gateway.export(messages.traces(spans)) == 200
        three.new_relic.wait_for(lambda seen: len(list(seen.spans())) >= 40, "errors and slow requests")
    kept = [span.name.split()[0] for span in three.new_relic.spans()]
    assert (kept.count("failed"), kept.count("slow")) == (20, 20)
    # the sampler goes by the trace id, and the ids here are always the same: the share is near 10 % and never flickers
    assert 25 <= kept.count("ordinary") <= 80


def test_what_waits_for_vendors_survives_a_kill(tmp_path, three):
    for vendor in three.all:
        vendor.down = True
    gateway = Gateway(tmp_path, three.environment("datadog", "newrelic", "sentry"))
    gateway.start()
    names = [f"before the kill {number}" for number in range(50)]
    assert gateway.export(messages.traces([messages.server_span(name) for name in names])) == 200
    for vendor in three.all:
        # once it was tried it has left the sampler's memory and lies on disk
        vendor.wait_for(lambda seen: len(refused_spans(seen)) == 50, "an attempt with all 50 spans")
    gateway.kill()
    for vendor in three.all:
        vendor.down = False
    with gateway:
        for vendor in three.all:
            vendor.wait_for(lambda seen: len(list(seen.spans())) >= 50, "the 50 spans from before the kill")
    for vendor in three.all:
        assert sorted(span.name for span in vendor.spans()) == sorted(names)


def refused_spans(vendor: vendors.Vendor) -> set[bytes]:
    """Ids of the spans that were offered while it was down."""
    return {
        span.span_id
        for request in vendor.requests
        if request.status == 503 and request.signal == "traces"
        for resource in request.message().resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def test_the_agent_hands_everything_to_the_gateway(tmp_path, three):
    with Gateway(tmp_path, three.environment("newrelic")) as gateway:
        address = free_address()
        environment = {
            "OTELCOL_DATA": str(tmp_path / "agent-data"),
            "OTLP_TOKEN": TOKEN,
            "GATEWAY_ENDPOINT": f"dns:///{gateway.address}:4317",
            "AGENT_GRPC_ADDRESS": f"{address}:14317",
            "AGENT_HTTP_ADDRESS": f"{address}:14318",
            "AGENT_HEALTH_ADDRESS": f"{address}:13134",
        }
        command = [collector_binary(), "--config", str(FILES / "agent.yaml")]
        with Collector(command, environment, environment["AGENT_HEALTH_ADDRESS"], tmp_path / "agent.log"):
            endpoint = f"http://{address}:14318"
            assert post(endpoint, messages.traces([messages.server_span("by way of the agent")]), {}) == 200
            assert post(endpoint, messages.log("by way of the agent"), {}) == 200
            three.new_relic.wait_for(lambda seen: list(seen.spans()) and list(seen.log_records()), "a span and a log record")
    assert [span.name for span in three.new_relic.spans()] == ["by way of the agent"]


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "OTLP_TOKEN_FILE is not set"),
        ({"OTLP_TOKEN_FILE": "/nonexistent/token"}, "/nonexistent/token cannot be read"),
        ({"OTLP_TOKEN_FILE": __file__, "SENTRY_PUBLIC_KEY": "key"}, "SENTRY_PUBLIC_KEY is set without SENTRY_OTLP_URL"),
        ({"OTELCOL": ""}, "no collector found"),
    ],
)
def test_a_gateway_that_cannot_start_says_what_is_missing(environment, complaint):
    base = {"PATH": "/usr/bin:/bin", "OTELCOL": "/bin/false"}
    run = subprocess.run([FILES / "gateway.sh"], env=base | environment, capture_output=True, text=True, timeout=10)
    assert run.returncode == 64
    assert complaint in run.stderr and len(run.stderr.splitlines()) == 1


def test_every_set_of_vendors_and_every_other_file_is_valid():
    run = subprocess.run([ROOT / "tests/setup/collector-validate.sh", collector_binary()], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("valid: gateway.yaml with") == 9
