"""Clients of the running server."""

from collections.abc import Awaitable, Callable

import aiohttp
import pytest
from calls import Api

import world
from proctor.services.context import Context

SignIn = Callable[[str], Awaitable[Api]]


@pytest.fixture
def nobody(client: aiohttp.ClientSession) -> Api:
    """A client without a token."""
    return Api(client, {})


@pytest.fixture
def sign_in(client: aiohttp.ClientSession, context: Context) -> SignIn:
    """Gives a client with the token of a user that exists."""

    async def as_user(username: str) -> Api:
        return Api(client, await world.bearer(context, username))

    return as_user
