"""Makes what a manifest says so: all of it, or nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from proctor.domain.environment import Environment
from proctor.domain.permission import Permission, Role
from proctor.errors import Forbidden, SourceUnavailable
from proctor.ports.sender import new_secret
from proctor.ports.source import parse_repository
from proctor.services.accounts import Caller, hash_password, verify
from proctor.services.context import Context
from proctor.services.manifest import Manifest, PlanEntry, ProjectEntry
from proctor.services.yaml_source import ManifestInvalid, Mistake
from proctor.store import accounts, catalog, environments
from proctor.store.engine import Tx


@dataclass
class Applied:
    """What was made and what was there already; `callback_secret` only when one was made for a new company."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    plans: dict[str, int] = field(default_factory=dict)
    callback_secret: str | None = None

    def note(self, what: str, name: str, made: bool) -> None:
        (self.created if made else self.updated).append(f"{what} {name}")


async def apply(context: Context, caller: Caller, manifest: Manifest) -> Applied:
    """Makes it so; raises Forbidden, or ManifestInvalid with every mistake that only the server can see."""
    _refuse_others(caller, manifest)
    # Before the transaction, for hashing takes tens of milliseconds each; after the look at who asks.
    hashes = await _hash_passwords(context, caller, manifest)
    applied = Applied()
    async with context.store.begin() as tx:
        company_id = await _put_company(tx, caller, manifest, applied)
        await _put_users(tx, caller, company_id, manifest, hashes, applied)
        for hub in manifest.hubs:
            await environments.put_hub(tx, hub.name, hub.kind, url=hub.url or "")
        await _put_environments(tx, company_id, manifest, applied)
        await _check_environments(tx, company_id, manifest)
        for project in manifest.projects:
            await _put_project(tx, company_id, project, applied)
    return applied


def check_may_apply(caller: Caller) -> None:
    """Raises Forbidden for who may change nothing anywhere, before anything costly is done with what he sent."""
    if not caller.admin and not any(caller.may(Permission.COMPANY_CHANGE, company_id) for company_id in caller.roles):
        raise Forbidden("Your roles do not let you change a company: ask its administrator.")


async def _hash_passwords(context: Context, caller: Caller, manifest: Manifest) -> dict[str, str]:
    """New hashes for those whose password changes: setting it anew would end their sessions and tokens."""
    async with context.store.begin() as tx:
        found = await accounts.find_company(tx, manifest.company)
        _check_may_change(caller, found, manifest.company)
        known = {user.username: await accounts.find_user(tx, user.username) for user in manifest.users}
    hashes: dict[str, str] = {}
    for user in manifest.users:
        before = known[user.username]
        if user.password and not (
            before and before.password_hash and await verify(before.password_hash, user.password)
        ):
            hashes[user.username] = await hash_password(user.password)
    return hashes


def _check_may_change(caller: Caller, found: accounts.Company | None, name: str) -> None:
    if found is None and not caller.admin:
        raise Forbidden(f"You do not belong to a company {name!r}; only the administrator makes one.")
    if found is not None and not caller.may(Permission.COMPANY_CHANGE, found.id):
        raise Forbidden(f"Your roles do not let you change the company {name}.")


def _refuse_others(caller: Caller, manifest: Manifest) -> None:
    if caller.admin:
        return
    if manifest.hubs:
        raise Forbidden("Only the administrator may add hubs: leave `hubs` out.")
    mistakes = list(_local_repositories(manifest))
    if mistakes:
        raise ManifestInvalid(mistakes)


def _local_repositories(manifest: Manifest) -> Iterator[Mistake]:
    for index, project in enumerate(manifest.projects):
        try:
            parse_repository(project.repository, allow_local=False)
        except SourceUnavailable as refused:
            yield Mistake(None, None, f"projects[{index}].repository", refused.detail)


async def _put_company(tx: Tx, caller: Caller, manifest: Manifest, applied: Applied) -> int:
    found = await accounts.find_company(tx, manifest.company)
    _check_may_change(caller, found, manifest.company)
    if found is None:
        applied.callback_secret = None if manifest.callback_secret else new_secret()
        company_id = await accounts.put_company(tx, manifest.company, manifest.callback_secret or new_secret())
        if applied.callback_secret:
            await accounts.set_callback_secret(tx, company_id, applied.callback_secret)
        applied.note("company", manifest.company, True)
        return company_id
    if manifest.callback_secret:
        await accounts.set_callback_secret(tx, found.id, manifest.callback_secret)
    applied.note("company", manifest.company, False)
    return found.id


