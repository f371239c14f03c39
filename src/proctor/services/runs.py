"""Starting and stopping plans."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proctor.domain.environment import Environment, HubOffer, MissingReason, serves, why_missing
from proctor.domain.permission import Permission
from proctor.domain.plan import Plan, Scenario
from proctor.errors import (
    CompanyNotFound,
    ExecutionNotFound,
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    PlanAlreadyRunning,
    PlanNotFound,
    ScenarioNotFound,
)
from proctor.services import jobs
from proctor.services.accounts import Caller
from proctor.services.context import Context
from proctor.services.dispatch import dispatch
from proctor.store import accounts as accounts_store
from proctor.store import catalog, environments, executions, idempotency, outbox
from proctor.store.engine import Tx

MAX_JOBS = 20_000
KEY_LIMIT = 255


@dataclass(frozen=True)
class RunRequest:
    """What a caller asks. `company_id` names the company in the path; `base_url` is where he reached us."""

    plan: str
    base_url: str
    callback_url: str | None = None
    company_id: int | None = None
    force: bool = False
    # Raise PlanAlreadyRunning rather than join.
    refuse_running: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True)
class MissingEnvironment:
    """An environment that cannot be had, and why."""

    environment: Environment
    reason: MissingReason
    detail: str
    offers: tuple[HubOffer, ...] = ()


@dataclass(frozen=True)
class RunAnswer:
    """What came of it: started, joined a running one, or why not."""

    plan_id: int
    message: str
    execution_id: int | None = None
    already_running: bool = False
    missing: tuple[MissingEnvironment, ...] = ()

    @property
    def started(self) -> bool:
        return self.execution_id is not None and not self.already_running


async def start(context: Context, caller: Caller, request: RunRequest) -> dict[str, Any] | RunAnswer:
    """Starts the plan, or says why not; a repeated Idempotency-Key gives the stored answer, as it went out."""
    if request.callback_url is not None:
        # Looking a name up takes time, so not within the transaction; and only for who may run the plan.
        async with context.store.begin() as tx:
            await find_plan(tx, caller, request.plan, Permission.PLAN_RUN, company_id=request.company_id)
        await context.sender.check(request.callback_url)
    async with context.store.begin() as tx:
        plan = await find_plan(tx, caller, request.plan, Permission.PLAN_RUN, company_id=request.company_id)
        stored = await _claim_key(tx, caller, plan, request)
        if stored is not None:
            return stored
        answer = await _start(context, tx, caller, plan, request)
        await _keep_answer(tx, caller, request, answer)
    if answer.started:
        await dispatch(context)
    return answer


async def stop(context: Context, caller: Caller, plan_ref: str) -> tuple[Plan, bool]:
    """Stops the plan's execution; False when none was running."""
    async with context.store.begin() as tx:
        plan = await find_plan(tx, caller, plan_ref, Permission.PLAN_RUN)
        execution_id = await executions.hold_unfinished(tx, plan.id)
        numbers = await jobs.stop_execution(tx, context.queue, execution_id) if execution_id is not None else []
    await context.queue.cancel(numbers)
    # What nobody had begun gave its slots back.
    await dispatch(context)
    return plan, execution_id is not None


async def is_running(context: Context, caller: Caller, plan_ref: str) -> bool:
    async with context.store.begin() as tx:
        plan = await find_plan(tx, caller, plan_ref, Permission.PLAN_VIEW)
        return await executions.find_unfinished(tx, plan.id) is not None


async def rerun(
    context: Context, caller: Caller, request: RunRequest, scenario_ids: Sequence[int]
) -> dict[str, Any] | RunAnswer:
    """Runs these scenarios again, in the environments of the plan's last execution; else as `start`."""
    async with context.store.begin() as tx:
        plan = await find_plan(tx, caller, request.plan, Permission.PLAN_RUN)
        stored = await _claim_key(tx, caller, plan, request, scenario_ids)
        if stored is not None:
            return stored
        answer = await _restart(context, tx, caller, plan, request, scenario_ids)
        await _keep_answer(tx, caller, request, answer)
    if answer.started:
        await dispatch(context)
    return answer


async def _restart(
    context: Context, tx: Tx, caller: Caller, plan: Plan, request: RunRequest, scenario_ids: Sequence[int]
) -> RunAnswer:
    if not scenario_ids:
        raise ScenarioNotFound("The body names no scenario: send a list of ids.", message="Scenario list not found")
    await catalog.lock_plan(tx, plan.id)
    last = await executions.last_execution_of_plan(tx, plan.id)
    if last is None:
        raise ExecutionNotFound(f"The plan {plan.name} has not run yet: run it first.", message="Execution not found")
    known = {scenario.id: scenario for scenario in await catalog.scenarios_of_plan(tx, plan.id)}
    for scenario_id in scenario_ids:
        if scenario_id not in known:
            raise ScenarioNotFound(f"The plan {plan.name} has no scenario {scenario_id}.")
    used = await executions.environments_of_execution(tx, last)
    chosen = [known[scenario_id] for scenario_id in dict.fromkeys(scenario_ids)]
    return await _start_with(context, tx, caller, plan, request, chosen, used)


