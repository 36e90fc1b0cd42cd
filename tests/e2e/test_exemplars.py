"""Exemplars name requests whose spans arrived: in each form of OTLP's histograms, and on the OpenMetrics page."""

from __future__ import annotations

from collections import Counter
from urllib.request import Request, urlopen

import httpx
import pytest
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from exported import CUMULATIVE, DELTA, SERVER, Exemplar, Exported, Point, Span
from factory import Application
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from sidecar import Sidecar
from waiting import eventually

DURATION = "http.server.request.duration"
PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
AGGREGATION = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def ask(sidecar: Sidecar, count: int) -> None:
    """So many requests, one after the other; each fifth finds nothing."""
    with httpx.Client(base_url=sidecar.proxy) as client:
        for number in range(count):
            client.get("/nothing" if number % 5 == 4 else "/")


def exemplars(points: list[Point]) -> list[Exemplar]:
    """Those of all these points."""
    return [exemplar for point in points for exemplar in point.exemplars]


def counted(points: list[Point]) -> int:
    """How many requests the points have seen: all of a delta, the highest of each cumulative series."""
    series: Counter[str] = Counter()
    for point in points:
        key = str(point.attributes)
        series[key] = max(series[key], point.count) if point.temporality == CUMULATIVE else series[key] + point.count
    return series.total()


def spans_by_id(exported: Exported, count: int) -> dict[str, Span]:
    """The SERVER spans of so many requests."""
    spans = eventually(lambda: len(found := exported.spans(SERVER)) >= count and found, f"{count} spans")
    return {span.span_id: span for span in spans}


