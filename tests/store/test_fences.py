"""Whoever lost a lease changes nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import world
from proctor.domain.execution import AttemptState, Fence
from proctor.domain.verdict import Case, CaseStatus, Level
from proctor.services import runs
from proctor.services.context import Context
from proctor.services.runs import RunAnswer, RunRequest
from proctor.services.sweep import close_lost
from proctor.store import claims, executions
from proctor.testing.worker import BROKEN, FAILED, PASSED, FakeWorker

CASE = Case("test_pays", "tests.test_shop", CaseStatus.PASSED, 0.5)


async def start(context: Context, plan: str = "smoke") -> int:
    answer = await runs.start(context, await world.caller(context), RunRequest(plan, "http://here"))
    assert isinstance(answer, RunAnswer)
    assert answer.execution_id is not None
    return answer.execution_id


@pytest.fixture
async def worker(context: Context) -> FakeWorker:
    await world.put(context, world.service(number=1))
    return await FakeWorker.sign_on(context)


async def snapshot(context: Context) -> Sequence[tuple[Any, ...]]:
    """All that an attempt may change."""
    return [
        row
        for table in ("executions", "jobs", "attempts", "cases", "events")
        for row in await world.sql(context, f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608 (constants)
    ]


async def test_a_wrong_epoch_begins_renews_reports_and_ends_nothing(context: Context, worker: FakeWorker) -> None:
    execution_id = await start(context)
    [(attempt_id, epoch)] = await world.sql(context, "SELECT id, epoch FROM attempts")
    before = await snapshot(context)

    for wrong in (Fence(attempt_id, epoch - 1), Fence(attempt_id, epoch + 1), Fence(attempt_id + 1, epoch)):
        assert await worker.begin(wrong) is None
        assert await worker.renew([wrong]) == set()
        assert await worker.finish(wrong, FAILED, cases=[CASE]) is None

    assert await snapshot(context) == before
    [task] = await worker.take(execution_id)
    before = await snapshot(context)
    for wrong in (replace(task.fence, epoch=epoch - 1), replace(task.fence, epoch=epoch + 1)):
        assert await worker.renew([wrong]) == set()
        assert await worker.finish(wrong, FAILED, cases=[CASE]) is None
    assert await snapshot(context) == before


async def test_a_lease_is_begun_once(context: Context, worker: FakeWorker) -> None:
    execution_id = await start(context)
    [task] = await worker.take(execution_id)
    before = await snapshot(context)

    assert await worker.begin(task.fence) is None

    assert await snapshot(context) == before


async def test_what_has_ended_does_not_end_again(context: Context, worker: FakeWorker) -> None:
    execution_id = await start(context)
    [task] = await worker.take(execution_id)
    assert await worker.finish(task.fence, PASSED, cases=[CASE]) is Level.SUCCESS
    before = await snapshot(context)

    assert await worker.finish(task.fence, BROKEN, cases=[CASE]) is None
    assert await worker.renew([task.fence]) == set()

    assert await snapshot(context) == before


async def test_another_worker_cannot_renew_the_lease(context: Context, worker: FakeWorker) -> None:
    execution_id = await start(context)
    [task] = await worker.take(execution_id)
    other = await FakeWorker.sign_on(context, "other")

    assert await other.renew([task.fence]) == set()
    assert await worker.renew([task.fence]) == {task.fence.attempt_id}


async def test_a_worker_that_lost_its_lease_hands_nothing_in(context: Context, worker: FakeWorker) -> None:
    execution_id = await start(context)
    [task] = await worker.take(execution_id)
    await world.sql(context, "UPDATE attempts SET lease_until = proctor_now() - interval '1 s'")
    await close_lost(context)
    before = await snapshot(context)

    assert await worker.renew([task.fence]) == set()
    assert await worker.finish(task.fence, PASSED, cases=[CASE]) is None

    # `finish` dispatches: only a new attempt may have appeared.
    after = await snapshot(context)
    assert [row for row in before if row not in after] == [
        row for row in before if row[0] == task.job_id and "WAITING" in row
    ]
    assert await world.sql(context, "SELECT state FROM attempts ORDER BY id") == [("lost",), ("leased",)]


async def test_renewing_prolongs_the_lease_by_a_minute(context: Context, worker: FakeWorker) -> None:
    execution_id = await start(context)
    [task] = await worker.take(execution_id)
    await world.sql(context, "UPDATE attempts SET lease_until = proctor_now() + interval '5 s'")

    await worker.renew([task.fence])

    [(seconds,)] = await world.sql(
        context, "SELECT extract(epoch FROM lease_until - proctor_now())::float FROM attempts"
    )
    assert claims.LEASE.total_seconds() - 5 < seconds <= claims.LEASE.total_seconds()


async def test_each_change_of_state_looks_at_the_epoch_itself(context: Context, worker: FakeWorker) -> None:
    """Also where a caller would have looked before: nothing may come in between."""
    execution_id = await start(context)
    [task] = await worker.take(execution_id)
    wrong = replace(task.fence, epoch=task.fence.epoch + 1)
    before = await snapshot(context)

    async with context.store.begin() as tx:
        assert await claims.begin(tx, wrong, worker.id) is None
        assert await claims.renew(tx, worker.id, [wrong]) == set()
        assert not await claims.set_reporting(tx, wrong)
        assert await claims.find_place(tx, wrong) is None
        assert not await claims.end_attempt(tx, wrong, AttemptState.DONE, PASSED)
        moved = await executions.set_job_level(tx, task.job_id, wrong.epoch, Level.SUCCESS, None, infrastructure=False)
        assert not moved

    assert await snapshot(context) == before


async def test_a_finished_execution_is_not_stopped_or_finished_again(context: Context, worker: FakeWorker) -> None:
    execution_id = await start(context)
    await worker.play(execution_id)
    before = await snapshot(context)

    async with context.store.begin() as tx:
        assert not await executions.set_stopping(tx, execution_id)
        assert not await executions.set_finished(tx, execution_id, Level.ERROR)
        assert await executions.end_waiting_jobs(tx, execution_id, "no") == []
        assert await executions.terminate_jobs(tx, execution_id) == []

    assert await snapshot(context) == before
