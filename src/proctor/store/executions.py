"""Executions, their jobs, attempts and cases: made, changed under a condition, read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text

from proctor.domain.environment import Environment
from proctor.domain.execution import (
    AttemptRecord,
    AttemptState,
    CaseRecord,
    ExecutionRecord,
    ExecutionState,
    JobRecord,
)
from proctor.domain.plan import Plan
from proctor.domain.verdict import Level
from proctor.store.catalog import Scope
from proctor.store.engine import Tx
from proctor.store.environments import ENVIRONMENT_COLUMNS, read_environment

# One page of the contract's lists.
PAGE = 50


@dataclass(frozen=True)
class NewJob:
    """A job to be made: `reason` is why it ends UNEXECUTED at once, None for one that shall run."""

    scenario_id: int
    environment_id: int | None
    reason: str | None = None


# --- making ----------------------------------------------------------------------------------------------------------


async def find_unfinished(tx: Tx, plan_id: int) -> int | None:
    """The running execution of the plan, as it is now."""
    row = await tx.execute(
        text("SELECT id FROM executions WHERE plan_id = :plan AND state <> 'finished'"), {"plan": plan_id}
    )
    return row.scalar_one_or_none()


async def hold_unfinished(tx: Tx, plan_id: int) -> int | None:
    """The running execution of the plan, held until the transaction ends so that it cannot finish meanwhile."""
    row = await tx.execute(
        text("SELECT id FROM executions WHERE plan_id = :plan AND state <> 'finished' FOR NO KEY UPDATE"),
        {"plan": plan_id},
    )
    return row.scalar_one_or_none()


async def add_execution(
    tx: Tx, plan: Plan, *, user_id: int, base_url: str, environment_ids: Sequence[int | None]
) -> int:
    row = await tx.execute(
        text(
            """INSERT INTO executions (company_id, plan_id, user_id, parallel, retries, timeout_seconds, screenshots,
                   video, base_url, environment_ids)
               VALUES (:company, :plan, :user, :parallel, :retries, :timeout, :screenshots, :video, :base_url,
                   :environments) RETURNING id"""
        ),
        {
            "company": plan.company_id,
            "plan": plan.id,
            "user": user_id,
            "parallel": plan.parallel,
            "retries": plan.retries,
            "timeout": plan.timeout_seconds,
            "screenshots": plan.screenshots,
            "video": plan.video,
            "base_url": base_url,
            "environments": [id_ or 0 for id_ in environment_ids],
        },
    )
    return int(row.scalar_one())


async def add_jobs(tx: Tx, execution_id: int, jobs: Sequence[NewJob]) -> list[int]:
    """Makes the jobs in their order; gives the ids of those that ended UNEXECUTED at once."""
    rows = await tx.execute(
        text(
            """INSERT INTO jobs (execution_id, scenario_id, environment_id, position, level, message, end_at)
               SELECT :execution, scenario, NULLIF(environment, 0), position,
                      CASE WHEN reason = '' THEN 'WAITING' ELSE 'UNEXECUTED' END, NULLIF(reason, ''),
                      CASE WHEN reason = '' THEN NULL ELSE proctor_now() END
               FROM unnest(CAST(:scenarios AS bigint[]), CAST(:environments AS bigint[]), CAST(:reasons AS text[]))
                    WITH ORDINALITY AS t(scenario, environment, reason, position)
               RETURNING id, level"""
        ),
        {
            "execution": execution_id,
            "scenarios": [job.scenario_id for job in jobs],
            "environments": [job.environment_id or 0 for job in jobs],
            "reasons": [job.reason or "" for job in jobs],
        },
    )
    return sorted(row.id for row in rows if row.level == Level.UNEXECUTED)


# --- changing --------------------------------------------------------------------------------------------------------


async def lock_execution(tx: Tx, execution_id: int) -> ExecutionState | None:
    """Holds the execution until the transaction ends; whoever ends jobs of it comes here first."""
    row = await tx.execute(text("SELECT state FROM executions WHERE id = :id FOR NO KEY UPDATE"), {"id": execution_id})
    state = row.scalar_one_or_none()
    return ExecutionState(state) if state else None


async def set_stopping(tx: Tx, execution_id: int) -> bool:
    """False when it was not running."""
    result = await tx.execute(
        text("UPDATE executions SET state = 'stopping' WHERE id = :id AND state = 'running'"), {"id": execution_id}
    )
    return result.rowcount == 1


async def set_finished(tx: Tx, execution_id: int, level: Level) -> bool:
    """False when it was finished before."""
    result = await tx.execute(
        text(
            """UPDATE executions SET state = 'finished', level = :level, end_at = proctor_now()
               WHERE id = :id AND state <> 'finished'"""
        ),
        {"id": execution_id, "level": level.value},
    )
    return result.rowcount == 1


async def set_commit(tx: Tx, execution_id: int, commit: str) -> str:
    """Settles the commit that all attempts of the execution use; gives the one that was first."""
    row = await tx.execute(
        text('UPDATE executions SET "commit" = coalesce("commit", :commit) WHERE id = :id RETURNING "commit"'),
        {"id": execution_id, "commit": commit},
    )
    return str(row.scalar_one())


async def end_waiting_jobs(tx: Tx, execution_id: int, message: str) -> list[int]:
    """Ends what never started as UNEXECUTED; gives the jobs' ids."""
    rows = await tx.execute(
        text(
            # Ordered, as dispatch takes them: neither waits for the other for ever.
            """UPDATE jobs SET level = 'UNEXECUTED', message = :message, end_at = proctor_now()
               WHERE level = 'WAITING' AND id IN (
                   SELECT id FROM jobs WHERE execution_id = :execution AND level = 'WAITING'
                   ORDER BY id FOR NO KEY UPDATE)
               RETURNING id"""
        ),
        {"execution": execution_id, "message": message},
    )
    return sorted(row.id for row in rows)


