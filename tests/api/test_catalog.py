"""Contract §5: reading companies, projects, scenarios, plans and environments."""

import pytest

import world
from calls import API, Api, SignIn, assert_problem
from proctor.services.context import Context
from proctor.testing.worker import FakeWorker


@pytest.fixture
async def ci(context: Context, sign_in: SignIn) -> Api:
    """Two projects: `shop` with two scenarios in Chrome, and `api`, which is disabled."""
    await FakeWorker.sign_on(context, hub="here", browsers=[world.CHROME, world.FIREFOX])
    phone = {"name": "phone", "os": "ANDROID", "browser": "chrome", "version": "14"}
    wide = {"name": "wide", "os": "LINUX", "browser": "chrome", "resolution": "1440x900"}
    plan = {
        "name": "smoke",
        "description": "What must work",
        "parallel": 3,
        "retries": 2,
        "timeout": "90s",
        "screenshots": "YES",
        "environments": ["wide"],
        "scenarios": ["scenario 1"],
    }
    shop = world.service("shop", plans=[plan, {"name": "all", "environments": ["wide"]}], framework="SELENIUM")
    shop["scenarios"][0]["parameters"] = {"CARD": "visa"}
    await world.put(context, shop, world.service("api", enabled=False, number=0, plans=[]), environments=[wide, phone])
    return await sign_in("ci")


async def test_companies(ci: Api, context: Context, sign_in: SignIn) -> None:
    """§5: [{id, company_name, short_name}]; all of them for ROLE_ADMIN only."""
    await world.put(context, company="Other", users={})
    await world.make_admin(context)
    admin = await sign_in("admin")
    own = {"id": 1, "company_name": "Acme", "short_name": "Acme"}

    for path in ("users/companies/", "users/companies"):
        assert (await ci.get(f"{API}/{path}")).body == [own]
    assert (await ci.get(f"{API}/companies/1")).body == own
    assert_problem(await ci.get(f"{API}/companies"), 403, "Forbidden")
    assert [one["company_name"] for one in (await admin.get(f"{API}/companies")).body] == ["Acme", "Other"]
    for ref in ("2", "99", "x", "9" * 30, "%00"):
        assert_problem(await ci.get(f"{API}/companies/{ref}"), 404, "Company not found")


async def test_projects(ci: Api) -> None:
    """§5: Project, by id or name; `actives` are the enabled ones."""
    shop = (await ci.get(f"{API}/projects/shop")).body

    assert {
        "id": 1,
        "project_name": "shop",
        "description": "",
        "enabled": True,
        "repository_path": "https://git.example.com/shop.git",
        "test_framework": "SELENIUM",
        "mobile_apps": [],
    }.items() <= shop.items()
    assert {"test_file_type", "test_runner_tool"} <= set(shop)
    for path in ("projects/1", "projects/1/active"):
        assert (await ci.get(f"{API}/{path}")).body == shop
    lists = ("projects/", "projects", "projects/byUserCompanies", "projects/company/1", "projects/projectsByCompany/1")
    for path in lists:
        assert [one["project_name"] for one in (await ci.get(f"{API}/{path}")).body] == ["shop", "api"], path
    assert (await ci.get(f"{API}/projects/actives")).body == [shop]
    for ref in ("99", "nothing", "9" * 30, "%00"):
        assert_problem(await ci.get(f"{API}/projects/{ref}"), 404, "Project not found")


async def test_no_projects_are_an_empty_list(context: Context, sign_in: SignIn) -> None:
    """§5: 200 [], not 204, when there are none."""
    await world.put(context)
    ci = await sign_in("ci")

    for path in (
        "projects/",
        "projects/byUserCompanies",
        "projects/actives",
        "projects/company/1",
        "scenarios",
        "plans",
    ):
        reply = await ci.get(f"{API}/{path}")
        assert (reply.status, reply.body) == (200, [])


async def test_a_credential_never_shows(context: Context, sign_in: SignIn) -> None:
    """Issue 2.4: stored credentials never show again."""
    secret = {"username": "robot", "token": "s3cr3t-t0ken"}
    await world.put(context, world.service(credential=secret))
    ci = await sign_in("ci")

    for path in ("projects/shop", "projects/", "plans", "plans/smoke"):
        assert "s3cr3t" not in (await ci.get(f"{API}/{path}")).text


