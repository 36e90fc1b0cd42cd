"""All processes of the factory at once, and a little traffic: `python -m content_factory run`."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path

from content_factory.ai import REFUSALS, stand_in
from content_factory.database import Base, engine
from content_factory.failures import FAILURES, IN_THE_DATABASE, hold_redis
from content_factory.settings import settings

HERE = Path(__file__).resolve().parent.parent
QUEUES = ["main-queue", "video-queue", "publish-queue"]
# A pause between two rounds of traffic, and between a process's end and its next start.
PAUSE_SECONDS = 0.5
END_SECONDS = 10


class Factory:
    """The processes, each started again when it ends, until SIGINT or SIGTERM."""

    def __init__(self, bind: str, through: str, sidecar: str, failures: list[str]) -> None:
        self.through, self.sidecar = through.rstrip("/"), sidecar.rstrip("/")
        self.failures, self.over = failures, threading.Event()
        paths = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        self.environment = os.environ | {"CONTENT_FACTORY_FAIL": ",".join(failures), "PYTHONPATH": paths}
        if sidecar:
            self.environment["SIDECAR_URL"] = sidecar
        queues = ",".join(queue for queue in QUEUES if queue != "video-queue" or "celery-queue-unserved" not in failures)
        celery = [sys.executable, "-m", "celery", "-A", "content_factory.tasks:celery", "worker", "-c", "2", "-Q", queues]
        gunicorn = [sys.executable, "-m", "gunicorn", "--config", str(HERE / "gunicorn.conf.py"), "--bind", bind]
        self.commands = {"web": [*gunicorn, "content_factory.app:app"], "worker": [*celery, "-n", "factory@%h"]}
        self.answers: Counter[str] = Counter()
        self.ai: ThreadingHTTPServer | None = None

    def with_ai(self, egress: str, bind: str) -> "Factory":
        """Has scripts written by a stand-in for the AI service at this address, which is asked by way of the sidecar's egress port."""
        if egress:
            self.environment["OPENAI_BASE_URL"] = f"{egress.rstrip('/')}/v1"
            self.ai = stand_in(bind, self.failures)
        return self

    def run(self) -> int:
        """Returns when it was told to end: 0, or 64 when a failure is impossible here."""
        if impossible := self.impossible():
            print(impossible, file=sys.stderr)
            return 64
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.over.set())
        Base.metadata.create_all(engine)
        for name in self.failures:
            print(f"failing: {name}: {FAILURES[name]}")
        threads = [threading.Thread(target=self.keep, args=item) for item in self.commands.items()]
        threads += [threading.Thread(target=IN_THE_DATABASE[name], args=(self.over,)) for name in self.failures if name in IN_THE_DATABASE]
        threads.append(threading.Thread(target=self.traffic))
        if "redis-hangs" in self.failures:
            threads.append(threading.Thread(target=hold_redis, args=(self.over,)))
        if self.ai:
            threading.Thread(target=self.ai.serve_forever, daemon=True).start()
        for thread in threads:
            thread.start()
        print(f"running; traffic goes through {self.through}. Ctrl-C ends it.", flush=True)
        self.over.wait()
        for thread in threads:
            thread.join()
        if self.ai:
            self.ai.shutdown()
            self.ai.server_close()
        print("answers:", ", ".join(f"{count} {what}" for what, count in sorted(self.answers.items())) or "none")
        return 0

    def impossible(self) -> str | None:
        """Why what was asked for cannot be shown."""
        for name in self.failures:
            if name in IN_THE_DATABASE and not settings.database_url.startswith("postgresql"):
                return f"--fail {name}: DATABASE_URL is of {settings.database_url.partition(':')[0]}, expected postgresql"
            if name in ("task-never-ended", "heartbeat-missed") and not self.sidecar:
                return f"--fail {name}: nobody is told of tasks and heartbeats, expected --sidecar URL"
            if name in REFUSALS and not self.ai:
                return f"--fail {name}: the AI service is not asked, expected --egress URL"
        return None

    def keep(self, name: str, command: list[str]) -> None:
        """Runs a process, and another one when it has ended."""
        while not self.over.is_set():
            with subprocess.Popen(command, env=self.environment, start_new_session=True) as process:
                while process.poll() is None and not self.over.wait(PAUSE_SECONDS):
                    pass
                self.end(process)
            if not self.over.wait(PAUSE_SECONDS):
                print(f"{name} ended with {process.returncode} and is started again", flush=True)

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        """Asks it to end, and after a while makes it; what it left behind ends too."""
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def traffic(self) -> None:
        """A product, its script, its video and its publication, over and over."""
        for number in itertools.count(1):
            if self.over.wait(PAUSE_SECONDS):
                return
            product = self.ask("POST", "/api/v1/products", {"name": f"Product {number}"})
            script = self.ask("POST", f"/api/v1/products/{product.get('id', 0)}/scripts", {})
            video = self.ask("POST", "/api/v1/videos", {"script_id": script.get("id", 0)})
            self.ask("POST", f"/api/v1/social-media/publish-video/{video.get('id', 0)}", {})
            self.ask("GET", "/api/v1/reports/slow?seconds=0.3")
            self.beat()

    def beat(self) -> None:
        """Tells the sidecar that the traffic goes on, where it has a check of that name."""
        if self.sidecar and "heartbeat-missed" not in self.failures:
            request = urllib.request.Request(f"{self.sidecar}/api/v1/monitoring/heartbeat/traffic", b"", method="POST")
            with suppress(OSError):
                urllib.request.urlopen(request, timeout=2).close()

    def ask(self, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, int]:
        """The answer as JSON, empty when there is none; counts what came."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.through + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                self.answers[str(answer.status)] += 1
                return json.load(answer)
        except urllib.error.HTTPError as error:
            self.answers[str(error.code)] += 1
        except (OSError, ValueError):
            self.answers["without an answer"] += 1
        return {}
