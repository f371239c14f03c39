"""Seeded chance against the real store and services: starts, stops, results, losses and time in any order, and at once.

After every step what design.md calls always true is checked. A seed that fails repeats with `-k "[17]"` as far as the
database's own scheduling lets it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

import world
from proctor.domain.execution import Fence
from proctor.domain.verdict import Level, worst
from proctor.errors import PlanAlreadyRunning
from proctor.services import runs
from proctor.services.accounts import Caller
from proctor.services.context import Context
from proctor.services.dispatch import dispatch
from proctor.services.runs import RunRequest
from proctor.services.sweep import sweep
from proctor.testing.worker import BROKEN, FAILED, MACHINERY, PASSED, FakeWorker

SEEDS = 30
STEPS = 20
PLANS = ("narrow", "retried", "browsers")
SLOTS = 2
VERDICTS = (PASSED, PASSED, FAILED, BROKEN, MACHINERY)
LIVE = "('leased', 'running', 'reporting')"
ENDED = "('SUCCESS', 'FAILURE', 'ERROR', 'WARNING', 'STOPPED', 'UNEXECUTED')"

# The database's clock decides everywhere: here it can be put forward.
CLOCK = """
    CREATE TABLE simulated_clock (ahead interval NOT NULL);
    INSERT INTO simulated_clock VALUES ('0');
    CREATE OR REPLACE FUNCTION proctor_now() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT clock_timestamp() + (SELECT ahead FROM simulated_clock)'
"""


@dataclass
class Simulation:
    """One world and the dice that decide what happens in it."""

    context: Context
    caller: Caller
    dice: random.Random
    workers: list[FakeWorker]
    # Every attempt that was ever begun, with its worker: also those that have lost their fence hand in a result.
    begun: list[tuple[FakeWorker, Fence]] = field(default_factory=list)
    ended: dict[tuple[str, int], tuple[Any, ...]] = field(default_factory=dict)

    async def step(self) -> list[str]:
        """One to three things that happen at once; gives their names."""
        actions: list[Callable[[], Awaitable[None]]] = self.dice.choices(
            [self.start, self.stop, self.take, self.finish, self.renew, self.let_time_pass, self.sweep, self.dispatch],
            weights=[4, 1, 6, 6, 3, 1, 2, 2],
            k=self.dice.randint(1, 3),
        )
        await asyncio.gather(*(action() for action in actions))
        return [action.__name__ for action in actions]

    async def start(self) -> None:
        force = self.dice.random() < 0.3
        request = RunRequest(self.dice.choice(PLANS), "http://here", force=force, refuse_running=force)
        try:
            await runs.start(self.context, self.caller, request)
        except PlanAlreadyRunning:
            assert force

    async def stop(self) -> None:
        await runs.stop(self.context, self.caller, self.dice.choice(PLANS))

    async def take(self) -> None:
        leased = await world.sql(self.context, "SELECT id, epoch FROM attempts WHERE state = 'leased' ORDER BY id")
        for row in leased[: self.dice.randint(1, 3)]:
            worker, fence = self.dice.choice(self.workers), Fence(*row)
            if await worker.begin(fence) is not None:
                self.begun.append((worker, fence))

    async def finish(self) -> None:
        if self.begun:
            # The latest most often, for they are most often alive.
            worker, fence = self.begun[-1 - int(self.dice.expovariate(0.5)) % len(self.begun)]
            await worker.finish(fence, self.dice.choice(VERDICTS))

    async def renew(self) -> None:
        for worker in self.workers:
            await self.beat(worker)
            own = [fence for holder, fence in self.begun if holder is worker]
            if own:
                await worker.renew(own)

    async def beat(self, worker: FakeWorker) -> None:
        await world.sql(self.context, "UPDATE workers SET heartbeat_at = proctor_now() WHERE id = :id", id=worker.id)

    async def let_time_pass(self) -> None:
        seconds = self.dice.choice((5, 20, 65))
        await world.sql(
            self.context, "UPDATE simulated_clock SET ahead = ahead + make_interval(secs => :seconds)", seconds=seconds
        )

    async def sweep(self) -> None:
        await sweep(self.context)

    async def dispatch(self) -> None:
        await dispatch(self.context)

    async def wind_down(self) -> None:
        """Time passes, workers live, nothing new starts: everything ends."""
        for _ in range(100):
            await self.renew()
            await self.sweep()
            if not await world.sql(self.context, "SELECT 1 FROM executions WHERE state <> 'finished'"):
                return
            for row in await world.sql(self.context, "SELECT id, epoch FROM attempts WHERE state = 'leased'"):
                worker, fence = self.workers[0], Fence(*row)
                if await worker.begin(fence) is not None:
                    self.begun.append((worker, fence))
            for row in await world.sql(self.context, "SELECT id, epoch FROM attempts WHERE state = 'running' LIMIT 5"):
                await self.workers[0].finish(Fence(*row), self.dice.choice(VERDICTS))
            await self.check()
        raise AssertionError("an execution does not end")

    # --- always true -------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        await self.check_limits()
        await self.check_jobs()
        await self.check_executions()
        await self.check_outbox()
        await self.check_ended_stays()

    async def check_limits(self) -> None:
        """Never more than the hub offers or the plan's limit."""
        for hub, used in await world.sql(
            self.context,
            f"SELECT hub_id, count(*) FROM attempts WHERE state IN {LIVE} AND hub_id IS NOT NULL GROUP BY hub_id",  # noqa: S608
        ):
            assert used <= SLOTS, f"hub {hub} has {used} of {SLOTS} slots in use"
        for execution, parallel, used in await world.sql(
            self.context,
            f"""SELECT e.id, e.parallel, count(*) FROM executions e JOIN jobs j ON j.execution_id = e.id
                JOIN attempts a ON a.job_id = j.id AND a.state IN {LIVE} GROUP BY e.id""",  # noqa: S608
        ):
            assert used <= parallel, f"execution {execution} has {used} attempts at once, of {parallel}"

    async def check_jobs(self) -> None:
        """A job is under way exactly while it has a live attempt, and its counts are those of its attempts."""
        rows = await world.sql(
            self.context,
            f"""SELECT j.id, j.level IN ('PROCESSING', 'REPORTING', 'TERMINATING'), j.attempts, j.infrastructure,
                       j.epoch, e.retries, count(a.id), count(a.id) FILTER (WHERE a.state IN {LIVE})
                FROM jobs j JOIN executions e ON e.id = j.execution_id LEFT JOIN attempts a ON a.job_id = j.id
                GROUP BY j.id, e.retries""",  # noqa: S608
        )
        for job, under_way, attempts, infrastructure, epoch, retries, made, live in rows:
            assert live == (1 if under_way else 0), f"job {job}: {live} live attempts, under way {under_way}"
            assert attempts == epoch == made, f"job {job}"
            assert infrastructure <= 3, f"job {job}: machinery was tried {infrastructure} times"
            assert attempts - infrastructure <= retries + 1, f"job {job}: the test was tried too often"

    async def check_executions(self) -> None:
        """An execution has ended exactly when all its jobs have, as the worst of them."""
        rows = await world.sql(
            self.context,
            f"""SELECT e.id, e.state, e.level, e.end_at IS NOT NULL, bool_and(j.level IN {ENDED}), array_agg(j.level)
                FROM executions e JOIN jobs j ON j.execution_id = e.id GROUP BY e.id""",  # noqa: S608
        )
        for execution, state, level, has_end, all_ended, levels in rows:
            assert (state == "finished") == has_end == all_ended, f"execution {execution} is {state}: {levels}"
            assert level == (worst(Level(one) for one in levels).value if all_ended else None)

    async def check_outbox(self) -> None:
        """Every event is there once, in order, without gaps."""
        rows = await world.sql(
            self.context,
            f"""SELECT e.id, e.sequence, e.state,
                       (SELECT array_agg(v.type ORDER BY v.sequence) FROM events v WHERE v.execution_id = e.id),
                       (SELECT array_agg(v.sequence ORDER BY v.sequence) FROM events v WHERE v.execution_id = e.id),
                       (SELECT array_agg((v.data ->> 'job_id')::bigint ORDER BY (v.data ->> 'job_id')::bigint)
                        FROM events v WHERE v.execution_id = e.id AND v.type = 'test.finished'),
                       (SELECT array_agg(j.id ORDER BY j.id) FROM jobs j
                        WHERE j.execution_id = e.id AND j.level IN {ENDED})
                FROM executions e""",  # noqa: S608
        )
        for execution, last, state, types, sequences, told, ended in rows:
            assert sequences == list(range(1, last + 1)), f"execution {execution}"
            assert told == ended, f"execution {execution}"
            end = ["execution.finished"] if state == "finished" else []
            assert types == ["execution.started", *["test.finished"] * len(ended or []), *end]

    async def check_ended_stays(self) -> None:
        """Ended states never change."""
        for table, condition in (
            ("jobs", f"level IN {ENDED}"),
            ("attempts", f"state NOT IN {LIVE}"),
            ("executions", "state = 'finished'"),
        ):
            for row in await world.sql(self.context, f"SELECT * FROM {table} WHERE {condition}"):  # noqa: S608
                assert self.ended.setdefault((table, row[0]), row) == row

    async def assert_nothing_leaked(self) -> None:
        assert await world.sql(self.context, f"SELECT id FROM attempts WHERE state IN {LIVE}") == []  # noqa: S608
        known = await world.sql(self.context, "SELECT count(*) FROM executions WHERE state = 'finished'")
        assert len([1 for table, _ in self.ended if table == "executions"]) == known[0][0]


