"""Whether a job that did not pass gets another attempt."""

import pytest

from proctor.domain.retry import INFRASTRUCTURE_RETRIES, Spent, next_level
from proctor.domain.verdict import Level, Outcome, Verdict

PASSED = Verdict(Outcome.PASSED, Level.SUCCESS)
SKIPPED = Verdict(Outcome.PASSED, Level.WARNING)
FAILED = Verdict(Outcome.FAILED, Level.FAILURE)
BROKEN = Verdict(Outcome.BROKEN, Level.ERROR)
MACHINERY = Verdict(Outcome.INFRASTRUCTURE, Level.ERROR)


@pytest.mark.parametrize("verdict", [PASSED, SKIPPED])
def test_what_passed_is_never_tried_again(verdict: Verdict) -> None:
    assert next_level(verdict, Spent(1, 0), retries=5, stopping=False) is verdict.level


@pytest.mark.parametrize("verdict", [FAILED, BROKEN])
def test_what_failed_is_tried_as_often_as_the_plan_says(verdict: Verdict) -> None:
    levels = [next_level(verdict, Spent(attempt, 0), retries=2, stopping=False) for attempt in (1, 2, 3)]

    assert levels == [Level.WAITING, Level.WAITING, verdict.level]


def test_without_retries_the_first_failure_counts() -> None:
    assert next_level(FAILED, Spent(1, 0), retries=0, stopping=False) is Level.FAILURE


def test_machinery_is_tried_twice_more_whatever_the_plan_says() -> None:
    for retries in (0, 5):
        levels = [next_level(MACHINERY, Spent(n, n), retries, stopping=False) for n in (1, 2, 3)]
        assert levels == [Level.WAITING, Level.WAITING, Level.ERROR]
    assert INFRASTRUCTURE_RETRIES == 2


def test_machinery_does_not_spend_the_plans_retries() -> None:
    assert next_level(FAILED, Spent(attempts=3, infrastructure=2), retries=1, stopping=False) is Level.WAITING
    assert next_level(FAILED, Spent(attempts=4, infrastructure=2), retries=1, stopping=False) is Level.FAILURE


@pytest.mark.parametrize("verdict", [PASSED, SKIPPED, FAILED, BROKEN])
def test_what_ended_by_itself_keeps_its_verdict_when_its_plan_is_stopped(verdict: Verdict) -> None:
    assert next_level(verdict, Spent(1, 0), retries=5, stopping=True) is verdict.level


def test_what_the_stop_ended_is_stopped() -> None:
    assert next_level(MACHINERY, Spent(1, 0), retries=5, stopping=True) is Level.STOPPED
