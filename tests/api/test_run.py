"""Contract §3: the run route, every answer of it."""

import asyncio
import io
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

import world
from calls import API, Api, Reply, SignIn, assert_problem
from proctor.services.context import Context
from proctor.services.sweep import sweep
from proctor.testing.worker import FakeWorker

ALWAYS = {"test_plan_id", "unavailable_env_list", "successful", "succesful", "already_running", "message"}


@pytest.fixture
async def ci(context: Context, sign_in: SignIn) -> Api:
    """A user who may run the plan `smoke` of two scenarios, without a worker: it runs until it is stopped."""
    await world.put(context, world.service())
    return await sign_in("ci")


async def executions(context: Context) -> int:
    [(number,)] = await world.sql(context, "SELECT count(*) FROM executions")
    return int(number)


def assert_answer(
    reply: Reply, *, successful: bool, already_running: bool = False, execution: bool | None = None
) -> None:
    """The fields of every 200, and the misspelt repetition."""
    assert reply.status == 200, reply.text
    has_execution = successful or already_running if execution is None else execution
    assert set(reply.body) == ALWAYS | ({"execution_id"} if has_execution else set())
    assert reply.body["successful"] is successful
    assert reply.body["succesful"] is successful
    assert reply.body["already_running"] is already_running
    assert isinstance(reply.body["test_plan_id"], int)
    assert isinstance(reply.body["message"], str)
    assert reply.body["message"]
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Content-Type"] == "application/json"


# --- started and running ---------------------------------------------------------------------------------------------


async def test_a_plan_starts_with_the_seeds_request(ci: Api, context: Context) -> None:
    """§3: GET B/api/plans/{id}/run, with the seed's headers."""
    reply = await ci.run(1, headers={"Accept": "application/json"})

    assert_answer(reply, successful=True)
    assert reply.body["unavailable_env_list"] == []
    assert reply.body["test_plan_id"] == 1
    assert await world.sql(context, "SELECT id, plan_id, state FROM executions") == [
        (reply.body["execution_id"], 1, "running")
    ]
    assert await world.sql(context, "SELECT level FROM jobs") == [("WAITING",), ("WAITING",)]


async def test_a_running_plan_is_joined_and_nothing_new_starts(ci: Api, context: Context) -> None:
    """§3: already running: the running execution's id."""
    first = await ci.start(1)

    again = await ci.run(1)

    assert_answer(again, successful=False, already_running=True)
    assert again.body["execution_id"] == first
    assert await executions(context) == 1


async def test_joining_adds_the_callback(ci: Api, context: Context) -> None:
    """§3: a new callbackUrl is added to the running execution, each once."""
    await ci.start(1, params={"callbackUrl": "http://127.0.0.1:9/one"})

    for url in ("http://127.0.0.1:9/two", "http://127.0.0.1:9/two", "http://127.0.0.1:9/one"):
        assert_answer(await ci.run(1, params={"callbackUrl": url}), successful=False, already_running=True)

    rows = await world.sql(context, "SELECT url FROM callbacks ORDER BY id")
    assert rows == [("http://127.0.0.1:9/one",), ("http://127.0.0.1:9/two",)]


async def test_a_plan_whose_execution_has_ended_starts_again(ci: Api, context: Context) -> None:
    """§3: one execution after the other."""
    worker = await FakeWorker.sign_on(context)
    first = await ci.start(1)
    await worker.play(first)

    assert await ci.start(1) > first


async def test_fifty_calls_at_once_start_exactly_one_execution(ci: Api, context: Context) -> None:
    """Issue 2.6: fifty simultaneous calls; 49 are told which one runs."""
    replies = await asyncio.gather(*(ci.run(1) for _ in range(50)))

    for reply in replies:
        assert reply.status == 200, reply.text
    assert sum(reply.body["successful"] for reply in replies) == 1
    assert sum(reply.body["already_running"] for reply in replies) == 49
    assert len({reply.body["execution_id"] for reply in replies}) == 1
    assert await executions(context) == 1
    assert await world.sql(context, "SELECT count(*) FROM jobs") == [(2,)]


