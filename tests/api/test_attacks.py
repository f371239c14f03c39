"""What a review proved, each as a test: it must not work again."""

import asyncio
from typing import Any

import aiohttp
import pytest

import world
from calls import Api, SignIn, assert_problem
from proctor.errors import ProctorError
from proctor.services import accounts
from proctor.services.apply import apply
from proctor.services.context import Context
from proctor.services.manifest import check_manifest
from receiver import receiving

TOKEN = "/Testinium.RestApi/oauth/token"


async def sign_in_as(client: aiohttp.ClientSession, password: str, **headers: str) -> int:
    fields = {"grant_type": "password", "username": "ci", "password": password}
    basic = aiohttp.encode_basic_auth("client1", "client1")
    async with client.post(TOKEN, data=fields, headers={"Authorization": basic, **headers}) as response:
        return response.status


async def test_two_companies_that_make_the_same_user_at_once_do_not_share_him(context: Context) -> None:
    await world.put(context, company="A", users={"a": ["ROLE_COMPANY_ADMIN"]})
    await world.put(context, company="B", users={"b": ["ROLE_COMPANY_ADMIN"]})

    async def put_victim(owner: str, company: str) -> bool:
        caller = await world.caller(context, owner)
        victim = {"username": "victim", "password": f"password of {company}", "roles": ["ROLE_COMPANY_ADMIN"]}
        try:
            await apply(context, caller, check_manifest({"company": company, "users": [victim]}))
        except ProctorError:
            return False
        return True

    done = await asyncio.gather(put_victim("a", "A"), put_victim("b", "B"))
    assert sorted(done) == [False, True]
    assert await world.sql(
        context, "SELECT count(*) FROM memberships m JOIN users u ON u.id = m.user_id WHERE u.username = 'victim'"
    ) == [(1,)]


async def test_a_new_password_ends_what_the_old_one_gave_and_the_same_one_does_not(
    context: Context, client: aiohttp.ClientSession
) -> None:
    async def put(password: str) -> None:
        user: dict[str, Any] = {"username": "ci", "password": password, "roles": ["ROLE_USER"]}
        caller = await world.caller(context, "admin")
        await apply(context, caller, check_manifest({"company": "Acme", "users": [user]}))

    await accounts.ensure_admin(context, "a long password")
    await put("first password")
    headers = await world.bearer(context, "ci")
    ci = Api(client, headers)
    await put("first password")
    assert (await ci.get("/api/v1/tokens")).status == 200
    await put("second password")
    assert_problem(await ci.get("/api/v1/tokens"), 401, "Unauthorized")


async def test_a_personal_token_is_revoked_at_once_and_only_by_its_owner(
    context: Context, client: aiohttp.ClientSession, sign_in: SignIn
) -> None:
    await world.put(context, users={"ci": world.RUNNER, "other": world.RUNNER})
    ci, other = await sign_in("ci"), await sign_in("other")
    made = (await ci.post("/api/v1/tokens", json={"label": "laptop"})).body["token"]
    [listed] = [one for one in (await ci.get("/api/v1/tokens")).body if one["label"] == "laptop"]
    assert "token" not in listed

    stolen = Api(client, {"Authorization": f"Bearer {made}"})
    assert (await stolen.get("/api/v1/tokens")).status == 200
    async with client.delete(f"/api/v1/tokens/{listed['id']}", headers=other.headers) as response:
        assert response.status == 404
    async with client.delete(f"/api/v1/tokens/{listed['id']}", headers=ci.headers) as response:
        assert response.status == 200
    assert_problem(await stolen.get("/api/v1/tokens"), 401, "Unauthorized")


async def test_a_forwarded_address_does_not_get_round_the_throttle(
    context: Context, client: aiohttp.ClientSession
) -> None:
    await world.put(context, users={"ci": world.RUNNER})
    for number in range(10):
        assert await sign_in_as(client, "wrong", **{"X-Forwarded-For": f"9.9.9.{number}"}) == 401
    assert await sign_in_as(client, "wrong", **{"X-Forwarded-For": "9.9.9.99"}) == 429


async def test_who_may_change_nothing_is_refused_before_his_manifest_is_judged(
    context: Context, sign_in: SignIn
) -> None:
    await world.put(context, users={"ci": world.RUNNER})
    reply = await (await sign_in("ci")).post("/api/v1/apply", json={"nonsense": True})
    assert_problem(reply, 403, "Forbidden")


@pytest.mark.parametrize("half", ["\ud800", "\udc80x"])
async def test_half_a_surrogate_in_a_manifest_is_a_mistake_and_no_error(
    context: Context, sign_in: SignIn, half: str
) -> None:
    await world.put(context, users={"boss": ["ROLE_COMPANY_ADMIN"]})
    plan = {"name": "p", "scenarios": [half]}
    manifest = {"company": "Acme", "hubs": [{"name": half}], "projects": [{"name": "a", "plans": [plan]}]}
    reply = await (await sign_in("boss")).post("/api/v1/apply", json=manifest)
    assert reply.status == 422


async def test_the_callers_host_header_is_not_passed_on_in_callbacks(
    context: Context, client: aiohttp.ClientSession, sign_in: SignIn
) -> None:
    await world.put(context, world.service(number=1), users={"ci": world.RUNNER})
    headers = {**(await sign_in("ci")).headers, "Host": "evil.example"}
    async with receiving() as receiver:
        run = f"/Testinium.RestApi/api/plans/smoke/run?callbackUrl={receiver.url}"
        async with client.get(run, headers=headers) as response:
            assert response.status == 200
        [told] = await receiver.wait(1)
    assert b"evil.example" not in told.raw


async def test_a_slash_at_the_end_changes_nothing(context: Context, sign_in: SignIn) -> None:
    await world.put(context, world.service(number=1), users={"ci": world.RUNNER})
    ci = await sign_in("ci")
    assert (await ci.get("/Testinium.RestApi/api/plans/smoke/checkIsRunning/")).body["running"] is False
    assert (await ci.get("/Testinium.RestApi/api/plans/smoke/run/")).body["successful"] is True
