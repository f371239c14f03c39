"""What an execution's page shows of its jobs, and what of that changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from proctor.domain.execution import UNDER_WAY, ExecutionRecord, JobRecord
from proctor.domain.verdict import Level

# More rows than this are sent only to who asks for all: 200 rows are about 100 kB of HTML.
MAX_ROWS = 200
ALL = "all"

_URGENT_FIRST = (
    Level.FAILURE,
    Level.ERROR,
    *UNDER_WAY,
    Level.WARNING,
    Level.STOPPED,
    Level.UNEXECUTED,
    Level.WAITING,
    Level.SUCCESS,
)
_URGENCY = {level: number for number, level in enumerate(_URGENT_FIRST)}


@dataclass(frozen=True)
class Board:
    """An execution with those of its jobs that are shown, at one moment. `show` is a level, `all` or empty."""

    execution: ExecutionRecord
    jobs: tuple[JobRecord, ...]
    hidden: int
    show: str
    now: datetime

    @property
    def ended(self) -> bool:
        return self.execution.end_at is not None

    @property
    def duration(self) -> timedelta:
        return (self.execution.end_at or self.now) - self.execution.start_at


@dataclass(frozen=True)
class Update:
    """What has changed on a board: single rows, or everything when other rows are shown or their order is new."""

    rows: tuple[JobRecord, ...]
    everything: bool


def lay_out(execution: ExecutionRecord, jobs: Sequence[JobRecord], show: str, now: datetime) -> Board:
    """Picks the rows. In the plan's order where all fit, so that nothing jumps; else the urgent ones come first."""
    if show == ALL or (not show and len(jobs) <= MAX_ROWS):
        return Board(execution, tuple(jobs), 0, show, now)
    if show:
        picked = [job for job in jobs if job.level.value == show]
    else:
        picked = sorted(jobs, key=lambda job: _URGENCY[job.level])
    return Board(execution, tuple(picked[:MAX_ROWS]), max(0, len(picked) - MAX_ROWS), show, now)


def compare(before: Board | None, after: Board) -> Update:
    """What a reader of `before` must be sent to see `after`; a job under way changes with time alone."""
    if before is None or [job.id for job in before.jobs] != [job.id for job in after.jobs]:
        return Update(after.jobs, everything=True)
    pairs = zip(before.jobs, after.jobs, strict=True)
    return Update(tuple(new for old, new in pairs if new != old or new.level in UNDER_WAY), everything=False)


def read_show(text: str) -> str:
    """The part of the jobs that an address asks for; what is none of the known stands for the usual view."""
    return text if text == ALL or text in Level.__members__ else ""