async def terminate_jobs(tx: Tx, execution_id: int) -> list[int]:
    """Turns what is under way to TERMINATING; gives the queue's numbers of the attempts to cancel."""
    await tx.execute(
        text(
            """UPDATE jobs SET level = 'TERMINATING'
               WHERE execution_id = :execution AND level IN ('PROCESSING', 'REPORTING')"""
        ),
        {"execution": execution_id},
    )
    rows = await tx.execute(
        text(
            """SELECT a.queue_job_id FROM attempts a JOIN jobs j ON j.id = a.job_id
               WHERE j.execution_id = :execution AND a.state IN ('leased', 'running', 'reporting')
                 AND a.queue_job_id IS NOT NULL"""
        ),
        {"execution": execution_id},
    )
    return [row.queue_job_id for row in rows]


async def set_job_level(
    tx: Tx, job_id: int, epoch: int, level: Level, message: str | None, *, infrastructure: bool
) -> bool:
    """Moves a job that is under way on: to WAITING for another attempt, or to its end. False when the fence is lost."""
    result = await tx.execute(
        text(
            """UPDATE jobs SET level = :level, message = :message,
                   infrastructure = infrastructure + CASE WHEN :infrastructure THEN 1 ELSE 0 END,
                   end_at = CASE WHEN :level = 'WAITING' THEN NULL ELSE proctor_now() END
               WHERE id = :id AND epoch = :epoch AND level IN ('PROCESSING', 'REPORTING', 'TERMINATING')"""
        ),
        {"id": job_id, "epoch": epoch, "level": level.value, "message": message, "infrastructure": infrastructure},
    )
    return result.rowcount == 1


async def count_levels(tx: Tx, execution_id: int) -> dict[Level, int]:
    rows = await tx.execute(
        text("SELECT level, count(*) AS number FROM jobs WHERE execution_id = :id GROUP BY level"),
        {"id": execution_id},
    )
    return {Level(row.level): row.number for row in rows}


# --- reading ---------------------------------------------------------------------------------------------------------

_EXECUTION = """SELECT e.id, e.company_id, p.project_id, r.name AS project_name, e.plan_id, p.name AS plan_name,
        e.user_id, u.username, e.state, e.level, e."commit", e.base_url, e.start_at, e.end_at,
        (SELECT coalesce(jsonb_object_agg(level, number), '{}') FROM (
            SELECT level, count(*) AS number FROM jobs WHERE execution_id = e.id GROUP BY level) AS l) AS levels
    FROM executions e JOIN plans p ON p.id = e.plan_id JOIN projects r ON r.id = p.project_id
    LEFT JOIN users u ON u.id = e.user_id"""

