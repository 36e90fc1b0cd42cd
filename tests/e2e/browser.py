"""A real browser without a window, told what to do by the DevTools protocol, as an operator's would be by its operator."""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from processes import Process
from waiting import DEADLINE_SECONDS, eventually
from websockets.sync.client import ClientConnection, connect

PROGRAM = "chromium-headless-shell"


class Browser(Process):
    """One browser with a profile of its own; `page` is its one page."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        # root's browser has no sandbox, and it loads nothing but our own pages
        sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
        profile = ["--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}", "--disable-gpu", "--disable-dev-shm-usage"]
        super().__init__("browser", [PROGRAM, *sandbox, *profile, "about:blank"], {}, folder)
        self.page: Page
        self._open = ExitStack()

    def start(self) -> None:
        """Returns once it has a page that does as it is told."""
        self.spawn()

        def address() -> str | None:
            self.must_live()
            found = re.search(r"DevTools listening on (ws://\S+)", self.said())
            return found and found[1]

        tools = connect(eventually(address, "the address of its tools"), max_size=None, compression=None)
        self.page = Page(self._open.enter_context(tools))

    def kill(self) -> None:
        """Ends it, and what was said to it."""
        self._open.close()
        super().kill()


class Page:
    """What it shows, and how often it has asked for a password."""

    def __init__(self, tools: ClientConnection):
        self._tools, self._number, self._session, self._loaded = tools, 0, None, 0
        # Which navigations have come to their end: a page refreshes itself, and that is another one.
        self._ended: set[str] = set()
        # What is typed when it asks; None: the dialogue is closed.
        self.password: str | None = None
        self.asked = 0
        target = self._tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._tell("Page.enable")
        self._tell("Page.setLifecycleEventsEnabled", enabled=True)
        self._tell("Fetch.enable", patterns=[{"urlPattern": "*"}], handleAuthRequests=True)

    def open(self, address: str) -> None:
        """Types the address, and waits until all of the page is there."""
        asked = self._tell("Page.navigate", url=address)["loaderId"]
        while asked not in self._ended:
            self._hear()

    def await_load(self) -> None:
        """Waits until a page has been loaded, whoever asked for it."""
        before = self._loaded
        while self._loaded == before:
            self._hear()

    def run(self, script: str) -> Any:
        """What this evaluates to there."""
        answer = self._tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self) -> str:
        """What there is to read."""
        return self.run("document.documentElement.innerText")

    def _tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = self._send(method, parameters)
        while True:
            heard = self._hear()
            if heard.get("id") == number:
                assert "error" not in heard, f"{method}: {heard['error']}"
                return heard["result"]

    def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        self._tools.send(json.dumps({"id": self._number, "method": method, "params": parameters} | session))
        return self._number

    def _hear(self) -> dict[str, Any]:
        heard = json.loads(self._tools.recv(timeout=DEADLINE_SECONDS))
        told = heard.get("params", {})
        if heard.get("method") == "Fetch.requestPaused":
            self._send("Fetch.continueRequest", {"requestId": told["requestId"]})
        elif heard.get("method") == "Fetch.authRequired":
            self.asked += 1
            typed = {"response": "ProvideCredentials", "username": "anybody", "password": self.password}
            answer = typed if self.password else {"response": "CancelAuth"}
            # who has mistyped looks for the right one first
            self.password = None
            self._send("Fetch.continueWithAuth", {"requestId": told["requestId"], "authChallengeResponse": answer})
        elif heard.get("method") == "Page.lifecycleEvent" and told["name"] == "load":
            self._loaded += 1
            self._ended.add(told["loaderId"])
        return heard
