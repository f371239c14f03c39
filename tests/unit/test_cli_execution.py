"""What the command line makes of an execution's document: exit code, words, JUnit."""

from typing import Any

import pytest

from proctor.cli.client import ExitCode, ServerBroken
from proctor.cli.execution import NEVER_STARTED, Execution, clean, count, judge, read_execution, summarize, to_junit
from proctor.services.jobs import NEVER_STARTED_MESSAGE


def attempt(outcome: str | None, number: int = 1, message: str = "", **more: Any) -> dict[str, Any]:
    return {"number": number, "outcome": outcome, "message": message, **more}


def job(level: str, *outcomes: str | None, message: str = "", name: str = "pays by card") -> dict[str, Any]:
    return {
        "id": 7,
        "level": level,
        "scenario_name": name,
        "environment_name": "chrome",
        "message": message,
        "runtime": 2500,
        "url": "http://proctor.test/results/7",
        "attempts": [attempt(outcome, n, f"attempt {n} said so") for n, outcome in enumerate(outcomes, 1)],
    }


def execution(*jobs: dict[str, Any], **more: Any) -> Execution:
    return read_execution(
        {
            "id": 12,
            "plan_id": 3,
            "plan_name": "smoke",
            "project_name": "shop",
            "level": "FAILURE",
            "start_at": "2026-11-24T01:00:00+00:00",
            "end_at": "2026-11-24T01:00:34.200000+00:00",
            "url": "http://proctor.test/executions/12",
            "counts": {"total": len(jobs), "waiting": 0, "running": 0, "ended": len(jobs)},
            "jobs": list(jobs),
            **more,
        }
    )


PASSED = job("SUCCESS", "passed")
SKIPPED = job("WARNING", "passed")
FLAKY = job("SUCCESS", "failed", "passed")
FAILED = job("FAILURE", "failed")
BROKEN = job("ERROR", "infrastructure", "broken")
NEVER_SET_UP = job("ERROR")
MACHINERY = job("ERROR", "infrastructure", "infrastructure", "infrastructure")
STOPPED = job("STOPPED", None)
NOT_STARTED = job("UNEXECUTED", message=NEVER_STARTED)
NO_ENVIRONMENT = job("UNEXECUTED", message="No hub offers LINUX opera.")


@pytest.mark.parametrize(
    ("jobs", "code"),
    [
        ([PASSED, SKIPPED, FLAKY], ExitCode.PASSED),
        ([PASSED, FAILED], ExitCode.TESTS_FAILED),
        ([PASSED, BROKEN], ExitCode.TESTS_FAILED),
        ([NEVER_SET_UP], ExitCode.TESTS_FAILED),
        ([PASSED, MACHINERY], ExitCode.MACHINERY_FAILED),
        ([FAILED, MACHINERY, STOPPED], ExitCode.TESTS_FAILED),
        ([MACHINERY, STOPPED], ExitCode.MACHINERY_FAILED),
        ([PASSED, STOPPED, NOT_STARTED], ExitCode.CANCELLED),
        ([NOT_STARTED], ExitCode.CANCELLED),
        ([FAILED, STOPPED], ExitCode.TESTS_FAILED),
        ([PASSED, NO_ENVIRONMENT], ExitCode.MACHINERY_FAILED),
        ([], ExitCode.NOTHING_TO_RUN),
    ],
)
def test_the_exit_code_blames_tests_before_machinery_and_machinery_before_who_stopped_it(
    jobs: list[dict[str, Any]], code: ExitCode
) -> None:
    assert judge(execution(*jobs)) is code


def test_the_exit_codes_are_those_that_pipelines_know() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 124, 130]


def test_a_job_that_a_stop_reached_first_is_known_by_what_the_server_writes() -> None:
    assert NEVER_STARTED == NEVER_STARTED_MESSAGE


def test_a_job_is_flaky_when_the_test_failed_before_it_passed_and_not_when_its_machinery_did() -> None:
    shown = execution(FLAKY, job("SUCCESS", "infrastructure", "passed"), PASSED, job("FAILURE", "failed", "failed"))
    assert [one.flaky for one in shown.jobs] == [True, False, False, False]


def test_the_summary_names_what_failed_with_its_message_and_page_and_what_was_flaky() -> None:
    failed = {**FAILED, "message": "expected 2,\nfound 1", "attempts": [attempt("failed"), attempt("failed", 2)]}
    assert summarize(execution(PASSED, failed, FLAKY, NO_ENVIRONMENT)) == [
        "FAILURE  smoke · execution 12  4 jobs: 2 passed (1 flaky), 1 failed, 1 not executed in 34.2 s",
        "",
        "Failed:",
        "  pays by card · chrome",
        "    FAILURE after 2 attempts: expected 2, found 1",
        "    http://proctor.test/results/7",
        "",
        "Not run to the end:",
        "  pays by card · chrome: No hub offers LINUX opera.",
        "",
        "Flaky, passed when tried again:",
        "  pays by card · chrome: passed at attempt 2, after: attempt 1 said so",
        "    http://proctor.test/results/7",
        "",
        "http://proctor.test/executions/12",
    ]


def test_an_execution_under_way_is_counted_by_what_waits_and_runs() -> None:
    assert count(execution(PASSED, job("PROCESSING", None), job("WAITING"))) == "3 jobs: 1 passed, 1 running, 1 waiting"


def test_what_test_code_wrote_cannot_command_the_terminal() -> None:
    assert clean("\x1b]0;owned\x07 red\x1b[31m\r\ngone \u202ereversed") == "]0;owned red [31m gone reversed"


def test_an_answer_of_another_version_says_so_instead_of_breaking() -> None:
    with pytest.raises(ServerBroken, match=r"jobs\.0\.level.*use the version of `proctor` that the server has"):
        execution(job("PONDERING"))


def test_junit_has_each_attempt_with_its_message_trace_and_duration() -> None:
    failed = attempt("failed", 1, "expected 2, found 1")
    failed |= {"start_date": "2026-11-24T01:00:00Z", "end_date": "2026-11-24T01:00:03Z"}
    failed["cases"] = [
        {"name": "a", "status": "passed", "detail": "not this"},
        {"name": "b", "status": "failed", "detail": "Traceback"},
    ]
    written = to_junit(execution({**FLAKY, "attempts": [failed, attempt("passed", 2), attempt(None, 3)]}))

    [one] = written.jobs
    assert (written.name, one.name, one.classname, one.seconds) == ("smoke", "pays by card", "chrome", 2.5)
    first, second = one.attempts
    assert (first.outcome, first.message, first.detail, first.seconds) == (
        "failed",
        "expected 2, found 1",
        "Traceback",
        3.0,
    )
    assert second.outcome == "passed"


def test_junit_shows_what_did_not_run_to_its_end_as_skipped_with_the_reason() -> None:
    written = to_junit(execution(STOPPED, NO_ENVIRONMENT, PASSED))
    assert [one.skipped for one in written.jobs] == ["STOPPED", "No hub offers LINUX opera.", None]
