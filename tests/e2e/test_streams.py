"""Event streams and WebSockets pass as they are, at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import httpx
import pytest
from collecting import FileCollector
from conftest import SidecarMaker
from exported import SERVER
from pieces import Pieces
from sidecar import Sidecar
from waiting import DEADLINE_SECONDS, eventually
from websockets.sync.client import connect

EVENTS = 5


class Announcer:
    """An application with one stream of events, each of which is made when it is told so."""

    def __init__(self) -> None:
        self.told = threading.Semaphore(0)
        announcer = self

        class Handler(Pieces):
            def do_GET(self) -> None:
                if self.path != "/events":
                    self.send_error(404)
                    return
                self.begin("text/event-stream")
                for number in range(EVENTS):
                    if not announcer.told.acquire(timeout=DEADLINE_SECONDS):
                        self.close_connection = True
                        return
                    self.piece(f"data: {number}\n\n".encode())
                self.piece(b"")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def announcer() -> Iterator[Announcer]:
    """One that nobody has asked yet."""
    started = Announcer()
    yield started
    started.server.shutdown()
    started.server.server_close()


@pytest.fixture
def before_it(announcer: Announcer, start_sidecar: SidecarMaker) -> Sidecar:
    """A sidecar in front of it."""
    return start_sidecar({"proxy": {"listen": "127.0.0.1:0", "upstream": announcer.url}, "telemetry": {"enabled": False}})


def test_each_event_arrives_before_the_next_one_is_made(before_it: Sidecar, announcer: Announcer):
    with httpx.stream("GET", before_it.proxy + "/events", timeout=DEADLINE_SECONDS) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = (line for line in answer.iter_lines() if line)
        for number in range(EVENTS):
            # a proxy that collects waits for the next one, which is made only when this one is here
            announcer.told.release()
            assert next(events) == f"data: {number}"
        assert list(events) == []


def test_an_open_stream_is_in_flight_and_counted_once(before_it: Sidecar, announcer: Announcer):
    with httpx.stream("GET", before_it.proxy + "/events", timeout=DEADLINE_SECONDS) as answer:
        lines = answer.iter_lines()  # kept: without its iterator the client closes the connection
        announcer.told.release()
        next(lines)
        assert before_it.request_count() == 1
        assert before_it.in_flight() == 1
        announcer.told.release(EVENTS)
        for _ in lines:
            pass
    eventually(lambda: before_it.in_flight() == 0, "the stream to be over")
    assert before_it.request_count() == 1


def test_a_client_that_leaves_a_stream_is_counted_once(sidecar: Sidecar):
    with httpx.stream("GET", sidecar.proxy + "/api/v1/videos/1/progress?steps=100&interval=1", timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert sidecar.in_flight() == 1
    eventually(lambda: sidecar.in_flight() == 0, "the abandoned stream to be over")
    assert sidecar.request_count() == 1


def test_a_websocket_echoes_text_and_bytes_of_every_size(sidecar: Sidecar):
    address = sidecar.proxy.replace("http://", "ws://") + "/api/v1/echo"
    # uncompressed: what compression adds to random bytes would be beyond the 16 MiB that uvicorn takes
    with connect(address, max_size=None, open_timeout=10, compression=None) as socket:
        for size in (0, 1, 125, 126, 65_535, 65_536, 1_000_000, 16 << 20):
            message = os.urandom(size)
            socket.send(message)
            assert socket.recv(timeout=30) == message
        socket.send("ein Gruß aus Österreich")
        assert socket.recv(timeout=10) == "ein Gruß aus Österreich"


def test_a_websocket_takes_fragments_and_keeps_the_close_code(sidecar: Sidecar):
    with connect(sidecar.proxy.replace("http://", "ws://") + "/api/v1/echo", open_timeout=10) as socket:
        socket.send(["in ", "three ", "pieces"])
        assert socket.recv(timeout=10) == "in three pieces"
        assert socket.ping().wait(timeout=10)
        socket.close(code=4001, reason="enough")
    assert (socket.protocol.close_rcvd.code, socket.protocol.close_rcvd.reason) == (4001, "enough")


def test_a_websocket_is_one_request_with_status_101(sidecar: Sidecar, collector: FileCollector):
    with connect(sidecar.proxy.replace("http://", "ws://") + "/api/v1/echo", open_timeout=10) as socket:
        socket.send("hello")
        assert socket.recv(timeout=10) == "hello"
        assert sidecar.request_count() == 1
    eventually(lambda: sidecar.in_flight() == 0, "the tunnel to be over")
    assert sidecar.request_count() == 1
    [span] = eventually(lambda: collector.exported.spans(SERVER), "the tunnel's span")
    assert span.attributes["http.response.status_code"] == 101


def test_a_large_body_arrives_whole_in_both_directions(sidecar: Sidecar):
    # the application refuses it, and says so with the whole value in its answer
    name = "x" * 300_000
    answer = httpx.post(sidecar.proxy + "/api/v1/products", json={"name": name}, timeout=30)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["input"] == name
