"""The AI service that writes scripts: how it is asked, and a stand-in for it on this machine."""

import json
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from content_factory.settings import settings

MODEL = "gpt-5-mini"
REFUSALS = {"ai-key-revoked": 401, "ai-quota-used-up": 429, "ai-outage": 503}
"""How the stand-in answers, by the failure that was asked for."""


class Refused(Exception):
    """Nobody has written a script."""


def write_script(product: str) -> str:
    """What a video of it could say. Where no address of the service is set, nobody is asked."""
    if not settings.openai_base_url:
        return f"Have you seen {product}?"
    asked = {"model": MODEL, "messages": [{"role": "user", "content": f"A script about {product}, in one sentence."}]}
    headers = {"Authorization": f"Bearer {settings.openai_api_key}", "Content-Type": "application/json"}
    url = f"{settings.openai_base_url.rstrip('/')}/chat/completions"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(asked).encode(), headers), timeout=10) as answer:
            return str(json.load(answer)["choices"][0]["message"]["content"])
    except (OSError, ValueError, LookupError) as error:
        raise Refused from error


def stand_in(bind: str, failures: list[str]) -> ThreadingHTTPServer:
    """A service at this address that writes the same sentence for everybody, or refuses; not served yet."""
    status = next((REFUSALS[name] for name in failures if name in REFUSALS), 200)
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Have you seen it?"}}
    usage = {"prompt_tokens": 24, "completion_tokens": 6, "total_tokens": 30}
    written = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice], "usage": usage}
    body = json.dumps(written if status == 200 else {"error": {"message": "as asked for", "type": "stand-in"}}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    host, _, port = bind.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    server.daemon_threads = True
    return server
