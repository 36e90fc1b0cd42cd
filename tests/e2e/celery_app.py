"""Tasks of every fate, for Celery workers that the tests start."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery, Task
from celery.signals import task_postrun

SETTINGS = {
    "task_send_sent_event": True,
    "task_default_queue": "main-queue",
    "task_routes": {"lab.render": {"queue": "video-queue"}},
    "broker_connection_retry_on_startup": True,
    # a worker that is killed holds no message of the next test
    "worker_prefetch_multiplier": 1,
}

# The workers run the tasks and keep the results.
app = Celery("lab", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])
app.conf.update(SETTINGS)

# The tests only send: with a result backend they would subscribe to each result, which a Redis that goes away holds up.
orders = Celery("lab", broker=os.environ["REDIS_URL"], set_as_current=False)
orders.conf.update(SETTINGS)


@app.task(name="lab.good")
def good(*_: Any, **__: Any) -> dict[str, str]:
    """Ends well."""
    return {"status": "success"}


@app.task(name="lab.warm")
def warm() -> None:
    """Tells that the worker works."""


@app.task(name="lab.discover")
def discover(secret: str) -> dict[str, str]:
    """Ends in the way of the real application: a success whose result is an error."""
    return {"status": "error", "message": f"could not reach {secret}"}


@app.task(name="lab.publish")
def publish(secret: str) -> dict[str, Any]:
    """One of several results failed."""
    return {"status": "completed", "results": [{"status": "published"}, {"status": "failed", "why": secret}]}


@app.task(name="lab.crash")
def crash(secret: str) -> None:
    """Raises."""
    raise ValueError(f"could not connect to {secret}")


@app.task(name="lab.again", bind=True, max_retries=1)
def again(self: Task) -> dict[str, str]:
    """Ends well at the second attempt."""
    if self.request.retries == 0:
        raise self.retry(countdown=0, exc=RuntimeError("again"))
    return {"status": "success"}


@app.task(name="lab.slow")
def slow(seconds: float) -> None:
    """Takes its time."""
    time.sleep(seconds)


@app.task(name="lab.marked", bind=True)
def marked(self: Task, seconds: float) -> None:
    """Tells a file that it runs; and, once its result is kept, that it has run."""
    mark("began", self.request.id)
    time.sleep(seconds)


@app.task(name="lab.endless", bind=True)
def endless(self: Task) -> None:
    """Does not end before its worker is killed."""
    mark("began", self.request.id)
    time.sleep(600)


@task_postrun.connect(sender=marked)
def has_run(task_id: str, **_: Any) -> None:
    """The result is with Redis."""
    mark("ended", task_id)


def mark(what: str, identity: str) -> None:
    """A line of its own, whoever writes at the same time."""
    with open(os.environ["LAB_MARKS"], "a", buffering=1) as marks:
        marks.write(f"{what} {identity}\n")


@app.task(name="lab.limited", rate_limit="1/h")
def limited() -> None:
    """The first of an hour runs; workers take the others and hold them."""


@app.task(name="lab.parent")
def parent() -> None:
    """Sends another one."""
    good.delay()


@app.task(name="lab.render")
def render() -> None:
    """Goes to a queue of its own."""
