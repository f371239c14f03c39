"""Hubs: what offers environments. One Protocol, one file for each kind."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from proctor.domain.environment import Environment, Offer


class Hub(Protocol):
    """Offers environments, and gives the WebDriver endpoint of a slot that the caller has leased."""

    name: str

    async def offers(self) -> list[Offer]:
        """What it offers now; raises HubUnreachable."""
        ...

    def driver(self, environment: Environment, folder: Path) -> AbstractAsyncContextManager[str]:
        """The base URL of a WebDriver remote end for one session of the environment, as in `http://127.0.0.1:9515`.

        Starts what the session needs and, on leaving, ends all of it: driver, browser, profile. Its log goes to
        `folder/driver.log`. Raises DriverFailed or HubUnreachable.
        """
        ...

    def capabilities(self, environment: Environment) -> dict[str, object]:
        """The `alwaysMatch` capabilities that the environment puts into a new-session request."""
        ...


async def carry_through(cleanup: Coroutine[Any, Any, None]) -> None:
    """Runs a cleanup to its end however often the caller is cancelled meanwhile, and only then cancels the caller.

    Raises what the cleanup raises.
    """
    task = asyncio.ensure_future(cleanup)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