async def _put_users(
    tx: Tx, caller: Caller, company_id: int, manifest: Manifest, hashes: Mapping[str, str], applied: Applied
) -> None:
    for index, user in enumerate(manifest.users):
        if Role.ADMIN in user.roles and not caller.admin:
            raise Forbidden(f"Only the administrator may give {user.username} the role ROLE_ADMIN.")
        names = {"email": user.email, "name": user.name, "surname": user.surname}
        admin = True if Role.ADMIN in user.roles else None
        user_id, made = await accounts.put_user(tx, user.username, admin=admin, **names)
        # Asked after the write, which waits for whoever makes the same user now; raising takes it back.
        if not made and not caller.admin and await accounts.memberships_elsewhere(tx, user_id, company_id):
            message = "a user of this name belongs to another company: choose another name"
            raise ManifestInvalid([Mistake(None, None, f"users[{index}].username", message)])
        if user.username in hashes:
            await accounts.set_password(tx, user_id, hashes[user.username])
        await accounts.put_membership(tx, user_id, company_id, [role.value for role in user.roles])
        applied.note("user", user.username, made)


async def _put_environments(tx: Tx, company_id: int, manifest: Manifest, applied: Applied) -> None:
    for entry in manifest.environments:
        environment = Environment(
            id=0,
            name=entry.name,
            os=entry.os,
            browser=entry.browser,
            version=entry.version,
            resolution=entry.resolution,
            enabled=entry.enabled,
        )
        _, made = await environments.put_environment(tx, company_id, environment)
        applied.note("environment", entry.name, made)


async def _check_environments(tx: Tx, company_id: int, manifest: Manifest) -> None:
    mistakes = [
        Mistake(None, None, f"projects[{i}].plans[{j}].environments[{k}]", _unknown_environment(name))
        for i, project in enumerate(manifest.projects)
        for j, plan in enumerate(project.plans)
        for k, name in enumerate(plan.environments)
        if await environments.find_environment(tx, company_id, name) is None
    ]
    if mistakes:
        raise ManifestInvalid(mistakes)


def _unknown_environment(name: str) -> str:
    return f"there is no environment {name!r}: describe it under `environments`, or start a worker that offers it"


async def _put_project(tx: Tx, company_id: int, project: ProjectEntry, applied: Applied) -> None:
    project_id, made = await catalog.put_project(tx, company_id, _project_values(project))
    applied.note("project", project.name, made)
    scenario_ids: dict[str, int] = {}
    for position, scenario in enumerate(project.scenarios):
        values = {
            "name": scenario.name,
            "description": scenario.description,
            "source": scenario.source,
            "selector": scenario.select,
            "command": scenario.command,
            "parameters": dict(scenario.parameters),
            "enabled": scenario.enabled,
        }
        scenario_ids[scenario.name], made = await catalog.put_scenario(tx, project_id, position, values)
        applied.note("scenario", f"{project.name} / {scenario.name}", made)
    for plan in project.plans:
        await _put_plan(tx, company_id, project, project_id, plan, scenario_ids, applied)


async def _put_plan(
    tx: Tx,
    company_id: int,
    project: ProjectEntry,
    project_id: int,
    plan: PlanEntry,
    scenario_ids: Mapping[str, int],
    applied: Applied,
) -> None:
    plan_id, made = await catalog.put_plan(tx, project_id, _plan_values(plan))
    chosen = [] if plan.scenarios == "all" else [scenario_ids[name] for name in plan.scenarios]
    await catalog.set_plan_scenarios(tx, plan_id, chosen)
    used = [await environments.find_environment(tx, company_id, name) for name in plan.environments]
    await catalog.set_plan_environments(tx, plan_id, [id_ for id_ in used if id_ is not None])
    applied.plans[f"{project.name} / {plan.name}"] = plan_id
    applied.note("plan", f"{project.name} / {plan.name}", made)


def _project_values(project: ProjectEntry) -> dict[str, Any]:
    credential = project.credential.model_dump(exclude_none=True) if project.credential else None
    return {
        "name": project.name,
        "description": project.description,
        "enabled": project.enabled,
        "repository": project.repository,
        "branch": project.branch,
        "framework": project.framework,
        "runner": project.runner,
        "setup": project.setup,
        "command": project.command,
        "parameters": dict(project.parameters),
        "credential": credential,
    }


def _plan_values(plan: PlanEntry) -> dict[str, Any]:
    return {
        "name": plan.name,
        "description": plan.description,
        "enabled": plan.enabled,
        "parallel": plan.parallel,
        "retries": plan.retries,
        "timeout_seconds": round(plan.timeout.total_seconds()),
        "screenshots": plan.screenshots,
        "video": plan.video,
        "parameters": dict(plan.parameters),
        "all_scenarios": plan.scenarios == "all",
    }
