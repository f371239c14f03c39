"""Contract §1: the token route."""

import asyncio
import itertools
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

import world
from calls import API, Api, B, Reply, assert_problem
from proctor.services import accounts
from proctor.services.apply import apply
from proctor.services.context import Context
from proctor.services.manifest import check_manifest
from serving import serving

PASSWORD = "correct horse battery"
TOKEN = f"{B}/oauth/token"


def basic(pair: str = "client1:client1") -> dict[str, str]:
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


async def ask(api: Api, path: str = TOKEN, *, pair: str = "client1:client1", **fields: str) -> Reply:
    return await api.post(path, data=fields, headers=basic(pair))


async def sign_in(api: Api, username: str = "ci", password: str = PASSWORD) -> Reply:
    return await ask(api, grant_type="password", username=username, password=password)


@pytest.fixture
async def anna(context: Context, nobody: Api) -> Api:
    """A client without a token, where the users `ci` and `ann` have the password."""
    users: list[dict[str, Any]] = [
        {"username": name, "password": PASSWORD, "roles": ["ROLE_RUN_TEST"]} for name in ("ci", "ann")
    ]
    document = {"company": "Acme", "users": users, "projects": [world.service()]}
    await apply(context, world.ADMIN, check_manifest(document))
    return nobody


def assert_pair(reply: Reply) -> None:
    assert reply.status == 200, reply.text
    body = reply.body
    assert set(body) == {"access_token", "token_type", "refresh_token", "expires_in", "scope", "jti"}
    assert body["token_type"] == "bearer"
    assert isinstance(body["expires_in"], int)
    assert body["expires_in"] > 0
    assert len({body["access_token"], body["refresh_token"], body["jti"]}) == 3
    assert reply.headers["Cache-Control"] == "no-store"


async def works(api: Api, token: str) -> bool:
    reply = await api.get(f"{API}/plans", headers={"Authorization": f"Bearer {token}"})
    assert reply.status in {200, 401}
    return reply.status == 200


@pytest.mark.parametrize("path", [TOKEN, "/uaa/oauth/token"])
async def test_a_password_gives_a_pair_that_works_at_both_addresses(anna: Api, path: str) -> None:
    """§1: POST B/oauth/token and its alias, with the public client pair, out of the box."""
    reply = await ask(anna, path, grant_type="password", username="ci", password=PASSWORD, scope="read")

    assert_pair(reply)
    assert reply.body["scope"] == "read"
    assert await works(anna, reply.body["access_token"])
    assert not await works(anna, reply.body["refresh_token"]), "a refresh token is no access token"


async def test_an_access_key_does_as_well_as_the_password(anna: Api, context: Context) -> None:
    """§1: some send an API access key in `password`: accept either, but only the user's own."""
    key = await world.token(context, "ci")

    reply = await sign_in(anna, "ci", key)

    assert_pair(reply)
    assert await works(anna, reply.body["access_token"])
    assert_problem(await sign_in(anna, "ann", key), 401, "invalid_grant", "invalid_grant")


async def test_client_credentials_need_an_access_key(anna: Api, context: Context) -> None:
    """§1: grant client_credentials; the client pair is public, so the key says who it is."""
    key = await world.token(context, "ci")

    assert_pair(await ask(anna, grant_type="client_credentials", password=key))
    assert_problem(await ask(anna, grant_type="client_credentials"), 400, "INVALID_REQUEST", "invalid_request")
    wrong = await ask(anna, grant_type="client_credentials", password="not a key")
    assert_problem(wrong, 401, "invalid_grant", "invalid_grant")


async def test_a_missing_field_or_an_unknown_grant_is_an_invalid_request(anna: Api) -> None:
    """§1: 400 INVALID_REQUEST."""
    asked: list[dict[str, str]] = [
        {},
        {"grant_type": "implicit"},
        {"grant_type": "password"},
        {"grant_type": "password", "username": "ci"},
        {"grant_type": "password", "password": PASSWORD},
        {"grant_type": "refresh_token"},
    ]
    for fields in asked:
        assert_problem(await ask(anna, **fields), 400, "INVALID_REQUEST", "invalid_request")


