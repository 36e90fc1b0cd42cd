"""The egress port with the real `openai` package: what a call took and cost is known, and nothing of what was said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from ai_service import AiService, certificates
from collecting import FileCollector
from conftest import QUICK_EXPORT, SidecarMaker
from exported import CLIENT, Span
from sidecar import Sidecar
from waiting import eventually

KEY = "sk-proj-canaryA1B2C3D4E5F6G7H8I9J0K1L2M3N4O5P6"
MESSAGES: Any = [{"role": "user", "content": "of what nobody shall hear: canary-prompt"}]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
DURATION = "gen_ai_client_operation_duration_seconds_count"
TOKENS = "gen_ai_client_token_usage_sum"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[AiService]:
    """The AI service, which nobody has asked yet."""
    stand_in = AiService(tmp_path / "service")
    yield stand_in
    stand_in.stop()


Outlet = tuple[Sidecar, openai.OpenAI]


@pytest.fixture
def outlet(start_sidecar: SidecarMaker, service: AiService, collector: FileCollector) -> Iterator[Outlet]:
    """A sidecar before the service, and the application's client of it, which knows but another base URL."""
    settings = {
        "telemetry": {"endpoint": collector.url, "protocol": "grpc"},
        "egress": {
            "enabled": True,
            "listen": "127.0.0.1:0",
            "upstream": service.url,
            "ca_file": str(service.authority),
            "read_timeout": "3s",
            "prices": {"gpt-5": "1.25/10"},
        },
    }
    sidecar = start_sidecar(settings, QUICK_EXPORT)
    with client_of(sidecar) as client:
        yield sidecar, client


def client_of(sidecar: Sidecar) -> openai.OpenAI:
    """The application's client of the service, by way of the sidecar."""
    [address] = re.findall(r"^egress (http://\S+) -> \S+$", sidecar.log.read_text(), re.MULTILINE)
    return openai.OpenAI(api_key=KEY, base_url=f"{address}/v1", max_retries=0)


def span(collector: FileCollector, name: str) -> Span:
    """The one span of that name."""

    def look() -> list[Span]:
        return [span for span in collector.exported.spans(CLIENT) if span.name == name]

    [found] = eventually(look, f"a span {name}")
    return found


def test_a_call_gets_its_answer_and_is_counted_by_model(outlet: Outlet, service: AiService, collector: FileCollector) -> None:
    sidecar, client = outlet
    traced = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = client.chat.completions.create(model="gpt-5", messages=MESSAGES, extra_headers=traced)
    assert answer.choices[0].message.content == "the answer, canary-answer"
    assert answer.usage and answer.usage.total_tokens == 46

    labels = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "gpt-5", "gen_ai_provider_name": "openai"}
    assert sidecar.metric(DURATION, **labels, server_address="localhost") == 1
    assert sidecar.metric(TOKENS, **labels, gen_ai_token_type="input") == 12
    assert sidecar.metric(TOKENS, **labels, gen_ai_token_type="output") == 34
    cost = sidecar.metric("content_factory_gen_ai_estimated_cost_total", gen_ai_request_model="gpt-5")
    assert cost == pytest.approx((12 * 1.25 + 34 * 10) / 1e6)

    seen = span(collector, "chat gpt-5")
    assert (seen.trace_id, seen.parent_id) == (TRACE, PARENT)
    assert seen.attributes["gen_ai.response.model"] == "gpt-5-2026-08-07"
    assert (seen.attributes["gen_ai.usage.input_tokens"], seen.attributes["gen_ai.usage.output_tokens"]) == (12, 34)
    assert seen.attributes["http.response.status_code"] == 200

    [head] = service.heads
    assert head["authorization"] == f"Bearer {KEY}", "the key is the caller's, and reaches the service"
    assert (head["host"], head["accept-encoding"]) == (service.url.removeprefix("https://"), "identity")


def test_a_realtime_session_passes_both_ways_and_its_handshake_is_counted_by_model(
    outlet: Outlet, service: AiService, collector: FileCollector
) -> None:
    sidecar, client = outlet
    item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "canary-prompt " * 20}]}
    with client.realtime.connect(model="gpt-realtime") as session:
        assert session.recv().type == "session.created"
        # while it is open: its call was the handshake
        labels = {"gen_ai_operation_name": "realtime", "gen_ai_request_model": "gpt-realtime"}
        eventually(lambda: sidecar.metric(DURATION, **labels) == 1, "the handshake")
        session.conversation.item.create(item=item)
        answered: Any = session.recv()
        assert answered.delta == "canary-answer"
    assert span(collector, "realtime gpt-realtime").attributes["http.response.status_code"] == 101
    [head] = service.heads
    assert head["authorization"] == f"Bearer {KEY}"


def test_a_stream_is_not_held_up(outlet: Outlet, service: AiService, collector: FileCollector) -> None:
    sidecar, client = outlet
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(model="gpt-5", messages=MESSAGES, stream=True, stream_options=options)
    # the service sends its second chunk only when the caller has the first one
    assert next(stream).choices[0].delta.content == "first"
    service.go_on.set()
    rest = list(stream)
    assert rest[0].choices[0].delta.content == "second"
    assert rest[-1].usage and rest[-1].usage.completion_tokens == 34

    labels = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "gpt-5"}
    eventually(lambda: sidecar.metric(DURATION, **labels) == 1, "the end of the call")
    assert sidecar.metric("gen_ai_client_operation_time_to_first_chunk_seconds_count", **labels) == 1
    assert sidecar.metric(TOKENS, **labels, gen_ai_token_type="output") == 34
    seen = span(collector, "chat gpt-5")
    assert seen.attributes["gen_ai.request.stream"] is True
    assert 0 < seen.attributes["gen_ai.response.time_to_first_chunk"] <= (seen.end - seen.start) / 1e9


