"""Two tiers: balancers that keep nothing, and two gateways, each of which decides about whole traces."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import messages
import pytest
import vendors
from factory import Application
from gateway import OVERRIDES, TOKEN, Balancer, Gateway
from grpc import StatusCode
from messages import Resource
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sidecar import Sidecar
from vendors import Vendor, Vendors
from waiting import eventually

TRACES, PIECES = 60, 5
NAMES = [f"trace {number}" for number in range(TRACES)]
KEYS = ("newrelic",)


class Tiers:
    """Two balancers before two gateways, each gateway with vendors of its own, so that one sees which of them got what."""

    def __init__(self, folder: Path, overrides: tuple[Path, ...] = (OVERRIDES,)):
        self.vendors = [Vendors(), Vendors()]
        self.gateways = []
        for number, stand_ins in enumerate(self.vendors):
            home = folder / f"gateway-{number}"
            home.mkdir()
            self.gateways.append(Gateway(home, stand_ins.environment(*KEYS), overrides))
        self.balancers = [Balancer(folder, self.gateways, f"balancer-{number}") for number in range(2)]

    def start(self) -> None:
        """Gateways first."""
        for process in (*self.gateways, *self.balancers):
            process.start()

    def stop(self) -> None:
        """The other way round, cleanly."""
        for process in (*self.balancers, *self.gateways):
            process.stop()

    @property
    def takers(self) -> list[Vendor]:
        """The vendor behind each gateway."""
        return [stand_ins.new_relic for stand_ins in self.vendors]

    def spans(self) -> list[dict[bytes, list[bytes]]]:
        """What each gateway let through: the ids of the spans of each trace."""
        seen = []
        for vendor in self.takers:
            traces = defaultdict(list)
            for span in vendor.spans():
                traces[span.trace_id].append(span.span_id)
            seen.append(dict(traces))
        return seen

    def span_count(self) -> int:
        """How many spans came through."""
        return sum(len(spans) for traces in self.spans() for spans in traces.values())


@pytest.fixture
def make_tiers(tmp_path: Path) -> Iterator[Callable[..., Tiers]]:
    """Starts the two tiers with a gateway configuration of the test's choice."""
    started: list[Tiers] = []

    def make(*overrides: Path) -> Tiers:
        tiers = Tiers(tmp_path, (OVERRIDES, *overrides))
        started.append(tiers)
        tiers.start()
        return tiers

    yield make
    for tiers in started:
        tiers.stop()
        for stand_ins in tiers.vendors:
            stand_ins.__exit__()


def send_in_pieces(tiers: Tiers, failed: Callable[[str, int], bool] = lambda *_: False) -> None:
    """Each trace in pieces: one span an export, by both protocols, through both balancers, the root neither first nor last."""
    ways = itertools.cycle(
        [tiers.balancers[0].call, tiers.balancers[1].export, tiers.balancers[1].call, tiers.balancers[0].export]
    )
    for number in (2, 4, 0, 1, 3):
        # several traces in one export, as a sidecar sends them
        for some in chunks(NAMES, 12):
            message = messages.traces([messages.piece(name, number, error=failed(name, number)) for name in some])
            assert next(ways)(message) in (200, StatusCode.OK)


def chunks(names: list[str], size: int) -> Iterator[list[str]]:
    """So many at once."""
    return (names[start : start + size] for start in range(0, len(names), size))


def test_all_pieces_of_a_trace_meet_at_one_gateway_and_both_gateways_have_work(make_tiers):
    tiers = make_tiers()
    send_in_pieces(tiers)
    eventually(lambda: tiers.span_count() >= TRACES * PIECES, "all spans of all traces")
    first, second = tiers.spans()
    assert first.keys() & second.keys() == set(), "no trace is at both"
    whole = first | second
    assert set(whole) == {messages.trace_id(name) for name in NAMES}
    for name in NAMES:
        expected = {messages.piece(name, number).span_id for number in range(PIECES)}
        spans = whole[messages.trace_id(name)]
        assert len(spans) == PIECES and set(spans) == expected
    # by the hash of the trace's id, which is always the same here: about half each
    assert min(len(first), len(second)) >= TRACES // 5


