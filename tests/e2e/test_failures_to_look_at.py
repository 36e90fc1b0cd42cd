"""Each failure of the example application is seen where its README says."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SidecarMaker
from factory import SOURCES
from processes import ROOT, Process, free_port
from servers import Postgres, Redis
from sidecar import Sidecar
from waiting import eventually

sys.path.insert(0, str(SOURCES))
from content_factory.failures import FAILURES

# As often as it may be looked at, so that nobody waits; the two of Celery's workers need their silence.
QUICK = {
    "database": {"activity_period": "1s", "period": "1s"},
    "celery": {"period": "1s", "consumers_period": "1s", "lost_after": "5s"},
    "checks": {
        "own": {"kind": "app", "failure_threshold": 1},
        "loop": {"kind": "loop_lag", "path": "/health", "period": "2s", "timeout": "1900ms", "failure_threshold": 1},
    },
}


class Factory(Process):
    """All of the example application, with failures."""

    def __init__(self, folder: Path, port: int, sidecar: Sidecar, servers: dict[str, str], failures: list[str]):
        paths = f"{SOURCES}:{ROOT / 'clients/python/src'}"
        asked = [word for name in failures for word in ("--fail", name)]
        where = ["--bind", f"127.0.0.1:{port}", "--through", sidecar.proxy, "--sidecar", sidecar.admin]
        command = [sys.executable, "-m", "content_factory", "run", *where, *asked]
        super().__init__("factory", command, servers | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}, folder)


def service(name: str, *statuses: str) -> Callable[[Sidecar], bool]:
    """That a service has one of these statuses."""
    return lambda sidecar: sidecar.json("/health")["services"][name]["status"] in statuses


def queue(name: str) -> Callable[[Sidecar], bool]:
    """That nobody serves a queue."""

    def unserved(sidecar: Sidecar) -> bool:
        queues = sidecar.json("/api/v1/monitoring/queues")["queues"]
        return any(found["name"] == name and found["consumers"] == 0 and found["unserved_seconds"] for found in queues)

    return unserved


def worker_is_deaf(sidecar: Sidecar) -> bool:
    """A worker that lives and takes nothing."""
    workers = sidecar.json("/api/v1/monitoring/queues")["workers"]
    return any(worker["alive"] and worker["not_consuming_seconds"] for worker in workers)


def task(ended: str) -> Callable[[Sidecar], bool]:
    """That a rendering came to this end."""
    return lambda sidecar: any(
        tasks[ended] for tasks in sidecar.json("/api/v1/monitoring/queues")["tasks"] if tasks["name"].endswith("render_video")
    )


def renderings_say_error(sidecar: Sidecar) -> bool:
    """All of them: every fifth does so anyway."""
    return task("result_error")(sidecar) and not task("succeeded")(sidecar)


def activity(look: Callable[[dict], object]) -> Callable[[Sidecar], bool]:
    """What the sessions of the database show."""
    return lambda sidecar: bool(look(sidecar.json("/api/v1/monitoring/database")["activity"]["value"] or {}))


def nothing_is_published(sidecar: Sidecar) -> bool:
    """By the rows of the business."""
    publishes = (sidecar.json("/api/v1/monitoring/database")["business"]["value"] or {}).get("publishes") or {}
    return publishes.get("failed", 0) > 0 and publishes["success_ratio"] == 0


def scripts_end_with_502(sidecar: Sidecar) -> bool:
    """By the metrics of the route."""
    series = "http_server_request_duration_seconds_count"
    lines = [line for line in sidecar.text("/metrics").splitlines() if line.startswith(series) and "scripts" in line]
    return bool(lines) and all('="502"' in line for line in lines)


def connections_are_used_up(sidecar: Sidecar) -> bool:
    """By the verdict."""
    return any(verdict["rule"] == "connections" for verdict in sidecar.json("/api/v1/monitoring/database")["verdicts"])


SHOWN = {
    "web-unhealthy": service("own", "unhealthy"),
    "web-event-loop-blocked": service("loop", "degraded"),
    "ai-refuses": scripts_end_with_502,
    "publish-refused": nothing_is_published,
    "task-never-ended": lambda sidecar: len(sidecar.json("/api/v1/monitoring/tasks")["running"]) > 1,
    "celery-task-fails": task("failed"),
    "celery-task-says-error": renderings_say_error,
    "celery-task-retried": task("retried"),
    "celery-worker-killed": task("lost"),
    "celery-worker-deaf": worker_is_deaf,
    "celery-queue-unserved": queue("video-queue"),
    "database-blocked": activity(lambda value: value.get("chains")),
    "database-idle-transaction": activity(lambda value: value.get("by_state", {}).get("idle_in_transaction")),
    "database-connections-used-up": connections_are_used_up,
}

# Those that do not hide each other, so that a few starts show all.
TOGETHER = [
    ["task-never-ended", "celery-queue-unserved", "database-blocked"],
    ["publish-refused", "celery-task-says-error"],
    # the worker dies again within seconds of each start
    ["web-unhealthy", "celery-worker-killed", "celery-task-retried"],
    ["ai-refuses", "database-idle-transaction"],
    ["web-event-loop-blocked", "celery-task-fails"],
    ["celery-worker-deaf"],
    ["database-connections-used-up"],
]


def test_each_failure_that_can_be_asked_for_is_looked_for() -> None:
    """None without a test, and none that the README does not tell of."""
    assert sorted(FAILURES) == sorted(SHOWN) == sorted(name for names in TOGETHER for name in names)
    readme = (SOURCES / "README.md").read_text()
    assert [name for name in FAILURES if f"| `{name}` |" not in readme] == []


@pytest.mark.parametrize("failures", TOGETHER, ids="+".join)
def test_failures_that_are_asked_for_show_where_the_readme_says(
    failures: list[str], tmp_path: Path, servers_folder: Path, redis: Redis, start_sidecar: SidecarMaker
) -> None:
    """On a database of their own: one of them takes all its connections."""
    database = Postgres(servers_folder)
    database.create()
    database.start()
    try:
        port, servers = free_port(), {"DATABASE_URL": database.url, "REDIS_URL": f"redis://127.0.0.1:{redis.port}/5"}
        proxy = {"listen": "127.0.0.1:0", "upstream": f"http://127.0.0.1:{port}"}
        sidecar = start_sidecar({"proxy": proxy} | QUICK, servers)
        factory = Factory(tmp_path, port, sidecar, servers, failures)
        factory.spawn()
        try:
            for name in failures:
                eventually(lambda shown=SHOWN[name]: shown(sidecar), f"{name} to be shown", seconds=90)
        finally:
            # also after a failure: its processes have sessions of their own, and would outlive a kill
            factory.send(signal.SIGINT)
            code = factory.wait()
        assert code == 0
    finally:
        database.remove()


def test_a_failure_that_cannot_be_shown_is_refused_with_the_reason(tmp_path: Path) -> None:
    """SQLite has no sessions that could wait for each other."""
    command = [sys.executable, "-m", "content_factory", "run", "--fail", "database-blocked"]
    factory = Process("factory", command, {"PYTHONPATH": str(SOURCES)}, tmp_path)
    factory.spawn()
    assert factory.wait() == 64
    assert "--fail database-blocked: DATABASE_URL is of sqlite, expected postgresql" in factory.said()
