"""From OTLP to the three vendors, through the real collector and the files of otel-collector/.

The vendors are loopback stand-ins (vendors.py); everything else is what an operator runs.
"""

from __future__ import annotations

import random
import string
import subprocess

import grpc
import messages
import pytest
import vendors
from gateway import FILES, OVERRIDES, TOKEN, Agent, Gateway, collector_binary
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, AGGREGATION_TEMPORALITY_DELTA
from processes import ROOT
from waiting import eventually

SPAN_METRIC = "traces.span.metrics.duration"
# Beyond what New Relic takes: a value of 5,000 characters, one of 5,000 bytes in fewer characters, and a name of 300.
TOO_LONG: dict[str, messages.Value] = {"long": "x" * 5000, "accents": "ä" * 2500, "n" * 300: "x"}
SECRET_TAGS: dict[str, messages.Value] = {"user": "jane@example.com", "api_key": "sk-123", "gen_ai.token.type": "input"}
# What a log line looks like, with numbers and quotes as in a statement, and one thing that must not leave.
LINE = "publishing 3 of 12 videos failed after 4.5 s: SELECT 'x' FROM videos WHERE id = 17, told {}"
WHO: dict[str, messages.Value] = {"service.name": "beyond", "service.instance.id": "web-2"}
BEYOND = messages.Resource(attributes=messages.attributes(WHO | TOO_LONG))


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
                **TOO_LONG,
            },
        )
    )
    spans.append(messages.server_span("a probe", extra={"url.path": "/livez"}))
    for message in (
        messages.traces(spans, BEYOND),
        counter.reads(10),
        counter.reads(25),
        in_flight.reads(7),
        messages.delta("content_factory.beyond", [(3, TOO_LONG | SECRET_TAGS)], BEYOND),
        messages.logs([(LINE.format("jane@example.com"), {"api_key": "sk-123"})]),
        messages.logs([("ä" * 100_000, TOO_LONG)], BEYOND),
    ):
        assert gateway.export(message) == 200
    for vendor in stand_ins.all:
        vendor.wait_for(lambda seen: len(list(seen.spans())) >= 21, "21 spans")
        vendor.wait_for(lambda seen: len(list(seen.log_records())) >= 2, "the log records")
    for vendor in (stand_ins.datadog, stand_ins.new_relic):
        vendor.wait_for(lambda seen: list(seen.metrics(SPAN_METRIC)), "metrics made from spans")
        vendor.wait_for(lambda seen: total(seen, "content_factory.requests") >= 25, "the whole counter")
        vendor.wait_for(lambda seen: list(seen.metrics("http.server.active_requests")), "the gauge")
        vendor.wait_for(lambda seen: total(seen, "content_factory.beyond") >= 3, "the counter with long attributes")


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
    [record] = [record for record in getattr(exported, name).log_records() if len(record.body.string_value) < 100]
    assert record.body.string_value == LINE.format("****")
    assert "sk-123" not in messages.plain(record.attributes)["api_key"]


def test_much_at_once_that_hardly_compresses_fits_every_vendors_limits(tmp_path, three):
    dice = random.Random(1)

    def text(length: int) -> str:
        return "".join(dice.choices(string.ascii_letters + string.digits, k=length))

    with Gateway(tmp_path, three.environment("datadog", "newrelic", "sentry")) as gateway:
        for part in range(2):
            # some two megabytes each
            points: list[tuple[int, dict[str, messages.Value]]] = [(1, {"id": text(1000)}) for _ in range(2000)]
            assert gateway.export(messages.delta("incompressible", points)) == 200
            spans = [messages.server_span(f"{part} {number}", extra={"text": text(4000)}) for number in range(500)]
            assert gateway.export(messages.traces(spans)) == 200
            # the longest that a line may be, and longer
            assert gateway.export(messages.logs([(text(length), {}) for length in (1000, 131_072, 900_000)] * 2)) == 200
        for vendor in three.all:
            vendor.wait_for(lambda seen: len(list(seen.spans())) >= 1000, "all spans", 60)
            vendor.wait_for(lambda seen: len(list(seen.log_records())) >= 12, "all records", 60)
        for vendor in (three.datadog, three.new_relic):
            vendor.wait_for(lambda seen: total(seen, "incompressible") >= 4000, "all points", 60)
    for vendor in three.all:
        assert vendor.refusals == []
        assert len({span.span_id for span in vendor.spans()}) == len(list(vendor.spans())) == 1000
    assert [total(vendor, "incompressible") for vendor in (three.datadog, three.new_relic)] == [4000, 4000]


@pytest.mark.parametrize("name", ["datadog", "new_relic"])
def test_no_secret_reaches_a_vendor_in_a_metric(exported, name):
    [metric] = getattr(exported, name).metrics("content_factory.beyond")
    values = messages.plain(metric.sum.data_points[0].attributes)
    assert "jane" not in values["user"] and "sk-123" not in values["api_key"]
    assert values["gen_ai.token.type"] == "input"
    # nothing is added: what was masked is no dimension
    assert set(values) == {"user", "api_key", "gen_ai.token.type", "long", "accents"}


