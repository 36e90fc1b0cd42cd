"""The dashboard in a real browser: where there are tokens it asks for one once, and no other site has it do anything."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, Page
from conftest import SidecarMaker
from sidecar import Sidecar
from waiting import eventually

READER, WRITER = "reader-0123456789abcdef", "writer-0123456789abcdef"
CHECK = "/api/v1/monitoring/checks/port"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """The page of a browser that has seen nothing yet."""
    browser = Browser(tmp_path / "browser")
    try:
        browser.start()
        yield browser.page
    finally:
        browser.kill()


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """The file of tokens."""
    file = tmp_path / "tokens"
    file.write_text(f"{READER}\n{WRITER} write\n")
    return file


@pytest.fixture
def guarded(start_sidecar: SidecarMaker, tokens: Path) -> Sidecar:
    """A sidecar that lets in whom this file names, with a check that nobody runs by himself."""
    check = {"kind": "tcp", "address": "127.0.0.1:1", "period": "1h", "initial_delay": "30m"}
    settings: dict[str, Any] = {
        "admin": {"listen": "127.0.0.1:0", "tokens_file": str(tokens)},
        "telemetry": {"enabled": False},
        "checks": {"port": check},
    }
    return start_sidecar(settings)


def read(sidecar: Sidecar, path: str) -> str:
    """What a program reads with a token."""
    asked = urllib.request.Request(sidecar.admin + path, headers={"Authorization": f"Bearer {READER}"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return answer.read().decode()


def test_a_browser_asks_for_a_token_once_and_then_reads_the_page_and_what_it_leads_to(page: Page, guarded: Sidecar):
    page.open(f"{guarded.admin}/dashboard")
    assert (page.asked, "A token is needed" in page.text()) == (1, True), "who closes the dialogue is told what it wants"

    page.password = "nobody-0123456789abcdef"
    page.open(f"{guarded.admin}/dashboard")
    assert (page.asked, "A token is needed" in page.text()) == (3, True), "a wrong one is asked for again"

    page.password = READER
    page.open(f"{guarded.admin}/")
    assert (page.asked, page.run("location.pathname")) == (4, "/dashboard")
    assert "Services" in page.text()
    assert page.run("getComputedStyle(document.body).maxWidth") == "1152px", "its style is read by the same token"
    page.await_load()  # it has refreshed itself
    for link in page.run("[...document.querySelectorAll('footer a')].map(link => link.href)"):
        page.open(link)
        assert page.run("performance.getEntriesByType('navigation')[0].responseStatus") == 200, link
    assert page.asked == 4
    assert READER not in page.run("JSON.stringify([document.cookie, Object.keys(localStorage), Object.keys(sessionStorage)])")


def test_a_token_that_is_taken_away_ends_what_the_browser_reads(page: Page, guarded: Sidecar, tokens: Path):
    page.password = READER
    page.open(f"{guarded.admin}/dashboard")
    assert "Services" in page.text()
    tokens.write_text(f"{WRITER} write\n")
    eventually(lambda: "have changed: the new ones are used" in guarded.said(), "the new tokens")
    page.open(f"{guarded.admin}/dashboard")
    assert (page.asked, "A token is needed" in page.text()) == (2, True)


@pytest.fixture
def another_site() -> Iterator[str]:
    """A site that means no good; for the browser another one, because its name is."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = b"<!doctype html><title>another site</title><body></body>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_no_other_site_reads_or_changes_anything_through_a_browser_that_has_given_a_token_that_writes(
    page: Page, guarded: Sidecar, another_site: str
):
    page.password = WRITER
    page.open(f"{guarded.admin}/dashboard")
    assert "Services" in page.text()

    page.open(another_site)
    fetched = page.run(f"fetch('{guarded.admin}/status', {{credentials: 'include'}}).then(() => 'read', () => 'not read')")
    assert fetched == "not read"
    picture = f"new Promise(done => {{ const it = new Image(); it.onerror = it.onload = () => done(true); it.src = '{guarded.admin}{CHECK}?refresh=1' }})"
    assert page.run(picture)
    page.run(f"document.body.innerHTML = '<form method=post action={guarded.admin}{CHECK}/run></form>'; document.forms[0].submit()")
    page.await_load()
    assert "a foreign Origin" in page.text()
    assert json.loads(read(guarded, CHECK))["checked_at"] is None, "no check was run"
    assert 'content_factory_admin_refusals_total{reason="foreign"} 1\n' in read(guarded, "/metrics")
    assert page.asked == 1, "the browser sent its token there, too, or this test says nothing"
