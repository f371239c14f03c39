from pathlib import Path

import pytest

from proctor.domain.verdict import Level, Outcome
from proctor.errors import AttemptError, NothingSelected, ReportMissing, ToolMissing
from proctor.worker.runners import RunnerTask, find_runner, read_outcome
from proctor.worker.runners.pytest import is_expression

PYTEST, COMMAND = find_runner("pytest"), find_runner("command")
FAILING = '<testsuite><testcase name="a"><failure message="no"/></testcase></testsuite>'


@pytest.fixture
def task(tmp_path: Path) -> RunnerTask:
    (tmp_path / "report").mkdir()
    return RunnerTask("tests/test_a.py", "test_b", None, tmp_path / "report", tmp_path)


def with_(task: RunnerTask, **changes: object) -> RunnerTask:
    return RunnerTask(**{**vars(task), **changes})


def test_pytest_gets_the_selection_as_a_node_id_and_writes_junit(task: RunnerTask) -> None:
    argv = PYTEST.argv(task)
    assert argv[:4] == ["python3", "-m", "pytest", "tests/test_a.py::test_b"]
    assert f"--junit-xml={task.report}/junit.xml" in argv


def test_pytest_runs_with_the_python_of_the_virtual_environment(task: RunnerTask) -> None:
    assert PYTEST.argv(with_(task, venv=Path("/v")))[0] == "/v/bin/python"


@pytest.mark.parametrize(
    ("select", "expression"),
    [
        ("test_a", False),
        ("TestCart::test_pays", False),
        ("test_pays[by card]", False),
        ("TestCart::test_pays[a and b]", False),
        ("pays and not slow", True),
        ("not slow", True),
    ],
)
def test_only_spaces_outside_brackets_make_a_selection_an_expression(select: str, expression: bool) -> None:
    assert is_expression(select) is expression


def test_an_expression_goes_to_k_and_no_selection_takes_the_whole_file(task: RunnerTask) -> None:
    assert PYTEST.argv(with_(task, select="a and b"))[3:5] == ["tests/test_a.py", "-ka and b"]
    assert PYTEST.argv(with_(task, select=None))[3] == "tests/test_a.py"


def test_a_source_is_never_an_option(task: RunnerTask) -> None:
    assert PYTEST.argv(with_(task, source="--pdb", select=None))[3] == "./--pdb"


def test_a_command_gets_source_and_selection_as_arguments_not_as_shell_text(task: RunnerTask) -> None:
    argv = COMMAND.argv(with_(task, command="run $1", source="$(id)"))
    assert argv == ["sh", "-c", "run $1", "sh", "$(id)", "test_b"]


def test_the_command_runner_without_a_command_says_so(task: RunnerTask) -> None:
    with pytest.raises(ToolMissing, match="Set `command`"):
        COMMAND.argv(task)


def test_an_unknown_runner_names_those_there_are() -> None:
    with pytest.raises(ToolMissing, match="command, pytest"):
        find_runner("maven")


@pytest.mark.parametrize(
    ("exit_code", "said", "error", "told"),
    [
        (5, "no tests ran in 0.01s", NothingSelected, "tests/test_a.py"),
        (4, "ERROR: not found: /w/tests/test_a.py::test_b", NothingSelected, "test_b"),
        (4, "ERROR: file or directory not found: tests/test_a.py", NothingSelected, "tests/test_a.py"),
        (1, "/usr/bin/python3: No module named pytest", ToolMissing, "requirements"),
        (2, "!! KeyboardInterrupt !!", AttemptError, "interrupted"),
        (3, "INTERNALERROR> boom", AttemptError, "internal error"),
        (4, "ModuleNotFoundError: No module named 'shop'", AttemptError, "No module named 'shop'"),
        (1, "something else", ReportMissing, "something else"),
    ],
)
def test_pytest_that_ran_no_test_is_explained(
    task: RunnerTask, tmp_path: Path, exit_code: int, said: str, error: type[AttemptError], told: str
) -> None:
    (tmp_path / "log").write_text(said + "\n")
    with pytest.raises(AttemptError) as caught:
        read_outcome(PYTEST, task, exit_code, tmp_path / "log")
    assert type(caught.value) is error
    assert told in caught.value.detail


def test_a_test_that_prints_about_a_missing_pytest_has_still_run(task: RunnerTask, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("E  No module named pytest\n")
    (task.report / "junit.xml").write_text(FAILING)
    assert read_outcome(PYTEST, task, 1, tmp_path / "log").verdict.outcome is Outcome.FAILED


def test_a_file_that_cannot_be_imported_is_told_by_the_report(task: RunnerTask, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("Interrupted: 1 error during collection\n")
    report = '<testsuite><testcase name="tests.test_a"><error message="collection failure"/></testcase></testsuite>'
    (task.report / "junit.xml").write_text(report)
    reading = read_outcome(PYTEST, task, 2, tmp_path / "log")
    assert (reading.verdict.level, reading.verdict.message) == (Level.ERROR, "collection failure")


def test_a_command_that_the_shell_does_not_find_is_a_missing_tool(task: RunnerTask, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("sh: 1: mvn: not found\n")
    with pytest.raises(ToolMissing, match="mvn: not found"):
        read_outcome(COMMAND, task, 127, tmp_path / "log")
