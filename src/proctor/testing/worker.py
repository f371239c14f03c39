"""A worker that runs nothing: it takes what dispatch leased and ends it as the test says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from proctor.domain.environment import Offer, Stereotype
from proctor.domain.execution import Fence
from proctor.domain.placement import JOBS_QUEUE
from proctor.domain.verdict import Case, Level, Outcome, Verdict
from proctor.services import jobs
from proctor.services.context import Context
from proctor.services.dispatch import dispatch
from proctor.store import claims, environments
from proctor.store.claims import AttemptTask

PASSED = Verdict(Outcome.PASSED, Level.SUCCESS)
FAILED = Verdict(Outcome.FAILED, Level.FAILURE, "assert 1 == 2")
BROKEN = Verdict(Outcome.BROKEN, Level.ERROR, "The test left no report.")
MACHINERY = Verdict(Outcome.INFRASTRUCTURE, Level.ERROR, "The browser's driver died.")

Judge = Callable[[AttemptTask], Verdict]


@dataclass(frozen=True)
class FakeWorker:
    """As a worker looks in the database: a heartbeat, attempts that it began, results that it handed in."""

    context: Context
    id: int
    hub_id: int | None

    @classmethod
    async def sign_on(
        cls,
        context: Context,
        name: str = "fake",
        *,
        concurrency: int = 100,
        hub: str | None = None,
        browsers: Sequence[Stereotype] = (),
        slots: int = 4,
    ) -> "FakeWorker":
        """With a `hub`, its environments are available while the worker's heartbeat is fresh (35 s)."""
        queues = [JOBS_QUEUE] if hub is None else [JOBS_QUEUE, environments.hub_queue(hub)]
        hub_id = None
        async with context.store.begin() as tx:
            if hub is not None:
                hub_id = await environments.put_hub(tx, hub, "local")
                await environments.set_offers(tx, hub_id, [Offer(one, slots) for one in browsers], slots)
            worker_id = await environments.beat(tx, name=name, queues=queues, concurrency=concurrency, hub_id=hub_id)
        await dispatch(context)
        return cls(context, worker_id, hub_id)

    async def sign_off(self) -> None:
        async with self.context.store.begin() as tx:
            await environments.remove_worker(tx, self.id)

    async def take(self, execution_id: int) -> list[AttemptTask]:
        """Begins every attempt of the execution that nobody has taken."""
        async with self.context.store.begin() as tx:
            fences = await claims.list_leased(tx, execution_id)
            begun = [await claims.begin(tx, fence, self.id) for fence in fences]
        return [task for task in begun if task is not None]

    async def begin(self, fence: Fence) -> AttemptTask | None:
        """None when the attempt is no longer to be had."""
        async with self.context.store.begin() as tx:
            return await claims.begin(tx, fence, self.id)

    async def renew(self, fences: Sequence[Fence]) -> set[int]:
        """The attempts that are still this worker's."""
        async with self.context.store.begin() as tx:
            return await claims.renew(tx, self.id, fences)

    async def finish(
        self,
        fence: Fence,
        verdict: Verdict = PASSED,
        *,
        cases: Sequence[Case] = (),
        session_id: str | None = None,
        artifacts: Mapping[str, int] | None = None,
    ) -> Level | None:
        """Hands the result in and lets others have the place; None when the fence is lost."""
        result = jobs.Result(verdict, cases=cases, session_id=session_id, artifacts=artifacts or {})
        # On its own, as a worker does it: whoever ends a job holds its execution before the job.
        async with self.context.store.begin() as tx:
            await claims.set_reporting(tx, fence)
        async with self.context.store.begin() as tx:
            level = await jobs.finish_attempt(tx, self.context.queue, fence, result)
        await dispatch(self.context)
        return level

    async def play(self, execution_id: int, judge: Judge = lambda _: PASSED) -> list[AttemptTask]:
        """Takes and ends attempts until the execution has none left to take; gives them in their order."""
        done: list[AttemptTask] = []
        while tasks := await self.take(execution_id):
            for task in tasks:
                await self.finish(task.fence, judge(task))
            done += tasks
        return done
