"""The tests that the application's own monitoring guide gives its readers, against the sidecar's endpoints."""

from __future__ import annotations

import platform

import httpx
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker, behind
from factory import Application
from servers import Postgres, Redis
from sidecar import Sidecar
from waiting import eventually


def test_health_answers_200_and_becomes_healthy(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector, postgres: Postgres, redis: Redis
):
    keys = {"OPENAI_API_KEY": "sk-never-shown", "AI_AVATAR_API_KEY": "never-shown-either"}
    environment = QUICK_EXPORT | {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url} | keys
    sidecar = start_sidecar(behind(application, collector), environment)
    assert httpx.get(sidecar.admin + "/health").status_code == 200
    checked = ("database", "redis", "ai_services", "application")
    eventually(lambda: {sidecar.services()[name] for name in checked} == {"healthy"}, "healthy services")
    health = sidecar.json("/health")
    assert health["status"] == "healthy"
    services = health["services"]
    assert list(services)[:5] == ["database", "redis", "external_api", "ai_services", "application"]
    assert services["database"] == {"status": "healthy", "message": "Database connection successful"}
    assert services["redis"] == {"status": "healthy", "message": "Redis connection successful"}
    keys_found = "OpenAI API key configured, AI Avatar service configured"
    assert services["ai_services"] == {"status": "healthy", "message": keys_found}


def test_what_is_not_configured_is_unknown_and_makes_nothing_unhealthy(sidecar: Sidecar):
    eventually(lambda: sidecar.json("/health")["status"] == "healthy", "a healthy whole")
    services = sidecar.services()
    assert services["application"] == "healthy"
    assert {services[name] for name in ("database", "redis", "external_api")} == {"unknown"}


def test_status_counts_the_applications_rows(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector, postgres: Postgres
):
    # rows are counted at the start, before this one is there, and then in their own time
    settings = behind(application, collector) | {"database": {"period": "1s"}}
    sidecar = start_sidecar(settings, {"DATABASE_URL": postgres.url})
    assert httpx.post(sidecar.proxy + "/api/v1/products", json={"name": "a product"}).status_code == 201
    stats = eventually(
        lambda: (found := sidecar.json("/status")["database_stats"])["products"] not in (0, "Error") and found,
        "numbers of rows",
    )
    assert list(stats) == ["products", "videos", "social_media_posts"]
    assert all(isinstance(count, int) for count in stats.values())


def test_status_tells_the_applications_own_python_and_asks_for_it_once(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector
):
    since = application.position()
    sidecar = start_sidecar(behind(application, collector))
    for _ in range(20):
        status = eventually(lambda: (found := sidecar.json("/status")) and "python_version" in found["system"] and found, "a Python")
    # the tests run in the virtual environment of the application
    assert status["system"]["python_version"] == platform.python_version()
    assert status["system"]["platform"] == platform.platform()
    assert status["version"] == httpx.get(application.url + "/openapi.json").json()["info"]["version"] == "1.0.0"
    assert list(status) == ["health", "system", "database_stats", "version"]
    assert list(status["system"])[-2:] == ["platform", "python_version"]
    assert eventually(lambda: application.questions("/status", since), "the question in the application's log") == 1
    assert sidecar.request_count() == 0


def test_one_request_raises_the_count_by_one_and_at_once(sidecar: Sidecar):
    for expected in range(1, 101):
        assert httpx.get(sidecar.proxy + "/").status_code == 200
        assert sidecar.request_count() == expected


def test_asking_the_sidecar_itself_counts_nothing(sidecar: Sidecar):
    pages = ["/health", "/status", "/metrics", "/dashboard", "/livez", "/readyz", "/startupz", "/openapi.json"]
    pages += ["/api/v1/monitoring/dashboard", "/api/v1/monitoring/metrics"]
    for page in pages:
        assert httpx.get(sidecar.admin + page).status_code == 200, page
    assert sidecar.request_count() == 0


def test_no_page_shows_a_secret(
    start_sidecar: SidecarMaker, application: Application, collector: FileCollector, postgres: Postgres, redis: Redis
):
    environment = {"DATABASE_URL": postgres.url, "REDIS_URL": redis.url, "OPENAI_API_KEY": "sk-never-shown"}
    sidecar = start_sidecar(behind(application, collector), environment)
    eventually(lambda: sidecar.services()["ai_services"] != "unknown", "the keys to be looked for")
    for page in ("/health", "/status", "/metrics", "/dashboard", "/api/v1/monitoring/dashboard", "/openapi.json"):
        text = sidecar.text(page)
        assert "sk-never-shown" not in text and "secret-of-the-database" not in text, page
    assert "sk-never-shown" not in sidecar.said() and "secret-of-the-database" not in sidecar.said()
