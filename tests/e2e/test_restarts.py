"""The sidecar and the collector are restarted under load, and no client notices."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from exported import SERVER
from factory import Application
from processes import free_port
from traffic import Load
from waiting import eventually
from websockets.exceptions import ConnectionClosedOK
from websockets.frames import CloseCode
from websockets.sync.client import connect

REQUESTS = 20_000


def test_no_request_fails_when_one_sidecar_hands_over_to_another(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    settings = behind(application, collector)
    settings["proxy"] |= {"listen": f"127.0.0.1:{free_port()}", "reuse_port": True}
    first = start_sidecar(settings, QUICK_EXPORT, "first")

    async def hand_over() -> Load:
        # however long the start of the one and the end of the other take: both are in the midst of the load
        load = Load(first.proxy, REQUESTS, goes_on=True)
        running = asyncio.create_task(load.run())
        await load.reached(REQUESTS // 4)
        second = await asyncio.to_thread(start_sidecar, settings, QUICK_EXPORT, "second")
        assert await asyncio.to_thread(first.stop) == 0
        await load.reached(load.answered + 1)
        load.goes_on = False
        await running
        assert second.request_count() > 0
        return load

    load = asyncio.run(hand_over())
    assert load.failures == []
    assert load.answered >= REQUESTS
    assert load.told_to_close > 0
    # what the first one had counted it has sent before its end
    eventually(lambda: len(collector.exported.spans(SERVER)) >= load.answered, f"{load.answered} spans of both")
    assert len({span.span_id for span in collector.exported.spans(SERVER)}) == load.answered


def test_a_sidecar_that_is_told_to_end_answers_what_it_has_accepted(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    sidecar = start_sidecar(behind(application, collector), QUICK_EXPORT)

    async def end() -> tuple[list[httpx.Response], int]:
        async with httpx.AsyncClient(base_url=sidecar.proxy, timeout=30) as client:
            # as long as a busy machine may need until all of them are there, and the signal
            slow = [asyncio.create_task(client.get("/api/v1/reports/slow?seconds=6")) for _ in range(10)]
            await asyncio.to_thread(eventually, lambda: sidecar.in_flight() == 10, "ten requests in flight")
            code = await asyncio.to_thread(sidecar.stop)
            return await asyncio.gather(*slow), code

    answers, code = asyncio.run(end())
    assert code == 0
    assert [answer.status_code for answer in answers] == [200] * 10
    assert {answer.headers.get("connection", "").lower() for answer in answers} == {"close"}
    eventually(lambda: len(collector.exported.spans(SERVER)) == 10, "ten spans, sent before the end")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_no_request_fails_when_the_collector_is_restarted(
    end: str, start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    sidecar = start_sidecar(behind(application, collector), QUICK_EXPORT)

    async def restart() -> Load:
        load = Load(sidecar.proxy, REQUESTS)
        running = asyncio.create_task(load.run())
        await load.reached(REQUESTS // 4)
        await asyncio.to_thread(getattr(collector, end))
        await load.reached(REQUESTS // 2)
        await asyncio.to_thread(collector.start)
        return await running

    load = asyncio.run(restart())
    assert load.failures == []
    assert load.answered == sidecar.request_count() == REQUESTS

    def accounts() -> dict[str, float]:
        names = ("produced_total", "delivered_total", "rejected_total", "dropped_total", "queued")
        return {name: sidecar.metric(f"content_factory_telemetry_{name}", signal="traces") for name in names}

    def all_delivered() -> bool:
        found = accounts()
        return found["queued"] == 0 and found["produced_total"] == found["delivered_total"] + found["rejected_total"]

    # the sidecar's own spans come at any time, between two readings too
    eventually(all_delivered, "all to be delivered", 40)
    assert accounts()["dropped_total"] == 0, "what memory cannot hold waits on disk"
    if end == "stop":
        # an orderly end loses nothing that was acknowledged, so each request is in the files
        eventually(lambda: len({span.span_id for span in collector.exported.spans(SERVER)}) >= REQUESTS, "spans")


def test_a_websocket_is_told_when_the_sidecar_ends(start_sidecar: SidecarMaker, application: Application, collector: FileCollector):
    settings = behind(application, collector)
    settings["proxy"] |= {"drain_timeout": "6s"}
    sidecar = start_sidecar(settings, QUICK_EXPORT)
    with connect(sidecar.proxy.replace("http://", "ws://") + "/api/v1/echo", open_timeout=10) as socket:
        socket.send("hello")
        assert socket.recv(timeout=10) == "hello"
        sidecar.send(signal.SIGTERM)
        with pytest.raises(ConnectionClosedOK):
            socket.recv(timeout=30)
    assert socket.protocol.close_rcvd.code == CloseCode.GOING_AWAY
    assert sidecar.wait() == 0
