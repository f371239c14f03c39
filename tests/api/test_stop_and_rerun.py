"""Contract §3: checkIsRunning, stop, rerun."""

import pytest

import world
from calls import API, Api, SignIn, assert_problem
from proctor.domain.verdict import Level
from proctor.services.context import Context
from proctor.testing.worker import FAILED, PASSED, FakeWorker

NARROW = {"name": "smoke", "parallel": 2}


@pytest.fixture
async def ci(context: Context, sign_in: SignIn) -> Api:
    """May run the plan `smoke` of four scenarios, two at a time."""
    await world.put(context, world.service(number=4, plans=[NARROW]))
    return await sign_in("ci")


async def levels(api: Api, execution_id: int) -> list[str]:
    reply = await api.get(f"{API}/testExecutions/{execution_id}")
    return [one["level"] for one in reply.body["test_results"]]


async def test_whether_a_plan_runs_is_told(ci: Api, context: Context) -> None:
    """§3: checkIsRunning: {status: "SUCCESS", running: bool}; also while it is stopping."""
    worker = await FakeWorker.sign_on(context)
    path = f"{API}/plans/1/checkIsRunning"
    assert (await ci.get(path)).body == {"status": "SUCCESS", "running": False}
    execution_id = await ci.start(1)
    assert (await ci.get(path)).body == {"status": "SUCCESS", "running": True}
    tasks = await worker.take(execution_id)
    await ci.get(f"{API}/plans/1/stop")
    assert (await ci.get(path)).body == {"status": "SUCCESS", "running": True}
    for task in tasks:
        await worker.finish(task.fence)
    assert (await ci.get(f"{API}/plans/smoke/checkIsRunning")).body == {"status": "SUCCESS", "running": False}


async def test_what_is_no_plan_cannot_be_asked_or_stopped(ci: Api) -> None:
    """§3: 404 with the messages of each route."""
    for ref in ("99", "nothing", "%00", "9" * 30):
        assert_problem(await ci.get(f"{API}/plans/{ref}/checkIsRunning"), 404, "Plan not found", "plan_not_found")
        assert_problem(await ci.get(f"{API}/plans/{ref}/stop"), 404, "Test plan not found", "plan_not_found")


async def test_stopping_what_does_not_run_says_so(ci: Api) -> None:
    """§3: NOT_AVAILABLE."""
    reply = await ci.get(f"{API}/plans/smoke/stop")

    assert (reply.status, reply.body) == (200, {"status": "NOT_AVAILABLE", "message": "Plan Id 1 is not running"})


async def test_stopping_ends_what_waits_and_what_nobody_began(ci: Api, context: Context) -> None:
    """§3, states: waiting jobs become UNEXECUTED, leased ones STOPPED, and the execution ends at once."""
    await FakeWorker.sign_on(context)
    execution_id = await ci.start(1)

    reply = await ci.get(f"{API}/plans/1/stop")

    assert (reply.status, reply.body) == (200, {"status": "SUCCESS", "message": "Plan Id 1 has been stopped"})
    assert await levels(ci, execution_id) == ["STOPPED", "STOPPED", "UNEXECUTED", "UNEXECUTED"]
    execution = (await ci.get(f"{API}/testExecutions/{execution_id}")).body
    assert "end_date" in execution
    assert execution["result_summary"] == {"STOPPED": 2, "UNEXECUTED": 2}
    assert await world.sql(context, "SELECT state, level FROM executions") == [("finished", "STOPPED")]
    assert await world.sql(context, "SELECT DISTINCT state FROM attempts") == [("cancelled",)]


async def test_stopping_lets_what_runs_wind_down(ci: Api, context: Context) -> None:
    """States: TERMINATING on the way to STOPPED; what ended by itself meanwhile keeps its verdict."""
    worker = await FakeWorker.sign_on(context)
    execution_id = await ci.start(1)
    first, second = await worker.take(execution_id)

    await ci.get(f"{API}/plans/1/stop")

    assert await levels(ci, execution_id) == ["TERMINATING", "TERMINATING", "UNEXECUTED", "UNEXECUTED"]
    assert "end_date" not in (await ci.get(f"{API}/testExecutions/{execution_id}")).body
    assert await worker.renew([first.fence, second.fence]) == set(), "the worker learns of it with its next heartbeat"
    assert (await ci.run(1)).body["already_running"], "until it has ended, nothing new starts"
    assert await worker.finish(first.fence, FAILED) is Level.FAILURE
    assert await worker.finish(second.fence, PASSED) is Level.SUCCESS
    assert await levels(ci, execution_id) == ["FAILURE", "SUCCESS", "UNEXECUTED", "UNEXECUTED"]
    assert await world.sql(context, "SELECT state FROM executions") == [("finished",)]


async def test_stopping_cancels_the_queues_jobs(ci: Api, context: Context) -> None:
    """Issue 2: what nobody runs yet is taken away, what runs is asked to stop."""
    worker = await FakeWorker.sign_on(context)
    await worker.take(await ci.start(1))

    await ci.get(f"{API}/plans/1/stop")

    assert await world.sql(context, "SELECT status FROM procrastinate_jobs WHERE task_name = 'run_attempt'") == []


