"""The retry schedule of callbacks and the meaning of answers."""

from datetime import UTC, datetime, timedelta

import pytest

from proctor.domain.delivery import SCHEDULE, Judgement, judge_answer, next_try, read_retry_after

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
MIDDLE = 0.5


def test_the_first_try_is_at_once_and_the_tenth_the_last() -> None:
    waits = [next_try(tries, None, MIDDLE) for tries in range(11)]

    assert waits[0] == timedelta(0)
    assert waits[1] == timedelta(seconds=5)
    assert waits[2] == timedelta(minutes=5)
    assert waits[9] == timedelta(hours=24)
    assert waits[10] is None
    assert waits[:10] == list(SCHEDULE)


def test_the_jitter_is_a_fifth_either_way() -> None:
    assert next_try(1, None, 0.0) == timedelta(seconds=4)
    assert next_try(1, None, 1.0) == timedelta(seconds=6)


def test_retry_after_makes_the_wait_longer_never_shorter() -> None:
    assert next_try(1, 120, MIDDLE) == timedelta(seconds=120)
    assert next_try(2, 1, MIDDLE) == timedelta(minutes=5)
    assert next_try(1, 0, MIDDLE) == timedelta(seconds=5)


def test_retry_after_is_capped_at_a_day_and_gives_no_further_try() -> None:
    assert next_try(1, 10**30, MIDDLE) == timedelta(hours=24)
    assert next_try(10, 60, MIDDLE) is None


@pytest.mark.parametrize(
    ("status", "judgement"),
    [
        (200, Judgement.DELIVERED),
        (204, Judgement.DELIVERED),
        (299, Judgement.DELIVERED),
        (301, Judgement.RETRY),
        (307, Judgement.RETRY),
        (400, Judgement.RETRY),
        (404, Judgement.RETRY),
        (410, Judgement.GONE),
        (429, Judgement.RETRY),
        (500, Judgement.RETRY),
        (None, Judgement.RETRY),
    ],
)
def test_an_answer_is_judged_by_its_status(status: int | None, judgement: Judgement) -> None:
    assert judge_answer(status) is judgement


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("9" * 5_000, 86_400),
        ("Mon, 23 Nov 2026 10:02:00 GMT", 120),
        ("Mon, 23 Nov 2026 10:02:00 -0000", 120),
        ("Mon, 23 Nov 2026 09:00:00 GMT", 0),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("soon", None),
        ("Mon, 99 Nov 2026 10:02:00 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(header: str | None, seconds: int | None) -> None:
    assert read_retry_after(429, header, NOW) == seconds


def test_only_429_and_503_may_ask_for_a_later_try() -> None:
    assert read_retry_after(503, "60", NOW) == 60
    assert read_retry_after(500, "60", NOW) is None
    assert read_retry_after(200, "60", NOW) is None
