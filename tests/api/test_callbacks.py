"""Contract §7 and issue 2.10: what a caller is told, in which order, and until when."""

import asyncio
import json
import time
from typing import Any

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

import world
from calls import API, Api, SignIn, assert_problem
from proctor.ports.sender import new_secret
from proctor.services import callbacks, runs
from proctor.services.context import Context
from proctor.services.runs import RunAnswer, RunRequest
from proctor.services.sweep import sweep
from proctor.testing.worker import FAILED, PASSED, FakeWorker
from receiver import Receiver, Told, receiving

SECRET = new_secret()


@pytest.fixture
async def ci(context: Context, sign_in: SignIn) -> Api:
    """May run `smoke`: two scenarios."""
    await world.put(context, world.service(), secret=SECRET)
    return await sign_in("ci")


async def start(context: Context, receiver: Receiver, *, number: int = 2) -> int:
    """Starts `smoke` where no server delivers: the test itself does."""
    await world.put(context, world.service(number=number), secret=SECRET)
    request = RunRequest("smoke", "http://here", receiver.url)
    answer = await runs.start(context, await world.caller(context), request)
    assert isinstance(answer, RunAnswer)
    assert answer.execution_id is not None
    return answer.execution_id


async def deliver(context: Context) -> None:
    """As the server does when the time has come."""
    for (callback_id,) in await world.sql(context, "SELECT id FROM callbacks ORDER BY id"):
        await callbacks.deliver(context, callback_id)


async def let_time_pass(context: Context) -> None:
    """Until the next try."""
    await world.sql(context, "UPDATE callbacks SET next_try_at = proctor_now() WHERE next_try_at IS NOT NULL")


async def state(context: Context) -> tuple[str, int]:
    [(name, delivered)] = await world.sql(context, "SELECT state, delivered FROM callbacks")
    return name, delivered


# --- through the running server --------------------------------------------------------------------------------------


async def test_a_caller_is_told_everything_in_order_and_signed(ci: Api, context: Context) -> None:
    """§7: execution.started, test.finished for each, execution.finished; sequence from 1 without gaps."""
    worker = await FakeWorker.sign_on(context)
    async with receiving() as receiver:
        execution_id = await ci.start(1, params={"callbackUrl": receiver.url})
        await worker.play(execution_id, lambda task: PASSED if task.scenario_id == 1 else FAILED)
        told = await receiver.wait(4)

    assert receiver.sequences == [1, 2, 3, 4]
    types = [one.body["type"] for one in told]
    assert types == ["execution.started", "test.finished", "test.finished", "execution.finished"]
    for one in told:
        one.verify(SECRET)
        assert one.headers["content-type"] == "application/json"
        assert abs(int(one.headers["webhook-timestamp"]) - time.time()) < 60
    assert len({one.headers["webhook-id"] for one in told}) == 4


async def test_the_body_is_the_contracts(ci: Api, context: Context) -> None:
    """§7: {type, timestamp, data: {sequence, execution, test_result?}}."""
    worker = await FakeWorker.sign_on(context)
    async with receiving() as receiver:
        execution_id = await ci.start(1, params={"callbackUrl": receiver.url})
        await receiver.wait(1)
        await worker.play(execution_id, lambda task: PASSED if task.scenario_id == 1 else FAILED)
        started, _, second, finished = [one.body for one in await receiver.wait(4)]
    origin = str(ci.session._base_url).rstrip("/")

    assert set(started) == {"type", "timestamp", "data"}
    assert set(started["data"]) == {"sequence", "execution"}
    execution = started["data"]["execution"]
    assert execution == {
        "id": execution_id,
        "plan": {"id": 1},
        "plan_id": 1,
        "start_date": execution["start_date"],
        "result_summary": {"WAITING": 2},
        "test_result_status_counts": "[WAITING, 2]",
        "plan_name": "smoke",
        "project_name": "shop",
        "status": "RUNNING",
        "url": f"{origin}/executions/{execution_id}",
        "counts": {"total": 2, "waiting": 2, "running": 0, "ended": 0},
    }
    result = (await ci.get(f"{API}/testResults/{second['data']['test_result']['id']}")).body
    result.pop("test_result_commands")
    assert second["data"]["test_result"] == result
    last = finished["data"]["execution"]
    assert "test_result" not in finished["data"]
    assert last["counts"] == {"total": 2, "waiting": 0, "running": 0, "ended": 2}
    assert (last["status"], last["result_summary"]) == ("FAILURE", {"SUCCESS": 1, "FAILURE": 1})
    assert last["end_date"] >= last["start_date"]