async def test_stopping_twice_changes_nothing_more(ci: Api, context: Context) -> None:
    """§3: the second is told that it is being stopped, too."""
    worker = await FakeWorker.sign_on(context)
    execution_id = await ci.start(1)
    await worker.take(execution_id)
    await ci.get(f"{API}/plans/1/stop")
    before = await world.sql(context, "SELECT * FROM events ORDER BY sequence")

    reply = await ci.get(f"{API}/plans/1/stop")

    assert reply.body["status"] == "SUCCESS"
    assert await world.sql(context, "SELECT * FROM events ORDER BY sequence") == before


async def test_a_stop_gives_its_slots_to_who_waits(context: Context, sign_in: SignIn) -> None:
    """Design 3: whoever changes something dispatches in passing."""
    await FakeWorker.sign_on(context, concurrency=2)
    await world.put(context, world.service("a"), world.service("b"))
    ci = await sign_in("ci")
    await ci.start(1)
    waiting = await ci.start(2)
    assert await levels(ci, waiting) == ["WAITING", "WAITING"]

    await ci.get(f"{API}/plans/1/stop")

    assert await levels(ci, waiting) == ["PROCESSING", "PROCESSING"]


async def test_stopping_needs_the_permission_to_run(ci: Api, context: Context, sign_in: SignIn) -> None:
    """§2: 403 in the own company, 404 elsewhere."""
    await world.put(context, users={"viewer": ["ROLE_USER"]})
    await world.put(context, company="Other", users={"eve": world.RUNNER})
    await ci.start(1)

    assert_problem(await (await sign_in("viewer")).get(f"{API}/plans/1/stop"), 403, "Forbidden")
    assert_problem(await (await sign_in("eve")).get(f"{API}/plans/1/stop"), 404, "Test plan not found")

    assert (await ci.get(f"{API}/plans/1/checkIsRunning")).body["running"] is True


# --- rerun -----------------------------------------------------------------------------------------------------------


async def test_a_rerun_runs_the_named_scenarios_once_each(ci: Api, context: Context) -> None:
    """§3: POST rerun: {successful, message, execution_id}."""
    worker = await FakeWorker.sign_on(context)
    await worker.play(await ci.start(1), lambda _: FAILED)

    reply = await ci.post(f"{API}/plans/1/rerun", json=[3, 1, 3])

    assert reply.status == 200
    assert set(reply.body) == {"successful", "message", "execution_id"}
    assert reply.body["successful"] is True
    execution = (await ci.get(f"{API}/testExecutions/{reply.body['execution_id']}")).body
    assert [one["scenario_id"] for one in execution["test_results"]] == [3, 1]


async def test_a_rerun_uses_the_environments_of_the_last_execution(context: Context, sign_in: SignIn) -> None:
    """§3: in the environments of the last execution, whatever the plan has now."""
    worker = await FakeWorker.sign_on(context, hub="here", browsers=[world.CHROME, world.FIREFOX], slots=4)
    both = ["LINUX / Chrome 156", "LINUX / Firefox 153"]
    await world.put(context, world.browsers(environments=both))
    ci = await sign_in("ci")
    await worker.play(await ci.start(1))
    await world.put(context, world.browsers(environments=both[:1]))

    reply = await ci.post(f"{API}/plans/1/rerun", json=[1])

    execution = (await ci.get(f"{API}/testExecutions/{reply.body['execution_id']}")).body
    assert [one["environment_name"] for one in execution["test_results"]] == both


async def test_a_rerun_of_a_running_plan_joins_it(ci: Api) -> None:
    """§3: not successful, and the id of the running one."""
    running = await ci.start(1)

    reply = await ci.post(f"{API}/plans/1/rerun", json=[1])

    assert (reply.status, reply.body["successful"], reply.body["execution_id"]) == (200, False, running)


async def test_a_rerun_says_what_is_not_there(ci: Api, context: Context) -> None:
    """§3: 404 with Plan, Scenario list, Execution, Scenario not found."""
    await world.put(context, world.service("other", number=1))
    path = f"{API}/plans/1/rerun"
    assert_problem(await ci.post(f"{API}/plans/99/rerun", json=[1]), 404, "Plan not found")
    assert_problem(await ci.post(path, json=[]), 404, "Scenario list not found")
    assert_problem(await ci.post(path, json=[1]), 404, "Execution not found")
    worker = await FakeWorker.sign_on(context)
    await worker.play(await ci.start(1))
    for missing in (99, 5, -1, 10**30):
        assert_problem(await ci.post(path, json=[1, missing]), 404, "Scenario not found")
    for body in ({"a": 1}, "x", ["x"], None, [1.5], [None]):
        assert_problem(await ci.post(path, json=body), 400, "Invalid input data")
    assert (await ci.get(f"{API}/plans/1/checkIsRunning")).body["running"] is False


async def test_a_rerun_with_a_key_runs_once(ci: Api, context: Context) -> None:
    """§3: Idempotency-Key on any route that starts a run; the same key with other scenarios is refused."""
    worker = await FakeWorker.sign_on(context)
    await worker.play(await ci.start(1))
    path, key = f"{API}/plans/1/rerun", {"Idempotency-Key": "again"}
    first = await ci.post(path, json=[1], headers=key)
    await worker.play(first.body["execution_id"])

    assert (await ci.post(path, json=[1], headers=key)).body == first.body
    refused = await ci.post(path, json=[2], headers=key)
    assert_problem(refused, 422, "Idempotency-Key was used for another request")
    run = await ci.run(1, headers=key)
    assert_problem(run, 422, "Idempotency-Key was used for another request")
    assert await world.sql(context, "SELECT count(*) FROM executions") == [(2,)]
