"""The disk under the data folder has no room: that costs nothing but itself."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
from collecting import FileCollector
from conftest import QUICK_EXPORT, behind
from exported import SERVER
from factory import Application
from sidecar import Sidecar
from waiting import eventually

# Delivery goes on within 20 s of the collector's return.
DELIVERY_GOES_ON_SECONDS = 40


def on_a_disk_of(size: str, folder: Path, then: str = "true") -> tuple[str, ...]:
    """Starts a command that alone sees a disk of this size at this folder, `then` run on it before; works for everybody where
    the system lets users make namespaces of their own."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = f'mount -t tmpfs -o size={size},mode=0700 tmpfs "$0" && {then} && exec "$@"'
    return ("unshare", *as_root, "--mount", "sh", "-c", mount, str(folder))


def test_a_full_disk_costs_nothing_but_itself(tmp_path: Path, application: Application, collector: FileCollector):
    (tmp_path / "data").mkdir()
    settings = behind(application, collector) | {"data_dir": str(tmp_path / "data")}
    sidecar = Sidecar(tmp_path, settings, QUICK_EXPORT, within=on_a_disk_of("192k", tmp_path / "data"))
    sidecar.start()
    collector.kill()
    sent = 0
    with httpx.Client(base_url=sidecar.proxy, timeout=5) as client:

        def the_disk_is_full() -> bool:
            nonlocal sent
            for _ in range(100):
                assert client.get("/").status_code == 200
            sent += 100
            return sidecar.metric("content_factory_telemetry_spool_errors_total") > 0

        eventually(the_disk_is_full, "a full disk", 60)
        assert client.get("/").status_code == 200
    assert sidecar.metric("content_factory_telemetry_queued", signal="traces", place="disk") > 0
    assert not list((tmp_path / "data").iterdir()), "nobody else sees that disk"
    collector.start()

    def account(name: str) -> float:
        return sidecar.metric(f"content_factory_telemetry_{name}", signal="traces")

    # the sidecar's own spans come at any time, between two readings too
    def all_delivered() -> bool:
        return account("queued") == 0 and account("produced_total") == account("delivered_total")

    eventually(all_delivered, "all to be delivered", DELIVERY_GOES_ON_SECONDS)
    eventually(lambda: len(collector.exported.spans(SERVER)) >= sent + 1, f"{sent + 1} spans")
    spans = [span.span_id for span in collector.exported.spans(SERVER)]
    assert len(spans) == len(set(spans)) == sent + 1
    said = sidecar.said()
    assert "the spool fails" in said and "is set aside" not in said
    assert sidecar.stop() == 0


def test_a_disk_that_cannot_be_written_costs_nothing_but_itself(tmp_path: Path, application: Application, collector: FileCollector):
    (tmp_path / "data").mkdir()
    settings = behind(application, collector) | {"data_dir": str(tmp_path / "data")}
    read_only = on_a_disk_of("1m", tmp_path / "data", then='mount -o remount,ro "$0"')
    sidecar = Sidecar(tmp_path, settings, QUICK_EXPORT, within=read_only)
    sidecar.start()
    collector.kill()
    requests = 200
    with httpx.Client(base_url=sidecar.proxy, timeout=5) as client:
        for _ in range(requests):
            assert client.get("/").status_code == 200

    def queued(place: str) -> float:
        return sidecar.metric("content_factory_telemetry_queued", signal="traces", place=place)

    eventually(lambda: queued("memory") >= 2 * requests, "all in memory")
    assert queued("disk") == 0
    collector.start()
    eventually(lambda: len(collector.exported.spans(SERVER)) >= requests, f"{requests} spans", DELIVERY_GOES_ON_SECONDS)
    spans = [span.span_id for span in collector.exported.spans(SERVER)]
    assert len(spans) == len(set(spans)) == requests
    assert sidecar.metric("content_factory_telemetry_dropped_total", signal="traces") == 0
    assert "everything is kept in memory until the folder can be used" in sidecar.said()
    assert sidecar.stop() == 0