@pytest.fixture
async def simulation(context: Context, request: pytest.FixtureRequest) -> Simulation:
    for statement in filter(str.strip, CLOCK.split(";")):
        await world.sql(context, statement)
    dice = random.Random(request.param)
    workers = [
        await FakeWorker.sign_on(context, "one", hub="local", browsers=[world.CHROME], slots=SLOTS, concurrency=3),
        await FakeWorker.sign_on(context, "two", concurrency=2),
    ]
    chrome = "LINUX / Chrome 156"
    gone = {"name": "gone", "os": "WINDOWS", "browser": "edge"}
    await world.put(
        context,
        world.service("a", number=4, plans=[{"name": "narrow", "parallel": 2}]),
        world.service("b", number=3, plans=[{"name": "retried", "parallel": 3, "retries": 1}]),
        world.service(
            "c",
            number=3,
            framework="SELENIUM",
            plans=[{"name": "browsers", "parallel": 4, "retries": 1, "environments": [chrome, "gone"]}],
        ),
        environments=[gone],
    )
    return Simulation(context, await world.caller(context), dice, workers)


@pytest.mark.parametrize("simulation", range(SEEDS), indirect=True)
async def test_whatever_happens_in_whatever_order_what_is_always_true_stays_true(simulation: Simulation) -> None:
    history: list[list[str]] = []
    for _ in range(STEPS):
        history.append(await simulation.step())
        try:
            await simulation.check()
        except AssertionError as error:
            error.add_note(f"after {history}")
            raise

    await simulation.wind_down()

    await simulation.check()
    await simulation.assert_nothing_leaked()
