"""Leases on jobs and slots: who may run an attempt, until when. Each change names the epoch it was given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from proctor.domain.environment import Environment
from proctor.domain.execution import AttemptState, Fence
from proctor.domain.placement import ExecutionRoom, Placement, WaitingJob
from proctor.domain.verdict import Case, Verdict
from proctor.store.engine import Tx, json_value
from proctor.store.environments import ENVIRONMENT_COLUMNS, read_environment

LEASE = timedelta(seconds=60)


@dataclass(frozen=True)
class Lease:
    """What dispatch took: the attempt to defer, and to which queue."""

    fence: Fence
    queue: str
    execution_id: int


@dataclass(frozen=True)
class AttemptTask:
    """All that a worker needs to carry out an attempt."""

    fence: Fence
    number: int
    job_id: int
    execution_id: int
    company_id: int
    plan_id: int
    project_id: int
    scenario_id: int
    scenario_name: str
    commit: str | None
    repository: str
    branch: str
    credential: Mapping[str, str]
    framework: str
    runner: str
    setup: str
    command: str
    source: str
    selector: str
    parameters: Mapping[str, str]
    environment: Environment | None
    timeout: timedelta
    screenshots: str
    video: bool


@dataclass(frozen=True)
class LostAttempt:
    """A live attempt whose lease ran out."""

    fence: Fence
    execution_id: int
    state: AttemptState


@dataclass(frozen=True)
class AttemptPlace:
    """What a finished attempt belongs to, and what its job has used up, this attempt included."""

    job_id: int
    execution_id: int
    attempts: int
    infrastructure: int
    retries: int


# --- dispatch --------------------------------------------------------------------------------------------------------


async def list_waiting(tx: Tx, per_execution: int) -> tuple[list[ExecutionRoom], list[WaitingJob]]:
    """Running executions with their room, and of each the first waiting jobs of each environment.

    Reads no more than could start: the time does not grow with the number of jobs that wait.
    """
    rows = await tx.execute(
        text(
            f"""SELECT e.id AS execution_id, e.room, j.id, j.position, {ENVIRONMENT_COLUMNS}
                FROM (SELECT e.id, e.environment_ids, e.parallel - (
                             SELECT count(*) FROM jobs b WHERE b.execution_id = e.id
                             AND b.level IN ('PROCESSING', 'REPORTING', 'TERMINATING')) AS room
                      FROM executions e WHERE e.state = 'running') AS e
                CROSS JOIN LATERAL unnest(e.environment_ids) AS wanted(id)
                CROSS JOIN LATERAL (
                    SELECT id, position, environment_id FROM jobs
                    WHERE execution_id = e.id AND level = 'WAITING'
                      AND environment_id IS NOT DISTINCT FROM NULLIF(wanted.id, 0)
                    ORDER BY position LIMIT least(:limit, greatest(e.room, 0))) AS j
                LEFT JOIN environments env ON env.id = j.environment_id
                ORDER BY e.id, j.position"""  # noqa: S608
        ),
        {"limit": per_execution},
    )
    rooms: dict[int, ExecutionRoom] = {}
    waiting: list[WaitingJob] = []
    for row in rows:
        rooms[row.execution_id] = ExecutionRoom(row.execution_id, row.room)
        waiting.append(WaitingJob(row.id, row.execution_id, row.position, read_environment(row)))
    return list(rooms.values()), waiting


async def lease(tx: Tx, placements: Sequence[Placement]) -> list[Lease]:
    """Takes the jobs that still wait, with their slots, and makes an attempt of each."""
    rows = await tx.execute(
        text(
            """WITH wanted AS (
                   SELECT * FROM unnest(CAST(:jobs AS bigint[]), CAST(:hubs AS bigint[]), CAST(:queues AS text[]))
                       AS t(job_id, hub_id, queue)),
               -- In the order in which a stop takes them: neither waits for the other for ever.
               held AS (SELECT id FROM jobs WHERE id = ANY(:jobs) ORDER BY id FOR NO KEY UPDATE),
               taken AS (
                   UPDATE jobs j SET level = 'PROCESSING', epoch = j.epoch + 1, attempts = j.attempts + 1,
                       start_at = coalesce(j.start_at, proctor_now())
                   FROM wanted w, held h, executions e
                   WHERE j.id = w.job_id AND h.id = j.id AND j.level = 'WAITING' AND e.id = j.execution_id
                     AND e.state = 'running'
                   RETURNING j.id, j.epoch, j.attempts, j.execution_id, w.hub_id, w.queue),
               made AS (
                   INSERT INTO attempts (job_id, number, epoch, hub_id, lease_until)
                   SELECT id, attempts, epoch, NULLIF(hub_id, 0), proctor_now() + CAST(:lease AS interval) FROM taken
                   RETURNING id, job_id, epoch)
               SELECT m.id, m.epoch, t.queue, t.execution_id FROM made m JOIN taken t ON t.id = m.job_id
               ORDER BY m.id"""
        ),
        {
            "jobs": [placement.job_id for placement in placements],
            "hubs": [placement.hub_id or 0 for placement in placements],
            "queues": [placement.queue for placement in placements],
            "lease": LEASE,
        },
    )
    return [Lease(Fence(row.id, row.epoch), row.queue, row.execution_id) for row in rows]


async def set_queue_jobs(tx: Tx, numbers: Mapping[int, int]) -> None:
    """Writes down which of the queue's jobs carries which attempt, so that it can be cancelled."""
    await tx.execute(
        text(
            """UPDATE attempts a SET queue_job_id = t.number
               FROM unnest(CAST(:attempts AS bigint[]), CAST(:numbers AS bigint[])) AS t(attempt_id, number)
               WHERE a.id = t.attempt_id"""
        ),
        {"attempts": list(numbers.keys()), "numbers": list(numbers.values())},
    )


