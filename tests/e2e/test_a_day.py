"""A day of a content factory in a minute: everything that a sidecar, an agent and a gateway send, at three strict vendors.

Each record arrives once at each, none is refused and none cut; and a vendor that is away is nobody else's trouble.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from urllib.parse import quote

import grpc
import httpx
import messages
import pytest
import vendors
from factory import Application
from gateway import OVERRIDES, TOKEN, Agent, Gateway
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sidecar import Sidecar
from test_grpc import Factory
from traffic import NO_PRODUCT, Day
from vendor_rules import Sentry
from vendors import Vendor, Vendors
from waiting import eventually

DURATION = "http.server.request.duration"
STREAMS = "content_factory.http.server.stream.duration"
CALLS = "traces.span.metrics.calls"
BY = ("http.request.method", "http.route", "http.response.status_code")
# What the worker sends by the agent.
RECORDS, POINTS, SPANS = 3000, 40, 500
# Two points of a series must not be of one second: Datadog keeps the last.
SETTINGS = "connectors: {span_metrics: {metrics_flush_interval: 3s}}\n"
METRIC_INTERVAL = "3000"


def environment(name: str, gateway: Gateway) -> dict[str, str]:
    """What points a sidecar at the gateway."""
    return {
        "OTEL_SERVICE_NAME": name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": gateway.grpc,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}",
        "OTEL_METRIC_EXPORT_INTERVAL": METRIC_INTERVAL,
        # a gateway whose disk is busy answers late: who gives up and asks again has sent twice
        "OTEL_EXPORTER_OTLP_TIMEOUT": "60000",
    }


def odd_requests(client: httpx.Client) -> int:
    """What few ask for: paths about as long as a value may be and longer, other alphabets, methods, queries; how many."""
    paths = [f"/api/v1/products/{'p' * length}" for length in (4070, 4078, 4079, 4080, 4100, 8000)]
    paths += ["/" + quote("ä" * length) for length in (10, 682, 683, 1300)]
    paths += [f"/{quote('продукт')}/{quote('商品')}/{quote('🦀')}", "/a%2Fb%3Fc", "/%C3%28"]
    paths += [f"/api/v1/products?q={'x' * 6000}&token=abc"]
    asked = 0
    for path in paths:
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            assert client.request(method, path).status_code < 600
            asked += 1
    return asked


def speak(sidecar: Sidecar) -> int:
    """gRPC calls through the sidecar, some of which fail and some of which stream; how many."""
    with grpc.insecure_channel(sidecar.proxy.removeprefix("http://")) as channel:
        say, count = channel.unary_unary("/try.Factory/Say"), channel.unary_stream("/try.Factory/Count")
        for number in range(40):
            if number % 4:
                assert say(b"a message", timeout=20) == b"a message"
            else:
                with pytest.raises(grpc.RpcError):
                    say(b"fail", timeout=20)
        for _ in range(10):
            assert len(list(count(b"20", timeout=20))) == 20
    return 50


def from_a_worker(agent: Agent) -> None:
    """What an application sends by its own SDK: log records of all sizes, counters, durations with exemplars, spans."""
    who: dict[str, messages.Value] = {"service.name": "factory-worker", "service.instance.id": "worker-1"}
    resource = messages.Resource(attributes=messages.attributes(who))
    sizes = [10, 200, 2000, 4095, 4096, 20_000]
    for start in range(0, RECORDS, 300):
        records: list[tuple[str, dict[str, messages.Value]]] = [
            (
                f"record {number}: задача 任务 🦀 {'x' * sizes[number % len(sizes)]}",
                {
                    "record.id": f"r-{number}",
                    "text": "ä" * sizes[number % 5],
                    "list": ["x"] * 64,
                    "n" * (250 + number % 12): "x",
                },
            )
            for number in range(start, start + 300)
        ]
        assert agent.export(messages.logs(records, resource)) == 200
    for number in range(POINTS):
        tags: dict[str, messages.Value] = {"queue": f"queue {number}", "text": "ü" * 3000, "m" * 256: "x"}
        assert agent.export(messages.delta("jobs.done", [(number, tags)], resource)) == 200
    assert agent.export(messages.durations("jobs.duration", [0.1, 0.2, 3.0])) == 200
    spans = [messages.piece(f"job {number // 5}", number % 5, error=number % 50 == 3) for number in range(SPANS)]
    for span in spans:
        span.attributes.extend(messages.attributes({"payload": "ß" * 4000, "list": ["x"] * 64}))
    assert agent.export(messages.traces(spans, resource)) == 200


class Lived:
    """A day, and what each of its sides says of it."""

    def __init__(self, folder: Path, application: Application):
        self.vendors = Vendors()
        settings = folder / "a-day.yaml"
        settings.write_text(SETTINGS)
        self.gateway = Gateway(folder, self.vendors.environment("datadog", "newrelic", "sentry"), (OVERRIDES, settings))
        self.agent = Agent(folder, self.gateway)
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers((Factory(),))
        port = self.server.add_insecure_port("127.0.0.1:0")
        self._application, self._folder, self._port = application, folder, port

    def live(self) -> None:
        """Starts everything, lives the day, and waits until all of it has arrived."""
        self.server.start()
        self.gateway.start()
        self.agent.start()
        web = {"proxy": {"listen": "127.0.0.1:0", "upstream": self._application.url}}
        calls = {"proxy": {"listen": "127.0.0.1:0", "upstream": f"http://127.0.0.1:{self._port}", "upstream_protocol": "h2c"}}
        dsn = {"SENTRY_DSN": self.vendors.dsn}
        self.web = Sidecar(self._folder, web, environment("factory-web", self.gateway) | dsn, "web")
        self.grpc = Sidecar(self._folder, calls, environment("factory-grpc", self.gateway), "grpc")
        for sidecar in (self.web, self.grpc):
            sidecar.start()
        self.web.await_routes()
        from_a_worker(self.agent)
        self.spoken = speak(self.grpc)
        self.day = Day(self.web.proxy).run()
        with httpx.Client(base_url=self.web.proxy, timeout=30) as client:
            self.odd = odd_requests(client)
        self.requests = self.day.total + self.odd
        assert self.web.request_count() == self.requests
        self._arrive()
        self.spans = self.produced("traces") + SPANS
        # before the end: what the last seconds add is another story
        self.losses = {vendor.rules: list(vendor.losses) for vendor in self.vendors.all}
        self.accounts = {sidecar.name: sidecar.text("/metrics") for sidecar in (self.web, self.grpc)}
        self.own_metrics = self.gateway.own_metrics()

    def _arrive(self) -> None:
        for vendor in self.vendors.all:
            vendor.wait_for(lambda seen: count(seen, "traces") >= self.produced("traces") + SPANS, "all spans", 120)
            vendor.wait_for(lambda seen: count(seen, "logs") >= self.produced("logs") + RECORDS, "all log records", 60)
        for vendor in (self.vendors.datadog, self.vendors.new_relic):
            vendor.wait_for(lambda seen: requests_of(seen).total() >= self.measurements(), "all requests measured", 60)
            vendor.wait_for(lambda seen: calls_of(seen) >= self.produced("traces") + SPANS, "metrics of all spans", 60)
            vendor.wait_for(lambda seen: sum_of(seen, "jobs.done") >= sum(range(POINTS)), "the worker's counter", 60)
        self.vendors.sentry.wait_for(lambda seen: seen.events(), "issues", 60)

    def measurements(self) -> int:
        """How many requests both sidecars have measured."""
        return self.requests + self.spoken

    def produced(self, signal: str) -> int:
        """How many items both sidecars have made."""
        name = "content_factory_telemetry_produced_total"
        return int(sum(sidecar.metric(name, signal=signal) for sidecar in (self.web, self.grpc)))

    def end(self) -> list[int]:
        """Stops everything, cleanly; what a failed start left over is killed at the end of the run."""
        codes = [sidecar.stop() for sidecar in (self.web, self.grpc)]
        self.agent.stop()
        self.gateway.stop()
        self.server.stop(None)
        self.vendors.__exit__()
        return codes


def count(vendor: Vendor, signal: str) -> int:
    """How many spans or log records it has taken."""
    return sum(1 for _ in (vendor.spans() if signal == "traces" else vendor.log_records()))


def measured(vendor: Vendor, name: str) -> Counter[tuple[str, ...]]:
    """How many measurements of each method, route and status a vendor has been told of."""
    told: Counter[tuple[str, ...]] = Counter()
    for metric in vendor.metrics(name):
        for point in getattr(metric, metric.WhichOneof("data")).data_points:
            tags = messages.plain(point.attributes)
            told[tuple(str(tags.get(key, "")) for key in BY)] += point.count
    return +told


def requests_of(vendor: Vendor) -> Counter[tuple[str, ...]]:
    """The same of all requests, streams among them."""
    return measured(vendor, DURATION) + measured(vendor, STREAMS)


def calls_of(vendor: Vendor) -> int:
    """How many spans the gateway's request metrics tell of."""
    return sum_of(vendor, CALLS)


