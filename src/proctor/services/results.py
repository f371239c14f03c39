"""Reading executions and their results."""

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

from proctor.domain import wire
from proctor.domain.execution import AttemptRecord, CaseRecord, ExecutionRecord, JobRecord
from proctor.domain.permission import Permission
from proctor.domain.plan import Plan
from proctor.errors import ExecutionNotFound, Forbidden, InvalidInput, NotFound, ResultNotFound
from proctor.services.accounts import Caller, digest, new_token
from proctor.services.context import Context
from proctor.services.runs import find_plan
from proctor.store import executions, outbox
from proctor.store.engine import Tx
from proctor.store.outbox import Delivery, Event

COMMANDS_LIMIT = 4 * 1024 * 1024
SHARE_LIFETIME = timedelta(days=30)


def read_id(text: str) -> int | None:
    """An id of a path, None when it is none: then nothing has it."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


async def read_execution(context: Context, caller: Caller, ref: str) -> tuple[ExecutionRecord, list[JobRecord]]:
    """An execution with all its jobs."""
    async with context.store.begin() as tx:
        execution = await find_execution(tx, caller, ref)
        return execution, await executions.list_jobs(tx, execution.id)


async def read_summary(context: Context, caller: Caller, ref: str) -> ExecutionRecord:
    """An execution without its jobs."""
    async with context.store.begin() as tx:
        return await find_execution(tx, caller, ref)


async def list_executions(
    context: Context, caller: Caller, plan_ref: str, page: int, *, size: int = executions.PAGE
) -> tuple[list[ExecutionRecord], int]:
    """A page of a plan's executions, the newest first, and how many there are."""
    async with context.store.begin() as tx:
        plan = await find_plan(tx, caller, plan_ref, Permission.TEST_EXECUTION_VIEW)
        return await executions.list_executions(
            tx, [plan.company_id], plan_id=plan.id, offset=_offset(page, size), limit=size
        )


async def list_recent(context: Context, caller: Caller, limit: int) -> list[ExecutionRecord]:
    """The newest executions that the caller may see."""
    async with context.store.begin() as tx:
        found, _ = await executions.list_executions(tx, _viewable(caller, Permission.TEST_EXECUTION_VIEW), limit=limit)
        return found


async def list_jobs(context: Context, caller: Caller, ref: str, page: int) -> tuple[list[JobRecord], int]:
    async with context.store.begin() as tx:
        execution = await find_execution(tx, caller, ref)
        found = await executions.list_jobs(
            tx, execution.id, offset=_offset(page, executions.PAGE), limit=executions.PAGE
        )
        return found, execution.counts.total


async def list_jobs_of_scenario(
    context: Context, caller: Caller, execution_ref: str, scenario_ref: str
) -> list[JobRecord]:
    async with context.store.begin() as tx:
        execution = await find_execution(tx, caller, execution_ref)
        return await executions.list_jobs(tx, execution.id, scenario_id=read_id(scenario_ref) or 0)


async def last_failed(context: Context, caller: Caller, plan_ref: str) -> list[JobRecord]:
    """The jobs of the plan's last execution that did not pass."""
    async with context.store.begin() as tx:
        plan = await find_plan(tx, caller, plan_ref, Permission.TEST_EXECUTION_VIEW)
        last = await executions.last_execution_of_plan(tx, plan.id)
        jobs = await executions.list_jobs(tx, last) if last is not None else []
        return [job for job in jobs if job.level.value in {"FAILURE", "ERROR"}]


async def read_job(context: Context, caller: Caller, ref: str) -> JobRecord:
    async with context.store.begin() as tx:
        job_id = read_id(ref)
        job = await executions.find_job(tx, job_id, caller.scope) if job_id is not None else None
        return _checked(caller, job, ref)


async def read_job_of_session(context: Context, caller: Caller, session_id: str) -> JobRecord:
    async with context.store.begin() as tx:
        job = None
        if "\0" not in session_id:
            job = await executions.find_job_of_session(tx, session_id, caller.scope)
        return _checked(caller, job, session_id)


async def read_cases(context: Context, jobs: list[JobRecord]) -> list[CaseRecord]:
    """The cases of all attempts of these jobs, which the caller has been checked for."""
    async with context.store.begin() as tx:
        return await executions.list_cases(tx, [attempt.id for job in jobs for attempt in job.attempts])


