"""Runs scenarios with pytest."""

import re

from proctor.errors import AttemptError, NothingSelected, ToolMissing
from proctor.worker.runners.task import RunnerTask

# https://docs.pytest.org/en/stable/reference/exit-codes.html
INTERRUPTED, INTERNAL_ERROR, USAGE_ERROR, NO_TESTS_COLLECTED = 2, 3, 4, 5
_NOT_FOUND = re.compile(r"ERROR: (?:file or directory )?not found: ")
_BROKEN = {
    INTERRUPTED: "was interrupted",
    INTERNAL_ERROR: "had an internal error",
    USAGE_ERROR: "refused its command line or its configuration",
}


class PytestRunner:
    """`python -m pytest` from the project's virtual environment; `select` is the rest of a node id, or for -k."""

    name = "pytest"

    def argv(self, task: RunnerTask) -> list[str]:
        return [
            task.python,
            "-m",
            "pytest",
            *_selection(task.source, task.select),
            f"--junit-xml={task.report / 'junit.xml'}",
            f"--rootdir={task.workspace}",
            "--color=no",
            "-pno:cacheprovider",
            "-ojunit_family=xunit2",
        ]

    def explain(self, task: RunnerTask, exit_code: int, said: str) -> AttemptError | None:
        reported = (task.report / "junit.xml").is_file()
        if "No module named pytest" in said and not reported:
            return ToolMissing(
                "pytest is not installed for this project. Put pytest into its requirements, "
                "and have the project's setup install them (uv pip install -r requirements.txt)."
            )
        if exit_code == NO_TESTS_COLLECTED or (exit_code == USAGE_ERROR and _NOT_FOUND.search(said)):
            return NothingSelected(
                f"The scenario selects no test: source {task.source!r}, select {task.select!r}. "
                f"pytest says: {said[-300:]}. Correct the scenario, or the names in the file."
            )
        # A file that cannot be imported interrupts pytest too, but then its report tells more than its exit code.
        if exit_code in _BROKEN and not (exit_code == INTERRUPTED and reported):
            return AttemptError(f"pytest {_BROKEN[exit_code]} (exit code {exit_code}): {said}. See the executor log.")
        return None


def _selection(source: str, select: str | None) -> list[str]:
    # Whatever its first character, it is a file and no option.
    path = f"./{source}" if source.startswith("-") else source
    if not select:
        return [path] if path else []
    return [path, f"-k{select}"] if is_expression(select) else [f"{path}::{select}"]


def is_expression(select: str) -> bool:
    """`pays and not slow` is; `TestCart::test_pays[by card]` is not: only a parameter's brackets may hold spaces."""
    return bool(re.search(r"\s", select.partition("[")[0]))