def test_a_stream_without_usage_is_told_as_one_whose_tokens_are_not_known(outlet: Outlet, service: AiService) -> None:
    sidecar, client = outlet
    service.go_on.set()
    assert len(list(client.chat.completions.create(model="gpt-5", messages=MESSAGES, stream=True))) == 2
    unread = "content_factory_egress_usage_unread_total"
    eventually(lambda: sidecar.metric(unread, reason="absent") == 1, "the stream among those without usage")


def test_other_interfaces_are_read_too(outlet: Outlet) -> None:
    sidecar, client = outlet
    client.embeddings.create(model="embed-3", input="canary-prompt")
    client.responses.create(model="gpt-5", input="canary-prompt")
    assert [model.id for model in client.models.list()] == ["gpt-5"]
    assert sidecar.metric(TOKENS, gen_ai_operation_name="embeddings", gen_ai_token_type="input") == 7
    assert sidecar.metric(TOKENS, gen_ai_operation_name="chat", gen_ai_token_type="output") == 6
    assert sidecar.metric(DURATION, gen_ai_operation_name="other", gen_ai_request_model="other") == 1


@pytest.mark.parametrize(
    ("model", "error", "told"),
    [
        ("limited", openai.RateLimitError, "429"),
        ("broken", openai.InternalServerError, "500"),
        ("unknown", openai.NotFoundError, "404"),
    ],
)
def test_an_error_of_the_service_reaches_the_caller_and_is_counted(
    outlet: Outlet, model: str, error: type[openai.APIStatusError], told: str
) -> None:
    sidecar, client = outlet
    with pytest.raises(error, match="as asked"):
        client.chat.completions.create(model=model, messages=MESSAGES)
    # a model that the service has refused may be any text, and is no label
    assert sidecar.metric(DURATION, error_type=told, gen_ai_request_model="other") == 1
    assert sidecar.metric(DURATION, gen_ai_request_model=model) == 0


def test_a_service_that_says_nothing_is_given_up(outlet: Outlet) -> None:
    sidecar, client = outlet
    with pytest.raises(openai.InternalServerError, match="timeout") as raised:
        client.chat.completions.create(model="silent", messages=MESSAGES)
    assert raised.value.status_code == 504
    assert sidecar.metric(DURATION, error_type="timeout") == 1


def test_a_torn_stream_never_looks_whole(outlet: Outlet, service: AiService) -> None:
    sidecar, client = outlet
    service.go_on.set()
    with pytest.raises(Exception, match="peer closed|incomplete|Remote|Connection|chunk"):
        list(client.chat.completions.create(model="torn", messages=MESSAGES, stream=True))
    eventually(lambda: sidecar.metric(DURATION, error_type="protocol") == 1, "the torn stream among the failures")


def test_a_service_that_is_away_harms_nobody_else(outlet: Outlet, service: AiService) -> None:
    sidecar, client = outlet
    service.stop()
    with pytest.raises(openai.InternalServerError, match="refused"):
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert sidecar.metric(DURATION, error_type="refused") == 1
    assert sidecar.json("/health")["services"]


def test_no_prompt_no_answer_and_no_key_is_found_anywhere(outlet: Outlet, service: AiService, collector: FileCollector) -> None:
    sidecar, client = outlet
    service.go_on.set()
    client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    list(client.chat.completions.create(model="gpt-5", messages=MESSAGES, stream=True))
    client.chat.completions.create(model="canary prompt as a model?", messages=MESSAGES, extra_query={"k": "canary-query"})
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="unknown", messages=MESSAGES)
    pages = ["/metrics", "/health", "/status", "/dashboard", "/api/v1/monitoring/dashboard", "/api/v1/monitoring/metrics"]
    said = {page: sidecar.text(page) for page in pages}
    eventually(lambda: len(collector.exported.spans(CLIENT)) >= 4, "the spans of four calls")
    sidecar.stop()
    files = [path for path in sidecar.log.parent.rglob("*") if path.is_file() and "service" not in path.parts]
    said |= {str(path): path.read_bytes().decode(errors="replace") for path in files}
    assert any("gen_ai.client.token.usage" in text for text in said.values()), "what was searched holds the calls"
    found = [place for place, text in said.items() if "canary" in text]
    assert not found


def test_a_service_with_a_strangers_certificate_gets_no_key(
    start_sidecar: SidecarMaker, service: AiService, collector: FileCollector, tmp_path: Path
) -> None:
    stranger, _, _ = certificates(tmp_path / "stranger")
    egress = {"enabled": True, "listen": "127.0.0.1:0", "upstream": service.url, "ca_file": str(stranger)}
    sidecar = start_sidecar({"telemetry": {"endpoint": collector.url, "protocol": "grpc"}, "egress": egress})
    with client_of(sidecar) as client, pytest.raises(openai.InternalServerError, match="tls"):
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert sidecar.metric(DURATION, error_type="tls") == 1
    assert not service.heads
