"""One line per request, with the trace id that the caller sent."""

import logging
import os
import re
import sys
import time
from typing import NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("content_factory.requests")

# W3C Trace Context, section 3.2: version, trace id, id of the caller's span, flags
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class Caller(NamedTuple):
    """Who asked, as far as the headers say; `-` where they do not."""

    trace_id: str = "-"
    span_id: str = "-"
    agent: str = "-"


def caller(scope: Scope) -> Caller:
    """Reads the caller from the headers of a request."""
    headers = dict(scope["headers"])
    agent = headers.get(b"user-agent", b"-").decode("latin-1")
    match = TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    if match is None:
        return Caller(agent=agent)
    return Caller(match[1].decode(), match[2].decode(), agent)


def configure() -> None:
    """Sends the lines to standard error; one write each, so that several processes may share a file."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class RequestLog:
    """ASGI middleware that writes a line when a request or a WebSocket is over, whatever its end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on and remembers the status."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status = 101 if scope["type"] == "websocket" else 500

        async def remember_status(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        started = time.monotonic()
        try:
            await self.app(scope, receive, remember_status)
        finally:
            who = caller(scope)
            logger.info(
                'request method=%s path=%s status=%d seconds=%.4f pid=%d trace_id=%s span_id=%s agent="%s"',
                scope.get("method", "GET"),
                scope["path"],
                status,
                time.monotonic() - started,
                os.getpid(),
                who.trace_id,
                who.span_id,
                who.agent,
            )
