"""The recorder before the machine's real Chromium, driven by Selenium as a test would."""

import asyncio
import io
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from leaks import nothing_leaked, processes_below
from selenium import webdriver
from selenium.common.exceptions import (
    InvalidSessionIdException,
    JavascriptException,
    SessionNotCreatedException,
    WebDriverException,
)
from selenium.webdriver.common.by import By
from yarl import URL

from proctor.domain.environment import Environment
from proctor.ports.hubs import local
from proctor.ports.hubs.local import LocalHub
from proctor.recorder import Endpoint, Recorder

CHROME = Environment(id=1, name="chrome", os="LINUX", browser="chrome", resolution="1024x768")
PNG = b"\x89PNG\r\n\x1a\n"

PAGE = """<!doctype html><title>Shop</title><body>
<button onclick="document.getElementById('cart').textContent = 'one thing'">Buy</button><p id=cart>empty</p>"""

Open = Callable[..., webdriver.Remote]


@pytest.fixture(autouse=True)
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which slots are made; nothing may be left in it. (`tmp_path` first, or it would lie in it.)"""
    with nothing_leaked(monkeypatch) as folder:
        yield folder


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    async with Recorder() as recorder:
        yield recorder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "attempt"


@pytest.fixture
def attempt(recorder: Recorder, folder: Path) -> AbstractAsyncContextManager[Endpoint]:
    return recorder.endpoint(hub=LocalHub("local"), environment=CHROME, folder=folder)


@pytest.fixture
async def page() -> AsyncIterator[str]:
    async def show(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    site = web.Application()
    site.router.add_get("/", show)
    async with TestServer(site) as server:
        yield str(server.make_url("/"))


@pytest.fixture
def browse() -> Iterator[Open]:
    """Opens browsers as a test does; closes their connections, but not their sessions."""
    opened: list[webdriver.Remote] = []

    def open_one(url: str, options: webdriver.ChromeOptions | None = None) -> webdriver.Remote:
        opened.append(webdriver.Remote(url, options=options or webdriver.ChromeOptions()))
        return opened[-1]

    yield open_one
    for browser in opened:
        browser.command_executor.close()  # type: ignore[union-attr]


def commands(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "commands.jsonl").read_text("utf-8").splitlines()]


async def put_in_place_of_chromium(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that tells Chromium's version when asked, and else runs the script."""
    version = (await LocalHub("local").offers())[0].stereotype.version
    program = folder / "chromium"
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Chromium {version} && exit\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def wait_for(name: str, slots: Path) -> None:
    """Until a process of that name runs in a slot; at most 10 s."""
    deadline = time.monotonic() + 10
    while name not in {process.name() for process in processes_below(slots)}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill(name: str, slots: Path) -> None:
    (victim,) = [
        process
        for process in processes_below(slots)
        if process.name() == name and not any(part.startswith("--type=") for part in process.cmdline())
    ]
    victim.kill()
    with suppress(psutil.NoSuchProcess):
        # Not `wait`: whoever started it may leave it a zombie.
        while victim.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.005)


async def answer(method: str, url: str, **request: object) -> tuple[int, dict[str, object]]:
    async with aiohttp.ClientSession() as client, client.request(method, url, **request) as response:  # type: ignore[arg-type]
        return response.status, (await response.json())["value"]


# --- what a test notices ---------------------------------------------------------------------------------------------


async def test_selenium_opens_finds_clicks_and_quits(
    attempt: AbstractAsyncContextManager[Endpoint], folder: Path, slots: Path, page: str, browse: Open
) -> None:
    def shop(url: str) -> None:
        browser = browse(url)
        browser.get(page)
        assert browser.title == "Shop"
        browser.find_element(By.TAG_NAME, "button").click()
        assert browser.find_element(By.ID, "cart").text == "one thing"
        browser.quit()

    async with attempt as endpoint:
        await asyncio.to_thread(shop, endpoint.url)
        assert processes_below(slots) == []
        assert (folder / "screen.png").read_bytes().startswith(PNG)
        assert len(endpoint.session_ids) == 1
        assert endpoint.machinery_failure is None