_JOB = f"""SELECT j.id, j.execution_id, e.company_id, p.project_id, e.plan_id, j.scenario_id, s.name AS scenario_name,
        j.level, j.message, e.screenshots, e.video, e.base_url, e.start_at AS execution_start_at,
        j.start_at, j.end_at, {ENVIRONMENT_COLUMNS}
    FROM jobs j JOIN executions e ON e.id = j.execution_id JOIN plans p ON p.id = e.plan_id
    JOIN scenarios s ON s.id = j.scenario_id LEFT JOIN environments env ON env.id = j.environment_id"""  # noqa: S608

_IN_SCOPE = "(CAST(:companies AS bigint[]) IS NULL OR e.company_id = ANY(:companies))"


async def find_execution(tx: Tx, execution_id: int, companies: Scope) -> ExecutionRecord | None:
    row = (
        await tx.execute(
            text(f"{_EXECUTION} WHERE e.id = :id AND {_IN_SCOPE}"),
            {"id": execution_id, "companies": None if companies is None else list(companies)},
        )
    ).one_or_none()
    return _execution(row) if row else None


async def list_executions(
    tx: Tx, companies: Scope, *, plan_id: int | None = None, offset: int = 0, limit: int = PAGE
) -> tuple[list[ExecutionRecord], int]:
    """A page of executions, the newest first, and how many there are in all."""
    parameters: dict[str, Any] = {"plan": plan_id, "companies": None if companies is None else list(companies)}
    where = f"WHERE (CAST(:plan AS bigint) IS NULL OR e.plan_id = :plan) AND {_IN_SCOPE}"
    total = (await tx.execute(text(f"SELECT count(*) FROM executions e {where}"), parameters)).scalar_one()  # noqa: S608
    rows = await tx.execute(
        text(f"{_EXECUTION} {where} ORDER BY e.id DESC OFFSET :offset LIMIT :limit"),
        {**parameters, "offset": offset, "limit": limit},
    )
    return [_execution(row) for row in rows], total


async def find_job(tx: Tx, job_id: int, companies: Scope) -> JobRecord | None:
    rows = await tx.execute(
        text(f"{_JOB} WHERE j.id = :id AND {_IN_SCOPE}"),
        {"id": job_id, "companies": None if companies is None else list(companies)},
    )
    jobs = await _with_attempts(tx, [_job(row) for row in rows])
    return jobs[0] if jobs else None


async def find_job_of_session(tx: Tx, session_id: str, companies: Scope) -> JobRecord | None:
    row = await tx.execute(
        text("SELECT job_id FROM attempts WHERE session_id = :session ORDER BY id DESC LIMIT 1"),
        {"session": session_id},
    )
    job_id = row.scalar_one_or_none()
    return await find_job(tx, job_id, companies) if job_id is not None else None


async def list_jobs(
    tx: Tx,
    execution_id: int,
    *,
    scenario_id: int | None = None,
    offset: int = 0,
    limit: int | None = None,
) -> list[JobRecord]:
    """The jobs of an execution in their order, with their attempts."""
    rows = await tx.execute(
        text(
            f"""{_JOB} WHERE j.execution_id = :execution
                AND (CAST(:scenario AS bigint) IS NULL OR j.scenario_id = :scenario)
                ORDER BY j.position, j.id OFFSET :offset LIMIT :limit"""
        ),
        {"execution": execution_id, "scenario": scenario_id, "offset": offset, "limit": limit},
    )
    return await _with_attempts(tx, [_job(row) for row in rows])


async def list_cases(tx: Tx, attempt_ids: Sequence[int]) -> list[CaseRecord]:
    rows = await tx.execute(
        text(
            """SELECT attempt_id, name, classname, status, milliseconds, message, detail FROM cases
               WHERE attempt_id = ANY(:ids) ORDER BY id"""
        ),
        {"ids": list(attempt_ids)},
    )
    return [CaseRecord(**row._mapping) for row in rows]


