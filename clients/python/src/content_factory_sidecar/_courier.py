"""Takes what monitors say to the sidecar: a bounded queue and one daemon thread for each process and address.

Who says something never waits: it is queued, or dropped and counted. The thread starts with the first word of a
process, so that each child of a fork has its own.
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import queue
import threading
import time
from typing import Any, NamedTuple, Optional, Union
from urllib.parse import urlsplit

PATH = "/api/v1/monitoring/tasks"
# Some seconds' worth of a busy process; about 1 KiB each.
MOST_QUEUED = 1_000
# An application speaks to one sidecar; more addresses than this are a mistake, and have no thread.
MOST_ADDRESSES = 8
# The sidecar answers from memory: who needs longer than this is not there.
TIMEOUT_SECONDS = 1.0
# After a failure nothing is tried for so long, so that a sidecar that is away costs nothing.
PAUSE_SECONDS = 1.0
# The sidecar closes a connection that has idled for five seconds.
IDLE_SECONDS = 3.0
# Of an end, which does no harm when it is told twice; one that is never told makes a task look lost.
ATTEMPTS = 3
LONGEST_ANSWER = 64 * 1024
# How long the end of a process waits for what is still queued.
LAST_SECONDS = 1.0


class Run:
    """One run of a monitor. Its id is written by the courier alone, and by nobody before the beginning is told."""

    __slots__ = ("courier", "error_type", "id", "pid", "started")

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.pid = os.getpid()
        # none when its beginning could not be said, so that nobody would understand its end
        self.courier: Optional[Courier] = None
        self.error_type: Optional[str] = None
        self.id: Optional[str] = None


class Beginning:
    """That a task begins."""

    __slots__ = ("body", "run", "traceparent")

    def __init__(self, run: Run, body: dict[str, Any], traceparent: Optional[str]) -> None:
        self.run, self.body, self.traceparent = run, body, traceparent


class End:
    """That a task has ended."""

    __slots__ = ("body", "run")

    def __init__(self, run: Run, body: dict[str, Any]) -> None:
        self.run, self.body = run, body


Word = Union[Beginning, End, threading.Event]


class Pass(NamedTuple):
    """By what one is let in: a token, or a file that begins with one. Empty where none is asked for."""

    token: Optional[str] = None
    file: Optional[str] = None

    def __repr__(self) -> str:
        return "Pass(***)"

    def read(self) -> Optional[str]:
        """The token of now."""
        if self.token or not self.file:
            return self.token or None
        with open(self.file, encoding="ascii") as opened:
            words = opened.read(LONGEST_ANSWER).split()
        return words[0] if words else None


class Courier:
    """The way to one sidecar."""

    def __init__(self, url: str, admission: Pass) -> None:
        self._place = _place(url)
        self._pass = admission
        self._forget()

    def _forget(self) -> None:
        """As it is in a process in which nobody has said anything, which the child of a fork is."""
        # a simple queue, since its lock is never held while Python code runs: not even a signal handler can block on it
        self._queue: queue.SimpleQueue[Word] = queue.SimpleQueue()
        self._thread: Optional[threading.Thread] = None
        self._starting = threading.Lock()
        self._connection: Optional[http.client.HTTPConnection] = None
        self._token: Optional[str] = None
        self._used_at = 0.0
        self._deaf_until = 0.0
        # of a kind that a signal handler may take again; it is held for a sum
        self._counting = threading.RLock()
        self.dropped = 0

    def give(self, word: Union[Beginning, End]) -> bool:
        """Queues a word; false, and counted, when there is no room or nobody to take it."""
        if self._place is None or self._queue.qsize() >= MOST_QUEUED or not self._is_running():
            self._drop()
            return False
        self._queue.put(word)
        return True

    def _drop(self) -> None:
        with self._counting:
            self.dropped += 1

    def flush(self, seconds: float) -> bool:
        """Waits until all that was queued is told or dropped."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return True
        told = threading.Event()
        self._queue.put(told)
        return told.wait(seconds)

    def _is_running(self) -> bool:
        thread = self._thread
        if thread is not None and thread.is_alive():
            return True
        # whoever comes second goes on: the first one starts it, and what is queued meanwhile is found by it
        if not self._starting.acquire(blocking=False):
            return True
        try:
            thread = self._thread
            if thread is None or not thread.is_alive():
                thread = threading.Thread(target=self._work, name="content-factory-sidecar", daemon=True)
                thread.start()
                self._thread = thread
            return True
        except RuntimeError:  # no more threads, or the interpreter ends
            return False
        finally:
            self._starting.release()

    def _work(self) -> None:
        while True:
            word = self._queue.get()
            if isinstance(word, threading.Event):
                word.set()
                continue
            try:
                is_told = self._tell(word)
            except Exception:
                # whatever the other side is, it is not a sidecar that answers
                self._hang_up()
                self._deaf_until = time.monotonic() + PAUSE_SECONDS
                is_told = False
            if not is_told:
                self._drop()

    def _tell(self, word: Union[Beginning, End]) -> bool:
        if time.monotonic() < self._deaf_until:
            return False
        if isinstance(word, Beginning):
            status, body = self._ask("POST", PATH, word.body, word.traceparent)
            if status != 201:
                return False
            identity = json.loads(body)["id"]
            word.run.id = identity if isinstance(identity, str) else None
            return True
        if word.run.id is None:
            return False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                status, _ = self._ask("PATCH", f"{PATH}/{word.run.id}", word.body, None)
            except (OSError, http.client.HTTPException):
                if attempt == ATTEMPTS:
                    raise
                status = 0
            if status not in (0, 429):
                return status == 200
            time.sleep(PAUSE_SECONDS * attempt / ATTEMPTS)
        return False

    def _ask(self, method: str, path: str, body: dict[str, Any], traceparent: Optional[str]) -> tuple[int, bytes]:
        """One exchange; one more, when the token of a file is refused: it may have been replaced."""
        status, answer = self._ask_once(method, path, body, traceparent)
        if status == 401 and self._pass.file:
            self._hang_up()
            status, answer = self._ask_once(method, path, body, traceparent)
        return status, answer

    def _ask_once(self, method: str, path: str, body: dict[str, Any], traceparent: Optional[str]) -> tuple[int, bytes]:
        """One exchange. A connection that the sidecar has closed meanwhile is replaced, once."""
        if self._connection is not None and time.monotonic() - self._used_at > IDLE_SECONDS:
            self._hang_up()
        if self._connection is not None:
            try:
                return self._exchange(self._connection, method, path, body, traceparent)
            except (ConnectionError, http.client.HTTPException):
                self._hang_up()
        self._connection = self._connect()
        return self._exchange(self._connection, method, path, body, traceparent)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: dict[str, Any],
        traceparent: Optional[str],
    ) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        if traceparent is not None:
            headers["traceparent"] = traceparent
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        prefix = "" if self._place is None else self._place[3]
        try:
            connection.request(method, prefix + path, json.dumps(body), headers)
            response = connection.getresponse()
            answer = response.read(LONGEST_ANSWER)
        except Exception:
            self._hang_up()
            raise
        if not response.isclosed():  # longer than any answer of a sidecar
            self._hang_up()
        self._used_at = time.monotonic()
        return response.status, answer

    def _connect(self) -> http.client.HTTPConnection:
        if self._place is None:
            raise OSError("no address")
        self._token = self._pass.read()
        scheme, host, port, _ = self._place
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        return kind(host, port, timeout=TIMEOUT_SECONDS)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _place(url: str) -> Optional[tuple[str, str, Optional[int], str]]:
    """Scheme, host, port and the path before ours; none when it is no address."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return None
        return parts.scheme, parts.hostname, parts.port, parts.path.rstrip("/")
    except ValueError:
        return None


_couriers: dict[tuple[str, Pass], Courier] = {}


def courier(url: str, admission: Pass = Pass()) -> Courier:
    """The courier of this address and this token in this process."""
    place = (url, admission)
    known = _couriers.get(place)
    if known is None:
        place = place if len(_couriers) < MOST_ADDRESSES else ("", Pass())
        known = _couriers.setdefault(place, Courier(url, admission))
    return known


def dropped() -> int:
    """How many beginnings and ends of tasks this process could not tell."""
    return sum(courier.dropped for courier in list(_couriers.values()))


def flush(seconds: float = LAST_SECONDS) -> bool:
    """Waits until all that was said so far is told or dropped, for so long at most; true when it is.

    The end of a process calls it by itself, unless the process ends by `os._exit`.
    """
    deadline = time.monotonic() + seconds
    return all([courier.flush(max(0.0, deadline - time.monotonic())) for courier in list(_couriers.values())])


def _forget_all() -> None:
    for courier in list(_couriers.values()):
        courier._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
atexit.register(flush)