async def test_the_hub_path_of_older_clients_is_served_too(
    attempt: AbstractAsyncContextManager[Endpoint], browse: Open
) -> None:
    async with attempt as endpoint:
        browser = await asyncio.to_thread(browse, endpoint.url + "/wd/hub")
        assert [browser.session_id] == endpoint.session_ids


async def test_the_environments_resolution_wins_over_the_tests(
    attempt: AbstractAsyncContextManager[Endpoint], browse: Open
) -> None:
    options = webdriver.ChromeOptions()
    options.add_argument("--window-size=500,400")
    async with attempt as endpoint:
        browser = await asyncio.to_thread(browse, endpoint.url, options)
        assert await asyncio.to_thread(browser.get_window_size) == {"width": 1024, "height": 768}


async def test_the_tests_own_options_are_kept_and_its_binary_is_not(
    attempt: AbstractAsyncContextManager[Endpoint], page: str, browse: Open
) -> None:
    options = webdriver.ChromeOptions()
    options.add_argument("--user-agent=Shopper/7")
    options.add_experimental_option("prefs", {"webkit.webprefs.default_font_size": 31})
    options.binary_location = "/bin/false"
    options.browser_version = "1"
    options.page_load_strategy = "eager"

    def look(url: str) -> tuple[object, ...]:
        browser = browse(url, options)
        browser.get(page)
        script = "return [navigator.userAgent, getComputedStyle(document.body).fontSize]"
        return (*browser.execute_script(script), browser.capabilities["pageLoadStrategy"])

    async with attempt as endpoint:
        assert await asyncio.to_thread(look, endpoint.url) == ("Shopper/7", "31px", "eager")


async def test_large_uploads_and_large_answers_pass(
    attempt: AbstractAsyncContextManager[Endpoint], folder: Path, tmp_path: Path, browse: Open
) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(3 << 20))

    def upload(url: str) -> tuple[object, ...]:
        browser = browse(url)
        browser.get("data:text/html,<input type=file>")
        browser.find_element(By.TAG_NAME, "input").send_keys(str(large))
        script = "return [document.querySelector('input').files[0].size, 'x'.repeat(5 << 20).length]"
        return (*browser.execute_script(script), len(browser.execute_script("return 'x'.repeat(5 << 20)")))

    async with attempt as endpoint:
        assert await asyncio.to_thread(upload, endpoint.url) == (3 << 20, 5 << 20, 5 << 20)
    assert (folder / "commands.jsonl").stat().st_size < 64 << 10


async def test_a_second_session_beside_an_open_one_is_refused_with_the_reason(
    attempt: AbstractAsyncContextManager[Endpoint], browse: Open
) -> None:
    async with attempt as endpoint:
        first = await asyncio.to_thread(browse, endpoint.url)
        with pytest.raises(SessionNotCreatedException, match="lease is one session"):
            await asyncio.to_thread(browse, endpoint.url)
        assert await asyncio.to_thread(lambda: first.title) == ""
        assert endpoint.session_ids == [first.session_id]
        assert endpoint.machinery_failure is None


async def test_of_two_sessions_opened_at_once_one_is_refused(
    attempt: AbstractAsyncContextManager[Endpoint], slots: Path, browse: Open
) -> None:
    async with attempt as endpoint:
        opened = await asyncio.gather(
            *(asyncio.to_thread(browse, endpoint.url) for _ in range(2)), return_exceptions=True
        )
        assert {type(one) for one in opened} == {webdriver.Remote, SessionNotCreatedException}
        assert [process.name() for process in processes_below(slots)].count("chromedriver") == 1


async def test_sessions_one_after_another_are_all_told_in_order(
    attempt: AbstractAsyncContextManager[Endpoint], folder: Path, browse: Open
) -> None:
    def twice(url: str) -> list[str | None]:
        ids = []
        for _ in range(2):
            browser = browse(url)
            ids.append(browser.session_id)
            browser.quit()
        return ids

    async with attempt as endpoint:
        assert await asyncio.to_thread(twice, endpoint.url) == endpoint.session_ids
    assert [line["method"] for line in commands(folder)] == ["POST", "DELETE"] * 2


