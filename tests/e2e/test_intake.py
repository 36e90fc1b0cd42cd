"""The application's own SDK sends through the sidecar: its spans nest under ours, and an outage costs none of them."""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from exported import CLIENT, CONSUMER, PRODUCER, SERVER, Span
from factory import BIN, Application, CeleryWorker
from google.protobuf import json_format
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from processes import Process, free_port
from servers import Postgres, Redis
from sidecar import Sidecar
from waiting import eventually

# The dashes end its own options, among which it would look for those of gunicorn.
INSTRUMENTED = (str(BIN / "opentelemetry-instrument"), "--")
# Delivery goes on within 20 s of the collector's return.
DELIVERY_GOES_ON_SECONDS = 40

Starter = Callable[[Process], None]


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts processes that end with the test."""
    started: list[Process] = []

    def start(process: Process) -> None:
        started.append(process)
        process.start()

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def stores(application: Application, postgres: Postgres, redis: Redis) -> dict[str, str]:
    """Where the application keeps things: the tables are there, and no worker of other tests takes its tasks."""
    return {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url.rsplit("/", 1)[0] + "/7"}


def sdk(port: int, service: str) -> dict[str, str]:
    """An SDK as its users set it, only quicker, both in exporting and in giving up."""
    return {
        "OTEL_SERVICE_NAME": service,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "5",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "health,openapi.json,status",
    }


def with_intake(settings: dict[str, Any], port: int) -> dict[str, Any]:
    """The settings of a sidecar that takes in what comes to this port."""
    intake = {"enabled": True, "grpc": "127.0.0.1:0", "http": f"127.0.0.1:{port}"}
    return settings | {
        "telemetry": settings["telemetry"] | {"intake": intake},
        "service": {"name": "factory", "environment": "e2e"},
    }


def test_the_sdks_spans_nest_under_ours_in_one_trace(
    tmp_path: Path, start: Starter, stores: dict[str, str], start_sidecar: SidecarMaker, collector: FileCollector
):
    port = free_port()
    factory = Application(tmp_path, stores | sdk(port, "factory-web"), within=INSTRUMENTED)
    start(factory)
    start(CeleryWorker(tmp_path, stores | sdk(port, "factory-worker"), INSTRUMENTED))
    sidecar = start_sidecar(with_intake(behind(factory, collector), port), QUICK_EXPORT | {"POD_NAME": "factory-1"})
    with httpx.Client(base_url=sidecar.proxy, timeout=20) as client:
        product = client.post("/api/v1/products", json={"name": "Teapot"}).json()["id"]
        script = client.post(f"/api/v1/products/{product}/scripts")
        if script.status_code == 502:  # every tenth product is refused
            product = client.post("/api/v1/products", json={"name": "Teapot"}).json()["id"]
            script = client.post(f"/api/v1/products/{product}/scripts")
        assert client.post("/api/v1/videos", json={"script_id": script.json()["id"]}).status_code == 202

    def of_the_order(kind: int, service: str) -> Span:
        spans = collector.exported.spans()
        order = only(span for span in spans if span.attributes.get("url.path") == "/api/v1/videos" and is_of(span, "factory", SERVER))
        return only(span for span in spans if span.trace_id == order.trace_id and is_of(span, service, kind))

    consumer = eventually(lambda: of_the_order(CONSUMER, "factory-worker"), "the worker's span in the same trace")
    producer = eventually(lambda: of_the_order(PRODUCER, "factory-web"), "the sending of the task")
    server = eventually(lambda: of_the_order(SERVER, "factory-web"), "the application's span")
    own_server = eventually(lambda: of_the_order(SERVER, "factory"), "our span")
    own_client = eventually(lambda: of_the_order(CLIENT, "factory"), "its other side")
    assert (own_client.parent_id, server.parent_id) == (own_server.span_id, own_client.span_id)
    assert (producer.parent_id, consumer.parent_id) == (server.span_id, producer.span_id)
    assert server.resource["telemetry.sdk.language"] == "python"
    for span in (server, producer, consumer):
        assert (span.resource["deployment.environment.name"], span.resource["k8s.pod.name"]) == ("e2e", "factory-1")


def is_of(span: Span, service: str, kind: int) -> bool:
    """Whether a span is of this service and kind."""
    return (span.resource.get("service.name"), span.kind) == (service, kind)


def only(spans: Iterable[Span]) -> Span:
    """The only one."""
    found = list(spans)
    assert len(found) == 1, f"found {len(found)} spans, expected one"
    return found[0]


def test_an_outage_that_costs_the_sdk_alone_spans_costs_none_through_the_sidecar(
    tmp_path: Path, start: Starter, stores: dict[str, str], start_sidecar: SidecarMaker, collector: FileCollector
):
    port = free_port()
    direct = Application(tmp_path, stores | sdk(collector.http_port, "direct"), within=INSTRUMENTED, name="direct")
    relayed = Application(tmp_path, stores | sdk(port, "relayed"), within=INSTRUMENTED, name="relayed")
    start(direct)
    start(relayed)
    sidecar = start_sidecar(with_intake(behind(relayed, collector), port), QUICK_EXPORT)

    def ask(count: int) -> None:
        for application in (direct, relayed):
            with httpx.Client(base_url=application.url, timeout=20) as client:
                for _ in range(count):
                    assert client.get("/api/v1/products").status_code == 200

    def count(service: str) -> int:
        return sum(is_of(span, service, SERVER) for span in collector.exported.spans())

    ask(20)
    eventually(lambda: count("direct") == count("relayed") == 20, "all spans by each way")
    collector.kill()
    ask(100)
    eventually(lambda: "Failed to export" in direct.log.read_text(), "the SDK alone to give up", 60)
    collector.start()
    ask(20)
    eventually(lambda: count("relayed") == 140, "140 spans", DELIVERY_GOES_ON_SECONDS)
    direct.stop()  # it sends what it still has
    assert count("direct") < 140
    assert "Failed to export" not in relayed.log.read_text()
    assert sidecar.metric("content_factory_intake_refused_total") == 0
    assert sidecar.metric("content_factory_telemetry_dropped_total", signal="traces") == 0


def test_an_outage_that_costs_a_celery_workers_sdk_spans_costs_none_through_the_sidecar(
    tmp_path: Path,
    start: Starter,
    application: Application,
    stores: dict[str, str],
    start_sidecar: SidecarMaker,
    collector: FileCollector,
):
    port = free_port()
    server, workers = stores["REDIS_URL"].rsplit("/", 1)[0], {}
    for service, entrance, database in (("direct", collector.http_port, 8), ("relayed", port, 9)):
        folder = tmp_path / service
        folder.mkdir()
        settings = stores | sdk(entrance, service) | {"REDIS_URL": f"{server}/{database}"}
        workers[service] = CeleryWorker(folder, settings, INSTRUMENTED)
        start(workers[service])
    sidecar = start_sidecar(with_intake(behind(application, collector), port), QUICK_EXPORT)

    def order(count: int) -> None:
        for database in (8, 9):
            with Celery(broker=f"{server}/{database}") as sender:
                for _ in range(count):
                    sender.send_task("content_factory.tasks.render_video", args=[999_999], queue="video-queue")

    def count(service: str) -> int:
        return sum(is_of(span, service, CONSUMER) for span in collector.exported.spans())

    order(10)
    eventually(lambda: count("direct") == count("relayed") == 10, "all spans by each way")
    collector.kill()
    order(40)
    eventually(lambda: "Failed to export" in workers["direct"].log.read_text(), "the SDK alone to give up", 60)
    collector.start()
    order(10)
    eventually(lambda: count("relayed") == 60, "60 spans", DELIVERY_GOES_ON_SECONDS)
    workers["direct"].stop()  # it sends what it still has
    assert count("direct") < 60
    assert sidecar.metric("content_factory_telemetry_dropped_total", signal="traces") == 0


def test_json_by_another_encoder_arrives_as_it_was(sidecar_with_intake: tuple[Sidecar, int], collector: FileCollector):
    _, port = sidecar_with_intake
    traces, metrics, logs = ExportTraceServiceRequest(), ExportMetricsServiceRequest(), ExportLogsServiceRequest()
    span = traces.resource_spans.add().scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.parent_span_id = bytes(range(1, 17)), bytes(range(1, 9)), bytes(range(2, 10))
    span.name, span.kind, span.start_time_unix_nano, span.end_time_unix_nano = "größe", SERVER, 2**63 + 5, 2**63 + 7
    span.attributes.add(key="whole").value.int_value = -(2**63)
    span.attributes.add(key="real").value.double_value = float("inf")
    span.attributes.add(key="bytes").value.bytes_value = b"\x00\xff"
    span.attributes.add(key="list").value.array_value.values.add().bool_value = True
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="latency", unit="s")
    point = metric.exponential_histogram.data_points.add(count=3, sum=1.5, scale=-2, zero_count=1)
    point.positive.offset, point.positive.bucket_counts[:] = -4, [1, 1]
    metric.exponential_histogram.aggregation_temporality = 1
    record = logs.resource_logs.add().scope_logs.add().log_records.add(severity_number=17, trace_id=span.trace_id)
    record.body.string_value = "failed"
    for path, request in (("traces", traces), ("metrics", metrics), ("logs", logs)):
        assert post_json(port, path, request) == {}
    [found] = eventually(collector.exported.spans, "the span")
    assert (found.trace_id, found.span_id, found.parent_id) == (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    assert (found.name, found.kind) == ("größe", SERVER)
    assert found.attributes["whole"] == -(2**63) and found.attributes["bytes"] == "AP8="
    [taken] = eventually(lambda: [metric for metric in collector.exported.metrics() if metric["name"] == "latency"], "the metric")
    [taken] = taken["exponentialHistogram"]["dataPoints"]
    assert (taken["scale"], taken["positive"]) == (-2, {"offset": -4, "bucketCounts": ["1", "1"]})


def test_what_is_left_out_is_told_in_protobuf_to_another_decoder(sidecar_with_intake: tuple[Sidecar, int]):
    _, port = sidecar_with_intake
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="without ids")
    answer = httpx.post(
        f"http://127.0.0.1:{port}/v1/traces",
        content=request.SerializeToString(),
        headers={"Content-Type": "application/x-protobuf"},
    )
    told = ExportTraceServiceResponse.FromString(answer.content)
    assert (answer.status_code, told.partial_success.rejected_spans) == (200, 1)
    assert "trace id" in told.partial_success.error_message


@pytest.fixture
def sidecar_with_intake(start_sidecar: SidecarMaker, application: Application, collector: FileCollector) -> tuple[Sidecar, int]:
    """A sidecar, and its intake's port for HTTP."""
    port = free_port()
    return start_sidecar(with_intake(behind(application, collector), port), QUICK_EXPORT), port


def post_json(port: int, path: str, request: Message) -> Any:
    """Sends a request as OTLP's JSON: that of protobuf, but ids in hexadecimal."""
    body = json_format.MessageToDict(request, use_integers_for_enums=True)
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/{path}", json=with_hexadecimal_ids(body), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def with_hexadecimal_ids(value: Any) -> Any:
    """Protobuf's JSON writes bytes in base64."""
    if isinstance(value, list):
        return [with_hexadecimal_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    ids = ("traceId", "spanId", "parentSpanId")
    return {name: base64.b64decode(item).hex() if name in ids else with_hexadecimal_ids(item) for name, item in value.items()}
