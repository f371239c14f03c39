"""The command `proctor`. Each command imports what it needs when it runs: the supervisor stays small."""

import logging
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proctor.errors import ProctorError
from proctor.settings import Settings

if TYPE_CHECKING:
    from proctor.cli.client import Given

USAGE = 4
INTERRUPTED = 130
# click's own 2 stands for a cancelled execution here.
click.UsageError.exit_code = USAGE

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """Shows what went wrong as one message with the fix, and exits with the error's code, else that of usage errors."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ProctorError as error:
            click.echo(f"proctor: {error.detail}", err=True)
            ctx.exit(getattr(error, "exit_code", USAGE))
        except KeyboardInterrupt:
            click.echo("proctor: interrupted", err=True)
            ctx.exit(INTERRUPTED)


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


# --- client commands -------------------------------------------------------------------------------------------------


def server_options(command: F) -> F:
    """Where the server is, and whom to be there."""
    for option in (
        click.option("--data", type=click.Path(path_type=Path), help="The data folder of `proctor up` (PROCTOR_DATA)."),
        click.option("--token", help="Who you are: a token (PROCTOR_TOKEN; seen by others on this machine)."),
        click.option("--url", help="The server's address (PROCTOR_URL)."),
    ):
        command = option(command)
    return command


def report_options(command: F) -> F:
    """How an execution that is waited for is told of."""
    for option in (
        click.option("--timeout", callback=_read_duration, metavar="DURATION", help="Wait at most, as in 10m."),
        click.option("--junit", type=click.Path(path_type=Path), help="Write the results as JUnit XML to this file."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout."),
    ):
        command = option(command)
    return command


def _read_duration(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    from proctor.services.manifest import parse_duration

    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(f"it {error}.") from error


def _given(url: str | None, token: str | None, data: Path | None) -> "Given":
    from proctor.cli.client import Given

    read_settings(data=data)
    return Given(url, token, data)


@main.command()
@click.argument("file", metavar="FILE")
@server_options
def apply(file: str, url: str | None, token: str | None, data: Path | None) -> None:
    """Makes what the YAML FILE says so (- for stdin); ${NAME} in it is taken from the environment."""
    from proctor.cli.apply import apply_file

    apply_file(_given(url, token, data), file)


@main.command()
@click.argument("plan")
@click.option("--wait", is_flag=True, help="Follow it to its end; the exit code is the verdict.")
@click.option("--force", is_flag=True, help="Start with the environments that are there.")
@click.option("--callback-url", metavar="URL", help="Where status updates are posted.")
@report_options
@server_options
def run(
    plan: str,
    wait: bool,
    force: bool,
    callback_url: str | None,
    as_json: bool,
    junit: Path | None,
    timeout: timedelta | None,
    url: str | None,
    token: str | None,
    data: Path | None,
) -> None:
    """Starts the PLAN (an id or a name), or joins the execution of it that runs.

    With --wait it exits with 0: passed, 1: tests failed, 2: cancelled, 3: machinery failed, 4: usage, configuration or
    sign-in, 5: nothing to run, 124: timed out.
    """
    from proctor.cli.run import Wish, run_plan
    from proctor.cli.watch import Report

    if not wait and (junit or timeout):
        raise click.UsageError("--junit and --timeout need --wait.")
    access = _given(url, token, data).find()
    wish = Wish(plan, force=force, callback_url=callback_url)
    sys.exit(run_plan(access, wish, Report(as_json, junit, timeout), wait=wait))


@main.command()
@click.argument("execution", type=click.IntRange(min=1))
@report_options
@server_options
def watch(
    execution: int,
    as_json: bool,
    junit: Path | None,
    timeout: timedelta | None,
    url: str | None,
    token: str | None,
    data: Path | None,
) -> None:
    """Follows an EXECUTION (its id) to its end; exits as `run --wait` does."""
    from proctor.cli.watch import Report, run_watch

    sys.exit(run_watch(_given(url, token, data).find(), execution, Report(as_json, junit, timeout)))


@main.command()
@click.argument("plan")
@server_options
def stop(plan: str, url: str | None, token: str | None, data: Path | None) -> None:
    """Stops the execution of the PLAN (an id or a name) that runs."""
    from proctor.cli.run import stop_plan

    stop_plan(_given(url, token, data).find(), plan)


@main.group()
def token() -> None:
    """Personal tokens."""


@token.command("create")
@click.option("--label", default="", help="What it is for.")
@click.option("--days", type=click.IntRange(1, 3650), help="How long it lasts; without, until it is revoked.")
@server_options
def create_token(label: str, days: int | None, url: str | None, token: str | None, data: Path | None) -> None:
    """Makes a token that stands for you, and prints it this once."""
    from proctor.cli.token import create_token

    create_token(_given(url, token, data).find(), label, days)


@main.command()
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def doctor(data: Path | None, as_json: bool) -> None:
    """Checks whether this machine has what Proctor needs, and says what to do where it has not."""
    from proctor.cli.doctor import run_doctor

    sys.exit(run_doctor(read_settings(data=data), as_json=as_json))


@main.command()
@click.option("--keep", is_flag=True, help="Leave it running until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where it listens.  [default: a free one]")
def demo(keep: bool, port: int) -> None:
    """Shows it all on a small web shop: real tests in a real browser, with callbacks; leaves nothing behind."""
    from proctor.cli.demo import run_demo

    sys.exit(run_demo(port, keep=keep))
