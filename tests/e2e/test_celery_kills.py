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
# Sent just before Redis goes, and what fails then.
IN_FLIGHT = 50
LOST_REDIS = {"ConnectionError", "OperationalError", "BackendStoreError", "TimeoutError", "(unknown)"}


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
                killed += 1
                give_an_endless_one(workers[number % 2], tasks)
                # its start leaves the worker within a second, and would go with it
                eventually(lambda: of(sidecar, "lab.endless")["started"] == killed, "its start to be heard")  # noqa: B023
                workers[number % 2].kill()
                workers[number % 2].start()
        ended, begun = marks.ids("ended"), marks.ids("began")
        eventually(lambda: of(sidecar, "lab.endless")["lost"] == killed, f"{killed} lost tasks", seconds=60)
        eventually(lambda: all_told(sidecar, begun), "an end of each, or its being missed")
        told, state = of(sidecar, "lab.marked"), sidecar.json(QUEUES)
        missed = state["missed"] + state["uncertain"]
        print(f"{len(sent)} tasks: {len(begun)} began, {len(ended)} ended, {dict(told)}, {missed} missed or uncertain, {killed} kills")
        # Celery calls a task failed whose result it could not keep: as it did while Redis was away, and at no other time
        classes = {failure["exception"] for failure in sidecar.json(QUEUES)["failures"]}
        assert told["succeeded"] <= len(ended) and told["failed"] <= IN_FLIGHT and classes <= LOST_REDIS, classes
        # nothing was counted that was not, and what nobody heard of is no more than was on its way when Redis went
        assert told["lost"] == 0 and told["succeeded"] + told["failed"] + told["unseen"] <= len(begun) - killed
        assert told["unseen"] + missed <= IN_FLIGHT and told["started"] <= len(begun) - killed
        if IS_FULL:
            tell_cost(sidecar, tasks, marks)
    finally:
        for worker in workers:
            worker.kill()


def of(sidecar: Sidecar, name: str) -> Counter[str]:
    """The counts of one name."""
    return Counter(counts(sidecar).get(name, {}))


def all_told(sidecar: Sidecar, begun: set[str]) -> bool:
    """Whether each task that began has an end, is missed, or is uncertain: its worker ran it while Redis was away, and died of that."""
    both, state = of(sidecar, "lab.marked") + of(sidecar, "lab.endless"), sidecar.json(QUEUES)
    told = sum(both[end] for end in ("succeeded", "failed", "lost", "unseen")) + state["missed"] + state["uncertain"]
    assert told >= len(begun), f"{told} of {len(begun)}: {dict(both)}, {state['missed']} missed, {state['uncertain']} uncertain"
    return True


def give_an_endless_one(worker: Worker, tasks: Celery) -> None:
    """Has this worker run a task that does not end."""
    queue = f"{worker.name}-alone"
    consume(tasks, worker, queue)
    tasks.send_task("lab.endless", queue=queue)


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
