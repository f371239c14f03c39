"""Gives waiting jobs to workers: called in passing by whoever changed something, and by the sweep."""

from proctor.domain.placement import Placement, Snapshot, place
from proctor.ports.queue import AttemptMessage
from proctor.services.context import Context
from proctor.store import claims, environments
from proctor.store.engine import Tx, driver_connection, lock
from proctor.store.outbox import wake


async def dispatch(context: Context) -> int:
    """Leases what can start now and defers it; gives how many attempts that were."""
    async with context.store.begin() as tx:
        # One at a time: two that read the same room would both fill it.
        await lock(tx, "dispatch")
        placements = place(await _look(tx))
        if placements:
            await _lease(context, tx, placements)
        return len(placements)


async def _look(tx: Tx) -> Snapshot:
    workers = await environments.list_worker_rooms(tx)
    room = sum(max(worker.room, 0) for worker in workers)
    if room == 0:
        return Snapshot((), (), workers)
    rooms, waiting = await claims.list_waiting(tx, room)
    if not waiting:
        return Snapshot((), (), workers)
    hubs = await environments.list_hub_rooms(tx) if any(job.environment for job in waiting) else []
    return Snapshot(rooms, waiting, workers, hubs)


async def _lease(context: Context, tx: Tx, placements: list[Placement]) -> None:
    leases = await claims.lease(tx, placements)
    if not leases:
        return
    messages = [AttemptMessage(lease.fence.attempt_id, lease.fence.epoch, lease.queue) for lease in leases]
    numbers = await context.queue.defer_attempts(await driver_connection(tx), messages)
    await claims.set_queue_jobs(tx, numbers)
    for execution_id in {lease.execution_id for lease in leases}:
        await wake(tx, execution_id)
