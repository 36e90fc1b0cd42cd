"""Celery as the sidecar sees it through Redis: real workers, a real server, and a user of it that may do no more than it must."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from celery import Celery
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker
from factory import BIN
from processes import Process
from servers import Redis
from sidecar import Sidecar
from waiting import eventually

CANARY = "canary-of-celery-4711"
QUEUES = "/api/v1/monitoring/queues"

# As docs/celery.md has it.
RIGHTS = """
    on >sidecar-password resetchannels &/0.celeryev/* &celery-task-meta-* &/0.celery.pidbox
    %R~celery* %R~main-queue* %R~video-queue* %R~publish-queue* %R~unacked* %R~_kombu.binding.*
    %RW~_kombu.binding.reply.celery.pidbox %RW~content-factory-sidecar-*.reply.celery.pidbox
    -@all +psubscribe +ping +select +scan +smembers +llen +lindex +hlen +zrange +publish +sadd +srem +brpop +expire +del
""".split()
READ_ONLY = [word for word in RIGHTS if word not in ("+publish", "+sadd", "+srem", "+brpop", "+expire", "+del")]

QUICK = {"period": "1s", "consumers_period": "1s", "lost_after": "5s"}


class Broker(Redis):
    """A Redis with a user for the sidecar."""

    def start(self) -> None:
        """Returns once the user is known."""
        super().start()
        self.allow(RIGHTS)

    def allow(self, rights: list[str]) -> None:
        """Gives the sidecar's user these rights and no others."""
        with redis_client.Redis.from_url(self.url) as connection:
            connection.execute_command("ACL", "SETUSER", "sidecar", "reset", *rights)

    @property
    def sidecars_url(self) -> str:
        """What goes into the sidecar's `REDIS_URL`."""
        return f"redis://sidecar:sidecar-password@127.0.0.1:{self.port}/0"

    def publish(self, channel: str, payload: bytes | str) -> None:
        """Publishes as anybody could who can reach it."""
        with redis_client.Redis.from_url(self.url) as connection:
            assert connection.publish(channel, payload) > 0, "nobody listens"


class Worker(Process):
    """One Celery worker of the tests' tasks."""

    def __init__(self, folder: Path, broker: Broker, name: str, *flags: str, queue: str = "main-queue"):
        environment = {"REDIS_URL": broker.url, "PYTHONPATH": str(Path(__file__).parent), "PYTHONUNBUFFERED": "1"}
        command = [str(BIN / "celery"), "-A", "celery_app:app", "worker", "-n", f"{name}@tests", "-l", "INFO", "-c", "2"]
        super().__init__(f"celery-{name}", [*command, "-Q", queue, *flags], environment, folder)

    def start(self) -> None:
        """Returns once it consumes."""
        said = len(self.said(1_000_000))
        self.spawn()

        def ready() -> bool:
            self.must_live()
            return " ready." in self.said(1_000_000)[said:]

        eventually(ready, f"{self.name} to be ready", seconds=60)

    def lives_for(self, seconds: float) -> bool:
        """Whether it has not ended, nor ends within so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False


@pytest.fixture(scope="module")
def broker(servers_folder: Path) -> Iterator[Broker]:
    """A Redis of this file's own: it is restarted."""
    server = Broker(servers_folder)
    server.name, server.log = "broker", servers_folder / "broker.log"
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def tasks(broker: Broker) -> Iterator[Celery]:
    """The tasks, to be sent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", broker.url)
        sys.modules.pop("celery_app", None)
        from celery_app import orders

        yield orders
        orders.close()


@pytest.fixture(scope="module")
def prefork(servers_folder: Path, broker: Broker) -> Iterator[Worker]:
    """A worker as the application starts it: it sends no events by itself."""
    worker = Worker(servers_folder, broker, "prefork")
    worker.start()
    yield worker
    worker.kill()


def watching(start_sidecar: SidecarMaker, broker: Broker, collector: FileCollector | None = None, **celery: Any) -> Sidecar:
    """A sidecar that hears Celery."""
    telemetry = {"endpoint": collector.url, "protocol": "grpc"} if collector else {"enabled": False}
    proxy = {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:9"}
    settings = {"proxy": proxy, "telemetry": telemetry, "celery": QUICK | celery}
    sidecar = start_sidecar(settings, QUICK_EXPORT | {"REDIS_URL": broker.sidecars_url})
    eventually(lambda: sidecar.json(QUEUES)["events"]["state"] == "up", "events to be heard")
    return sidecar


def worker_of(sidecar: Sidecar, name: str) -> dict[str, Any]:
    """What is known of a worker; nothing at first."""
    return next((worker for worker in sidecar.json(QUEUES)["workers"] if worker["name"] == f"{name}@tests"), {})


def queue_of(sidecar: Sidecar, name: str) -> dict[str, Any]:
    """What is known of a queue."""
    return next(queue for queue in sidecar.json(QUEUES)["queues"] if queue["name"] == name)


def counts(sidecar: Sidecar) -> dict[str, dict[str, int]]:
    """What is known of the tasks of each name, without what is 0."""
    found: dict[str, dict[str, int]] = {}
    for task in sidecar.json(QUEUES)["tasks"]:
        steps = found.setdefault(task["name"], {})
        for step, count in task.items():
            if isinstance(count, int) and count:
                steps[step] = steps.get(step, 0) + count
    found.pop("lab.warm", None)
    return found


def warm_up(tasks: Celery, sidecar: Sidecar, name: str, **options: Any) -> None:
    """Until the events of a worker's tasks come; tasks of a name that is not looked at are sent meanwhile."""

    def comes() -> bool:
        tasks.send_task("lab.warm", **options)
        # the events of one task take a second
        return wait_a_little(lambda: worker_of(sidecar, name).get("sends_events"))

    eventually(comes, f"events of {name}", seconds=30)


def wait_a_little(look: Callable[[], Any]) -> bool:
    """Whether it comes within two seconds."""
    try:
        return bool(eventually(look, "it", seconds=2))
    except AssertionError:
        return False


EXPECTED = {
    "lab.good": {"sent": 60, "received": 60, "started": 60, "succeeded": 60},
    "lab.discover": {"sent": 10, "received": 10, "started": 10, "result_error": 10},
    "lab.publish": {"sent": 10, "received": 10, "started": 10, "result_error": 10},
    "lab.crash": {"sent": 10, "received": 10, "started": 10, "failed": 10},
    # a worker that sends a task again tells it, too
    "lab.again": {"sent": 10, "received": 10, "started": 10, "retried": 5, "succeeded": 5},
}


def send_them(tasks: Celery, **options: Any) -> None:
    """All that is expected, with the canary wherever there is room for it."""
    for _ in range(60):
        tasks.send_task("lab.good", args=[CANARY], kwargs={"token": CANARY}, **options)
    for _ in range(10):
        for name in ("lab.discover", "lab.publish", "lab.crash"):
            tasks.send_task(name, args=[f"postgresql://u:{CANARY}@h/db"], **options)
    for _ in range(5):
        tasks.send_task("lab.again", **options)


def test_a_worker_without_events_is_switched_on_and_each_task_is_counted_once(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker, collector: FileCollector
):
    sidecar = watching(start_sidecar, broker, collector)
    warm_up(tasks, sidecar, "prefork")
    send_them(tasks)
    eventually(lambda: counts(sidecar) == EXPECTED, f"{EXPECTED}")
    state = sidecar.json(QUEUES)
    assert (state["state"], state["gaps"], state["not_allowed"]) == ("watching", 0, [])
    assert set(state["refused"].values()) == {0}
    classes = {(failure["name"], failure["exception"], failure["count"]) for failure in state["failures"]}
    assert classes == {("lab.crash", "ValueError", 10)}
    # as the application counts, with its own kinds of failure
    assert sidecar.json("/api/v1/monitoring/metrics")["error_count"] == 30
    assert sidecar.metric("content_factory_celery_tasks_result_error_total", task="lab.discover") == 10
    assert sidecar.metric("content_factory_celery_task_duration_seconds_count", task="lab.good") == 60
    assert sidecar.metric("content_factory_celery_task_wait_seconds_count", task="lab.good") == 60
    as_exported_elsewhere = 'celery_task_failed_total{name="lab.crash",queue_name="main-queue",exception="ValueError"} 10'
    assert f"\n{as_exported_elsewhere}\n" in sidecar.text("/metrics")
    assert sidecar.metric("celery_worker_up", hostname="prefork@tests") == 1

    def left() -> str:
        text = "".join(file.read_text() for file in collector.exported.folder.rglob("*") if file.is_file())
        return text if "content_factory.celery.tasks.sent" in text else ""

    exported = eventually(left, "the export")
    nowhere = [exported, sidecar.said(10_000_000), *(sidecar.text(page) for page in (QUEUES, "/metrics", "/dashboard", "/health"))]
    assert not any(CANARY in text for text in nowhere)


def test_a_pool_of_threads_that_sends_events_is_counted_alike(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, servers_folder: Path
):
    worker = Worker(servers_folder, broker, "threads", "-E", "-P", "threads", queue="publish-queue")
    worker.start()
    try:
        sidecar = watching(start_sidecar, broker, enable_events=False)
        warm_up(tasks, sidecar, "threads", queue="publish-queue")
        send_them(tasks, queue="publish-queue")
        eventually(lambda: counts(sidecar) == EXPECTED, f"{EXPECTED}")
        assert sidecar.json(QUEUES)["missed"] == 0
        assert worker.stop(60) == 0
        eventually(lambda: worker_of(sidecar, "threads")["alive"] is False, "its farewell")
    finally:
        worker.kill()


def test_a_queue_that_nobody_serves_is_found_and_what_runs_is_active(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker
):
    sidecar = watching(start_sidecar, broker)
    for _ in range(3):
        tasks.send_task("lab.render")
    for _ in range(2):
        tasks.send_task("lab.slow", args=[8])
    eventually(lambda: (queue_of(sidecar, "video-queue")["unserved_seconds"] or 0) > 0, "the verdict")
    queue = queue_of(sidecar, "video-queue")
    assert (queue["messages"], queue["consumers"]) == (3, 0)
    assert (served := queue_of(sidecar, "main-queue"))["consumers"] == 1 and served["unserved_seconds"] is None
    assert worker_of(sidecar, "prefork")["consumes"] == ["main-queue"]
    assert sidecar.metric("content_factory_celery_queue_messages", messaging_destination_name="video-queue") == 3
    eventually(lambda: sidecar.json("/api/v1/monitoring/metrics")["active_tasks"] == 2, "two that run")
    eventually(lambda: sidecar.json("/api/v1/monitoring/metrics")["active_tasks"] == 0, "none that runs")
    with redis_client.Redis.from_url(broker.url) as connection:
        connection.delete("video-queue")
        assert connection.keys("content-factory-sidecar-*") == [], "answers are left behind"
    eventually(lambda: queue_of(sidecar, "video-queue")["unserved_seconds"] is None, "the end of it")


def test_the_task_of_a_worker_that_was_killed_is_lost(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, servers_folder: Path
):
    worker = Worker(servers_folder, broker, "doomed", "-E", queue="publish-queue")
    worker.start()
    try:
        sidecar = watching(start_sidecar, broker)
        # one that never sent a heartbeat may live without any
        eventually(lambda: worker_of(sidecar, "doomed").get("alive"), "its heartbeat")
        tasks.send_task("lab.slow", args=[600], queue="publish-queue")
        eventually(lambda: counts(sidecar).get("lab.slow", {}).get("started") == 1, "its start")
        eventually(lambda: worker_of(sidecar, "doomed")["active"] == 1, "a heartbeat that tells it")
    finally:
        worker.kill()
    eventually(lambda: counts(sidecar)["lab.slow"].get("lost") == 1, "the verdict", seconds=60)
    assert worker_of(sidecar, "doomed")["alive"] is False
    assert sidecar.metric("content_factory_celery_tasks_lost_total", task="lab.slow") == 1


def wrapped(body: str) -> str:
    """A message as kombu wraps it."""
    return json.dumps({"body": base64.b64encode(body.encode()).decode(), "properties": {"body_encoding": "base64"}})


def test_hostile_messages_change_nothing_but_the_count_of_refusals(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker
):
    sidecar = watching(start_sidecar, broker)
    warm_up(tasks, sidecar, "prefork")
    before = counts(sidecar)
    event = {"type": "task-failed", "hostname": "h", "pid": 1, "timestamp": 1, "uuid": "u"}
    hostile: list[str | bytes] = [
        b"x" * (2 << 20),
        b"\xff\xfe" * 10,
        "",
        "[" * 200_000,
        "null",
        wrapped("[" * 200_000),
        wrapped("{" + '"a":{' * 100_000),
        wrapped(json.dumps([event] * 2_000)),
        wrapped(json.dumps(event | {"timestamp": "now"})),
        wrapped(json.dumps(event | {"uuid": ["u"]})),
        wrapped(json.dumps(event | {"retries": -1})),
        json.dumps({"body": "***", "properties": {"body_encoding": "base64"}}),
        json.dumps({"body": "x", "properties": {"body_encoding": "rot13"}}),
    ]
    for payload in hostile:
        broker.publish("/0.celeryev/task.multi", payload)
    for payload in ("no JSON", "{}", json.dumps({"status": 1}), b"y" * (2 << 20)):
        broker.publish("celery-task-meta-u", payload)
    expected = {"too_long": 2, "malformed": 13, "encoding": 2}
    eventually(lambda: sidecar.json(QUEUES)["refused"] == expected, f"{expected}")
    assert (counts(sidecar), sidecar.json(QUEUES)["gaps"]) == (before, 0)
    tasks.send_task("lab.good")
    eventually(lambda: counts(sidecar).get("lab.good", {}).get("succeeded") == 1, "a task to be counted as ever")


def test_what_the_server_does_not_allow_is_said_and_the_rest_works(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker
):
    broker.allow(READ_ONLY)
    try:
        sidecar = watching(start_sidecar, broker)
        refused = ["ask_consumers", "enable_events"]
        eventually(lambda: sorted(sidecar.json(QUEUES)["not_allowed"]) == refused, f"{refused}")
        tasks.send_task("lab.good")
        eventually(lambda: counts(sidecar).get("lab.good", {}).get("succeeded") == 1, "a result to be counted")
        state = sidecar.json(QUEUES)
        assert state["state"] == "watching"
        assert {queue["consumers"] for queue in state["queues"]} == {None}
    finally:
        broker.allow(RIGHTS)


def test_a_redis_that_goes_and_comes_back_is_a_gap_and_its_tasks_are_heard_again(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker
):
    sidecar = watching(start_sidecar, broker)
    warm_up(tasks, sidecar, "prefork")
    broker.kill()
    eventually(lambda: sidecar.json(QUEUES)["gap"], "the gap to be seen")
    down = sidecar.json(QUEUES)
    assert (down["state"], down["gaps"], down["active_tasks"]) == ("degraded", 1, 0)
    assert down["events"]["problem"] in ("closed", "refused")
    broker.start()
    eventually(lambda: sidecar.json(QUEUES)["state"] == "watching", "both connections", seconds=40)
    if not prefork.lives_for(5):
        prefork.start()  # a worker of Celery that was storing a result when its Redis went does not always survive that
    before = counts(sidecar).get("lab.good", {}).get("succeeded", 0)
    for _ in range(20):
        tasks.send_task("lab.good")
    # the worker needs its own time to come back
    eventually(lambda: counts(sidecar).get("lab.good", {}).get("succeeded") == before + 20, "20 more", seconds=40)

    def events_come() -> bool:
        tasks.send_task("lab.again")
        return wait_a_little(lambda: counts(sidecar).get("lab.again", {}).get("started"))

    eventually(events_come, "its events, which it has to be told anew to send")
    state = sidecar.json(QUEUES)
    assert (state["gap"], state["gaps"]) == (False, 1)
