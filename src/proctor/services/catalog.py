"""Reading companies, projects, scenarios, plans and environments, in the shapes of contract §5."""

from collections.abc import Sequence
from typing import Any, TypeVar

from proctor.domain.permission import Permission
from proctor.domain.plan import Plan, Project, Scenario
from proctor.errors import CompanyNotFound, Forbidden, NotFound, PlanNotFound, ProjectNotFound, ScenarioNotFound
from proctor.services.accounts import Caller
from proctor.services.context import Context
from proctor.store import accounts, catalog, environments, executions
from proctor.store.engine import Tx

Fields = dict[str, Any]
T = TypeVar("T")


async def list_companies(context: Context, caller: Caller) -> list[Fields]:
    async with context.store.begin() as tx:
        found = await accounts.list_companies(tx, caller.scope)
    return [{"id": one.id, "company_name": one.name, "short_name": one.short_name} for one in found]


async def read_company(context: Context, caller: Caller, company_id: int) -> Fields:
    found = [one for one in await list_companies(context, caller) if one["id"] == company_id]
    if not found:
        raise CompanyNotFound(f"There is no company {company_id} that you belong to.")
    return found[0]


async def list_projects(
    context: Context, caller: Caller, *, only_enabled: bool = False, company_id: int | None = None
) -> list[Fields]:
    async with context.store.begin() as tx:
        scope = _scope(caller, company_id)
        found = await catalog.list_projects(tx, scope, only_enabled=only_enabled)
    return [project_fields(project) for project in found]


async def read_project(context: Context, caller: Caller, ref: str) -> Fields:
    async with context.store.begin() as tx:
        return project_fields(await find_project(tx, caller, ref))


async def list_scenarios(context: Context, caller: Caller, project_ref: str | None = None) -> list[Fields]:
    async with context.store.begin() as tx:
        project_id = (await find_project(tx, caller, project_ref)).id if project_ref is not None else None
        found = await catalog.list_scenarios(tx, _scope(caller), project_id=project_id)
    return [_scenario_fields(scenario) for scenario in found]


async def scenario_fields(context: Context, caller: Caller, ref: str, project_ref: str | None = None) -> Fields:
    async with context.store.begin() as tx:
        return _scenario_fields(await find_scenario(tx, caller, ref, project_ref))


async def read_parameters(context: Context, caller: Caller, ref: str, project_ref: str) -> Fields:
    async with context.store.begin() as tx:
        scenario = await find_scenario(tx, caller, ref, project_ref)
    listed = [{"name": name, "value": value, "description": ""} for name, value in scenario.parameters.items()]
    return {"testParameters": listed}


async def list_plans_of_scenario(context: Context, caller: Caller, ref: str, project_ref: str) -> list[Fields]:
    async with context.store.begin() as tx:
        scenario = await find_scenario(tx, caller, ref, project_ref)
        found = await catalog.list_plans(tx, _scope(caller), scenario_id=scenario.id)
        return [await plan_fields(tx, plan) for plan in found]


async def list_plans(
    context: Context, caller: Caller, project_ref: str | None = None, *, running: bool = False
) -> list[Fields]:
    """Plans; `running` keeps those that run now."""
    async with context.store.begin() as tx:
        project_id = (await find_project(tx, caller, project_ref)).id if project_ref is not None else None
        found = await catalog.list_plans(tx, _scope(caller), project_id=project_id)
        if running:
            found = [plan for plan in found if await executions.find_unfinished(tx, plan.id) is not None]
        return [await plan_fields(tx, plan) for plan in found]


async def read_plan(context: Context, caller: Caller, ref: str, project_ref: str | None = None) -> Fields:
    async with context.store.begin() as tx:
        return await plan_fields(tx, await find_plan(tx, caller, ref, project_ref))


async def list_scenarios_of_plan(
    context: Context, caller: Caller, ref: str, project_ref: str | None = None
) -> list[Fields]:
    async with context.store.begin() as tx:
        plan = await find_plan(tx, caller, ref, project_ref)
        return [_scenario_fields(scenario) for scenario in await catalog.scenarios_of_plan(tx, plan.id)]


async def list_environments(context: Context, caller: Caller, *, mobile: bool) -> list[Fields]:
    """Environments grouped by operating system, then browser."""
    async with context.store.begin() as tx:
        found = await environments.list_environments(tx, caller.scope)
    grouped: dict[str, dict[str, list[Fields]]] = {}
    for row in found:
        environment = row.environment
        if environment.mobile is mobile:
            versions = grouped.setdefault(environment.os, {}).setdefault(environment.browser, [])
            versions.append(
                {
                    "environment_id": environment.id,
                    "name": environment.name,
                    "version": environment.version or "LATEST",
                    "enabled": environment.enabled,
                }
            )
    return [
        {
            "operating_system": {"code": os, "platform": os, "mobile": mobile},
            "browsers": [
                {"code": browser.upper(), "browser_name": browser.capitalize(), "versions": versions}
                for browser, versions in browsers.items()
            ],
        }
        for os, browsers in grouped.items()
    ]