def test_one_failed_piece_keeps_the_whole_trace_and_the_others_go(make_tiers, tmp_path):
    policies = tmp_path / "errors-only.yaml"
    policies.write_text(
        "processors: {tail_sampling: {decision_wait: 3s, policies: "
        "[{name: errors, type: status_code, status_code: {status_codes: [ERROR]}}]}}\n"
    )
    tiers = make_tiers(policies)
    kept = set(NAMES[::2])
    # the span that failed is the last to come, by way of another connection than its siblings
    send_in_pieces(tiers, failed=lambda name, number: number == 3 and name in kept)
    eventually(lambda: tiers.span_count() >= len(kept) * PIECES, "the traces with a failure")
    first, second = tiers.spans()
    assert set(first | second) == {messages.trace_id(name) for name in kept}
    assert tiers.span_count() == len(kept) * PIECES, "whole"
    assert first and second


def test_request_metrics_of_two_gateways_add_up_and_share_no_series(make_tiers):
    tiers = make_tiers()
    send_in_pieces(tiers)

    def calls(vendor: Vendor) -> int:
        return sum(point.as_int for metric in vendor.metrics("traces.span.metrics.calls") for point in metric.sum.data_points)

    eventually(lambda: sum(map(calls, tiers.takers)) >= TRACES * PIECES, "metrics of all spans")
    assert sum(map(calls, tiers.takers)) == TRACES * PIECES
    instances = [
        {
            messages.plain(point.attributes)["collector.instance.id"]
            for metric in vendor.metrics("traces.span.metrics.calls")
            for point in metric.sum.data_points
        }
        for vendor in tiers.takers
    ]
    assert [len(instance) for instance in instances] == [1, 1] and instances[0] != instances[1]


# So many that both gateways have some: which has which goes by the hash of its address, and that is another in each run.
WORKERS = 40


def test_a_process_s_cumulative_counters_go_to_one_gateway_and_become_deltas_there(make_tiers):
    tiers = make_tiers()
    for number in range(WORKERS):
        who: dict[str, messages.Value] = {"service.name": "worker", "service.instance.id": f"worker-{number}"}
        process = Resource(attributes=messages.attributes(who))
        counter = messages.Counter("jobs")
        # each reading by another way: what counts is that all readings of one process meet
        for way, value in ((tiers.balancers[0].export, 5), (tiers.balancers[1].call, 9), (tiers.balancers[1].export, 12)):
            message = counter.reads(value)
            message.resource_metrics[0].resource.CopyFrom(process)
            assert way(message) in (200, StatusCode.OK)

    def by_process(vendor: Vendor) -> dict[str, int]:
        sums: dict[str, int] = defaultdict(int)
        for request in vendor.accepted("metrics"):
            for part in request.message().resource_metrics:
                for metric in (metric for scope in part.scope_metrics for metric in scope.metrics if metric.name == "jobs"):
                    assert metric.sum.aggregation_temporality == AGGREGATION_TEMPORALITY_DELTA
                    name = str(messages.plain(part.resource.attributes)["service.instance.id"])
                    sums[name] += sum(point.as_int for point in metric.sum.data_points)
        return dict(sums)

    eventually(lambda: sum(sum(by_process(vendor).values()) for vendor in tiers.takers) >= WORKERS * 12, "all counts")
    first, second = map(by_process, tiers.takers)
    assert first.keys() & second.keys() == set() and first and second
    assert first | second == {f"worker-{number}": 12 for number in range(WORKERS)}


@pytest.mark.parametrize("token", ["a-wrong-token", ""])
def test_the_balancer_refuses_who_shows_no_accepted_token_on_both_ports(make_tiers, token):
    tiers = make_tiers()
    message = messages.log("from a stranger")
    assert tiers.balancers[0].export(message, token=token) == 401
    assert tiers.balancers[0].call(message, token=token) == StatusCode.UNAUTHENTICATED
    assert tiers.balancers[0].export(messages.log("from a friend")) == 200

    def lines() -> list[str]:
        return [record.body.string_value for vendor in tiers.takers for record in vendor.log_records()]

    assert eventually(lines, "the friend's line") == ["from a friend"]


