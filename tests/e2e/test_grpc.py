"""gRPC between a client and a server of gRPC's C core, as Python programs use it, with the sidecar between them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from urllib.parse import urlsplit

import grpc
import pytest
from conftest import SidecarMaker
from sidecar import Sidecar
from waiting import DEADLINE_SECONDS, eventually


class Factory(grpc.GenericRpcHandler):
    """Messages are bytes as they are, so nothing has to be generated."""

    def __init__(self) -> None:
        self.cancelled = threading.Semaphore(0)
        self.held = threading.Semaphore(0)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """What serves a method."""
        return {
            "/try.Factory/Say": grpc.unary_unary_rpc_method_handler(self.say),
            "/try.Factory/Hold": grpc.unary_unary_rpc_method_handler(self.hold),
            "/try.Factory/Count": grpc.unary_stream_rpc_method_handler(self.count),
            "/try.Factory/Add": grpc.stream_unary_rpc_method_handler(self.add),
            "/try.Factory/Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }.get(details.method)

    def say(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        """The message itself; or a status, with metadata before and behind it."""
        context.send_initial_metadata([("x-first", "1"), ("x-first-bin", b"\x00\xff")])
        context.set_trailing_metadata([("x-last", "2"), ("x-last-bin", b"\xff\x00")])
        if message == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: ☺ 100%")
        seen = dict(context.invocation_metadata())
        return message + seen.get("x-asked-bin", b"")

    def hold(self, _message: bytes, context: grpc.ServicerContext) -> bytes:
        """Nothing, until nobody waits any more."""
        ended = threading.Event()
        context.add_callback(ended.set)
        self.held.release()
        assert ended.wait(DEADLINE_SECONDS)
        self.cancelled.release()
        return b""

    def count(self, message: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        """So many messages."""
        return (str(number).encode() for number in range(int(message)))

    def add(self, messages: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
        """How many bytes came."""
        return str(sum(map(len, messages))).encode()

    def chat(self, messages: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        """Each message, as it comes."""
        yield from messages


@pytest.fixture
def factory() -> Factory:
    """What the server has seen."""
    return Factory()


@pytest.fixture
def sidecar(start_sidecar: SidecarMaker, factory: Factory) -> Iterator[Sidecar]:
    """A sidecar in front of the server."""
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[factory], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    proxy = {"listen": "127.0.0.1:0", "upstream": f"http://127.0.0.1:{port}"}
    yield start_sidecar({"proxy": proxy, "telemetry": {"endpoint": "http://127.0.0.1:1", "shutdown": "100ms"}})
    server.stop(None).wait(DEADLINE_SECONDS)


@pytest.fixture
def channel(sidecar: Sidecar) -> Iterator[grpc.Channel]:
    """A client's channel to the sidecar."""
    with grpc.insecure_channel(urlsplit(sidecar.proxy).netloc) as opened:
        yield opened


def counted(sidecar: Sidecar) -> int:
    """Calls that were counted, once none is under way."""
    eventually(lambda: sidecar.in_flight() == 0, "each call to be over")
    metrics = ["http_server_request_duration", "content_factory_http_server_stream_duration"]
    calls = sum(sidecar.metric(f"{metric}_seconds_count", network_protocol_version="2") for metric in metrics)
    assert calls == sidecar.request_count()
    return sidecar.request_count()


def test_a_call_with_metadata_on_both_sides(sidecar: Sidecar, channel: grpc.Channel):
    say = channel.unary_unary("/try.Factory/Say")
    answer, call = say.with_call(b"hello ", metadata=[("x-asked-bin", b"\x01\x02")], timeout=DEADLINE_SECONDS)
    assert answer == b"hello \x01\x02"
    assert {("x-first", "1"), ("x-first-bin", b"\x00\xff")} <= set(call.initial_metadata())
    assert {("x-last", "2"), ("x-last-bin", b"\xff\x00")} <= set(call.trailing_metadata())
    assert counted(sidecar) == 1


def test_a_status_of_the_application(sidecar: Sidecar, channel: grpc.Channel):
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/try.Factory/Say")(b"fail", timeout=DEADLINE_SECONDS)
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "no: ☺ 100%")
    assert ("x-last", "2") in failed.value.trailing_metadata()
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/try.Factory/Unknown")(b"", timeout=DEADLINE_SECONDS)
    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert counted(sidecar) == 2


def test_streams_in_each_direction(sidecar: Sidecar, channel: grpc.Channel):
    count = channel.unary_stream("/try.Factory/Count")(b"500", timeout=DEADLINE_SECONDS)
    assert list(count) == [str(number).encode() for number in range(500)]
    large = (b"x" * 100_000 for _ in range(30))
    assert channel.stream_unary("/try.Factory/Add")(large, timeout=DEADLINE_SECONDS) == b"3000000"
    heard = threading.Semaphore(0)

    def one_after_the_other() -> Iterator[bytes]:
        for number in range(20):
            yield str(number).encode()
            # the next one only when this one has come back: nothing waits for the end of a direction
            assert heard.acquire(timeout=DEADLINE_SECONDS)

    for number, message in enumerate(channel.stream_stream("/try.Factory/Chat")(one_after_the_other(), timeout=DEADLINE_SECONDS)):
        assert message == str(number).encode()
        heard.release()
    assert counted(sidecar) == 3
    assert sidecar.metric("content_factory_http_server_stream_duration_seconds_count", http_response_status_code="200") == 3


def test_a_deadline_and_a_cancellation_reach_the_application(sidecar: Sidecar, channel: grpc.Channel, factory: Factory):
    hold = channel.unary_unary("/try.Factory/Hold")
    # what takes its time at first is over then: the deadline is for the call alone
    assert channel.unary_unary("/try.Factory/Say")(b"", timeout=DEADLINE_SECONDS) == b""
    with pytest.raises(grpc.RpcError) as failed:
        hold(b"", timeout=4)
    assert failed.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert factory.cancelled.acquire(timeout=DEADLINE_SECONDS)
    assert factory.held.acquire(timeout=DEADLINE_SECONDS)
    call = hold.future(b"")
    assert factory.held.acquire(timeout=DEADLINE_SECONDS)
    call.cancel()
    assert factory.cancelled.acquire(timeout=DEADLINE_SECONDS)
    assert counted(sidecar) == 3


def test_an_application_that_is_away_is_unavailable_with_the_reason(start_sidecar: SidecarMaker):
    proxy = {"listen": "127.0.0.1:0", "upstream": "http://127.0.0.1:1"}
    sidecar = start_sidecar({"proxy": proxy, "telemetry": {"endpoint": "http://127.0.0.1:1", "shutdown": "100ms"}})
    with grpc.insecure_channel(urlsplit(sidecar.proxy).netloc) as channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/try.Factory/Say")(b"", timeout=DEADLINE_SECONDS)
    assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
    assert failed.value.details() == "upstream_refused: nothing listens at proxy.upstream"
    assert sidecar.metric("http_server_request_duration_seconds_count", error_type="upstream_refused") == 1
