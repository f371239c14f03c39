"""Shows on stderr how an execution goes: live on a terminal, elsewhere a line for each change."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from proctor.cli.execution import Execution, Job, clean, format_seconds
from proctor.clock import Clock, SystemClock
from proctor.domain.verdict import Level

HEARTBEAT = timedelta(seconds=30)
RUNNING_SHOWN = 8
_STYLES = {Level.SUCCESS: "green", Level.WARNING: "yellow", Level.FAILURE: "red", Level.ERROR: "magenta"}


class Progress(Protocol):
    """Is told of an execution whenever it may have changed; `interval` is how often it wants to be, at least."""

    interval: timedelta

    def show(self, execution: Execution) -> None: ...

    def say(self, text: str) -> None:
        """A line of its own, which stays."""


@contextmanager
def open_progress(*, tell_jobs: bool = True, clock: Clock | None = None) -> Iterator[Progress]:
    """`tell_jobs` False: no line for each job that ended, because the caller tells of them."""
    if not sys.stderr.isatty():
        yield LineProgress(tell_jobs=tell_jobs, clock=clock or SystemClock())
        return
    # FORCE_COLOR would otherwise make a console of a file.
    console = Console(stderr=True, highlight=False)
    # Where stdout is the same terminal, what is printed there must not run into the live display.
    with Live(console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as live:
        yield LiveProgress(live, tell_jobs=tell_jobs, clock=clock or SystemClock())


# --- what changed ----------------------------------------------------------------------------------------------------


def tell_changes(before: Mapping[int, Job], execution: Execution) -> list[tuple[Level, str]]:
    """A line for each job that ended since, and for each that failed and is tried again."""
    lines: list[tuple[Level, str]] = []
    for job in execution.jobs:
        known = before.get(job.id)
        lines += [(Level.WAITING, line) for line in _tell_retries(known, job)]
        if job.ended and not (known and known.ended):
            lines.append((job.level, _tell_ended(job)))
    return lines


def _tell_retries(known: Job | None, job: Job) -> Iterator[str]:
    told = _spent(known) if known else 0
    last = len(job.attempts) if job.ended else None
    for attempt in job.attempts[told:last]:
        is_last = job.ended and attempt is job.attempts[-1]
        if attempt.outcome not in {None, "passed"} and not is_last:
            yield f"RETRY    {job.name}  attempt {attempt.number} {attempt.outcome}: {clean(attempt.message)}"


def _spent(job: Job) -> int:
    return sum(attempt.outcome is not None for attempt in job.attempts)


def _tell_ended(job: Job) -> str:
    again = f"  at attempt {len(job.attempts)}" if len(job.attempts) > 1 else ""
    why = f"  {clean(job.message)}" if job.message and job.level is not Level.SUCCESS else ""
    return f"{job.level:<8} {job.name}  {format_seconds(job.runtime / 1000)}{again}{why}"


def tell_counts(execution: Execution) -> str:
    counts = execution.counts
    return f"{counts.ended} of {counts.total} ended, {counts.running} running, {counts.waiting} waiting"


# --- showing it ------------------------------------------------------------------------------------------------------


class LineProgress:
    """A line for each change with its time of day, and one every 30 s when nothing changes."""

    interval = timedelta(seconds=10)

    def __init__(self, *, tell_jobs: bool, clock: Clock) -> None:
        self._tell_jobs = tell_jobs
        self._clock = clock
        self._known: dict[int, Job] = {}
        self._said_at = clock.now()

    def show(self, execution: Execution) -> None:
        changes = tell_changes(self._known, execution)
        self._known = {job.id: job for job in execution.jobs} or self._known
        if self._tell_jobs:
            for _, line in changes:
                self.say(f"[{execution.counts.ended}/{execution.counts.total}] {line}")
        elif changes:
            self._said_at = self._clock.now()
        if self._clock.now() - self._said_at >= HEARTBEAT:
            self.say(f"still running: {tell_counts(execution)}")

    def say(self, text: str) -> None:
        self._said_at = self._clock.now()
        click.echo(f"{self._said_at.astimezone():%H:%M:%S} {text}", err=True)


class LiveProgress:
    """A bar, what runs now, and above them a line for each job that ended."""

    interval = timedelta(seconds=1)

    def __init__(self, live: Live, *, tell_jobs: bool, clock: Clock) -> None:
        self._live = live
        self._tell_jobs = tell_jobs
        self._clock = clock
        self._known: dict[int, Job] = {}
        self._spinners: dict[int, Spinner] = {}

    def show(self, execution: Execution) -> None:
        changes = tell_changes(self._known, execution)
        self._known = {job.id: job for job in execution.jobs} or self._known
        for level, line in changes if self._tell_jobs else []:
            self._live.console.print(Text(line, style=_STYLES.get(level, "dim")), soft_wrap=True)
        self._live.update(self._draw(execution))

    def say(self, text: str) -> None:
        self._live.console.print(Text(text), soft_wrap=True)

    def _draw(self, execution: Execution) -> Group:
        elapsed = max(0.0, (self._clock.now() - execution.start_at).total_seconds())
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1, execution.counts.total), completed=execution.counts.ended, width=30)
        head.add_row(Text(execution.title, style="bold"), bar, tell_counts(execution), format_seconds(elapsed))
        running = [job for job in execution.jobs if job.running]
        shown = [self._spin(job) for job in running[:RUNNING_SHOWN]]
        more = [Text(f"  and {len(running) - RUNNING_SHOWN} more")] if len(running) > RUNNING_SHOWN else []
        return Group(head, *shown, *more)

    def _spin(self, job: Job) -> Spinner:
        """The same spinner for the same job, or it would begin anew at each update."""
        spinner = self._spinners.setdefault(job.id, Spinner("dots"))
        seconds = (self._clock.now() - job.start_date).total_seconds() if job.start_date else 0
        number = f"  attempt {len(job.attempts)}" if len(job.attempts) > 1 else ""
        spinner.update(text=Text(f"{job.name}  {max(0, seconds):.0f} s{number}"))
        return spinner
