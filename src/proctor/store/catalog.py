"""Projects, scenarios, plans."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from proctor.domain.plan import Plan, Project, Scenario
from proctor.store.engine import Tx, json_value

_PROJECT = "id, company_id, name, description, enabled, repository, branch, framework, runner"
_SCENARIO = "s.id, s.project_id, s.name, s.description, s.source, s.selector, s.parameters, s.enabled"
_PLAN = """p.id, p.project_id, r.company_id, p.name, r.name AS project_name, p.description, p.enabled,
    r.enabled AS project_enabled, r.framework, p.parallel, p.retries, p.timeout_seconds, p.screenshots, p.video"""

# What a caller may see: the companies' ids, or None for all of them.
Scope = Sequence[int] | None


def _scope(companies: Scope) -> list[int] | None:
    return None if companies is None else list(companies)


def _reference(name_or_id: str) -> dict[str, Any]:
    """A name that is all digits is an id (contract §5)."""
    is_id = name_or_id.isascii() and name_or_id.isdigit() and len(name_or_id) <= 18
    # PostgreSQL's text has no NUL: a name with one is nobody's.
    return {"id": int(name_or_id) if is_id else None, "name": None if is_id else name_or_id.replace("\0", "\ufffd")}


# --- reading ---------------------------------------------------------------------------------------------------------


async def list_projects(tx: Tx, companies: Scope, *, only_enabled: bool = False) -> list[Project]:
    rows = await tx.execute(
        text(
            f"""SELECT {_PROJECT} FROM projects
                WHERE (CAST(:companies AS bigint[]) IS NULL OR company_id = ANY(:companies))
                  AND (enabled OR NOT :only_enabled) ORDER BY id"""  # noqa: S608 (constants)
        ),
        {"companies": _scope(companies), "only_enabled": only_enabled},
    )
    return [Project(**row._mapping) for row in rows]


async def find_projects(tx: Tx, name_or_id: str, companies: Scope) -> list[Project]:
    """The projects in sight with that id or name; names are unique within a company only."""
    rows = await tx.execute(
        text(
            f"""SELECT {_PROJECT} FROM projects
                WHERE (CAST(:companies AS bigint[]) IS NULL OR company_id = ANY(:companies))
                  AND (id = :id OR name = :name) ORDER BY id"""  # noqa: S608
        ),
        {"companies": _scope(companies), **_reference(name_or_id)},
    )
    return [Project(**row._mapping) for row in rows]


async def list_scenarios(tx: Tx, companies: Scope, *, project_id: int | None = None) -> list[Scenario]:
    rows = await tx.execute(
        text(
            f"""SELECT {_SCENARIO} FROM scenarios s JOIN projects r ON r.id = s.project_id
                WHERE (CAST(:companies AS bigint[]) IS NULL OR r.company_id = ANY(:companies))
                  AND (CAST(:project AS bigint) IS NULL OR s.project_id = :project)
                ORDER BY s.project_id, s.position, s.id"""  # noqa: S608
        ),
        {"companies": _scope(companies), "project": project_id},
    )
    return [Scenario(**row._mapping) for row in rows]


async def find_scenarios(tx: Tx, name_or_id: str, companies: Scope, *, project_id: int | None = None) -> list[Scenario]:
    rows = await tx.execute(
        text(
            f"""SELECT {_SCENARIO} FROM scenarios s JOIN projects r ON r.id = s.project_id
                WHERE (CAST(:companies AS bigint[]) IS NULL OR r.company_id = ANY(:companies))
                  AND (CAST(:project AS bigint) IS NULL OR s.project_id = :project)
                  AND (s.id = :id OR s.name = :name) ORDER BY s.id"""  # noqa: S608
        ),
        {"companies": _scope(companies), "project": project_id, **_reference(name_or_id)},
    )
    return [Scenario(**row._mapping) for row in rows]


async def list_plans(
    tx: Tx, companies: Scope, *, project_id: int | None = None, scenario_id: int | None = None
) -> list[Plan]:
    rows = await tx.execute(
        text(
            f"""SELECT {_PLAN} FROM plans p JOIN projects r ON r.id = p.project_id
                WHERE (CAST(:companies AS bigint[]) IS NULL OR r.company_id = ANY(:companies))
                  AND (CAST(:project AS bigint) IS NULL OR p.project_id = :project)
                  AND (CAST(:scenario AS bigint) IS NULL OR EXISTS (
                      SELECT 1 FROM scenarios s
                      LEFT JOIN plan_scenarios ps ON ps.scenario_id = s.id AND ps.plan_id = p.id
                      WHERE s.id = :scenario AND s.project_id = p.project_id
                        AND (p.all_scenarios OR ps.plan_id IS NOT NULL)))
                ORDER BY p.id"""  # noqa: S608
        ),
        {"companies": _scope(companies), "project": project_id, "scenario": scenario_id},
    )
    return [Plan(**row._mapping) for row in rows]


async def find_plans(tx: Tx, name_or_id: str, companies: Scope, *, project_id: int | None = None) -> list[Plan]:
    rows = await tx.execute(
        text(
            f"""SELECT {_PLAN} FROM plans p JOIN projects r ON r.id = p.project_id
                WHERE (CAST(:companies AS bigint[]) IS NULL OR r.company_id = ANY(:companies))
                  AND (CAST(:project AS bigint) IS NULL OR p.project_id = :project)
                  AND (p.id = :id OR p.name = :name) ORDER BY p.id"""  # noqa: S608
        ),
        {"companies": _scope(companies), "project": project_id, **_reference(name_or_id)},
    )
    return [Plan(**row._mapping) for row in rows]


async def lock_plan(tx: Tx, plan_id: int) -> None:
    """Holds the plan until the transaction ends: starts of one plan go one after the other."""
    # NO KEY: an execution's second update in a transaction checks its foreign keys again, and would wait for us.
    await tx.execute(text("SELECT 1 FROM plans WHERE id = :id FOR NO KEY UPDATE"), {"id": plan_id})


async def scenarios_of_plan(tx: Tx, plan_id: int, *, only_enabled: bool = False) -> list[Scenario]:
    rows = await tx.execute(
        text(
            f"""SELECT {_SCENARIO} FROM plans p JOIN scenarios s ON s.project_id = p.project_id
                LEFT JOIN plan_scenarios ps ON ps.plan_id = p.id AND ps.scenario_id = s.id
                WHERE p.id = :plan AND (p.all_scenarios OR ps.plan_id IS NOT NULL) AND (s.enabled OR NOT :only_enabled)
                ORDER BY ps.position NULLS LAST, s.position, s.id"""  # noqa: S608
        ),
        {"plan": plan_id, "only_enabled": only_enabled},
    )
    return [Scenario(**row._mapping) for row in rows]


# --- writing ---------------------------------------------------------------------------------------------------------


async def put_project(tx: Tx, company_id: int, values: Mapping[str, Any]) -> tuple[int, bool]:
    """Makes or changes the company's project of that name; gives its id and whether it was made."""
    row = (
        await tx.execute(
            text(
                """INSERT INTO projects (company_id, name, description, enabled, repository, branch, framework, runner,
                       setup, command, parameters, credential)
                   VALUES (:company, :name, :description, :enabled, :repository, :branch, :framework, :runner, :setup,
                       :command, :parameters, coalesce(:credential, '{}'))
                   ON CONFLICT (company_id, name) DO UPDATE SET description = excluded.description,
                       enabled = excluded.enabled, repository = excluded.repository, branch = excluded.branch,
                       framework = excluded.framework, runner = excluded.runner, setup = excluded.setup,
                       command = excluded.command, parameters = excluded.parameters,
                       credential = coalesce(:credential, projects.credential)
                   RETURNING id, xmax = 0 AS made"""
            ).bindparams(
                json_value("parameters", values["parameters"]), json_value("credential", values["credential"])
            ),
            {
                "company": company_id,
                **{name: value for name, value in values.items() if name not in {"parameters", "credential"}},
            },
        )
    ).one()
    return row.id, row.made


