"""The only reader of time; the database has its own (`proctor_now()`), which decides wherever both could."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits; a test puts a `ManualClock` in its place."""

    def now(self) -> datetime: ...

    async def sleep(self, duration: timedelta) -> None: ...


class SystemClock:
    """The machine's clock, in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(duration.total_seconds())
