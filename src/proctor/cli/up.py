"""`proctor up`: PostgreSQL, server and workers as children of one small supervisor."""

import asyncio
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from proctor.errors import UsageError
from proctor.settings import Settings
from proctor.store.embedded import EmbeddedPostgres

_logger = logging.getLogger(__name__)

# Ctrl-C ends everything within 10 s: a child that needs longer is killed, PostgreSQL needs about one.
STOP_TIMEOUT = 7.0
RESTART_AFTER = 1.0
RESTART_AFTER_AT_MOST = 30.0
STEADY_AFTER = 60.0
POSTGRES_CHECK = 2.0


def run_up(settings: Settings, workers: int) -> int:
    """Runs until a signal asks for the end; gives the exit code."""
    settings.data.mkdir(parents=True, exist_ok=True)
    with _lock(settings), _listen(settings) as listener, _database(settings) as (url, postgres):
        environment = _environment(settings, url, listener)
        password = _prepare(environment)
        address = f"http://{settings.host}:{listener.getsockname()[1]}"
        settings.address_file.write_text(address)
        try:
            asyncio.run(_supervise(environment, listener, workers, postgres, _greeting(address, password, settings)))
        finally:
            settings.address_file.unlink(missing_ok=True)
    return 0


@contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """Holds the data folder; the kernel gives it back however this process ends."""
    with (settings.data / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            address = settings.address_file.read_text() if settings.address_file.exists() else "starting"
            raise UsageError(
                f"Proctor is already running on {settings.data} ({address}). Use it, or give another --data folder."
            ) from None
        yield


@contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket, made here so that it outlives a server that is started again."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            reason = error.strerror
            raise UsageError(
                f"Cannot listen on {settings.host}:{settings.port}: {reason}. Choose another --port (0: any free one)."
            ) from error
        listener.listen(512)
        yield listener


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[str, EmbeddedPostgres | None]]:
    if settings.database_url:
        yield settings.database_url, None
        return
    postgres = EmbeddedPostgres(settings.data / "postgres")
    try:
        yield postgres.start(), postgres
    finally:
        postgres.stop()


def _environment(settings: Settings, url: str, listener: socket.socket) -> dict[str, str]:
    """What the children get: this process's settings, resolved."""
    return {
        **os.environ,
        "PROCTOR_DATA": str(settings.data.resolve()),
        "PROCTOR_DATABASE_URL": url,
        "PROCTOR_DEV": str(settings.dev),
        "PROCTOR_LISTEN_FD": str(listener.fileno()),
        "PROCTOR_HOST": settings.host,
        "PROCTOR_PORT": str(listener.getsockname()[1]),
        "PROCTOR_SUPERVISED": str(os.getpid()),
    }


def _prepare(environment: dict[str, str]) -> str | None:
    """Migrates and makes the administrator, in a process of its own; gives the password when one was made."""
    done = subprocess.run(_command("migrate"), env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise UsageError("The database could not be prepared; what is above says why.")
    return done.stdout.strip() or None


def _greeting(address: str, password: str | None, settings: Settings) -> str:
    lines = [f"Proctor is ready at {address}"]
    if password:
        lines.append(f"Sign in as admin with the password {password} (shown this once)")
    lines.append(f"Data: {settings.data}. Ctrl-C ends it.")
    return "\n".join(lines)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proctor.cli", *arguments]


async def _supervise(
    environment: dict[str, str], listener: socket.socket, workers: int, postgres: EmbeddedPostgres | None, greeting: str
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    listener.set_inheritable(True)
    works = [_keep_running("server", environment, listener.fileno())]
    works += [_keep_running("worker", environment, None) for _ in range(workers)]
    if postgres is not None:
        works.append(_watch_postgres(postgres))
    async with _in_background(works):
        await _until_ready(environment, stop)
        print(greeting, flush=True)  # noqa: T201 (the answer to the command)
        await stop.wait()
        _logger.info("stopping")


async def _until_ready(environment: dict[str, str], stop: asyncio.Event) -> None:
    """Waits until the server answers; whoever reads the greeting may call it at once."""
    request = b"GET /healthz HTTP/1.0\r\n\r\n"
    reader, writer = await asyncio.open_connection(environment["PROCTOR_HOST"], int(environment["PROCTOR_PORT"]))
    writer.write(request)
    answer = asyncio.ensure_future(reader.readline())
    stopped = asyncio.ensure_future(stop.wait())
    # The connection waits in the listening socket until the server takes it.
    await asyncio.wait([answer, stopped], return_when=asyncio.FIRST_COMPLETED)
    for task in (answer, stopped):
        task.cancel()
    writer.close()


@asynccontextmanager
async def _in_background(works: Sequence[Coroutine[object, object, None]]) -> AsyncIterator[None]:
    """Runs these; on leaving, ends all of them at once, however long each takes."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _keep_running(name: str, environment: dict[str, str], descriptor: int | None) -> None:
    loop = asyncio.get_running_loop()
    wait = RESTART_AFTER
    while True:
        started = loop.time()
        process = await asyncio.create_subprocess_exec(
            *_command(name),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=() if descriptor is None else (descriptor,),
            # Ctrl-C reaches the supervisor alone, which ends its children in order.
            start_new_session=True,
        )
        try:
            code = await process.wait()
        finally:
            await _end(process)
        wait = RESTART_AFTER if loop.time() - started > STEADY_AFTER else min(wait * 2, RESTART_AFTER_AT_MOST)
        _logger.error("the %s ended with exit code %s; it is started again in %.0f s", name, code, wait)
        await asyncio.sleep(wait)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:
        _logger.warning("process %s did not end in time and is killed", process.pid)
        process.kill()
        await process.wait()


async def _watch_postgres(postgres: EmbeddedPostgres) -> None:
    while True:
        await asyncio.sleep(POSTGRES_CHECK)
        if not await asyncio.to_thread(postgres.is_running):
            _logger.error("PostgreSQL is gone; it is started again")
            try:
                await asyncio.to_thread(postgres.restart)
            except subprocess.SubprocessError as error:
                _logger.error("PostgreSQL did not start; it is tried again in %.0f s: %s", POSTGRES_CHECK, error)