async def test_a_bad_client_pair_is_an_invalid_client(anna: Api) -> None:
    """§1: 401 INVALID_CLIENT."""
    fields = {"grant_type": "password", "username": "ci", "password": PASSWORD}
    wrong: list[dict[str, str]] = [
        {},
        basic("client1:wrong"),
        basic("wrong:client1"),
        basic("client1"),
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic /w=="},
        {"Authorization": "Bearer client1:client1"},
    ]
    for headers in wrong:
        assert_problem(await anna.post(TOKEN, data=fields, headers=headers), 401, "INVALID_CLIENT", "invalid_client")


async def test_a_bad_user_and_a_bad_password_look_the_same(anna: Api) -> None:
    """§1: 401 invalid_grant; nobody learns which users there are."""
    bad_user = await sign_in(anna, "nobody")
    bad_password = await sign_in(anna, "ci", "wrong")

    assert_problem(bad_user, 401, "invalid_grant", "invalid_grant")
    assert bad_user.body == bad_password.body


async def test_whatever_stands_in_the_fields_nothing_breaks(anna: Api) -> None:
    """§1, §2: what cannot be right is refused, and never a 500."""
    grants = ("password", "client_credentials", "refresh_token")
    for grant, text in itertools.product(grants, ("\0", "a\0b", "x" * 100_000, "\N{SNOWMAN}")):
        for own in ({"username": text}, {"password": text}, {"refresh_token": text}):
            fields = {"username": "ci", "password": "wrong", "refresh_token": "wrong", **own}
            reply = await ask(anna, grant_type=grant, **fields)
            # What is tried often enough is throttled.
            assert reply.status in {401, 429}, (grant, own)


async def test_a_charset_that_makes_half_characters_breaks_nothing(anna: Api) -> None:
    """§2: no 500; UTF-7 can spell a surrogate, which neither hashing nor the database can encode."""
    for name in ("username", "password", "refresh_token"):
        for grant in ("password", "client_credentials", "refresh_token"):
            form = "".join(
                f'--x\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
                for field, value in {
                    "grant_type": grant,
                    "username": "ci",
                    "password": "p",
                    "refresh_token": "r",
                    name: "+2AA-",
                }.items()
            )
            headers = {**basic(), "Content-Type": "multipart/form-data; boundary=x; charset=utf-7"}
            reply = await anna.post(TOKEN, data=(form + "--x--\r\n").encode(), headers=headers)
            assert reply.status in {400, 401}, reply.text


async def test_the_client_pair_can_be_replaced(context: Context, settings: Any, database_url: str) -> None:
    """§1: the public client pair is replaceable."""
    await world.put(context, world.service())
    key = await world.token(context)
    own = settings.model_copy(update={"client_id": "mine", "client_secret": "s3cret"})

    async with serving(own, database_url) as server, aiohttp.ClientSession(server.url) as session:
        api = Api(session, {})
        assert_pair(await ask(api, pair="mine:s3cret", grant_type="password", username="ci", password=key))
        refused = await ask(api, grant_type="password", username="ci", password=key)
        assert_problem(refused, 401, "INVALID_CLIENT")


# --- refresh ---------------------------------------------------------------------------------------------------------


async def test_a_refresh_token_gives_a_new_pair_once(anna: Api) -> None:
    """§1: grant refresh_token."""
    first = (await sign_in(anna)).body

    second = await ask(anna, grant_type="refresh_token", refresh_token=first["refresh_token"])

    assert_pair(second)
    assert second.body["access_token"] != first["access_token"]
    assert await works(anna, second.body["access_token"])


async def test_a_refresh_token_that_is_used_twice_revokes_everything_of_its_sign_in(anna: Api) -> None:
    """Design 10: somebody has stolen it, and nobody can tell who: all of the family go, and only they."""
    other = (await sign_in(anna)).body
    first = (await sign_in(anna)).body
    second = (await ask(anna, grant_type="refresh_token", refresh_token=first["refresh_token"])).body

    again = await ask(anna, grant_type="refresh_token", refresh_token=first["refresh_token"])

    assert_problem(again, 401, "invalid_grant", "invalid_grant")
    assert not await works(anna, first["access_token"])
    assert not await works(anna, second["access_token"])
    last = await ask(anna, grant_type="refresh_token", refresh_token=second["refresh_token"])
    assert_problem(last, 401, "invalid_grant")
    assert await works(anna, other["access_token"])


