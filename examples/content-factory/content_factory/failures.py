"""Failures to look at: each is asked for by its name, and shows somewhere in the sidecar."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from threading import Event

from redis import Redis, RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from content_factory.database import engine
from content_factory.settings import settings

FAILURES = {
    "web-unhealthy": "GET /health answers 503",
    "web-event-loop-blocked": "the web processes are busy nearly all the time, and answer late",
    "ai-refuses": "each script is refused by the AI service: 502",
    "ai-key-revoked": "the AI service does not know the key any more: 401",
    "ai-quota-used-up": "the AI service has had enough: 429",
    "ai-outage": "the AI service is down: 503",
    "publish-refused": "each platform refuses each video, in an answer that is 200",
    "task-never-ended": "publications are told as begun, and never as ended",
    "heartbeat-missed": "the traffic sends no heartbeat",
    "redis-hangs": "Redis takes every connection and answers nobody",
    "celery-task-fails": "each rendering ends with an exception",
    "celery-task-says-error": "each rendering is a success for Celery, and says in its result that it failed",
    "celery-task-retried": "each rendering is tried twice",
    "celery-worker-killed": "every fifth rendering kills its worker; another one is started",
    "celery-worker-deaf": "the worker lives, answers and takes no message",
    "celery-worker-slow": "each rendering takes three seconds, and more are ordered meanwhile",
    "celery-queue-unserved": "renderings go to a queue that no worker consumes",
    "database-slow-statement": "a statement takes a second, again and again",
    "database-deadlock": "two transactions wait for each other, again and again",
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


def slow_statement(over: Event) -> None:
    """Counts slowly."""
    with engine.connect() as connection:
        while not over.wait(0.1):
            connection.execute(text("SELECT count(*), pg_sleep(1) FROM products"))
            connection.rollback()


def deadlock(over: Event) -> None:
    """Two sessions change the same two rows, each in its own order; the server breaks one of them off."""
    change = text("UPDATE products SET name = name WHERE id = :id")
    with engine.connect() as one, engine.connect() as other, ThreadPoolExecutor(1) as thread:
        while not over.wait(0.5):
            ids = one.scalars(text("SELECT id FROM products ORDER BY id DESC LIMIT 2")).all()
            if len(ids) == 2:
                first, second = ({"id": row} for row in ids)
                one.execute(change, first)
                other.execute(change, second)
                waits = thread.submit(one.execute, change, second)
                with suppress(SQLAlchemyError):
                    other.execute(change, first)
                other.rollback()
                with suppress(SQLAlchemyError):
                    waits.result()
            one.rollback()


def hold_redis(over: Event) -> None:
    """Has Redis answer nobody for ten seconds, again and again: also for those who ask for the next ten."""
    with Redis.from_url(settings.redis_url) as redis:
        while not over.wait(0.1):
            with suppress(RedisError):
                redis.execute_command("CLIENT", "PAUSE", 10_000, "ALL")


IN_THE_DATABASE: dict[str, Callable[[Event], None]] = {
    "database-slow-statement": slow_statement,
    "database-deadlock": deadlock,
    "database-blocked": blocked,
    "database-idle-transaction": idle_transaction,
    "database-connections-used-up": connections_used_up,
}
"""Those that are sessions of their own; each goes on until it is told that all is over."""