def test_what_no_gateway_has_is_not_acknowledged(tmp_path):
    with vendors.Vendors() as three:
        gateway = Gateway(tmp_path, three.environment(*KEYS))
        with Balancer(tmp_path, [gateway]) as balancer:
            assert balancer.export(messages.log("while no gateway is there")) == 503
            with gateway:
                # gRPC pauses between its tries to connect
                eventually(lambda: balancer.export(messages.log("once one is there")) == 200, "the gateway to be seen again")
                three.new_relic.wait_for(lambda seen: list(seen.log_records()), "the acknowledged record")
        assert [record.body.string_value for record in three.new_relic.log_records()] == ["once one is there"]


def test_a_killed_balancer_loses_nothing(
    tmp_path: Path, application: Application, start_sidecar: Callable[..., Sidecar]
):
    with vendors.Vendors() as three, Gateway(tmp_path, three.environment(*KEYS)) as gateway:
        balancer = Balancer(tmp_path, [gateway])
        balancer.start()
        sidecar = start_sidecar(
            {"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}}, environment("factory", balancer)
        )
        with httpx.Client(base_url=sidecar.proxy) as client:
            for round_ in range(3):
                assert [client.get("/").status_code for _ in range(40)] == [200] * 40
                # in the middle of what goes out: some of it is acknowledged, some is not
                balancer.kill()
                assert [client.get("/").status_code for _ in range(40)] == [200] * 40
                balancer.start()
                asked = (round_ + 1) * 80
                three.new_relic.wait_for(lambda seen: len(requests_of(seen)) >= asked, f"the spans of {asked} requests", 60)
        assert sidecar.stop() == 0
        assert balancer.stop() == 0
        assert len(requests_of(three.new_relic)) == 240


def requests_of(vendor: Vendor) -> set[bytes]:
    """The SERVER spans that came, each once: after a kill one may come again."""
    return {span.span_id for span in vendor.spans() if span.kind == Span.SPAN_KIND_SERVER}


def test_the_balancer_as_shipped_looks_the_gateways_up_by_name(tmp_path):
    with vendors.Vendors() as three, Gateway(tmp_path, three.environment(*KEYS)) as gateway:
        # an address is a name that means itself
        with Balancer(tmp_path, gateway.address) as balancer:
            for message in (messages.log("a line"), messages.traces([messages.server_span("a span")])):
                eventually(lambda: balancer.export(message) == 200, "the gateway to be found")
            three.new_relic.wait_for(lambda seen: list(seen.spans()) and list(seen.log_records()), "a span and a log record")


def environment(name: str, balancer: Balancer) -> dict[str, str]:
    """What points a sidecar at a balancer."""
    return {
        "OTEL_SERVICE_NAME": name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": balancer.grpc,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}",
    }


def test_a_trace_across_two_sidecars_is_whole(
    make_tiers, tmp_path: Path, application: Application, start_sidecar: Callable[..., Sidecar]
):
    tiers = make_tiers()
    inner = start_sidecar(
        {"proxy": {"listen": "127.0.0.1:0", "upstream": application.url}}, environment("inner", tiers.balancers[0]), "inner"
    )
    outer = start_sidecar(
        {"proxy": {"listen": "127.0.0.1:0", "upstream": inner.proxy}}, environment("outer", tiers.balancers[1]), "outer"
    )
    with httpx.Client(base_url=outer.proxy) as client:
        assert [client.get("/").status_code for _ in range(40)] == [200] * 40
    # SERVER and CLIENT of each: besides, the outer one reads the inner one's routes, which makes no span
    eventually(lambda: tiers.span_count() >= 160, "four spans of each request")
    first, second = tiers.spans()
    assert first.keys() & second.keys() == set() and first and second
    assert [len(spans) for spans in (first | second).values()] == [4] * 40
    assert (outer.stop(), inner.stop()) == (0, 0)
