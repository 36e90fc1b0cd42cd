"""What stand-ins that answer piece by piece have in common."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Any


class Pieces(BaseHTTPRequestHandler):
    """Answers of unknown length, by chunks; an empty piece is the end. Says nothing on the terminal."""

    protocol_version = "HTTP/1.1"

    def begin(self, content_type: str) -> None:
        """The head; pieces follow."""
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def piece(self, raw: bytes) -> None:
        """One chunk, at once."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))

    def log_message(self, *_: Any) -> None:
        """Quiet."""
