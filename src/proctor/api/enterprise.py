"""Dialect E: run, stop, and reading as Enterprise clients know them (contract §3, §4)."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Header, Query, Request
from fastapi.responses import JSONResponse

from proctor.api.deps import BaseUrl, CallerDep, ContextDep, LastingUrl, refuse_prefetch
from proctor.api.wire import PROBLEMS, RunTestPlanResponse, paginate
from proctor.domain import wire
from proctor.domain.text import storable
from proctor.errors import CallbackRefused, CompanyNotFound, InvalidInput, PlanNotFound
from proctor.services import results, runs
from proctor.services.accounts import Caller
from proctor.services.context import Context
from proctor.services.runs import RunAnswer, RunRequest

B = "/Testinium.RestApi"
router = APIRouter(prefix=f"{B}/api", tags=["enterprise"], responses=PROBLEMS)

CallbackUrl = Annotated[
    str | None, Query(alias="callbackUrl", description="Where status updates are posted.", max_length=2000)
]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]
RUN: dict[str, Any] = {"response_model": RunTestPlanResponse, "dependencies": [Depends(refuse_prefetch)]}


# --- run -------------------------------------------------------------------------------------------------------------


@router.get("/plans/{id:path}/run", **RUN)
async def run_plan(
    id: str,
    context: ContextDep,
    caller: CallerDep,
    base_url: LastingUrl,
    callback_url: CallbackUrl = None,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Starts the plan, joins its running execution, or says which environments are missing."""
    asked = RunRequest(id, base_url, callback_url or None, idempotency_key=idempotency_key)
    return await _run(context, caller, asked)


