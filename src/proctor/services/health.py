"""Whether Proctor can do its work."""

from proctor.services.context import Context
from proctor.store.environments import has_live_worker


async def check(context: Context) -> dict[str, bool]:
    """Database, queue and worker, each working or not."""
    if not await context.store.answers():
        return {"database": False, "queue": False, "worker": False}
    async with context.store.begin() as tx:
        worker = await has_live_worker(tx)
    return {"database": True, "queue": await context.queue.ping(), "worker": worker}
