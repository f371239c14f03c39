"""Contract §2: what belongs to another company is not there: 404, the same as for what never was."""

import re
from pathlib import Path

import pytest

import world
from calls import API, Api, SignIn, assert_problem
from proctor.domain import wire
from proctor.services import callbacks, runs
from proctor.services.context import Context
from proctor.services.runs import RunRequest
from proctor.testing.worker import FAILED, FakeWorker
from receiver import receiving


@pytest.fixture
async def acme(context: Context, tmp_path: Path) -> None:
    """A company with one of everything, whose ids are all 1; and `eve`, who has every role in another company."""
    worker = await FakeWorker.sign_on(context)
    async with receiving() as receiver:
        await world.put(context, world.service(number=1))
        await world.put(context, company="Other", users={"eve": ["ROLE_COMPANY_ADMIN", *world.RUNNER]})
        caller = await world.caller(context)
        await runs.start(context, caller, RunRequest("smoke", "http://here", receiver.url))
        [task] = await worker.take(1)
        file = tmp_path / wire.EXECUTOR_LOG
        file.write_text("secret")
        size = await context.artifacts.put(1, task.fence.attempt_id, wire.EXECUTOR_LOG, file)
        await worker.finish(task.fence, FAILED, session_id="s1", artifacts={wire.EXECUTOR_LOG: size})
        await callbacks.deliver(context, 1)


# Every route that names something, with the message of its 404.
ROUTES = {
    f"{API}/plans/1/run": "Test Plan not found",
    f"{API}/plans/smoke/run": "Test Plan not found",
    f"{API}/plans/1/run/true": "Test Plan not found",
    f"{API}/plans/1/checkIsRunning": "Plan not found",
    f"{API}/plans/1/stop": "Test plan not found",
    f"{API}/testExecutions/1": "Test Execution not found",
    f"{API}/plans/1/testExecutions": "Test Plan not found",
    f"{API}/plans/1/testExecutions/pages/1": "Test Plan not found",
    f"{API}/testResults/1": "Test Result Not Found",
    f"{API}/testResults/session/s1": "Test Result Not Found",
    f"{API}/testResults/executionId/1": "Test Execution not found",
    f"{API}/testResults/executionId/1/pages/1": "Test Execution not found",
    f"{API}/executions/1": "Test Execution not found",
    f"{API}/plans/1/executions": "Test Plan not found",
    f"{API}/results/1": "Test Result Not Found",
    f"{API}/results/1/detailed/filter": "Test Result Not Found",
    f"{API}/results/execution/1/scenario/1": "Test Execution not found",
    f"{API}/plans/1/lastFailedScenarios": "Test Plan not found",
    f"{API}/results/1/publicReportLink": "Test Result Not Found",
    f"{API}/companies/1": "Company not found",
    f"{API}/projects/projectsByCompany/1": "Company not found",
    f"{API}/projects/company/1": "Company not found",
    f"{API}/projects/1": "Project not found",
    f"{API}/projects/shop": "Project not found",
    f"{API}/projects/1/active": "Project not found",
    f"{API}/scenarios/1": "Scenario not found",
    f"{API}/projects/1/scenarios": "Project not found",
    f"{API}/projects/1/scenarios/1": "Project not found",
    f"{API}/projects/1/scenarios/1/childScenarios": "Project not found",
    f"{API}/projects/1/scenarios/1/plans": "Project not found",
    f"{API}/projects/1/scenarios/1/testParameters": "Project not found",
    f"{API}/plans/1": "Plan not found",
    f"{API}/plans/smoke": "Plan not found",
    f"{API}/plans/1/active": "Plan not found",
    f"{API}/projects/1/plans": "Project not found",
    f"{API}/projects/1/plans/byUserCompanies": "Project not found",
    f"{API}/projects/1/plans/active": "Project not found",
    f"{API}/projects/1/parentPlans": "Project not found",
    f"{API}/projects/1/plans/1": "Project not found",
    f"{API}/projects/1/plans/1/scenarios": "Project not found",
    "/api/v1/executions/1": "Test Execution not found",
    "/api/v1/executions/1/summary": "Test Execution not found",
    "/api/v1/executions/1/deliveries": "Test Execution not found",
    "/api/v1/attempts/1/artifacts/executor.log": "Not Found",
}

# These name nothing of one company.
LISTS = (
    f"{API}/users/companies/",
    f"{API}/projects/",
    f"{API}/projects/byUserCompanies",
    f"{API}/projects/actives",
    f"{API}/scenarios",
    f"{API}/plans",
    f"{API}/environments/desktop",
    f"{API}/environments/mobile",
)


