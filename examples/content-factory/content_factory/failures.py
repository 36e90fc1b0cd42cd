"""Failures to look at: each is asked for by its name, and shows somewhere in the sidecar."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from threading import Event

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from content_factory.database import engine
from content_factory.settings import settings

FAILURES = {
    "web-unhealthy": "GET /health answers 503",
    "web-event-loop-blocked": "the web processes are busy nearly all the time, and answer late",
    "ai-refuses": "each script is refused by the AI service: 502",
    "publish-refused": "each platform refuses each video, in an answer that is 200",
    "task-never-ended": "publications are told as begun, and never as ended",
    "celery-task-fails": "each rendering ends with an exception",
    "celery-task-says-error": "each rendering is a success for Celery, and says in its result that it failed",
    "celery-task-retried": "each rendering is tried twice",
    "celery-worker-killed": "every fifth rendering kills its worker; another one is started",
    "celery-worker-deaf": "the worker lives, answers and takes no message",
    "celery-queue-unserved": "renderings go to a queue that no worker consumes",
    "database-blocked": "a transaction holds a row that another one waits for",
    "database-idle-transaction": "a transaction is begun and left open",
    "database-connections-used-up": "all connections that the server has are taken",
}
"""What happens, by the name after `--fail`."""


def failing(name: str) -> bool:
    """Whether this failure was asked for."""
    assert name in FAILURES, name
    return name in settings.failures


async def hold_up_the_event_loop() -> None:
    """What nobody should do in a coroutine, over and over."""
    while True:
        time.sleep(3)  # noqa: ASYNC251
        await asyncio.sleep(0.1)


def idle_transaction(over: Event) -> None:
    """Reads a row and does nothing more."""
    with engine.connect() as connection:
        connection.execute(text("SELECT max(id) FROM products"))
        over.wait()


def blocked(over: Event) -> None:
    """Changes a row and keeps it; a second session wants the same row, again and again."""
    change = text("UPDATE products SET name = name WHERE id = (SELECT min(id) FROM products)")
    with engine.connect() as holder, engine.connect() as waiter:
        while holder.execute(change).rowcount == 0:
            holder.rollback()
            if over.wait(0.2):
                return
        while not over.is_set():
            # in pieces, so that the end of it all is near
            waiter.execute(text("SET LOCAL lock_timeout = '5s'"))
            try:
                waiter.execute(change)
            except SQLAlchemyError:
                waiter.rollback()


def connections_used_up(over: Event) -> None:
    """Takes connections until the server has none left, and takes those that become free."""
    with ExitStack() as held:
        while not over.wait(0.2):
            try:
                while True:
                    held.enter_context(engine.connect()).detach()
            except SQLAlchemyError:
                pass


IN_THE_DATABASE: dict[str, Callable[[Event], None]] = {
    "database-blocked": blocked,
    "database-idle-transaction": idle_transaction,
    "database-connections-used-up": connections_used_up,
}
"""Those that are sessions of their own; each goes on until it is told that all is over."""
