"""What a runner is asked to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from proctor.errors import AttemptError


@dataclass(frozen=True)
class RunnerTask:
    """One scenario in a workspace; `report` is the folder that $PROCTOR_REPORT_DIR names, `command` the project's."""

    source: str
    select: str | None
    command: str | None
    report: Path
    workspace: Path
    venv: Path | None = None

    @property
    def python(self) -> str:
        return str(self.venv / "bin" / "python") if self.venv is not None else "python3"


class Runner(Protocol):
    """Knows one test tool: how to start it, and what it means when it ends without a usable report."""

    name: str

    def argv(self, task: RunnerTask) -> list[str]:
        """The command, to be run with the workspace as its folder."""
        ...

    def explain(self, task: RunnerTask, exit_code: int, said: str) -> AttemptError | None:
        """Why the tool ran no test, from its exit code and the end of its log; None when it did run some."""
        ...
