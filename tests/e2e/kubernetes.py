"""As much of a Kubernetes API server as `k8s_attributes` asks for: the list and the watch of pods, over plain HTTP.

Keeps what was asked for, so that a test can compare it with what the chart's ClusterRole allows.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

KINDS = {"/api/v1/pods": "Pod"}


def pod(name: str, *, ip: str, uid: str) -> dict[str, Any]:
    """A pod of the Deployment `web`."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9c", "uid": "replicaset-1", "controller": True}
    return {
        "metadata": {
            "name": name,
            "namespace": "factory",
            "uid": uid,
            "resourceVersion": "1",
            "ownerReferences": [owner],
            "labels": {"pod-template-hash": "7d9c"},
            "annotations": {"resource.opentelemetry.io/team.name": "video"},
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "web", "image": "factory/web:1.2"}]},
        "status": {"podIP": ip, "containerStatuses": [{"name": "web", "containerID": "containerd://abc", "restartCount": 0}]},
    }


class Api:
    """The server, with these pods from the start; nothing changes."""

    def __init__(self, pods: list[dict[str, Any]]):
        self.pods = pods
        self.asked: set[str] = set()
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def kubeconfig(self, folder: Path) -> Path:
        """A file by which a client finds it."""
        file = folder / "kubeconfig"
        cluster = {"name": "it", "cluster": {"server": f"http://127.0.0.1:{self._server.server_address[1]}"}}
        context = {"name": "it", "context": {"cluster": "it", "user": "it"}}
        users = [{"name": "it", "user": {"token": "a-token"}}]
        file.write_text(
            json.dumps({"kind": "Config", "clusters": [cluster], "contexts": [context], "users": users, "current-context": "it"})
        )
        return file

    def close(self) -> None:
        """Ends every watch."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url, query = urlsplit(self.path), parse_qs(urlsplit(self.path).query)
                api.asked.add(url.path)
                kind = KINDS.get(url.path)
                if kind is None:
                    self._answer(404, {"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"})
                    return
                items = [{"kind": kind, "apiVersion": "v1"} | item for item in api.pods]
                if query.get("watch") != ["true"]:
                    head = {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}}
                    self._answer(200, head | {"items": items})
                    return
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                if query.get("sendInitialEvents") == ["true"]:
                    for item in items:
                        self._event("ADDED", item)
                    end = {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}
                    self._event("BOOKMARK", {"kind": kind, "apiVersion": "v1", "metadata": end})
                api._closed.wait()
                self.close_connection = True

            def _event(self, kind: str, item: dict[str, Any]) -> None:
                line = json.dumps({"type": kind, "object": item}).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                self.wfile.flush()

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_args: Any) -> None:
                """Quiet."""

        return Handler
