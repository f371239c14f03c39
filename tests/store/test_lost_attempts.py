"""The sweep: what a crash left is closed, tried again, and in the end told."""

import world
from proctor.domain.verdict import Level
from proctor.services import runs
from proctor.services.context import Context
from proctor.services.runs import RunAnswer, RunRequest
from proctor.services.sweep import sweep
from proctor.store import environments
from proctor.testing.worker import FAILED, PASSED, FakeWorker


async def start(context: Context, *, retries: int = 0, number: int = 1) -> int:
    plan = {"name": "smoke", "parallel": 10, "retries": retries}
    await world.put(context, world.service(number=number, plans=[plan]))
    answer = await runs.start(context, await world.caller(context), RunRequest("smoke", "http://here"))
    assert isinstance(answer, RunAnswer)
    assert answer.execution_id is not None
    return answer.execution_id


async def expire(context: Context) -> None:
    """As if a minute had passed in which no worker renewed anything."""
    await world.sql(
        context,
        """UPDATE attempts SET lease_until = proctor_now() - interval '1 s'
           WHERE state IN ('leased', 'running', 'reporting')""",
    )


async def job(context: Context) -> tuple[str, str | None, int, int]:
    [row] = await world.sql(context, "SELECT level, message, attempts, infrastructure FROM jobs")
    level, message, attempts, infrastructure = row
    return level, message, attempts, infrastructure


async def test_an_attempt_whose_lease_ran_out_is_closed_as_lost_and_its_job_tried_again(context: Context) -> None:
    worker = await FakeWorker.sign_on(context)
    execution_id = await start(context)
    [lost] = await worker.take(execution_id)
    await expire(context)

    await sweep(context)

    [task] = await worker.take(execution_id)
    assert (task.job_id, task.number) == (lost.job_id, 2)
    assert task.fence.epoch > lost.fence.epoch
    assert await worker.finish(task.fence, PASSED) is Level.SUCCESS
    rows = await world.sql(context, "SELECT state, outcome, level FROM attempts ORDER BY number")
    assert rows == [("lost", "infrastructure", "ERROR"), ("done", "passed", "SUCCESS")]


async def test_a_lease_that_lasts_is_left_alone(context: Context) -> None:
    worker = await FakeWorker.sign_on(context)
    execution_id = await start(context)
    [task] = await worker.take(execution_id)

    await sweep(context)

    assert await worker.finish(task.fence) is Level.SUCCESS


async def test_machinery_is_tried_twice_more_and_then_the_job_ends_as_error(context: Context) -> None:
    worker = await FakeWorker.sign_on(context)
    execution_id = await start(context)

    for number in (1, 2, 3):
        [task] = await worker.take(execution_id)
        assert task.number == number
        await expire(context)
        await sweep(context)

    level, message, attempts, infrastructure = await job(context)
    assert (level, attempts, infrastructure) == ("ERROR", 3, 3)
    assert message == "The worker that ran the test was lost: it has not been heard of for a minute."
    assert await world.sql(context, "SELECT state, level FROM executions") == [("finished", "ERROR")]
    assert await worker.take(execution_id) == []


async def test_a_lease_that_nobody_took_says_so(context: Context) -> None:
    await FakeWorker.sign_on(context)
    await start(context)

    for _ in range(3):
        await expire(context)
        await sweep(context)

    level, message, *_ = await job(context)
    assert level == "ERROR"
    assert message == "No worker took the test up in time: check that the workers run."


async def test_lost_attempts_do_not_spend_the_plans_retries(context: Context) -> None:
    worker = await FakeWorker.sign_on(context)
    execution_id = await start(context, retries=1)

    for _ in range(2):
        await worker.take(execution_id)
        await expire(context)
        await sweep(context)
    [third] = await worker.take(execution_id)
    assert await worker.finish(third.fence, FAILED) is Level.WAITING, "its only retry is still unspent"
    [fourth] = await worker.take(execution_id)
    assert await worker.finish(fourth.fence, FAILED) is Level.FAILURE

    assert (await job(context))[2:] == (4, 2)


async def test_sweeps_at_once_close_a_lost_attempt_once(context: Context) -> None:
    import asyncio

    worker = await FakeWorker.sign_on(context)
    execution_id = await start(context, number=5)
    assert len(await worker.take(execution_id)) == 5
    await expire(context)

    await asyncio.gather(*(sweep(context) for _ in range(5)))

    rows = await world.sql(context, "SELECT infrastructure, attempts, level FROM jobs")
    assert rows == [(1, 2, "PROCESSING")] * 5


async def test_a_stopped_execution_whose_worker_died_ends_with_the_sweep(context: Context) -> None:
    worker = await FakeWorker.sign_on(context)
    execution_id = await start(context)
    await worker.take(execution_id)
    await runs.stop(context, await world.caller(context), "smoke")
    assert (await job(context))[0] == "TERMINATING"
    await expire(context)

    await sweep(context)

    assert (await job(context))[0] == "STOPPED"
    assert await world.sql(context, "SELECT state, level FROM executions") == [("finished", "STOPPED")]


async def test_the_sweep_dispatches_what_waits(context: Context) -> None:
    execution_id = await start(context)
    async with context.store.begin() as tx:
        worker_id = await environments.beat(tx, name="late", queues=["jobs"], concurrency=1, hub_id=None)

    await sweep(context)

    assert len(await FakeWorker(context, worker_id, None).take(execution_id)) == 1


async def test_the_sweep_forgets_what_nobody_asks_for_any_more(context: Context) -> None:
    await world.make_admin(context)
    await world.sql(
        context,
        "INSERT INTO sign_in_failures (username, address, failed_at) VALUES ('a', 'b', now() - interval '2 days')",
    )
    await world.sql(context, "UPDATE tokens SET expires_at = now() - interval '8 days'")

    await sweep(context)

    assert await world.sql(context, "SELECT 1 FROM sign_in_failures UNION ALL SELECT 1 FROM tokens") == []
