"""Wires the server together; nothing is decided here."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
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
from proctor.store.engine import DatabaseGone, Store
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
                app,
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
    app.state.failed = False
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
async def _side_tasks(app: FastAPI, *runs: Callable[[], Coroutine[None, None, None]]) -> AsyncIterator[None]:
    """Runs these beside the server. One that fails marks the app as failed: the process ends and is started anew."""

    def note(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            _logger.error("a side task failed; the server ends", exc_info=task.exception())
            app.state.failed = True

    tasks = [asyncio.create_task(run()) for run in runs]
    for task in tasks:
        task.add_done_callback(note)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _sweep_forever(context: Context) -> None:
    while True:
        try:
            await sweep.sweep(context)
        except DatabaseGone as error:
            _logger.warning("the sweep could not reach the database: %s", error)
        await context.clock.sleep(sweep.INTERVAL)


async def _deliver_forever(context: Context) -> None:
    handlers = {DELIVER: partial(callbacks.deliver, context)}
    await context.queue.run(
        handlers, queues=[CALLBACKS_QUEUE], concurrency=DELIVERIES_AT_ONCE, name="callbacks", grace=2
    )
