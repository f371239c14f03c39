"""Proctor's own routes below /api/v1, health, and limits on what comes in."""

import asyncio
from typing import Any

import pytest

import world
from calls import API, Api, SignIn, assert_problem
from proctor.services.context import Context
from proctor.testing.worker import FakeWorker

MANIFEST: dict[str, Any] = {"company": "Acme", "projects": [world.service()]}


async def test_alive_and_ready(nobody: Api, context: Context) -> None:
    """Issue 2.3: /healthz, and /readyz: database, queue, a worker."""
    assert (await nobody.get("/healthz")).body == {"status": "alive"}
    reply = await nobody.get("/readyz")
    assert (reply.status, reply.body) == (
        503,
        {"status": "not ready", "database": "ok", "queue": "ok", "worker": "down"},
    )
    await FakeWorker.sign_on(context)
    reply = await nobody.get("/readyz")
    assert (reply.status, reply.body["status"]) == (200, "ready")


async def test_apply_makes_it_so_and_again_changes_nothing(context: Context, sign_in: SignIn) -> None:
    """Issue 2.4: idempotent."""
    await world.make_admin(context)
    admin = await sign_in("admin")

    first = await admin.post("/api/v1/apply", json=MANIFEST)
    before = await world.sql(context, "SELECT * FROM plans")
    again = await admin.post("/api/v1/apply", json=MANIFEST)

    assert first.body["callback_secret"].startswith("whsec_")
    assert "company Acme" in first.body["created"]
    assert again.body["created"] == []
    assert "callback_secret" not in again.body, "shown once"
    assert again.body["plans"] == first.body["plans"] == {"shop / smoke": 1}
    assert await world.sql(context, "SELECT * FROM plans") == before


async def test_apply_lists_every_mistake_and_changes_nothing(context: Context, sign_in: SignIn) -> None:
    """Issue 2.4: validates everything before it changes anything."""
    await world.make_admin(context)
    admin = await sign_in("admin")
    wrong = {"company": "Acme", "projects": [{**world.service(), "framework": "NONE", "runner": "ant"}], "oops": 1}

    reply = await admin.post("/api/v1/apply", json=wrong)

    assert_problem(reply, 422, "The manifest has mistakes", "manifest_invalid")
    assert len(reply.body["mistakes"]) == 3
    assert await world.sql(context, "SELECT 1 FROM companies") == []


async def test_apply_takes_no_text_that_cannot_be_stored(context: Context, sign_in: SignIn) -> None:
    """§2: no 500: halves of surrogate pairs and NULs anywhere."""
    await world.make_admin(context)
    admin = await sign_in("admin")
    project = '{"name": "p", "repository": "https://a.example/b", "framework": "SERVICE", "runner": "pytest"'
    for bad in ("\\ud800", "\\u0000"):
        for body in (
            f'{{"company": "A{bad}"}}',
            f'{{"company": "A", "users": [{{"username": "u{bad}", "password": "12345678"}}]}}',
            f'{{"company": "A", "users": [{{"username": "u", "password": "1234{bad}5678"}}]}}',
            f'{{"company": "A", "projects": [{project}, "description": "x{bad}"}}]}}',
            f'{{"company": "A", "projects": [{project}, "parameters": {{"A": "x{bad}"}}}}]}}',
            f'{{"company": "A", "x{bad}": 1}}',
        ):
            headers = {"Content-Type": "application/json"}
            reply = await admin.post("/api/v1/apply", data=body.encode(), headers=headers)
            assert reply.status in {400, 422}, (body, reply.text)
    for body in (b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"", b"null", b"1" * 5000):
        reply = await admin.post("/api/v1/apply", data=body, headers={"Content-Type": "application/json"})
        assert reply.status in {400, 422}, (body[:10], reply.text)
    assert await world.sql(context, "SELECT 1 FROM companies") == []


async def test_who_may_apply_what(context: Context, sign_in: SignIn) -> None:
    """Issue 2.4: companies and hubs are the administrator's; a company's administrator changes his own."""
    await world.put(context, users={"boss": ["ROLE_COMPANY_ADMIN"], "ci": world.RUNNER})
    await world.put(context, company="Other", users={"eve": ["ROLE_COMPANY_ADMIN"]})
    boss, ci, eve = await sign_in("boss"), await sign_in("ci"), await sign_in("eve")

    assert (await boss.post("/api/v1/apply", json=MANIFEST)).status == 200
    assert_problem(await ci.post("/api/v1/apply", json=MANIFEST), 403, "Forbidden")
    assert_problem(await eve.post("/api/v1/apply", json=MANIFEST), 403, "Forbidden")
    assert_problem(await boss.post("/api/v1/apply", json={"company": "New"}), 403, "Forbidden")
    hubs = {"company": "Acme", "hubs": [{"name": "h", "kind": "local"}]}
    assert_problem(await boss.post("/api/v1/apply", json=hubs), 403, "Forbidden")
    crown = {"company": "Acme", "users": [{"username": "boss", "roles": ["ROLE_ADMIN"]}]}
    assert_problem(await boss.post("/api/v1/apply", json=crown), 403, "Forbidden")
    local = {"company": "Acme", "projects": [world.service(repository="/etc")]}
    assert_problem(await boss.post("/api/v1/apply", json=local), 422, "The manifest has mistakes")
    theirs = {"company": "Acme", "users": [{"username": "eve", "password": "takeover!", "roles": []}]}
    assert_problem(await boss.post("/api/v1/apply", json=theirs), 422, "The manifest has mistakes")