async def test_fifty_calls_at_once_by_name_and_post_and_force_start_one_too(ci: Api, context: Context) -> None:
    """§3: whichever route they take."""
    calls = [
        call
        for _ in range(10)
        for call in (
            ci.run(1),
            ci.run("smoke"),
            ci.post(f"{API}/plans/1/run"),
            ci.get(f"{API}/plans/1/run/false"),
            ci.get(f"{API}/plans/1/run/company/1"),
        )
    ]
    replies = await asyncio.gather(*calls)

    assert {reply.status for reply in replies} <= {200, 409}
    assert sum(reply.status == 200 and reply.body["successful"] for reply in replies) == 1
    assert await executions(context) == 1


async def test_post_is_the_same_with_the_callback_in_query_or_body(ci: Api, context: Context) -> None:
    """§3: POST B/api/plans/{id}/run, camelCase and snake_case, unknown fields ignored."""
    for number, options in enumerate(
        (
            {},
            {"params": {"callbackUrl": "http://127.0.0.1:9/1"}},
            {"json": {"callbackUrl": "http://127.0.0.1:9/2", "unknown": [1]}},
            {"json": {"callback_url": "http://127.0.0.1:9/3"}},
            {"json": {"callbackUrl": None}},
            {"data": b"  ", "headers": {"Content-Type": "application/json"}},
        )
    ):
        reply = await ci.post(f"{API}/plans/1/run", **options)  # type: ignore[arg-type]
        assert_answer(reply, successful=number == 0, already_running=number > 0)

    assert [url[-1] for (url,) in await world.sql(context, "SELECT url FROM callbacks ORDER BY id")] == ["1", "2", "3"]


async def test_a_body_that_is_no_json_object_is_refused(ci: Api, context: Context) -> None:
    """§2, §3: 400, and nothing starts."""
    for body in (b"{", b"[]", b'"x"', b'{"callbackUrl": 1}', b"\xff", b"[" * 100_000, b"1" * 10_000):
        assert_problem(await ci.post(f"{API}/plans/1/run", data=body), 400, "Invalid input data")
    for body in (b'{"callbackUrl": "http://127.0.0.1:9/\\ud800"}', b'{"callbackUrl": "http://127.0.0.1:9/\\u0000"}'):
        assert_problem(await ci.post(f"{API}/plans/1/run", data=body), 400, "Callback URL refused")

    assert await executions(context) == 0


async def test_a_body_beyond_the_limit_is_refused_announced_or_not(ci: Api, context: Context) -> None:
    """Every input is sized: 413."""

    async def endless() -> Any:
        for _ in range(64):
            yield b" " * 65_536

    for body in (io.BytesIO(b" " * (3 * 1024 * 1024)), endless()):
        assert_problem(await ci.post(f"{API}/plans/1/run", data=body), 413, "Content Too Large")

    assert await executions(context) == 0


# --- which plan ------------------------------------------------------------------------------------------------------


async def test_a_plan_is_named_by_its_id_or_its_url_encoded_name(context: Context, sign_in: SignIn) -> None:
    """§3: the name works where exactly one of the caller's plans bears it."""
    names = ["smoke", "nightly / full", "Ödeme %20", "a+b?c#d"]
    applied = await world.put(context, world.service(plans=[{"name": name} for name in names]))
    ci = await sign_in("ci")

    for name in names:
        url = URL(f"{API}/plans/{quote(name, safe='')}/run", encoded=True)
        reply = await ci.get(url)  # type: ignore[arg-type]
        assert_answer(reply, successful=True)
        assert reply.body["test_plan_id"] == applied.plans[f"shop / {name}"]


async def test_a_name_that_two_plans_bear_is_not_found_and_says_why(context: Context, sign_in: SignIn) -> None:
    """§3: ambiguous names start nothing."""
    await world.put(context, world.service("shop"), world.service("api"))
    ci = await sign_in("ci")

    reply = await ci.run("smoke")

    assert_problem(reply, 404, "Test Plan not found")
    assert "1, 2" in reply.body["detail"]
    assert_answer(await ci.run(2), successful=True)


