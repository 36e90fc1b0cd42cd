"""Workers of other kinds than the application's: an old Celery, other pools, and such as are killed, or live and do nothing."""

from __future__ import annotations

import time
from pathlib import Path

from celery import Celery
from celery_lab import CANARY, QUEUES, Broker, Worker, counts, expected, has_counted, installed, send_them, started, warm_up, watching, worker_of
from collecting import FileCollector
from exported import CONSUMER
from sidecar import SidecarMaker
from waiting import eventually

# The promise of the page: silence of two heartbeats, and celery.lost_after.
LOST_WITHIN_SECONDS = 40


def test_an_old_celery_and_each_pool_is_counted_alike_with_and_without_events(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, servers_folder: Path
):
    old, gevent = installed("celery-5.2"), installed("gevent")
    workers = {
        "main-queue": Worker(servers_folder, broker, "old-prefork", "-E", python=old),
        "video-queue": Worker(servers_folder, broker, "old-threads", "-P", "threads", python=old, queue="video-queue"),
        "publish-queue": Worker(servers_folder, broker, "gevent", "-P", "gevent", python=gevent, queue="publish-queue"),
    }
    names = {queue: worker.name.removeprefix("celery-") for queue, worker in workers.items()}
    try:
        for worker in workers.values():
            worker.spawn()
        for worker in workers.values():
            worker.await_ready()
        sidecar = watching(start_sidecar, broker)
        for queue, name in names.items():
            warm_up(tasks, sidecar, name, queue=queue)
        # heartbeats tell it
        versions = eventually(lambda: all(found := [worker_of(sidecar, name)["version"] for name in names.values()]) and found, "all versions")
        assert versions[0] == versions[1] == "5.2.7" != versions[2]
        # the threads of Celery 5.2 are slow to take what waits, and lose events: one that is told while others are being sent
        # is cleared away with them
        times = {"main-queue": 10, "video-queue": 2, "publish-queue": 10}
        lost = {"video-queue": "started"}
        for queue in workers:
            send_them(tasks, times[queue], queue=queue)

        def all_counted() -> bool:
            return all(has_counted(sidecar, expected(times[queue]), queue, lost.get(queue, "")) for queue in workers)

        eventually(all_counted, "all of them in each queue")

        def processed() -> int:
            return sum(worker["processed"] for worker in sidecar.json(QUEUES)["workers"])

        # before it was switched on a worker told of none: those that it ran then are missed as well
        ran = sum(steps["started"] for count in times.values() for steps in expected(count).values())
        eventually(lambda: processed() >= ran and started(sidecar) + sidecar.json(QUEUES)["missed"] == processed(), "what was lost to be missed")
        assert set(sidecar.json(QUEUES)["refused"].values()) == {0}
        assert CANARY not in sidecar.said(10_000_000) + sidecar.text(QUEUES) + sidecar.text("/metrics")
    finally:
        for worker in workers.values():
            worker.kill()


def test_a_task_whose_worker_was_killed_is_lost_within_forty_seconds_and_a_worker_that_does_nothing_is_named(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, servers_folder: Path, collector: FileCollector
):
    doomed = Worker(servers_folder, broker, "doomed", "-E", queue="publish-queue")
    idle = Worker(servers_folder, broker, "idle", "-E")
    try:
        for worker in (doomed, idle):
            worker.spawn()
        for worker in (doomed, idle):
            worker.await_ready()
        # with the time that the product has by itself
        sidecar = watching(start_sidecar, broker, collector, lost_after="30s")
        # one that never sent a heartbeat may live without any
        eventually(lambda: worker_of(sidecar, "doomed").get("alive"), "its heartbeat")
        for _ in range(10):
            tasks.send_task("lab.limited")
        tasks.send_task("lab.slow", args=[600], queue="publish-queue")
        eventually(lambda: counts(sidecar).get("lab.slow", {}).get("started") == 1, "its start")
        eventually(lambda: worker_of(sidecar, "doomed")["active"] == 1, "a heartbeat that tells it")
        doomed.kill()
        killed = time.monotonic()
        eventually(lambda: counts(sidecar)["lab.slow"].get("lost") == 1, "the verdict", seconds=LOST_WITHIN_SECONDS)
        print(f"a lost task was found after {time.monotonic() - killed:.1f} s")
        assert worker_of(sidecar, "doomed")["alive"] is False
        assert sidecar.metric("content_factory_celery_tasks_lost_total", task="lab.slow") == 1
        lost = eventually(lambda: [span for span in collector.exported.spans(CONSUMER) if span.name == "process lab.slow"], "its span")
        assert [(span.attributes["error.type"], span.attributes["messaging.client.id"]) for span in lost] == [("lost", "doomed@tests")]
        # what it holds back is taken, and what it does not even take waits: it lives, says that it consumes, and does nothing
        eventually(lambda: (worker_of(sidecar, "idle")["not_consuming_seconds"] or 0) >= 30, "the other verdict")
        state = worker_of(sidecar, "idle")
        assert (state["alive"], state["active"], state["consumes"]) == (True, 0, ["main-queue"])
        main = next(queue for queue in sidecar.json(QUEUES)["queues"] if queue["name"] == "main-queue")
        # one of ten has run
        assert main["messages"] + main["unacked"] == 9 and main["unacked"] > 0
    finally:
        for worker in (doomed, idle):
            worker.kill()
