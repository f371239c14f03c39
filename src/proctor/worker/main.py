"""A worker: takes attempts from its queues, keeps their leases, and ends them when it ends."""

import asyncio
import logging
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import psutil

from proctor.domain.execution import Fence
from proctor.errors import WorkerForgotten
from proctor.ports.hubs.local import LocalHub
from proctor.ports.queue import RUN_ATTEMPT
from proctor.ports.sandbox import PlainSandbox, Sandbox, choose_sandbox
from proctor.ports.source import GitSource
from proctor.recorder.proxy import Recorder
from proctor.services.context import Context
from proctor.services.dispatch import dispatch
from proctor.services.sweep import close_lost
from proctor.settings import Settings
from proctor.store import claims, environments
from proctor.store.engine import DatabaseError, Tx
from proctor.worker.attempt import Bench, run_attempt
from proctor.worker.workspace import Workspaces, remove_tree

_logger = logging.getLogger(__name__)

HEARTBEAT = timedelta(seconds=10)
# A lease lasts 60 s: what could not be renewed for so long is ended here before anybody else may start it.
GIVE_UP_AFTER = timedelta(seconds=45)
# What a stopping worker lets its attempts have to end by themselves.
GRACE = 0.5


@dataclass
class Running:
    """The attempts that this worker runs now."""

    tasks: dict[Fence, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self, bench: Bench, attempt_id: int, epoch: int) -> None:
        """The queue's handler: cancelling it cancels the attempt, which still hands in what it has."""
        fence = Fence(attempt_id, epoch)
        task = asyncio.ensure_future(run_attempt(bench, fence))
        self.tasks[fence] = task
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            del self.tasks[fence]

    def cancel(self, fences: set[Fence]) -> None:
        for fence in fences:
            if fence in self.tasks:
                self.tasks[fence].cancel()


async def work(context: Context) -> None:
    """Runs a worker until it is cancelled."""
    async with _open_bench(context) as bench:
        running = Running()
        async with asyncio.TaskGroup() as group:
            group.create_task(_beat_forever(bench, running))
            group.create_task(_take_forever(bench, running))


@asynccontextmanager
async def _open_bench(context: Context) -> AsyncIterator[Bench]:
    settings = context.settings
    # Mirrors and trees of private repositories: for nobody else on this machine.
    settings.work_folder.mkdir(parents=True, exist_ok=True)
    settings.work_folder.chmod(0o700)
    hub = LocalHub(settings.hub, settings.browser_slots, hidden=[settings.data])
    sandbox = await _choose(settings)
    source = GitSource(settings.work_folder / "mirrors")
    attempts = settings.work_folder / "attempts" / f"{socket.gethostname()}-{os.getpid()}"
    await asyncio.to_thread(_remove_left_behind, settings)
    attempts.mkdir(parents=True, exist_ok=True)
    worker_id = await _register(context, hub)
    try:
        async with Recorder() as recorder:
            workspaces = Workspaces(settings.work_folder, source, sandbox, hidden=[settings.data])
            yield Bench(context, worker_id, hub, recorder, source, workspaces, sandbox, attempts)
    finally:
        await _unregister(context, worker_id)
        await asyncio.to_thread(remove_tree, attempts)


async def _register(context: Context, hub: LocalHub) -> int:
    """Says that this worker is there and what its hub offers, and takes up what waited for it."""
    offers = await hub.offers()
    async with context.store.begin() as tx:
        # A killed worker of this machine is known to be gone: nobody need wait for its leases to run out.
        gone = [name for name in await environments.list_workers(tx, f"{socket.gethostname()}-") if _is_gone(name)]
        await claims.expire(tx, gone)
        hub_id = await environments.put_hub(tx, hub.name, "local")
        await environments.set_offers(tx, hub_id, offers, context.settings.browser_slots)
        worker_id = await _beat(tx, context.settings, hub_id)
    await close_lost(context)
    await dispatch(context)
    return worker_id


async def _unregister(context: Context, worker_id: int) -> None:
    try:
        async with context.store.begin() as tx:
            await environments.remove_worker(tx, worker_id)
    except DatabaseError as error:
        # Its heartbeat ends with it, which says the same half a minute later.
        _logger.warning("the worker could not sign off: %s", error)


async def _beat(tx: Tx, settings: Settings, hub_id: int) -> int:
    name = f"{socket.gethostname()}-{os.getpid()}"
    queues = [*settings.queues.split(","), environments.hub_queue(settings.hub)]
    return await environments.beat(tx, name=name, queues=queues, concurrency=settings.workers_at_once, hub_id=hub_id)


async def _beat_forever(bench: Bench, running: Running) -> None:
    """Renews the worker and its leases; ends attempts that are no longer its own, or that it cannot renew."""
    loop = asyncio.get_running_loop()
    renewed_at = loop.time()
    while True:
        await bench.context.clock.sleep(HEARTBEAT)
        try:
            await _renew(bench, running)
            renewed_at = loop.time()
        except DatabaseError as error:
            _logger.warning("the leases could not be renewed: %s", error)
            if loop.time() - renewed_at > (GIVE_UP_AFTER - HEARTBEAT).total_seconds():
                running.cancel(set(running.tasks))


async def _renew(bench: Bench, running: Running) -> None:
    fences = list(running.tasks)
    async with bench.context.store.begin() as tx:
        hub_id = await environments.put_hub(tx, bench.hub.name, "local")
        if await _beat(tx, bench.context.settings, hub_id) != bench.worker_id:
            raise WorkerForgotten("This worker was taken for gone while it was away; it starts anew.")
        own = await claims.renew(tx, bench.worker_id, fences) if fences else set()
    running.cancel({fence for fence in fences if fence.attempt_id not in own})


async def _take_forever(bench: Bench, running: Running) -> None:
    settings = bench.context.settings
    handlers = {RUN_ATTEMPT: partial(running.run, bench)}
    await bench.context.queue.run(
        handlers,
        queues=[*settings.queues.split(","), environments.hub_queue(settings.hub)],
        concurrency=settings.workers_at_once,
        name=f"worker-{os.getpid()}",
        grace=GRACE,
    )


async def _choose(settings: Settings) -> Sandbox:
    if settings.sandbox == "none":
        return PlainSandbox("Test code runs unconfined, because PROCTOR_SANDBOX is none.")
    sandbox = await choose_sandbox()
    if sandbox.warning:
        _logger.warning(sandbox.warning)
    return sandbox


def _remove_left_behind(settings: Settings) -> None:
    """Folders of attempts whose worker on this machine was killed."""
    for folder in (settings.work_folder / "attempts").glob(f"{socket.gethostname()}-*"):
        if _is_gone(folder.name):
            try:
                remove_tree(folder)
            except subprocess.SubprocessError as error:
                # What cannot be removed must not keep the worker from its work.
                _logger.error("the folder %s of a killed worker could not be removed: %s", folder, error)


def _is_gone(name: str) -> bool:
    """Whether the process of a worker of this machine has ended; its name ends with its process id."""
    pid = name.rpartition("-")[2]
    return pid.isdigit() and not psutil.pid_exists(int(pid))
