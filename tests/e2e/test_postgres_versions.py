"""The database's numbers from each version of PostgreSQL that its project supports, and the one before: their views differ."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import SidecarMaker
from processes import ROOT
from servers import Postgres
from waiting import eventually

PAGE = "/api/v1/monitoring/database"
PARTS = ("server", "activity", "statistics", "storage", "statements", "rows", "business")
TABLES = """
    CREATE TABLE products (id bigserial PRIMARY KEY, created_at timestamptz DEFAULT now());
    CREATE TABLE videos (id bigserial PRIMARY KEY, status text, created_at timestamptz DEFAULT now());
    CREATE TABLE social_media_posts (id bigserial PRIMARY KEY, status text, created_at timestamptz DEFAULT now());
    CREATE TABLE drafts (id bigserial PRIMARY KEY);
    INSERT INTO products DEFAULT VALUES;
    INSERT INTO social_media_posts (status) VALUES ('published'), ('published'), ('published'), ('failed');
    CREATE EXTENSION pg_stat_statements;
"""
ROLE = (ROOT / "docs/database-role.sql").read_text().replace("CHANGE-ME", "secret-of-the-database")


@pytest.fixture(scope="module")
def installed() -> dict[str, Path]:
    """Where the programs of each version are, by its major number."""
    script = ROOT / "tests/setup/postgres-versions.sh"
    lines = subprocess.run([script], check=True, capture_output=True, text=True).stdout.splitlines()
    return {major: Path(folder) for major, folder in (line.split(" ", 1) for line in lines)}


@pytest.fixture(params=["13", "14", "16", "17", "18"])
def versioned(request: pytest.FixtureRequest, installed: dict[str, Path], tmp_path: Path) -> Iterator[tuple[str, Postgres]]:
    """A server of that version, with the application's tables and the documented role."""
    server = Postgres(tmp_path, installed[request.param], "shared_preload_libraries=pg_stat_statements")
    server.create()
    server.start()
    with psycopg.connect(server.url, autocommit=True) as factory:
        factory.execute(TABLES)
        factory.execute(ROLE)
    yield request.param, server
    server.remove()


def blocked(url: str) -> Iterator[None]:
    """A session that waits for another one's lock, until it is asked to go on: of a table that the sidecar does not read itself."""
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE drafts")
        waiter = threading.Thread(target=wait_for_lock, args=(url,))
        waiter.start()
        yield
        holder.rollback()
    waiter.join(30)


def wait_for_lock(url: str) -> None:
    with psycopg.connect(url) as session:
        session.execute("SELECT count(*), pg_sleep(0.2) FROM drafts")


def test_every_part_is_read(versioned: tuple[str, Postgres], start_sidecar: SidecarMaker) -> None:
    major, server = versioned
    periods = {f"{part}_period": "1s" for part in ("activity", "statistics", "storage")} | {"period": "1s"}
    sidecar = start_sidecar({"database": {"url": server.url.replace("factory:", "cf_sidecar:"), **periods}})

    def whole() -> dict[str, Any]:
        page = sidecar.json(PAGE)
        troubled = {part: page[part]["problem"] for part in PARTS if page[part]["problem"] or page[part]["value"] is None}
        assert not troubled, troubled
        assert page["statements"]["value"]["seconds"] is not None, "a second reading"
        return page

    page = eventually(whole, "a value of each part")
    values = {part: page[part]["value"] for part in PARTS}
    assert values["server"]["version"].split(".")[0] == major
    assert (values["server"]["visibility"], values["server"]["connection_limit"]) == ("full", 97)
    assert values["statements"]["source"] == "readable"
    assert values["rows"] == {"products": 1, "videos": 0, "social_media_posts": 4}
    assert values["business"]["publishes"]["success_ratio"] == 0.75
    assert values["statistics"]["totals"]["commits"] > 0

    lock = blocked(server.url)
    next(lock)
    waiting = eventually(lambda: sidecar.json(PAGE)["activity"]["value"]["waiting"], "the session that waits")
    assert (len(waiting), waiting[0]["lock"]) == (1, "relation")
    next(lock, None)

    def slow() -> list[str]:
        texts = [statement["text"] or "" for statement in sidecar.json(PAGE)["statements"]["value"]["top"]]
        assert not [text for text in texts if "pg_stat_" in text], "our own questions"
        return [text for text in texts if "pg_sleep" in text]

    assert eventually(slow, "the slow statement") == ["SELECT count(*), pg_sleep($1) FROM drafts"]
    assert sidecar.metric("content_factory_database_reading_failures_total") == 0
    for part in ("activity", "statistics", "storage", "statements", "rows", "business"):
        labels = {"db_system_name": "postgresql", "db_operation_name": part}
        assert sidecar.metric("db_client_operation_duration_seconds_count", **labels) > 0
