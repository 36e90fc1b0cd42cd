"""Beside the agents of the vendors: one trace on both sides, and no request counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from exported import CLIENT, SERVER
from factory import BIN, Application
from sidecar import Sidecar
from waiting import eventually

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
NOWHERE = "127.0.0.1:1"  # nothing listens there: the agents run without their services

# How each agent comes into the application, and what keeps it from its service.
AGENTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "ddtrace": (
        (str(BIN / "ddtrace-run"),),
        {
            "DD_TRACE_AGENT_URL": f"http://{NOWHERE}",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        },
    ),
    "newrelic": (
        (str(BIN / "newrelic-admin"), "run-program"),
        # its own stand-in for the collector; requests wait until the agent is registered with it
        {"NEW_RELIC_DEVELOPER_MODE": "true", "NEW_RELIC_STARTUP_TIMEOUT": "10", "NEW_RELIC_LOG": "stderr"},
    ),
    "sentry-sdk": ((), {"SENTRY_DSN": f"http://key@{NOWHERE}/1"}),
}
AGENT = pytest.mark.parametrize("agent", list(AGENTS))
READERS_OF_TRACEPARENT = pytest.mark.parametrize("agent", ["ddtrace", "newrelic"])

Instrumented = Callable[[str], Application]


@pytest.fixture(scope="module")
def instrumented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instrumented]:
    """The application with this agent in it, started when it is first asked for."""
    started: dict[str, Application] = {}

    def start(agent: str) -> Application:
        if agent not in started:
            within, environment = AGENTS[agent]
            # ddtrace-run and newrelic-admin look for the program in PATH
            settings = environment | {"AGENT": agent, "PATH": f"{BIN}:/usr/bin:/bin"}
            folder = tmp_path_factory.mktemp(agent)
            started[agent] = Application(folder, settings, "agent_app", within, workers=1)
            started[agent].start()
        return started[agent]

    yield start
    for application in started.values():
        application.kill()


class Side:
    """A sidecar in front of an application with an agent, and what it has been asked."""

    def __init__(self, sidecar: Sidecar, collector: FileCollector):
        self.sidecar, self.collector, self.asked = sidecar, collector, 0

    def seen_by_the_agent(self, headers: dict[str, str] | None = None) -> tuple[str, str | None]:
        """The trace and the parent that the agent sees in one request."""
        # the first request may wait until the agent is registered
        answer = httpx.get(self.sidecar.proxy + "/agent", headers=headers, timeout=20)
        self.asked += 1
        assert answer.status_code == 200, answer.text
        seen = answer.json()
        return seen["trace_id"], seen["parent_id"]

    def counted_once(self) -> None:
        """As many as were sent, at the admin port and behind the collector, however many the agent reports."""
        eventually(lambda: self.sidecar.request_count() == self.asked, "each request to be counted")

        def exported() -> bool:
            return self.collector.exported.requests("http.server.request.duration") == self.asked

        eventually(exported, "each request to be exported")


@pytest.fixture
def beside(
    instrumented: Instrumented, start_sidecar: SidecarMaker, collector: FileCollector
) -> Callable[..., Side]:
    """Puts a sidecar with these settings of `telemetry` in front of the application with this agent."""

    def start(agent: str, **telemetry: object) -> Side:
        settings = behind(instrumented(agent), collector)
        settings["telemetry"] |= telemetry
        return Side(start_sidecar(settings, QUICK_EXPORT), collector)

    return start


@READERS_OF_TRACEPARENT
def test_an_agent_goes_on_from_the_sidecars_client_span(agent: str, beside: Callable[..., Side]):
    side = beside(agent)
    trace_id, parent_id = side.seen_by_the_agent(TRACEPARENT)
    [server] = eventually(lambda: side.collector.exported.spans(SERVER), "the request's span")
    [client] = eventually(lambda: side.collector.exported.spans(CLIENT), "its other side")
    assert (server.trace_id, server.parent_id) == (TRACE, CALLER)
    assert (trace_id, parent_id) == (TRACE, client.span_id)
    side.counted_once()


@READERS_OF_TRACEPARENT
def test_a_trace_that_begins_at_the_sidecar_goes_on_in_the_agent(agent: str, beside: Callable[..., Side]):
    side = beside(agent, spans="server-only")
    seen = side.seen_by_the_agent()
    [server] = eventually(lambda: side.collector.exported.spans(SERVER), "the request's span")
    assert seen == (server.trace_id, server.span_id)
    assert side.collector.exported.spans(CLIENT) == []
    side.counted_once()


@READERS_OF_TRACEPARENT
def test_with_propagate_only_the_agent_alone_makes_spans_and_the_sidecar_still_counts(agent: str, beside: Callable[..., Side]):
    side = beside(agent, spans="propagate-only")
    assert side.seen_by_the_agent(TRACEPARENT) == (TRACE, CALLER)
    trace_id, parent_id = side.seen_by_the_agent()
    assert trace_id != TRACE and parent_id in (None, "0" * 16), "its trace begins in the agent"
    side.counted_once()
    assert side.collector.exported.spans(SERVER) + side.collector.exported.spans(CLIENT) == []


def test_a_caller_with_datadogs_library_is_one_trace_with_the_sidecar_and_the_application(beside: Callable[..., Side]):
    side = beside("ddtrace")
    headers = TRACEPARENT | {
        "x-datadog-trace-id": str(int(TRACE[16:], 16)),
        "x-datadog-parent-id": str(int(CALLER, 16)),
        "x-datadog-sampling-priority": "1",
        "x-datadog-tags": f"_dd.p.tid={TRACE[:16]}",
        "tracestate": f"dd=s:1;p:{CALLER};t.tid:{TRACE[:16]}",
    }
    trace_id, parent_id = side.seen_by_the_agent(headers)
    [client] = eventually(lambda: side.collector.exported.spans(CLIENT), "the request's span")
    assert (trace_id, parent_id) == (TRACE, client.span_id), "ddtrace takes the trace of both, and the parent of traceparent"
    side.counted_once()


def test_sentrys_sdk_does_not_read_traceparent(beside: Callable[..., Side]):
    side = beside("sentry-sdk")
    trace_id, parent_id = side.seen_by_the_agent(TRACEPARENT)
    assert trace_id != TRACE and parent_id is None, "docs/tracing.md says otherwise, and so does telemetry.sentry_trace"
    side.counted_once()


def test_sentrys_sdk_goes_on_from_the_sidecars_span_when_it_is_told_in_its_own_words(beside: Callable[..., Side]):
    side = beside("sentry-sdk", sentry_trace=True)
    seen = side.seen_by_the_agent(TRACEPARENT)
    [client] = eventually(lambda: side.collector.exported.spans(CLIENT), "the request's span")
    assert seen == (TRACE, client.span_id)
    side.counted_once()


def test_a_browser_with_sentrys_sdk_is_one_trace_with_the_application(beside: Callable[..., Side]):
    side = beside("sentry-sdk", sentry_trace=True)
    seen = side.seen_by_the_agent(TRACEPARENT | {"sentry-trace": f"{TRACE}-{CALLER}-1"})
    assert seen == (TRACE, CALLER)
    [server] = eventually(lambda: side.collector.exported.spans(SERVER), "the request's span")
    assert server.trace_id == TRACE
    side.counted_once()


@AGENT
def test_no_request_is_counted_twice_beside_an_agent(agent: str, beside: Callable[..., Side]):
    side = beside(agent)
    for number in range(30):
        side.seen_by_the_agent(TRACEPARENT if number % 2 else None)
    side.counted_once()
    eventually(lambda: len(side.collector.exported.spans(SERVER)) == 30, "one SERVER span for each")
