"""Workers that are killed and a Redis that is restarted, over many tasks: what is counted is true, and what was missed is known.

What is true the tasks write into a file. `CONTRACT=full` (`make soak`) runs 50,000 and tells what the room costs; else 1,000.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

from celery import Celery
from celery_lab import QUEUES, Broker, Worker, counts, kept, watching
from sidecar import Sidecar, SidecarMaker
from waiting import eventually

IS_FULL = os.environ.get("CONTRACT") == "full"
TASKS = 50_000 if IS_FULL else 1_000
ROUNDS = 10 if IS_FULL else 4
# Of a round; the last task of each is long, so that a killed worker has something to lose.
LONG_SECONDS = 600
# Sent just before Redis goes, and what fails then.
IN_FLIGHT = 50
LOST_REDIS = {"ConnectionError", "OperationalError", "BackendStoreError", "TimeoutError"}


class Marks:
    """What the tasks themselves say."""

    def __init__(self, file: Path):
        self.file = file
        file.touch()

    def ids(self, what: str) -> set[str]:
        """The tasks that have begun or ended."""
        lines = self.file.read_text().splitlines()
        return {line.split()[1] for line in lines if line.startswith(what) and len(line.split()) == 2}


def test_over_kills_and_a_restart_nothing_is_counted_that_was_not_and_what_was_missed_is_known(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, servers_folder: Path, tmp_path: Path
):
    marks = Marks(tmp_path / "marks")
    settings = {"LAB_MARKS": str(marks.file)}
    kinds = {"forked": ("-E", "-c", "4"), "threaded": ("-E", "-P", "threads", "-c", "8")}
    workers = [Worker(servers_folder, broker, name, *flags, settings=settings) for name, flags in kinds.items()]
    sidecar = watching(start_sidecar, broker)
    for worker in workers:
        worker.start()
    sent: list[str] = []
    killed = 0
    try:
        for number in range(ROUNDS):
            batch = [tasks.send_task("lab.marked", args=[0]).id for _ in range(TASKS // ROUNDS)]
            sent += batch
            eventually(lambda: len(marks.ids("ended") & set(batch)) == len(batch), f"round {number}", seconds=300)  # noqa: B023
            if number == ROUNDS // 2:
                restart(broker, workers, tasks, sidecar, sent)
            else:
                lost = workers[number % 2]
                long = begin_long(lost, tasks, marks, sidecar)
                sent.append(long)
                lost.kill()
                lost.start()
                killed += 1
        ended, begun = marks.ids("ended"), marks.ids("began")
        found = lambda: Counter(counts(sidecar).get("lab.marked", {}))  # noqa: E731
        eventually(lambda: found()["lost"] == killed, f"{killed} lost tasks", seconds=60)
        missed = sidecar.json(QUEUES)["missed"]
        told = found()
        print(f"{len(sent)} tasks: {len(begun)} began, {len(ended)} ended, {dict(told)}, {missed} missed, {killed} kills")
        assert len(begun) - len(ended) == killed == told["lost"]
        # Celery calls a task failed whose result it could not keep: as it did while Redis was away, and at no other time
        classes = {failure["exception"] for failure in sidecar.json(QUEUES)["failures"]}
        assert told["succeeded"] <= len(ended) and told["failed"] <= IN_FLIGHT and classes <= LOST_REDIS, classes
        # each that began has one end, or is known as one that nobody heard of
        ends = sum(told[end] for end in ("succeeded", "failed", "lost", "unseen"))
        assert ends <= len(begun) <= ends + missed
        assert told["unseen"] + missed <= IN_FLIGHT and told["started"] + missed >= len(begun) >= told["started"]
        if IS_FULL:
            tell_cost(sidecar, tasks, marks)
    finally:
        for worker in workers:
            worker.kill()


def begin_long(worker: Worker, tasks: Celery, marks: Marks, sidecar: Sidecar) -> str:
    """Has this worker run a task that does not end, and waits until the sidecar knows."""
    before = counts(sidecar).get("lab.marked", {}).get("started", 0)
    queue = f"{worker.name}-alone"
    consume(tasks, worker, queue)
    long = tasks.send_task("lab.marked", args=[LONG_SECONDS], queue=queue).id
    eventually(lambda: long in marks.ids("began"), "the long task to begin")
    eventually(lambda: counts(sidecar)["lab.marked"]["started"] > before, "its start to be heard")
    return long


def consume(tasks: Celery, worker: Worker, queue: str) -> None:
    """Has this worker, and no other, consume a queue, too."""
    # a connection of its own: one that was kept may be to a Redis that is gone
    with tasks.connection_for_write() as connection:
        destination = [f"{worker.name.removeprefix('celery-')}@tests"]
        tasks.control.add_consumer(queue, destination=destination, connection=connection)


def restart(broker: Broker, workers: list[Worker], tasks: Celery, sidecar: Sidecar, sent: list[str]) -> None:
    """Redis goes while tasks run, and comes back; so do the workers, if need be by their supervisor."""
    sent += [tasks.send_task("lab.marked", args=[0.01]).id for _ in range(IN_FLIGHT)]
    broker.kill()
    broker.start()
    eventually(lambda: sidecar.json(QUEUES)["state"] == "watching", "both connections", seconds=40)
    for worker in workers:
        queue = f"{worker.name}-back"

        def works() -> bool:
            consume(tasks, worker, queue)  # noqa: B023
            sent.append(tasks.send_task("lab.marked", args=[0], queue=queue).id)  # noqa: B023
            identity = sent[-1]
            try:
                return bool(eventually(lambda: kept(broker, [identity]), "its result", seconds=2))
            except AssertionError:
                return False

        worker.supervised(works, f"{worker.name} to come back")


def tell_cost(sidecar: Sidecar, tasks: Celery, marks: Marks) -> None:
    """What a minute at 100 tasks a second takes, the whole sidecar."""
    used, began = cpu_seconds(sidecar), time.monotonic()
    for number in range(6_000):
        tasks.send_task("lab.marked", args=[0])
        time.sleep(max(0.0, began + number / 100 - time.monotonic()))
    seconds = time.monotonic() - began
    share = (cpu_seconds(sidecar) - used) / seconds
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    memory = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    print(f"{6_000 / seconds:.0f} tasks/s: {100 * share:.2f} % of a core, {memory}, with 50,000 tasks before")


def cpu_seconds(sidecar: Sidecar) -> float:
    """Of the sidecar since its start."""
    fields = Path(f"/proc/{sidecar.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
