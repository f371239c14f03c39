"""Contract §4: executions and results in both dialects."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import world
from calls import API, Api, SignIn, assert_problem
from proctor.domain import wire
from proctor.domain.verdict import Case, CaseStatus
from proctor.services.context import Context
from proctor.testing.worker import BROKEN, FAILED, PASSED, FakeWorker
from serving import Server

CHROME = "LINUX / Chrome 156"
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

# What a client of dialect E may read without asking whether it is there.
RESULT_ALWAYS = {
    "id",
    "level",
    "start_date",
    "runtime",
    "session_id",
    "screen_shot_type",
    "video_enabled",
    "performance_data_enabled",
    "test_key",
    "test_scenario",
    "scenario_id",
    "test_plan",
    "plan_id",
    "project",
    "project_id",
    "test_execution",
    "execution_id",
    "video_format",
    "node_log_path",
    "executor_log_path",
}


@pytest.fixture
async def worker(context: Context) -> FakeWorker:
    return await FakeWorker.sign_on(context, hub="here", browsers=[world.CHROME], slots=4)


@pytest.fixture
async def ci(context: Context, worker: FakeWorker, sign_in: SignIn) -> Api:
    """May run `smoke`: three scenarios in Chrome."""
    await world.put(context, world.browsers(environments=[CHROME], number=3))
    return await sign_in("ci")


async def play(ci: Api, worker: FakeWorker) -> int:
    """An execution of which the first passed, the second failed, the third broke."""
    execution_id = await ci.start(1)
    await worker.play(execution_id, lambda task: [PASSED, FAILED, BROKEN][task.scenario_id - 1])
    return execution_id


def now() -> int:
    return round(datetime.now(UTC).timestamp() * 1000)


# --- dialect E -------------------------------------------------------------------------------------------------------


async def test_an_execution_has_no_end_until_it_has_ended(ci: Api, worker: FakeWorker) -> None:
    """§4: `end_date` is absent until then: clients poll for it."""
    execution_id = await ci.start(1)
    path = f"{API}/testExecutions/{execution_id}"
    tasks = await worker.take(execution_id)
    assert len(tasks) == 3
    for task in tasks:
        reply = await ci.get(path)
        assert "end_date" not in reply.body
        assert reply.headers["Cache-Control"] == "no-store"
        await worker.finish(task.fence)

    ended = (await ci.get(path)).body
    assert ended["start_date"] <= ended["end_date"] <= now()


async def test_an_execution_in_dialect_e(ci: Api, worker: FakeWorker) -> None:
    """§4: Execution, with its results."""
    execution_id = await play(ci, worker)

    body = (await ci.get(f"{API}/testExecutions/{execution_id}")).body

    assert set(body) == {
        "id",
        "plan",
        "plan_id",
        "start_date",
        "end_date",
        "test_results",
        "result_summary",
        "test_result_status_counts",
    }
    assert (body["id"], body["plan"], body["plan_id"]) == (execution_id, {"id": 1}, 1)
    assert abs(now() - body["start_date"]) < 60_000, "milliseconds since the epoch, UTC"
    assert body["result_summary"] == {"SUCCESS": 1, "FAILURE": 1, "ERROR": 1}
    assert body["test_result_status_counts"] == "[SUCCESS, 1], [FAILURE, 1], [ERROR, 1]"
    assert [one["level"] for one in body["test_results"]] == ["SUCCESS", "FAILURE", "ERROR"]


async def test_a_result_in_dialect_e(ci: Api, worker: FakeWorker, context: Context) -> None:
    """§4: TestResult."""
    execution_id = await ci.start(1)
    for task in await worker.take(execution_id):
        await worker.finish(task.fence, FAILED, session_id=f"session-{task.scenario_id}")
    [(environment_id,)] = await world.sql(context, "SELECT id FROM environments")

    body = (await ci.get(f"{API}/testResults/2")).body

    assert set(body) >= RESULT_ALWAYS
    assert {
        "id": 2,
        "level": "FAILURE",
        "session_id": "session-2",
        "message": "assert 1 == 2",
        "screen_shot_type": "ONLY_FAILURE",
        "video_enabled": False,
        "test_key": f"TEST-C1-P1-E{execution_id}-S2-ENV:LINUX-Chrome-156",
        "test_scenario": {"id": 2},
        "scenario_id": 2,
        "test_plan": {"id": 1},
        "plan_id": 1,
        "project": {"id": 1},
        "project_id": 1,
        "environment": {"id": environment_id},
        "environment_id": environment_id,
        "test_execution": {"id": execution_id},
        "execution_id": execution_id,
        "test_result_commands": [],
    }.items() <= body.items()
    assert body["end_date"] - body["start_date"] == pytest.approx(body["runtime"], abs=1)
    assert (await ci.get(f"{API}/testResults/session/session-2")).body == body


async def test_every_result_has_what_clients_read_without_asking(ci: Api, worker: FakeWorker) -> None:
    """§4: only what is marked with ? may be absent, also before a test has begun and where none ever did."""
    execution_id = await ci.start(1)
    await world.sql(worker.context, "UPDATE executions SET parallel = 1")
    waiting = (await ci.get(f"{API}/testResults/executionId/{execution_id}")).body["test_result_list"]
    await ci.get(f"{API}/plans/1/stop")
    stopped = (await ci.get(f"{API}/testResults/executionId/{execution_id}")).body["test_result_list"]

    for result in waiting + stopped:
        assert set(result) >= RESULT_ALWAYS, result["level"]
        assert isinstance(result["start_date"], int)
    assert not any("end_date" in result for result in waiting)
    assert all("end_date" in result for result in stopped)


async def test_what_never_started_has_the_executions_start(context: Context, sign_in: SignIn) -> None:
    """§4: start_date is always there."""
    await world.put(context, world.service())
    ci = await sign_in("ci")
    execution_id = await ci.start(1)
    await ci.get(f"{API}/plans/1/stop")

    execution = (await ci.get(f"{API}/testExecutions/{execution_id}")).body

    for result in execution["test_results"]:
        assert result["level"] == "UNEXECUTED"
        assert result["start_date"] == execution["start_date"]
        assert result["runtime"] == 0


async def test_a_service_result_has_no_environment(context: Context, sign_in: SignIn) -> None:
    """§4: environment?, environment_id?, and a test_key without one."""
    await world.put(context, world.service())
    ci = await sign_in("ci")
    execution_id = await ci.start(1)

    body = (await ci.get(f"{API}/testResults/1")).body

    assert "environment" not in body
    assert "environment_id" not in body
    assert body["test_key"] == f"TEST-C1-P1-E{execution_id}-S1"


async def test_with_retries_the_last_attempt_decides_and_every_attempt_is_kept(
    context: Context, worker: FakeWorker, sign_in: SignIn
) -> None:
    """§4, levels."""
    await world.put(context, world.browsers(environments=[CHROME], retries=2))
    ci = await sign_in("ci")
    execution_id = await ci.start(1)

    await worker.play(execution_id, lambda task: PASSED if task.number == 3 else FAILED)

    body = (await ci.get(f"{API}/testResults/1")).body
    assert body["level"] == "SUCCESS"
    assert [attempt["level"] for attempt in body["attempts"]] == ["FAILURE", "FAILURE", "SUCCESS"]
    assert "message" not in body, "the last attempt has none"


async def test_pages_of_executions_count_from_one_and_link_to_each_other(ci: Api, context: Context) -> None:
    """§4: pagination, newest first, no results in a list."""
    await world.sql(
        context,
        """INSERT INTO executions (company_id, plan_id, state, end_at)
           SELECT 1, 1, 'finished', proctor_now() FROM generate_series(1, 120)""",
    )
    path = f"{API}/plans/smoke/testExecutions"
    origin = str(ci.session._base_url).rstrip("/")

    first = (await ci.get(path)).body
    second = (await ci.get(f"{path}/pages/2")).body
    third = (await ci.get(f"{path}/pages/3")).body

    assert set(first) == {"pagination", "execution_list"}
    link = f"{origin}{path}/pages/"
    always = {"total_count": 120, "page_limit": 50}
    assert first["pagination"] == {"current_page": 1, **always, "next_page": f"{link}2"}
    assert second["pagination"] == {"current_page": 2, **always, "next_page": f"{link}3", "previous_page": f"{link}1"}
    assert third["pagination"] == {"current_page": 3, **always, "previous_page": f"{link}2"}
    ids = [one["id"] for page in (first, second, third) for one in page["execution_list"]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 120
    assert all(one["test_results"] == [] for one in first["execution_list"])
    followed = await ci.get(first["pagination"]["next_page"].removeprefix(origin))
    assert followed.body == second
    beyond = (await ci.get(f"{path}/pages/4")).body
    assert beyond["execution_list"] == []
    for wrong in ("0", "-1", "x", "9" * 30, "%00"):
        assert_problem(await ci.get(f"{path}/pages/{wrong}"), 400, "Invalid input data")


async def test_links_of_a_plan_with_blanks_in_its_name_can_be_followed(context: Context, sign_in: SignIn) -> None:
    """§4: next_page and previous_page are absolute URLs."""
    await world.put(context, world.service(plans=[{"name": "full night"}]))
    ci = await sign_in("ci")
    await world.sql(
        context,
        """INSERT INTO executions (company_id, plan_id, state, end_at)
           SELECT 1, 1, 'finished', proctor_now() FROM generate_series(1, 60)""",
    )
    origin = str(ci.session._base_url).rstrip("/")

    for path in ("testExecutions", "executions"):
        body = (await ci.get(f"{API}/plans/full%20night/{path}")).body
        link = body.get("pagination", body)["next_page"]
        assert " " not in link
        assert (await ci.get(link.removeprefix(origin))).status == 200


async def test_pages_of_results(ci: Api, worker: FakeWorker, context: Context) -> None:
    """§4: testResults/executionId/{id} and its pages, in the order of the jobs."""
    await world.put(context, world.service("big", number=120))
    execution_id = await ci.start(2)
    path = f"{API}/testResults/executionId/{execution_id}"

    pages = [(await ci.get(p)).body for p in (path, f"{path}/pages/2", f"{path}/pages/3")]

    assert [len(page["test_result_list"]) for page in pages] == [50, 50, 20]
    assert pages[0]["pagination"]["total_count"] == 120
    ids = [one["id"] for page in pages for one in page["test_result_list"]]
    assert ids == sorted(set(ids))


async def test_the_company_route_reads_the_execution_of_that_company(ci: Api, context: Context) -> None:
    """§4: /testExecutions/{id}/company/{companyId}."""
    execution_id = await ci.start(1)
    await world.put(context, company="Other", users={})
    path = f"{API}/testExecutions/{execution_id}"

    assert (await ci.get(f"{path}/company/1")).body == (await ci.get(path)).body
    assert_problem(await ci.get(f"{path}/company/2"), 403, "Forbidden")
    assert_problem(await ci.get(f"{path}/company/99"), 404, "Company not found")


async def test_what_is_not_there_is_not_found(ci: Api) -> None:
    """§5: Test Execution not found, Test Result Not Found, in both dialects."""
    for ref in ("99", "0", "-1", "x", "9" * 30, "%00", "1.0"):
        for path in (
            "testExecutions/{}",
            "executions/{}",
            "testResults/executionId/{}",
            "results/execution/{}/scenario/1",
        ):
            assert_problem(await ci.get(f"{API}/{path.format(ref)}"), 404, "Test Execution not found")
        for path in ("testResults/{}", "results/{}", "results/{}/detailed/filter", "testResults/session/{}"):
            assert_problem(await ci.get(f"{API}/{path.format(ref)}"), 404, "Test Result Not Found")
        assert_problem(await ci.get(f"{API}/results/{ref}/publicReportLink"), 404, "Test Result Not Found")
        assert_problem(await ci.get(f"{API}/plans/{ref}/testExecutions"), 404, "Test Plan not found")
        assert_problem(await ci.get(f"{API}/plans/{ref}/executions"), 404, "Test Plan not found")


# --- dialect C -------------------------------------------------------------------------------------------------------


async def test_an_execution_in_dialect_c(ci: Api, worker: FakeWorker) -> None:
    """§4: dates iso, results as ids."""
    running = await ci.start(1)
    assert "end_date" not in (await ci.get(f"{API}/executions/{running}")).body
    await worker.play(running)

    body = (await ci.get(f"{API}/executions/{running}")).body

    assert set(body) == {
        "id",
        "user_id",
        "username",
        "company_id",
        "project_id",
        "project_name",
        "plan_id",
        "plan_name",
        "test_results",
        "runtime",
        "result_summary",
        "start_date",
        "end_date",
        "test_result_status_counts",
    }
    assert body["test_results"] == [1, 2, 3]
    assert (body["username"], body["project_name"], body["plan_name"]) == ("ci", "shop", "smoke")
    assert ISO.fullmatch(body["start_date"])
    assert ISO.fullmatch(body["end_date"])
    assert abs(datetime.fromisoformat(body["start_date"]).timestamp() * 1000 - now()) < 60_000
    assert 0 <= body["runtime"] < 60_000


async def test_a_running_execution_in_dialect_c_lacks_only_its_end(ci: Api) -> None:
    """§4: only end_date may be absent."""
    execution_id = await ci.start(1)

    body = (await ci.get(f"{API}/executions/{execution_id}")).body

    assert "end_date" not in body
    assert isinstance(body["runtime"], int)


async def test_dates_are_utc_whatever_the_databases_time_zone(
    ci: Api, worker: FakeWorker, context: Context, server: Server
) -> None:
    """Notation: `iso` ends with Z and `ms` counts from the epoch in UTC."""
    execution_id = await play(ci, worker)
    iso = (await ci.get(f"{API}/executions/{execution_id}")).body["start_date"]
    ms = (await ci.get(f"{API}/testExecutions/{execution_id}")).body["start_date"]
    assert int(datetime.fromisoformat(iso).timestamp()) == ms // 1000

    [(database,)] = await world.sql(context, "SELECT current_database()")
    await world.sql(context, f"ALTER DATABASE {database} SET timezone TO 'Asia/Kolkata'")
    # New connections have the new zone.
    await server.app.state.context.store.close()

    assert (await ci.get(f"{API}/executions/{execution_id}")).body["start_date"] == iso
    assert (await ci.get(f"{API}/testExecutions/{execution_id}")).body["start_date"] == ms


async def test_a_plans_executions_in_dialect_c(ci: Api, context: Context) -> None:
    """§4: one page with its links."""
    await world.sql(
        context,
        """INSERT INTO executions (company_id, plan_id, state, end_at)
           SELECT 1, 1, 'finished', proctor_now() FROM generate_series(1, 5)""",
    )
    path = f"{API}/plans/1/executions"
    origin = str(ci.session._base_url).rstrip("/")

    body = (await ci.get(path, params={"page": "2", "size": "2"})).body

    assert {name: value for name, value in body.items() if name != "item_list"} == {
        "current_page": 2,
        "total_count": 5,
        "page_count": 3,
        "next_page": f"{origin}{path}?page=3&size=2",
        "previous_page": f"{origin}{path}?page=1&size=2",
        "rest_api_url": f"{origin}/Testinium.RestApi",
    }
    assert [one["id"] for one in body["item_list"]] == [3, 2]
    last = (await ci.get(path, params={"page": "3", "size": "2"})).body
    assert last["next_page"] is None
    for wrong in ({"page": "0"}, {"size": "0"}, {"size": "501"}, {"page": "x"}, {"page": "9" * 30}):
        assert_problem(await ci.get(path, params=wrong), 400, "Invalid input data")


async def test_results_in_dialect_c(ci: Api, worker: FakeWorker) -> None:
    """§4: TestResult with iso dates, alone and by execution and scenario."""
    execution_id = await play(ci, worker)

    one = (await ci.get(f"{API}/results/2")).body
    several = (await ci.get(f"{API}/results/execution/{execution_id}/scenario/2")).body

    assert set(one) >= RESULT_ALWAYS
    assert ISO.fullmatch(one["start_date"])
    assert ISO.fullmatch(one["end_date"])
    assert several == [one]
    assert (await ci.get(f"{API}/results/execution/{execution_id}/scenario/99")).body == []


async def test_the_last_failed_scenarios(ci: Api, worker: FakeWorker) -> None:
    """§4: [{scenario, test_results}] of the last execution."""
    assert (await ci.get(f"{API}/plans/1/lastFailedScenarios")).body == []
    await play(ci, worker)

    body = (await ci.get(f"{API}/plans/1/lastFailedScenarios")).body

    assert [(one["scenario"]["id"], [r["level"] for r in one["test_results"]]) for one in body] == [
        (2, ["FAILURE"]),
        (3, ["ERROR"]),
    ]


# --- files -----------------------------------------------------------------------------------------------------------

COMMAND = (
    '{"method": "POST", "path": "/session/1/url", "request": "{}", "response": "null", "level": "SUCCESS",'
    ' "start_at": "2026-11-23T10:43:09.000+00:00", "end_at": "2026-11-23T10:43:09.250+00:00", "runtime_ms": 250.4}\n'
)


@pytest.fixture
async def result(ci: Api, worker: FakeWorker, context: Context, tmp_path: Path) -> dict[str, Any]:
    """A failed result with a log, a screenshot and two recorded commands."""
    execution_id = await ci.start(1)
    [task, *_] = await worker.take(execution_id)
    kept = {}
    for name, content in {
        wire.EXECUTOR_LOG: b"<script>alert(1)</script>",
        wire.SCREEN: b"\x89PNG",
        wire.COMMANDS: (COMMAND + COMMAND.replace("url", "title")).encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
        kept[name] = await context.artifacts.put(execution_id, task.fence.attempt_id, name, tmp_path / name)
    case = Case("test_pays", "tests", CaseStatus.FAILED, 0.1, "no", "trace")
    await worker.finish(task.fence, FAILED, artifacts=kept, cases=[case])
    body: dict[str, Any] = (await ci.get(f"{API}/testResults/{task.job_id}")).body
    return body


async def test_paths_are_absolute_addresses_that_the_bearer_may_fetch(
    ci: Api, nobody: Api, result: dict[str, Any]
) -> None:
    """§4: paths ending `_path`."""
    origin = str(ci.session._base_url).rstrip("/")
    path = result["executor_log_path"].removeprefix(origin)
    assert path != result["executor_log_path"]

    log = await ci.get(path)

    assert (log.status, log.text) == (200, "<script>alert(1)</script>")
    assert_problem(await nobody.get(path), 401, "Unauthorized")
    assert result["node_log_path"] == "", "there is none"


async def test_nothing_that_a_test_left_runs_in_a_browser(ci: Api, result: dict[str, Any]) -> None:
    """Issue 2.11: nosniff, attachment, sandboxed."""
    origin = str(ci.session._base_url).rstrip("/")
    urls = result["attempts"][0]["artifacts"]
    assert set(urls) == {wire.EXECUTOR_LOG, wire.COMMANDS, wire.SCREEN}
    for url in urls.values():
        async with ci.session.get(url.removeprefix(origin), headers=ci.headers) as response:
            assert response.status == 200
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Content-Disposition"].startswith("attachment")
            assert "sandbox" in response.headers["Content-Security-Policy"]
            assert response.content_type in {"text/plain", "application/x-ndjson", "image/png"}


async def test_a_file_that_was_not_kept_is_not_found(ci: Api, result: dict[str, Any], context: Context) -> None:
    """§2: 404, also for what the disk has lost, and for paths that lead elsewhere."""
    attempt = result["attempts"][0]["id"]
    for name in ("nothing.log", "..%2f..%2f..%2fetc%2fpasswd", "%00", "executor.log%00", "driver.log"):
        assert_problem(await ci.get(f"/api/v1/attempts/{attempt}/artifacts/{name}"), 404, "Not Found")
    assert_problem(await ci.get("/api/v1/attempts/99/artifacts/executor.log"), 404, "Not Found")
    for file in context.settings.artifacts_folder.rglob("*.*"):
        file.unlink()
    assert_problem(await ci.get(f"/api/v1/attempts/{attempt}/artifacts/executor.log"), 404, "Not Found")
    assert (await ci.get(f"{API}/testResults/{result['id']}")).body["test_result_commands"] == []


async def test_recorded_commands_are_the_contracts(ci: Api, result: dict[str, Any]) -> None:
    """§4: Command."""
    [first, second] = result["test_result_commands"]

    assert first == {
        "method_type": "POST",
        "request_path": "/session/1/url",
        "request_data": "{}",
        "response_data": "null",
        "level": "SUCCESS",
        "start_date": 1795430589000,
        "end_date": 1795430589250,
        "runtime": 250,
        "runtime_as_string": "0.250 s",
    }
    assert second["request_path"] == "/session/1/title"
    path = f"{API}/results/{result['id']}/detailed/filter"
    page = (await ci.get(path, params={"page": "1", "size": "1", "isDesc": "true"})).body
    assert page["test_result_commands_paginated_result"] == {
        "current_page": 1,
        "total_count": 2,
        "page_count": 2,
        "item_list": [second],
    }


async def test_a_public_link_is_a_path_in_a_json_string(ci: Api, result: dict[str, Any]) -> None:
    """§4: publicReportLink."""
    body = (await ci.get(f"{API}/results/{result['id']}/publicReportLink")).body

    assert isinstance(body, str)
    assert body.startswith("/")
