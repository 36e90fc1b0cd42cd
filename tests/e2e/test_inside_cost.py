"""What it costs to look inside the application: Celery, the database and twenty checks, beside a sidecar that does none of it.

The messages of Celery are those that it publishes, sent by the test itself: workers that do a hundred tasks a second would take the cores
that are measured. `CONTRACT=full` (`make soak`) takes 100 tasks a second and tells CPU and memory; else fewer, and only counts.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import time
import uuid
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis as redis_client
from celery_lab import QUEUES, Broker, counts
from collecting import FileCollector
from servers import Postgres
from sidecar import Sidecar, SidecarMaker
from waiting import eventually

IS_FULL = os.environ.get("CONTRACT") == "full"
RATE, WARM_SECONDS, SECONDS = (100, 75, 60) if IS_FULL else (20, 2, 3)
NAMES = [f"main-queue-{number}" for number in range(10)]
# Ends of ten tasks, over and over; one says of itself that it failed, and one raises.
ENDS = ["succeeded"] * 8 + ["result_error", "failed"]
TICKS = os.sysconf("SC_CLK_TCK")


class Workers:
    """Ten workers and who sends to them, as far as a Redis shows them."""

    def __init__(self, broker: Broker):
        self.redis = redis_client.Redis.from_url(broker.url)
        self.sent: deque[tuple[str, str, str]] = deque()
        self.buffered: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
        self.processed = dict.fromkeys(NAMES, 0)
        self.numbers = itertools.count()
        self.redis.sadd("_kombu.binding.celery", *(f"{name}\x06\x16\x06\x16{name}" for name in NAMES))

    def work(self, seconds: float) -> None:
        """Sends, takes and ends tasks for so long, one after the other at the rate; each command goes on its own, as workers send theirs."""
        began = time.monotonic()
        for turn in range(int(seconds * RATE)):
            self.send()
            while len(self.sent) > RATE // 10:
                self.run(*self.sent.popleft())
            if turn % RATE == RATE - 1:
                self.flush()
            if turn % (2 * RATE) == 0:
                self.beat()
            time.sleep(max(0.0, began + (turn + 1) / RATE - time.monotonic()))

    def rest(self) -> None:
        """Ends what was sent, and tells it."""
        while self.sent:
            self.run(*self.sent.popleft())
        self.flush()
        self.beat()

    def send(self) -> None:
        """A message that waits in its queue for a tenth of a second, and the word of who sent it."""
        number = next(self.numbers)
        identity, queue, end = str(uuid.uuid4()), NAMES[number % 7], ENDS[number % 10]
        headers = {"lang": "py", "task": "shop.render", "id": identity, "retries": 0, "root_id": identity, "argsrepr": "(1,)"}
        if number % 2:
            headers["traceparent"] = f"00-{uuid.uuid4().hex}-{identity[-12:]}0000-01"
        properties = {"delivery_info": {"exchange": "", "routing_key": queue}, "body_encoding": "base64", "delivery_tag": str(uuid.uuid4())}
        body = base64.b64encode(b'[[1], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]').decode()
        self.redis.lpush(queue, json.dumps({"body": body, "headers": headers, "content-type": "application/json", "properties": properties}))
        self.publish("task.sent", self.event("task-sent", "sender", identity) | SENT | {"queue": queue, "routing_key": queue})
        self.sent.append((identity, queue, end))

    def run(self, identity: str, queue: str, end: str) -> None:
        """A worker takes a message, tells of its run, and keeps the result."""
        self.redis.rpop(queue)
        self.processed[queue] += 1
        bad = {"status": "error", "message": "x" * 200}
        last = {"exception": "ValueError('no')", "traceback": "T" * 600} if end == "failed" else {"result": str(bad), "runtime": 0.02}
        told = self.buffered[queue]
        told.append(self.event("task-received", queue, identity) | SENT)
        told.append(self.event("task-started", queue, identity))
        told.append(self.event("task-failed" if end == "failed" else "task-succeeded", queue, identity) | last)
        # every other worker has the pool `threads`, which gathers no events
        if len(told) >= 24 or NAMES.index(queue) % 2:
            self.tell(queue)
        results = {
            "succeeded": ("SUCCESS", {"status": "success", "message": "rendered"}),
            "result_error": ("SUCCESS", bad),
            "failed": ("FAILURE", {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}),
        }
        status, result = results[end]
        kept = {"status": status, "result": result, "traceback": None, "children": [], "task_id": identity}
        self.redis.publish(f"celery-task-meta-{identity}", json.dumps(kept))

    def flush(self) -> None:
        """What workers tell each second."""
        for name in NAMES:
            self.tell(name)

    def tell(self, worker: str) -> None:
        """At most 24 events in one message; or each in its own."""
        told, self.buffered[worker] = self.buffered[worker][:24], self.buffered[worker][24:]
        if NAMES.index(worker) % 2:
            for event in told:
                self.publish(event["type"].replace("-", "."), event)
        elif told:
            self.publish("task.multi", told)

    def beat(self) -> None:
        """What they tell of themselves each two seconds."""
        for name in NAMES:
            beat = {"freq": 2.0, "active": 0, "processed": self.processed[name], "loadavg": [0.1, 0.1, 0.1], "sw_ver": "5.7.0"}
            self.publish("worker.heartbeat", self.event("worker-heartbeat", name, "") | beat)

    @staticmethod
    def event(kind: str, worker: str, identity: str) -> dict[str, Any]:
        """What each event has."""
        known = {"hostname": f"{worker}@tests", "utcoffset": 0, "pid": 7, "clock": 81, "timestamp": time.time(), "type": kind}
        return known | ({"uuid": identity} if identity else {})

    def publish(self, key: str, body: object) -> None:
        """As kombu wraps it."""
        info = {"exchange": "celeryev", "routing_key": key}
        properties = {"delivery_mode": 1, "delivery_info": info, "priority": 0, "body_encoding": "base64", "delivery_tag": str(uuid.uuid4())}
        text = base64.b64encode(json.dumps(body).encode()).decode()
        whole = {"body": text, "content-encoding": "utf-8", "content-type": "application/json", "headers": {}, "properties": properties}
        self.redis.publish(f"/0.celeryev/{key}", json.dumps(whole))


# What an event has besides that names the task.
SENT = {"name": "shop.render", "args": "(1,)", "kwargs": "{}", "root_id": None, "parent_id": None, "retries": 0, "eta": None, "expires": None}


class Usage:
    """What a sidecar takes from now on."""

    def __init__(self, sidecar: Sidecar):
        self.folder = Path(f"/proc/{sidecar.process.pid}")
        self.began, self.before = time.monotonic(), self.ticks()

    def ticks(self) -> dict[str, int]:
        """Of each thread, in user mode and in the kernel."""
        stats = [text for file in self.folder.glob("task/*/stat") if (text := read(file))]
        fields = [(stat.split(" ")[0] + " " + stat[stat.index("(") + 1 : stat.rindex(")")], stat.rsplit(")", 1)[1].split()) for stat in stats]
        return {name: int(stat[11]) + int(stat[12]) for name, stat in fields}

    def since(self) -> Spent:
        """Per cent of a core, as a whole and by thread, and MiB that it holds."""
        seconds, after = time.monotonic() - self.began, self.ticks()
        threads = {name: 100 * (ticks - self.before.get(name, 0)) / TICKS / seconds for name, ticks in after.items()}
        status = (self.folder / "status").read_text().splitlines()
        held = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        return Spent(sum(threads.values()), held / 1_024, threads)


def read(file: Path) -> str:
    """What it holds; nothing if its thread has just ended."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@dataclass