async def test_who_joins_late_is_told_from_the_beginning(ci: Api, context: Context) -> None:
    """§3, §7: an added callback has its own sequence without gaps."""
    worker = await FakeWorker.sign_on(context)
    async with receiving() as early, receiving() as late:
        execution_id = await ci.start(1, params={"callbackUrl": early.url})
        [first, second] = await worker.take(execution_id)
        await worker.finish(first.fence)
        await early.wait(2)
        assert (await ci.run(1, params={"callbackUrl": late.url})).body["already_running"]
        await late.wait(2)
        await worker.finish(second.fence)
        await asyncio.gather(early.wait(4), late.wait(4))

    assert early.sequences == late.sequences == [1, 2, 3, 4]
    assert [one.raw for one in early.told] == [one.raw for one in late.told]


async def test_a_receiver_that_fails_holds_up_only_itself(ci: Api, context: Context) -> None:
    """§7: callbacks of one execution do not wait for each other."""
    worker = await FakeWorker.sign_on(context)
    async with receiving(lambda _: 500) as broken, receiving() as good:
        execution_id = await ci.start(1, params={"callbackUrl": broken.url})
        await ci.run(1, params={"callbackUrl": good.url})
        await worker.play(execution_id)
        await good.wait(4)
        await broken.wait(1)

    assert good.sequences == [1, 2, 3, 4]
    assert set(broken.sequences) == {1}


# --- retries ---------------------------------------------------------------------------------------------------------


async def test_what_did_not_arrive_is_sent_again_with_the_same_id_and_body(context: Context) -> None:
    """§7: webhook-id same on every retry; the next event waits for it."""
    async with receiving(lambda number: 500 if number <= 2 else 200) as receiver:
        execution_id = await start(context, receiver)
        await (await FakeWorker.sign_on(context)).play(execution_id)
        for number in (1, 2, 6):
            await deliver(context)
            await deliver(context)
            assert len(receiver.told) == number, "what is not due yet does not go out"
            await let_time_pass(context)

    assert receiver.sequences == [1, 1, 1, 2, 3, 4]
    first, second, third = receiver.told[:3]
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == third.headers["webhook-id"]
    assert first.raw == second.raw == third.raw
    assert await state(context) == ("active", 4)


async def test_a_retry_has_a_fresh_timestamp_and_signature(context: Context) -> None:
    """§7: webhook-timestamp is fresh each try."""
    async with receiving(lambda _: 500) as receiver:
        await start(context, receiver)
        await deliver(context)
        await asyncio.sleep(1.1)  # the header counts seconds
        await let_time_pass(context)
        await deliver(context)

    first, second = receiver.told
    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    second.verify(SECRET)


async def test_a_failed_try_is_planned_again_in_the_queue(context: Context) -> None:
    """Issue 2.10: the Standard Webhooks schedule: five seconds after the first, with 20 % jitter."""
    async with receiving(lambda _: 500) as receiver:
        await start(context, receiver)
        await deliver(context)

    [(wait, planned)] = await world.sql(
        context,
        """SELECT extract(epoch FROM c.next_try_at - proctor_now())::float, j.scheduled_at = c.next_try_at
           FROM callbacks c JOIN procrastinate_jobs j ON (j.args ->> 'callback_id')::bigint = c.id
           WHERE j.scheduled_at IS NOT NULL""",
    )
    assert 3 < wait <= 6
    assert planned is True


