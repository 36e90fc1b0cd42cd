"""The Redis of Celery with TLS, and one that cuts who does not read."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import redis as redis_client
from authority import Authority
from celery import Celery
from celery_lab import QUEUES, Broker, Worker, kept, started, watching, worker_of
from processes import free_port
from sidecar import SidecarMaker
from waiting import eventually

HEARTBEAT = '{"body": "{\\"type\\": \\"worker-heartbeat\\", \\"hostname\\": \\"w@h\\", \\"pid\\": 1, \\"timestamp\\": 1.5, \\"processed\\": 3}"}'


@contextlib.contextmanager
def heartbeats(broker: Broker) -> Iterator[Callable[[], int | None]]:
    """Gives how many tasks its worker has done by its next heartbeat; none when none has come."""
    with redis_client.Redis.from_url(broker.url) as connection, connection.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("/0.celeryev/worker.heartbeat")

        def processed() -> int | None:
            message = heard.get_message(timeout=1)
            return message and json.loads(base64.b64decode(json.loads(message["data"])["body"]))["processed"]

        yield processed


def test_what_a_sidecar_that_does_not_read_misses_is_counted(start_sidecar: SidecarMaker, servers_folder: Path):
    broker = Broker(servers_folder, "--client-output-buffer-limit", "pubsub 64kb 0 0", name="impatient")
    broker.start()
    worker = Worker(servers_folder, broker, "told", "-E")
    orders = Celery("lab", broker=broker.url, set_as_current=False)
    orders.conf.update(task_send_sent_event=True, task_default_queue="main-queue")
    sidecar = watching(start_sidecar, broker)
    try:
        worker.start()
        first = [orders.send_task("lab.good").id for _ in range(10)]
        eventually(lambda: worker_of(sidecar, "told").get("processed") == 10, "the first ten")
        eventually(lambda: started(sidecar) == 10, "their events")
        sidecar.send(signal.SIGSTOP)
        with redis_client.Redis.from_url(broker.url) as connection:
            # more than the kernel and the server keep for it
            while connection.publish("/0.celeryev/other", b"x" * 1_000_000):
                pass
        with heartbeats(broker) as told:
            later = [orders.send_task("lab.good").id for _ in range(50)]
            eventually(lambda: kept(broker, first + later) == 60, "the others to be done")
            # what a worker gathers it tells each second, and this each two: with the second of them all is told
            for _ in range(2):
                eventually(lambda: told() == 60, "a heartbeat that counts all")
        sidecar.send(signal.SIGCONT)
        eventually(lambda: worker_of(sidecar, "told")["processed"] == 60, "a heartbeat after it")
        eventually(lambda: sidecar.json(QUEUES)["missed"] == 50, "the fifty to be missed")
        state = sidecar.json(QUEUES)
        assert (state["gap"], state["gaps"], started(sidecar)) == (False, 1, 10)
        assert sidecar.metric("content_factory_celery_events_missed_total") == 50
        assert sidecar.metric("content_factory_celery_gaps_total") == 1
    finally:
        sidecar.send(signal.SIGCONT)
        worker.kill()
        orders.close()
        broker.kill()


def test_a_redis_with_tls_is_read_where_its_authority_is_trusted_and_refused_where_it_is_not(
    start_sidecar: SidecarMaker, servers_folder: Path, tmp_path: Path
):
    authority = Authority(tmp_path, {"redis": "IP:127.0.0.1"})
    port = free_port()
    files = {"cert-file": "redis.pem", "key-file": "redis.key", "ca-cert-file": "ca.pem"}
    flags = [word for flag, file in files.items() for word in (f"--tls-{flag}", authority.path(file))]
    broker = Broker(servers_folder, "--tls-port", str(port), "--tls-auth-clients", "no", *flags, name="tls")
    broker.start()
    try:
        url = f"rediss://sidecar:sidecar-password@127.0.0.1:{port}/0"
        settings = {"proxy": {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:9"}, "telemetry": {"enabled": False}}
        trusting = start_sidecar(settings, {"REDIS_URL": url, "SSL_CERT_FILE": authority.path("ca.pem")})
        eventually(lambda: trusting.json(QUEUES)["events"]["state"] == "up", "events to be heard")
        broker.publish("/0.celeryev/worker.heartbeat", HEARTBEAT)
        eventually(lambda: [worker["processed"] for worker in trusting.json(QUEUES)["workers"]] == [3], "the worker")
        eventually(lambda: trusting.json(QUEUES)["queues_read"]["state"] == "up", "the queues to be read")
        eventually(lambda: trusting.services()["redis"] == "healthy", "the check of Redis")
        wary = start_sidecar(settings, {"REDIS_URL": url}, "wary")
        eventually(lambda: wary.json(QUEUES)["events"]["problem"] == "tls", "the refusal")
    finally:
        broker.kill()
