"""Events of an execution: numbered from 1, without gaps, whoever writes at once."""

import asyncio

import pytest

import world
from proctor.domain.events import EventType
from proctor.services.context import Context
from proctor.services.runs import RunAnswer, RunRequest, start
from proctor.store import outbox
from proctor.testing.worker import FakeWorker


@pytest.fixture
async def execution_id(context: Context) -> int:
    await world.put(context, world.service(number=30))
    answer = await start(context, await world.caller(context), RunRequest("smoke", "http://here"))
    assert isinstance(answer, RunAnswer)
    assert answer.execution_id is not None
    return answer.execution_id


async def sequences(context: Context, execution_id: int) -> list[int]:
    async with context.store.begin() as tx:
        return [event.sequence for event in await outbox.list_events(tx, execution_id, after=0)]


async def test_writers_at_once_leave_no_gap_and_no_repetition(context: Context, execution_id: int) -> None:
    async def write(roll_back: bool) -> None:
        async with context.store.begin() as tx:
            await outbox.add_event(tx, execution_id, EventType.TEST_FINISHED, {})
            if roll_back:
                await tx.rollback()

    await asyncio.gather(*(write(roll_back=i % 5 == 0) for i in range(50)))

    # One at the start, 50 writers, of whom ten changed their mind.
    assert await sequences(context, execution_id) == list(range(1, 1 + 1 + 40))


async def test_jobs_that_end_at_once_are_each_told_once_and_the_end_last(context: Context, execution_id: int) -> None:
    worker = await FakeWorker.sign_on(context, concurrency=30)
    while tasks := await worker.take(execution_id):
        await asyncio.gather(*(worker.finish(task.fence) for task in tasks))

    async with context.store.begin() as tx:
        events = await outbox.list_events(tx, execution_id, after=0)
    assert [event.sequence for event in events] == list(range(1, 33))
    assert [event.type.value for event in events] == [
        "execution.started",
        *["test.finished"] * 30,
        "execution.finished",
    ]
    assert len({event.data["job_id"] for event in events[1:-1]}) == 30
    ended = [event.data["levels"]["SUCCESS"] for event in events[1:-1]]
    assert ended == list(range(1, 31)), "each event shows how it was when it happened"


async def test_a_callback_that_joins_twice_is_told_once(context: Context, execution_id: int) -> None:
    async with context.store.begin() as tx:
        first = await outbox.add_callback(tx, execution_id, "https://example.com/hook")
        again = await outbox.add_callback(tx, execution_id, "https://example.com/hook")

    assert first is not None
    assert again is None