async def test_gone_ends_the_callback(context: Context) -> None:
    """Issue 2.10: 410: the receiver wants no more."""
    async with receiving(lambda _: 410) as receiver:
        execution_id = await start(context, receiver)
        await deliver(context)
        await (await FakeWorker.sign_on(context)).play(execution_id)
        await deliver(context)

    assert receiver.sequences == [1]
    assert await state(context) == ("gone", 0)


async def test_a_callback_that_never_answers_well_is_given_up(context: Context) -> None:
    """Issue 2.10: ten tries, then no more."""
    async with receiving(lambda _: 503) as receiver:
        await start(context, receiver)
        for _ in range(12):
            await deliver(context)
            await let_time_pass(context)

    assert receiver.sequences == [1] * 10
    assert await state(context) == ("exhausted", 0)


async def test_a_receiver_that_is_not_there_is_tried_again(context: Context) -> None:
    """§7: no answer is a failed try like any other."""
    async with receiving() as receiver:
        pass
    await start(context, receiver)

    await deliver(context)

    [(status, error, delivered)] = await world.sql(context, "SELECT status, error, delivered FROM deliveries")
    assert (status, delivered) == (None, False)
    assert "No connection to 127.0.0.1" in error
    assert await state(context) == ("active", 0)


async def test_the_sweep_takes_up_a_callback_that_nobody_tells(context: Context) -> None:
    """Design 5: nothing depends on one message: a process may die between commit and work."""
    async with receiving() as receiver:
        await start(context, receiver)
        await world.sql(context, "DELETE FROM procrastinate_jobs")
        await sweep(context)
        assert await world.sql(context, "SELECT 1 FROM procrastinate_jobs") == [], "not late yet"
        await world.sql(context, "UPDATE events SET created_at = created_at - interval '1 minute'")

        await sweep(context)
        await sweep(context)

    rows = await world.sql(context, "SELECT task_name, args FROM procrastinate_jobs")
    assert rows == [("deliver", {"callback_id": 1})], "once"


async def test_while_a_secret_is_rotated_both_verify(context: Context) -> None:
    """§7: several signatures."""
    old = new_secret()
    async with receiving() as receiver:
        await start(context, receiver)
        await world.sql(
            context, "UPDATE companies SET callback_secrets = callback_secrets || CAST(:old AS text)", old=old
        )
        await deliver(context)

    receiver.told[0].verify(SECRET)
    receiver.told[0].verify(old)


# --- the delivery log ------------------------------------------------------------------------------------------------


async def test_the_log_shows_every_try(ci: Api, context: Context) -> None:
    """Issue 2.10: GET /api/v1/executions/{id}/deliveries."""
    async with receiving(lambda number: 500 if number == 1 else 200) as receiver:
        execution_id = await ci.start(1, params={"callbackUrl": receiver.url})
        await receiver.wait(1)
        await let_time_pass(context)
        await poll(context, "SELECT 1 FROM deliveries WHERE NOT delivered")
        await let_time_pass(context)
        await deliver(context)

        log = (await ci.get(f"/api/v1/executions/{execution_id}/deliveries")).body

    assert [(one["sequence"], one["try"], one["status"], one["delivered"]) for one in log] == [
        (1, 1, 500, False),
        (1, 2, 200, True),
    ]
    first = log[0]
    assert (first["url"], first["type"], first["answer"], first["error"]) == (
        receiver.url,
        "execution.started",
        "noted",
        None,
    )
    assert first["milliseconds"] >= 0


async def poll(context: Context, query: str) -> list[tuple[Any, ...]]:
    """Until the query finds something."""
    async with asyncio.timeout(10):
        while not (rows := await world.sql(context, query)):  # noqa: ASYNC110 (a database tells nobody)
            await asyncio.sleep(0.02)
    return rows


