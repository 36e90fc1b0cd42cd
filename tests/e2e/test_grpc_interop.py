"""The client and the server by which gRPC's own implementations are tried against each other, with the sidecar between them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from conftest import SidecarMaker
from processes import ROOT, Process, free_port
from waiting import eventually

# Each case, and how many calls it makes; of the two where the client gives up at once, the call may never leave it.
CALLS = {
    "empty_unary": {1},
    "large_unary": {1},
    "client_streaming": {1},
    "server_streaming": {1},
    "ping_pong": {1},
    "empty_stream": {1},
    "timeout_on_sleeping_server": {0, 1},
    "cancel_after_begin": {0, 1},
    "cancel_after_first_response": {1},
    "status_code_and_message": {2},
    "special_status_message": {1},
    "custom_metadata": {2},
    "unimplemented_method": {1},
    "unimplemented_service": {1},
}


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of both programs, built if they are not there yet."""
    built = subprocess.run([ROOT / "tests/setup/grpc-interop.sh"], stdout=subprocess.PIPE, text=True, check=True)
    return Path(built.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def server(programs: Path, servers_folder: Path) -> Iterator[str]:
    """The URL of a running server."""
    port = free_port()
    process = Process("grpc-interop-server", [str(programs / "server"), "-port", str(port)], {}, servers_folder)
    process.spawn()

    def accepts() -> bool:
        process.must_live()
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True

    eventually(accepts, "the server to accept")
    yield f"http://127.0.0.1:{port}"
    process.kill()


# Of several messages, whose length is no latency.
STREAMS = {"client_streaming", "server_streaming", "ping_pong"}


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("protocol", ["auto", "h2c"])
def test_interop(programs: Path, server: str, start_sidecar: SidecarMaker, case: str, protocol: str):
    proxy = {"listen": "127.0.0.1:0", "upstream": server, "upstream_protocol": protocol}
    sidecar = start_sidecar({"proxy": proxy, "telemetry": {"endpoint": "http://127.0.0.1:1", "shutdown": "100ms"}})
    address = urlsplit(sidecar.proxy)
    command = [programs / "client", "-server_host", address.hostname, "-server_port", str(address.port), "-test_case", case]
    client = subprocess.run(
        command, env={"GRPC_GO_LOG_SEVERITY_LEVEL": "info"}, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert client.returncode == 0, client.stderr[-3000:]
    assert " done" in client.stderr.lower(), client.stderr[-3000:]
    eventually(lambda: sidecar.in_flight() == 0, "each call to be over")
    metric = "content_factory_http_server_stream_duration" if case in STREAMS else "http_server_request_duration"
    assert sidecar.metric(f"{metric}_seconds_count", network_protocol_version="2") in CALLS[case]
    assert sidecar.request_count() in CALLS[case]
