"""Proctor's own routes, below `/api/v1`: what its command line and pages need beyond the contract."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query
from fastapi.responses import JSONResponse, StreamingResponse

from proctor.api.deps import BaseUrl, CallerDep, ContextDep, ListenerDep
from proctor.api.wire import PROBLEMS
from proctor.domain import wire
from proctor.domain.execution import CaseRecord, ExecutionRecord, JobRecord
from proctor.errors import InvalidInput
from proctor.services import accounts, apply, callbacks, results
from proctor.services.manifest import check_manifest
from proctor.store.outbox import Delivery

router = APIRouter(prefix="/api/v1", tags=["native"], responses=PROBLEMS)

# Seconds: how long a poll may wait, how often it looks without being woken, and how long it gathers.
MAX_WAIT = 25.0
POLL_INTERVAL = 5.0
GATHER = 0.2
MEDIA_TYPES = {"png": "image/png", "log": "text/plain; charset=utf-8", "jsonl": "application/x-ndjson"}
FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind.split(";")[0]: {} for kind in (*MEDIA_TYPES.values(), "application/octet-stream")}}
}


@router.post("/apply")
async def apply_manifest(
    context: ContextDep, caller: CallerDep, manifest: Annotated[dict[str, Any], Body()]
) -> JSONResponse:
    """Makes what the manifest says so; 422 lists every mistake with its path."""
    apply.check_may_apply(caller)
    # In a thread: judging a large manifest takes a second, and others are served meanwhile.
    applied = await apply.apply(context, caller, await asyncio.to_thread(check_manifest, manifest))
    return JSONResponse(
        wire.without_none(
            {
                "created": applied.created,
                "updated": applied.updated,
                "plans": applied.plans,
                "callback_secret": applied.callback_secret,
            }
        )
    )


@router.post("/tokens")
async def create_token(
    context: ContextDep,
    caller: CallerDep,
    label: Annotated[str, Body(max_length=200)] = "",
    days: Annotated[int | None, Body(ge=1, le=3650)] = None,
) -> JSONResponse:
    """A personal token, shown this once."""
    lifetime = timedelta(days=days) if days is not None else None
    return JSONResponse({"token": await accounts.create_personal_token(context, caller, label, lifetime)})


@router.get("/tokens")
async def list_tokens(context: ContextDep, caller: CallerDep) -> JSONResponse:
    """The caller's personal tokens, without the tokens themselves."""
    found = await accounts.list_personal_tokens(context, caller)
    return JSONResponse(
        [
            {
                "id": token.id,
                "label": token.label,
                "created_at": token.created_at.isoformat(),
                "expires_at": token.expires_at.isoformat() if token.expires_at else None,
            }
            for token in found
        ]
    )


@router.delete("/tokens/{id}")
async def revoke_token(id: str, context: ContextDep, caller: CallerDep) -> JSONResponse:
    """Revokes a personal token at once."""
    await accounts.revoke_personal_token(context, caller, results.read_id(id) or 0)
    return JSONResponse({"revoked": True})


@router.get("/executions/{id}")
async def read_execution(id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl) -> JSONResponse:
    """An execution with its jobs, their attempts and cases."""
    execution, jobs = await results.read_execution(context, caller, id)
    cases: dict[int, list[CaseRecord]] = {}
    for case in await results.read_cases(context, jobs):
        cases.setdefault(case.attempt_id, []).append(case)
    shown = [_job_fields(job, base_url, cases) for job in jobs]
    return JSONResponse({**execution_fields(execution, base_url), "jobs": shown})


@router.get("/executions/{id}/summary")
async def read_summary(
    id: str,
    context: ContextDep,
    caller: CallerDep,
    base_url: BaseUrl,
    listener: ListenerDep,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT)] = 0,
    after: Annotated[int, Query(ge=0)] = 0,
) -> JSONResponse:
    """An execution's counts, and its events after the given number; waits up to `wait` seconds for something new."""
    async with listener.changes(results.read_id(id) or 0) as changes:
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            execution = await results.read_summary(context, caller, id)
            events = await results.list_events(context, caller, id, after)
            left = deadline - asyncio.get_running_loop().time()
            if events or left <= 0 or execution.end_at is not None or changes.over:
                break
            await changes.wait(min(left, POLL_INTERVAL))
            # What ends together is told together: a plan of short tests must not cost an answer for each.
            await asyncio.sleep(min(left, GATHER))
    shown = [{"sequence": e.sequence, "type": e.type.value, **e.data} for e in events]
    return JSONResponse({**execution_fields(execution, base_url), "events": shown})


