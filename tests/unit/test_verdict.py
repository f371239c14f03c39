import itertools

import pytest

from proctor.domain.verdict import MESSAGE_LIMIT, Case, CaseStatus, Level, Outcome, Verdict, judge, worst

ENDED = (Level.SUCCESS, Level.WARNING, Level.UNEXECUTED, Level.STOPPED, Level.FAILURE, Level.ERROR)


def case(status: CaseStatus, message: str | None = None, detail: str | None = None) -> Case:
    return Case("test_pays", "tests.test_shop", status, 0.1, message, detail)


PASSED, SKIPPED = case(CaseStatus.PASSED), case(CaseStatus.SKIPPED, "no card reader")
FAILED, ERROR = case(CaseStatus.FAILED, "assert 1 == 2\n +  where"), case(CaseStatus.ERROR, "fixture broke")


def test_passing_cases_and_exit_0_are_a_success() -> None:
    assert judge([PASSED, SKIPPED], 0) == Verdict(Outcome.PASSED, Level.SUCCESS, None)


def test_a_failed_case_is_a_failure_with_the_first_line_of_its_message() -> None:
    assert judge([PASSED, FAILED], 1) == Verdict(Outcome.FAILED, Level.FAILURE, "assert 1 == 2")


def test_a_failed_case_is_a_failure_even_when_the_runner_ended_with_0() -> None:
    assert judge([FAILED], 0).level is Level.FAILURE


def test_an_error_outweighs_a_failure() -> None:
    assert judge([FAILED, ERROR], 1) == Verdict(Outcome.BROKEN, Level.ERROR, "fixture broke")


def test_an_exit_code_that_no_case_explains_is_broken() -> None:
    verdict = judge([PASSED], 3)
    assert (verdict.outcome, verdict.level) == (Outcome.BROKEN, Level.ERROR)
    assert "exit code 3" in (verdict.message or "")


def test_only_skipped_cases_are_a_warning_with_the_reason() -> None:
    assert judge([SKIPPED, SKIPPED], 0) == Verdict(Outcome.PASSED, Level.WARNING, "Skipped: no card reader")


def test_a_report_without_cases_is_broken() -> None:
    assert judge([], 0).outcome is Outcome.BROKEN


def test_a_case_without_message_is_told_by_the_last_line_of_its_stack_trace_or_by_its_name() -> None:
    assert judge([case(CaseStatus.FAILED, None, "Traceback:\n  x\nValueError: 7")], 1).message == "ValueError: 7"
    assert judge([case(CaseStatus.FAILED)], 1).message == "test_pays"


def test_a_message_is_cut() -> None:
    assert len(judge([case(CaseStatus.FAILED, "x" * 5000)], 1).message or "") == MESSAGE_LIMIT
    assert len(judge([case(CaseStatus.SKIPPED, "x" * 5000)], 0).message or "") == MESSAGE_LIMIT


@pytest.mark.parametrize(("milder", "graver"), list(itertools.combinations(ENDED, 2)))
def test_of_two_levels_the_graver_is_the_worst_in_either_order(milder: Level, graver: Level) -> None:
    assert worst([milder, graver]) is worst([graver, milder]) is graver


def test_no_job_at_all_is_unexecuted() -> None:
    assert worst([]) is Level.UNEXECUTED


def test_a_level_under_way_has_no_rank() -> None:
    with pytest.raises(ValueError):
        worst([Level.SUCCESS, Level.PROCESSING])
