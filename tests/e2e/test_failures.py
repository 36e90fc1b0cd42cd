"""One thing at a time is killed, and comes back: what must notice notices, what must not does not."""

from __future__ import annotations

import errno
import socket
import time
from typing import Any

import httpx
import pytest
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from exported import SERVER
from factory import Application
from servers import Postgres, Redis
from sidecar import Sidecar
from waiting import eventually

# Seconds until three failures in a row are seen, and two successes: with a margin for a busy machine.
NOTICED_SECONDS = 20
QUICK = {"period": "1s", "timeout": "900ms", "failure_threshold": 3, "success_threshold": 2}
CHECKS: dict[str, Any] = {"database": QUICK, "redis": QUICK, "application": QUICK}
# The collector's return is noticed within 20 s, whatever the length of the outage.
DELIVERY_GOES_ON_SECONDS = 25


@pytest.fixture
def watching(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector, postgres: Postgres, redis: Redis
) -> Sidecar:
    """A sidecar that checks often, when everything is well."""
    environment = QUICK_EXPORT | {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url}
    sidecar = start_sidecar(behind(application, collector) | {"checks": CHECKS}, environment)
    eventually(lambda: set(well(sidecar).values()) == {"healthy"}, "all to be well")
    return sidecar


def well(sidecar: Sidecar) -> dict[str, str]:
    """The three services that these tests break."""
    services = sidecar.services()
    return {name: services[name] for name in ("database", "redis", "application")}


def export(sidecar: Sidecar) -> dict[str, Any]:
    """What the sidecar says of the way of its telemetry."""
    return sidecar.json("/api/v1/monitoring/export")


def half_of(seconds: list[float]) -> float:
    """What half of them do not exceed: what the sidecar waits for is in each, a pause of the machine is not."""
    return sorted(seconds)[len(seconds) // 2]


def refuses(port: int) -> bool:
    """Whether nothing listens."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_an_application_that_is_down_gives_a_quick_small_answer_and_is_back_at_once(watching: Sidecar, application: Application):
    assert httpx.get(watching.proxy + "/").status_code == 200
    application.kill()
    # its workers are killed with it, but the kernel closes their sockets in its own time
    eventually(lambda: refuses(application.port), "the port to be closed")
    try:
        took = []
        for number in range(20):
            started = time.monotonic()
            answer = httpx.get(watching.proxy + "/", timeout=20)
            took.append(time.monotonic() - started)
            # a connection from before the kill breaks under the first request: it is sent again, and refused as all others are
            assert answer.status_code == 503, number
            assert answer.headers["content-type"].startswith("application/json") and isinstance(answer.json(), dict)
            assert len(answer.content) < 500
            assert answer.headers["retry-after"] == "1"
        assert half_of(took) < 1
        assert watching.request_count() == 21
        eventually(lambda: watching.services()["application"] == "unhealthy", "the application's loss", NOTICED_SECONDS)
        assert well(watching) == {"database": "healthy", "redis": "healthy", "application": "unhealthy"}
    finally:
        application.start()
    assert httpx.get(watching.proxy + "/").status_code == 200
    eventually(lambda: watching.services()["application"] == "healthy", "the application's return", NOTICED_SECONDS)


def test_a_collector_that_is_down_touches_no_request_and_gets_the_rest_when_it_is_back(
    watching: Sidecar, collector: FileCollector
):
    collector.kill()
    took = []
    with httpx.Client(base_url=watching.proxy, timeout=20) as client:
        for _ in range(300):
            started = time.monotonic()
            assert client.get("/").status_code == 200
            took.append(time.monotonic() - started)
        assert half_of(took) < 1
        assert watching.request_count() == 300
        assert set(well(watching).values()) == {"healthy"}
        eventually(lambda: export(watching)["condition"] == "failing", "the export's failure", NOTICED_SECONDS)
        assert export(watching)["signals"]["traces"]["problem"]
        collector.start()
        assert client.get("/?after=the-return").status_code == 200
    # those of the outage waited in memory and on disk
    eventually(lambda: len(collector.exported.spans(SERVER)) >= 301, "all 301 spans", DELIVERY_GOES_ON_SECONDS)
    assert len({span.span_id for span in collector.exported.spans(SERVER)}) == 301
    assert export(watching)["condition"] == "delivering"


def test_a_redis_that_is_down_is_said_to_be_and_nothing_else(watching: Sidecar, redis: Redis):
    redis.kill()
    try:
        eventually(lambda: watching.services()["redis"] == "unhealthy", "the loss of Redis", NOTICED_SECONDS)
        assert well(watching) == {"database": "healthy", "redis": "unhealthy", "application": "healthy"}
        assert watching.json("/health")["status"] == "unhealthy"
        assert httpx.get(watching.admin + "/readyz").status_code == 200
        assert httpx.get(watching.proxy + "/api/v1/products").status_code == 200
    finally:
        redis.start()
    eventually(lambda: set(well(watching).values()) == {"healthy"}, "the return of Redis", NOTICED_SECONDS)


def test_a_database_that_is_down_is_said_to_be_and_nothing_else(watching: Sidecar, postgres: Postgres):
    postgres.kill()
    try:
        eventually(lambda: watching.services()["database"] == "unhealthy", "the loss of PostgreSQL", NOTICED_SECONDS)
        assert well(watching) == {"database": "unhealthy", "redis": "healthy", "application": "healthy"}
        assert httpx.get(watching.admin + "/livez").status_code == 200
        assert httpx.get(watching.proxy + "/").status_code == 200
        # the application's own failure passes through as it is
        assert httpx.get(watching.proxy + "/api/v1/products", timeout=15).status_code == 503
        message = watching.json("/health")["services"]["database"]["message"]
        assert "secret-of-the-database" not in message and str(postgres.port) not in message
    finally:
        postgres.start()
    eventually(lambda: set(well(watching).values()) == {"healthy"}, "the return of PostgreSQL", NOTICED_SECONDS)
    assert httpx.get(watching.proxy + "/api/v1/products").status_code == 200


def test_everything_may_be_away_at_the_start(start_sidecar: SidecarMaker, tmp_path):
    nowhere = {"proxy": {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:9"}, "telemetry": {"endpoint": "http://127.0.0.1:9"}}
    environment = {"DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:9/none", "REDIS_URL": "redis://127.0.0.1:9/0"}
    took = []
    for turn in range(3):
        started = time.monotonic()
        sidecar = start_sidecar(nowhere, environment, f"sidecar-{turn}")
        answer = httpx.get(sidecar.proxy + "/", timeout=20)
        took.append(time.monotonic() - started)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert httpx.get(sidecar.admin + "/livez", timeout=20).status_code == 200
        assert sidecar.request_count() == 1
    # a second is the promise for the release build; ours may be a debug build
    assert half_of(took) < 3, took
