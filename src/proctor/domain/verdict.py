"""What a report means: its cases, the level of a job, the outcome of an attempt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

MESSAGE_LIMIT = 1_000  # characters
DETAIL_LIMIT = 64 * 1024  # characters


class Level(StrEnum):
    """Where a job or an execution stands, in the words of the contract; the last four are under way."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    ERROR = "ERROR"
    WARNING = "WARNING"
    STOPPED = "STOPPED"
    UNEXECUTED = "UNEXECUTED"
    WAITING = "WAITING"
    PROCESSING = "PROCESSING"
    REPORTING = "REPORTING"
    TERMINATING = "TERMINATING"


class Outcome(StrEnum):
    """How an attempt ended: `broken` blames the test's code or set-up, `infrastructure` the machinery around it."""

    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"
    INFRASTRUCTURE = "infrastructure"


class CaseStatus(StrEnum):
    """What a JUnit report says of one case."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Case:
    """One test case of a report; `message` is a line or a few, `detail` the stack trace, cut at `DETAIL_LIMIT`."""

    name: str
    classname: str
    status: CaseStatus
    seconds: float = 0.0
    message: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What an attempt's report comes to; `message` is one line, at most `MESSAGE_LIMIT`, None when all is well."""

    outcome: Outcome
    level: Level
    message: str | None = None


_MILDEST_FIRST = (Level.SUCCESS, Level.WARNING, Level.UNEXECUTED, Level.STOPPED, Level.FAILURE, Level.ERROR)


def worst(levels: Iterable[Level]) -> Level:
    """The level of an execution with jobs of these levels, all ended (else ValueError); UNEXECUTED for no job."""
    return max(levels, key=_MILDEST_FIRST.index, default=Level.UNEXECUTED)


def judge(cases: Sequence[Case], exit_code: int) -> Verdict:
    """The verdict on a report that was read, of a runner that ended with `exit_code`."""
    errors = [case for case in cases if case.status is CaseStatus.ERROR]
    failures = [case for case in cases if case.status is CaseStatus.FAILED]
    if errors:
        return Verdict(Outcome.BROKEN, Level.ERROR, _first_line(errors[0]))
    if failures:
        return Verdict(Outcome.FAILED, Level.FAILURE, _first_line(failures[0]))
    if exit_code != 0:
        return Verdict(Outcome.BROKEN, Level.ERROR, _unexplained(exit_code))
    if not cases:
        return Verdict(Outcome.BROKEN, Level.ERROR, "The report has no test case; check what the scenario selects.")
    if all(case.status is CaseStatus.SKIPPED for case in cases):
        return Verdict(Outcome.PASSED, Level.WARNING, f"Skipped: {_first_line(cases[0])}"[:MESSAGE_LIMIT])
    return Verdict(Outcome.PASSED, Level.SUCCESS)


def _first_line(case: Case) -> str:
    """Of the message, else the last of the detail (a stack trace names its error last), else the case's name."""
    lines = (case.message or "").strip().splitlines() or (case.detail or "").strip().splitlines()[-1:]
    return (lines[0].strip() if lines else case.name)[:MESSAGE_LIMIT]


def _unexplained(exit_code: int) -> str:
    return f"The runner ended with exit code {exit_code}, but no case in its report failed; see the executor log."
