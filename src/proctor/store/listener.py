"""Hears which executions change. A notification wakes; nothing depends on it arriving."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from proctor.store.outbox import CHANNEL

_logger = logging.getLogger(__name__)

RECONNECT_INTERVAL = 1.0


class Changes:
    """Changes of one execution, for one listener; `over` once the server stops, and nobody shall wait any more."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.over = False

    def set(self) -> None:
        self._event.set()

    def end(self) -> None:
        self.over = True
        self._event.set()

    async def wait(self, timeout: float) -> None:
        """Returns at the next change, or after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return
        if not self.over:
            self._event.clear()


class Listener:
    """One connection that listens for all who want to know in this process."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: dict[int, set[Changes]] = {}
        self._over = False

    @asynccontextmanager
    async def changes(self, execution_id: int) -> AsyncIterator[Changes]:
        changes = Changes()
        if self._over:
            changes.end()
        self._waiting.setdefault(execution_id, set()).add(changes)
        try:
            yield changes
        finally:
            listeners = self._waiting[execution_id]
            listeners.discard(changes)
            if not listeners:
                del self._waiting[execution_id]

    def end(self) -> None:
        """Lets everybody go who waits, or comes to wait: the server stops."""
        self._over = True
        for waiting in self._waiting.values():
            for changes in waiting:
                changes.end()

    async def run(self) -> None:
        """Listens until cancelled; connects again when the database went away."""
        while True:
            try:
                await self._listen()
            except psycopg.OperationalError as error:
                _logger.warning("the listener lost its database connection: %s", error)
                await asyncio.sleep(RECONNECT_INTERVAL)

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            async for notification in connection.notifies():
                for changes in self._waiting.get(int(notification.payload), ()):
                    changes.set()
