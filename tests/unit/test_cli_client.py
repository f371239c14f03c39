"""Where client commands find the server, and what they make of its answers."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import test_utils, web

from proctor.cli.client import Access, Client, ExitCode, Given, Refused, ServerBroken, Unreachable, open_client
from proctor.errors import UsageError

LOCAL = "http://127.0.0.1:8080"
PROBLEM = {"detail": "There is no test plan 'x' in your companies.", "error": "plan_not_found"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as `proctor up` leaves it while it runs."""
    (tmp_path / "address").write_text(LOCAL)
    (tmp_path / "admin.token").write_text("admin-token\n")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "environment", "found"),
    [
        ({}, {}, Access(LOCAL, "admin-token")),
        ({"token": "mine"}, {}, Access(LOCAL, "mine")),
        ({}, {"PROCTOR_TOKEN": "mine"}, Access(LOCAL, "mine")),
        ({}, {"PROCTOR_URL": "https://proctor.test/", "PROCTOR_TOKEN": "t"}, Access("https://proctor.test", "t")),
        (
            {"url": "https://b.test", "token": "b"},
            {"PROCTOR_URL": LOCAL, "PROCTOR_TOKEN": "a"},
            Access("https://b.test", "b"),
        ),
        ({"url": LOCAL + "/"}, {}, Access(LOCAL, "admin-token")),
    ],
)
def test_options_come_before_the_environment_and_that_before_the_data_folder(
    given: dict[str, str], environment: dict[str, str], found: Access, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCTOR_DATA", str(data))
    assert Given(**given).find(environment) == found  # type: ignore[arg-type]


def test_a_data_folder_that_is_named_comes_before_the_environment(data: Path) -> None:
    elsewhere = {"PROCTOR_URL": "https://a.test", "PROCTOR_TOKEN": "a"}
    assert Given(data=data).find(elsewhere) == Access(LOCAL, "admin-token")


def test_the_administrators_token_goes_to_no_other_server(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCTOR_DATA", str(data))
    assert Given(url="https://elsewhere.test").find({}).token == ""
    assert Given().find({"PROCTOR_URL": "https://elsewhere.test"}).token == ""
    assert Given(url="https://elsewhere.test", data=data).find({}).token == ""


def test_a_data_folder_where_nothing_runs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No Proctor runs on the data folder .*`proctor up`.*--url"):
        Given(data=tmp_path / "none").find({})


@pytest.mark.parametrize("url", ["proctor.test", "ftp://x", "http://", "http://h:99999", "http://u:p@h", "http://h/?q"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no address of a server"):
        Given(url=url).find({})


@asynccontextmanager
async def serving(answer: web.Response, seen: list[web.Request] | None = None) -> AsyncIterator[Client]:
    """A client of a server that gives this one answer to everything."""

    async def take(request: web.Request) -> web.Response:
        if seen is not None:
            seen.append(request)
        return answer

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", take)
    async with test_utils.TestServer(application) as server:
        access = Access(str(server.make_url("")).rstrip("/"), "secret")
        async with open_client(access) as client:
            yield client


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, r"^There is no test plan 'x' in your companies\.$"),
        (401, "Give a token with --token or PROCTOR_TOKEN"),
        (403, "Use the token of a user who may"),
        (422, "There is no test plan"),
    ],
)
async def test_what_the_server_refuses_is_told_in_its_words_with_what_to_do(status: int, message: str) -> None:
    async with serving(web.json_response(PROBLEM, status=status)) as client:
        with pytest.raises(Refused, match=message) as refused:
            await client.run("x", key="k")
    assert refused.value.http_status == status
    assert refused.value.problem["error"] == "plan_not_found"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (web.Response(text="<html>", status=200), "not as Proctor does. Check --url"),
        (web.Response(text="<html>", status=404), "not as Proctor does. Check --url"),
        (web.json_response([1]), "not as Proctor does. Check --url"),
        (web.Response(status=302, headers={"Location": "https://sso.test"}), "sends on to https://sso.test"),
    ],
)
async def test_another_server_than_proctor_is_a_mistake_in_the_address(answer: web.Response, message: str) -> None:
    async with serving(answer) as client:
        with pytest.raises(UsageError, match=message):
            await client.stop("x")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (web.Response(text="Bad Gateway", status=502), "HTTP 502"),
        (
            web.json_response({"status": "not ready", "database": "ok", "worker": "down"}, status=503),
            "worker not ready",
        ),
    ],
)
async def test_a_server_that_cannot_answer_is_broken_machinery(answer: web.Response, message: str) -> None:
    async with serving(answer) as client:
        with pytest.raises(ServerBroken, match=message) as broken:
            await client.readiness()
    assert broken.value.exit_code is ExitCode.MACHINERY_FAILED


async def test_no_server_at_all_says_so_and_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with open_client(Access(url, "")) as client:
            with pytest.raises(Unreachable, match=f"No server answers at {url}: Connection refused. Start it with"):
                await client.stop("x")


async def test_a_plans_name_and_the_callback_url_arrive_as_they_are() -> None:
    seen: list[web.Request] = []
    async with serving(web.json_response({"execution_id": 1}), seen) as client:
        await client.run("a/b ?c%&d+ü", key="k-1", force=True, callback_url="http://x.test/?a=b&c=d e")
    [request] = seen
    assert request.path == "/Testinium.RestApi/api/plans/a/b ?c%&d+ü/run/true"
    assert request.raw_path.startswith("/Testinium.RestApi/api/plans/a%2Fb%20%3Fc%25%26d%2B%C3%BC/run/true?")
    assert dict(request.query) == {"callbackUrl": "http://x.test/?a=b&c=d e"}
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["Idempotency-Key"] == "k-1"