async def find_attempt(tx: Tx, attempt_id: int, companies: Scope) -> tuple[AttemptRecord, int] | None:
    """The attempt and its execution's id."""
    row = (
        await tx.execute(
            text(
                f"""SELECT a.id, a.job_id, a.number, a.state, a.outcome, a.level, a.message, a.session_id, a.artifacts,
                           a.start_at, a.end_at, j.execution_id
                    FROM attempts a JOIN jobs j ON j.id = a.job_id JOIN executions e ON e.id = j.execution_id
                    WHERE a.id = :id AND {_IN_SCOPE}"""  # noqa: S608
            ),
            {"id": attempt_id, "companies": None if companies is None else list(companies)},
        )
    ).one_or_none()
    return (_attempt(row), row.execution_id) if row else None


async def last_execution_of_plan(tx: Tx, plan_id: int) -> int | None:
    row = await tx.execute(
        text("SELECT id FROM executions WHERE plan_id = :plan ORDER BY id DESC LIMIT 1"), {"plan": plan_id}
    )
    return row.scalar_one_or_none()


async def environments_of_execution(tx: Tx, execution_id: int) -> list[Environment | None]:
    """The environments that its jobs used; None stands for none."""
    rows = await tx.execute(
        text(
            f"""SELECT DISTINCT {ENVIRONMENT_COLUMNS} FROM jobs j
                LEFT JOIN environments env ON env.id = j.environment_id
                WHERE j.execution_id = :execution ORDER BY environment_id"""  # noqa: S608
        ),
        {"execution": execution_id},
    )
    return [read_environment(row) for row in rows]


async def _with_attempts(tx: Tx, jobs: list[JobRecord]) -> list[JobRecord]:
    if not jobs:
        return []
    rows = await tx.execute(
        text(
            """SELECT id, job_id, number, state, outcome, level, message, session_id, artifacts, start_at, end_at
               FROM attempts WHERE job_id = ANY(:ids) ORDER BY job_id, number"""
        ),
        {"ids": [job.id for job in jobs]},
    )
    by_job: dict[int, list[AttemptRecord]] = {job.id: [] for job in jobs}
    for row in rows:
        by_job[row.job_id].append(_attempt(row))
    return [replace(job, attempts=tuple(by_job[job.id])) for job in jobs]


def _execution(row: Row[Any]) -> ExecutionRecord:
    values = row._asdict()
    levels = {Level(name): number for name, number in row.levels.items()}
    return ExecutionRecord(
        **{
            **values,
            "state": ExecutionState(row.state),
            "level": Level(row.level) if row.level else None,
            "levels": levels,
        }
    )


def _job(row: Row[Any]) -> JobRecord:
    values = {name: value for name, value in row._mapping.items() if not name.startswith("environment_")}
    return JobRecord(**{**values, "level": Level(row.level)}, environment=read_environment(row), attempts=())


def _attempt(row: Row[Any]) -> AttemptRecord:
    end_at: datetime | None = row.end_at
    return AttemptRecord(
        id=row.id,
        job_id=row.job_id,
        number=row.number,
        state=AttemptState(row.state),
        outcome=row.outcome,
        level=Level(row.level) if row.level else None,
        message=row.message,
        session_id=row.session_id,
        artifacts=row.artifacts,
        start_at=row.start_at,
        end_at=end_at,
    )


async def add_share(tx: Tx, job_id: int, digest: bytes, lifetime: timedelta) -> None:
    await tx.execute(
        text(
            """INSERT INTO shares (hash, job_id, expires_at)
               VALUES (:hash, :job, proctor_now() + CAST(:lifetime AS interval))"""
        ),
        {"hash": digest, "job": job_id, "lifetime": lifetime},
    )


async def find_shared_job(tx: Tx, digest: bytes) -> JobRecord | None:
    """The job that a link shows, while the link lasts."""
    row = await tx.execute(
        text("SELECT job_id FROM shares WHERE hash = :hash AND expires_at > proctor_now()"), {"hash": digest}
    )
    job_id = row.scalar_one_or_none()
    return await find_job(tx, job_id, None) if job_id is not None else None
