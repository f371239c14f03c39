"""The whole server, in the test's event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from proctor.app import create_app
from proctor.cli.processes import configure_http
from proctor.settings import Settings


@dataclass(frozen=True)
class Server:
    """A running server: `url` without a slash at its end."""

    url: str
    app: FastAPI


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Ctrl-C is for pytest.
        yield

    async def main_loop(self) -> None:
        # Looks more often than uvicorn's own whether it shall end.
        while not await self.on_tick(0):  # noqa: ASYNC110 (it is a flag, not an event)
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # As uvicorn's own, without the tenth of a second that it gives clients to hang up: here they have.
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        async with asyncio.timeout(5):
            await self._wait_tasks_to_complete()
        await self.lifespan.shutdown()


@asynccontextmanager
async def serving(settings: Settings, database_url: str) -> AsyncIterator[Server]:
    """The whole server on a free port of 127.0.0.1, in the test's event loop."""
    app = create_app(settings, database_url)
    uvicorn_server = _Uvicorn(configure_http(app, settings.model_copy(update={"port": 0})))
    running = asyncio.create_task(uvicorn_server.serve())
    try:
        while not uvicorn_server.started:
            await asyncio.sleep(0.01)
            if running.done():
                running.result()
                raise RuntimeError("the server did not start")
        port = uvicorn_server.servers[0].sockets[0].getsockname()[1]
        yield Server(f"http://127.0.0.1:{port}", app)
    finally:
        uvicorn_server.should_exit = True
        await running