async def test_another_companys_plan_of_the_same_name_is_not_in_the_way(context: Context, sign_in: SignIn) -> None:
    """§3: of the caller's plans."""
    await world.put(context, world.service(), company="Other", users={})
    applied = await world.put(context, world.service())

    reply = await (await sign_in("ci")).run("smoke")

    assert reply.body["test_plan_id"] == applied.plans["shop / smoke"]


async def test_what_names_no_plan_is_not_found(ci: Api, context: Context) -> None:
    """§2, §3: 404 `Test Plan not found`, whatever stands in its place."""
    for ref in (
        2,
        0,
        "nothing",
        "9" * 18,
        "9" * 19,
        "9" * 400,
        "%00",
        "1%00",
        "%F0%9F%92%A9",
        "-1",
        "1.0",
        "٣",
        "%ED%A0%80",
        "x" * 3000,
    ):
        assert_problem(await ci.run(ref), 404, "Test Plan not found", "plan_not_found")

    assert await executions(context) == 0


# --- who -------------------------------------------------------------------------------------------------------------


async def test_without_a_token_nothing_starts(ci: Api, nobody: Api, context: Context) -> None:
    """§2: 401; also with a cookie only (§3), so that no other site can start a plan."""
    token = ci.headers["Authorization"].removeprefix("Bearer ")
    for headers in ({}, {"Cookie": f"session={token}; proctor={token}; access_token={token}"}):
        assert_problem(await nobody.run(1, headers=headers), 401, "Unauthorized")
        assert_problem(await nobody.run(99, headers=headers), 401, "Unauthorized")

    assert await executions(context) == 0


async def test_a_member_without_the_permission_is_forbidden(context: Context, sign_in: SignIn) -> None:
    """§2: 403 in the caller's own company without PLAN_RUN."""
    roles = {"viewer": ["ROLE_USER"], "reporter": ["ROLE_REPORT"], "changer": ["ROLE_CHANGE_USER"], "bare": []}
    await world.put(context, world.service(), users=roles)

    for name in roles:
        assert_problem(await (await sign_in(name)).run(1), 403, "Forbidden", "forbidden")

    assert await executions(context) == 0


async def test_those_who_may_run_are_those_with_the_role(context: Context, sign_in: SignIn) -> None:
    """§6: ROLE_RUN_TEST, the company's administrator, the server's administrator."""
    await world.put(context, world.service(), users={"runner": ["ROLE_RUN_TEST"], "boss": ["ROLE_COMPANY_ADMIN"]})
    await world.make_admin(context)

    for name in ("runner", "boss", "admin"):
        reply = await (await sign_in(name)).run(1)
        assert reply.status == 200, name


async def test_a_stranger_does_not_learn_that_the_plan_is_there(context: Context, sign_in: SignIn) -> None:
    """§2: a plan in a company that the caller does not belong to is 404, the same as one that is not there."""
    await world.put(context, world.service())
    await world.put(context, company="Other", users={"eve": world.RUNNER})
    eve = await sign_in("eve")

    there, not_there = await eve.run(1), await eve.run(2)

    assert_problem(there, 404, "Test Plan not found")
    assert there.text.replace("'1'", "'2'") == not_there.text


async def test_the_header_selects_one_of_the_callers_companies(context: Context, sign_in: SignIn) -> None:
    """§1: current-company-id; empty counts as absent."""
    await world.put(context, world.service(), users={"both": world.RUNNER})
    await world.put(context, world.service(), company="Other", users={"both": world.RUNNER})
    await world.put(context, company="Third", users={})
    both = await sign_in("both")
    acme, other, third = [await world.company_id(context, name) for name in ("Acme", "Other", "Third")]

    assert_problem(await both.run("smoke"), 404, "Test Plan not found")
    assert_problem(await both.run("smoke", headers={"current-company-id": ""}), 404, "Test Plan not found")
    assert_problem(await both.run(1, headers={"current-company-id": str(other)}), 404, "Test Plan not found")
    assert_problem(await both.run(1, headers={"current-company-id": str(third)}), 403, "Forbidden")
    assert_problem(await both.run(1, headers={"current-company-id": "99"}), 403, "Forbidden")
    for wrong in ("x", "-1", "1.5", "1" * 30):
        assert_problem(await both.run(1, headers={"current-company-id": wrong}), 400, "Invalid input data")
    assert await executions(context) == 0

    for company, plan in ((acme, 1), (other, 2)):
        reply = await both.run("smoke", headers={"current-company-id": f" {company} "})
        assert (reply.body["successful"], reply.body["test_plan_id"]) == (True, plan)
    assert_answer(await both.run(1, headers={"current-company-id": ""}), successful=False, already_running=True)