async def find_plan(tx: Tx, caller: Caller, ref: str, permission: Permission, *, company_id: int | None = None) -> Plan:
    """The plan by id, or by a name that exactly one of the caller's plans bears."""
    if company_id is not None:
        await check_company(tx, caller, company_id)
    scope = [company_id] if company_id is not None else caller.scope
    found = await catalog.find_plans(tx, ref, scope)
    if not found:
        raise PlanNotFound(f"There is no test plan {ref!r} in your companies.")
    if len(found) > 1:
        ids = ", ".join(str(plan.id) for plan in found)
        raise PlanNotFound(f"{len(found)} plans are named {ref!r} (ids {ids}): use the id.")
    if not caller.may(permission, found[0].company_id):
        raise Forbidden(f"Your roles do not include {permission.value} in the company of this test plan.")
    return found[0]


async def check_company(tx: Tx, caller: Caller, company_id: int) -> None:
    """404 when there is no such company, 403 when the caller does not belong to it."""
    if not await accounts_store.list_companies(tx, [company_id]):
        raise CompanyNotFound(f"There is no company {company_id}.")
    if not caller.belongs_to(company_id):
        raise Forbidden(f"You do not belong to company {company_id}.")


async def _claim_key(
    tx: Tx, caller: Caller, plan: Plan, request: RunRequest, scenario_ids: Sequence[int] = ()
) -> dict[str, Any] | None:
    """The answer that the request's key has already got, None when it is new or there is no key."""
    key = request.idempotency_key
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_LIMIT or not key.isprintable():
        raise InvalidInput(f"Idempotency-Key must have 1 to {KEY_LIMIT} printable characters.")
    asked = json.dumps([plan.id, request.callback_url, request.force, request.refuse_running, *scenario_ids])
    fingerprint = hashlib.sha256(asked.encode()).hexdigest()
    stored = await idempotency.claim(tx, caller.user_id, key, fingerprint)
    if stored is None:
        return None
    if stored.fingerprint != fingerprint:
        raise IdempotencyConflict(
            "This Idempotency-Key came with another plan or body in the last 24 hours: use a new one."
        )
    return stored.answer


async def _keep_answer(tx: Tx, caller: Caller, request: RunRequest, answer: RunAnswer) -> None:
    if request.idempotency_key is not None:
        await idempotency.set_answer(tx, caller.user_id, request.idempotency_key, to_wire(answer))


async def _start(context: Context, tx: Tx, caller: Caller, plan: Plan, request: RunRequest) -> RunAnswer:
    await catalog.lock_plan(tx, plan.id)
    running = await executions.hold_unfinished(tx, plan.id)
    if running is not None:
        return await _join(context, tx, plan, running, request)
    if not plan.enabled:
        return RunAnswer(plan.id, f"The test plan {plan.name} is disabled: enable it first.")
    if not plan.project_enabled:
        return RunAnswer(plan.id, f"The project {plan.project_name} is disabled: enable it first.")
    scenarios = await catalog.scenarios_of_plan(tx, plan.id, only_enabled=True)
    used: list[Environment | None] = list(await environments.environments_of_plan(tx, plan.id))
    return await _start_with(context, tx, caller, plan, request, scenarios, used)


async def _join(context: Context, tx: Tx, plan: Plan, running: int, request: RunRequest) -> RunAnswer:
    message = f"The test plan {plan.name} is already running as execution {running}."
    if request.refuse_running:
        raise PlanAlreadyRunning(message)
    if request.callback_url is not None:
        callback_id = await outbox.add_callback(tx, running, request.callback_url)
        if callback_id is not None:
            # It is told everything from the first event on, so that its sequence has no gaps.
            await jobs.tell_callbacks(tx, context.queue, running)
    return RunAnswer(plan.id, message, execution_id=running, already_running=True)