@router.get("/executions/{id}/deliveries")
async def list_deliveries(id: str, context: ContextDep, caller: CallerDep) -> JSONResponse:
    """Every try at telling the execution's callbacks, the oldest first."""
    return JSONResponse([delivery_fields(one) for one in await results.list_deliveries(context, caller, id)])


@router.post("/deliveries/{id}/redeliver")
async def redeliver(id: str, context: ContextDep, caller: CallerDep) -> JSONResponse:
    """Sends the event once more, and takes up a callback that was given up."""
    delivery_id = results.read_id(id)
    if delivery_id is None:
        raise InvalidInput("A delivery is named by its integer id.")
    return JSONResponse(delivery_fields(await callbacks.redeliver(context, caller, delivery_id)))


@router.get("/attempts/{id}/artifacts/{name}", response_class=StreamingResponse, responses=FILES)
async def read_artifact(id: str, name: str, context: ContextDep, caller: CallerDep) -> StreamingResponse:
    """A file that an attempt left."""
    attempt, pieces = await results.open_artifact(context, caller, id, name)
    return stream_artifact(name, attempt.artifacts[name], pieces)


def stream_artifact(name: str, size: int, pieces: AsyncIterator[bytes]) -> StreamingResponse:
    """Sends a file so that no browser runs anything in it: test code wrote it."""
    ending = name.rpartition(".")[2]
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(size),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "private, max-age=3600",
    }
    return StreamingResponse(pieces, media_type=MEDIA_TYPES.get(ending, "application/octet-stream"), headers=headers)


def execution_fields(execution: ExecutionRecord, base_url: str) -> dict[str, Any]:
    counts = execution.counts
    return wire.without_none(
        {
            "id": execution.id,
            "plan_id": execution.plan_id,
            "plan_name": execution.plan_name,
            "project_id": execution.project_id,
            "project_name": execution.project_name,
            "state": execution.state.value,
            "level": execution.level.value if execution.level else None,
            "commit": execution.commit,
            "username": execution.username,
            "start_at": execution.start_at.isoformat(),
            "end_at": execution.end_at.isoformat() if execution.end_at else None,
            "url": f"{base_url}/executions/{execution.id}",
            "counts": {
                "total": counts.total,
                "waiting": counts.waiting,
                "running": counts.running,
                "ended": counts.ended,
            },
            "levels": wire.summary(counts),
        }
    )


def _job_fields(job: JobRecord, base_url: str, cases: dict[int, list[CaseRecord]]) -> dict[str, Any]:
    attempts = [
        {
            **wire.attempt_fields(job, attempt, base_url, "iso"),
            "cases": [_case_fields(c) for c in cases.get(attempt.id, [])],
        }
        for attempt in job.attempts
    ]
    fields = wire.result_e(job, base_url, dates="iso")
    return {**fields, "attempts": attempts, "url": f"{base_url}/results/{job.id}"}


def _case_fields(case: CaseRecord) -> dict[str, Any]:
    return wire.without_none(
        {
            "name": case.name,
            "classname": case.classname,
            "status": case.status,
            "milliseconds": case.milliseconds,
            "message": case.message,
            "detail": case.detail,
        }
    )


def delivery_fields(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "callback_id": delivery.callback_id,
        "url": delivery.url,
        "sequence": delivery.sequence,
        "type": delivery.type,
        "try": delivery.try_,
        "delivered": delivery.delivered,
        "status": delivery.status,
        "error": delivery.error,
        "answer": delivery.answer,
        "milliseconds": delivery.milliseconds,
        "sent_at": delivery.sent_at.isoformat(),
    }