async def find_project(tx: Tx, caller: Caller, ref: str) -> Project:
    found = await catalog.find_projects(tx, ref, caller.scope)
    project = _only(found, "project", ref, ProjectNotFound)
    _check_view(caller, project.company_id)
    return project


async def find_scenario(tx: Tx, caller: Caller, ref: str, project_ref: str | None = None) -> Scenario:
    project_id = (await find_project(tx, caller, project_ref)).id if project_ref is not None else None
    found = await catalog.find_scenarios(tx, ref, _scope(caller), project_id=project_id)
    return _only(found, "scenario", ref, ScenarioNotFound)


async def find_plan(tx: Tx, caller: Caller, ref: str, project_ref: str | None = None) -> Plan:
    project_id = (await find_project(tx, caller, project_ref)).id if project_ref is not None else None
    found = await catalog.find_plans(tx, ref, caller.scope, project_id=project_id)
    if len(found) != 1:
        detail = f"There is no plan {ref!r} in your companies." if not found else _ambiguous("plan", ref, found)
        raise PlanNotFound(detail, message="Plan not found")
    _check_view(caller, found[0].company_id)
    return found[0]


def project_fields(project: Project) -> Fields:
    return {
        "id": project.id,
        "project_name": project.name,
        "description": project.description,
        "enabled": project.enabled,
        "repository_path": project.repository,
        "branch": project.branch,
        "company_id": project.company_id,
        "test_framework": project.framework,
        "test_file_type": "PYTHON" if project.runner == "pytest" else "COMMAND",
        "test_runner_tool": project.runner.upper(),
        "mobile_apps": [],
    }


def _scenario_fields(scenario: Scenario) -> Fields:
    return {
        "id": scenario.id,
        "scenario_name": scenario.name,
        "description": scenario.description,
        "expected_result": "",
        "enabled": scenario.enabled,
        "execute_mode": "AUTOMATED",
        "source_file": scenario.source,
        "project_id": scenario.project_id,
        "java_test_class": "",
        "java_test_methods": scenario.selector,
    }


async def plan_fields(tx: Tx, plan: Plan) -> Fields:
    scenarios = await catalog.scenarios_of_plan(tx, plan.id)
    used = await environments.environments_of_plan(tx, plan.id)
    return {
        "id": plan.id,
        "project_id": plan.project_id,
        "company_id": plan.company_id,
        "plan_name": plan.name,
        "group_plan": False,
        "description": plan.description,
        "enabled": plan.enabled,
        "plan_parallel_test_limit": plan.parallel,
        "scenarios": [scenario.id for scenario in scenarios],
        "period": {"period_type": "MANUAL"},
        "alerts": [],
        "alerts_enabled": False,
        "failed_test_retry_count": plan.retries,
        "screen_shot_type": plan.screenshots,
        "screenshots_enabled": plan.screenshots != "NO",
        "video_enabled": plan.video,
        "performance_data_enabled": False,
        "environments": [{"id": environment.id} for environment in used],
        "environment_resolutions": [],
        "max_step_duration": plan.timeout_seconds,
        "clear_app_data": False,
        "fetch_app_files": [],
        "resolutions": {one.os: one.resolution for one in used if one.resolution},
    }


def _scope(caller: Caller, company_id: int | None = None) -> list[int] | None:
    """The companies whose plans and projects he may read."""
    if company_id is not None:
        if not caller.belongs_to(company_id):
            raise CompanyNotFound(f"There is no company {company_id} that you belong to.")
        _check_view(caller, company_id)
        return [company_id]
    if caller.scope is None:
        return None
    return [one for one in caller.scope if caller.may(Permission.PLAN_VIEW, one)]


def _check_view(caller: Caller, company_id: int) -> None:
    if not caller.may(Permission.PLAN_VIEW, company_id):
        raise Forbidden(f"Your roles do not include PLAN_VIEW in company {company_id}.")


def _only(found: Sequence[T], what: str, ref: str, error: type[NotFound]) -> T:
    if not found:
        raise error(f"There is no {what} {ref!r} in your companies.")
    if len(found) > 1:
        raise error(_ambiguous(what, ref, found))
    return found[0]


def _ambiguous(what: str, ref: str, found: Sequence[Any]) -> str:
    ids = ", ".join(str(one.id) for one in found[:10])
    return f"{len(found)} {what}s are named {ref!r} (ids {ids}): use the id."
