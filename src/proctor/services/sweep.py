"""Repairs what a crash left: called every few seconds by each server; one does the work."""

import logging
from datetime import timedelta

from proctor.domain.execution import AttemptState
from proctor.domain.verdict import Level, Outcome, Verdict
from proctor.services import jobs
from proctor.services.context import Context
from proctor.services.dispatch import dispatch
from proctor.store import accounts, claims, environments, outbox
from proctor.store.engine import driver_connection, try_lock

INTERVAL = timedelta(seconds=5)
LATE = timedelta(seconds=30)

_logger = logging.getLogger(__name__)


async def sweep(context: Context) -> None:
    """One round: lost attempts, callbacks that nobody tells, jobs that nobody dispatched."""
    await close_lost(context)
    async with context.store.begin() as tx:
        if await try_lock(tx, "sweep"):
            await context.queue.drop_stalled(await driver_connection(tx))
            overdue = await outbox.overdue_callbacks(tx, LATE)
            await context.queue.defer_deliveries(await driver_connection(tx), overdue)
            await environments.remove_dead_workers(tx)
            await accounts.forget_old(tx)
    await dispatch(context)


async def close_lost(context: Context) -> int:
    """Closes attempts whose worker has not renewed its lease; their jobs are tried again elsewhere."""
    async with context.store.begin() as tx:
        lost = await claims.list_lost(tx)
    for attempt in lost:
        verdict = Verdict(Outcome.INFRASTRUCTURE, Level.ERROR, _explain(attempt.state))
        async with context.store.begin() as tx:
            result = jobs.Result(verdict, state=AttemptState.LOST)
            level = await jobs.finish_attempt(tx, context.queue, attempt.fence, result)
        _logger.warning("attempt %s was lost; its job is now %s", attempt.fence.attempt_id, level)
    return len(lost)


def _explain(state: AttemptState) -> str:
    if state is AttemptState.LEASED:
        return "No worker took the test up in time: check that the workers run."
    return "The worker that ran the test was lost: it has not been heard of for a minute."