class Spent:
    """See `Usage.since`."""

    cpu: float
    memory: float
    threads: dict[str, float]

    def __str__(self) -> str:
        return f"{self.cpu:.2f} % of a core and {self.memory:.1f} MiB"


def twenty_checks(broker: Broker, postgres: Postgres, url: str) -> dict[str, Any]:
    """Of four kinds, each as often as it is by default."""
    kinds = [
        {"kind": "redis", "url": broker.url},
        {"kind": "sql", "url": postgres.url},
        {"kind": "http", "url": url},
        {"kind": "tcp", "address": f"127.0.0.1:{broker.port}"},
    ]
    return {f"own-{number}": kinds[number % 4] for number in range(20)}


def test_what_it_costs_to_look_inside_the_application(
    start_sidecar: SidecarMaker, broker: Broker, postgres: Postgres, collector: FileCollector
):
    telemetry = {"endpoint": collector.url, "protocol": "grpc"}
    common = {"proxy": {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:9"}, "telemetry": telemetry}
    bare = start_sidecar(common, name="bare")
    settings = {"celery": {"queues": NAMES}, "checks": twenty_checks(broker, postgres, f"{bare.admin}/livez")}
    looking = start_sidecar(common | settings, {"REDIS_URL": broker.sidecars_url, "DATABASE_URL": postgres.url}, "looking")
    eventually(lambda: looking.json(QUEUES)["events"]["state"] == "up", "events to be heard")
    workers = Workers(broker)
    workers.work(WARM_SECONDS)
    both = [Usage(sidecar) for sidecar in (bare, looking)]
    workers.work(SECONDS)
    spent = [usage.since() for usage in both]
    workers.rest()
    sent = next(workers.numbers)
    share = {end: sent * ENDS.count(end) // 10 for end in set(ENDS)}
    wanted = {"sent": sent, "received": sent, "started": sent} | share
    eventually(lambda: counts(looking).get("shop.render") == wanted, f"{wanted}")
    state = looking.json(QUEUES)
    assert (state["missed"], state["gaps"], set(state["refused"].values())) == (0, 0, {0})
    eventually(lambda: set(NAMES) <= {queue["name"] for queue in looking.json(QUEUES)["queues"]}, "all queues")

    def own() -> list[str]:
        return [status for name, status in looking.services().items() if name.startswith("own-")]

    # each has its first turn in its own time
    eventually(lambda: own() == ["healthy"] * 20, "all twenty checks to be healthy")
    assert not any(name.startswith("own-") for name in bare.services()) and not counts(bare)
    without, whole = spent
    print(f"{RATE} tasks/s, 20 checks, 10 queues, {SECONDS} s: {whole}; without them {without}")
    print(f"by them {whole.cpu - without.cpu:.2f} % (at most 2) and {whole.memory - without.memory:.1f} MiB (at most 8)")
    for thread, part in sorted(whole.threads.items(), key=lambda item: -item[1])[:5]:
        print(f"  thread {thread}: {part:.2f} %")
