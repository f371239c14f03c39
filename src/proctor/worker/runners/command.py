"""Runs any command that writes JUnit XML."""

from proctor.errors import AttemptError, ToolMissing
from proctor.worker.runners.task import RunnerTask

COMMAND_NOT_FOUND = 127  # of POSIX shells


class CommandRunner:
    """`sh -c` with the project's command; the scenario's source and selector reach it as its $1 and $2."""

    name = "command"

    def argv(self, task: RunnerTask) -> list[str]:
        if not task.command:
            raise ToolMissing("The project's runner is `command`, but it has no command. Set `command` in the project.")
        return ["sh", "-c", task.command, "sh", task.source, task.select or ""]

    def explain(self, task: RunnerTask, exit_code: int, said: str) -> AttemptError | None:
        if exit_code == COMMAND_NOT_FOUND and not any(task.report.glob("*.xml")):
            return ToolMissing(
                f"The shell did not find what the project's command calls: {said}. Install it in `setup`."
            )
        return None