def ends_at_the_limits(pairs) -> bool:
    """Whether what was too long was cut, on a character's border, and the attribute with too long a name is gone."""
    values = messages.plain(pairs)
    return values["long"] == "x" * 4095 and values["accents"] == "ä" * 2047 and not [key for key in values if len(key) > 255]


@pytest.mark.parametrize("name", VENDORS)
def test_attributes_end_at_the_vendors_limits(exported, name):
    vendor = getattr(exported, name)
    [span] = [span for span in vendor.spans() if span.name == "with secrets"]
    [record] = [record for record in vendor.log_records() if len(record.body.string_value) > 100]
    assert ends_at_the_limits(span.attributes) and ends_at_the_limits(record.attributes)
    assert record.body.string_value == "ä" * 65536
    resources = [part.resource for request in vendor.accepted("traces") for part in request.message().resource_spans]
    resources += [part.resource for request in vendor.accepted("logs") for part in request.message().resource_logs]
    resources += [part.resource for request in vendor.accepted("metrics") for part in request.message().resource_metrics]
    beyond = [resource for resource in resources if messages.plain(resource.attributes).get("service.name") == "beyond"]
    assert len(beyond) >= 2 and all(ends_at_the_limits(resource.attributes) for resource in beyond)
    for metric in vendor.metrics("content_factory.beyond"):
        assert ends_at_the_limits(metric.sum.data_points[0].attributes)


@pytest.mark.parametrize("name", VENDORS)
def test_no_vendor_refuses_or_cuts_anything(exported, name):
    vendor = getattr(exported, name)
    assert (vendor.refusals, [loss for loss in vendor.losses if "two points" not in loss]) == ([], [])


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
def test_who_shows_no_accepted_token_is_refused_on_both_ports(tmp_path, three, token):
    with Gateway(tmp_path, three.environment("newrelic")) as gateway:
        strange = messages.traces([messages.server_span("from a stranger")])
        assert gateway.export(strange, token=token) == 401
        assert gateway.call(strange, token=token) == grpc.StatusCode.UNAUTHENTICATED
        assert gateway.export(messages.traces([messages.server_span("by HTTP")])) == 200
        assert gateway.call(messages.traces([messages.server_span("by gRPC")])) == grpc.StatusCode.OK
        three.new_relic.wait_for(lambda seen: len(list(seen.spans())) >= 2, "the accepted spans")
    assert {span.name for span in three.new_relic.spans()} == {"by HTTP", "by gRPC"}


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
    assert gateway.export(messages.logs([(name, {}) for name in names])) == 200
    for number in range(10):
        assert gateway.export(messages.delta("content_factory.kept", [(7, {"part": str(number)})])) == 200
    for vendor in three.all:
        # once it was tried it has left the sampler's memory and lies on disk
        vendor.wait_for(lambda seen: len(refused_spans(seen)) == 50, "an attempt with all 50 spans")
        vendor.wait_for(lambda seen: refused_records(seen, "logs") == 50, "an attempt with all 50 records")
    for vendor in (three.datadog, three.new_relic):
        vendor.wait_for(lambda seen: refused_records(seen, "metrics") == 10, "an attempt with all 10 points")
    gateway.kill()
    for vendor in three.all:
        assert not [request for request in vendor.requests if request.accepted]
        vendor.down = False
    with gateway:
        for vendor in three.all:
            vendor.wait_for(lambda seen: len(list(seen.spans())) >= 50, "the 50 spans from before the kill")
            vendor.wait_for(lambda seen: len(list(seen.log_records())) >= 50, "the 50 records from before the kill")
        for vendor in (three.datadog, three.new_relic):
            vendor.wait_for(lambda seen: total(seen, "content_factory.kept") >= 70, "the 10 points from before the kill")
    for vendor in three.all:
        assert sorted(span.name for span in vendor.spans()) == sorted(names)
        assert sorted(record.body.string_value for record in vendor.log_records()) == sorted(names)
        assert vendor.refusals == []
    assert [total(vendor, "content_factory.kept") for vendor in (three.datadog, three.new_relic)] == [70, 70]


def refused_records(vendor: vendors.Vendor, signal: str) -> int:
    """How many different log records or points of `content_factory.kept` were offered while it was down."""
    seen = set()
    for request in vendor.requests:
        if request.status == 503 and request.signal == signal == "logs":
            for resource in request.message().resource_logs:
                seen |= {record.body.string_value for scope in resource.scope_logs for record in scope.log_records}
        elif request.status == 503 and request.signal == signal:
            for resource in request.message().resource_metrics:
                metrics = (metric for scope in resource.scope_metrics for metric in scope.metrics)
                kept = [metric for metric in metrics if metric.name == "content_factory.kept"]
                seen |= {str(point.attributes) for metric in kept for point in metric.sum.data_points}
    return len(seen)


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


