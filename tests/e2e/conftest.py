"""What the end-to-end tests stand on: real servers, started once, and a fresh sidecar and collector for each test."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery_lab import Broker, Worker
from collecting import FileCollector
from factory import Application, CeleryWorker
from processes import Process, end_all
from servers import Postgres, Redis
from sidecar import QUICK_EXPORT, Sidecar, SidecarMaker



def pytest_configure() -> None:
    """A run that is ended from outside takes its servers with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """A failed test shows what each process said, where the whole log is, and where the telemetry of each sidecar is."""
    report = yield
    if report.failed:
        for process in Process.alive:
            report.sections.append((f"{process.name}: the end of {process.log}", process.said(3000)))
            if isinstance(process, Sidecar):
                report.sections.append((f"{process.name}: its telemetry", process.account()))
    return report


def pytest_sessionfinish() -> None:
    """Whatever a test forgot to end."""
    end_all()


@pytest.fixture(scope="session")
def servers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared servers keep their logs."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def postgres(servers_folder: Path) -> Iterator[Postgres]:
    """The application's database."""
    server = Postgres(servers_folder)
    server.create()
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def redis(servers_folder: Path) -> Iterator[Redis]:
    """The broker of the application's tasks."""
    server = Redis(servers_folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def application(servers_folder: Path, postgres: Postgres, redis: Redis) -> Iterator[Application]:
    """The content factory in four processes."""
    server = Application(servers_folder, {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url})
    server.create_tables()
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def worker(servers_folder: Path, application: Application) -> Iterator[CeleryWorker]:
    """The content factory's Celery worker."""
    server = CeleryWorker(servers_folder, application.environment)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def broker(servers_folder: Path) -> Iterator[Broker]:
    """A Redis of each file's own: it is restarted."""
    server = Broker(servers_folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def tasks(broker: Broker) -> Iterator[Celery]:
    """The tasks, to be sent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", broker.url)
        sys.modules.pop("celery_app", None)
        from celery_app import orders

        yield orders
        orders.close()


@pytest.fixture(scope="module")
def prefork(servers_folder: Path, broker: Broker) -> Iterator[Worker]:
    """A worker as the application starts it: it sends no events by itself."""
    worker = Worker(servers_folder, broker, "prefork")
    worker.start()
    yield worker
    worker.kill()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[FileCollector]:
    """A collector that has seen nothing yet."""
    with FileCollector(tmp_path) as server:
        yield server


@pytest.fixture
def start_sidecar(tmp_path: Path) -> Iterator[SidecarMaker]:
    """Starts sidecars; each ends with the test, and must end cleanly if the test has not ended it itself."""
    started: list[Sidecar] = []

    def start(settings: dict[str, Any], environment: dict[str, str] | None = None, name: str = "sidecar") -> Sidecar:
        sidecar = Sidecar(tmp_path, settings, environment, name)
        started.append(sidecar)
        sidecar.start()
        return sidecar

    yield start
    codes = {sidecar.name: sidecar.stop() for sidecar in started if sidecar in Process.alive}
    assert set(codes.values()) <= {0}, f"exit codes {codes}, expected 0"


@pytest.fixture
def sidecar(start_sidecar: SidecarMaker, application: Application, collector: FileCollector) -> Sidecar:
    """A sidecar between the application and the collector, with nothing counted yet."""
    return start_sidecar(behind(application, collector), QUICK_EXPORT)


def behind(application: Application, collector: FileCollector) -> dict[str, Any]:
    """The settings of a sidecar between these two."""
    return {
        "proxy": {"listen": "127.0.0.1:0", "upstream": application.url},
        "telemetry": {"endpoint": collector.url, "protocol": "grpc"},
    }
