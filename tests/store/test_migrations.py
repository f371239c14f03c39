"""The database's schema: made by migrations, described by tables, the same in both."""

import asyncio

import psycopg
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from proctor.store.engine import _sqlalchemy_url
from proctor.store.migrate import is_current, migrate
from proctor.store.tables import metadata


def test_tables_and_migrations_describe_the_same_schema(database_url: str) -> None:
    engine = create_engine(_sqlalchemy_url(database_url), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_name": lambda name, kind, _: kind != "table" or not str(name).startswith("procrastinate_"),
            },
        )
        differences = compare_metadata(context, metadata)
    engine.dispose()

    assert differences == []


def test_migrating_a_migrated_database_changes_nothing(database_url: str) -> None:
    before = describe(database_url)

    migrate(database_url)

    assert is_current(database_url)
    assert describe(database_url) == before


def test_an_empty_database_is_not_current_until_it_is_migrated(empty_database_url: str) -> None:
    assert not is_current(empty_database_url)

    migrate(empty_database_url)

    assert is_current(empty_database_url)


async def test_processes_that_migrate_at_once_do_it_once(empty_database_url: str) -> None:
    await asyncio.gather(*(asyncio.to_thread(migrate, empty_database_url) for _ in range(4)))

    assert is_current(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def describe(url: str) -> list[tuple[object, ...]]:
    """Every column of every table, and every index."""
    with psycopg.connect(url) as connection:
        columns = connection.execute(
            """SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
               WHERE table_schema = 'public' ORDER BY 1, 2"""
        ).fetchall()
        indexes = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        ).fetchall()
    assert columns
    assert indexes
    return columns + indexes