async def test_closing_the_last_window_keeps_its_picture_and_ends_the_session(
    attempt: AbstractAsyncContextManager[Endpoint], folder: Path, slots: Path, page: str, browse: Open
) -> None:
    def two_windows(url: str) -> None:
        browser = browse(url)
        browser.get(page)
        browser.switch_to.new_window("tab")
        browser.close()
        assert not (folder / "screen.png").exists()
        browser.switch_to.window(browser.window_handles[0])
        browser.close()

    async with attempt as endpoint:
        await asyncio.to_thread(two_windows, endpoint.url)
        assert (folder / "screen.png").read_bytes().startswith(PNG)
        assert processes_below(slots) == []
        await asyncio.to_thread(browse, endpoint.url)


async def test_a_session_left_open_is_photographed_and_closed(
    attempt: AbstractAsyncContextManager[Endpoint], folder: Path, slots: Path, page: str, browse: Open
) -> None:
    async with attempt as endpoint:
        browser = await asyncio.to_thread(browse, endpoint.url)
        await asyncio.to_thread(browser.get, page)
        assert "chromium" in {process.name() for process in processes_below(slots)}
    assert processes_below(slots) == []
    assert (folder / "screen.png").read_bytes().startswith(PNG)
    with pytest.raises(InvalidSessionIdException):
        await asyncio.to_thread(lambda: browser.title)


async def test_a_page_that_hangs_is_ended_all_the_same(
    attempt: AbstractAsyncContextManager[Endpoint], slots: Path, browse: Open
) -> None:
    async with attempt as endpoint:
        browser = await asyncio.to_thread(browse, endpoint.url)
        hanging = asyncio.create_task(asyncio.to_thread(browser.execute_script, "while (true) {}"))
        await asyncio.sleep(0.2)
        left_at = time.monotonic()
    assert time.monotonic() - left_at < 15
    assert processes_below(slots) == []
    assert endpoint.machinery_failure is None
    with pytest.raises(WebDriverException):
        await hanging


# --- what a test may not ask of its browser --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "switch",
    [
        *("--renderer-cmd-prefix=/bin/sh", "renderer-cmd-prefix=/bin/sh", " --utility-cmd-prefix =/bin/sh"),
        *("--zygote-cmd-prefix=/bin/sh", "--gpu-launcher=/bin/sh", "--browser-subprocess-path=/bin/sh", "-g"),
        *("--ppapi-plugin-launcher=/bin/sh", "--plugin-launcher=/bin/sh", "--log-file=/x", "--crash-dumps-dir=/x"),
    ],
)
async def test_a_switch_that_starts_a_program_is_refused_by_name(
    attempt: AbstractAsyncContextManager[Endpoint], slots: Path, switch: str
) -> None:
    asked = {"capabilities": {"firstMatch": [{"goog:chromeOptions": {"args": ["--incognito", switch]}}]}}
    async with attempt as endpoint:
        status, told = await answer("POST", f"{endpoint.url}/session", json=asked)
        assert (status, told["error"]) == (400, "invalid argument")
        assert f"`--{switch.strip(' -').partition('=')[0].strip()}` is not allowed" in str(told["message"])
        assert processes_below(slots) == []
        assert endpoint.machinery_failure is None


async def test_switches_that_the_environment_decides_are_left_out(
    attempt: AbstractAsyncContextManager[Endpoint], slots: Path, tmp_path: Path, browse: Open
) -> None:
    options = webdriver.ChromeOptions()
    for switch in ("remote-debugging-port=0", "remote-debugging-address=0.0.0.0", "remote-allow-origins=*"):
        options.add_argument(f"--{switch}")
    for switch in ("--no-zygote", "--single-process", f"--user-data-dir={tmp_path}/profile", "--lang=tr"):
        options.add_argument(switch)
    async with attempt as endpoint:
        browser = await asyncio.to_thread(browse, endpoint.url, options)
        assert await asyncio.to_thread(lambda: browser.title) == ""
        given = {part for process in processes_below(slots) for part in process.cmdline() if part.startswith("--")}
        assert {"--lang=tr", "--remote-debugging-pipe"} <= given
        names = {part.partition("=")[0] for part in given}
        assert not names & {"--remote-debugging-port", "--remote-debugging-address", "--remote-allow-origins"}
        assert not names & {"--single-process"}
    assert not (tmp_path / "profile").exists()