async def test_the_last_hash_of_another_companys_user_stays(context: Context, sign_in: SignIn) -> None:
    """Issue 2.4: a manifest with one mistake changes nothing at all."""
    await world.put(context, users={"boss": ["ROLE_COMPANY_ADMIN"]})
    await world.put(context, company="Other", users={"eve": []})
    boss = await sign_in("boss")
    users = [{"username": "new", "roles": []}, {"username": "eve", "password": "takeover!", "roles": []}]

    await boss.post("/api/v1/apply", json={"company": "Acme", "users": users})

    assert await world.sql(context, "SELECT username FROM users WHERE username = 'new'") == []
    assert await world.sql(context, "SELECT password_hash FROM users WHERE username = 'eve'") == [(None,)]


async def test_a_personal_token_works_until_its_days_are_over(context: Context, sign_in: SignIn, nobody: Api) -> None:
    """Issue 2.5: personal tokens."""
    await world.put(context, world.service())
    ci = await sign_in("ci")

    reply = await ci.post("/api/v1/tokens", json={"label": "laptop", "days": 30})

    header = {"Authorization": f"Bearer {reply.body['token']}"}
    assert (await nobody.get(f"{API}/plans", headers=header)).status == 200
    await world.sql(context, "UPDATE tokens SET expires_at = expires_at - interval '31 days' WHERE label = 'laptop'")
    assert_problem(await nobody.get(f"{API}/plans", headers=header), 401, "Unauthorized")
    for wrong in ({"days": 0}, {"days": 10**6}, {"label": "x" * 201}, {"days": "x"}, [1]):
        assert_problem(await ci.post("/api/v1/tokens", json=wrong), 400, "Invalid input data")
    for label in ("\\ud800", "\\u0000"):
        body = f'{{"label": "{label}"}}'.encode()
        reply = await ci.post("/api/v1/tokens", data=body, headers={"Content-Type": "application/json"})
        assert_problem(reply, 400, "Invalid input data")


@pytest.fixture
async def ci(context: Context, sign_in: SignIn) -> Api:
    await world.put(context, world.service())
    return await sign_in("ci")


async def test_a_summary_waits_for_what_is_new(ci: Api, context: Context) -> None:
    """Design: a long poll, woken by a notification."""
    worker = await FakeWorker.sign_on(context)
    execution_id = await ci.start(1)
    path = f"/api/v1/executions/{execution_id}/summary"
    first = (await ci.get(path)).body
    assert [event["type"] for event in first["events"]] == ["execution.started"]

    waiting = asyncio.create_task(ci.get(path, params={"wait": "20", "after": "1"}))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    [task, other] = await worker.take(execution_id)
    await worker.finish(task.fence)
    async with asyncio.timeout(4):
        second = (await waiting).body

    assert [event["sequence"] for event in second["events"]] == [2]
    assert second["counts"] == {"total": 2, "waiting": 0, "running": 1, "ended": 1}
    await worker.finish(other.fence)
    last = (await ci.get(path, params={"wait": "20", "after": "4"})).body
    assert (last["state"], last["level"], last["events"]) == ("finished", "SUCCESS", [])
    for wrong in ({"wait": "26"}, {"wait": "-1"}, {"wait": "nan"}, {"after": "-1"}, {"after": "x"}):
        assert_problem(await ci.get(path, params=wrong), 400, "Invalid input data")
    assert (await ci.get(path, params={"after": "9" * 30})).body["events"] == []


async def test_an_execution_shows_its_jobs_attempts_and_cases(ci: Api, context: Context) -> None:
    """Design: what the command line needs beyond the contract."""
    worker = await FakeWorker.sign_on(context)
    execution_id = await ci.start(1)
    await worker.play(execution_id)

    body = (await ci.get(f"/api/v1/executions/{execution_id}")).body

    assert (body["state"], body["levels"], body["username"]) == ("finished", {"SUCCESS": 2}, "ci")
    assert [len(job["attempts"]) for job in body["jobs"]] == [1, 1]


async def test_a_strange_host_header_breaks_nothing(ci: Api) -> None:
    """§2: no 500; the host stands in every link."""
    await ci.start(1)
    for host in ("[", "[::1", "a b", "x" * 5000, "", "a:b:c", "\xff"):
        reply = await ci.get(f"{API}/plans/1/executions", headers={"Host": host})
        assert reply.status in {200, 400}, (host, reply.text)
