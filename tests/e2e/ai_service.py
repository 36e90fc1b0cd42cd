"""A stand-in for OpenAI's API behind TLS, with an authority of its own; what it does, the model's name says."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import subprocess
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pieces import Pieces

# What it answers with instead of an answer.
STATUSES = {"limited": 429, "broken": 500, "unknown": 404}
# Of RFC 6455.
HANDSHAKE, TEXT, CLOSE = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 1, 8
REALTIME_ANSWER = {
    "type": "response.output_text.delta", "event_id": "e2", "response_id": "r", "item_id": "i",
    "output_index": 0, "content_index": 0, "delta": "canary-answer",
}  # fmt: skip
USAGE = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority, and a certificate of it for loopback with its key."""
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def new_key(name: str) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(folder / f"{name}.key")]

    authority, request, certificate = folder / "ca.pem", folder / "service.csr", folder / "service.pem"
    openssl("req", "-x509", *new_key("ca"), "-subj", "/CN=authority", "-days", "1", "-out", authority)
    openssl("req", *new_key("service"), "-subj", "/CN=localhost", "-out", request)
    (folder / "service.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(
        "x509", "-req", "-in", request, "-CA", authority, "-CAkey", folder / "ca.key", "-CAcreateserial",
        "-days", "1", "-extfile", folder / "service.ext", "-out", certificate,
    )  # fmt: skip
    return authority, certificate, folder / "service.key"


class AiService:
    """Answers on a port of its own until it is stopped, and remembers the heads of what it was asked, by names in lower case."""

    def __init__(self, folder: Path):
        self.authority, certificate, key = certificates(folder)
        self.heads: list[dict[str, str]] = []
        # A stream goes on behind its first chunk, and a silent answer comes at all, once this is set.
        self.go_on = threading.Event()
        service = self

        class Handler(Pieces):
            def do_GET(self) -> None:
                service.heads.append({name.lower(): value for name, value in self.headers.items()})
                if self.headers.get("Upgrade") == "websocket":
                    self.realtime()
                    return
                self.whole(200, {"object": "list", "data": [{"id": "gpt-5", "object": "model", "created": 1, "owned_by": "x"}]})

            def do_POST(self) -> None:
                service.heads.append({name.lower(): value for name, value in self.headers.items()})
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model = asked["model"]
                if model in STATUSES:
                    self.whole(STATUSES[model], {"error": {"message": "as asked", "type": "x", "code": "x"}})
                elif model == "silent":
                    service.go_on.wait(30)
                    self.close_connection = True
                elif asked.get("stream"):
                    self.stream(model, asked)
                else:
                    self.whole(200, answer(self.path, model))

            def realtime(self) -> None:
                """Greets, and answers whatever is said with one word, until the caller closes."""
                agreed = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + HANDSHAKE).encode()).digest()).decode()
                self.send_response_only(101)
                for field in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", agreed)):
                    self.send_header(*field)
                self.end_headers()
                self.close_connection = True
                self.frame(TEXT, {"type": "session.created", "event_id": "e1", "session": {"type": "realtime", "object": "realtime.session"}})
                while (kind := self.rfile.read(1)[0] & 0x0F) != CLOSE:
                    length = self.rfile.read(1)[0] & 0x7F
                    length = int.from_bytes(self.rfile.read(2), "big") if length == 126 else length
                    self.rfile.read(4 + length)
                    if kind == TEXT:
                        self.frame(TEXT, REALTIME_ANSWER)
                self.frame(CLOSE, None)

            def frame(self, kind: int, data: Any) -> None:
                raw = b"" if data is None else json.dumps(data).encode()
                length = bytes([len(raw)]) if len(raw) < 126 else b"\x7e" + len(raw).to_bytes(2, "big")
                self.wfile.write(bytes([0x80 | kind]) + length + raw)

            def whole(self, status: int, body: Any) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def stream(self, model: str, asked: dict[str, Any]) -> None:
                self.begin("text/event-stream; charset=utf-8")
                self.event(chunk(model, "first"))
                service.go_on.wait(30)
                if model == "torn":
                    self.close_connection = True
                    return
                self.event(chunk(model, "second"))
                if asked.get("stream_options", {}).get("include_usage"):
                    self.event({**chunk(model, None), "choices": [], "usage": USAGE})
                self.piece(b"data: [DONE]\n\n")
                self.piece(b"")

            def event(self, data: Any) -> None:
                self.piece(f"data: {json.dumps(data)}\n\n".encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        # a caller that gives up, or trusts somebody else, is what tests are about
        self.server.handle_error = lambda *_: None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Without a path: that is the application's."""
        return f"https://localhost:{self.server.server_port}"

    def stop(self) -> None:
        """Ends, whatever is under way."""
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()


def answer(path: str, model: str) -> dict[str, Any]:
    """A whole answer, as each of the paths has it."""
    if path.endswith("/embeddings"):
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        return {"object": "list", "model": model, "data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    if path.endswith("/responses"):
        usage = {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}
        return {"id": "resp_1", "object": "response", "created_at": 1, "model": model, "output": [], "status": "completed", "usage": usage}
    message = {"role": "assistant", "content": "the answer, canary-answer"}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    dated = f"{model}-2026-08-07"
    return {"id": "c", "object": "chat.completion", "created": 1, "model": dated, "choices": choices, "usage": USAGE}


def chunk(model: str, content: str | None) -> dict[str, Any]:
    """A piece of an answer that is a stream."""
    choices = [{"index": 0, "delta": {"content": content}, "finish_reason": None}]
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices, "usage": None}