def sum_of(vendor: Vendor, name: str) -> int:
    """The sum of all deltas of a counter."""
    return sum(point.as_int for metric in vendor.metrics(name) for point in metric.sum.data_points)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, application: Application) -> Iterator[Lived]:
    """One day, lived once; read-only for the tests that share it. It ends after the last of them."""
    day = Lived(tmp_path_factory.mktemp("day"), application)
    day.live()
    yield day
    assert day.end() == [0, 0]


VENDORS = ["datadog", "new_relic", "sentry"]
WITH_METRICS = ["datadog", "new_relic"]


@pytest.mark.parametrize("name", VENDORS)
def test_no_vendor_refuses_anything_and_loses_nothing(lived: Lived, name: str):
    vendor: Vendor = getattr(lived.vendors, name)
    assert vendor.refusals == []
    assert lived.losses[vendor.rules] == []
    assert [request.status for request in vendor.requests if not request.accepted] == []
    assert len(vendor.requests) >= 10


@pytest.mark.parametrize("name", VENDORS)
def test_every_span_arrives_once(lived: Lived, name: str):
    spans = list(getattr(lived.vendors, name).spans())
    ids = {(span.trace_id, span.span_id) for span in spans}
    assert len(spans) == len(ids) == lived.spans
    assert ids == {(span.trace_id, span.span_id) for span in lived.vendors.datadog.spans()}, "the same at all three"
    mine = Counter(span.kind for span in spans)
    assert mine[Span.SPAN_KIND_SERVER] == lived.requests + lived.spoken + SPANS // 5
    assert mine[Span.SPAN_KIND_CLIENT] == lived.requests + lived.spoken


