"""Events, written in the transaction of the change that they tell, and what became of telling them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from proctor.domain.events import EventType
from proctor.store.engine import Tx, json_value, notify

# Listeners get the execution's id.
CHANNEL = "proctor_execution"


@dataclass(frozen=True)
class Event:
    """One event of an execution; `data` is the snapshot that the callback's body is made from."""

    execution_id: int
    sequence: int
    type: EventType
    data: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class Callback:
    """Somebody who wants to be told of an execution: `delivered` is the last event that arrived there."""

    id: int
    execution_id: int
    company_id: int
    url: str
    state: str
    delivered: int
    tries: int
    due: bool


@dataclass(frozen=True)
class Delivery:
    """One try at telling; `status` is the receiver's HTTP status, `error` why there was none."""

    id: int
    callback_id: int
    url: str
    sequence: int
    type: str
    try_: int
    delivered: bool
    status: int | None
    error: str | None
    answer: str
    milliseconds: int
    sent_at: datetime


async def add_event(tx: Tx, execution_id: int, type_: EventType, data: Mapping[str, Any]) -> int:
    """Writes the next event of the execution and wakes who listens; gives its number.

    The update of the execution's row puts events of one execution in one order, without gaps.
    """
    sequence = int(
        (
            await tx.execute(
                text(
                    """WITH next AS (
                           UPDATE executions SET sequence = sequence + 1 WHERE id = :execution RETURNING sequence)
                       INSERT INTO events (execution_id, sequence, type, data)
                       SELECT :execution, sequence, :type, :data FROM next RETURNING sequence"""
                ).bindparams(json_value("data", dict(data))),
                {"execution": execution_id, "type": type_.value},
            )
        ).scalar_one()
    )
    await wake(tx, execution_id)
    return sequence


async def add_test_events(tx: Tx, execution_id: int, job_ids: Sequence[int], levels: Mapping[str, int]) -> None:
    """Writes a `test.finished` for each job, in one statement: stopping a large plan must not take seconds."""
    await tx.execute(
        text(
            """WITH e AS (
                   UPDATE executions SET sequence = sequence + :number WHERE id = :execution
                   RETURNING sequence - :number AS before)
               INSERT INTO events (execution_id, sequence, type, data)
               SELECT :execution, e.before + t.position, :type,
                      jsonb_build_object('job_id', t.job_id, 'levels', CAST(:levels AS jsonb))
               FROM e, unnest(CAST(:jobs AS bigint[])) WITH ORDINALITY AS t(job_id, position)"""
        ).bindparams(json_value("levels", dict(levels))),
        {
            "execution": execution_id,
            "number": len(job_ids),
            "type": EventType.TEST_FINISHED.value,
            "jobs": list(job_ids),
        },
    )
    await wake(tx, execution_id)


async def wake(tx: Tx, execution_id: int) -> None:
    """Tells whoever shows the execution that it changed."""
    await notify(tx, CHANNEL, str(execution_id))


async def list_events(tx: Tx, execution_id: int, *, after: int, limit: int = 500) -> list[Event]:
    rows = await tx.execute(
        text(
            """SELECT execution_id, sequence, type, data, created_at FROM events
               WHERE execution_id = :execution AND sequence > :after ORDER BY sequence LIMIT :limit"""
        ),
        {"execution": execution_id, "after": after, "limit": limit},
    )
    return [Event(row.execution_id, row.sequence, EventType(row.type), row.data, row.created_at) for row in rows]


# --- callbacks -------------------------------------------------------------------------------------------------------


async def add_callback(tx: Tx, execution_id: int, url: str) -> int | None:
    """Adds a receiver; None when the execution has it already."""
    row = await tx.execute(
        text(
            """INSERT INTO callbacks (execution_id, url) VALUES (:execution, :url)
               ON CONFLICT (execution_id, url) DO NOTHING RETURNING id"""
        ),
        {"execution": execution_id, "url": url},
    )
    return row.scalar_one_or_none()


async def callbacks_of(tx: Tx, execution_id: int) -> list[int]:
    """The ids of those that are still to be told."""
    rows = await tx.execute(
        text("SELECT id FROM callbacks WHERE execution_id = :execution AND state = 'active' ORDER BY id"),
        {"execution": execution_id},
    )
    return [row.id for row in rows]


async def find_callback(tx: Tx, callback_id: int) -> Callback | None:
    row = (
        await tx.execute(
            text(
                """SELECT c.id, c.execution_id, e.company_id, c.url, c.state, c.delivered, c.tries,
                          c.next_try_at IS NULL OR c.next_try_at <= proctor_now() + interval '100 ms' AS due
                   FROM callbacks c JOIN executions e ON e.id = c.execution_id WHERE c.id = :id"""
            ),
            {"id": callback_id},
        )
    ).one_or_none()
    return Callback(**row._mapping) if row else None