@router.post("/plans/{id:path}/run", **RUN)
async def post_run_plan(
    id: str,
    request: Request,
    context: ContextDep,
    caller: CallerDep,
    base_url: LastingUrl,
    callback_url: CallbackUrl = None,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """The same, safe for proxies that repeat a GET."""
    from_body = await _read_callback_url(request)
    asked = RunRequest(id, base_url, callback_url or from_body or None, idempotency_key=idempotency_key)
    return await _run(context, caller, asked)


@router.get("/plans/{id:path}/run/company/{companyId}", **RUN)
async def run_plan_of_company(
    id: str,
    companyId: str,  # noqa: N803 (the contract's name)
    context: ContextDep,
    caller: CallerDep,
    base_url: LastingUrl,
    callback_url: CallbackUrl = None,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """The same for a named company."""
    company_id = _read_id(companyId)
    if company_id is None:
        raise CompanyNotFound(f"There is no company {companyId[:40]!r}: companies are named by their integer id.")
    asked = RunRequest(id, base_url, callback_url or None, company_id=company_id, idempotency_key=idempotency_key)
    return await _run(context, caller, asked)


@router.get("/plans/{id:path}/run/{forceRun}", **RUN)
async def force_run_plan(
    id: str,
    forceRun: str,  # noqa: N803 (the contract's name)
    context: ContextDep,
    caller: CallerDep,
    base_url: LastingUrl,
    callback_url: CallbackUrl = None,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """With `true`, starts with the environments that are there; 409 when it is running already."""
    if forceRun.lower() not in {"true", "false"}:
        raise InvalidInput("forceRun must be true or false.")
    asked = RunRequest(
        id,
        base_url,
        callback_url or None,
        force=forceRun.lower() == "true",
        refuse_running=True,
        idempotency_key=idempotency_key,
    )
    return await _run(context, caller, asked)


@router.get("/plans/{id:path}/checkIsRunning")
async def check_is_running(id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    try:
        running = await runs.is_running(context, caller, id)
    except PlanNotFound as error:
        raise PlanNotFound(error.detail, message="Plan not found") from error
    return {"status": "SUCCESS", "running": running}


@router.get("/plans/{id:path}/stop", dependencies=[Depends(refuse_prefetch)])
async def stop_plan(id: str, context: ContextDep, caller: CallerDep) -> dict[str, Any]:
    try:
        plan, stopped = await runs.stop(context, caller, id)
    except PlanNotFound as error:
        raise PlanNotFound(error.detail, message="Test plan not found") from error
    if not stopped:
        return {"status": "NOT_AVAILABLE", "message": f"Plan Id {plan.id} is not running"}
    return {"status": "SUCCESS", "message": f"Plan Id {plan.id} has been stopped"}


@router.post("/plans/{id:path}/rerun")
async def rerun_plan(
    id: str,
    context: ContextDep,
    caller: CallerDep,
    base_url: LastingUrl,
    scenario_ids: Annotated[list[int], Body(max_length=10_000)],
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Runs these scenarios again in the environments of the last execution."""
    asked = RunRequest(id, base_url, idempotency_key=idempotency_key)
    try:
        answer = await runs.rerun(context, caller, asked, scenario_ids)
    except PlanNotFound as error:
        raise PlanNotFound(error.detail, message="Plan not found") from error
    body = _run_fields(answer)
    return {name: body[name] for name in ("successful", "message", "execution_id") if name in body}


# --- reading ---------------------------------------------------------------------------------------------------------


@router.get("/testExecutions/{id}")
@router.get("/testExecutions/{id}/company/{company_id}")
async def read_execution(
    id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl, company_id: str | None = None
) -> JSONResponse:
    if company_id is not None:
        caller = await _within(context, caller, company_id)
    execution, jobs = await results.read_execution(context, caller, id)
    return _json(wire.execution_e(execution, [wire.result_e(job, base_url) for job in jobs]))


@router.get("/plans/{id}/testExecutions")
@router.get("/plans/{id}/testExecutions/pages/{page}")
async def list_executions(
    id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl, page: int = 1
) -> JSONResponse:
    found, total = await results.list_executions(context, caller, id, page)
    pagination = paginate(f"{base_url}{B}/api/plans/{quote(id, safe='')}/testExecutions/pages", page, total)
    return _json({"pagination": pagination, "execution_list": [wire.execution_e(one, []) for one in found]})


@router.get("/testResults/{id}")
async def read_result(id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl) -> JSONResponse:
    job = await results.read_job(context, caller, id)
    commands = await results.read_commands(context, job)
    return _json(wire.result_e(job, base_url, commands=commands))


@router.get("/testResults/session/{session_id}")
async def read_result_of_session(
    session_id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl
) -> JSONResponse:
    job = await results.read_job_of_session(context, caller, session_id)
    commands = await results.read_commands(context, job)
    return _json(wire.result_e(job, base_url, commands=commands))


@router.get("/testResults/executionId/{execution_id}")
@router.get("/testResults/executionId/{execution_id}/pages/{page}")
async def list_results(
    execution_id: str, context: ContextDep, caller: CallerDep, base_url: BaseUrl, page: int = 1
) -> JSONResponse:
    jobs, total = await results.list_jobs(context, caller, execution_id, page)
    pagination = paginate(f"{base_url}{B}/api/testResults/executionId/{execution_id}/pages", page, total)
    return _json({"pagination": pagination, "test_result_list": [wire.result_e(job, base_url) for job in jobs]})


# ---------------------------------------------------------------------------------------------------------------------


async def _run(context: Context, caller: Caller, asked: RunRequest) -> JSONResponse:
    answer = await runs.start(context, caller, asked)
    return _json(_run_fields(answer))


def _run_fields(answer: dict[str, Any] | RunAnswer) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else runs.to_wire(answer)


def _json(body: dict[str, Any]) -> JSONResponse:
    return JSONResponse(body, headers={"Cache-Control": "no-store"})


async def _read_callback_url(request: Request) -> str | None:
    """`callbackUrl` of a JSON body, which may be missing or empty."""
    raw = await request.body()
    if not raw.strip():
        return None
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        # RecursionError: a hundred thousand opening brackets.
        raise InvalidInput("The body is not JSON.") from error
    if not isinstance(body, dict):
        raise InvalidInput("The body must be a JSON object.")
    url = body.get("callbackUrl", body.get("callback_url"))
    if url is not None and not isinstance(url, str):
        raise InvalidInput("callbackUrl must be a string.")
    if url is not None and not storable(url):
        raise CallbackRefused("The callback URL contains a character that cannot be sent.")
    return url


def _read_id(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


async def _within(context: Context, caller: Caller, company_id: str) -> Caller:
    known = _read_id(company_id)
    if known is None:
        raise CompanyNotFound(f"There is no company {company_id[:40]!r}.")
    async with context.store.begin() as tx:
        await runs.check_company(tx, caller, known)
    return caller.within(known)