async def test_a_refresh_token_that_is_used_twice_at_once_leaves_no_token_that_works(anna: Api) -> None:
    """Design 10: the pair that the first use got is revoked too, also when both come at the same moment."""
    for _ in range(5):
        first = (await sign_in(anna)).body
        replies = await asyncio.gather(
            *(ask(anna, grant_type="refresh_token", refresh_token=first["refresh_token"]) for _ in range(4))
        )
        assert sorted(reply.status for reply in replies) == [200, 401, 401, 401]
        [winner] = [reply.body for reply in replies if reply.status == 200]
        assert not await works(anna, winner["access_token"])


# --- what ends a token -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tokens SET revoked_at = proctor_now()",
        "UPDATE tokens SET expires_at = proctor_now() - interval '1 s'",
        "UPDATE users SET enabled = false",
        "DELETE FROM users WHERE username = 'ci'",
    ],
)
async def test_a_token_ends_at_once(anna: Api, context: Context, change: str) -> None:
    """Design 10: tokens are opaque, so that revoking works at once; §2: 401."""
    token = (await sign_in(anna)).body["access_token"]
    assert await works(anna, token)

    await world.sql(context, change)

    assert not await works(anna, token)


async def test_without_a_good_bearer_token_nobody_is_known(anna: Api) -> None:
    """§1, §2: every other route needs a bearer token; 401 says so."""
    for header in (
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic x",
        "bearer \xff",
        f"Bearer {'x' * 4000}",
        "Token x",
    ):
        headers = {} if header is None else {"Authorization": header}
        assert_problem(await anna.get(f"{API}/plans", headers=headers), 401, "Unauthorized", "unauthorized")


async def test_only_the_digest_of_a_token_is_kept(anna: Api, context: Context) -> None:
    """Design 10: stored as SHA-256."""
    token = (await sign_in(anna)).body["access_token"]

    rows = await world.sql(context, "SELECT hash FROM tokens WHERE kind = 'access'")

    assert rows == [(accounts.digest(token),)]
    assert len(token) >= 43, "256 bits"


# --- throttling ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def elsewhere(client: aiohttp.ClientSession, server: Any) -> AsyncIterator[Api]:
    """A client at another address."""
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        yield Api(session, {})


async def test_ten_failures_lock_one_user_at_one_address(anna: Api, elsewhere: Api, context: Context) -> None:
    """§1: 429 when throttled; another user, and the same user elsewhere, sign in all the same."""
    for _ in range(10):
        assert_problem(await sign_in(anna, "ci", "wrong"), 401, "invalid_grant")

    throttled = await sign_in(anna)

    assert_problem(throttled, 429, "Too Many Requests", "too_many_requests")
    assert int(throttled.headers["Retry-After"]) > 0
    assert_pair(await sign_in(anna, "ann"))
    assert_pair(await sign_in(elsewhere))
    await world.sql(context, "UPDATE sign_in_failures SET failed_at = failed_at - interval '16 minutes'")
    assert_pair(await sign_in(anna))


async def test_an_address_that_tries_many_users_is_locked_for_all(anna: Api, elsewhere: Api, context: Context) -> None:
    """§1: 429 when throttled, also when the guesses go round the users."""
    for number in range(50):
        await world.sql(
            context,
            "INSERT INTO sign_in_failures (username, address) VALUES (:user, '127.0.0.1')",
            user=f"user {number}",
        )

    assert_problem(await sign_in(anna), 429, "Too Many Requests")
    assert_pair(await sign_in(elsewhere))


async def test_guesses_that_come_at_once_do_not_pass_the_limit(anna: Api) -> None:
    """§1: throttling counts also what has not failed yet."""
    replies = await asyncio.gather(*(sign_in(anna, "ci", f"guess {i}") for i in range(40)))

    tried = [reply for reply in replies if reply.status == 401]
    assert len(tried) <= 10 + 2, "no more than the limit and what was being checked when it was reached"
    assert {reply.status for reply in replies} == {401, 429}
