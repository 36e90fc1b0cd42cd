"""Waiting for a condition, with a deadline: the only place of the harness that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

# Two shared cores make everything slow now and then; a condition that holds is noticed at once all the same.
DEADLINE_SECONDS = 30.0
LOOK_EVERY_SECONDS = 0.02


def eventually(look: Callable[[], Seen], what: str, seconds: float = DEADLINE_SECONDS) -> Seen:
    """Looks until it sees something true, and returns that.

    `AssertionError`, `LookupError` and `OSError` count as not yet seen: a server that does not listen so far, a page without the line
    or the entry.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen = look()
            reason = f"saw {seen!r}"
        except (AssertionError, LookupError, OSError) as error:
            seen, reason = None, f"{type(error).__name__}: {error}"
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s: {reason[:2000]}, expected {what}")
        time.sleep(LOOK_EVERY_SECONDS)
