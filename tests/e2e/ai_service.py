"""A stand-in for OpenAI's API behind TLS, with an authority of its own; what it does, the model's name says."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What it answers with instead of an answer.
STATUSES = {"limited": 429, "broken": 500, "unknown": 404}
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

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.heads.append({name.lower(): value for name, value in self.headers.items()})
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

            def whole(self, status: int, body: Any) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def stream(self, model: str, asked: dict[str, Any]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream; charset=utf-8")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
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

            def piece(self, raw: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))

            def log_message(self, *_: Any) -> None:
                pass

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