async def test_a_redelivery_sends_the_same_again_and_takes_the_callback_up(ci: Api, context: Context) -> None:
    """Issue 2.10: POST /api/v1/deliveries/{id}/redeliver."""
    worker = await FakeWorker.sign_on(context)
    async with receiving(lambda number: 410 if number == 1 else 200) as receiver:
        execution_id = await ci.start(1, params={"callbackUrl": receiver.url})
        [(delivery_id,)] = await poll(context, "SELECT id FROM deliveries")
        await worker.play(execution_id)

        reply = await ci.post(f"/api/v1/deliveries/{delivery_id}/redeliver")
        await receiver.wait(5)

    assert (reply.status, reply.body["sequence"], reply.body["try"]) == (200, 1, 2)
    assert (reply.body["delivered"], reply.body["status"]) == (True, 200)
    assert receiver.sequences == [1, 1, 2, 3, 4], "and what it missed follows"
    first, again = receiver.told[:2]
    assert (first.raw, first.headers["webhook-id"]) == (again.raw, again.headers["webhook-id"])


async def test_a_redelivery_of_an_old_event_sends_only_that(ci: Api, context: Context) -> None:
    """§7: what follows has arrived already."""
    worker = await FakeWorker.sign_on(context)
    async with receiving() as receiver:
        execution_id = await ci.start(1, params={"callbackUrl": receiver.url})
        await worker.play(execution_id)
        await receiver.wait(4)
        [*_, (delivery_id,)] = await poll(context, "SELECT id FROM deliveries WHERE sequence = 2")

        reply = await ci.post(f"/api/v1/deliveries/{delivery_id}/redeliver")
        await deliver(context)

    assert (reply.body["sequence"], reply.body["try"]) == (2, 2)
    assert receiver.sequences == [1, 2, 3, 4, 2]


async def test_a_redelivery_tells_of_its_own_try_however_many_there_are(context: Context, sign_in: SignIn) -> None:
    """Issue 2.10: also beyond what the log shows at once."""
    async with receiving() as receiver:
        await start(context, receiver)
        ci = await sign_in("ci")
        await poll(context, "SELECT 1 FROM callbacks WHERE delivered = 1")
        await world.sql(
            context,
            """INSERT INTO deliveries (callback_id, sequence, try, delivered, status)
               SELECT 1, 1, 1 + n, false, 500 FROM generate_series(1, 1200) AS n""",
        )

        reply = await ci.post("/api/v1/deliveries/1/redeliver")

    assert (reply.body["try"], reply.body["delivered"]) == (1202, True)


async def test_what_cannot_be_redelivered_says_so(ci: Api, context: Context, sign_in: SignIn) -> None:
    """§2: unknown, another company's, or without PLAN_RUN."""
    await world.put(context, users={"viewer": ["ROLE_USER"]})
    await world.put(context, company="Other", users={"eve": world.RUNNER})
    async with receiving() as receiver:
        await ci.start(1, params={"callbackUrl": receiver.url})
        await poll(context, "SELECT 1 FROM deliveries")

        assert_problem(await (await sign_in("eve")).post("/api/v1/deliveries/1/redeliver"), 404, "Not Found")
        assert_problem(await (await sign_in("viewer")).post("/api/v1/deliveries/1/redeliver"), 403, "Forbidden")
        assert_problem(await ci.post("/api/v1/deliveries/99/redeliver"), 404, "Not Found")
        assert_problem(await ci.post("/api/v1/deliveries/x/redeliver"), 400, "Invalid input data")

    assert receiver.sequences == [1]


def test_the_receivers_helper_notices_a_wrong_signature() -> None:
    """The tests above could not fail otherwise."""
    told = Told({"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": "v1,x"}, json.dumps({}).encode())
    with pytest.raises(WebhookVerificationError):
        told.verify(SECRET)