async def overdue_callbacks(tx: Tx, late: timedelta) -> list[int]:
    """Callbacks with something to tell that nobody tells, because a process died between commit and work."""
    rows = await tx.execute(
        text(
            """SELECT c.id FROM callbacks c JOIN executions e ON e.id = c.execution_id
               WHERE c.state = 'active' AND c.delivered < e.sequence
                 AND coalesce(c.next_try_at, (SELECT created_at FROM events v WHERE v.execution_id = e.id
                     AND v.sequence = c.delivered + 1)) < proctor_now() - CAST(:late AS interval)
                 AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs j WHERE j.task_name = 'deliver'
                     AND j.status IN ('todo', 'doing') AND (j.args ->> 'callback_id')::bigint = c.id)"""
        ),
        {"late": late},
    )
    return [row.id for row in rows]


async def add_delivery(
    tx: Tx,
    callback: Callback,
    sequence: int,
    *,
    delivered: bool,
    status: int | None,
    error: str | None,
    answer: str,
    runtime: timedelta,
) -> int:
    row = await tx.execute(
        text(
            """INSERT INTO deliveries (callback_id, sequence, try, delivered, status, error, answer, milliseconds)
               SELECT :callback, :sequence, 1 + count(*), :delivered, :status, :error, :answer, :milliseconds
               FROM deliveries WHERE callback_id = :callback AND sequence = :sequence RETURNING id"""
        ),
        {
            "callback": callback.id,
            "sequence": sequence,
            "delivered": delivered,
            "status": status,
            "error": error,
            "answer": answer.replace("\0", ""),
            "milliseconds": round(runtime.total_seconds() * 1000),
        },
    )
    return int(row.scalar_one())


async def set_delivered(tx: Tx, callback_id: int, sequence: int) -> None:
    """Moves on to the next event; a redelivery of an earlier one changes nothing."""
    await tx.execute(
        text(
            """UPDATE callbacks SET delivered = :sequence, tries = 0, next_try_at = NULL
               WHERE id = :id AND delivered = :sequence - 1"""
        ),
        {"id": callback_id, "sequence": sequence},
    )


async def set_next_try(tx: Tx, callback_id: int, wait: timedelta) -> datetime:
    row = await tx.execute(
        text(
            """UPDATE callbacks SET tries = tries + 1, next_try_at = proctor_now() + CAST(:wait AS interval)
               WHERE id = :id RETURNING next_try_at"""
        ),
        {"id": callback_id, "wait": wait},
    )
    when: datetime = row.scalar_one()
    return when


async def set_callback_state(tx: Tx, callback_id: int, state: str) -> None:
    await tx.execute(text("UPDATE callbacks SET state = :state WHERE id = :id"), {"id": callback_id, "state": state})


async def restart_callback(tx: Tx, callback_id: int) -> None:
    """Takes up a callback again that was given up."""
    await tx.execute(
        text("UPDATE callbacks SET state = 'active', tries = 0, next_try_at = NULL WHERE id = :id"),
        {"id": callback_id},
    )


_DELIVERY = """SELECT d.id, d.callback_id, c.url, d.sequence, v.type, d.try AS try_, d.delivered, d.status, d.error,
    d.answer, d.milliseconds, d.sent_at, c.execution_id
    FROM deliveries d JOIN callbacks c ON c.id = d.callback_id
    JOIN events v ON v.execution_id = c.execution_id AND v.sequence = d.sequence"""


async def list_deliveries(tx: Tx, execution_id: int, *, limit: int = 1000) -> list[Delivery]:
    """The tries of an execution's callbacks, the oldest first."""
    rows = await tx.execute(
        text(f"{_DELIVERY} WHERE c.execution_id = :execution ORDER BY d.id LIMIT :limit"),
        {"execution": execution_id, "limit": limit},
    )
    return [Delivery(*row[:12]) for row in rows]


async def find_delivery(tx: Tx, delivery_id: int) -> tuple[Delivery, int] | None:
    """The try and its execution's id."""
    row = (await tx.execute(text(f"{_DELIVERY} WHERE d.id = :id"), {"id": delivery_id})).one_or_none()
    return (Delivery(*row[:12]), row.execution_id) if row else None


async def pending_callbacks(tx: Tx, execution_ids: Sequence[int]) -> int:
    """How many callbacks of these executions still have something to tell."""
    row = await tx.execute(
        text(
            """SELECT count(*) FROM callbacks c JOIN executions e ON e.id = c.execution_id
               WHERE c.execution_id = ANY(:ids) AND c.state = 'active' AND c.delivered < e.sequence"""
        ),
        {"ids": list(execution_ids)},
    )
    return int(row.scalar_one())
