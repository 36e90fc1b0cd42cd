"""TLS to the gateway and to the balancer: tls.yaml, with an authority of our own and certificates of the senders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import messages
import pytest
import vendors
from authority import Authority
from factory import Application
from gateway import TOKEN, Agent, Balancer, Gateway
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from sidecar import Sidecar
from vendors import Vendors

NAME = "otel-collector"


class Certificates(Authority):
    """For a server called `otel-collector` and for a client."""

    def __init__(self, folder: Path):
        super().__init__(folder, {name: f"DNS:{name}" for name in (NAME, "client")})

    @property
    def server(self) -> dict[str, str]:
        """For who takes: its certificate, and whose it asks for."""
        return {
            "OTLP_TLS_CERT_FILE": self.path(f"{NAME}.pem"),
            "OTLP_TLS_KEY_FILE": self.path(f"{NAME}.key"),
            "OTLP_TLS_CLIENT_CA_FILE": self.path("ca.pem"),
        }

    @property
    def client(self) -> dict[str, str]:
        """For an agent or a balancer that sends on."""
        return {
            "GATEWAY_INSECURE": "false",
            "GATEWAY_CA_FILE": self.path("ca.pem"),
            "GATEWAY_CLIENT_CERT_FILE": self.path("client.pem"),
            "GATEWAY_CLIENT_KEY_FILE": self.path("client.key"),
            "GATEWAY_SERVER_NAME": NAME,
        }


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One authority for all tests."""
    return Certificates(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def three() -> Iterator[Vendors]:
    """Fresh stand-ins for one test."""
    with vendors.Vendors() as stand_ins:
        yield stand_ins


def call(address: str, authority: Certificates, certified: bool, body: str) -> grpc.StatusCode:
    """Sends a log record by gRPC over TLS, with a certificate of the sender or without one."""
    read = (lambda name: Path(authority.path(name)).read_bytes()) if certified else (lambda _: None)
    credentials = grpc.ssl_channel_credentials(Path(authority.path("ca.pem")).read_bytes(), read("client.key"), read("client.pem"))
    with grpc.secure_channel(f"{address}:4317", credentials, [("grpc.ssl_target_name_override", NAME)]) as channel:
        try:
            LogsServiceStub(channel).Export(messages.log(body), timeout=10, metadata=[("authorization", f"Bearer {TOKEN}")])
        except grpc.RpcError as refusal:
            return refusal.code()
        return grpc.StatusCode.OK


def lines(stand_ins: Vendors) -> list[str]:
    """The bodies of the records that New Relic has."""
    return [record.body.string_value for record in stand_ins.new_relic.log_records()]


def test_who_speaks_plain_text_or_shows_no_certificate_is_refused(tmp_path: Path, authority: Certificates, three: Vendors):
    with Gateway(tmp_path, three.environment("newrelic") | authority.server) as gateway:
        assert call(gateway.address, authority, False, "without a certificate") == grpc.StatusCode.UNAVAILABLE
        assert gateway.export(messages.log("in plain text")) == 400
        assert gateway.call(messages.log("in plain text, by gRPC")) == grpc.StatusCode.UNAVAILABLE
        with pytest.raises(httpx.TransportError):
            httpx.post(f"https://{gateway.address}:4318/v1/logs", verify=False)
        assert call(gateway.address, authority, True, "with a certificate") == grpc.StatusCode.OK
        three.new_relic.wait_for(lambda _: lines(three), "the accepted record")
    assert lines(three) == ["with a certificate"]


@pytest.mark.parametrize(("protocol", "port"), [("grpc", 4317), ("http/protobuf", 4318)])
def test_a_sidecar_with_a_certificate_is_served_by_both_protocols(
    protocol: str,
    port: int,
    tmp_path: Path,
    authority: Certificates,
    three: Vendors,
    application: Application,
    start_sidecar: Callable[..., Sidecar],
):
    with Gateway(tmp_path, three.environment("newrelic") | authority.server) as gateway:
        tls = {
            "ca_file": authority.path("ca.pem"),
            "client_certificate_file": authority.path("client.pem"),
            "client_key_file": authority.path("client.key"),
            "server_name": NAME,
        }
        settings = {
            "proxy": {"listen": "127.0.0.1:0", "upstream": application.url},
            "telemetry": {"endpoint": f"https://{gateway.address}:{port}", "protocol": protocol, "tls": tls},
        }
        sidecar = start_sidecar(settings, {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{TOKEN}"})
        assert [httpx.get(sidecar.proxy + "/").status_code for _ in range(10)] == [200] * 10
        three.new_relic.wait_for(lambda seen: len(list(seen.spans())) >= 20, "both spans of ten requests")
        assert sidecar.stop() == 0


def test_an_agent_and_a_balancer_show_their_certificate_to_the_gateway(tmp_path: Path, authority: Certificates, three: Vendors):
    with (
        Gateway(tmp_path, three.environment("newrelic") | authority.server) as gateway,
        Balancer(tmp_path, [gateway], more=authority.server | authority.client) as balancer,
        Agent(tmp_path, gateway, more=authority.client) as agent,
    ):
        assert call(balancer.address, authority, True, "by the balancer") == grpc.StatusCode.OK
        assert agent.export(messages.log("by the agent")) == 200
        three.new_relic.wait_for(lambda _: len(lines(three)) >= 2, "both records")
    assert sorted(lines(three)) == ["by the agent", "by the balancer"]


def test_a_certificate_that_cannot_be_read_is_named_at_the_start(tmp_path: Path, three: Vendors):
    gateway = Gateway(tmp_path, three.environment() | {"OTLP_TLS_CERT_FILE": "/nonexistent/certificate.pem"})
    gateway.spawn()
    assert gateway.wait() == 64
    assert "'/nonexistent/certificate.pem' cannot be read" in gateway.said()
