"""Dialect C: the same data as Cloud clients know them, with ISO dates (contract §4)."""

import math
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from proctor.api.deps import BaseUrl, CallerDep, ContextDep
from proctor.api.enterprise import B, _json
from proctor.api.wire import PROBLEMS
from proctor.domain import wire
from proctor.services import catalog, results

router = APIRouter(prefix=f"{B}/api", tags=["cloud"], responses=PROBLEMS)

Size = Annotated[int, Query(ge=1, le=500)]


@router.get("/executions/{id}")
async def read_execution(id: str, context: ContextDep, caller: CallerDep) -> JSONResponse:
    execution, jobs = await results.read_execution(context, caller, id)
    return _json(wire.execution_c(execution, [job.id for job in jobs]))


@router.get("/plans/{id}/executions")
async def list_executions(
    id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl, page: int = 1, size: Size = 50
) -> JSONResponse:
    found, total = await results.list_executions(context, caller, id, page, size=size)
    url = f"{base_url}{B}/api/plans/{quote(id, safe='')}/executions"
    pages = max(1, math.ceil(total / size))
    return _json(
        {
            "current_page": page,
            "total_count": total,
            "page_count": pages,
            "next_page": f"{url}?page={page + 1}&size={size}" if page < pages else None,
            "previous_page": f"{url}?page={page - 1}&size={size}" if page > 1 else None,
            "item_list": [wire.execution_c(execution, []) for execution in found],
            "rest_api_url": f"{base_url}{B}",
        }
    )


@router.get("/results/execution/{execution_id}/scenario/{scenario_id}")
async def list_results_of_scenario(
    execution_id: str, scenario_id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl
) -> JSONResponse:
    jobs = await results.list_jobs_of_scenario(context, caller, execution_id, scenario_id)
    return JSONResponse([wire.result_e(job, base_url, dates="iso") for job in jobs])


@router.get("/results/{id}")
async def read_result(id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl) -> JSONResponse:
    job = await results.read_job(context, caller, id)
    return _json(wire.result_e(job, base_url, dates="iso"))


@router.get("/results/{id}/detailed/filter")
async def read_result_in_detail(
    id: str,
    context: ContextDep,
    caller: CallerDep,
    base_url: BaseUrl,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    size: Size = 50,
    isDesc: bool = False,  # noqa: N803 (the contract's name)
) -> JSONResponse:
    """The result with a page of its recorded commands."""
    job = await results.read_job(context, caller, id)
    commands = await results.read_commands(context, job)
    ordered = commands[::-1] if isDesc else commands
    chosen: dict[str, Any] = {
        "current_page": page,
        "total_count": len(commands),
        "page_count": max(1, math.ceil(len(commands) / size)),
        "item_list": ordered[(page - 1) * size : page * size],
    }
    body = wire.result_e(job, base_url, dates="iso")
    return _json({**body, "test_result_commands_paginated_result": chosen})


@router.get("/plans/{id}/lastFailedScenarios")
async def list_last_failed(id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl) -> JSONResponse:
    jobs = await results.last_failed(context, caller, id)
    by_scenario: dict[int, list[dict[str, Any]]] = {}
    for job in jobs:
        by_scenario.setdefault(job.scenario_id, []).append(wire.result_e(job, base_url, dates="iso"))
    shown = [
        {"scenario": await catalog.scenario_fields(context, caller, str(scenario_id)), "test_results": found}
        for scenario_id, found in by_scenario.items()
    ]
    return JSONResponse(shown)


@router.get("/results/{id}/publicReportLink")
async def read_public_link(id: str, context: ContextDep, caller: CallerDep) -> JSONResponse:
    """The path of a page that shows this result to whoever has the link, for 30 days."""
    job = await results.read_job(context, caller, id)
    return JSONResponse(await results.share(context, job))
