"""Tasks of Celery become spans: in the trace of whoever sent them where the message was seen, and not where an SDK makes them."""

from __future__ import annotations

from pathlib import Path

from celery import Celery
from celery_lab import Broker, Worker, warm_up, watching
from collecting import FileCollector
from exported import CONSUMER, Span
from processes import free_port
from sidecar import SidecarMaker
from waiting import eventually

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def spans_of(collector: FileCollector, name: str) -> list[Span]:
    """The spans of the tasks of one name."""
    return [span for span in collector.exported.spans(CONSUMER) if span.name == f"process {name}"]


def the_span(collector: FileCollector, name: str) -> Span:
    """The only one, once it is there."""
    [span] = eventually(lambda: spans_of(collector, name), f"the span of {name}")
    return span


def test_a_task_that_waited_is_a_span_in_its_senders_trace_and_one_that_it_sent_is_below_it(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker, collector: FileCollector
):
    sidecar = watching(start_sidecar, broker, collector)
    warm_up(tasks, sidecar, "prefork")
    for _ in range(2):
        tasks.send_task("lab.slow", args=[6])
    # both processes are at work: it waits where it can be seen
    sent = tasks.send_task("lab.parent", headers=HEADERS).id
    span = the_span(collector, "lab.parent")
    assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
    expected = {
        "messaging.system": "celery",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "main-queue",
        "messaging.message.id": sent,
        "messaging.client.id": "prefork@tests",
        "content_factory.celery.task": "lab.parent",
    }
    assert span.attributes == expected
    child = the_span(collector, "lab.good")
    assert (child.trace_id, child.parent_id) == (TRACE, span.span_id)
    slow = eventually(lambda: len(found := spans_of(collector, "lab.slow")) == 2 and found, "those that nobody sent in a trace")
    assert {span.parent_id for span in slow} == {""} and len({span.trace_id for span in slow}) == 2
    assert all(6 <= (span.end - span.start) / 1e9 < 30 for span in slow)


def test_what_failed_is_an_error_by_its_class_or_by_what_it_says_of_itself(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, prefork: Worker, collector: FileCollector
):
    sidecar = watching(start_sidecar, broker, collector)
    warm_up(tasks, sidecar, "prefork")
    for name in ("lab.crash", "lab.discover"):
        tasks.send_task(name, args=["postgresql://u:secret@h/db"])
    tasks.send_task("lab.again")
    errors = {name: the_span(collector, name).attributes.get("error.type") for name in ("lab.crash", "lab.discover", "lab.again")}
    assert errors == {"lab.crash": "ValueError", "lab.discover": "result_error", "lab.again": None}


def test_where_the_workers_sdk_makes_spans_there_are_none_of_ours(
    start_sidecar: SidecarMaker, broker: Broker, tasks: Celery, servers_folder: Path, collector: FileCollector
):
    port = free_port()
    sdk = {
        "OTEL_SERVICE_NAME": "lab-worker",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    worker = Worker(servers_folder, broker, "instrumented", "-E", queue="publish-queue", within="opentelemetry-instrument", settings=sdk)
    sidecar = watching(start_sidecar, broker, collector, intake={"enabled": True, "grpc": "127.0.0.1:0", "http": f"127.0.0.1:{port}"})
    worker.start()
    try:
        warm_up(tasks, sidecar, "instrumented", queue="publish-queue")
        for _ in range(5):
            tasks.send_task("lab.good", queue="publish-queue")

        def runs(name: str) -> list[Span]:
            return [span for span in collector.exported.spans(CONSUMER) if span.name == name]

        eventually(lambda: len(runs("run/lab.good")) == 5, "the spans of the SDK")
        left_out = "content_factory_celery_spans_left_out_total"
        eventually(lambda: sidecar.metric(left_out, reason="sdk") >= 5, "ours to be left out")
        assert spans_of(collector, "lab.good") == [] and spans_of(collector, "lab.warm") == []
    finally:
        worker.kill()
