"""The one place where jobs, attempts and executions change state. Each change writes its event beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proctor.domain.events import EventType
from proctor.domain.execution import AttemptState, Counts, ExecutionState, Fence
from proctor.domain.retry import Spent, next_level
from proctor.domain.verdict import Case, Level, Outcome, Verdict
from proctor.ports.queue import Queue
from proctor.store import claims, executions, outbox
from proctor.store.engine import Tx, driver_connection

STOPPED_MESSAGE = "Stopped before it ended, because the plan was stopped."
NEVER_STARTED_MESSAGE = "Never started, because the plan was stopped."


@dataclass(frozen=True)
class Result:
    """How an attempt ended, and what it left."""

    verdict: Verdict
    state: AttemptState = AttemptState.DONE
    cases: Sequence[Case] = ()
    session_id: str | None = None
    artifacts: Mapping[str, int] = field(default_factory=dict)


async def finish_attempt(tx: Tx, queue: Queue, fence: Fence, result: Result) -> Level | None:
    """Ends the attempt and moves its job on; gives the job's new level, or None when the fence is lost."""
    place = await claims.find_place(tx, fence)
    if place is None:
        return None
    # The execution's row first, wherever jobs end: one order of locks, and one order of events.
    state = await executions.lock_execution(tx, place.execution_id)
    ended = await claims.end_attempt(
        tx, fence, result.state, result.verdict, session_id=result.session_id, artifacts=result.artifacts
    )
    if not ended:
        return None
    await claims.add_cases(tx, fence, result.cases)
    stopping = state is ExecutionState.STOPPING
    infrastructure = result.verdict.outcome is Outcome.INFRASTRUCTURE and not stopping
    spent = Spent(place.attempts, place.infrastructure + (1 if infrastructure else 0))
    level = next_level(result.verdict, spent, place.retries, stopping=stopping)
    message = STOPPED_MESSAGE if level is Level.STOPPED else result.verdict.message
    moved = await executions.set_job_level(tx, place.job_id, fence.epoch, level, message, infrastructure=infrastructure)
    if moved and level is not Level.WAITING:
        await tell_ended_jobs(tx, queue, place.execution_id, [place.job_id])
    await outbox.wake(tx, place.execution_id)
    return level


async def tell_ended_jobs(tx: Tx, queue: Queue, execution_id: int, job_ids: Sequence[int]) -> None:
    """Writes an event for each job that ended, and ends the execution with its last job."""
    levels = await executions.count_levels(tx, execution_id)
    await outbox.add_test_events(tx, execution_id, job_ids, _plain(levels))
    counts = Counts.of(levels)
    if counts.finished and await executions.set_finished(tx, execution_id, counts.verdict):
        await outbox.add_event(tx, execution_id, EventType.EXECUTION_FINISHED, {"levels": _plain(levels)})
    await tell_callbacks(tx, queue, execution_id)


async def tell_started(tx: Tx, queue: Queue, execution_id: int) -> None:
    levels = await executions.count_levels(tx, execution_id)
    await outbox.add_event(tx, execution_id, EventType.EXECUTION_STARTED, {"levels": _plain(levels)})
    await tell_callbacks(tx, queue, execution_id)


async def tell_callbacks(tx: Tx, queue: Queue, execution_id: int, *, first: bool = False) -> None:
    """Has the execution's callbacks told, once this transaction is committed."""
    callback_ids = await outbox.callbacks_of(tx, execution_id)
    if callback_ids:
        await queue.defer_deliveries(await driver_connection(tx), callback_ids, first=first)


async def stop_execution(tx: Tx, queue: Queue, execution_id: int) -> list[int]:
    """Ends what waits, turns the rest to TERMINATING; gives the queue's numbers to cancel after the commit."""
    await executions.lock_execution(tx, execution_id)
    if not await executions.set_stopping(tx, execution_id):
        return []
    ended = await executions.end_waiting_jobs(tx, execution_id, NEVER_STARTED_MESSAGE)
    numbers = await executions.terminate_jobs(tx, execution_id)
    if ended:
        await tell_ended_jobs(tx, queue, execution_id, ended)
    stopped = Verdict(Outcome.INFRASTRUCTURE, Level.STOPPED, STOPPED_MESSAGE)
    for fence in await claims.list_leased(tx, execution_id):
        # Nobody has taken it: nobody would end it.
        await finish_attempt(tx, queue, fence, Result(stopped, state=AttemptState.CANCELLED))
    await outbox.wake(tx, execution_id)
    return numbers


def _plain(levels: Mapping[Level, int]) -> dict[str, int]:
    return {level.value: number for level, number in levels.items()}
