"""The real collector comes and goes: nothing is lost, and the account that the sidecar shows is exact at any moment."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from exported import SERVER
from factory import Application
from sidecar import Sidecar
from traffic import Load
from waiting import eventually

# In each of the collector's lives.
REQUESTS = 4_000
RESTARTS = 4
# Seconds between two restarts.
PERIOD = 2.0
# Delivery goes on within 20 s of the collector's return, with a margin for a busy machine.
DELIVERY_GOES_ON_SECONDS = 60
EXPORT = "/api/v1/monitoring/export"


def account(sidecar: Sidecar, signal: str = "traces") -> dict[str, int]:
    """What the admin port says became of a signal; produced is the sum of all else."""
    shown = sidecar.json(EXPORT)["signals"][signal]
    found = {
        "produced": shown["produced"],
        "delivered": shown["delivered"],
        "rejected": shown["rejected"],
        "dropped": sum(shown["dropped"].values()),
        "queued": sum(shown["queued"].values()),
    }
    assert found["produced"] == sum(found.values()) - found["produced"], shown
    return found


def test_a_collector_that_is_restarted_every_two_seconds_loses_nothing(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    sidecar = start_sidecar(behind(application, collector), QUICK_EXPORT)

    async def restart() -> Load:
        load = Load(sidecar.proxy, REQUESTS)
        running = asyncio.create_task(load.run())
        await load.reached(REQUESTS // 4)
        account(sidecar)
        await asyncio.to_thread(collector.stop)
        account(sidecar)
        await asyncio.sleep(PERIOD / 2)
        await asyncio.to_thread(collector.start)
        await asyncio.sleep(PERIOD / 2)
        return await running

    for _ in range(RESTARTS):
        load = asyncio.run(restart())
        assert load.failures == []
        assert load.answered == REQUESTS
    requests = REQUESTS * RESTARTS
    assert sidecar.request_count() == requests

    # the sidecar's own spans come at any time, between two readings too
    def all_delivered() -> bool:
        found = account(sidecar)
        return found["queued"] == 0 and found["produced"] == found["delivered"]

    eventually(all_delivered, "all to be delivered", DELIVERY_GOES_ON_SECONDS)
    assert account(sidecar)["dropped"] == account(sidecar)["rejected"] == 0
    eventually(lambda: len({span.span_id for span in collector.exported.spans(SERVER)}) == requests, f"{requests} spans")


def test_a_collector_that_is_frozen_holds_nobody_up_and_gets_everything_when_it_goes_on(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    settings = behind(application, collector)
    settings["telemetry"] |= {"timeout": "1s"}
    sidecar = start_sidecar(settings, QUICK_EXPORT)
    assert asyncio.run(Load(sidecar.proxy, REQUESTS).run()).failures == []
    # its port accepts, and nobody reads what comes there
    collector.send(signal.SIGSTOP)
    try:
        load = asyncio.run(Load(sidecar.proxy, REQUESTS).run())
        assert load.failures == []
        assert load.answered == REQUESTS
        eventually(lambda: sidecar.json(EXPORT)["signals"]["traces"]["queued"]["disk"] >= 2 * REQUESTS, "all on disk")
        account(sidecar)
    finally:
        collector.send(signal.SIGCONT)
    eventually(lambda: account(sidecar)["queued"] == 0, "all to be delivered", DELIVERY_GOES_ON_SECONDS)
    assert account(sidecar)["dropped"] == account(sidecar)["rejected"] == 0
    # what it was sent before it could answer may come twice
    eventually(
        lambda: len({span.span_id for span in collector.exported.spans(SERVER)}) == 2 * REQUESTS, f"{2 * REQUESTS} spans"
    )


def test_all_addresses_of_a_name_are_used_and_one_that_is_gone_costs_nothing(tmp_path: Path, application: Application):
    # the system's own resolver, with a table of names that the sidecar alone sees
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 collector.test\n127.0.0.2 collector.test\n")
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    names = ("unshare", *as_root, "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts))
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    first, second = FileCollector(tmp_path / "first"), FileCollector(tmp_path / "second")
    second.environment["OTLP_GRPC_ADDRESS"] = f"127.0.0.2:{first.port}"
    with first, second:
        settings = behind(application, first)
        settings["telemetry"] |= {"endpoint": f"http://collector.test:{first.port}"}
        sidecar = Sidecar(tmp_path, settings, QUICK_EXPORT, within=names)
        sidecar.start()
        with httpx.Client(base_url=sidecar.proxy, timeout=5) as client:

            def both_have_spans() -> bool:
                assert client.get("/").status_code == 200
                return bool(first.exported.spans(SERVER) and second.exported.spans(SERVER))

            eventually(both_have_spans, "spans at both addresses")
            first.kill()
            before = len(second.exported.spans(SERVER))
            for _ in range(100):
                assert client.get("/").status_code == 200
        eventually(lambda: len(second.exported.spans(SERVER)) >= before + 100, "all at the other address")
        assert account(sidecar)["dropped"] == 0
        assert sidecar.stop() == 0
