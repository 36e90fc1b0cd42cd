"""What the tests of Celery stand on: a Redis whose user for the sidecar may do no more than it must, and workers of many kinds."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis as redis_client
from celery import Celery
from collecting import FileCollector
from factory import BIN
from processes import ROOT, Process
from servers import Redis
from sidecar import QUICK_EXPORT, Sidecar, SidecarMaker
from waiting import eventually

QUEUES = "/api/v1/monitoring/queues"



def documented_rights() -> list[str]:
    """Those of docs/celery.md, with the tests' own password: what is not written there, the sidecar's user may not do."""
    page = (ROOT / "docs/celery.md").read_text()
    [rights] = re.findall(r"^ACL SETUSER sidecar (on .*?)^```$", page, re.MULTILINE | re.DOTALL)
    return rights.replace(">password", ">sidecar-password").split()


RIGHTS = documented_rights()
READ_ONLY = [word for word in RIGHTS if word not in ("+publish", "+sadd", "+srem", "+brpop", "+expire", "+del")]

QUICK = {"period": "1s", "consumers_period": "1s", "lost_after": "5s"}


class Broker(Redis):
    """A Redis with a user for the sidecar."""

    def __init__(self, folder: Path, *flags: str, name: str = "broker"):
        super().__init__(folder)
        self.command += flags
        self.name, self.log = name, folder / f"{name}.log"

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
    """One Celery worker of the tests' tasks. `python` is the folder of its programs, where it is not the tests' own."""

    def __init__(
        self,
        folder: Path,
        broker: Broker,
        name: str,
        *flags: str,
        queue: str = "main-queue",
        python: Path = BIN,
        within: str = "",
        settings: dict[str, str] | None = None,
    ):
        """`within` is a program of that folder that starts the one behind it."""
        environment = {"REDIS_URL": broker.url, "PYTHONPATH": str(Path(__file__).parent), "PYTHONUNBUFFERED": "1"}
        programs = [str(python / program) for program in (within, "celery") if program]
        command = [*programs, "-A", "celery_app:app", "worker", "-n", f"{name}@tests", "-l", "INFO", "-c", "2"]
        super().__init__(f"celery-{name}", [*command, "-Q", queue, *flags], environment | (settings or {}), folder)
        self._read_from = 0

    def spawn(self) -> None:
        """Starts it, and does not wait for anything."""
        self._read_from = len(self.said(10_000_000))
        super().spawn()

    def await_ready(self) -> None:
        """Until it consumes."""

        def ready() -> bool:
            self.must_live()
            return " ready." in self.said(10_000_000)[self._read_from :]

        eventually(ready, f"{self.name} to be ready", seconds=60)

    def start(self) -> None:
        """Returns once it consumes."""
        self.spawn()
        self.await_ready()

    def supervised(self, works: Callable[[], Any], what: str) -> None:
        """Until it works: starts it anew when it has ended or does nothing, as its supervisor would.

        A worker of Celery that was at work when its Redis went does not always come back by itself (celery/celery#8030, #8091).
        """

        def lives_and_works() -> bool:
            self.must_live()
            return bool(works())

        try:
            eventually(lives_and_works, what, seconds=20)
        except (AssertionError, RuntimeError):
            self.kill()
            self.start()
            eventually(lives_and_works, what)


def installed(requirements: str) -> Path:
    """The programs of another environment than the tests' own, made when it is not there."""
    script = [str(ROOT / "tests/setup/python.sh"), str(ROOT / "tests/e2e/workers" / requirements / "requirements.txt")]
    done = subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.splitlines()[-1]) / "bin"


def watching(
    start_sidecar: SidecarMaker,
    broker: Broker,
    collector: FileCollector | None = None,
    intake: dict[str, Any] | None = None,
    **celery: Any,
) -> Sidecar:
    """A sidecar that hears Celery."""
    telemetry = {"endpoint": collector.url, "protocol": "grpc"} if collector else {"enabled": False}
    telemetry |= {"intake": intake} if intake else {}
    proxy = {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:9"}
    settings = {"proxy": proxy, "telemetry": telemetry, "celery": QUICK | celery}
    sidecar = start_sidecar(settings, QUICK_EXPORT | {"REDIS_URL": broker.sidecars_url})
    eventually(lambda: sidecar.json(QUEUES)["events"]["state"] == "up", "events to be heard")
    return sidecar


def worker_of(sidecar: Sidecar, name: str) -> dict[str, Any]:
    """What is known of a worker; nothing at first."""
    return next((worker for worker in sidecar.json(QUEUES)["workers"] if worker["name"] == f"{name}@tests"), {})


def queue_of(sidecar: Sidecar, name: str) -> dict[str, Any]:
    """What is known of a queue, once it was looked at."""
    queues = {queue["name"]: queue for queue in sidecar.json(QUEUES)["queues"]}
    assert name in queues, f"found {sorted(queues)}, expected {name}"
    return queues[name]


def counts(sidecar: Sidecar, queue: str | None = None) -> dict[str, dict[str, int]]:
    """What is known of the tasks of each name, in one queue or all, without what is 0."""
    found: dict[str, dict[str, int]] = {}
    for task in sidecar.json(QUEUES)["tasks"]:
        if queue not in (None, task["queue"]):
            continue
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


CANARY = "canary-of-celery-4711"

def expected(times: int = 10) -> dict[str, dict[str, int]]:
    """The counts of what `send_them` sends so many times."""
    return {
        "lab.good": dict.fromkeys(("sent", "received", "started", "succeeded"), 6 * times),
        "lab.discover": dict.fromkeys(("sent", "received", "started", "result_error"), times),
        "lab.publish": dict.fromkeys(("sent", "received", "started", "result_error"), times),
        "lab.crash": dict.fromkeys(("sent", "received", "started", "failed"), times),
        # a worker that sends a task again tells it, too
        "lab.again": dict.fromkeys(("sent", "received", "started"), 2 * times) | dict.fromkeys(("retried", "succeeded"), times),
    }


def send_them(tasks: Celery, times: int = 10, **options: Any) -> None:
    """All that is expected, with the canary wherever there is room for it."""
    for _ in range(times):
        for _ in range(6):
            tasks.send_task("lab.good", args=[CANARY], kwargs={"token": CANARY}, **options)
        for name in ("lab.discover", "lab.publish", "lab.crash"):
            tasks.send_task(name, args=[f"postgresql://u:{CANARY}@h/db"], **options)
        tasks.send_task("lab.again", **options)


def has_counted(sidecar: Sidecar, wanted: dict[str, dict[str, int]], queue: str | None = None, but: str = "") -> bool:
    """Whether these are the counts, `but` for one kind; says what is different."""
    found = counts(sidecar, queue)
    for steps in found.values():
        steps.pop(but, None)
    wanted = {name: {step: count for step, count in steps.items() if step != but} for name, steps in wanted.items()}
    different = {name: found.get(name) for name in wanted.keys() | found.keys() if found.get(name) != wanted.get(name)}
    assert not different, f"{queue}: {different}"
    return True


def started(sidecar: Sidecar) -> int:
    """Runs of tasks, of all names and queues."""
    return sum(task["started"] for task in sidecar.json(QUEUES)["tasks"])


def kept(broker: Broker, ids: list[str]) -> int:
    """Of how many of these tasks Redis has the result."""
    with redis_client.Redis.from_url(broker.url) as connection:
        return connection.exists(*(f"celery-task-meta-{identity}" for identity in ids))


def wait_a_little(look: Callable[[], Any]) -> bool:
    """Whether it comes within two seconds."""
    try:
        return bool(eventually(look, "it", seconds=2))
    except AssertionError:
        return False