async def test_the_company_route_runs_the_plan_of_that_company(context: Context, sign_in: SignIn) -> None:
    """§3: /run/company/{companyId}: 404 `Company not found`, 403 if not a member."""
    await world.put(context, world.service(), users={"both": world.RUNNER})
    await world.put(context, world.service(), company="Other", users={"both": world.RUNNER})
    await world.put(context, world.service(), company="Third", users={})
    both = await sign_in("both")

    for company in ("99", "x", "9" * 30, "%00"):
        reply = await both.get(f"{API}/plans/smoke/run/company/{company}")
        assert_problem(reply, 404, "Company not found", "company_not_found")
    assert_problem(await both.get(f"{API}/plans/3/run/company/3"), 403, "Forbidden")
    assert_problem(await both.get(f"{API}/plans/1/run/company/2"), 404, "Test Plan not found")
    assert await executions(context) == 0
    reply = await both.get(f"{API}/plans/smoke/run/company/2")
    assert_answer(reply, successful=True)
    assert reply.body["test_plan_id"] == 2


# --- environments ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def tester(context: Context, sign_in: SignIn) -> Api:
    """May run `smoke`: one scenario in an environment that is there, and in one of each kind that is not."""
    await FakeWorker.sign_on(context, hub="here", browsers=[world.CHROME], slots=1)
    away = await FakeWorker.sign_on(context, "away", hub="away", browsers=[world.FIREFOX])
    await away.sign_off()
    environments = [
        {"name": "here", "os": "LINUX", "browser": "chrome"},
        {"name": "disabled", "os": "LINUX", "browser": "chrome", "version": "156", "enabled": False},
        {"name": "unknown", "os": "WINDOWS", "browser": "edge", "version": "140"},
        {"name": "offline", "os": "LINUX", "browser": "firefox"},
        {"name": "phone", "os": "ANDROID", "browser": "chrome"},
    ]
    names = [str(one["name"]) for one in environments]
    await world.put(context, world.browsers(environments=names, number=2), environments=environments)
    return await sign_in("ci")


async def test_missing_environments_start_nothing_and_are_listed_with_their_reason(
    tester: Api, context: Context
) -> None:
    """§3: unavailable_env_list, one object for each, in exactly this shape."""
    reply = await tester.run("smoke")

    assert_answer(reply, successful=False)
    missing = {one["name"]: one for one in reply.body["unavailable_env_list"]}
    assert {name: one["reason"] for name, one in missing.items()} == {
        "disabled": "disabled",
        "unknown": "unknown",
        "offline": "offline",
        "phone": "unknown",
    }
    ids = dict(await world.sql(context, "SELECT name, id FROM environments WHERE company_id IS NOT NULL"))
    for one in missing.values():
        assert one.pop("detail")
    assert missing["unknown"] == {
        "id": ids["unknown"],
        "name": "unknown",
        "reason": "unknown",
        "operating_system": {"code": "WINDOWS", "platform": "WINDOWS", "mobile": False},
        "browsers": [
            {
                "code": "EDGE",
                "browser_name": "Edge",
                "versions": [{"environment_id": ids["unknown"], "version": "140"}],
            }
        ],
        "devices": [],
    }
    assert missing["phone"]["operating_system"] == {"code": "ANDROID", "platform": "ANDROID", "mobile": True}
    assert missing["phone"]["devices"] == []
    assert await executions(context) == 0


