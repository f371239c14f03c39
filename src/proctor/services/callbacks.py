"""Tells callers how their executions go: in order, signed, again until it arrives or nobody wants it."""

import json
import random
from typing import Any

from proctor.domain import wire
from proctor.domain.delivery import Judgement, judge_answer, next_try
from proctor.domain.events import EventType
from proctor.domain.execution import Counts, ExecutionRecord
from proctor.domain.permission import Permission
from proctor.domain.verdict import Level
from proctor.errors import Forbidden, NotFound
from proctor.ports.sender import Answer
from proctor.services.accounts import Caller
from proctor.services.context import Context
from proctor.store import accounts, executions, outbox
from proctor.store.engine import Tx, driver_connection
from proctor.store.outbox import Callback, Delivery, Event


async def deliver(context: Context, callback_id: int) -> None:
    """Tells a callback all that it was not told, event after event, until one does not arrive."""
    while True:
        async with context.store.begin() as tx:
            callback = await outbox.find_callback(tx, callback_id)
            if callback is None or callback.state != "active" or not callback.due:
                return
            event = next(
                iter(await outbox.list_events(tx, callback.execution_id, after=callback.delivered, limit=1)), None
            )
            if event is None:
                return
            body = await _body(tx, event)
            secrets = await accounts.callback_secrets(tx, callback.company_id)
        answer = await context.sender.send(callback.url, body, webhook_id=_webhook_id(event), secrets=secrets)
        async with context.store.begin() as tx:
            if not await _conclude(context, tx, callback, event, answer):
                return


async def redeliver(context: Context, caller: Caller, delivery_id: int) -> Delivery:
    """Sends an event once more, and takes up a callback again that was given up; gives the new try."""
    async with context.store.begin() as tx:
        found = await outbox.find_delivery(tx, delivery_id)
        execution = await executions.find_execution(tx, found[1], caller.scope) if found else None
        if found is None or execution is None:
            raise NotFound(f"There is no delivery {delivery_id} in your companies.")
        if not caller.may(Permission.PLAN_RUN, execution.company_id):
            raise Forbidden("Your roles do not include PLAN_RUN in the company of this delivery.")
        delivery, execution_id = found
        callback = await outbox.find_callback(tx, delivery.callback_id)
        event = (await outbox.list_events(tx, execution_id, after=delivery.sequence - 1, limit=1))[0]
        assert callback is not None  # noqa: S101 (the delivery refers to it)
        body = await _body(tx, event)
        secrets = await accounts.callback_secrets(tx, callback.company_id)
    answer = await context.sender.send(callback.url, body, webhook_id=_webhook_id(event), secrets=secrets)
    async with context.store.begin() as tx:
        arrived = judge_answer(answer.status) is Judgement.DELIVERED
        made = await outbox.find_delivery(tx, await _note(tx, callback, event, answer, arrived))
        if arrived:
            await outbox.restart_callback(tx, callback.id)
            await outbox.set_delivered(tx, callback.id, event.sequence)
            await context.queue.defer_deliveries(await driver_connection(tx), [callback.id], first=True)
        assert made is not None  # noqa: S101 (it was just written)
        return made[0]


async def _conclude(context: Context, tx: Tx, callback: Callback, event: Event, answer: Answer) -> bool:
    """Writes down what came of a try; True when the next event may go."""
    judgement = judge_answer(answer.status)
    await _note(tx, callback, event, answer, judgement is Judgement.DELIVERED)
    if judgement is Judgement.DELIVERED:
        await outbox.set_delivered(tx, callback.id, event.sequence)
        return True
    wait = next_try(callback.tries + 1, answer.retry_after, random.random())
    if judgement is Judgement.GONE:
        await outbox.set_callback_state(tx, callback.id, "gone")
    elif wait is None:
        await outbox.set_callback_state(tx, callback.id, "exhausted")
    else:
        at = await outbox.set_next_try(tx, callback.id, wait)
        await context.queue.defer_deliveries(await driver_connection(tx), [callback.id], at=at)
    return False


async def _note(tx: Tx, callback: Callback, event: Event, answer: Answer, arrived: bool) -> int:
    return await outbox.add_delivery(
        tx,
        callback,
        event.sequence,
        delivered=arrived,
        status=answer.status,
        error=answer.error,
        answer=answer.body,
        runtime=answer.runtime,
    )


def _webhook_id(event: Event) -> str:
    """The same on every retry, so that a receiver can tell a repetition."""
    return f"evt_{event.execution_id}_{event.sequence}"


async def _body(tx: Tx, event: Event) -> bytes:
    """The body of contract §7; made from what cannot change any more, so that every try sends the same bytes."""
    execution = await executions.find_execution(tx, event.execution_id, None)
    assert execution is not None  # noqa: S101 (the event refers to it)
    levels = {Level(name): number for name, number in event.data["levels"].items()}
    data: dict[str, Any] = {"sequence": event.sequence, "execution": _execution(execution, event, levels)}
    if event.type is EventType.TEST_FINISHED:
        job = await executions.find_job(tx, event.data["job_id"], None)
        assert job is not None  # noqa: S101
        data["test_result"] = wire.result_e(job, job.base_url)
    body = {"type": event.type.value, "timestamp": wire.iso(event.created_at), "data": data}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def _execution(execution: ExecutionRecord, event: Event, levels: dict[Level, int]) -> dict[str, Any]:
    counts = Counts.of(levels)
    ended = event.type is EventType.EXECUTION_FINISHED
    fields = wire.execution_fields(execution)
    if not ended:
        fields.pop("end_date", None)
    return {
        **fields,
        "result_summary": wire.summary(counts),
        "test_result_status_counts": wire.status_counts(counts),
        "plan_name": execution.plan_name,
        "project_name": execution.project_name,
        "status": counts.verdict.value if ended else "RUNNING",
        "url": f"{execution.base_url}/executions/{execution.id}",
        "counts": {
            "total": counts.total,
            "waiting": counts.waiting,
            "running": counts.running,
            "ended": counts.ended,
        },
    }
