"""`TaskMonitor`: the piece of code that it surrounds is a task of the application."""

from __future__ import annotations

import functools
import inspect
import os
import re
import time
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, cast

from content_factory_sidecar import _surroundings
from content_factory_sidecar._courier import Beginning, End, Pass, Run, courier

URL = "http://127.0.0.1:18090"
# What the sidecar takes.
LONGEST = 100
CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
TASK_ID = re.compile(r"[A-Za-z0-9\-_.:/]{1,100}")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
OTHER = "_OTHER"

Function = TypeVar("Function", bound=Callable[..., Any])


class TaskMonitor:
    """Tells the sidecar that a task begins, and how it ends: by an exception it has failed.

    Of an exception only its class is told, never its text. Works as `with`, as `async with`, and as the decorator of
    a function or a coroutine function. Inside a task of Celery its id is told too, so that both count once.
    """

    def __init__(
        self,
        name: str,
        *,
        url: Optional[str] = None,
        traceparent: Optional[str] = None,
        token: Optional[str] = None,
        token_file: Optional[str] = None,
    ) -> None:
        """`name` is the kind of task, without ids in it: the sidecar tells a hundred names apart.

        `url` is the sidecar's admin port, else the variable SIDECAR_URL, else this machine's port 18090. `traceparent`
        links the task to the span that a request brought, where the application has no OpenTelemetry. A sidecar on
        another machine wants a token that writes: `token`, or the first word of `token_file`, which is read again when
        it changes; else the variables SIDECAR_TOKEN and SIDECAR_TOKEN_FILE.
        """
        self._name = name
        self._url = url
        self._traceparent = traceparent
        self._token = token
        self._token_file = token_file
        # the runs that are open, the innermost last: one monitor may be entered again
        self._runs: list[Run] = []

    def fail(self, error_type: Optional[str] = None) -> None:
        """Makes the task that runs a failed one, though no exception ends it."""
        if self._runs:
            self._runs[-1].error_type = _told(error_type or OTHER)

    def __enter__(self) -> TaskMonitor:
        self._begin()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._end(kind)

    async def __aenter__(self) -> TaskMonitor:
        self._begin()
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._end(kind)

    def __call__(self, function: Function) -> Function:
        """Each call of the function is a task."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def waited_for(*arguments: Any, **named: Any) -> Any:
                async with self._again():
                    return await function(*arguments, **named)

            return cast(Function, waited_for)

        @functools.wraps(function)
        def called(*arguments: Any, **named: Any) -> Any:
            with self._again():
                return function(*arguments, **named)

        return cast(Function, called)

    def _again(self) -> TaskMonitor:
        return TaskMonitor(
            self._name, url=self._url, traceparent=self._traceparent, token=self._token, token_file=self._token_file
        )

    def _begin(self) -> None:
        run = Run()
        self._runs.append(run)
        try:
            body: dict[str, Any] = {"name": str(self._name)[:LONGEST]}
            task = _surroundings.celery_task()
            if task is not None and TASK_ID.fullmatch(task):
                body["task_id"] = task
            traceparent = self._traceparent or _surroundings.traceparent()
            # often a header as a stranger wrote it
            if traceparent is not None and not TRACEPARENT.fullmatch(traceparent):
                traceparent = None
            way = courier(self._url or os.environ.get("SIDECAR_URL") or URL, self._pass())
            if way.give(Beginning(run, body, traceparent)):
                run.courier = way
        except Exception:
            return

    def _pass(self) -> Pass:
        if self._token or self._token_file:
            return Pass(self._token, self._token_file)
        return Pass(os.environ.get("SIDECAR_TOKEN"), os.environ.get("SIDECAR_TOKEN_FILE"))

    def _end(self, kind: Optional[type[BaseException]]) -> None:
        try:
            run = self._runs.pop()
            # what was begun before a fork ends in the process that began it
            if run.courier is None or run.pid != os.getpid():
                return
            error_type = run.error_type if kind is None else _class_of(kind)
            body: dict[str, Any] = {"state": "succeeded" if error_type is None else "failed"}
            if error_type is not None:
                body["error_type"] = error_type
            body["duration_seconds"] = time.monotonic() - run.started
            run.courier.give(End(run, body))
        except Exception:
            return


def _class_of(kind: type[BaseException]) -> str:
    """The name of a class, with its module unless it is Python's own."""
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return _told(name, kind.__name__)


def _told(*names: str) -> str:
    """The first of these that the sidecar takes as the name of a class."""
    for name in names:
        if len(name) <= LONGEST and CLASS.fullmatch(name):
            return name
    return OTHER