async def test_a_strangers_token_finds_nothing_anywhere(acme: None, context: Context, sign_in: SignIn) -> None:
    """§2: on every route that reads, runs or stops something."""
    eve = await sign_in("eve")

    for path, message in ROUTES.items():
        assert_problem(await eve.get(path), 404, message)
    assert_problem(await eve.post(f"{API}/plans/1/rerun", json=[1]), 404, "Plan not found")
    assert_problem(await eve.post("/api/v1/deliveries/1/redeliver"), 404, "Not Found")
    assert_problem(await eve.get(f"{API}/plans/1/run/company/1"), 403, "Forbidden")
    assert_problem(await eve.get(f"{API}/testExecutions/1/company/1"), 403, "Forbidden")

    assert await world.sql(context, "SELECT count(*) FROM executions") == [(1,)]


async def test_the_owner_finds_it_all(acme: None, sign_in: SignIn) -> None:
    """The test above could not fail otherwise: the same paths are there for a member."""
    ci = await sign_in("ci")

    for path in sorted(ROUTES, key=lambda path: path.endswith(("/run", "/run/true"))):
        if path.endswith("/stop"):
            continue
        reply = await ci.get(path)
        assert reply.status == (409 if path.endswith("/run/true") else 200), (path, reply.text)


async def test_a_strangers_lists_are_empty_of_it(acme: None, sign_in: SignIn) -> None:
    """§5: lists show the caller's own, and 200 [] when there is nothing."""
    eve, ci = await sign_in("eve"), await sign_in("ci")

    for path in LISTS:
        reply = await eve.get(path)
        assert reply.status == 200, path
        assert "shop" not in reply.text
        assert "smoke" not in reply.text
        assert "Acme" not in reply.text
    assert [one["company_name"] for one in (await eve.get(f"{API}/users/companies/")).body] == ["Other"]
    assert [one["company_name"] for one in (await ci.get(f"{API}/users/companies/")).body] == ["Acme"]
    assert_problem(await eve.get(f"{API}/companies"), 403, "Forbidden")


async def test_every_route_is_among_them(acme: None, nobody: Api, sign_in: SignIn) -> None:
    """A route that is added must be added here, too; and none answers without a token."""
    described = (await nobody.get("/openapi.json")).body["paths"]
    known = {*ROUTES, *LISTS, f"{API}/plans/1/run/company/1", f"{API}/testExecutions/1/company/1", f"{API}/companies"}
    # The caller's own, in no company.
    known.add("/api/v1/tokens")
    patterns = {path for path in described if "get" in described[path] and path not in {"/healthz", "/readyz"}}
    programs = {path for path in patterns if path.startswith(("/Testinium.RestApi/", "/api/v1/"))}
    for path in programs:
        pattern = re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path.replace(".", r"\.")) + "/?")
        assert any(pattern.fullmatch(one) for one in known), f"{path} is not tested with a stranger's token"
    for path in sorted(known):
        assert_problem(await nobody.get(path), 401, "Unauthorized")


async def test_a_member_without_any_viewing_role_reads_nothing(acme: None, context: Context, sign_in: SignIn) -> None:
    """§6: ROLE_CHANGE_USER alone sees no plans, executions or results: 403, or empty lists."""
    await world.put(context, users={"changer": ["ROLE_CHANGE_USER"]})
    changer = await sign_in("changer")

    for path in ROUTES:
        if path == f"{API}/companies/1":
            # Which companies he belongs to, a member may know.
            continue
        reply = await changer.get(path)
        empty = reply.status == 200 and reply.body == []
        assert empty or reply.status in {403, 404}, (path, reply.text)
    for path in LISTS[1:]:
        if path == "/api/v1/tokens":
            # His own.
            continue
        reply = await changer.get(path)
        assert (reply.status, reply.body) == (200, []), path


async def test_the_selected_company_hides_the_callers_others(acme: None, context: Context, sign_in: SignIn) -> None:
    """§1: current-company-id selects; what belongs to another of the caller's companies is not in sight."""
    await world.put(context, company="Second", users={"ci": world.RUNNER})
    second = {"current-company-id": str(await world.company_id(context, "Second"))}
    ci = await sign_in("ci")

    for path, message in ROUTES.items():
        if "ompany/" in path:
            # These name the company themselves.
            continue
        assert_problem(await ci.get(path, headers=second), 404, message)
    assert (await ci.get(f"{API}/plans", headers=second)).body == []
