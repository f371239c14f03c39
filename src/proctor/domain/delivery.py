"""When a callback is tried again, and what an answer to it means (Standard Webhooks)."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

SCHEDULE: Final = (
    timedelta(0),
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
JITTER: Final = 0.2
MAX_RETRY_AFTER: Final = timedelta(hours=24)


class Judgement(StrEnum):
    """What a try came to; `GONE` ends the callback, not only this delivery."""

    DELIVERED = "delivered"
    RETRY = "retry"
    GONE = "gone"


def next_try(tries: int, retry_after: int | None, roll: float) -> timedelta | None:
    """How long to wait after so many `tries`, None when none is left.

    `roll` is from 0 to 1 and spreads the wait by 20 % either way; `retry_after`, in seconds, can only make it longer,
    up to 24 hours.
    """
    if tries >= len(SCHEDULE):
        return None
    wait = SCHEDULE[tries] * (1 - JITTER + 2 * JITTER * roll)
    if retry_after is None:
        return wait
    # Compared as a number: a receiver may send more seconds than a timedelta holds.
    asked = timedelta(seconds=min(retry_after, MAX_RETRY_AFTER.total_seconds()))
    return max(wait, asked)


def judge_answer(status: int | None) -> Judgement:
    """`status` is None when no answer came; a redirect counts as a failure, for none is followed."""
    if status is None:
        return Judgement.RETRY
    if 200 <= status < 300:
        return Judgement.DELIVERED
    return Judgement.GONE if status == 410 else Judgement.RETRY


def read_retry_after(status: int, header: str | None, now: datetime) -> int | None:
    """Seconds that the receiver asks to wait, from a number or a date; only 429 and 503 may ask."""
    if status not in {429, 503} or header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        # More digits than this would be capped anyway, and Python refuses to read thousands of them.
        return int(text) if len(text) <= 9 else int(MAX_RETRY_AFTER.total_seconds())
    return _seconds_until(text, now)


def _seconds_until(text: str, now: datetime) -> int | None:
    try:
        asked = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if asked.tzinfo is None:
        asked = asked.replace(tzinfo=UTC)
    return max(0, int((asked - now).total_seconds()))