def test_a_vendor_whose_queue_is_full_loses_its_own_data_and_is_nobody_elses_trouble(tmp_path, three):
    small = tmp_path / "small-queue.yaml"
    small.write_text(
        "exporters: {otlp_http/newrelic: {sending_queue: {queue_size: 100000, batch: {min_size: 10000, max_size: 50000}}}}\n"
    )
    three.new_relic.down = True
    bodies = [f"line {number} {'x' * 9000}" for number in range(60)]
    with Gateway(tmp_path, three.environment("datadog", "newrelic", "sentry"), (OVERRIDES, small)) as gateway:
        for number, body in enumerate(bodies):
            assert gateway.export(messages.log(body)) == 200, "a sender has nothing to do with it"
            assert gateway.export(messages.delta("lines", [(1, {"text": f"{number} {'x' * 3000}"})])) == 200
            assert gateway.export(messages.traces([messages.server_span(str(number), extra={"text": "x" * 4000})])) == 200
        for vendor in (three.datadog, three.sentry):
            vendor.wait_for(lambda seen: len(list(seen.log_records())) >= 60, "all records")
            vendor.wait_for(lambda seen: len(list(seen.spans())) >= 60, "all spans")
        three.datadog.wait_for(lambda seen: total(seen, "lines") >= 60, "all points")
        not_queued = eventually(lambda: gateway.own_metrics().get("otelcol_exporter_enqueue_failed_log_records"), "what had no room")
        three.new_relic.down = False
        three.new_relic.wait_for(lambda seen: len(list(seen.log_records())) >= 60 - not_queued, "what had room")
    for vendor in (three.datadog, three.sentry):
        assert sorted(record.body.string_value for record in vendor.log_records()) == sorted(bodies)
        assert sorted(span.name for span in vendor.spans()) == sorted(str(number) for number in range(60))
    assert total(three.datadog, "lines") == 60
    kept = [record.body.string_value for record in three.new_relic.log_records()]
    assert len(kept) == len(set(kept)) == 60 - not_queued, "counted to the record"
    assert 0 < len(kept) < 60


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_a_vendor_over_its_quota_is_waited_for_and_gets_everything_once(tmp_path, three, signal):
    with Gateway(tmp_path, three.environment("sentry")) as gateway:
        three.sentry.over_quota(signal, seconds=6)
        for number in range(5):
            assert gateway.export(messages.traces([messages.server_span(f"span {number}")])) == 200
            assert gateway.export(messages.log(f"line {number}")) == 200
        three.sentry.wait_for(lambda seen: len(list(seen.spans())) >= 5, "all spans")
        three.sentry.wait_for(lambda seen: len(list(seen.log_records())) >= 5, "all records")
    assert sorted(span.name for span in three.sentry.spans()) == [f"span {number}" for number in range(5)]
    assert sorted(record.body.string_value for record in three.sentry.log_records()) == [f"line {number}" for number in range(5)]
    refused = [request for request in three.sentry.requests if request.status == 429]
    # what it was told is obeyed: each batch asked once, was told for how long, and came back later
    assert refused and len(refused) == len({request.body for request in refused})
    assert three.sentry.refusals == []


def test_the_agent_hands_everything_to_the_gateway(tmp_path, three):
    with Gateway(tmp_path, three.environment("newrelic")) as gateway, Agent(tmp_path, gateway) as agent:
        assert agent.export(messages.traces([messages.server_span("by way of the agent")])) == 200
        assert agent.export(messages.log("by way of the agent")) == 200
        assert agent.export(messages.delta("by.way.of.the.agent", [(5, {})])) == 200
        three.new_relic.wait_for(lambda seen: list(seen.spans()) and list(seen.log_records()), "a span and a log record")
        three.new_relic.wait_for(lambda seen: total(seen, "by.way.of.the.agent") >= 5, "the counter")
    assert [span.name for span in three.new_relic.spans()] == ["by way of the agent"]
    # the address that the agent saw, by which a gateway that may ask finds the pod
    [resource] = [part.resource for request in three.new_relic.accepted("logs") for part in request.message().resource_logs]
    assert messages.plain(resource.attributes)["k8s.pod.ip"].startswith("127.")


def test_the_agent_keeps_what_waits_for_the_gateway_on_disk(tmp_path, three):
    gateway = Gateway(tmp_path, three.environment("newrelic"))
    agent = Agent(tmp_path, gateway)
    agent.start()
    names = [f"before the kill {number}" for number in range(20)]
    for name in names:
        assert agent.export(messages.log(name)) == 200
    agent.kill()
    with gateway, agent:
        three.new_relic.wait_for(lambda seen: len(list(seen.log_records())) >= 20, "the records from before the kill")
    assert sorted(record.body.string_value for record in three.new_relic.log_records()) == sorted(names)


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
    assert run.stdout.count("valid: gateway.yaml with") == 10
    assert run.stdout.count("valid: balancer.yaml") == 2 and "valid: agent.yaml" in run.stdout