async def put_scenario(tx: Tx, project_id: int, position: int, values: Mapping[str, Any]) -> tuple[int, bool]:
    row = (
        await tx.execute(
            text(
                """INSERT INTO scenarios (project_id, name, description, source, selector, command, parameters, enabled,
                       position)
                   VALUES (:project, :name, :description, :source, :selector, :command, :parameters, :enabled,
                       :position)
                   ON CONFLICT (project_id, name) DO UPDATE SET description = excluded.description,
                       source = excluded.source, selector = excluded.selector, command = excluded.command,
                       parameters = excluded.parameters, enabled = excluded.enabled, position = excluded.position
                   RETURNING id, xmax = 0 AS made"""
            ).bindparams(json_value("parameters", values["parameters"])),
            {
                "project": project_id,
                "position": position,
                **{name: value for name, value in values.items() if name != "parameters"},
            },
        )
    ).one()
    return row.id, row.made


async def put_plan(tx: Tx, project_id: int, values: Mapping[str, Any]) -> tuple[int, bool]:
    row = (
        await tx.execute(
            text(
                """INSERT INTO plans (project_id, name, description, enabled, parallel, retries, timeout_seconds,
                       screenshots, video, parameters, all_scenarios)
                   VALUES (:project, :name, :description, :enabled, :parallel, :retries, :timeout_seconds,
                       :screenshots, :video, :parameters, :all_scenarios)
                   ON CONFLICT (project_id, name) DO UPDATE SET description = excluded.description,
                       enabled = excluded.enabled, parallel = excluded.parallel, retries = excluded.retries,
                       timeout_seconds = excluded.timeout_seconds, screenshots = excluded.screenshots,
                       video = excluded.video, parameters = excluded.parameters, all_scenarios = excluded.all_scenarios
                   RETURNING id, xmax = 0 AS made"""
            ).bindparams(json_value("parameters", values["parameters"])),
            {"project": project_id, **{name: value for name, value in values.items() if name != "parameters"}},
        )
    ).one()
    return row.id, row.made


async def set_plan_scenarios(tx: Tx, plan_id: int, scenario_ids: Sequence[int]) -> None:
    await _set_links(tx, "plan_scenarios", "scenario_id", plan_id, scenario_ids)


async def set_plan_environments(tx: Tx, plan_id: int, environment_ids: Sequence[int]) -> None:
    await _set_links(tx, "plan_environments", "environment_id", plan_id, environment_ids)


async def _set_links(tx: Tx, table: str, column: str, plan_id: int, ids: Sequence[int]) -> None:
    await tx.execute(text(f"DELETE FROM {table} WHERE plan_id = :plan"), {"plan": plan_id})  # noqa: S608
    await tx.execute(
        text(
            f"""INSERT INTO {table} (plan_id, {column}, position)
                SELECT :plan, id, position FROM unnest(CAST(:ids AS bigint[])) WITH ORDINALITY AS t(id, position)"""  # noqa: S608
        ),
        {"plan": plan_id, "ids": list(ids)},
    )
