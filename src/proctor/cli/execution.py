"""An execution as the API's document tells it, and what follows for the command line: exit code, words, JUnit."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from proctor.cli.client import ExitCode, ServerBroken
from proctor.cli.junit import JunitAttempt, JunitExecution, JunitJob, Outcome
from proctor.domain.verdict import Level

# What `services.jobs` writes to jobs that a stop reached first; the document says it in no other way.
NEVER_STARTED: Final = "Never started, because the plan was stopped."
# Blaming the test comes first: machinery that failed elsewhere does not excuse it.
_WORST_FIRST: Final = (ExitCode.TESTS_FAILED, ExitCode.MACHINERY_FAILED, ExitCode.CANCELLED, ExitCode.PASSED)


class _View(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Case(_View):
    """One case of an attempt's report."""

    name: str
    status: str
    detail: str = ""


class Attempt(_View):
    """One try at a job; `outcome` is None until it ended, or when it was cancelled."""

    number: int
    outcome: Outcome | None = None
    message: str = ""
    start_date: datetime | None = None
    end_date: datetime | None = None
    cases: tuple[Case, ...] = ()

    @property
    def seconds(self) -> float:
        if self.start_date is None or self.end_date is None:
            return 0.0
        return (self.end_date - self.start_date).total_seconds()


class Job(_View):
    """One scenario in one environment; `runtime` in milliseconds."""

    id: int
    level: Level
    scenario_name: str
    environment_name: str = ""
    message: str = ""
    runtime: int = 0
    start_date: datetime | None = None
    url: str
    attempts: tuple[Attempt, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.scenario_name} · {self.environment_name}" if self.environment_name else self.scenario_name

    @property
    def failed(self) -> bool:
        return self.level in {Level.FAILURE, Level.ERROR}

    @property
    def running(self) -> bool:
        return self.level in {Level.PROCESSING, Level.REPORTING, Level.TERMINATING}

    @property
    def ended(self) -> bool:
        return not self.running and self.level is not Level.WAITING

    @property
    def flaky(self) -> bool:
        """It passed, but not at the first try of the test."""
        passed = self.level in {Level.SUCCESS, Level.WARNING}
        return passed and any(attempt.outcome in {"failed", "broken"} for attempt in self.attempts)


class Counts(_View):
    """How many jobs are where."""

    total: int
    waiting: int
    running: int
    ended: int


class Execution(_View):
    """One run of a plan; `level` and `end_at` are None until it ended, `jobs` is empty in a summary."""

    id: int
    plan_id: int
    plan_name: str
    project_name: str = ""
    level: Level | None = None
    start_at: datetime
    end_at: datetime | None = None
    url: str
    counts: Counts
    jobs: tuple[Job, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.plan_name} · execution {self.id}"


def read_execution(document: dict[str, Any]) -> Execution:
    try:
        return Execution.model_validate(document)
    except ValidationError as error:
        where = ", ".join(".".join(map(str, one["loc"])) for one in error.errors()[:3])
        raise ServerBroken(
            f"The server's answer cannot be read ({where}): use the version of `proctor` that the server has."
        ) from None


# --- the exit code ---------------------------------------------------------------------------------------------------


def judge(execution: Execution) -> ExitCode:
    """What `run --wait` exits with once the execution ended."""
    found = {_judge_job(job) for job in execution.jobs}
    return next((code for code in _WORST_FIRST if code in found), ExitCode.NOTHING_TO_RUN)


def _judge_job(job: Job) -> ExitCode:
    if job.level is Level.ERROR and job.attempts and job.attempts[-1].outcome == "infrastructure":
        return ExitCode.MACHINERY_FAILED
    if job.failed:
        return ExitCode.TESTS_FAILED
    if job.level is Level.UNEXECUTED and job.message != NEVER_STARTED:
        # Its environment was missing and `--force` went on without it: not green, but not the test's fault.
        return ExitCode.MACHINERY_FAILED
    if job.level in {Level.SUCCESS, Level.WARNING}:
        return ExitCode.PASSED
    return ExitCode.CANCELLED