# --- links in its folder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["commands.jsonl", "driver.log", "screen.part", "screen.png"])
async def test_what_a_link_points_to_is_not_written(
    attempt: AbstractAsyncContextManager[Endpoint], folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "secret")
    with suppress(OSError):
        async with attempt as endpoint:
            await answer("POST", f"{endpoint.url}/session", json={"capabilities": {}})
    assert (tmp_path / "secret").read_text() == "secret"
    assert (folder / "screen.png").exists() is name.startswith("screen")


# --- the command log -------------------------------------------------------------------------------------------------


async def test_each_command_is_a_line_with_its_times_and_level(
    attempt: AbstractAsyncContextManager[Endpoint], folder: Path, page: str, browse: Open
) -> None:
    def miss(url: str) -> None:
        browser = browse(url)
        browser.get(page)
        with pytest.raises(WebDriverException):
            browser.find_element(By.ID, "nothing")
        browser.get_screenshot_as_png()
        browser.quit()

    async with attempt as endpoint:
        await asyncio.to_thread(miss, endpoint.url)
    lines = commands(folder)
    session = f"/session/{endpoint.session_ids[0]}"
    assert [(line["method"], line["path"], line["status"], line["level"]) for line in lines] == [
        ("POST", "/session", 200, "SUCCESS"),
        ("POST", f"{session}/url", 200, "SUCCESS"),
        ("POST", f"{session}/element", 404, "ERROR"),
        ("GET", f"{session}/screenshot", 200, "SUCCESS"),
        ("DELETE", session, 200, "SUCCESS"),
    ]
    assert {line["session_id"] for line in lines} == {endpoint.session_ids[0]}
    assert json.loads(str(lines[1]["request"])) == {"url": page}
    assert str(lines[2]["error"]).startswith("no such element: ")
    assert str(lines[3]["response"]).startswith("[not kept: ")
    for line in lines:
        took = datetime.fromisoformat(str(line["end_at"])) - datetime.fromisoformat(str(line["start_at"]))
        assert abs(took - timedelta(milliseconds=float(str(line["runtime_ms"])))) <= timedelta(milliseconds=2)


async def test_the_endpoints_key_is_not_in_the_log(
    attempt: AbstractAsyncContextManager[Endpoint], folder: Path, browse: Open
) -> None:
    async with attempt as endpoint:
        await asyncio.to_thread(browse, endpoint.url)
    assert "[secret]" in (folder / "commands.jsonl").read_text("utf-8")
    assert endpoint.url.rpartition("/")[2] not in (folder / "commands.jsonl").read_text("utf-8")


# --- requests that are not the attempt's -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/session/1f/title", "invalid session id"),
        ("POST", "/session", "unknown command"),
        ("GET", "/status", "unknown command"),
    ],
)
@pytest.mark.parametrize("key", ["", "/" + "0" * 32])
async def test_another_key_or_none_is_refused(
    attempt: AbstractAsyncContextManager[Endpoint], slots: Path, method: str, path: str, error: str, key: str
) -> None:
    async with attempt as endpoint:
        status, told = await answer(method, endpoint.url.rpartition("/")[0] + key + path, json={"capabilities": {}})
        assert (status, told["error"]) == (404, error)
        assert endpoint.session_ids == []
        assert list(slots.iterdir()) == []


