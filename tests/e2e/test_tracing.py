"""A caller's trace goes on through the sidecar into the application."""

from __future__ import annotations

import httpx
import pytest
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from exported import CLIENT, SERVER
from factory import Application
from sidecar import Sidecar
from waiting import eventually

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_callers_trace_goes_on_to_the_application(sidecar: Sidecar, application: Application, collector: FileCollector):
    before = application.position()
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=value"}
    assert httpx.get(sidecar.proxy + "/", headers=headers).status_code == 200
    [server] = eventually(lambda: collector.exported.spans(SERVER), "the request's span")
    [client] = eventually(lambda: collector.exported.spans(CLIENT), "its other side")
    [line] = eventually(lambda: application.lines(before), "the application's line")
    assert (server.trace_id, server.parent_id) == (TRACE, CALLER)
    assert (client.trace_id, client.parent_id) == (TRACE, server.span_id)
    assert (line.trace_id, line.span_id) == (TRACE, client.span_id)


@pytest.mark.parametrize("value", ["", "00-zz-b7ad6b7169203331-01", f"00-{'0' * 32}-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01"])
def test_an_unreadable_traceparent_starts_a_new_trace(
    value: str, sidecar: Sidecar, application: Application, collector: FileCollector
):
    before = application.position()
    assert httpx.get(sidecar.proxy + "/", headers={"traceparent": value}).status_code == 200
    [server] = eventually(lambda: collector.exported.spans(SERVER), "the request's span")
    [line] = eventually(lambda: application.lines(before), "the application's line")
    assert server.parent_id == ""
    assert server.trace_id == line.trace_id not in (TRACE, "-")


def test_a_failure_is_kept_that_the_ratio_left_out_and_all_requests_are_measured(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    settings = behind(application, collector)
    settings["telemetry"] |= {"sampling": {"ratio": 0}}
    sidecar = start_sidecar(settings, QUICK_EXPORT)
    sidecar.await_routes()
    for _ in range(20):
        assert httpx.get(sidecar.proxy + "/").status_code == 200
    # the AI service refuses each tenth product
    asked, product = 20, 1
    while product % 10:
        product = httpx.post(sidecar.proxy + "/api/v1/products", json={"name": "a product"}).json()["id"]
        asked += 1
    assert httpx.post(f"{sidecar.proxy}/api/v1/products/{product}/scripts").status_code == 502
    asked += 1
    [server] = eventually(lambda: collector.exported.spans(SERVER), "the span of what failed")
    assert (server.attributes["http.response.status_code"], server.attributes["content_factory.sampling.reason"]) == (502, "error")
    [client] = eventually(lambda: collector.exported.spans(CLIENT), "its other side")
    assert client.parent_id == server.span_id

    def measured() -> bool:
        return collector.exported.requests("http.server.request.duration") == asked

    eventually(measured, "each request to be measured")
    assert len(collector.exported.spans(SERVER)) == 1
