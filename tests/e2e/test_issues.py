"""What fails inside the application is an issue at Sentry: exceptions that Python's SDK logs, and tasks of a real Celery."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from conftest import SidecarMaker
from factory import BIN
from processes import Process, free_port
from servers import Redis
from vendors import Vendors
from waiting import eventually

CANARY = "canary-of-an-exception-4711"
# Nobody is there: issues need no collector.
NOBODY = {"telemetry": {"endpoint": "http://127.0.0.1:9"}}
PROXY = {"proxy": {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:9"}}

# As an application does it whose SDK also sends its log.
LOGGING = f"""
import logging
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))

def render(number):
    raise ValueError(f"order {{number}} of {CANARY}")

with TracerProvider().get_tracer("shop").start_as_current_span("publish") as span:
    for number in range(5):
        try:
            render(number)
        except ValueError:
            logging.getLogger("factory.render").exception("could not render %s of {CANARY}", number)
    logging.getLogger("factory.render").error("without an exception")
    print(format(span.get_span_context().trace_id, "032x"))
provider.shutdown()
"""


@pytest.fixture
def stand_ins() -> Iterator[Vendors]:
    """Sentry among them."""
    with Vendors() as vendors:
        yield vendors


def events(stand_ins: Vendors, count: int) -> list[dict[str, Any]]:
    """That many events, and no more of them."""
    stand_ins.sentry.wait_for(lambda seen: len(seen.events()) >= count, f"{count} events")
    found = [json.loads(event) for event in stand_ins.sentry.events()]
    assert len(found) == count and stand_ins.sentry.refusals == []
    assert CANARY not in json.dumps(found)
    return found


def test_exceptions_that_pythons_sdk_logs_are_one_issue_in_their_trace(
    tmp_path: Path, stand_ins: Vendors, start_sidecar: SidecarMaker
):
    port = free_port()
    intake = {"enabled": True, "grpc": "127.0.0.1:0", "http": f"127.0.0.1:{port}"}
    sidecar = start_sidecar(PROXY | {"telemetry": NOBODY["telemetry"] | {"intake": intake}}, {"SENTRY_DSN": stand_ins.dsn})
    program = tmp_path / "shop.py"
    program.write_text(LOGGING)
    environment = {"PATH": os.environ["PATH"], "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
    told = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=60, check=True)
    found = events(stand_ins, 3)
    eventually(lambda: sidecar.metric("content_factory_sentry_left_out_total") == 2, "the two others")
    assert {tuple(event["fingerprint"]) for event in found} == {("log", "ValueError", "factory.render", f"render {program}")}
    assert {event["contexts"]["trace"]["trace_id"] for event in found} == {told.stdout.strip()}
    assert {event["exception"]["values"][0]["type"] for event in found} == {"ValueError"}


class Worker(Process):
    """A Celery worker that sends events."""

    def __init__(self, folder: Path, redis_url: str):
        environment = {"REDIS_URL": redis_url, "PYTHONPATH": str(Path(__file__).parent), "PYTHONUNBUFFERED": "1"}
        command = [str(BIN / "celery"), "-A", "celery_app:app", "worker", "-E", "-n", "issues@tests", "-l", "INFO", "-c", "1", "-Q", "main-queue"]
        super().__init__("celery-issues", command, environment, folder)

    def start(self) -> None:
        """Returns once it consumes."""
        self.spawn()

        def ready() -> bool:
            self.must_live()
            return " ready." in self.said(1_000_000)

        eventually(ready, "a worker to be ready", seconds=60)


def test_tasks_of_celery_that_fail_are_issues_and_those_that_only_say_so_too(
    tmp_path: Path, stand_ins: Vendors, redis: Redis, start_sidecar: SidecarMaker
):
    # a database of its own: what workers of other files have left in theirs is no work for this one
    url = redis.url.rsplit("/", 1)[0] + "/10"
    worker = Worker(tmp_path, url)
    worker.start()
    try:
        sidecar = start_sidecar(PROXY | NOBODY, {"SENTRY_DSN": stand_ins.dsn, "REDIS_URL": url})
        eventually(lambda: sidecar.json("/api/v1/monitoring/queues")["events"]["state"] == "up", "the sidecar to listen")
        with Celery("orders", broker=url) as orders:
            for name, arguments in (("lab.good", []), ("lab.discover", [CANARY]), ("lab.crash", [CANARY])):
                orders.send_task(name, args=arguments, queue="main-queue")
        found = events(stand_ins, 2)
    finally:
        worker.kill()
    assert sorted(event["fingerprint"] for event in found) == [
        ["task", "lab.crash", "failed", "ValueError"],
        ["task", "lab.discover", "result_error", ""],
    ]