async def test_two_attempts_do_not_see_each_others_sessions(recorder: Recorder, tmp_path: Path, browse: Open) -> None:
    hub = LocalHub("local")
    async with (
        recorder.endpoint(hub=hub, environment=CHROME, folder=tmp_path / "one") as one,
        recorder.endpoint(hub=hub, environment=CHROME, folder=tmp_path / "two") as two,
    ):
        browser = await asyncio.to_thread(browse, one.url)
        status, told = await answer("GET", f"{two.url}/session/{browser.session_id}/title")
        assert (status, told["error"]) == (404, "invalid session id")


@pytest.mark.parametrize(
    ("method", "path", "body", "error"),
    [
        ("POST", "/session", b"not json", "invalid argument"),
        ("POST", "/session", b"[]", "invalid argument"),
        ("POST", "/session", b"[" * 100_000, "invalid argument"),
        ("POST", "/session", b'{"capabilities": []}', "invalid argument"),
        ("GET", "/session/none/title", None, "invalid session id"),
        ("GET", "/session/none/%2e%2E/se/grid", None, "invalid argument"),
        ("GET", "/nonsense", None, "unknown command"),
    ],
    ids=lambda part: part[:20] if isinstance(part, bytes) else None,
)
async def test_a_wrong_request_is_told_in_the_form_of_the_standard(
    attempt: AbstractAsyncContextManager[Endpoint], method: str, path: str, body: bytes | None, error: str
) -> None:
    async with attempt as endpoint, aiohttp.ClientSession() as client:
        async with client.request(method, URL(endpoint.url + path, encoded=True), data=body) as response:
            told = (await response.json())["value"]
        assert (told["error"], told["stacktrace"]) == (error, "")
        assert endpoint.machinery_failure is None


async def test_a_request_of_more_than_16_mib_is_refused(attempt: AbstractAsyncContextManager[Endpoint]) -> None:
    async with attempt as endpoint:
        status, told = await answer("POST", f"{endpoint.url}/session", data=io.BytesIO(b"x" * (17 << 20)))
        assert (status, told["error"]) == (400, "invalid argument")
        assert "16 MiB" in str(told["message"])


async def test_the_status_tells_whether_a_session_can_be_opened(
    attempt: AbstractAsyncContextManager[Endpoint], browse: Open
) -> None:
    async with attempt as endpoint:
        assert (await answer("GET", f"{endpoint.url}/status"))[1]["ready"] is True
        async with aiohttp.ClientSession() as client, client.head(f"{endpoint.url}/status") as response:
            assert response.status == 200
        await asyncio.to_thread(browse, endpoint.url)
        assert (await answer("GET", f"{endpoint.url}/status"))[1]["ready"] is False


async def test_a_websocket_is_refused_with_the_reason(attempt: AbstractAsyncContextManager[Endpoint]) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"}
    async with attempt as endpoint:
        status, told = await answer("GET", f"{endpoint.url}/session/1/se/bidi", headers=upgrade)
        assert status == 404
        assert "WebSockets" in str(told["message"])


# --- machinery that fails --------------------------------------------------------------------------------------------


async def test_a_driver_killed_in_mid_session_is_machinery(
    attempt: AbstractAsyncContextManager[Endpoint], slots: Path, browse: Open
) -> None:
    async with attempt as endpoint:
        browser = await asyncio.to_thread(browse, endpoint.url)
        await asyncio.to_thread(kill, "chromedriver", slots)
        with pytest.raises(WebDriverException, match="driver does not answer any more"):
            await asyncio.to_thread(lambda: browser.title)
        assert endpoint.machinery_failure is not None
        assert "driver" in endpoint.machinery_failure


async def test_a_browser_killed_in_mid_session_is_machinery_and_another_may_be_opened(
    attempt: AbstractAsyncContextManager[Endpoint], slots: Path, browse: Open
) -> None:
    async with attempt as endpoint:
        browser = await asyncio.to_thread(browse, endpoint.url)
        await asyncio.to_thread(kill, "chromium", slots)
        with pytest.raises(WebDriverException):
            await asyncio.to_thread(lambda: browser.title)
        assert endpoint.machinery_failure is not None
        assert "browser was lost" in endpoint.machinery_failure
        await asyncio.to_thread(browse, endpoint.url)
        assert len(endpoint.session_ids) == 2