async def test_force_runs_where_it_can_and_ends_the_rest_unexecuted(tester: Api, context: Context) -> None:
    """§3: forceRun=true: successful, the missing ones still listed, their tests UNEXECUTED with the reason."""
    reply = await tester.get(f"{API}/plans/smoke/run/true")

    assert_answer(reply, successful=True)
    assert len(reply.body["unavailable_env_list"]) == 4
    rows = await world.sql(
        context, "SELECT e.name, j.level, j.message FROM jobs j JOIN environments e ON e.id = j.environment_id"
    )
    assert sorted((name, level) for name, level, _ in rows if name == "here") == [
        ("here", "PROCESSING"),
        ("here", "WAITING"),
    ]
    others = [(name, level, message) for name, level, message in rows if name != "here"]
    assert len(others) == 8
    details = {one["name"]: one["detail"] for one in reply.body["unavailable_env_list"]}
    assert all(level == "UNEXECUTED" and message == details[name] for name, level, message in others)


async def test_force_with_no_environment_at_all_ends_at_once(context: Context, sign_in: SignIn) -> None:
    """§3: forceRun=true where nothing is there: an execution that has ended, all UNEXECUTED."""
    environments = [{"name": "unknown", "os": "WINDOWS", "browser": "edge"}]
    await world.put(context, world.browsers(environments=["unknown"]), environments=environments)
    ci = await sign_in("ci")

    reply = await ci.get(f"{API}/plans/1/run/TRUE")

    assert_answer(reply, successful=True)
    execution = await ci.get(f"{API}/testExecutions/{reply.body['execution_id']}")
    assert execution.body["result_summary"] == {"UNEXECUTED": 1}
    assert "end_date" in execution.body
    assert_answer(await ci.get(f"{API}/plans/1/run/true"), successful=True)


async def test_force_is_true_or_false_and_nothing_else(tester: Api, context: Context) -> None:
    """§3: `forceRun` is `true` or `false`; false starts nothing where environments miss."""
    assert_answer(await tester.get(f"{API}/plans/smoke/run/false"), successful=False)
    for wrong in ("yes", "1", "truee"):
        assert_problem(await tester.get(f"{API}/plans/smoke/run/{wrong}"), 400, "Invalid input data")
    assert await executions(context) == 0


async def test_force_on_a_running_plan_is_a_conflict(ci: Api, context: Context) -> None:
    """§3: 409 instead of 200 when it is running, true or false."""
    await ci.start(1)

    for force in ("true", "false"):
        reply = await ci.get(f"{API}/plans/1/run/{force}", params={"callbackUrl": "http://127.0.0.1:9/"})
        assert_problem(reply, 409, "Test plan is already running", "already_running")

    assert await executions(context) == 1
    assert await world.sql(context, "SELECT url FROM callbacks") == [], "what is refused changes nothing"


async def test_an_environment_whose_slots_are_busy_is_available(context: Context, sign_in: SignIn) -> None:
    """§3: its tests wait."""
    await FakeWorker.sign_on(context, hub="here", browsers=[world.CHROME], slots=1)
    chrome = "LINUX / Chrome 156"
    await world.put(
        context, world.browsers("a", environments=[chrome], number=3), world.browsers("b", environments=[chrome])
    )
    ci = await sign_in("ci")

    assert_answer(await ci.run(1), successful=True)
    assert_answer(await ci.run(2), successful=True)

    rows = await world.sql(context, "SELECT level FROM jobs ORDER BY id")
    assert rows == [("PROCESSING",), ("WAITING",), ("WAITING",), ("WAITING",)]


# --- nothing to run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE plans SET enabled = false", "The test plan smoke is disabled"),
        ("UPDATE projects SET enabled = false", "The project shop is disabled"),
        ("UPDATE scenarios SET enabled = false", "it has no enabled scenario"),
        ("DELETE FROM scenarios", "it has no enabled scenario"),
        ("UPDATE projects SET framework = 'SELENIUM'", "it has no environment"),
    ],
)
async def test_a_plan_that_cannot_run_says_why(ci: Api, context: Context, change: str, says: str) -> None:
    """§3: plan or project disabled, or nothing to run: successful false, no execution_id, the message says which."""
    await world.sql(context, change)

    for path in ("run", "run/true"):
        reply = await ci.get(f"{API}/plans/1/{path}")
        assert_answer(reply, successful=False)
        assert says in reply.body["message"]

    assert await executions(context) == 0


