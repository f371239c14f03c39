"""Procrastinate: carries attempts to workers and callbacks to their sender."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import procrastinate
from procrastinate import jobs
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker
from psycopg import AsyncConnection

from proctor.errors import QueueStopped

RUN_ATTEMPT = "run_attempt"
DELIVER = "deliver"
CALLBACKS_QUEUE = "callbacks"

RECONNECT_INTERVAL = 1.0  # seconds
POLL_INTERVAL = 1.0  # seconds

_logger = logging.getLogger(__name__)

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
        self._app = procrastinate.App(connector=_Connector(conninfo=url, min_size=1, max_size=4))
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
            await self._app.job_manager.cancel_job_by_id_async(number, abort=True, delete_job=True)

    async def drop_stalled(self, connection: AsyncConnection[Any]) -> int:
        """Drops the queue's jobs whose worker died; their leases say what happens to the work. Gives their number.

        One statement: what a worker that comes back finishes meanwhile is not there any more, and no error.
        """
        dropped = await connection.execute(
            """DELETE FROM procrastinate_jobs j WHERE j.status = 'doing' AND NOT EXISTS (
                   SELECT 1 FROM procrastinate_workers w
                   WHERE w.id = j.worker_id AND w.last_heartbeat > now() - interval '30 s')"""
        )
        return dropped.rowcount

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
        worker = _Worker(
            app=self._app,
            queues=list(queues),
            name=name,
            concurrency=concurrency,
            install_signal_handlers=False,
            listen_notify=True,
            # Upstream forgets a notification that comes while it fetches, and does not look again when a lock is freed.
            fetch_job_polling_interval=POLL_INTERVAL,
            delete_jobs="always",
            shutdown_graceful_timeout=grace,
        )
        await worker.run()  # type: ignore[no-untyped-call]  # untyped upstream
        raise QueueStopped("The queue's worker has ended; what is above says why.")


class _Connector(procrastinate.PsycopgConnector):
    """Listens again after the database went away; upstream's listener ends with the first connection refused."""

    async def listen_notify(self, on_notification: Any, channels: Any) -> None:
        while True:
            try:
                await super().listen_notify(on_notification=on_notification, channels=channels)
            except ConnectorException as error:
                _logger.warning("the queue's listener lost the database: %s", error.__cause__ or error)
                await asyncio.sleep(RECONNECT_INTERVAL)


class _Worker(Worker):
    """Procrastinate 3.10's worker, whose side tasks outlive a short absence of the database, or end it loudly."""

    async def _periodic_deferrer(self) -> None:
        # Nothing is periodic here. Upstream's returns at once, and the monitor watches the first task to end only.
        await asyncio.Event().wait()

    async def _update_heartbeat(self) -> None:
        while True:
            try:
                await super()._update_heartbeat()  # type: ignore[no-untyped-call]  # untyped upstream
            except ConnectorException as error:
                _logger.warning("the queue's heartbeat did not reach the database: %s", error.__cause__ or error)
