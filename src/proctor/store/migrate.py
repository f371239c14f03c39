"""Brings a database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from proctor.store.engine import _sqlalchemy_url


def migrate(url: str) -> None:
    """Applies what is missing. Several processes may call it at once: one does the work, the others wait."""
    engine = create_engine(_sqlalchemy_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(hashtext('proctor:migrate'))"))
        connection.commit()
        command.upgrade(configuration(connection), "head")
        connection.commit()
    engine.dispose()


def is_current(url: str) -> bool:
    """True when the database has the newest schema."""
    engine = create_engine(_sqlalchemy_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return current == ScriptDirectory.from_config(configuration(None)).get_current_head()


def configuration(connection: Connection | None) -> Config:
    """Alembic's configuration, without a file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config
