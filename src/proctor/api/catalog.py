"""Reading companies, projects, scenarios, plans and environments (contract §5); changing them comes later."""

from typing import Any

from fastapi import APIRouter

from proctor.api.deps import CallerDep, ContextDep
from proctor.api.wire import PROBLEMS
from proctor.errors import CompanyNotFound, Forbidden
from proctor.services import catalog
from proctor.services.results import read_id

router = APIRouter(prefix="/Testinium.RestApi/api", tags=["catalog"], responses=PROBLEMS)

Fields = dict[str, Any]


@router.get("/companies")
async def list_all_companies(context: ContextDep, caller: CallerDep) -> list[Fields]:
    if not caller.admin:
        raise Forbidden("Listing all companies needs ROLE_ADMIN; /users/companies/ lists yours.")
    return await catalog.list_companies(context, caller)


@router.get("/users/companies")
async def list_own_companies(context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_companies(context, caller)


@router.get("/companies/{id}")
async def read_company(id: str, context: ContextDep, caller: CallerDep) -> Fields:
    return await catalog.read_company(context, caller, _company_id(id))


@router.get("/projects")
@router.get("/projects/byUserCompanies")
async def list_projects(context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_projects(context, caller)


@router.get("/projects/actives")
async def list_active_projects(context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_projects(context, caller, only_enabled=True)


@router.get("/projects/projectsByCompany/{company_id}")
@router.get("/projects/company/{company_id}")
async def list_projects_of_company(company_id: str, context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_projects(context, caller, company_id=_company_id(company_id))


@router.get("/projects/{project}")
@router.get("/projects/{project}/active")
async def read_project(project: str, context: ContextDep, caller: CallerDep) -> Fields:
    return await catalog.read_project(context, caller, project)


@router.get("/scenarios")
async def list_scenarios(context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_scenarios(context, caller)


@router.get("/scenarios/{scenario}")
async def read_any_scenario(scenario: str, context: ContextDep, caller: CallerDep) -> Fields:
    return await catalog.scenario_fields(context, caller, scenario)


@router.get("/projects/{project}/scenarios")
async def list_scenarios_of_project(project: str, context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_scenarios(context, caller, project)


@router.get("/projects/{project}/scenarios/{scenario}")
async def read_scenario(project: str, scenario: str, context: ContextDep, caller: CallerDep) -> Fields:
    return await catalog.scenario_fields(context, caller, scenario, project)


@router.get("/projects/{project}/scenarios/{scenario}/childScenarios")
async def list_child_scenarios(project: str, scenario: str, context: ContextDep, caller: CallerDep) -> list[Fields]:
    """Always empty: Proctor's scenarios have no children."""
    await catalog.scenario_fields(context, caller, scenario, project)
    return []


@router.get("/projects/{project}/scenarios/{scenario}/plans")
async def list_plans_of_scenario(project: str, scenario: str, context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_plans_of_scenario(context, caller, scenario, project)


@router.get("/projects/{project}/scenarios/{scenario}/testParameters")
async def read_parameters(project: str, scenario: str, context: ContextDep, caller: CallerDep) -> Fields:
    return await catalog.read_parameters(context, caller, scenario, project)


@router.get("/plans")
async def list_plans(context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_plans(context, caller)


@router.get("/plans/{plan}")
@router.get("/plans/{plan}/active")
async def read_any_plan(plan: str, context: ContextDep, caller: CallerDep) -> Fields:
    return await catalog.read_plan(context, caller, plan)


@router.get("/projects/{project}/plans")
@router.get("/projects/{project}/plans/byUserCompanies")
@router.get("/projects/{project}/parentPlans")
async def list_plans_of_project(project: str, context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_plans(context, caller, project)


@router.get("/projects/{project}/plans/active")
async def list_active_plans(project: str, context: ContextDep, caller: CallerDep) -> list[Fields]:
    """The project's plans that run now."""
    return await catalog.list_plans(context, caller, project, running=True)


@router.get("/projects/{project}/plans/{plan}")
async def read_plan(project: str, plan: str, context: ContextDep, caller: CallerDep) -> Fields:
    return await catalog.read_plan(context, caller, plan, project)


@router.get("/projects/{project}/plans/{plan}/scenarios")
async def list_scenarios_of_plan(project: str, plan: str, context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_scenarios_of_plan(context, caller, plan, project)


@router.get("/environments/desktop")
async def list_desktop_environments(context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_environments(context, caller, mobile=False)


@router.get("/environments/mobile")
async def list_mobile_environments(context: ContextDep, caller: CallerDep) -> list[Fields]:
    return await catalog.list_environments(context, caller, mobile=True)


def _company_id(text: str) -> int:
    company_id = read_id(text)
    if company_id is None:
        raise CompanyNotFound(f"There is no company {text[:40]!r}: companies are named by their integer id.")
    return company_id