@pytest.mark.parametrize("name", VENDORS)
def test_every_log_record_arrives_once_and_whole(lived: Lived, name: str):
    vendor = getattr(lived.vendors, name)
    # the sidecars' own are among them, and they may write one at any time
    eventually(lambda: count(vendor, "logs") == RECORDS + lived.produced("logs"), "each record once")
    records = list(vendor.log_records())
    ids = Counter(messages.plain(record.attributes).get("record.id") for record in records)
    assert {record: times for record, times in ids.items() if record} == {f"r-{number}": 1 for number in range(RECORDS)}
    for record in records:
        number = re.match(r"record (\d+): задача 任务 🦀 x", record.body.string_value)
        if record_id := messages.plain(record.attributes).get("record.id"):
            assert number and record_id == f"r-{number[1]}", "numbers in a line stay what they are"


@pytest.mark.parametrize("name", WITH_METRICS)
def test_the_sums_of_metrics_are_exact(lived: Lived, name: str):
    vendor = getattr(lived.vendors, name)
    told = requests_of(vendor)
    assert told.total() == lived.measurements()
    # by route and status, as the clients counted them; the odd requests are all without a route or refused by one
    for (method, route, status), times in lived.day.answers.items():
        if route not in (None, "/api/v1/products/{product_id}", "/api/v1/products"):
            assert told[(method, route, str(status))] == times, (method, route, status)
    missing = "/api/v1/products/{product_id}"
    assert told[("GET", missing, "404")] == lived.day.count(missing, 404) > 0, NO_PRODUCT
    assert sum_of(vendor, "jobs.done") == sum(range(POINTS))


@pytest.mark.parametrize("name", WITH_METRICS)
def test_request_metrics_made_from_spans_count_each_span_once(lived: Lived, name: str):
    vendor = getattr(lived.vendors, name)
    assert calls_of(vendor) == count(vendor, "traces")


