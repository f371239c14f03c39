"""The pages: who may see them, what they show, and how they follow an execution."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

import world
from proctor.domain import wire
from proctor.domain.execution import ExecutionRecord, ExecutionState, JobRecord
from proctor.domain.verdict import Case, CaseStatus, Level, Outcome, Verdict
from proctor.services import accounts, results, runs
from proctor.services.context import Context
from proctor.services.runs import RunAnswer, RunRequest
from proctor.settings import Settings
from proctor.testing.worker import FAILED, FakeWorker
from proctor.web.board import MAX_ROWS, compare, lay_out
from proctor.web.rendering import STATIC, show_duration
from proctor.web.stream import write_event
from serving import Server, serving

PASSWORD = "a long password"
PNG = bytes.fromhex("89504e470d0a1a0a") + b"the rest of a picture"
HOSTILE = "<script>window.pwned = 1</script><img src=x onerror=alert(1)>"
LONG = f"the first line\n{'x' * 70_000}\n"
EVENT_STREAM = {"Accept": "text/event-stream"}


# --- the world -------------------------------------------------------------------------------------------------------


async def start(context: Context, plan: str = "smoke", username: str = "ci") -> int:
    answer = await runs.start(context, await world.caller(context, username), RunRequest(plan, "http://here"))
    assert isinstance(answer, RunAnswer)
    assert answer.execution_id is not None, answer.message
    return answer.execution_id


async def set_password(context: Context, username: str = "ci") -> None:
    await world.sql(
        context,
        "UPDATE users SET password_hash = :hash WHERE username = :name",
        hash=await accounts.hash_password(PASSWORD),
        name=username,
    )


@asynccontextmanager
async def browser(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    """As a browser: keeps cookies, and follows no redirect unseen."""
    async with aiohttp.ClientSession(server.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def sign_in(session: aiohttp.ClientSession, username: str = "ci", **fields: str) -> aiohttp.ClientResponse:
    form = {"username": username, "password": PASSWORD, **fields}
    async with session.post("/sign-in", data=form, allow_redirects=False) as answer:
        await answer.read()
        return answer


@pytest.fixture
async def shop(context: Context) -> Context:
    """A company with a plan of two scenarios, and `ci` who may run it and see it."""
    await world.put(context, world.service())
    await set_password(context)
    return context


@pytest.fixture
async def signed_in(shop: Context, server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with browser(server) as session:
        assert (await sign_in(session)).status == 303
        yield session


async def read(session: aiohttp.ClientSession, path: str, status: int = 200, **more: Any) -> str:
    async with session.get(path, allow_redirects=False, **more) as answer:
        text = await answer.text()
        assert answer.status == status, text
        return text


# --- signing in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/executions/1?show=all", "/results/1", "/attempts/1/screen.png"])
async def test_whoever_is_not_signed_in_is_sent_to_the_form_and_back(shop: Context, server: Server, path: str) -> None:
    async with browser(server) as session:
        async with session.get(path, allow_redirects=False) as answer:
            assert answer.status == 303
            location = URL(answer.headers["Location"])
        assert location.path == "/sign-in"
        form = await read(session, str(location))
        [target] = re.findall(r'name="next" value="([^"]*)"', form)
        assert target == path

        answer = await sign_in(session, next=target)

        assert (answer.status, answer.headers["Location"]) == (303, path)


async def test_a_wrong_password_is_told_in_the_page(shop: Context, server: Server) -> None:
    async with browser(server) as session:
        answer = await session.post("/sign-in", data={"username": '"><b>ci', "password": "wrong"})
        text = await answer.text()
        assert answer.status == 401
        assert "Wrong user name or password." in text
        # The name is kept for another try, as text; the password is not.
        assert "&#34;&gt;&lt;b&gt;ci" in text
        assert "wrong" not in text.replace("Wrong user", "")
        assert "Set-Cookie" not in answer.headers
        assert "WWW-Authenticate" not in answer.headers


async def test_too_many_wrong_passwords_are_told_in_the_page(shop: Context, server: Server) -> None:
    async with browser(server) as session:
        for _ in range(accounts.FAILURES_OF_ONE):
            assert (await sign_in(session, password="wrong")).status == 401
        answer = await session.post("/sign-in", data={"username": "ci", "password": PASSWORD})
        assert answer.status == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert "Too many failed sign-ins" in await answer.text()


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example", "/\\evil.example", "https://evil.example", "/a\nb", "javascript:alert(1)", ""]
)
async def test_signing_in_leads_to_no_other_site(shop: Context, server: Server, elsewhere: str) -> None:
    async with browser(server) as session:
        assert 'name="next" value="/"' in await read(session, "/sign-in", params={"next": elsewhere})
        assert (await sign_in(session, next=elsewhere)).headers["Location"] == "/"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
async def test_a_form_of_another_site_is_refused(
    shop: Context, server: Server, headers: dict[str, str], path: str
) -> None:
    async with browser(server) as session:
        await sign_in(session)
        form = {"username": "ci", "password": PASSWORD}
        async with session.post(path, data=form, headers=headers, allow_redirects=False) as answer:
            assert answer.status == 403
            assert "another site" in await answer.text()
            assert "Set-Cookie" not in answer.headers
        await read(session, "/")


async def test_a_form_of_this_site_is_taken(shop: Context, server: Server) -> None:
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": server.url}, {}):
        async with browser(server) as session:
            form = {"username": "ci", "password": PASSWORD}
            async with session.post("/sign-in", data=form, headers=headers, allow_redirects=False) as answer:
                assert answer.status == 303, headers


async def test_the_session_is_a_cookie_that_scripts_and_other_sites_do_not_get(shop: Context, server: Server) -> None:
    async with browser(server) as session:
        [cookie] = (await sign_in(session)).headers.getall("Set-Cookie")
    attributes = {part.strip().partition("=")[0].lower() for part in cookie.split(";")}
    assert {"httponly", "samesite", "max-age", "path"} <= attributes
    assert "SameSite=lax" in cookie
    assert "secure" not in attributes


async def test_behind_https_the_cookie_travels_on_https_only(
    shop: Context, settings: Settings, database_url: str
) -> None:
    public = settings.model_copy(update={"public_url": "https://proctor.example"})
    async with serving(public, database_url) as server, browser(server) as session:
        form = {"username": "ci", "password": PASSWORD}
        headers = {"Origin": "https://proctor.example"}
        async with session.post("/sign-in", data=form, headers=headers, allow_redirects=False) as answer:
            assert "; Secure" in answer.headers["Set-Cookie"]


async def test_signing_out_ends_the_session(signed_in: aiohttp.ClientSession, server: Server) -> None:
    [cookie] = signed_in.cookie_jar
    async with signed_in.post("/sign-out", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/sign-in")
    assert list(signed_in.cookie_jar) == []
    async with aiohttp.ClientSession(server.url, cookies={cookie.key: cookie.value}) as other:
        await read(other, "/", status=303)


async def test_signing_in_anew_ends_the_session_before(signed_in: aiohttp.ClientSession, server: Server) -> None:
    [before] = [cookie.value for cookie in signed_in.cookie_jar]
    await sign_in(signed_in)
    async with aiohttp.ClientSession(server.url, cookies={"proctor_session": before}) as other:
        await read(other, "/", status=303)


async def test_the_api_takes_no_cookie_and_the_pages_no_bearer(
    shop: Context, signed_in: aiohttp.ClientSession, client: aiohttp.ClientSession
) -> None:
    execution_id = await start(shop)
    await read(signed_in, f"/executions/{execution_id}")
    await read(signed_in, f"/api/v1/executions/{execution_id}", status=401)
    await read(client, "/", status=303, headers=await world.bearer(shop))
    [session] = [cookie.value for cookie in signed_in.cookie_jar]
    await read(client, f"/api/v1/executions/{execution_id}", 401, headers={"Authorization": f"Bearer {session}"})


# --- every page ------------------------------------------------------------------------------------------------------


async def test_every_page_has_a_strict_policy_and_is_not_kept(shop: Context, signed_in: aiohttp.ClientSession) -> None:
    execution_id = await start(shop)
    paths = ["/", "/sign-in", f"/executions/{execution_id}", "/results/1", "/results/999", "/shared/none"]
    for path in paths:
        async with signed_in.get(path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            text = await answer.text()
            assert not re.search(r"<script(?![^>]* src=)|\sstyle=|\son[a-z]+=", text), path


@pytest.mark.parametrize(
    "path",
    [
        "/executions/999",
        "/executions/x",
        "/executions/999/stream",
        "/results/999",
        f"/results/{'9' * 30}",
        "/attempts/999/screen.png",
        "/attempts/1/files/..%5cexecutor.log",
        "/shared/none",
        f"/shared/{'x' * 500}",
    ],
)
async def test_what_is_not_there_is_a_page_that_says_so(signed_in: aiohttp.ClientSession, path: str) -> None:
    async with signed_in.get(URL(path, encoded=True)) as answer:
        assert answer.status == 404
        assert answer.content_type == "text/html"
        assert "<h1>" in await answer.text()


async def test_a_value_that_cannot_be_read_is_a_page_that_says_so(signed_in: aiohttp.ClientSession) -> None:
    assert "cannot be read" in await read(signed_in, "/results/1?attempt=first", status=400)


async def test_other_companies_are_not_there(shop: Context, server: Server) -> None:
    execution_id = await start(shop)
    await world.put(shop, world.service("their shop"), company="Other", users={"eve": world.RUNNER})
    await set_password(shop, "eve")
    async with browser(server) as session:
        await sign_in(session, "eve")
        assert "smoke" not in await read(session, "/")
        for path in (f"/executions/{execution_id}", f"/executions/{execution_id}/stream", "/results/1"):
            assert "Acme" not in await read(session, path, status=404)


async def test_whoever_may_not_look_is_told_which_permission_he_lacks(shop: Context, server: Server) -> None:
    execution_id = await start(shop)
    await world.put(shop, users={"staff": ["ROLE_CHANGE_USER"]})
    await set_password(shop, "staff")
    async with browser(server) as session:
        await sign_in(session, "staff")
        assert "TEST_EXECUTION_VIEW" in await read(session, f"/executions/{execution_id}", status=403)
        assert "TEST_RESULT_VIEW" in await read(session, "/results/1", status=403)
        assert "smoke" not in await read(session, "/")


async def test_a_browser_keeps_static_files_of_this_version_for_good(
    signed_in: aiohttp.ClientSession, client: aiohttp.ClientSession
) -> None:
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', await read(signed_in, "/"))
    assert len(addresses) >= 3
    for address in addresses:
        async with client.get(address) as answer:
            assert answer.status == 200
            assert "immutable" in answer.headers["Cache-Control"]
        for other in (address.partition("?")[0], re.sub("v=.*", "v=older", address)):
            async with client.get(other) as answer:
                assert answer.headers["Cache-Control"] == "no-cache"


def test_the_vendored_files_are_those_that_are_written_down() -> None:
    listed = re.findall(r"^\| `([^`]+)` .* `([0-9a-f]{64})` \|$", (STATIC / "README.md").read_text(), re.M)
    assert {name for name, _ in listed} == {path.name for path in STATIC.glob("*.min.*")}
    for name, digest in listed:
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest, name


# --- an execution ----------------------------------------------------------------------------------------------------


async def test_the_first_page_lists_the_newest_executions(shop: Context, signed_in: aiohttp.ClientSession) -> None:
    assert "proctor run" in await read(signed_in, "/")
    worker = await FakeWorker.sign_on(shop)
    ended = await start(shop)
    await worker.play(ended)
    running = await start(shop)

    text = await read(signed_in, "/")

    assert text.index(f"/executions/{running}") < text.index(f"/executions/{ended}")
    assert "2 of 2" in text
    assert "Success" in text
    assert "Running" in text


async def test_an_execution_shows_its_counts_and_jobs(shop: Context, signed_in: aiohttp.ClientSession) -> None:
    await world.sql(shop, "UPDATE plans SET parallel = 1")
    execution_id = await start(shop)
    worker = await FakeWorker.sign_on(shop)
    [task] = await worker.take(execution_id)
    await worker.finish(task.fence, replace(FAILED, message=f"the total is {HOSTILE}"))

    text = await read(signed_in, f"/executions/{execution_id}")

    assert re.findall(r"<strong>(\d+)</strong> (\w+)", text) == [
        ("2", "jobs"),
        ("0", "waiting"),
        ("1", "running"),
        ("1", "ended"),
    ]
    assert f"/results/{task.job_id}" in text
    assert task.scenario_name in text
    assert "Failure" in text
    assert "&lt;script&gt;" in text
    assert HOSTILE not in text
    assert f'sse-connect="/executions/{execution_id}/stream"' in text
    only_failed = await read(signed_in, f"/executions/{execution_id}?show=FAILURE")
    assert re.findall(r'id="job-(\d+)"', only_failed) == [str(task.job_id)]


async def test_a_finished_execution_loads_no_script(shop: Context, signed_in: aiohttp.ClientSession) -> None:
    execution_id = await start(shop)
    await (await FakeWorker.sign_on(shop)).play(execution_id)
    text = await read(signed_in, f"/executions/{execution_id}")
    assert "<script" not in text
    assert "sse-connect" not in text


async def test_of_very_many_jobs_the_urgent_are_shown_first(context: Context, server: Server) -> None:
    await world.put(context, world.service(number=MAX_ROWS + 50, plans=[{"name": "smoke", "parallel": 1}]))
    await set_password(context)
    execution_id = await start(context)
    worker = await FakeWorker.sign_on(context)
    for verdict in (FAILED, Verdict(Outcome.PASSED, Level.SUCCESS)):
        [task] = await worker.take(execution_id)
        await worker.finish(task.fence, verdict)
    async with browser(server) as session:
        await sign_in(session)
        usual = await read(session, f"/executions/{execution_id}")
        everything = await read(session, f"/executions/{execution_id}?show=all")
    levels = re.findall(r'<td><span class="badge level-(\w+)"', usual)
    assert levels == ["failure", "processing", *["waiting"] * (MAX_ROWS - 2)]
    assert "50 more jobs are not shown" in usual
    assert everything.count('<tr id="job-') == MAX_ROWS + 50


# --- the stream ------------------------------------------------------------------------------------------------------


async def next_event(answer: aiohttp.ClientResponse) -> tuple[str, str]:
    """The name and data of the next event; fails when none comes in time."""
    name, data = "", []
    async with asyncio.timeout(10):
        while line := (await answer.content.readline()).decode():
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif not field and name:
                return name, "\n".join(data)
    return "", ""


def rows(html: str) -> list[str]:
    return re.findall(r'<tr id="(job-\d+)"', html)


async def test_the_stream_tells_everything_first_then_what_changes_and_that_it_ended(
    shop: Context, signed_in: aiohttp.ClientSession, server: Server
) -> None:
    execution_id = await start(shop)
    async with signed_in.get(f"/executions/{execution_id}/stream", headers=EVENT_STREAM) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        name, html = await next_event(answer)
        assert name == "update"
        assert len(rows(html)) == 2
        assert '<tbody id="jobs" hx-swap-oob="true">' in html

        worker = await FakeWorker.sign_on(shop)
        first, second = await worker.take(execution_id)
        await worker.finish(first.fence, FAILED)
        html = ""
        while "Failure" not in html:
            name, html = await next_event(answer)
            assert name == "update"
        assert f'<tr id="job-{first.job_id}" hx-swap-oob="true">' in html
        assert "<strong>1</strong> ended" in html

        await worker.finish(second.fence)
        name, html = await next_event(answer)
        # A job that has not changed is not sent again.
        assert rows(html) == [f"job-{second.job_id}"]
        assert "<strong>2</strong> ended" in html
        assert (await next_event(answer))[0] == "ended"
        assert await answer.content.read() == b""


async def test_the_stream_of_a_finished_execution_tells_it_and_ends(
    shop: Context, signed_in: aiohttp.ClientSession
) -> None:
    execution_id = await start(shop)
    await (await FakeWorker.sign_on(shop)).play(execution_id)
    text = await read(signed_in, f"/executions/{execution_id}/stream", headers=EVENT_STREAM)
    assert re.findall(r"^event: (\w+)$", text, re.M) == ["update", "ended"]


async def test_the_stream_tells_at_most_two_changes_a_second(context: Context, server: Server) -> None:
    await world.put(context, world.service(number=60, plans=[{"name": "smoke", "parallel": 1}]))
    await set_password(context)
    execution_id = await start(context)
    worker = await FakeWorker.sign_on(context)
    loop = asyncio.get_running_loop()
    async with browser(server) as session:
        await sign_in(session)
        playing = asyncio.create_task(worker.play(execution_id))
        began_at, told = loop.time(), 0
        async with session.get(f"/executions/{execution_id}/stream", headers=EVENT_STREAM) as answer:
            while (await next_event(answer))[0] == "update":
                told += 1
        await playing
    assert 1 <= told <= 2 * (loop.time() - began_at) + 2


async def test_a_stream_ends_with_its_session(shop: Context, signed_in: aiohttp.ClientSession, server: Server) -> None:
    execution_id = await start(shop)
    async with signed_in.get(f"/executions/{execution_id}/stream", headers=EVENT_STREAM) as answer:
        assert "scenario" in (await next_event(answer))[1]
        async with signed_in.post("/sign-out", allow_redirects=False):
            pass
        worker = await FakeWorker.sign_on(shop)
        await worker.play(execution_id)
        _, html = await next_event(answer)
        assert "scenario" not in html
        assert 'href="/sign-in"' in html
        assert (await next_event(answer))[0] == "ended"


async def test_a_stream_without_a_session_is_refused_and_not_redirected(
    shop: Context, client: aiohttp.ClientSession
) -> None:
    execution_id = await start(shop)
    await read(client, f"/executions/{execution_id}/stream", status=401, headers=EVENT_STREAM)


async def test_a_reader_that_leaves_leaves_nothing_behind(
    shop: Context, signed_in: aiohttp.ClientSession, server: Server
) -> None:
    execution_id = await start(shop)
    listener = server.app.state.listener
    async with signed_in.get(f"/executions/{execution_id}/stream", headers=EVENT_STREAM) as answer:
        await next_event(answer)
        assert list(listener._waiting) == [execution_id]
        answer.close()
    async with asyncio.timeout(5):
        # Nothing tells when it is done.
        while listener._waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\x0b", "\u2028"])
def test_line_ends_in_test_output_add_nothing_to_a_stream(end: str) -> None:
    written = write_event("update", f"<td>{end}{end}event: ended{end}data: more</td>")
    fields = [line.partition(":")[0] for line in re.split(r"\r\n|\r|\n", written) if line]
    assert fields == ["event", *["data"] * (len(fields) - 1)]
    assert re.search(r"[\r\n]{2}", written[:-2]) is None


# --- what of a board changed -----------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 24, tzinfo=UTC)
EXECUTION = ExecutionRecord(
    id=1,
    company_id=1,
    project_id=1,
    project_name="shop",
    plan_id=1,
    plan_name="smoke",
    user_id=1,
    username="ci",
    state=ExecutionState.RUNNING,
    level=None,
    commit=None,
    base_url="http://here",
    start_at=NOW,
    end_at=None,
    levels={},
)


def job(number: int, level: Level) -> JobRecord:
    return JobRecord(
        id=number,
        execution_id=1,
        company_id=1,
        project_id=1,
        plan_id=1,
        scenario_id=number,
        scenario_name=f"scenario {number}",
        environment=None,
        level=level,
        message=None,
        screenshots="NO",
        video=False,
        base_url="http://here",
        start_at=NOW,
        end_at=None,
        attempts=(),
    )


def jobs(*levels: Level) -> Sequence[JobRecord]:
    return [job(number, level) for number, level in enumerate(levels)]


def test_of_a_few_jobs_only_those_that_changed_are_sent() -> None:
    before = lay_out(EXECUTION, jobs(Level.WAITING, Level.PROCESSING, Level.SUCCESS), "", NOW)
    after = lay_out(EXECUTION, jobs(Level.FAILURE, Level.PROCESSING, Level.SUCCESS), "", NOW)

    update = compare(before, after)

    # The job under way has not changed, but its duration has.
    assert [one.id for one in update.rows] == [0, 1]
    assert not update.everything


def test_rows_that_come_or_go_or_move_are_sent_as_a_whole() -> None:
    before = lay_out(EXECUTION, jobs(Level.FAILURE, Level.WAITING), "FAILURE", NOW)
    after = lay_out(EXECUTION, jobs(Level.FAILURE, Level.FAILURE), "FAILURE", NOW)
    assert compare(before, after).everything
    assert compare(None, after).everything


def test_a_view_is_cut_only_where_nobody_asked_for_all() -> None:
    many = jobs(*[Level.SUCCESS] * MAX_ROWS, Level.ERROR)
    usual = lay_out(EXECUTION, many, "", NOW)
    assert (len(usual.jobs), usual.hidden, usual.jobs[0].level) == (MAX_ROWS, 1, Level.ERROR)
    everything = lay_out(EXECUTION, many, "all", NOW)
    assert (len(everything.jobs), everything.hidden, everything.jobs[-1].level) == (MAX_ROWS + 1, 0, Level.ERROR)


# --- a job -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def failed_job(shop: Context, tmp_path: Path) -> JobRecord:
    """A job that failed twice, with what its attempts left; what the test wrote is hostile."""
    await world.sql(shop, "UPDATE plans SET retries = 1, parallel = 1")
    execution_id = await start(shop)
    worker = await FakeWorker.sign_on(shop)
    command = {"method": "POST", "path": "/session/0123456789abcdef/url", "level": "SUCCESS", "runtime_ms": 12.2}
    job_id = 0
    for number in (1, 2):
        [task] = await worker.take(execution_id)
        job_id = task.job_id
        contents = {
            wire.EXECUTOR_LOG: f"{LONG}log of attempt {number} {HOSTILE} \x1b[31mred\x1b[0m".encode(),
            wire.COMMANDS: (json.dumps(command) + "\n").encode() * 250,
            wire.SCREEN: PNG,
        }
        artifacts = {}
        for name, content in contents.items():
            file = tmp_path / name
            file.write_bytes(content)
            artifacts[name] = await shop.artifacts.put(execution_id, task.fence.attempt_id, name, file)
        case = Case(
            f"test_{HOSTILE}", "tests.test_shop", CaseStatus.FAILED, 0.5, f"message {HOSTILE}", f"trace {HOSTILE}"
        )
        verdict = replace(FAILED, message=f"attempt {number}: {HOSTILE}")
        await worker.finish(task.fence, verdict, cases=[case], artifacts=artifacts)
    return await results.read_job(shop, await world.caller(shop), str(job_id))


async def test_a_job_shows_why_it_failed_with_log_and_commands(
    failed_job: JobRecord, signed_in: aiohttp.ClientSession
) -> None:
    text = await read(signed_in, f"/results/{failed_job.id}")

    assert HOSTILE not in text
    assert "attempt 2: &lt;script&gt;" in text
    assert "trace &lt;script&gt;" in text
    assert re.findall(r"<h3>Attempt (\d)</h3>", text) == ["2", "1"]
    assert "log of attempt 2 &lt;script&gt;" in text
    assert "red" in text
    assert "\x1b" not in text
    assert "the first line" not in text
    assert "The last 64 KiB of 68 KiB" in text
    assert "The last 200 of 250" in text
    assert text.count("/session/012345…/url") == 200
    assert "12 ms" in text


async def test_an_earlier_attempt_can_be_looked_at(failed_job: JobRecord, signed_in: aiohttp.ClientSession) -> None:
    first = failed_job.attempts[0]
    text = await read(signed_in, f"/results/{failed_job.id}?attempt=1")
    assert "log of attempt 1" in text
    assert f"/attempts/{first.id}/screen.png" in text
    await read(signed_in, f"/results/{failed_job.id}?attempt=3", status=404)


async def test_the_screenshot_is_a_picture_and_nothing_else(
    failed_job: JobRecord, signed_in: aiohttp.ClientSession
) -> None:
    assert failed_job.last is not None
    text = await read(signed_in, f"/results/{failed_job.id}")
    address = f"/attempts/{failed_job.last.id}/screen.png"
    assert f'src="{address}"' in text
    async with signed_in.get(address) as answer:
        assert await answer.read() == PNG
        assert answer.content_type == "image/png"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]


async def test_files_are_saved_and_never_shown_by_a_browser(
    failed_job: JobRecord, signed_in: aiohttp.ClientSession
) -> None:
    text = await read(signed_in, f"/results/{failed_job.id}")
    links = re.findall(r'href="(/attempts/\d+/files/[^"]+)"', text)
    assert [link.rpartition("/")[2] for link in links] == [wire.COMMANDS, wire.EXECUTOR_LOG, wire.SCREEN]
    for link in links:
        async with signed_in.get(link) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Disposition"].startswith("attachment")
            assert "sandbox" in answer.headers["Content-Security-Policy"]
            assert answer.content_type != "text/html"


async def test_a_job_that_waits_says_so(shop: Context, signed_in: aiohttp.ClientSession) -> None:
    await start(shop)
    [(job_id,)] = await world.sql(shop, "SELECT min(id) FROM jobs")
    assert "It waits for its turn." in await read(signed_in, f"/results/{job_id}")


# --- a shared job ----------------------------------------------------------------------------------------------------


async def test_whoever_has_the_link_sees_the_job_and_its_screenshot(
    shop: Context, failed_job: JobRecord, client: aiohttp.ClientSession
) -> None:
    path = await results.share(shop, failed_job)
    async with client.get(path) as answer:
        text = await answer.text()
        assert answer.status == 200
        assert answer.headers["X-Robots-Tag"] == "noindex, nofollow"
        assert answer.headers["Referrer-Policy"] == "same-origin"
    assert failed_job.scenario_name in text
    assert "log of attempt 2" in text
    assert "Sign out" not in text
    # Nothing leads to what needs a sign-in.
    assert not re.search(r'(?:href|src)="/(?:executions|results|attempts)', text)
    assert failed_job.last is not None
    address = f"{path}/attempts/{failed_job.last.id}/screen.png"
    assert f'src="{address}"' in text
    async with client.get(address) as answer:
        assert await answer.read() == PNG


async def test_a_link_opens_no_other_job(
    shop: Context, failed_job: JobRecord, client: aiohttp.ClientSession, signed_in: aiohttp.ClientSession
) -> None:
    [(other,)] = await world.sql(shop, "SELECT min(id) FROM jobs WHERE id <> :id", id=failed_job.id)
    path = await results.share(shop, await results.read_job(shop, await world.caller(shop), str(other)))
    assert failed_job.last is not None
    async with signed_in.get(f"/attempts/{failed_job.last.id}/screen.png") as answer:
        assert answer.status == 200
    await read(client, f"{path}/attempts/{failed_job.last.id}/screen.png", status=404)


async def test_a_link_ends(shop: Context, failed_job: JobRecord, client: aiohttp.ClientSession) -> None:
    path = await results.share(shop, failed_job)
    await world.sql(shop, "UPDATE shares SET expires_at = proctor_now() - interval '1 s'")
    assert "ask for a new one" in await read(client, path, status=404)


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [(-5, "0 ms"), (999, "999 ms"), (12_340, "12.3 s"), (184_000, "3 min 04 s"), (7_500_000, "2 h 05 min")],
)
def test_durations_are_shown_in_the_unit_that_fits(milliseconds: int, shown: str) -> None:
    assert show_duration(timedelta(milliseconds=milliseconds)) == shown
