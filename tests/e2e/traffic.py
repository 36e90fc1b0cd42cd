"""Clients: a user's day of two thousand requests, and a load that never stops asking."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

# A product that does not exist, for as long as a test runs.
NO_PRODUCT = 1_000_000_000


@dataclass
class Day:
    """Two thousand requests over every route, and what was answered: (method, route, status) → how often."""

    base: str
    concurrency: int = 16
    answers: Counter[tuple[str, str | None, int]] = field(default_factory=Counter)

    def run(self) -> Day:
        """Sends them all and waits for each answer's last byte."""
        asyncio.run(self._run())
        return self

    @property
    def total(self) -> int:
        """How many requests were answered."""
        return self.answers.total()

    def count(self, route: str | None = None, status: int | None = None) -> int:
        """How many answers a route gave, or had a status."""
        return sum(
            count
            for (_, its_route, its_status), count in self.answers.items()
            if (route is None or its_route == route) and (status is None or its_status == status)
        )

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        async with httpx.AsyncClient(base_url=self.base, limits=limits, timeout=30) as client:
            self._client = client
            # in a row, whatever the order of the answers: every tenth of them is refused a script
            products = sorted(await self._all([self._post_product(f"product {number}") for number in range(300)]))
            await self._all([self._post_product("") for _ in range(30)])  # 422: a name has at least one letter
            scripts = await self._all([self._script(product) for product in products[:200]])
            written = [script for script in scripts if script is not None]
            videos = await self._all([self._video(script) for script in written[:100]])
            await self._all([self._get("/api/v1/products/{product_id}", product_id=product) for product in products])
            await self._all([self._get("/api/v1/products/{product_id}", product_id=NO_PRODUCT) for _ in range(50)])
            await self._all([self._get("/api/v1/products", "?limit=5") for _ in range(200)])
            await self._all([self._get("/api/v1/videos/{video_id}", video_id=video) for video in videos * 2])
            await self._all([self._publish(video) for video in videos])
            await self._all([self._get("/api/v1/videos/{video_id}/progress", "?interval=0.01", video_id=1) for _ in range(20)])
            await self._all([self._get("/api/v1/reports/slow", "?seconds=0.05") for _ in range(50)])
            await self._all([self._get(None, f"/no/such/path/{number}") for number in range(30)])
            await self._all([self._get("/") for _ in range(2000 - self.total)])

    async def _all(self, requests: list) -> list:
        """Runs them side by side, at most `concurrency` at once."""
        gate = asyncio.Semaphore(self.concurrency)

        async def one(request):
            async with gate:
                return await request

        return list(await asyncio.gather(*(one(request) for request in requests)))

    async def _send(self, method: str, route: str | None, path: str, **arguments) -> httpx.Response:
        answer = await self._client.request(method, path, **arguments)
        self.answers[(method, route, answer.status_code)] += 1
        return answer

    async def _get(self, route: str | None, suffix: str = "", **names: int) -> None:
        await self._send("GET", route, (route or "").format(**names) + suffix)

    async def _post_product(self, name: str) -> int | None:
        answer = await self._send("POST", "/api/v1/products", "/api/v1/products", json={"name": name})
        return answer.json().get("id")

    async def _script(self, product: int) -> int | None:
        route = "/api/v1/products/{product_id}/scripts"
        answer = await self._send("POST", route, route.format(product_id=product))
        return answer.json().get("id")

    async def _video(self, script: int) -> int:
        answer = await self._send("POST", "/api/v1/videos", "/api/v1/videos", json={"script_id": script})
        return answer.json()["id"]

    async def _publish(self, video: int) -> None:
        route = "/api/v1/social-media/publish-video/{video_id}"
        await self._send("POST", route, route.format(video_id=video))


@dataclass
class Load:
    """Keep-alive clients that ask again as soon as they are answered, and obey `Connection: close`.

    Small on purpose: a request costs it a tenth of what a full client takes, so it can press.
    """

    base: str
    requests: int
    connections: int = 16
    path: str = "/"
    # They go on beyond that number as long as this is set: until what shall happen in their midst has happened.
    goes_on: bool = False
    answered: int = 0
    told_to_close: int = 0
    slowest_seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    async def run(self) -> Load:
        """Sends them all, and more as long as it goes on."""
        self._left = self.requests
        await asyncio.gather(*(self._client() for _ in range(self.connections)))
        return self

    async def reached(self, answered: int, seconds: float = 60) -> None:
        """Waits until so many are answered."""
        async with asyncio.timeout(seconds):
            while self.answered < answered:
                await asyncio.sleep(0.005)

    async def _client(self) -> None:
        address = urlsplit(self.base)
        head = f"GET {self.path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
        reader = writer = None
        while self._left > 0 or self.goes_on:
            self._left -= 1
            started = time.monotonic()
            may_stay = False
            try:
                async with asyncio.timeout(20):
                    if writer is None:
                        reader, writer = await asyncio.open_connection(address.hostname, address.port)
                    may_stay = await self._ask(head, reader, writer)
                self.answered += 1
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)
            if writer is not None and (not may_stay or (self._left <= 0 and not self.goes_on)):
                writer.close()
                reader = writer = None

    async def _ask(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One exchange; says whether the connection may be used again."""
        writer.write(head)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if not answer.startswith(b"http/1.1 200 "):
            raise ValueError(answer.partition(b"\r\n")[0].decode())
        if b"connection: close" in answer:
            self.told_to_close += 1
            return False
        return True
