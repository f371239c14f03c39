"""Executions, jobs and attempts: their states, and what follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from proctor.domain.environment import Environment
from proctor.domain.verdict import Level, worst

UNDER_WAY = (Level.PROCESSING, Level.REPORTING, Level.TERMINATING)
ENDED = (Level.SUCCESS, Level.FAILURE, Level.ERROR, Level.WARNING, Level.STOPPED, Level.UNEXECUTED)


class ExecutionState(StrEnum):
    """`running → finished`, or `running → stopping → finished`."""

    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"


class AttemptState(StrEnum):
    """`leased → running → reporting → done | lost | cancelled`."""

    LEASED = "leased"
    RUNNING = "running"
    REPORTING = "reporting"
    DONE = "done"
    LOST = "lost"
    CANCELLED = "cancelled"


LIVE_ATTEMPT = (AttemptState.LEASED, AttemptState.RUNNING, AttemptState.REPORTING)


@dataclass(frozen=True)
class Counts:
    """How many jobs of an execution are where."""

    total: int
    waiting: int
    running: int
    ended: int
    levels: Mapping[Level, int]

    @classmethod
    def of(cls, levels: Mapping[Level, int]) -> "Counts":
        running = sum(levels.get(level, 0) for level in UNDER_WAY)
        ended = sum(levels.get(level, 0) for level in ENDED)
        waiting = levels.get(Level.WAITING, 0)
        return cls(waiting + running + ended, waiting, running, ended, levels)

    @property
    def finished(self) -> bool:
        return self.ended == self.total

    @property
    def verdict(self) -> Level:
        """The worst of the ended jobs; an execution without jobs that ended is SUCCESS so far."""
        return worst([level for level in ENDED if self.levels.get(level)])


@dataclass(frozen=True)
class Fence:
    """What a worker must show to change an attempt: a lease that was taken over has another epoch."""

    attempt_id: int
    epoch: int


@dataclass(frozen=True)
class ExecutionRecord:
    """An execution as it is read: times in UTC, `levels` how many jobs have which level."""

    id: int
    company_id: int
    project_id: int
    project_name: str
    plan_id: int
    plan_name: str
    user_id: int | None
    username: str | None
    state: ExecutionState
    level: Level | None
    commit: str | None
    base_url: str
    start_at: datetime
    end_at: datetime | None
    levels: Mapping[Level, int]

    @property
    def counts(self) -> Counts:
        return Counts.of(self.levels)


@dataclass(frozen=True)
class AttemptRecord:
    """An attempt as it is read: `artifacts` has the size in bytes of each that was kept."""

    id: int
    job_id: int
    number: int
    state: AttemptState
    outcome: str | None
    level: Level | None
    message: str | None
    session_id: str | None
    artifacts: Mapping[str, int]
    start_at: datetime | None
    end_at: datetime | None


@dataclass(frozen=True)
class JobRecord:
    """A job as it is read, with its attempts, the oldest first."""

    id: int
    execution_id: int
    company_id: int
    project_id: int
    plan_id: int
    scenario_id: int
    scenario_name: str
    environment: Environment | None
    level: Level
    message: str | None
    screenshots: str
    video: bool
    base_url: str
    start_at: datetime | None
    end_at: datetime | None
    attempts: tuple[AttemptRecord, ...]
    # What stands for its start on the wire until it has one of its own.
    execution_start_at: datetime | None = None

    @property
    def last(self) -> AttemptRecord | None:
        return self.attempts[-1] if self.attempts else None


@dataclass(frozen=True)
class CaseRecord:
    """One case of an attempt's report."""

    attempt_id: int
    name: str
    classname: str
    status: str
    milliseconds: int
    message: str | None
    detail: str | None
