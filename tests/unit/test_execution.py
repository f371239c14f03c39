"""How many jobs are where, and what that makes of their execution."""

import pytest

from proctor.domain.execution import ENDED, UNDER_WAY, Counts
from proctor.domain.verdict import Level


def test_every_level_is_waiting_under_way_or_ended() -> None:
    assert {Level.WAITING, *UNDER_WAY, *ENDED} == set(Level)
    assert len({*UNDER_WAY, *ENDED}) == len(UNDER_WAY) + len(ENDED)


def test_jobs_are_counted_by_where_they_stand() -> None:
    counts = Counts.of({Level.WAITING: 3, Level.PROCESSING: 2, Level.TERMINATING: 1, Level.SUCCESS: 4, Level.ERROR: 5})

    assert (counts.total, counts.waiting, counts.running, counts.ended) == (15, 3, 3, 9)
    assert not counts.finished


@pytest.mark.parametrize("level", [Level.WAITING, *UNDER_WAY])
def test_one_job_that_has_not_ended_keeps_the_execution_going(level: Level) -> None:
    assert not Counts.of({Level.SUCCESS: 100, level: 1}).finished


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ({Level.SUCCESS: 9}, Level.SUCCESS),
        ({Level.SUCCESS: 9, Level.WARNING: 1}, Level.WARNING),
        ({Level.SUCCESS: 9, Level.UNEXECUTED: 1}, Level.UNEXECUTED),
        ({Level.UNEXECUTED: 9, Level.STOPPED: 1}, Level.STOPPED),
        ({Level.STOPPED: 9, Level.FAILURE: 1}, Level.FAILURE),
        ({Level.FAILURE: 9, Level.ERROR: 1}, Level.ERROR),
        ({}, Level.UNEXECUTED),
    ],
)
def test_the_worst_job_decides(levels: dict[Level, int], verdict: Level) -> None:
    counts = Counts.of(levels)

    assert counts.finished
    assert counts.verdict is verdict