async def _start_with(
    context: Context,
    tx: Tx,
    caller: Caller,
    plan: Plan,
    request: RunRequest,
    scenarios: Sequence[Scenario],
    used: Sequence[Environment | None],
) -> RunAnswer:
    running = await executions.hold_unfinished(tx, plan.id)
    if running is not None:
        return await _join(context, tx, plan, running, request)
    if plan.framework == "SERVICE":
        used = [None]
    why_nothing = _why_nothing_to_run(plan, scenarios, used)
    if why_nothing:
        return RunAnswer(plan.id, why_nothing)
    missing = _find_missing(used, await environments.list_offers(tx))
    if missing and not request.force:
        names = ", ".join(f"{one.environment.name} ({one.reason.value})" for one in missing)
        return RunAnswer(plan.id, f"Environments are not available: {names}.", missing=tuple(missing))
    execution_id = await _add_execution(context, tx, caller, plan, request, _combine(scenarios, used, missing))
    message = f"The test plan {plan.name} was started as execution {execution_id}."
    return RunAnswer(plan.id, message, execution_id=execution_id, missing=tuple(missing))


def _why_nothing_to_run(plan: Plan, scenarios: Sequence[Scenario], used: Sequence[Environment | None]) -> str | None:
    if not scenarios:
        return f"The test plan {plan.name} has nothing to run: it has no enabled scenario."
    if not used:
        return f"The test plan {plan.name} has nothing to run: it has no environment."
    if len(scenarios) * len(used) > MAX_JOBS:
        return f"The test plan {plan.name} would make {len(scenarios) * len(used)} jobs; {MAX_JOBS} is the most."
    return None


def _find_missing(used: Sequence[Environment | None], offers: list[HubOffer]) -> list[MissingEnvironment]:
    missing: list[MissingEnvironment] = []
    for environment in used:
        reason = why_missing(environment, offers) if environment is not None else None
        if environment is not None and reason is not None:
            serving = tuple(offer for offer in offers if serves(offer.stereotype, environment))
            missing.append(MissingEnvironment(environment, reason, _explain(environment, reason), serving))
    return missing


def _explain(environment: Environment, reason: MissingReason) -> str:
    wanted = " ".join(filter(None, [environment.os, environment.browser, environment.version]))
    return {
        MissingReason.DISABLED: f"The environment {environment.name} is disabled: enable it to use it.",
        MissingReason.UNKNOWN: f"No hub offers {wanted}: add one that does, or install it where a worker runs.",
        MissingReason.OFFLINE: f"A hub offers {wanted}, but is offline: start its worker, or wait for it to come back.",
    }[reason]


def _combine(
    scenarios: Sequence[Scenario], used: Sequence[Environment | None], missing: Sequence[MissingEnvironment]
) -> list[executions.NewJob]:
    reasons = {one.environment.id: one.detail for one in missing}
    return [
        executions.NewJob(
            scenario.id,
            environment.id if environment else None,
            reasons.get(environment.id) if environment else None,
        )
        for scenario in scenarios
        for environment in used
    ]


async def _add_execution(
    context: Context,
    tx: Tx,
    caller: Caller,
    plan: Plan,
    request: RunRequest,
    new_jobs: Sequence[executions.NewJob],
) -> int:
    used = dict.fromkeys(job.environment_id for job in new_jobs)
    execution_id = await executions.add_execution(
        tx, plan, user_id=caller.user_id, base_url=request.base_url, environment_ids=list(used)
    )
    unexecuted = await executions.add_jobs(tx, execution_id, new_jobs)
    if request.callback_url is not None:
        await outbox.add_callback(tx, execution_id, request.callback_url)
    await jobs.tell_started(tx, context.queue, execution_id)
    if unexecuted:
        await jobs.tell_ended_jobs(tx, context.queue, execution_id, unexecuted)
    return execution_id


def to_wire(answer: RunAnswer) -> dict[str, Any]:
    """The answer of contract §3."""
    wire: dict[str, Any] = {
        "test_plan_id": answer.plan_id,
        "unavailable_env_list": [_missing_to_wire(one) for one in answer.missing],
        "successful": answer.started,
        # A published client reads the misspelt key and fails without it.
        "succesful": answer.started,
        "already_running": answer.already_running,
        "message": answer.message,
    }
    if answer.execution_id is not None:
        wire = {"execution_id": answer.execution_id, **wire}
    return wire


def _missing_to_wire(missing: MissingEnvironment) -> dict[str, Any]:
    environment = missing.environment
    versions = [{"environment_id": environment.id, "version": environment.version or "LATEST"}]
    return {
        "id": environment.id,
        "name": environment.name,
        "reason": missing.reason.value,
        "detail": missing.detail,
        "operating_system": {"code": environment.os, "platform": environment.os, "mobile": environment.mobile},
        "browsers": [
            {
                "code": environment.browser.upper(),
                "browser_name": environment.browser.capitalize(),
                "versions": versions,
            }
        ]
        if not environment.mobile
        else [],
        "devices": [],
    }