# --- what must not start it ------------------------------------------------------------------------------------------


async def test_head_starts_nothing(ci: Api, context: Context) -> None:
    """§3: HEAD is not allowed, on every route that starts a run."""
    for path in ("run", "run/true", "run/company/1"):
        reply = await ci.send("HEAD", f"{API}/plans/1/{path}")
        assert reply.status == 405
    assert await executions(context) == 0


async def test_a_prefetch_starts_nothing(ci: Api, context: Context) -> None:
    """§3: Sec-Purpose and Purpose: prefetch."""
    for headers in (
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
        {"Purpose": "Prefetch"},
    ):
        for path in ("run", "run/true", "run/company/1"):
            assert_problem(await ci.get(f"{API}/plans/1/{path}", headers=headers), 400, "Invalid input data")
    assert await executions(context) == 0
    await ci.start(1)
    for headers in ({"Sec-Purpose": "prefetch"}, {"Purpose": "prefetch"}):
        assert_problem(await ci.get(f"{API}/plans/1/stop", headers=headers), 400, "Invalid input data")
    assert await world.sql(context, "SELECT state FROM executions") == [("running",)]


async def test_a_refused_callback_starts_nothing_and_says_why(ci: Api, context: Context) -> None:
    """Issue 2.10: 400 with the reason, and nothing starts; loopback is allowed here (--dev)."""
    for url, reason in {
        "http://169.254.169.254/latest/meta-data": "metadata",
        "http://10.0.0.1/": "private",
        "http://[fd00::1]/": "private",
        "http://192.168.1.1:8080/x": "private",
        "ftp://example.com/": "http",
        "file:///etc/passwd": "http",
        "http://user:secret@example.com/": "user name",
        "not a url": "",
        "http://": "",
        "http://2130706433/": "number",
        "http://[::1": "",
    }.items():
        for reply in (
            await ci.run(1, params={"callbackUrl": url}),
            await ci.get(f"{API}/plans/1/run/true", params={"callbackUrl": url}),
            await ci.post(f"{API}/plans/1/run", json={"callbackUrl": url}),
        ):
            assert_problem(reply, 400, "Callback URL refused", "callback_refused")
            assert reason in reply.body["detail"].lower(), reply.body["detail"]
            assert "secret" not in reply.text
    too_long = "http://example.com/" + "x" * 3000
    assert_problem(await ci.post(f"{API}/plans/1/run", json={"callbackUrl": too_long}), 400, "Callback URL refused")
    assert (await ci.run(1, params={"callbackUrl": too_long})).status == 400

    assert await executions(context) == 0


async def test_an_empty_callback_is_none(ci: Api, context: Context) -> None:
    """§3: `callbackUrl=` as some clients send it."""
    await ci.start(1, params={"callbackUrl": ""})

    assert await world.sql(context, "SELECT 1 FROM callbacks") == []


# --- Idempotency-Key -------------------------------------------------------------------------------------------------

KEY = {"Idempotency-Key": "build 4711"}


async def test_the_same_key_gives_the_same_answer_and_one_run(ci: Api, context: Context) -> None:
    """§3: also when the execution has ended meanwhile."""
    worker = await FakeWorker.sign_on(context)
    first = await ci.run(1, headers=KEY)
    assert_answer(first, successful=True)
    assert (await ci.run(1, headers=KEY)).body == first.body
    await worker.play(first.body["execution_id"])

    for again in (
        await ci.run(1, headers=KEY),
        await ci.run("smoke", headers=KEY),
        await ci.post(f"{API}/plans/1/run", headers=KEY),
    ):
        assert_answer(again, successful=True)
        assert again.body == first.body

    assert await executions(context) == 1


