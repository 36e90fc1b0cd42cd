"""Two thousand requests over all routes, and four places that must agree on them to the last one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from collecting import FileCollector
from conftest import QUICK_EXPORT, behind
from exported import CLIENT, SERVER, Exported, Span
from factory import Application, CeleryWorker, LogLine
from sidecar import Sidecar
from traffic import Day
from waiting import eventually

DURATION, STREAMS = "http.server.request.duration", "content_factory.http.server.stream.duration"


@dataclass
class Seen:
    """The same two thousand requests, as each place saw them."""

    day: Day
    lines: list[LogLine]
    sidecar: Sidecar
    exported: Exported
    spans: list[Span]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, application: Application, worker: CeleryWorker):
    """One day of traffic through one sidecar; read-only for the tests that share it."""
    folder = tmp_path_factory.mktemp("counting")
    with FileCollector(folder) as collector:
        sidecar = Sidecar(folder, behind(application, collector), QUICK_EXPORT)
        sidecar.start()
        sidecar.await_routes()
        before = application.position()
        day = Day(sidecar.proxy).run()
        lines = eventually(
            lambda: (found := application.lines(before)) and len(found) >= day.total and found, f"{day.total} lines"
        )
        exported = collector.exported
        for kind in (SERVER, CLIENT):
            eventually(lambda: len(exported.spans(kind)) >= day.total, f"{day.total} exported spans of kind {kind}")  # noqa: B023
        eventually(lambda: exported.requests(DURATION) + exported.requests(STREAMS) >= day.total, f"{day.total} in histograms")
        yield Seen(day, lines, sidecar, exported, exported.spans())
        assert sidecar.stop() == 0


def test_the_day_has_two_thousand_requests_and_known_errors(seen: Seen):
    assert seen.day.total == 2000
    by_status = Counter()
    for (_, _, status), count in seen.day.answers.items():
        by_status[status] += count
    # every tenth of 200 products in a row is refused by the AI service
    assert (by_status[502], by_status[422], by_status[404]) == (20, 30, 80)
    assert set(by_status) == {200, 201, 202, 404, 422, 502}


def test_the_endpoint_counts_what_several_workers_answered(seen: Seen):
    assert len(seen.lines) == 2000
    # which of the four takes a connection is the kernel's choice: one may get none of them
    assert len({line.pid for line in seen.lines}) > 1
    assert seen.sidecar.request_count() == 2000


def test_the_metrics_page_counts_each_request_in_one_series(seen: Seen):
    ordinary = seen.sidecar.metric("http_server_request_duration_seconds_count")
    streams = seen.sidecar.metric("content_factory_http_server_stream_duration_seconds_count")
    progress = seen.day.count("/api/v1/videos/{video_id}/progress")
    assert (ordinary, streams) == (2000 - progress, progress)


def test_the_metrics_page_agrees_with_the_client_on_every_status(seen: Seen):
    for status in (200, 201, 202, 404, 422, 502):
        counted = seen.sidecar.metric("http_server_request_duration_seconds_count", http_response_status_code=str(status))
        counted += seen.sidecar.metric(
            "content_factory_http_server_stream_duration_seconds_count", http_response_status_code=str(status)
        )
        assert counted == seen.day.count(status=status), f"status {status}"


def test_routes_are_the_applications_own_templates(seen: Seen):
    routes = {route for _, route, _ in seen.day.answers if route and not route.endswith("/progress")}
    for route in routes:
        counted = seen.sidecar.metric("http_server_request_duration_seconds_count", http_route=route)
        assert counted == seen.day.count(route), route
    without = [span for span in seen.spans if span.kind == SERVER and "http.route" not in span.attributes]
    assert Counter(span.attributes["url.path"].rpartition("/")[0] for span in without) == {"/no/such/path": 30}


def test_nothing_is_in_flight_after_the_last_answer(seen: Seen):
    eventually(lambda: seen.sidecar.in_flight() == 0, "no request in flight")


def test_every_request_is_one_server_span_at_the_collector(seen: Seen):
    servers = [span for span in seen.spans if span.kind == SERVER]
    assert len(servers) == 2000
    assert len({span.span_id for span in servers}) == 2000
    statuses = Counter(span.attributes["http.response.status_code"] for span in servers)
    assert statuses == {status: seen.day.count(status=status) for status in statuses}


def test_every_request_is_in_one_delta_point_at_the_collector(seen: Seen):
    progress = seen.day.count("/api/v1/videos/{video_id}/progress")
    assert (seen.exported.requests(DURATION), seen.exported.requests(STREAMS)) == (2000 - progress, progress)


def test_every_trace_id_of_the_applications_log_is_found_among_the_exported_spans(seen: Seen):
    logged = Counter(line.trace_id for line in seen.lines)
    assert "-" not in logged
    assert logged == Counter(span.trace_id for span in seen.spans if span.kind == SERVER)


def test_the_application_is_told_the_client_span_whose_parent_is_the_server_span(seen: Seen):
    clients = {span.span_id: span for span in seen.spans if span.kind == CLIENT}
    servers = {span.span_id: span for span in seen.spans if span.kind == SERVER}
    for line in seen.lines:
        client = clients[line.span_id]
        server = servers[client.parent_id]
        assert client.trace_id == server.trace_id == line.trace_id
        assert (server.attributes["url.path"], server.attributes["http.request.method"]) == (line.path, line.method)


def test_the_sidecar_says_of_whom_it_tells(seen: Seen):
    for resource in seen.exported.resources():
        assert resource["service.name"] == "content-factory"
        assert resource["service.instance.id"]


def test_produced_is_delivered_and_nothing_is_dropped(seen: Seen):
    def balance() -> bool:
        spans = {
            account: seen.sidecar.metric(f"content_factory_telemetry_{account}", signal="traces")
            for account in ("produced_total", "delivered_total", "rejected_total", "dropped_total", "queued")
        }
        assert spans["dropped_total"] == spans["rejected_total"] == spans["queued"] == 0, spans
        return spans["produced_total"] == spans["delivered_total"] >= 4000

    eventually(balance, "every span to be delivered")
