"""Requests as clients send them, and what every answer must be like."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

B = "/Testinium.RestApi"
API = f"{B}/api"


@dataclass(frozen=True)
class Reply:
    """`body` is None for an answer that is not JSON."""

    status: int
    body: Any
    headers: CIMultiDictProxy[str]
    text: str


@dataclass(frozen=True)
class Api:
    """A client that is signed in, or not."""

    session: aiohttp.ClientSession
    headers: Mapping[str, str]

    async def get(self, path: str, **options: Any) -> Reply:
        return await self.send("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Reply:
        return await self.send("POST", path, **options)

    async def send(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> Reply:
        """`path` from the server's root; `headers` beside the client's own."""
        sent = {**self.headers, **(headers or {})}
        async with self.session.request(method, path, headers=sent, **options) as response:
            text = (await response.read()).decode()
            is_json = response.content_type in {"application/json", "application/problem+json"} and bool(text)
            return Reply(
                response.status, await response.json(content_type=None) if is_json else None, response.headers, text
            )

    async def run(self, plan: object, **options: Any) -> Reply:
        return await self.get(f"{API}/plans/{plan}/run", **options)

    async def start(self, plan: object, **options: Any) -> int:
        """Starts the plan; gives the execution's id."""
        reply = await self.run(plan, **options)
        assert reply.status == 200, reply.text
        assert reply.body["successful"], reply.text
        return int(reply.body["execution_id"])


# Gives a client with the token of a user that exists.
SignIn = Callable[[str], Awaitable[Api]]


def assert_problem(reply: Reply, status: int, message: str, error: str | None = None) -> None:
    """Contract §2: one body that every client can read."""
    assert (reply.status, reply.body and reply.body.get("message")) == (status, message), reply.text
    assert reply.headers["Content-Type"].split(";")[0] == "application/problem+json"
    for name in ("type", "title", "detail", "message", "error", "error_description"):
        assert isinstance(reply.body[name], str), name
        assert reply.body[name], name
    assert reply.body["status"] == status
    assert " " not in reply.body["error"]
    assert len(reply.body["error_description"]) > len("a sentence")
    if error is not None:
        assert reply.body["error"] == error
    if status == 401:
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    for secret in ("Traceback", "SELECT", "psycopg", "/src/", "/usr/", "sqlalche"):
        assert secret not in reply.text
