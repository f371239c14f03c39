"""The connection to PostgreSQL and the unit of work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg import AsyncConnection as DriverConnection
from sqlalchemy import BindParameter, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DataError, OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

# One unit of work: a connection within a transaction. Services pass it on and never look inside.
Tx = AsyncConnection

# What a statement raises when the database refuses it or is gone.
DatabaseError = SQLAlchemyError
# The same, when it cannot be reached or goes away meanwhile; the transaction may be tried again.
DatabaseGone = OperationalError
# A value that no column takes.
Unstorable = DataError


class Store:
    """A pool of connections to one database."""

    def __init__(self, url: str, *, connections: int = 8) -> None:
        """`url` is a `postgresql://` address."""
        self.url = url
        # Asked before each use: after PostgreSQL was started again, a dead connection would cost an attempt its minute.
        self._engine: AsyncEngine = create_async_engine(
            _sqlalchemy_url(url), pool_size=connections, max_overflow=0, pool_timeout=30, pool_pre_ping=True
        )

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        """One transaction; committed on leaving, rolled back on an error."""
        async with self._engine.begin() as tx:
            yield tx

    async def answers(self) -> bool:
        """Whether the database can be reached now."""
        try:
            async with self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except DatabaseError:
            return False
        return True

    async def close(self) -> None:
        await self._engine.dispose()


async def driver_connection(tx: Tx) -> DriverConnection[object]:
    """psycopg's connection below the transaction, for a library that writes in the same transaction."""
    raw = await tx.get_raw_connection()
    connection: DriverConnection[object] = raw.driver_connection  # type: ignore[assignment]  # typed Any upstream
    return connection


def json_value(name: str, value: object) -> BindParameter[object]:
    """A JSON parameter of a textual statement."""
    return bindparam(name, value, type_=JSONB)


async def lock(tx: Tx, name: str) -> None:
    """Waits for the advisory lock of that name, which the transaction's end gives back."""
    await tx.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": f"proctor:{name}"})


async def try_lock(tx: Tx, name: str) -> bool:
    """Takes the advisory lock of that name until the transaction ends, unless somebody has it."""
    row = await tx.execute(text("SELECT pg_try_advisory_xact_lock(hashtext(:name))"), {"name": f"proctor:{name}"})
    return bool(row.scalar_one())


async def notify(tx: Tx, channel: str, payload: str) -> None:
    """Wakes listeners at the commit; nothing may depend on it arriving."""
    await tx.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


def _sqlalchemy_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError(f"PROCTOR_DATABASE_URL must begin with postgresql://, not with {scheme}://")
    return f"postgresql+psycopg://{rest}"
