"""One PostgreSQL for the session; each test has a database of its own, cloned from a migrated one."""

import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psycopg
import pytest

import world
from calls import Api, SignIn
from proctor.app import open_context
from proctor.services.context import Context
from proctor.settings import Settings
from proctor.store.embedded import DATABASE, EmbeddedPostgres
from proctor.store.migrate import migrate
from serving import Server, serving

_numbers = itertools.count(1)


@dataclass(frozen=True)
class DatabaseServer:
    """A PostgreSQL server with a migrated database to clone."""

    postgres: EmbeddedPostgres
    admin: psycopg.Connection

    def create(self, template: str) -> str:
        """The name of a new database."""
        name = f"test_{next(_numbers)}"
        self.admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        """Without FORCE: a connection that a test left open is an error after five seconds."""
        self.admin.execute(f"DROP DATABASE {name}")


def _fast_folder() -> str:
    """A short path, for that of a socket is limited; in memory where there is room: a clone takes 10 ms there."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    return str(memory) if roomy else "/tmp"


@pytest.fixture(scope="session")
def database_server() -> Iterator[DatabaseServer]:
    with tempfile.TemporaryDirectory(prefix="pt-", dir=_fast_folder(), ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        postgres = EmbeddedPostgres(Path(folder) / "pg")
        try:
            template = postgres.start()
            migrate(template)
            with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
                # What a crash would lose, nobody misses here.
                for name in ("fsync", "synchronous_commit", "full_page_writes"):
                    admin.execute(f"ALTER SYSTEM SET {name} = off")
                admin.execute("ALTER SYSTEM SET max_wal_size = '128MB'")
                admin.execute("SELECT pg_reload_conf()")
                yield DatabaseServer(postgres, admin)
        finally:
            postgres.stop()


@pytest.fixture
def database_url(database_server: DatabaseServer) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = database_server.create(DATABASE)
    yield database_server.postgres.url(name)
    database_server.drop(name)


@pytest.fixture
def empty_database_url(database_server: DatabaseServer) -> Iterator[str]:
    """A database that nobody has migrated."""
    name = database_server.create("template0")
    yield database_server.postgres.url(name)
    database_server.drop(name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """As `proctor up --dev` has them: callbacks may go to loopback."""
    return Settings(data=tmp_path / "data", dev=True)


@pytest.fixture
async def context(settings: Settings, database_url: str) -> AsyncIterator[Context]:
    async with open_context(settings, database_url) as opened:
        yield opened


@pytest.fixture
async def server(settings: Settings, database_url: str) -> AsyncIterator[Server]:
    async with serving(settings, database_url) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    """Signed in as nobody; paths are relative to the server."""
    async with aiohttp.ClientSession(server.url, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@pytest.fixture
def nobody(client: aiohttp.ClientSession) -> Api:
    """A client without a token."""
    return Api(client, {})


@pytest.fixture
def sign_in(client: aiohttp.ClientSession, context: Context) -> SignIn:
    async def as_user(username: str) -> Api:
        return Api(client, await world.bearer(context, username))

    return as_user
