"""The example application, unchanged, and one route more: which trace the agent in this process believes to be in.

`AGENT` names the agent. Two of them are put in from outside (`ddtrace-run`, `newrelic-admin run-program`), as their
vendors have it; Sentry's SDK is switched on by two lines.
"""

from __future__ import annotations

import os

AGENT = os.environ["AGENT"]

if AGENT == "sentry-sdk":
    import sentry_sdk

    sentry_sdk.init(traces_sample_rate=1.0)

from content_factory.app import app  # noqa: E402  the SDK must be there before FastAPI


def of_ddtrace() -> tuple[str, str]:
    """The span that Datadog's library made for this request."""
    from ddtrace.trace import tracer

    span = tracer.current_root_span()
    return f"{span.trace_id:032x}", f"{span.parent_id or 0:016x}"


def of_newrelic() -> tuple[str, str | None]:
    """The transaction of New Relic's agent."""
    import newrelic.agent

    return newrelic.agent.current_trace_id(), newrelic.agent.current_transaction().parent_span


def of_sentry() -> tuple[str, str | None]:
    """The transaction of Sentry's SDK."""
    transaction = sentry_sdk.get_current_span().containing_transaction
    return transaction.trace_id, transaction.parent_span_id


VIEWS = {"ddtrace": of_ddtrace, "newrelic": of_newrelic, "sentry-sdk": of_sentry}


@app.get("/agent")
async def agent() -> dict[str, str | None]:
    """The trace that this request is part of, and the span that it was asked by."""
    trace_id, parent_id = VIEWS[AGENT]()
    return {"trace_id": trace_id, "parent_id": parent_id}
