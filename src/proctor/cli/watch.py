"""Following an execution to its end: `proctor watch`, and what `run --wait` does once the plan was started."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from proctor.cli.client import Access, Client, ExitCode, ServerBroken, Unreachable, open_client
from proctor.cli.execution import Execution, judge, read_execution, summarize, to_junit
from proctor.cli.junit import write_junit
from proctor.cli.progress import Progress, open_progress
from proctor.clock import Clock, SystemClock
from proctor.errors import ProctorError
from proctor.services.manifest import format_duration

# A server that is started again is back in a few seconds; a pipeline should not lose its run for that.
PATIENCE = timedelta(seconds=60)
ASK_AGAIN_AFTER = timedelta(seconds=1)
# Reading all jobs takes a server's time too: at most this share of it goes there, however large the execution.
READING_SHARE = 0.1

T = TypeVar("T")


class ServerLost(ProctorError):
    """The server is gone"""

    code = "server_lost"
    exit_code = ExitCode.MACHINERY_FAILED


@dataclass(frozen=True)
class Report:
    """How the caller wants to be told: `as_json` one object on stdout, `junit` a file."""

    as_json: bool = False
    junit: Path | None = None
    timeout: timedelta | None = None


@dataclass
class Watch:
    """Follows one execution; `latest` is what was last seen of it, also after `follow` was broken off."""

    client: Client
    execution_id: int
    progress: Progress
    clock: Clock = field(default_factory=SystemClock)
    patience: timedelta = PATIENCE
    latest: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.latest = {"id": self.execution_id}

    async def follow(self) -> dict[str, Any]:
        """The execution's document once it ended; raises ServerLost when no server answers for `patience`."""
        loop = asyncio.get_running_loop()
        after = 0
        wait = timedelta(0)
        read_again_at = 0.0
        self._take(await self._document())
        while True:
            summary = await self._ride_out(partial(self.client.summary, self.execution_id, wait=wait, after=after))
            after = max([after, *(int(event["sequence"]) for event in summary.get("events", []))])
            ended = read_execution(summary).end_at is not None
            if ended or loop.time() >= read_again_at:
                began = loop.time()
                self._take(await self._document())
                read_again_at = loop.time() + (loop.time() - began) / READING_SHARE
            else:
                self._take({**self.latest, **summary})
            if ended:
                return self.latest
            wait = self.progress.interval

    async def _document(self) -> dict[str, Any]:
        return await self._ride_out(partial(self.client.execution, self.execution_id))

    def _take(self, document: dict[str, Any]) -> None:
        self.latest = document
        self.progress.show(read_execution(document))

    async def _ride_out(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Asks until there is an answer; says when there is none, and when it is back."""
        gone_at = None
        while True:
            try:
                answer = await ask()
            except (Unreachable, ServerBroken) as error:
                now = self.clock.now()
                if gone_at is None:
                    gone_at = now
                    self.progress.say(f"{error.detail} Waiting up to {format_duration(self.patience)} for it.")
                if now - gone_at >= self.patience:
                    raise self._lost() from error
                await self.clock.sleep(ASK_AGAIN_AFTER)
            else:
                if gone_at is not None:
                    away = (self.clock.now() - gone_at).total_seconds()
                    self.progress.say(f"The server is back after {away:.0f} s.")
                return answer

    def _lost(self) -> ServerLost:
        return ServerLost(
            f"{self.client.url} did not answer for {format_duration(self.patience)}. Execution {self.execution_id} may "
            f"go on: once the server is back, `proctor watch {self.execution_id}` follows it."
        )


def run_watch(access: Access, execution_id: int, report: Report) -> ExitCode:
    return asyncio.run(_watch(access, execution_id, report))


async def _watch(access: Access, execution_id: int, report: Report) -> ExitCode:
    async with open_client(access) as client:
        # Before anything is ridden out: a server that is not there at all is a mistake in the address.
        await client.summary(execution_id)
        return await follow(client, execution_id, report)


async def follow(client: Client, execution_id: int, report: Report) -> ExitCode:
    """Waits for the end and tells it; also when timeout, Ctrl-C or a server that is gone breaks the wait off."""
    with open_progress() as progress:
        watch = Watch(client, execution_id, progress)
        code, why_broken_off = await _follow_within(watch, report.timeout)
    tell(watch.latest, code, report)
    if why_broken_off:
        click.echo(f"proctor: {why_broken_off}", err=True)
    return code


async def _follow_within(watch: Watch, timeout: timedelta | None) -> tuple[ExitCode, str | None]:
    try:
        async with asyncio.timeout(timeout.total_seconds() if timeout else None):
            return judge(read_execution(await watch.follow())), None
    except ServerLost as lost:
        return ExitCode.MACHINERY_FAILED, lost.detail
    except TimeoutError:
        return ExitCode.TIMED_OUT, f"after {format_duration(timeout or timedelta(0))} the wait ends. {_goes_on(watch)}"
    except asyncio.CancelledError:
        # Only Ctrl-C cancels this task. asyncio.run() raises KeyboardInterrupt unless the request is taken back.
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (it runs)
        task.uncancel()
        return ExitCode.INTERRUPTED, f"the wait ends by your request. {_goes_on(watch)}"


def _goes_on(watch: Watch) -> str:
    plan = watch.latest.get("plan_id", "PLAN")
    return (
        f"Execution {watch.execution_id} goes on at {watch.client.url}/executions/{watch.execution_id}: "
        f"`proctor watch {watch.execution_id}` follows it, `proctor stop {plan}` stops it."
    )


def tell(document: dict[str, Any], code: ExitCode, report: Report) -> None:
    """The results: on stdout, and as JUnit where a file was named and the execution ended."""
    if report.junit and document.get("end_at"):
        write_junit(to_junit(read_execution(document)), report.junit)
    if report.as_json:
        click.echo(json.dumps({**document, "exit_code": int(code)}))
    elif document.get("end_at"):
        show_summary(read_execution(document))


def show_summary(execution: Execution) -> None:
    colours = {"SUCCESS": "green", "WARNING": "yellow", "FAILURE": "red", "ERROR": "red"}
    verdict, *rest = summarize(execution)
    # click leaves the colours out where stdout is no terminal.
    click.echo(click.style(verdict, fg=colours.get(str(execution.level)), bold=True))
    click.echo("\n".join(rest))
    sys.stdout.flush()
