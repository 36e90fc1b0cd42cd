"""Each failure of the example application is seen where its README says."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from conftest import SidecarMaker
from factory import SOURCES
from processes import ROOT, Process, free_port
from servers import Postgres, Redis
from sidecar import Sidecar
from waiting import eventually

sys.path.insert(0, str(SOURCES))
from content_factory.failures import FAILURES

# As often as it may be looked at, so that nobody waits; the two of Celery's workers need their silence.
QUICK_CHECKS = {
    "loop": {"period": "2s", "timeout": "1900ms", "failure_threshold": 1},
    "traffic": {"period": "1s", "timeout": "900ms", "max_silence": "15s"},
    "redis": {"period": "2s", "timeout": "1900ms", "failure_threshold": 1},
    "ai_services": {"period": "1s", "timeout": "900ms"},
}
QUICK = {
    "database": {"activity_period": "1s", "period": "1s", "statistics_period": "1s"},
    "celery": {"period": "1s", "consumers_period": "1s", "lost_after": "5s"},
}


def settings(application: int, ai: int) -> dict[str, Any]:
    """The file that the README names, with ports of this test's, and quick."""
    file = yaml.safe_load((SOURCES / "sidecar.yaml").read_text())
    checks = {name: file["checks"].get(name, {}) | QUICK_CHECKS.get(name, {}) for name in file["checks"] | QUICK_CHECKS}
    proxy = {"listen": "127.0.0.1:0", "upstream": f"http://127.0.0.1:{application}"}
    egress = file["egress"] | {"listen": "127.0.0.1:0", "upstream": f"http://127.0.0.1:{ai}"}
    return file | QUICK | {"checks": checks, "proxy": proxy, "egress": egress}


class Factory(Process):
    """All of the example application, with failures."""

    def __init__(self, folder: Path, ports: tuple[int, int], sidecar: Sidecar, servers: dict[str, str], failures: list[str]):
        [egress] = re.findall(r"^egress (http://\S+) -> \S+$", sidecar.log.read_text(), re.MULTILINE)
        port, ai = ports
        paths = f"{SOURCES}:{ROOT / 'clients/python/src'}"
        asked = [word for name in failures for word in ("--fail", name)]
        where = ["--bind", f"127.0.0.1:{port}", "--through", sidecar.proxy, "--sidecar", sidecar.admin]
        where += ["--egress", egress, "--ai", f"127.0.0.1:{ai}"]
        command = [sys.executable, "-m", "content_factory", "run", *where, *asked]
        super().__init__("factory", command, servers | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}, folder)


def service(name: str, status: str, words: str = "") -> Callable[[Sidecar], bool]:
    """That a service has this status, and these words among those that tell why."""

    def said(sidecar: Sidecar) -> bool:
        found = sidecar.json("/health")["services"][name]
        return found["status"] == status and words in found["message"]

    return said


def own_word_is_503(sidecar: Sidecar) -> bool:
    """By a run of now: the first one, a minute ago, found nobody yet."""
    sidecar.json("/api/v1/monitoring/checks/own?refresh=1")
    return service("own", "unhealthy", "status_503")(sidecar)


def redis_is_silent(sidecar: Sidecar) -> bool:
    """By its check, and by who listens to Celery; and nobody else is late."""
    others = service("database", "healthy")(sidecar) and service("application", "healthy")(sidecar)
    return others and service("redis", "unhealthy", "timeout")(sidecar)


def rendering_waits(sidecar: Sidecar) -> bool:
    """For a worker, longer than one rendering takes."""
    tasks = sidecar.json("/api/v1/monitoring/queues")["tasks"]
    return any(task["name"].endswith("render_video") and (task["mean_wait_seconds"] or 0) > 3 for task in tasks)


def statement_is_slow(sidecar: Sidecar) -> bool:
    """Among those that took most, without its literal; and among those that run."""
    database = sidecar.json("/api/v1/monitoring/database")
    texts = [statement["text"] for statement in (database["statements"]["value"] or {}).get("top", [])]
    return "SELECT count(*), pg_sleep($1) FROM products" in texts


def deadlocks_are_counted(sidecar: Sidecar) -> bool:
    """By the server, and judged."""
    database = sidecar.json("/api/v1/monitoring/database")
    counted = (database["statistics"]["value"] or {}).get("totals", {}).get("deadlocks", 0)
    return counted > 0 and any(verdict["rule"] == "deadlocks" for verdict in database["verdicts"])


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
    "web-unhealthy": own_word_is_503,
    "web-event-loop-blocked": service("loop", "degraded"),
    "ai-refuses": scripts_end_with_502,
    "ai-key-revoked": service("ai_services", "unhealthy", "key_revoked"),
    "ai-quota-used-up": service("ai_services", "unhealthy", "quota"),
    "ai-outage": service("ai_services", "unhealthy", "server_error"),
    "publish-refused": nothing_is_published,
    "task-never-ended": lambda sidecar: len(sidecar.json("/api/v1/monitoring/tasks")["running"]) > 1,
    "heartbeat-missed": service("traffic", "unhealthy", "silent"),
    "redis-hangs": redis_is_silent,
    "celery-task-fails": task("failed"),
    "celery-task-says-error": renderings_say_error,
    "celery-task-retried": task("retried"),
    "celery-worker-killed": task("lost"),
    "celery-worker-deaf": worker_is_deaf,
    "celery-worker-slow": rendering_waits,
    "celery-queue-unserved": queue("video-queue"),
    "database-slow-statement": statement_is_slow,
    "database-deadlock": deadlocks_are_counted,
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
    ["ai-refuses", "database-idle-transaction", "database-slow-statement", "heartbeat-missed"],
    ["ai-key-revoked", "database-deadlock"],
    ["ai-quota-used-up"],
    ["ai-outage"],
    ["redis-hangs"],
    ["celery-worker-slow"],
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
    failures: list[str], tmp_path: Path, servers_folder: Path, start_sidecar: SidecarMaker
) -> None:
    """On servers of their own: one of them takes all connections of the database, another one holds Redis."""
    database, redis = Postgres(servers_folder, None, "shared_preload_libraries=pg_stat_statements"), Redis(tmp_path)
    database.create()
    database.start()
    redis.start()
    try:
        with psycopg.connect(database.url) as session:
            session.execute("CREATE EXTENSION pg_stat_statements")
        ports, servers = (free_port(), free_port()), {"DATABASE_URL": database.url, "REDIS_URL": redis.url}
        sidecar = start_sidecar(settings(*ports), servers)
        factory = Factory(tmp_path, ports, sidecar, servers, failures)
        factory.spawn()
        try:
            for name in failures:
                eventually(lambda shown=SHOWN[name]: shown(sidecar), f"{name} to be shown", seconds=90)
            if "heartbeat-missed" not in failures:
                eventually(lambda: service("traffic", "healthy")(sidecar), "heartbeats of the traffic", seconds=90)
        finally:
            # also after a failure: its processes have sessions of their own, and would outlive a kill
            factory.send(signal.SIGINT)
            code = factory.wait()
        assert code == 0
    finally:
        redis.kill()
        database.remove()


def test_a_failure_that_cannot_be_shown_is_refused_with_the_reason(tmp_path: Path) -> None:
    """SQLite has no sessions that could wait for each other."""
    command = [sys.executable, "-m", "content_factory", "run", "--fail", "database-blocked"]
    factory = Process("factory", command, {"PYTHONPATH": str(SOURCES)}, tmp_path)
    factory.spawn()
    assert factory.wait() == 64
    assert "--fail database-blocked: DATABASE_URL is of sqlite, expected postgresql" in factory.said()