# --- the worker's side -----------------------------------------------------------------------------------------------


async def begin(tx: Tx, fence: Fence, worker_id: int) -> AttemptTask | None:
    """Turns the lease into a running attempt; None when somebody else has it, or it was stopped."""
    row = (
        await tx.execute(
            text(
                f"""WITH a AS (
                        UPDATE attempts SET state = 'running', worker_id = :worker, start_at = proctor_now(),
                            lease_until = proctor_now() + CAST(:lease AS interval)
                        WHERE id = :id AND epoch = :epoch AND state = 'leased' RETURNING job_id, number)
                    SELECT a.number, j.id AS job_id, j.execution_id, e.company_id, e.plan_id, p.project_id,
                           s.id AS scenario_id, s.name AS scenario_name, e."commit", r.repository, r.branch,
                           r.credential, r.framework, r.runner, r.setup,
                           CASE WHEN s.command = '' THEN r.command ELSE s.command END AS command, s.source, s.selector,
                           r.parameters || p.parameters || s.parameters AS parameters, e.timeout_seconds,
                           e.screenshots, e.video, {ENVIRONMENT_COLUMNS}
                    FROM a JOIN jobs j ON j.id = a.job_id JOIN executions e ON e.id = j.execution_id
                    JOIN plans p ON p.id = e.plan_id JOIN projects r ON r.id = p.project_id
                    JOIN scenarios s ON s.id = j.scenario_id
                    LEFT JOIN environments env ON env.id = j.environment_id"""  # noqa: S608
            ),
            {"id": fence.attempt_id, "epoch": fence.epoch, "worker": worker_id, "lease": LEASE},
        )
    ).one_or_none()
    return _task(fence, row._asdict(), read_environment(row)) if row else None


async def renew(tx: Tx, worker_id: int, fences: Sequence[Fence]) -> set[int]:
    """Prolongs the worker's leases; gives the attempts that are still its own."""
    rows = await tx.execute(
        text(
            """UPDATE attempts a SET lease_until = proctor_now() + CAST(:lease AS interval)
               FROM unnest(CAST(:ids AS bigint[]), CAST(:epochs AS int[])) AS t(id, epoch), jobs j
               WHERE a.id = t.id AND a.epoch = t.epoch AND a.worker_id = :worker
                 AND a.state IN ('running', 'reporting') AND j.id = a.job_id AND j.level <> 'TERMINATING'
               RETURNING a.id"""
        ),
        {
            "ids": [fence.attempt_id for fence in fences],
            "epochs": [fence.epoch for fence in fences],
            "worker": worker_id,
            "lease": LEASE,
        },
    )
    return {row.id for row in rows}


async def set_reporting(tx: Tx, fence: Fence) -> bool:
    """False when the fence is lost."""
    # The job first, as a stop takes them: the other way round the two wait for each other.
    await tx.execute(
        text("SELECT 1 FROM jobs WHERE id = (SELECT job_id FROM attempts WHERE id = :id) FOR NO KEY UPDATE"),
        {"id": fence.attempt_id},
    )
    row = await tx.execute(
        text(
            """WITH a AS (
                   UPDATE attempts SET state = 'reporting', lease_until = proctor_now() + CAST(:lease AS interval)
                   WHERE id = :id AND epoch = :epoch AND state = 'running' RETURNING job_id),
               j AS (UPDATE jobs SET level = 'REPORTING' FROM a WHERE jobs.id = a.job_id AND level = 'PROCESSING')
               SELECT 1 FROM a"""
        ),
        {"id": fence.attempt_id, "epoch": fence.epoch, "lease": LEASE},
    )
    return row.first() is not None