async def test_scenarios(ci: Api) -> None:
    """§5: Scenario, by id or name, alone or in its project."""
    one = (await ci.get(f"{API}/projects/shop/scenarios/scenario%200")).body

    assert {
        "id": 1,
        "scenario_name": "scenario 0",
        "description": "",
        "expected_result": "",
        "enabled": True,
        "execute_mode": "AUTOMATED",
        "source_file": "tests/test_0.py",
        "project_id": 1,
    }.items() <= one.items()
    assert {"java_test_class", "java_test_methods"} <= set(one)
    for path in ("scenarios/1", "scenarios/scenario%200", "projects/1/scenarios/1"):
        assert (await ci.get(f"{API}/{path}")).body == one
    assert [s["id"] for s in (await ci.get(f"{API}/projects/shop/scenarios")).body] == [1, 2]
    assert (await ci.get(f"{API}/projects/api/scenarios")).body == []
    assert (await ci.get(f"{API}/projects/1/scenarios/1/childScenarios")).body == []
    assert [p["plan_name"] for p in (await ci.get(f"{API}/projects/1/scenarios/1/plans")).body] == ["all"]
    parameters = {"testParameters": [{"name": "CARD", "value": "visa", "description": ""}]}
    assert (await ci.get(f"{API}/projects/1/scenarios/1/testParameters")).body == parameters
    for path in ("scenarios/99", "projects/1/scenarios/99", "projects/api/scenarios/1", "scenarios/%00"):
        assert_problem(await ci.get(f"{API}/{path}"), 404, "Scenario not found")


async def test_plans(ci: Api, context: Context) -> None:
    """§5: Plan, by id or name, alone or in its project."""
    ids = dict(await world.sql(context, "SELECT name, id FROM environments WHERE company_id IS NOT NULL"))

    smoke = (await ci.get(f"{API}/plans/smoke")).body

    assert smoke == {
        "id": 1,
        "project_id": 1,
        "company_id": 1,
        "plan_name": "smoke",
        "group_plan": False,
        "description": "What must work",
        "enabled": True,
        "plan_parallel_test_limit": 3,
        "scenarios": [2],
        "period": {"period_type": "MANUAL"},
        "alerts": [],
        "alerts_enabled": False,
        "failed_test_retry_count": 2,
        "screen_shot_type": "YES",
        "screenshots_enabled": True,
        "video_enabled": False,
        "performance_data_enabled": False,
        "environments": [{"id": ids["wide"]}],
        "environment_resolutions": [],
        "max_step_duration": 90,
        "clear_app_data": False,
        "fetch_app_files": [],
        "resolutions": {"LINUX": "1440x900"},
    }
    for path in ("plans/1", "plans/1/active", "projects/shop/plans/smoke", "projects/1/plans/1"):
        assert (await ci.get(f"{API}/{path}")).body == smoke
    assert [p["plan_name"] for p in (await ci.get(f"{API}/projects/1/plans")).body] == ["smoke", "all"]
    assert [s["id"] for s in (await ci.get(f"{API}/projects/1/plans/1/scenarios")).body] == [2]
    for path in ("plans/99", "plans/nothing", "projects/api/plans/all", "projects/1/plans/3", "plans/%00"):
        assert_problem(await ci.get(f"{API}/{path}"), 404, "Plan not found")


async def test_the_active_plans_of_a_project_are_those_that_run(ci: Api, context: Context) -> None:
    """§5: /projects/{id}/plans/active."""
    assert (await ci.get(f"{API}/projects/1/plans/active")).body == []
    await ci.start(1)

    assert [p["id"] for p in (await ci.get(f"{API}/projects/1/plans/active")).body] == [1]


async def test_environments_are_grouped_by_system_and_browser(ci: Api, context: Context) -> None:
    """§5: with environment_id, version, enabled."""
    desktop = (await ci.get(f"{API}/environments/desktop")).body
    mobile = (await ci.get(f"{API}/environments/mobile")).body

    assert [one["operating_system"]["code"] for one in desktop] == ["LINUX"]
    browsers = {one["browser_name"]: one["versions"] for one in desktop[0]["browsers"]}
    assert set(browsers) == {"Chrome", "Firefox"}
    assert [version["version"] for version in browsers["Chrome"]] == ["156", "LATEST"]
    assert all({"environment_id", "version", "enabled"} <= set(version) for version in browsers["Chrome"])
    assert [one["operating_system"] for one in mobile] == [{"code": "ANDROID", "platform": "ANDROID", "mobile": True}]