async def test_the_same_key_with_another_plan_or_body_is_refused(context: Context, sign_in: SignIn) -> None:
    """§3: 422."""
    await world.put(context, world.service(plans=[{"name": "smoke"}, {"name": "full"}]))
    ci = await sign_in("ci")
    await ci.start("smoke", headers=KEY)

    url = {"callbackUrl": "http://127.0.0.1:9/"}
    for reply in (
        await ci.run("full", headers=KEY),
        await ci.run("smoke", headers=KEY, params=url),
        await ci.post(f"{API}/plans/smoke/run", headers=KEY, json=url),
        await ci.get(f"{API}/plans/smoke/run/true", headers=KEY),
    ):
        assert_problem(reply, 422, "Idempotency-Key was used for another request", "idempotency_conflict")
    assert await executions(context) == 1


async def test_calls_with_the_same_key_at_once_get_one_answer(ci: Api, context: Context) -> None:
    """§3: one run, and everybody is told that it was started."""
    replies = await asyncio.gather(*(ci.run(1, headers=KEY) for _ in range(30)))

    assert_answer(replies[0], successful=True)
    assert all(reply.body == replies[0].body for reply in replies)
    assert await executions(context) == 1


async def test_a_key_is_the_users_own_and_lasts_a_day(context: Context, sign_in: SignIn) -> None:
    """§3: within 24 h."""
    await world.put(context, world.service(), users={"ci": world.RUNNER, "ann": world.RUNNER})
    ci, ann = await sign_in("ci"), await sign_in("ann")
    first = await ci.run(1, headers=KEY)
    assert_answer(await ann.run(1, headers=KEY), successful=False, already_running=True)

    await world.sql(context, "UPDATE idempotency_keys SET created_at = created_at - interval '23 hours 59 minutes'")
    assert (await ci.run(1, headers=KEY)).body == first.body
    await world.sql(context, "UPDATE idempotency_keys SET created_at = created_at - interval '2 minutes'")
    assert_answer(await ci.run(1, headers=KEY), successful=False, already_running=True)


async def test_a_key_that_is_none_is_refused(ci: Api, context: Context) -> None:
    """§3: sized and printable."""
    for wrong in ("x" * 256, "\x80"):
        assert_problem(await ci.run(1, headers={"Idempotency-Key": wrong}), 400, "Invalid input data")
    assert await executions(context) == 0


async def test_a_call_that_was_refused_does_not_use_its_key_up(ci: Api, context: Context) -> None:
    """§3: a key belongs to an answer, and an error is none."""
    refused = await ci.run(1, headers=KEY, params={"callbackUrl": "http://10.0.0.1/"})
    assert_problem(refused, 400, "Callback URL refused")
    assert_problem(await ci.run(99, headers=KEY), 404, "Test Plan not found")

    assert_answer(await ci.run(1, headers=KEY), successful=True)


# --- when things are wrong inside ------------------------------------------------------------------------------------


async def test_what_goes_wrong_inside_stays_inside(ci: Api, context: Context) -> None:
    """§2: 500 `Internal Server Error` without a stack trace, SQL or a path."""
    await world.sql(context, "ALTER TABLE executions RENAME TO gone")

    reply = await ci.run(1)

    assert_problem(reply, 500, "Internal Server Error", "internal_server_error")
    assert "executions" not in reply.text


async def test_a_path_that_nobody_serves_and_a_method_that_nobody_has_are_problems_too(nobody: Api) -> None:
    """§2: every error body is the one JSON object."""
    assert_problem(await nobody.get(f"{API}/nothing"), 404, "Not Found", "not_found")
    assert_problem(await nobody.send("DELETE", f"{API}/plans/1/run"), 405, "Method Not Allowed", "method_not_allowed")


async def test_a_started_run_survives_a_sweep(ci: Api, context: Context) -> None:
    """§3: what waits for a worker is not taken for lost."""
    await ci.start(1)

    await sweep(context)

    assert await world.sql(context, "SELECT level FROM jobs") == [("WAITING",), ("WAITING",)]
