"""Procrastinate: carries attempts to workers and callbacks to their sender."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import procrastinate
from procrastinate import jobs
from procrastinate.exceptions import ConnectorException
from psycopg import AsyncConnection

from proctor.errors import QueueStopped

RUN_ATTEMPT = "run_attempt"
DELIVER = "deliver"
CALLBACKS_QUEUE = "callbacks"

Handler = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class AttemptMessage:
    """Which attempt to run, in which queue; the epoch is the fence."""

    attempt_id: int
    epoch: int
    queue: str


class Queue:
    """Defers within the caller's transaction, so that what is deferred and what was decided stand or fall together."""

    def __init__(self, url: str) -> None:
        self._app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=1, max_size=4))
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Queue":
        await self._stack.enter_async_context(self._app.open_async())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def defer_attempts(
        self, connection: AsyncConnection[Any], messages: Sequence[AttemptMessage]
    ) -> dict[int, int]:
        """Hands attempts to workers; gives the queue's number of each by attempt."""
        deferred = await self._app.job_manager.batch_defer_jobs_async(
            jobs=[
                jobs.Job(
                    id=None,
                    queue=message.queue,
                    lock=None,
                    queueing_lock=None,
                    task_name=RUN_ATTEMPT,
                    task_kwargs={"attempt_id": message.attempt_id, "epoch": message.epoch},
                )
                for message in messages
            ],
            connection=connection,
        )
        numbers = [job.id for job in deferred if job.id is not None]
        return {message.attempt_id: number for message, number in zip(messages, numbers, strict=True)}

    async def defer_deliveries(
        self,
        connection: AsyncConnection[Any],
        callback_ids: Sequence[int],
        *,
        at: datetime | None = None,
        first: bool = False,
    ) -> None:
        """Has the callbacks told what is new. One lock each: deliveries of a callback go one after the other.

        `first` passes by one that waits for a later time.
        """
        if not callback_ids:
            return
        await self._app.job_manager.batch_defer_jobs_async(
            jobs=[
                jobs.Job(
                    id=None,
                    queue=CALLBACKS_QUEUE,
                    lock=f"callback:{callback_id}",
                    queueing_lock=None,
                    task_name=DELIVER,
                    task_kwargs={"callback_id": callback_id},
                    priority=1 if first else 0,
                    scheduled_at=at,
                )
                for callback_id in callback_ids
            ],
            connection=connection,
        )

    async def cancel(self, numbers: Sequence[int]) -> None:
        """Asks whoever runs these to stop; what nobody runs yet is taken away."""
        for number in numbers:
            await self._app.job_manager.cancel_job_by_id_async(number, abort=True, delete_job=False)

    async def drop_stalled(self) -> int:
        """Ends the queue's jobs whose worker died; their leases say what happens to the work. Gives their number."""
        stalled = list(await self._app.job_manager.get_stalled_jobs())
        for job in stalled:
            await self._app.job_manager.finish_job(job=job, status=jobs.Status.FAILED, delete_job=True)
        return len(stalled)

    async def ping(self) -> bool:
        try:
            return bool(await self._app.check_connection_async())
        except ConnectorException:
            return False

    async def run(
        self,
        handlers: Mapping[str, Handler],
        *,
        queues: Sequence[str],
        concurrency: int,
        name: str,
        grace: float,
    ) -> None:
        """Takes jobs until it is cancelled; then waits `grace` seconds for those that run, and aborts them.

        Raises QueueStopped when it ends by itself, as it does when the database goes away.
        """
        for task_name, handler in handlers.items():
            self._app.task(name=task_name)(handler)
        await self._app.run_worker_async(
            queues=list(queues),
            name=name,
            concurrency=concurrency,
            install_signal_handlers=False,
            listen_notify=True,
            delete_jobs="always",
            shutdown_graceful_timeout=grace,
        )
        raise QueueStopped("The queue's worker has ended; what is above says why.")