async def test_a_page_cannot_pass_for_broken_machinery(
    attempt: AbstractAsyncContextManager[Endpoint], browse: Open
) -> None:
    async with attempt as endpoint:
        browser = await asyncio.to_thread(browse, endpoint.url)
        with pytest.raises(JavascriptException):
            await asyncio.to_thread(browser.execute_script, "throw new Error('chrome not reachable')")
        assert endpoint.machinery_failure is None


async def test_a_browser_that_does_not_start_is_machinery_and_told_to_the_test(
    attempt: AbstractAsyncContextManager[Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browse: Open
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(local, "_USUAL_PLACES", ())
    async with attempt as endpoint:
        with pytest.raises(SessionNotCreatedException, match="apt-get install chromium"):
            await asyncio.to_thread(browse, endpoint.url)
        assert endpoint.machinery_failure is not None


async def test_a_browser_that_ends_at_once_is_machinery(
    attempt: AbstractAsyncContextManager[Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browse: Open
) -> None:
    monkeypatch.setattr(local, "_BROWSER_START_TIMEOUT", 1.0)
    await put_in_place_of_chromium("exit 1", tmp_path, monkeypatch)
    async with attempt as endpoint:
        with pytest.raises(SessionNotCreatedException):
            await asyncio.to_thread(browse, endpoint.url)
        assert endpoint.machinery_failure is not None
        assert endpoint.session_ids == []


# --- attempts that are cut off ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cancel_after", [0.0, 0.05, 0.2, 2.0], ids="after {}s".format)
async def test_a_cancelled_attempt_leaves_nothing(
    attempt: AbstractAsyncContextManager[Endpoint], slots: Path, cancel_after: float
) -> None:
    async def hold() -> None:
        async with attempt as endpoint:
            await answer("POST", f"{endpoint.url}/session", json={"capabilities": {}})
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await asyncio.sleep(cancel_after)
    for _ in range(3):
        # The second and third hit the cleanup, which must not mind.
        holding.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert processes_below(slots) == []
    assert list(slots.iterdir()) == []


async def test_an_attempt_that_ends_while_its_browser_hangs_in_starting_does_not_wait_for_it(
    attempt: AbstractAsyncContextManager[Endpoint], slots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_in_place_of_chromium("exec sleep 600", tmp_path, monkeypatch)
    async with attempt as endpoint:
        opening = asyncio.create_task(answer("POST", f"{endpoint.url}/session", json={"capabilities": {}}))
        await asyncio.to_thread(wait_for, "sleep", slots)
        left_at = time.monotonic()
    assert time.monotonic() - left_at < 10
    assert processes_below(slots) == []
    assert (await opening)[1]["error"] in {"session not created", "unknown error"}
    assert endpoint.machinery_failure is None


WORKER = """
import asyncio, sys, tempfile
from pathlib import Path
sys.path.append({tests!r})
from test_recorder import CHROME, LocalHub, Recorder, answer

async def main():
    tempfile.tempdir = {slots!r}
    async with Recorder() as recorder:
        async with recorder.endpoint(hub=LocalHub("local"), environment=CHROME, folder=Path({folder!r})) as endpoint:
            await answer("POST", f"{{endpoint.url}}/session", json={{"capabilities": {{}}}})
            print("open", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_worker_killed_with_9_leaves_no_browser_and_a_readable_log(slots: Path, folder: Path) -> None:
    script = textwrap.dedent(WORKER).format(slots=str(slots), folder=str(folder), tests=str(Path(__file__).parent))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        try:
            assert worker.stdout.readline() == "open\n"
            assert "chromium" in {process.name() for process in processes_below(slots)}
        finally:
            worker.kill()
    deadline = time.monotonic() + 5
    while processes_below(slots):
        assert time.monotonic() < deadline, processes_below(slots)
        time.sleep(0.02)
    local.clear_left_behind()
    assert [line["method"] for line in commands(folder)] == ["POST"]
