"""Wires the server together; nothing is decided here."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI

from proctor.api import catalog, cloud, enterprise, health, native, token
from proctor.api.handlers import BodyLimit, SafeHeaders, TrimSlash, install_handlers
from proctor.clock import SystemClock
from proctor.domain.addresses import AddressRules, parse_allow
from proctor.ports.artifacts import Artifacts
from proctor.ports.queue import CALLBACKS_QUEUE, DELIVER, Queue
from proctor.ports.sender import HttpSender
from proctor.services import callbacks, sweep
from proctor.services.context import Context
from proctor.settings import Settings
from proctor.store.engine import Store
from proctor.store.listener import Listener
from proctor.web import pages

_logger = logging.getLogger(__name__)

# How many callbacks one server tells at once; each waits on somebody else's network most of the time.
DELIVERIES_AT_ONCE = 20


def create_app(settings: Settings, database_url: str) -> FastAPI:
    """The server: API, pages, and the side tasks that tell callbacks and sweep."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_context(settings, database_url) as context:
            app.state.context = context
            app.state.listener = Listener(database_url)
            async with _side_tasks(
                app.state.listener.run,
                partial(_sweep_forever, context),
                partial(_deliver_forever, context),
            ):
                yield

    app = FastAPI(
        title="Proctor",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Clients in the field send JSON without saying so, and slashes at the end: a redirect would lose their bearer.
        strict_content_type=False,
        redirect_slashes=False,
    )
    install_handlers(app)
    for router in (token, enterprise, cloud, catalog, native, health, pages):
        app.include_router(router.router)
    pages.mount_static(app)
    app.add_middleware(BodyLimit, limit=settings.body_limit)
    app.add_middleware(SafeHeaders)
    app.add_middleware(TrimSlash)
    return app


@asynccontextmanager
async def open_context(settings: Settings, database_url: str) -> AsyncIterator[Context]:
    """The outside world of a server or worker process."""
    rules = AddressRules(allow=parse_allow(settings.callback_allow), allow_loopback=settings.dev)
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        store = Store(database_url)
        stack.push_async_callback(store.close)
        queue = await stack.enter_async_context(Queue(database_url))
        sender = await stack.enter_async_context(HttpSender(rules, clock=clock))
        yield Context(settings, store, queue, sender, Artifacts(settings.artifacts_folder), clock)


@asynccontextmanager
async def _side_tasks(*runs: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Runs these beside the server; one that fails ends the process, and its supervisor starts it anew."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_as_coroutine(run)) for run in runs]
        yield
        for task in tasks:
            task.cancel()


async def _as_coroutine(run: Callable[[], Awaitable[None]]) -> None:
    await run()


async def _sweep_forever(context: Context) -> None:
    while True:
        await sweep.sweep(context)
        await context.clock.sleep(sweep.INTERVAL)


async def _deliver_forever(context: Context) -> None:
    handlers = {DELIVER: partial(callbacks.deliver, context)}
    await context.queue.run(
        handlers, queues=[CALLBACKS_QUEUE], concurrency=DELIVERIES_AT_ONCE, name="callbacks", grace=2
    )
