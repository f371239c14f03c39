"""Dispatch on real connections: slots, plans' limits and workers' room hold, however many dispatch at once."""

import asyncio

import pytest

import world
from proctor.services import runs
from proctor.services.context import Context
from proctor.services.dispatch import dispatch
from proctor.services.runs import RunAnswer, RunRequest
from proctor.services.sweep import sweep
from proctor.testing.worker import FakeWorker


async def start(context: Context, plan: str) -> int:
    answer = await runs.start(context, await world.caller(context), RunRequest(plan, "http://here"))
    assert isinstance(answer, RunAnswer)
    assert answer.execution_id is not None, answer.message
    return answer.execution_id


async def live(context: Context) -> int:
    [(number,)] = await world.sql(
        context, "SELECT count(*) FROM attempts WHERE state IN ('leased', 'running', 'reporting')"
    )
    return int(number)


async def test_leases_never_exceed_the_hubs_slots(context: Context) -> None:
    worker = await FakeWorker.sign_on(context, hub="local", browsers=[world.CHROME], slots=3)
    shops = [world.browsers(f"shop {i}", environments=["LINUX / Chrome 156"], number=10, parallel=10) for i in range(3)]
    applied = await world.put(context, *shops)

    executions = await asyncio.gather(*(start(context, str(plan)) for plan in applied.plans.values()))
    await asyncio.gather(*(dispatch(context) for _ in range(20)))
    assert await live(context) == 3

    # Attempts end while others dispatch: never more than there are slots, and all of them come to their turn.
    ended = 0
    while ended < 30:
        tasks = [task for execution_id in executions for task in await worker.take(execution_id)]
        assert len(tasks) == min(3, 30 - ended)
        ended += len(tasks)
        await asyncio.gather(*(worker.finish(task.fence) for task in tasks), *(dispatch(context) for _ in range(5)))
        assert await live(context) == min(3, 30 - ended)
    assert await live(context) == 0


async def test_leases_never_exceed_the_plans_limit(context: Context) -> None:
    await FakeWorker.sign_on(context, concurrency=50)
    await world.put(context, world.service(number=10, plans=[{"name": "narrow", "parallel": 2}]))

    await start(context, "narrow")
    await asyncio.gather(*(dispatch(context) for _ in range(20)))

    assert await live(context) == 2


async def test_leases_never_exceed_what_the_workers_can_take(context: Context) -> None:
    await FakeWorker.sign_on(context, "one", concurrency=2)
    await FakeWorker.sign_on(context, "two", concurrency=3)
    await world.put(context, world.service(number=10))

    await start(context, "smoke")
    await asyncio.gather(*(dispatch(context) for _ in range(20)))

    assert await live(context) == 5


async def test_nothing_is_leased_to_a_worker_that_is_silent(context: Context) -> None:
    await FakeWorker.sign_on(context)
    await world.put(context, world.service())
    await world.sql(context, "UPDATE workers SET heartbeat_at = proctor_now() - interval '1 minute'")

    await start(context, "smoke")

    assert await live(context) == 0


async def test_every_lease_has_its_message_in_the_queue(context: Context) -> None:
    await FakeWorker.sign_on(context, hub="local", browsers=[world.CHROME], slots=2)
    await world.put(context, world.browsers(environments=["LINUX / Chrome 156"], number=2), world.service("api"))

    await start(context, str((await world.sql(context, "SELECT min(id) FROM plans"))[0][0]))
    await start(context, str((await world.sql(context, "SELECT max(id) FROM plans"))[0][0]))

    rows = await world.sql(
        context,
        """SELECT a.id, a.epoch, q.args, q.queue_name, h.name FROM attempts a
           JOIN procrastinate_jobs q ON q.id = a.queue_job_id LEFT JOIN hubs h ON h.id = a.hub_id ORDER BY a.id""",
    )
    assert len(rows) == 4
    for attempt_id, epoch, arguments, queue, hub in rows:
        assert arguments == {"attempt_id": attempt_id, "epoch": epoch}
        assert queue == (f"hub:{hub}" if hub else "jobs")


@pytest.mark.parametrize("simultaneous", [2, 20])
async def test_a_lease_and_a_stop_at_once_leave_nothing_behind(context: Context, simultaneous: int) -> None:
    worker = await FakeWorker.sign_on(context, concurrency=50)
    await world.put(context, world.service(number=20, plans=[{"name": "wide", "parallel": 50}]))
    caller = await world.caller(context)

    execution_id = await start(context, "wide")
    await asyncio.gather(
        *(runs.stop(context, caller, "wide") for _ in range(simultaneous)),
        *(dispatch(context) for _ in range(simultaneous)),
    )
    for task in await worker.take(execution_id):
        await worker.finish(task.fence)

    assert await live(context) == 0
    assert await world.sql(context, "SELECT state FROM executions") == [("finished",)]


async def test_starts_stops_results_and_sweeps_at_once_do_not_deadlock(context: Context) -> None:
    """PostgreSQL would end one of them with an error, which the caller would see as a 500."""
    worker = await FakeWorker.sign_on(context, concurrency=50)
    await world.put(context, world.service(number=6, plans=[{"name": "smoke", "parallel": 3}]))
    caller = await world.caller(context)

    async def finish_some() -> None:
        for (execution_id,) in await world.sql(context, "SELECT id FROM executions WHERE state <> 'finished'"):
            for task in await worker.take(execution_id):
                await worker.finish(task.fence)

    for _ in range(15):
        request = RunRequest("smoke", "http://here")
        await asyncio.gather(
            *(runs.start(context, caller, request) for _ in range(2)),
            *(finish_some() for _ in range(3)),
            runs.stop(context, caller, "smoke"),
            sweep(context),
        )
