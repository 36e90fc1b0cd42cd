"""Celery as the sidecar sees it through Redis: real workers, a real server, and a user of it that may do no more than it must."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import redis as redis_client
from celery import Celery
from celery_lab import (
    CANARY,
    QUEUES,
    READ_ONLY,
    RIGHTS,
    Broker,
    Worker,
    counts,
    expected,
    has_counted,
    kept,
    queue_of,
    send_them,
    wait_a_little,
    warm_up,
    watching,
    worker_of,
)
from collecting import FileCollector
from sidecar import SidecarMaker
from waiting import eventually

UNSERVED_WITHIN_SECONDS = 150

def test_a_worker_without_events_is_switched_on_and_each_task_is_counted_once(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker, collector: FileCollector
):
    sidecar = watching(start_sidecar, broker, collector)
    warm_up(tasks, sidecar, "prefork")
    send_them(tasks)
    eventually(lambda: has_counted(sidecar, expected()), "all of them")
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
    eventually(lambda: sidecar.metric("celery_worker_up", hostname="prefork@tests") == 1, "its heartbeat")

    def left() -> str:
        text = "".join(file.read_text() for file in collector.exported.folder.rglob("*") if file.is_file())
        return text if "content_factory.celery.tasks.sent" in text else ""

    exported = eventually(left, "the export")
    nowhere = [exported, sidecar.said(10_000_000), *(sidecar.text(page) for page in (QUEUES, "/metrics", "/dashboard", "/health"))]
    assert not any(CANARY in text for text in nowhere)


def test_tasks_that_publish_are_one_source_of_the_rate_of_publishes(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker
):
    # a whole name and the last part of others; one raises, and one says of one of its results that it failed
    sidecar = watching(start_sidecar, broker, publish_tasks=["lab.good", "publish", "crash"])
    warm_up(tasks, sidecar, "prefork")
    send_them(tasks, 1)
    outcomes = {"published": 6, "failed": 2}
    eventually(
        lambda: outcomes == {outcome: sidecar.metric("content_factory_celery_publishes_total", outcome=outcome) for outcome in outcomes},
        f"{outcomes}",
    )
    assert sidecar.metric("content_factory_business_publish_success_ratio", source="tasks") == 0.75
    assert sidecar.json(QUEUES)["publishes"]["success_ratio"] == 0.75


def test_a_pool_of_threads_that_sends_events_is_counted_alike(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, servers_folder: Path
):
    worker = Worker(servers_folder, broker, "threads", "-E", "-P", "threads", queue="publish-queue")
    worker.start()
    try:
        sidecar = watching(start_sidecar, broker, enable_events=False)
        warm_up(tasks, sidecar, "threads", queue="publish-queue")
        send_them(tasks, queue="publish-queue")
        eventually(lambda: has_counted(sidecar, expected()), "all of them")
        assert sidecar.json(QUEUES)["missed"] == 0
        assert worker.stop(60) == 0
        eventually(lambda: worker_of(sidecar, "threads")["alive"] is False, "its farewell")
    finally:
        worker.kill()


def test_a_queue_that_nobody_serves_is_found_and_what_runs_is_active(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker
):
    sidecar = watching(start_sidecar, broker)
    warm_up(tasks, sidecar, "prefork")
    for _ in range(3):
        tasks.send_task("lab.render")

    def verdict() -> bool:
        # a worker that was asked answers in its own time, and is unknown until then
        queue, served = queue_of(sidecar, "video-queue"), queue_of(sidecar, "main-queue")
        assert ((queue["unserved_seconds"] or 0) > 0, queue["messages"], queue["consumers"]) == (True, 3, 0), queue
        assert (served["unserved_seconds"], served["consumers"]) == (None, 1), served
        return worker_of(sidecar, "prefork")["consumes"] == ["main-queue"]

    eventually(verdict, "the verdict")
    assert sidecar.metric("content_factory_celery_queue_messages", messaging_destination_name="video-queue") == 3
    for _ in range(2):
        tasks.send_task("lab.slow", args=[8])
    eventually(lambda: sidecar.json("/api/v1/monitoring/metrics")["active_tasks"] == 2, "two that run")
    eventually(lambda: sidecar.json("/api/v1/monitoring/metrics")["active_tasks"] == 0, "none that runs")
    with redis_client.Redis.from_url(broker.url) as connection:
        connection.delete("video-queue")
        # one that is just being given is not left behind
        eventually(lambda: connection.keys("content-factory-sidecar-*") == [], "no answer to be left behind")
    eventually(lambda: queue_of(sidecar, "video-queue")["unserved_seconds"] is None, "the end of it")


def test_a_queue_whose_only_consumer_went_is_found_within_two_and_a_half_minutes(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker, servers_folder: Path
):
    worker = Worker(servers_folder, broker, "leaving", queue="publish-queue")
    worker.start()
    try:
        # at the pace that the product has by itself
        sidecar = watching(start_sidecar, broker, period="10s", consumers_period="60s")
        tasks.send_task("lab.good", queue="publish-queue")
        eventually(lambda: queue_of(sidecar, "publish-queue").get("consumers") == 1, "its consumer", seconds=UNSERVED_WITHIN_SECONDS)
        assert worker.stop(60) == 0
        tasks.send_task("lab.good", queue="publish-queue")
        found = lambda: queue_of(sidecar, "publish-queue")["unserved_seconds"] is not None  # noqa: E731
        eventually(found, "the verdict", seconds=UNSERVED_WITHIN_SECONDS)
        assert queue_of(sidecar, "publish-queue")["consumers"] == 0
    finally:
        worker.kill()
        with redis_client.Redis.from_url(broker.url) as connection:
            connection.delete("publish-queue")


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
        eventually(lambda: sidecar.json(QUEUES)["state"] == "watching", "both connections")
        eventually(lambda: {queue["consumers"] for queue in sidecar.json(QUEUES)["queues"]} == {None}, "queues of unknown consumers")
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
    eventually(lambda: sidecar.json(QUEUES)["stale"], "the last reading of the queues to be told as stale")
    assert sidecar.json(QUEUES)["age_seconds"] > 3
    broker.start()
    eventually(lambda: sidecar.json(QUEUES)["state"] == "watching", "both connections", seconds=40)
    sent: list[str] = []

    def works() -> bool:
        sent.append(tasks.send_task("lab.good").id)
        return wait_a_little(lambda: kept(broker, sent[-1:]))

    prefork.supervised(works, "the worker to come back")
    sent += [tasks.send_task("lab.good").id for _ in range(20)]
    eventually(lambda: kept(broker, sent[-20:]) == 20, "20 results")
    # what Redis has is what there is to be counted, whatever the worker lost when it came back
    eventually(lambda: counts(sidecar)["lab.good"]["succeeded"] == kept(broker, sent), "each of them to be counted")

    def events_come() -> bool:
        tasks.send_task("lab.again")
        return wait_a_little(lambda: counts(sidecar).get("lab.again", {}).get("started"))

    prefork.supervised(events_come, "its events, which it has to be told anew to send")
    state = sidecar.json(QUEUES)
    assert (state["gap"], state["gaps"], state["stale"]) == (False, 1, False)