@pytest.mark.parametrize("name", WITH_METRICS)
def test_every_exemplar_of_a_request_points_to_a_span_that_arrived(lived: Lived, name: str):
    vendor = getattr(lived.vendors, name)
    arrived = {(span.trace_id, span.span_id) for span in vendor.spans()}
    exemplars = [
        (exemplar.trace_id, exemplar.span_id)
        for metric_name in (DURATION, STREAMS, "traces.span.metrics.duration")
        for metric in vendor.metrics(metric_name)
        for point in getattr(metric, metric.WhichOneof("data")).data_points
        for exemplar in point.exemplars
    ]
    assert exemplars and set(exemplars) <= arrived


def test_failures_become_issues_and_only_they(lived: Lived):
    events = [json.loads(event) for event in lived.vendors.sentry.events()]
    assert events and len({event["event_id"] for event in events}) == len(events)
    failures = {(method, route) for (method, route, status) in lived.day.answers if status >= 500}
    assert failures and {tuple(event["fingerprint"][:2]) for event in events} == failures
    assert max(map(len, lived.vendors.sentry.events())) < Sentry.EVENT / 100, "far from the limit"


def test_the_accounts_on_the_way_agree(lived: Lived):
    for page in lived.accounts.values():
        for signal in ("traces", "metrics", "logs"):
            for word in ("rejected", "dropped"):
                series = rf'^content_factory_telemetry_{word}_total{{[^}}]*signal="{signal}"[^}}]*}} (\S+)$'
                assert sum(map(float, re.findall(series, page, re.MULTILINE))) == 0, (signal, word)
    own = lived.own_metrics
    spans = count(lived.vendors.datadog, "traces")
    assert own["otelcol_receiver_accepted_spans"] == spans
    assert own["otelcol_exporter_sent_spans"] == 3 * spans
    failed = {name: value for name, value in own.items() if re.search("send_failed|enqueue_failed|refused", name) and value}
    assert failed == {}


@pytest.mark.parametrize("name", VENDORS)
def test_a_vendor_that_is_away_delays_no_other_and_gets_everything_when_it_is_back(
    name: str, tmp_path: Path, application: Application, start_sidecar: Callable[..., Sidecar]
):
    with Vendors() as three, Gateway(tmp_path, three.environment("datadog", "newrelic", "sentry")) as gateway:
        away = getattr(three, name)
        others = [vendor for vendor in three.all if vendor is not away]
        web = {"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}}
        sidecar = start_sidecar(web, environment("factory-web", gateway) | {"OTEL_METRIC_EXPORT_INTERVAL": "1000"})
        sent = 0

        def send_and_see(vendors_that_are_there: list[Vendor]) -> None:
            nonlocal sent
            for number in range(50):
                assert httpx.get(sidecar.proxy + "/").status_code == 200
                assert gateway.export(messages.log(f"line {sent + number}")) == 200
            sent += 50
            for vendor in vendors_that_are_there:
                vendor.wait_for(lambda seen: has_all(seen, sent), f"all {sent} spans and records")
                if vendor is not three.sentry:
                    vendor.wait_for(lambda seen: measured(seen, DURATION).total() >= sent, f"{sent} measured requests")

        with away.black_hole():
            send_and_see(others)
            away.wait_for(lambda seen: seen.requests, "a request into the black hole")
            away.close()
        send_and_see(others)
        assert [request for request in away.requests if request.accepted] == []
        away.reopen()
        send_and_see([*others, away])
        assert sidecar.stop() == 0
    for vendor in three.all:
        assert vendor.refusals == []
        assert count(vendor, "traces") == len({span.span_id for span in vendor.spans()}) == 2 * sent
        lines = [record.body.string_value for record in vendor.log_records() if record.body.string_value.startswith("line ")]
        assert sorted(lines) == sorted(f"line {number}" for number in range(sent))
    assert [measured(vendor, DURATION).total() for vendor in (three.datadog, three.new_relic)] == [sent, sent]


def has_all(vendor: Vendor, requests: int) -> bool:
    """Both spans of each request, and a line for each."""
    return count(vendor, "traces") >= 2 * requests and count(vendor, "logs") >= requests