async def read_commands(context: Context, job: JobRecord) -> list[dict[str, Any]]:
    """The recorded commands of the last attempt, as the contract's Command."""
    if job.last is None or wire.COMMANDS not in job.last.artifacts:
        return []
    try:
        raw = await context.artifacts.read_end(job.execution_id, job.last.id, wire.COMMANDS, COMMANDS_LIMIT)
    except FileNotFoundError:
        # Somebody has cleared the disk: the rest of the result is still worth reading.
        return []
    lines = raw.split(b"\n")
    if job.last.artifacts[wire.COMMANDS] > COMMANDS_LIMIT:
        # The first of what was read is the end of a line.
        lines = lines[1:]
    commands = [json.loads(line) for line in lines if line.strip()]
    return [
        wire.command_e(command, _milliseconds(command.get("start_at")), _milliseconds(command.get("end_at")))
        for command in commands
        if "method" in command
    ]


async def open_artifact(
    context: Context, caller: Caller, attempt_ref: str, name: str
) -> tuple[AttemptRecord, AsyncIterator[bytes]]:
    """An attempt's file; only names that were kept are ever looked up."""
    async with context.store.begin() as tx:
        attempt_id = read_id(attempt_ref)
        found = await executions.find_attempt(tx, attempt_id, caller.scope) if attempt_id is not None else None
        if found is None or name not in found[0].artifacts:
            raise NotFound(f"The attempt {attempt_ref[:20]} has no file {name[:100]!r}.")
        attempt, execution_id = found
        await find_execution(tx, caller, str(execution_id), Permission.TEST_RESULT_VIEW)
    try:
        return attempt, await context.artifacts.get(execution_id, attempt.id, name)
    except FileNotFoundError as error:
        raise NotFound(f"The file {name} of the attempt {attempt.id} is no longer on the disk.") from error


async def read_text(context: Context, job: JobRecord, attempt: AttemptRecord, name: str, limit: int) -> str:
    """The end of an attempt's text file, empty where there is none; the caller has been checked for the job."""
    if name not in attempt.artifacts:
        return ""
    try:
        raw = await context.artifacts.read_end(job.execution_id, attempt.id, name, limit)
    except FileNotFoundError:
        return ""
    return raw.decode(errors="replace")


async def share(context: Context, job: JobRecord) -> str:
    """The path of a page that shows the result to whoever has the link; the caller has been checked for the job."""
    token = new_token()
    async with context.store.begin() as tx:
        await executions.add_share(tx, job.id, digest(token), SHARE_LIFETIME)
    return f"/shared/{token}"


async def read_shared(context: Context, token: str) -> JobRecord:
    async with context.store.begin() as tx:
        job = await executions.find_shared_job(tx, digest(token))
    if job is None:
        raise ResultNotFound("This link is unknown or has expired: ask for a new one.")
    return job


async def list_events(context: Context, caller: Caller, ref: str, after: int) -> list[Event]:
    async with context.store.begin() as tx:
        execution = await find_execution(tx, caller, ref)
        return await outbox.list_events(tx, execution.id, after=after)


async def list_deliveries(context: Context, caller: Caller, ref: str) -> list[Delivery]:
    async with context.store.begin() as tx:
        execution = await find_execution(tx, caller, ref)
        return await outbox.list_deliveries(tx, execution.id)


async def find_execution(
    tx: Tx, caller: Caller, ref: str, permission: Permission = Permission.TEST_EXECUTION_VIEW
) -> ExecutionRecord:
    """404 when it is not in the caller's companies, 403 when he may not read there."""
    execution_id = read_id(ref)
    found = await executions.find_execution(tx, execution_id, caller.scope) if execution_id is not None else None
    if found is None:
        raise ExecutionNotFound(f"There is no execution {ref[:20]} in your companies.")
    if not caller.may(permission, found.company_id):
        raise Forbidden(f"Your roles do not include {permission.value} in the company of this execution.")
    return found


async def find_plan_of(context: Context, caller: Caller, plan_ref: str) -> Plan:
    async with context.store.begin() as tx:
        return await find_plan(tx, caller, plan_ref, Permission.PLAN_VIEW)


def _viewable(caller: Caller, permission: Permission) -> list[int] | None:
    if caller.scope is None:
        return None
    return [company_id for company_id in caller.scope if caller.may(permission, company_id)]


def _checked(caller: Caller, job: JobRecord | None, ref: str) -> JobRecord:
    if job is None:
        raise ResultNotFound(f"There is no test result {ref[:80]} in your companies.")
    if not caller.may(Permission.TEST_RESULT_VIEW, job.company_id):
        raise Forbidden("Your roles do not include TEST_RESULT_VIEW in the company of this test result.")
    return job


def _offset(page: int, size: int) -> int:
    if not 1 <= page <= 1_000_000:
        raise InvalidInput("Pages count from 1.")
    return (page - 1) * size


def _milliseconds(text: str | None) -> int | None:
    return round(datetime.fromisoformat(text).timestamp() * 1000) if text else None
