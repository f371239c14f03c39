"""What tests are about: companies with users, projects, plans and environments, made as `proctor apply` makes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text

from proctor.domain.environment import Stereotype
from proctor.services import accounts
from proctor.services.accounts import Caller
from proctor.services.apply import Applied, apply
from proctor.services.context import Context
from proctor.services.manifest import check_manifest
from proctor.store import accounts as accounts_store

ADMIN = Caller(user_id=0, username="admin", admin=True, roles={})
CHROME = Stereotype("LINUX", "chrome", "156.0.8078.73")
FIREFOX = Stereotype("LINUX", "firefox", "153.0")
RUNNER = ("ROLE_USER", "ROLE_RUN_TEST")

Fields = dict[str, Any]


def scenarios(number: int) -> list[Fields]:
    return [{"name": f"scenario {i}", "source": f"tests/test_{i}.py", "select": f"test_{i}"} for i in range(number)]


def service(name: str = "shop", *, number: int = 2, plans: Sequence[Fields] | None = None, **more: Any) -> Fields:
    """A project whose scenarios need no environment, with a plan `smoke` unless others are given."""
    listed = [{"name": "smoke", "parallel": 10}] if plans is None else list(plans)
    return {
        "name": name,
        "repository": "https://git.example.com/shop.git",
        "framework": "SERVICE",
        "runner": "pytest",
        "scenarios": scenarios(number),
        "plans": listed,
        **more,
    }


def browsers(name: str = "shop", *, environments: Sequence[str], number: int = 1, **plan: Any) -> Fields:
    """A project whose plan `smoke` runs its scenarios in these environments."""
    one = {"name": "smoke", "parallel": 10, "environments": list(environments), **plan}
    return service(name, number=number, plans=[one], framework="SELENIUM")


async def put(
    context: Context,
    *projects: Fields,
    company: str = "Acme",
    users: Mapping[str, Sequence[str]] | None = None,
    environments: Sequence[Fields] = (),
    secret: str | None = None,
) -> Applied:
    """Makes it so; `users` are names with their roles (by default `ci`, who may run), who have no password."""
    roles = {"ci": RUNNER} if users is None else users
    document = {
        "company": company,
        "users": [{"username": name, "roles": list(own)} for name, own in roles.items()],
        "environments": list(environments),
        "projects": list(projects),
        **({"callback_secret": secret} if secret else {}),
    }
    return await apply(context, ADMIN, check_manifest(document))


async def caller(context: Context, username: str = "ci") -> Caller:
    return await accounts.identify(context, await token(context, username))


async def token(context: Context, username: str = "ci") -> str:
    """A personal token of a user that exists."""
    async with context.store.begin() as tx:
        user = await accounts_store.find_user(tx, username)
    assert user is not None, username
    return await accounts.create_personal_token(context, Caller(user.id, username, user.admin, {}), "test", None)


async def bearer(context: Context, username: str = "ci") -> dict[str, str]:
    return {"Authorization": f"Bearer {await token(context, username)}"}


async def make_admin(context: Context, password: str = "adminadmin") -> dict[str, str]:  # noqa: S107
    """The administrator; gives the header that he signs in with."""
    await accounts.ensure_admin(context, password)
    return await bearer(context, "admin")


async def company_id(context: Context, name: str = "Acme") -> int:
    async with context.store.begin() as tx:
        found = await accounts_store.find_company(tx, name)
    assert found is not None, name
    return found.id


async def sql(context: Context, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """What only a test does: looks into the tables, or turns their clocks back."""
    async with context.store.begin() as tx:
        result = await tx.execute(text(statement), parameters)
        return [tuple(row) for row in result] if result.returns_rows else []
