"""What runs in one process each: the server, a worker, and the preparation of a database."""

import asyncio
import ctypes
import os
import secrets
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path

import uvicorn
import uvloop
from fastapi import FastAPI

from proctor.app import create_app, open_context
from proctor.errors import UsageError
from proctor.services import accounts
from proctor.settings import Settings
from proctor.store.migrate import migrate

# Seconds for requests that are being answered when the server is asked to stop.
SHUTDOWN_TIMEOUT = 3
SUPERVISED = "PROCTOR_SUPERVISED"
_PR_SET_PDEATHSIG = 1


class _Server(uvicorn.Server):
    """Lets long polls and event streams go before it waits for open requests, and ends when a side task failed."""

    async def on_tick(self, counter: int) -> bool:
        return self.config.app.state.failed or await super().on_tick(counter)  # type: ignore[union-attr]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.listener.end()  # type: ignore[union-attr]  # uvicorn types any ASGI callable
        await super().shutdown(sockets)


def configure_http(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """uvicorn's settings; by default it would believe X-Forwarded-For of whoever is on this machine, as tests are."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        lifespan="on",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )


def run_server(settings: Settings) -> None:
    die_with_parent()
    app = create_app(settings, database_url(settings))
    sockets = [socket.socket(fileno=settings.listen_fd)] if settings.listen_fd >= 0 else None
    _Server(configure_http(app, settings)).run(sockets=sockets)
    if app.state.failed:
        sys.exit(1)


def run_worker(settings: Settings) -> None:
    from proctor.worker.main import work

    die_with_parent()

    async def run() -> None:
        async with open_context(settings, database_url(settings)) as context:
            await _until_stopped(work(context))

    uvloop.run(run())


def prepare(settings: Settings) -> None:
    """Migrates the database, and makes the administrator and the local token when the database is new."""
    url = database_url(settings)
    settings.data.mkdir(parents=True, exist_ok=True)
    migrate(url)
    uvloop.run(_make_admin(settings, url))


def database_url(settings: Settings) -> str:
    if not settings.database_url:
        raise UsageError("PROCTOR_DATABASE_URL is not set: name a PostgreSQL database, or use `proctor up`.")
    return settings.database_url


def die_with_parent() -> None:
    """Has the kernel end this process with its supervisor, also after a `kill -9` of it."""
    supervisor = os.environ.get(SUPERVISED)
    if supervisor and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # It may have died while this process was still starting: then nobody will send the signal.
        if os.getppid() != int(supervisor):
            sys.exit("the supervisor is gone")


async def _until_stopped(work: Coroutine[object, object, None]) -> None:
    """Runs until the work ends by itself or a signal asks for its end."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _make_admin(settings: Settings, url: str) -> None:
    async with open_context(settings, url) as context:
        password = settings.admin_password or secrets.token_urlsafe(12)
        made = await accounts.ensure_admin(context, password)
        if made and not settings.admin_password:
            # stdout: the supervisor passes it on to whoever started it, this once.
            sys.stdout.write(f"{password}\n")
        if not settings.token_file.exists():
            _write_secret(settings.token_file, await accounts.create_local_token(context))


def _write_secret(file: Path, text: str) -> None:
    # By rename, so that a crash leaves no empty file that would be taken for the token.
    new = file.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    new.replace(file)
