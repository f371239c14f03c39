"""What the database refuses, whatever the code does."""

import pytest
from sqlalchemy.exc import IntegrityError

import world
from proctor.services import runs
from proctor.services.context import Context
from proctor.services.runs import RunAnswer, RunRequest
from proctor.testing.worker import FakeWorker


@pytest.fixture
async def execution_id(context: Context) -> int:
    """An execution of one job, which is leased."""
    await world.put(context, world.service(number=1))
    await FakeWorker.sign_on(context)
    answer = await runs.start(context, await world.caller(context), RunRequest("smoke", "http://here"))
    assert isinstance(answer, RunAnswer)
    assert answer.execution_id is not None
    return answer.execution_id


async def test_a_plan_has_at_most_one_unfinished_execution(context: Context, execution_id: int) -> None:
    again = (
        "INSERT INTO executions (company_id, plan_id, state) SELECT company_id, plan_id, :state FROM executions LIMIT 1"
    )

    for state in ("running", "stopping"):
        with pytest.raises(IntegrityError, match="uq_executions_plan_id_unfinished"):
            await world.sql(context, again, state=state)

    await world.sql(context, again, state="finished")
    await world.sql(context, again, state="finished")


async def test_a_job_has_at_most_one_live_attempt(context: Context, execution_id: int) -> None:
    again = """INSERT INTO attempts (job_id, number, epoch, state, lease_until)
               SELECT job_id, number + :more, epoch + 1, :state, lease_until FROM attempts ORDER BY id LIMIT 1"""

    for state in ("leased", "running", "reporting"):
        with pytest.raises(IntegrityError, match="uq_attempts_job_id_live"):
            await world.sql(context, again, state=state, more=1)

    for more, state in enumerate(("done", "lost", "cancelled"), start=1):
        await world.sql(context, again, state=state, more=more)


async def test_a_job_is_ended_exactly_when_it_has_an_end(context: Context, execution_id: int) -> None:
    with pytest.raises(IntegrityError, match="ck_jobs_end"):
        await world.sql(context, "UPDATE jobs SET level = 'SUCCESS'")
    with pytest.raises(IntegrityError, match="ck_jobs_end"):
        await world.sql(context, "UPDATE jobs SET end_at = proctor_now()")


async def test_an_event_number_is_used_once(context: Context, execution_id: int) -> None:
    with pytest.raises(IntegrityError, match="pk_events"):
        await world.sql(
            context,
            "INSERT INTO events (execution_id, sequence, type) VALUES (:id, 1, 'test.finished')",
            id=execution_id,
        )


async def test_everybodys_environments_have_one_name_each(context: Context) -> None:
    one = "INSERT INTO environments (name, os, browser) VALUES ('LINUX / Chrome 156', 'LINUX', 'chrome')"
    await world.sql(context, one)

    with pytest.raises(IntegrityError, match="uq_environments_company_id_name"):
        await world.sql(context, one)
