"""Runners: how a scenario becomes a command, and what the command's end means."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from proctor.domain.verdict import Case, Verdict, judge
from proctor.errors import ToolMissing
from proctor.worker.report import read_report
from proctor.worker.runners.command import CommandRunner
from proctor.worker.runners.pytest import PytestRunner
from proctor.worker.runners.task import Runner, RunnerTask
from proctor.worker.workspace import last_lines

__all__ = ["RUNNERS", "Reading", "Runner", "RunnerTask", "find_runner", "read_outcome"]

RUNNERS: Mapping[str, Runner] = {runner.name: runner for runner in (PytestRunner(), CommandRunner())}


@dataclass(frozen=True)
class Reading:
    """What an attempt's report says, and what that comes to."""

    cases: list[Case]
    verdict: Verdict


def find_runner(name: str) -> Runner:
    """By the project's `runner`; raises ToolMissing for one that this version does not have."""
    try:
        return RUNNERS[name]
    except KeyError:
        known = ", ".join(sorted(RUNNERS))
        raise ToolMissing(f"There is no runner {name!r}. Set the project's runner to one of: {known}.") from None


def read_outcome(runner: Runner, task: RunnerTask, exit_code: int, log: Path) -> Reading:
    """Judges the report that the runner left. Blocking: call it in a thread.

    Raises NothingSelected and ToolMissing when the runner ran no test, ReportMissing and ReportBroken.
    """
    said = last_lines(log, 12) if exit_code != 0 else ""
    if (why := runner.explain(task, exit_code, said)) is not None:
        raise why
    cases = read_report(task.report, exit_code=exit_code, last_line=said.rpartition(" / ")[2] or last_lines(log, 1))
    return Reading(cases, judge(cases, exit_code))