# --- in words --------------------------------------------------------------------------------------------------------


def summarize(execution: Execution) -> list[str]:
    """The verdict for people: what failed and why, what was flaky, how many, how long, where to look."""
    failed = [job for job in execution.jobs if job.failed]
    others = [job for job in execution.jobs if job.level in {Level.STOPPED, Level.UNEXECUTED}]
    flaky = [job for job in execution.jobs if job.flaky]
    lines = [f"{execution.level or Level.PROCESSING}  {execution.title}  {count(execution)}{_took(execution)}"]
    lines += _section("Failed", [line for job in failed for line in _tell_failed(job)])
    lines += _section("Not run to the end", [f"{job.name}: {clean(job.message) or job.level}" for job in others])
    lines += _section("Flaky, passed when tried again", [line for job in flaky for line in _tell_flaky(job)])
    return [*lines, "", execution.url]


def count(execution: Execution) -> str:
    """As in `17 jobs: 15 passed (1 flaky), 2 failed`."""
    kinds = Counter(_kind(job) for job in execution.jobs)
    flaky = sum(job.flaky for job in execution.jobs)
    parts = [f"{number} {kind}" for kind in _KINDS if (number := kinds.get(kind))]
    if flaky and parts:
        parts[0] += f" ({flaky} flaky)"
    jobs = "1 job" if execution.counts.total == 1 else f"{execution.counts.total} jobs"
    return f"{jobs}: {', '.join(parts)}" if parts else jobs


_KINDS: Final = ("passed", "failed", "broken", "stopped", "not executed", "running", "waiting")
_KIND_OF: Final = {
    Level.SUCCESS: "passed",
    Level.WARNING: "passed",
    Level.FAILURE: "failed",
    Level.ERROR: "broken",
    Level.STOPPED: "stopped",
    Level.UNEXECUTED: "not executed",
    Level.WAITING: "waiting",
}


def _kind(job: Job) -> str:
    return _KIND_OF.get(job.level, "running")


def _took(execution: Execution) -> str:
    if execution.end_at is None:
        return ""
    return f" in {format_seconds((execution.end_at - execution.start_at).total_seconds())}"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {line}" for line in lines)] if lines else []


def _tell_failed(job: Job) -> Iterator[str]:
    tries = f" after {len(job.attempts)} attempts" if len(job.attempts) > 1 else ""
    yield job.name
    yield f"  {job.level}{tries}: {clean(job.message) or 'no message; see its log'}"
    yield f"  {job.url}"


def _tell_flaky(job: Job) -> Iterator[str]:
    first = next(attempt for attempt in job.attempts if attempt.outcome in {"failed", "broken"})
    yield f"{job.name}: passed at attempt {job.attempts[-1].number}, after: {clean(first.message)}"
    yield f"  {job.url}"


def format_seconds(seconds: float) -> str:
    """As in `4.2 s` or `3:07 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min"


def clean(text: str) -> str:
    """One line that a terminal shows and does not obey: test code wrote it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


# --- as JUnit --------------------------------------------------------------------------------------------------------


def to_junit(execution: Execution) -> JunitExecution:
    return JunitExecution(execution.plan_name, [_job_to_junit(job, execution) for job in execution.jobs])


def _job_to_junit(job: Job, execution: Execution) -> JunitJob:
    unfinished = job.level in {Level.STOPPED, Level.UNEXECUTED, Level.WARNING}
    return JunitJob(
        name=job.scenario_name,
        classname=job.environment_name or execution.project_name,
        seconds=job.runtime / 1000,
        attempts=[_attempt_to_junit(attempt, attempt.outcome) for attempt in job.attempts if attempt.outcome],
        skipped=(job.message or job.level.value) if unfinished else None,
    )


def _attempt_to_junit(attempt: Attempt, outcome: Outcome) -> JunitAttempt:
    details = [case.detail for case in attempt.cases if case.status in {"failed", "error"} and case.detail]
    return JunitAttempt(outcome, attempt.message, "\n\n".join(details), attempt.seconds)
