"""A caller's side of the callbacks: a real HTTP server that keeps what it is told, and answers as the test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook


@dataclass(frozen=True)
class Told:
    """One post, as it came."""

    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.raw)
        return body

    @property
    def sequence(self) -> int:
        return int(self.body["data"]["sequence"])

    def verify(self, secret: str) -> None:
        """Raises WebhookVerificationError when it was not signed with the secret."""
        Webhook(secret).verify(self.raw, self.headers)


@dataclass
class Receiver:
    """`answer` gives the status for each post by its number, from 1."""

    answer: Callable[[int], int] = lambda _: 200
    port: int = 0
    told: list[Told] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def sequences(self) -> list[int]:
        return [one.sequence for one in self.told]

    async def wait(self, number: int, timeout: float = 10) -> list[Told]:
        """Until so many posts have come."""
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(lambda: len(self.told) >= number)
        return self.told

    async def handle(self, request: web.Request) -> web.Response:
        told = Told({name.lower(): value for name, value in request.headers.items()}, await request.read())
        async with self._news:
            self.told.append(told)
            self._news.notify_all()
            return web.Response(status=self.answer(len(self.told)), text="noted")


@asynccontextmanager
async def receiving(answer: Callable[[int], int] = lambda _: 200) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.port = runner.addresses[0][1]
        yield receiver
    finally:
        await runner.cleanup()
