"""The command `proctor`. Each command imports what it needs when it runs: the supervisor stays small."""

import logging
import sys
from pathlib import Path

import click

from proctor.errors import ProctorError
from proctor.settings import Settings

USAGE = 4


class _Group(click.Group):
    """Shows what went wrong as one message with the fix, and exits with the code of usage errors."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ProctorError as error:
            click.echo(f"proctor: {error.detail}", err=True)
            ctx.exit(USAGE)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="proctor")
def main() -> None:
    """Runs test plans: one HTTP call, real browsers, every result kept."""


data_option = click.option("--data", type=click.Path(path_type=Path), help="The data folder (PROCTOR_DATA).")


def read_settings(**given: object) -> Settings:
    """Settings from the environment, overridden by the options that were given."""
    try:
        return Settings.model_validate({**Settings().model_dump(), **_only_given(given)})
    except ValueError as error:
        raise click.UsageError(f"A PROCTOR_* setting is wrong: {error}") from error


def _only_given(options: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def start_logging(settings: Settings) -> None:
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # These tell of every job and statement at INFO.
    for name in ("procrastinate", "alembic", "obstore"):
        logging.getLogger(name).setLevel(logging.WARNING)


@main.command()
@data_option
@click.option("--port", type=int, help="Where the server listens; 0 takes a free port.  [default: 8080]")
@click.option("--host", help="The address that the server listens on.  [default: 127.0.0.1]")
@click.option("--workers", type=click.IntRange(0, 64), default=1, show_default=True, help="How many worker processes.")
@click.option("--dev", is_flag=True, default=None, help="Allow callbacks to loopback addresses.")
def up(data: Path | None, port: int | None, host: str | None, workers: int, dev: bool | None) -> None:
    """Everything on this machine: PostgreSQL, server and workers."""
    from proctor.cli.up import run_up

    settings = read_settings(data=data, port=port, host=host, dev=dev)
    start_logging(settings)
    sys.exit(run_up(settings, workers))


@main.command()
@data_option
@click.option("--port", type=int)
@click.option("--host")
def server(data: Path | None, port: int | None, host: str | None) -> None:
    """The server alone, on the database that PROCTOR_DATABASE_URL names."""
    from proctor.cli.processes import run_server

    settings = read_settings(data=data, port=port, host=host)
    start_logging(settings)
    run_server(settings)


@main.command()
@data_option
@click.option("--concurrency", type=click.IntRange(1, 1000), help="How many attempts at once.")
@click.option("--queues", help="Queues to take from, beside its hub's.  [default: jobs]")
@click.option("--hub", help="The local hub that this machine's browsers belong to.  [default: local]")
def worker(data: Path | None, concurrency: int | None, queues: str | None, hub: str | None) -> None:
    """A worker, on the database that PROCTOR_DATABASE_URL names."""
    from proctor.cli.processes import run_worker

    settings = read_settings(data=data, concurrency=concurrency, queues=queues, hub=hub)
    start_logging(settings)
    run_worker(settings)


@main.command()
@data_option
def migrate(data: Path | None) -> None:
    """Brings the database of PROCTOR_DATABASE_URL to this version's schema, and makes the administrator."""
    from proctor.cli.processes import prepare

    settings = read_settings(data=data)
    start_logging(settings)
    prepare(settings)