async def find_place(tx: Tx, fence: Fence) -> AttemptPlace | None:
    """What the attempt belongs to, while it is live and of this epoch."""
    row = (
        await tx.execute(
            text(
                """SELECT j.id AS job_id, j.execution_id, j.attempts, j.infrastructure, e.retries
                   FROM attempts a JOIN jobs j ON j.id = a.job_id JOIN executions e ON e.id = j.execution_id
                   WHERE a.id = :id AND a.epoch = :epoch AND a.state IN ('leased', 'running', 'reporting')"""
            ),
            {"id": fence.attempt_id, "epoch": fence.epoch},
        )
    ).one_or_none()
    return AttemptPlace(**row._mapping) if row else None


async def end_attempt(
    tx: Tx,
    fence: Fence,
    state: AttemptState,
    verdict: Verdict,
    *,
    session_id: str | None = None,
    artifacts: Mapping[str, int] | None = None,
) -> bool:
    """Ends a live attempt, and with it gives back its slot; False when the fence is lost."""
    result = await tx.execute(
        text(
            """UPDATE attempts SET state = :state, outcome = :outcome, level = :level, message = :message,
                   session_id = :session, artifacts = :artifacts, end_at = proctor_now()
               WHERE id = :id AND epoch = :epoch AND state IN ('leased', 'running', 'reporting')"""
        ).bindparams(json_value("artifacts", dict(artifacts or {}))),
        {
            "id": fence.attempt_id,
            "epoch": fence.epoch,
            "state": state.value,
            "outcome": verdict.outcome.value,
            "level": verdict.level.value,
            "message": verdict.message,
            "session": session_id,
        },
    )
    return result.rowcount == 1


async def add_cases(tx: Tx, fence: Fence, cases: Sequence[Case]) -> None:
    if not cases:
        return
    await tx.execute(
        text(
            """INSERT INTO cases (attempt_id, name, classname, status, milliseconds, message, detail)
               SELECT :attempt, t.* FROM unnest(CAST(:names AS text[]), CAST(:classnames AS text[]),
                   CAST(:statuses AS text[]), CAST(:milliseconds AS int[]), CAST(:messages AS text[]),
                   CAST(:details AS text[])) AS t"""
        ),
        {
            "attempt": fence.attempt_id,
            "names": [case.name for case in cases],
            "classnames": [case.classname for case in cases],
            "statuses": [str(case.status) for case in cases],
            "milliseconds": [round(case.seconds * 1000) for case in cases],
            "messages": [case.message for case in cases],
            "details": [case.detail for case in cases],
        },
    )


# --- the sweep's side ------------------------------------------------------------------------------------------------


async def expire(tx: Tx, workers: Sequence[str]) -> None:
    """Lets the leases of workers that are known to be gone run out now."""
    await tx.execute(
        text(
            """UPDATE attempts a SET lease_until = proctor_now() - interval '1 s' FROM workers w
               WHERE w.name = ANY(:names) AND a.worker_id = w.id AND a.state IN ('running', 'reporting')"""
        ),
        {"names": list(workers)},
    )
    await tx.execute(text("DELETE FROM workers WHERE name = ANY(:names)"), {"names": list(workers)})


async def list_lost(tx: Tx, limit: int = 100) -> list[LostAttempt]:
    """Live attempts whose lease ran out."""
    rows = await tx.execute(
        text(
            """SELECT a.id, a.epoch, a.state, j.execution_id FROM attempts a JOIN jobs j ON j.id = a.job_id
               WHERE a.state IN ('leased', 'running', 'reporting') AND a.lease_until < proctor_now()
               ORDER BY a.id LIMIT :limit"""
        ),
        {"limit": limit},
    )
    return [LostAttempt(Fence(row.id, row.epoch), row.execution_id, AttemptState(row.state)) for row in rows]


def _task(fence: Fence, values: Mapping[str, Any], environment: Environment | None) -> AttemptTask:
    plain = {name: value for name, value in values.items() if not name.startswith("environment_")}
    timeout = timedelta(seconds=plain.pop("timeout_seconds"))
    return AttemptTask(fence=fence, timeout=timeout, environment=environment, **plain)


async def list_leased(tx: Tx, execution_id: int) -> list[Fence]:
    """The attempts of the execution that no worker has begun."""
    rows = await tx.execute(
        text(
            """SELECT a.id, a.epoch FROM attempts a JOIN jobs j ON j.id = a.job_id
               WHERE j.execution_id = :execution AND a.state = 'leased' ORDER BY a.id FOR NO KEY UPDATE OF a"""
        ),
        {"execution": execution_id},
    )
    return [Fence(row.id, row.epoch) for row in rows]