def page(sidecar: Sidecar, accept: str) -> tuple[str, str]:
    """`/metrics` as who accepts that gets it: its content type, and the text."""
    with urlopen(Request(sidecar.admin + "/metrics", headers={"Accept": accept}), timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


@pytest.mark.parametrize(("preference", "temporality"), [("delta", DELTA), ("lowmemory", DELTA), ("cumulative", CUMULATIVE)])
@pytest.mark.parametrize(
    ("aggregation", "form"),
    [("base2_exponential_bucket_histogram", "exponentialHistogram"), ("explicit_bucket_histogram", "histogram")],
)
def test_each_exemplar_names_a_span_that_took_as_long_as_it_says(
    preference: str,
    temporality: int,
    aggregation: str,
    form: str,
    start_sidecar: SidecarMaker,
    application: Application,
    collector: FileCollector,
):
    variables = QUICK_EXPORT | {PREFERENCE: preference, AGGREGATION: aggregation}
    sidecar = start_sidecar(behind(application, collector), variables)
    exported = collector.exported
    for so_far in (20, 40):
        ask(sidecar, 20)
        points = eventually(lambda so_far=so_far: counted(found := exported.points(DURATION)) == so_far and found, f"{so_far}")
    spans = spans_by_id(exported, 40)
    assert {(point.form, point.temporality) for point in points} == {(form, temporality)}
    assert {point.temporality for point in exported.points("http.server.active_requests")} == {CUMULATIVE}
    told = exemplars(points)
    for point in points:
        assert point.exemplars or temporality == CUMULATIVE, "each interval has new requests, and so an exemplar"
        for exemplar in point.exemplars:
            span = spans[exemplar.span_id]
            assert exemplar.trace_id == span.trace_id
            assert exemplar.value == (span.end - span.start) / 1e9
            assert point.start <= exemplar.time <= min(point.end, span.end)
            statuses = [of.attributes["http.response.status_code"] for of in (span, point)]
            assert statuses[0] == statuses[1], "an exemplar is of its own series"
    if temporality == DELTA:
        assert len({exemplar.span_id for exemplar in told}) == len(told), "each is told once"
    # a process that has just started has used no tick of the kernel's clock, and is looked at each few seconds
    cpu = {point.temporality for point in eventually(lambda: exported.points("process.cpu.time"), "its CPU time")}
    assert cpu == {DELTA if preference == "delta" else CUMULATIVE}


def test_a_scraper_finds_exemplars_on_the_openmetrics_page_alone(sidecar: Sidecar, collector: FileCollector):
    ask(sidecar, 20)
    spans = spans_by_id(collector.exported, 20)
    kind, text = page(sidecar, OPEN_METRICS)
    assert kind.startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = families["http_server_request_duration_seconds"].samples
    found = [(sample.labels, sample.exemplar) for sample in samples if sample.exemplar]
    assert {labels["http_response_status_code"] for labels, _ in found} == {"200", "404"}
    for labels, exemplar in found:
        span = spans[exemplar.labels["span_id"]]
        assert exemplar.labels["trace_id"] == span.trace_id
        assert exemplar.value == (span.end - span.start) / 1e9 <= float(labels["le"])
        assert exemplar.timestamp.sec * 10**9 + exemplar.timestamp.nsec == span.end
        assert str(span.attributes["http.response.status_code"]) == labels["http_response_status_code"]
    kind, text = page(sidecar, "text/plain; version=0.0.4")
    assert kind.startswith("text/plain")
    assert "trace_id" not in text
    assert page(sidecar, "text/html")[0].startswith("text/plain"), "as it was before there were exemplars"


@pytest.mark.parametrize("ratio", [0.5, 0.0])
def test_a_request_that_is_sampled_out_is_no_exemplar(
    ratio: float, start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    settings = behind(application, collector)
    settings["telemetry"] |= {"sampling": {"ratio": ratio}}
    sidecar = start_sidecar(settings, QUICK_EXPORT)
    ask(sidecar, 50)
    points = eventually(lambda: counted(found := collector.exported.points(DURATION)) == 50 and found, "all are counted")
    told = {exemplar.span_id for exemplar in exemplars(points)}
    sidecar.stop()  # the collector has all spans that there are, and writes them within its flush interval

    def kept() -> set[str]:
        return {span.span_id for span in collector.exported.spans(SERVER)}

    eventually(lambda: told <= kept() and bool(kept()) == (ratio > 0), "the span of each exemplar")
    assert bool(told) == (ratio > 0)


def kept_by_the_tail(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
) -> tuple[Sidecar, httpx.Client]:
    """A sidecar whose head leaves everything out, and a client of it."""
    settings = behind(application, collector)
    settings["telemetry"] |= {"sampling": {"ratio": 0.0}}
    sidecar = start_sidecar(settings, QUICK_EXPORT)
    sidecar.await_routes()
    return sidecar, httpx.Client(base_url=sidecar.proxy, timeout=20)


def examples_on_the_page(sidecar: Sidecar) -> dict[str, tuple[str, str, float]]:
    """The trace, the status and the value of each exemplar of a request, by its span."""
    families = {family.name: family for family in text_string_to_metric_families(page(sidecar, OPEN_METRICS)[1])}
    samples = families["http_server_request_duration_seconds"].samples
    return {
        sample.exemplar.labels["span_id"]: (
            sample.exemplar.labels["trace_id"],
            sample.labels["http_response_status_code"],
            sample.exemplar.value,
        )
        for sample in samples
        if sample.exemplar
    }


def test_a_failure_that_the_tail_keeps_is_an_exemplar_and_its_trace_arrives(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    sidecar, client = kept_by_the_tail(start_sidecar, application, collector)
    with client:
        products = [client.post("/api/v1/products", json={"name": "refused a script"}).json()["id"] for _ in range(10)]
        [refused] = [product for product in products if product % 10 == 0]
        assert [client.post(f"/api/v1/products/{refused}/scripts").status_code for _ in range(3)] == [502] * 3
        assert [client.get("/").status_code for _ in range(20)] == [200] * 20
    exported = collector.exported
    points = eventually(lambda: counted(found := exported.points(DURATION)) == 33 and found, "all are counted")
    spans = spans_by_id(exported, 3)
    assert {span.attributes["content_factory.sampling.reason"] for span in spans.values()} == {"error"}
    assert {exemplar.span_id: exemplar.trace_id for exemplar in exemplars(points)}.items() <= {
        (span.span_id, span.trace_id) for span in spans.values()
    }
    with_one = [point.attributes["http.response.status_code"] for point in points if point.exemplars]
    assert with_one and set(with_one) == {502}, "a failure is one, and nothing that was left out is"
    on_the_page = examples_on_the_page(sidecar)
    assert on_the_page
    for span_id, (trace_id, status, value) in on_the_page.items():
        span = spans[span_id]
        assert (trace_id, status, value) == (span.trace_id, "502", (span.end - span.start) / 1e9)


def test_a_slow_request_that_the_tail_keeps_is_an_exemplar_and_its_trace_arrives(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    sidecar, client = kept_by_the_tail(start_sidecar, application, collector)
    with client:
        for _ in range(400):
            client.get("/api/v1/reports/slow", params={"seconds": 0})
        # what is slow is judged each second: the first may be too early
        for _ in range(3):
            client.get("/api/v1/reports/slow", params={"seconds": 1.2})
    on_the_page = examples_on_the_page(sidecar)
    assert max(value for _, _, value in on_the_page.values()) > 1.2
    exported = collector.exported
    points = eventually(lambda: counted(found := exported.points(DURATION)) == 403 and found, "all are counted")
    told = {(exemplar.span_id, exemplar.trace_id) for exemplar in exemplars(points)}
    told |= {(span_id, trace_id) for span_id, (trace_id, _, _) in on_the_page.items()}

    def slow() -> set[tuple[str, str]]:
        reason = "content_factory.sampling.reason"
        return {(span.span_id, span.trace_id) for span in exported.spans(SERVER) if span.attributes[reason] == "slow"}

    eventually(lambda: told <= slow(), "the span of each exemplar")


def test_exemplars_are_switched_off_by_the_standard_variable(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    sidecar = start_sidecar(behind(application, collector), QUICK_EXPORT | {"OTEL_METRICS_EXEMPLAR_FILTER": "always_off"})
    ask(sidecar, 10)
    points = eventually(lambda: counted(found := collector.exported.points(DURATION)) == 10 and found, "all are counted")
    assert exemplars(points) == []
    assert "trace_id" not in page(sidecar, OPEN_METRICS)[1]
