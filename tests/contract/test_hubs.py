"""The local hub with the machine's real Chromium and chromedriver."""

import asyncio
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest
from leaks import nothing_leaked, processes_below

from proctor.domain.environment import Environment, Offer, Stereotype
from proctor.errors import DriverFailed
from proctor.ports.hubs import local
from proctor.ports.hubs.local import LocalHub

CHROME = Environment(id=1, name="chrome", os="LINUX", browser="chrome", resolution="1024x768")


@pytest.fixture(autouse=True)
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which slots are made; nothing may be left in it. (`tmp_path` first, or it would lie in it.)"""
    with nothing_leaked(monkeypatch) as folder:
        yield folder


@pytest.fixture(params=["bubblewrap", "plain processes"])
def confinement(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    confined = request.param == "bubblewrap"
    assert not confined or local.bubblewrap_works(), "install bubblewrap"
    monkeypatch.setattr(local, "bubblewrap_works", lambda: confined)


@pytest.fixture
def hub() -> LocalHub:
    return LocalHub("local")


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    return path


def only_programs_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(local, "_USUAL_PLACES", ())


async def new_session(hub: LocalHub, url: str) -> str:
    """Opens one with the hub's own capabilities, and gives its URL."""
    body = {"capabilities": {"alwaysMatch": hub.capabilities(CHROME)}}
    return f"{url}/session/{(await call('POST', f'{url}/session', body))['sessionId']}"


async def call(method: str, url: str, body: object = None) -> dict[str, object]:
    async with aiohttp.ClientSession() as client, client.request(method, url, json=body) as response:
        answered = await response.json()
        assert response.status == 200, answered
        return answered["value"]  # type: ignore[no-any-return]


@contextmanager
def adopting_orphans() -> Iterator[None]:
    """Makes this process what the first one of a container is: orphaned processes become its children."""
    set_child_subreaper = 36
    libc = ctypes.CDLL(None)
    assert libc.prctl(set_child_subreaper, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        libc.prctl(set_child_subreaper, 0, 0, 0, 0)


# --- what it offers --------------------------------------------------------------------------------------------------


def test_it_offers_the_machines_chromium_in_full_version() -> None:
    told = subprocess.run(["chromium", "--version"], capture_output=True, text=True, check=True).stdout.split()
    offers = asyncio.run(LocalHub("local", slots=3).offers())
    assert offers == [Offer(Stereotype("LINUX", "chrome", told[1]), slots=3)]


async def test_it_has_as_many_slots_as_the_machine_has_cores(hub: LocalHub) -> None:
    assert [offer.slots for offer in await hub.offers()] == [os.cpu_count()]


async def test_a_machine_without_a_browser_offers_nothing(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "chromedriver", "echo ChromeDriver 156.0.1.2")
    only_programs_of(tmp_path, monkeypatch)
    assert await hub.offers() == []


async def test_a_driver_of_another_major_version_is_no_offer(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "chromium", "echo Chromium 156.0.1.2")
    program(tmp_path, "chromedriver", "echo ChromeDriver 155.0.1.2")
    only_programs_of(tmp_path, monkeypatch)
    assert await hub.offers() == []


async def test_an_upgrade_of_the_browser_is_noticed(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_programs_of(tmp_path, monkeypatch)
    for version in ("156.0.1.2", "157.0.3.4"):
        at = time.time_ns() + int(version[:3]) * 10**9
        for name in ("google-chrome", "chromedriver"):
            os.utime(program(tmp_path, name, f"echo Program {version}"), ns=(at, at))
        assert [offer.stereotype.version for offer in await hub.offers()] == [version]


# --- a driver --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("confinement")
async def test_a_session_left_open_dies_with_its_driver(hub: LocalHub, slots: Path, tmp_path: Path) -> None:
    async with hub.driver(CHROME, tmp_path) as url:
        session = await new_session(hub, url)
        assert (await call("GET", f"{session}/window/rect"))["width"] == 1024
        running = {process.name() for process in processes_below(slots)}
        assert {"chromedriver", "chromium"} <= running
    assert processes_below(slots) == []
    assert (tmp_path / "driver.log").stat().st_size > 0


@pytest.mark.usefixtures("confinement")
async def test_a_failing_body_leaves_nothing(hub: LocalHub, slots: Path, tmp_path: Path) -> None:
    async def fail() -> None:
        async with hub.driver(CHROME, tmp_path) as url:
            await new_session(hub, url)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert processes_below(slots) == []


async def test_a_session_leaves_no_zombie_to_whoever_adopts_orphans(hub: LocalHub, tmp_path: Path) -> None:
    with adopting_orphans():
        async with hub.driver(CHROME, tmp_path) as url:
            await new_session(hub, url)
        assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("cancel_after", [0.0, 0.005, 0.02, 0.3])
@pytest.mark.usefixtures("confinement")
async def test_cancelling_at_any_moment_leaves_nothing(
    hub: LocalHub, slots: Path, tmp_path: Path, cancel_after: float
) -> None:
    async def hold() -> None:
        async with hub.driver(CHROME, tmp_path) as url:
            await new_session(hub, url)
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await asyncio.sleep(cancel_after)
    for _ in range(3):
        # The second and third hit the cleanup, which must not mind.
        holding.cancel()
        await asyncio.sleep(0.005)
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert processes_below(slots) == []


async def test_a_driver_that_does_not_start_says_why(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "chromium", "echo Chromium 156.0.1.2")
    complaint = '[ "$1" = --version ] && echo ChromeDriver 156.0.1.2 && exit; echo libnss3.so is missing >&2; exit 1'
    program(tmp_path, "chromedriver", complaint)
    monkeypatch.setattr(local, "bubblewrap_works", lambda: False)
    only_programs_of(tmp_path, monkeypatch)
    with pytest.raises(DriverFailed, match=r"ended before it listened.*libnss3\.so is missing.*proctor doctor"):
        async with hub.driver(CHROME, tmp_path):
            pytest.fail("it started")


async def test_a_driver_that_never_listens_is_given_up_and_killed(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "chromium", "echo Chromium 156.0.1.2")
    script = f'[ "$1" = --version ] && echo ChromeDriver 156.0.1.2 && exit; exec {shutil.which("sleep")} 600'
    program(tmp_path, "chromedriver", script)
    monkeypatch.setattr(local, "bubblewrap_works", lambda: False)
    monkeypatch.setattr(local, "_START_TIMEOUT", 0.2)
    only_programs_of(tmp_path, monkeypatch)
    with pytest.raises(DriverFailed, match="did not start within"):
        async with hub.driver(CHROME, tmp_path):
            pytest.fail("it started")


async def test_a_missing_browser_is_told_with_the_packages_to_install(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_programs_of(tmp_path, monkeypatch)
    with pytest.raises(DriverFailed, match="apt-get install chromium chromium-driver"):
        async with hub.driver(CHROME, tmp_path):
            pytest.fail("it started")


@pytest.mark.parametrize("resolution", ["big", "1440x", "1440x900; rm -rf"])
def test_a_resolution_of_another_form_is_refused(resolution: str) -> None:
    with pytest.raises(DriverFailed, match="not of the form 1440x900"):
        local.window_size(resolution)


# --- what its browsers may touch -------------------------------------------------------------------------------------


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that is neither a home nor a temporary one: a browser sees it unless it is told not to."""
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/var/tmp") as folder:
        for name in ("seen", "data", "home"):
            (Path(folder) / name).mkdir()
            (Path(folder) / name / "page.html").write_text("<title>shown</title>")
        yield Path(folder)


async def test_a_browser_sees_the_machine_but_not_its_secrets(
    outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.html").write_text("<title>shown</title>")
    monkeypatch.setenv("HOME", str(outside / "home"))
    hub = LocalHub("local", hidden=[outside / "data", outside / "missing"])
    shown = set()
    async with hub.driver(CHROME, tmp_path) as url:
        session = await new_session(hub, url)
        for folder in (outside / "seen", outside / "data", outside / "home", tmp_path):
            await call("POST", f"{session}/url", {"url": f"file://{folder}/page.html"})
            if await call("GET", f"{session}/title") == "shown":
                shown.add(folder.name)
        await call("POST", f"{session}/url", {"url": "file:///etc/shadow"})
        assert "root:" not in str(await call("GET", f"{session}/source"))
        await call("POST", f"{session}/url", {"url": "file:///run"})
        assert str(await call("GET", f"{session}/source")).count("addRow(") <= 1
    assert shown == {"seen"}


async def test_a_browser_below_a_hidden_folder_is_found_there(
    hub: LocalHub, slots: Path, outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(outside / "home"))
    (outside / "home" / "unpacked" / "chrome").mkdir(parents=True)
    unpacked = program(outside / "home" / "unpacked" / "chrome", "chrome", 'exec /usr/bin/chromium "$@"')
    (tmp_path / "chromium").symlink_to(unpacked)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    async with hub.driver(CHROME, tmp_path) as url:
        await new_session(hub, url)
        assert "chromium" in {process.name() for process in processes_below(slots)}


async def test_a_program_that_a_browsers_switch_starts_can_change_nothing_outside(
    hub: LocalHub, slots: Path, outside: Path, tmp_path: Path
) -> None:
    folder = outside / "data"
    script = f"""
        rm -f {folder}/driver.log; ln -s {folder}/page.html {folder}/driver.log; touch {outside}/escaped
        test -w {folder} && touch $TMPDIR/writable
        echo '<title>ran</title>' > $TMPDIR/ran.html
        exec "$@"
    """
    body = hub.capabilities(CHROME)
    switch = f"--renderer-cmd-prefix={program(outside / 'seen', 'escape', script)}"
    body["goog:chromeOptions"]["args"].append(switch)  # type: ignore[index]
    async with hub.driver(CHROME, folder) as url:
        opened = await call("POST", f"{url}/session", {"capabilities": {"alwaysMatch": body}})
        (slot,) = slots.iterdir()
        session = f"{url}/session/{opened['sessionId']}"
        for page, title in (("ran.html", "ran"), ("writable", f"{slot}/writable")):
            await call("POST", f"{session}/url", {"url": f"file://{slot}/{page}"})
            assert (await call("GET", f"{session}/title")).endswith(title)  # type: ignore[attr-defined]
    assert not (folder / "driver.log").is_symlink()
    assert b"COMMAND InitSession" in (folder / "driver.log").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["driver.log", "page.html"]
    assert not (outside / "escaped").exists()


# --- what a driver says ----------------------------------------------------------------------------------------------


async def test_a_log_that_is_a_link_is_not_written_through(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "driver.log").symlink_to(tmp_path / "secret")
    with pytest.raises(DriverFailed, match=r"driver's log cannot be written"):
        async with hub.driver(CHROME, tmp_path):
            pytest.fail("it started")
    assert (tmp_path / "secret").read_text() == "secret"


async def test_a_talkative_driver_fills_its_log_to_the_limit_and_works_on(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local.DriverLog.__init__, "__kwdefaults__", {"limit": 2000})
    async with hub.driver(CHROME, tmp_path) as url:
        session = await new_session(hub, url)
        for _ in range(3):
            # More than a pipe holds, each time.
            await call("POST", f"{session}/url", {"url": f"data:text/html,{'x' * 100_000}"})
        assert await call("GET", f"{session}/title") == ""
    log = (tmp_path / "driver.log").read_text()
    assert "reached its size limit" in log[2000:]
    assert len(log) < 2200


# --- who may drive them ----------------------------------------------------------------------------------------------

STRANGER = """
import json, sys, urllib.error, urllib.request
for port, path in (line.split() for line in sys.stdin):
    for method in ("GET", "POST", "DELETE"):
        body = json.dumps({"capabilities": {}}).encode() if method == "POST" else None
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                print(method, path, answer.status)
        except urllib.error.HTTPError as error:
            assert error.code == 400, error
"""


def ports_of(slots: Path) -> dict[int, str]:
    """The TCP ports that processes of the slots listen on, each with the process's name."""
    return {
        connection.laddr.port: process.name()
        for process in processes_below(slots)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


async def test_who_does_not_know_the_drivers_secret_gets_no_answer(hub: LocalHub, slots: Path, tmp_path: Path) -> None:
    async with hub.driver(CHROME, tmp_path) as url:
        session = await new_session(hub, url)
        open_ports = await asyncio.to_thread(ports_of, slots)
        assert set(open_ports.values()) == {"chromedriver"}
        own = session.removeprefix(url)
        paths = (
            "/",
            "/status",
            "/sessions",
            "/session",
            "/shutdown",
            "/json/version",
            own,
            f"{own}/url",
            f"/{'0' * 32}/sessions",
        )
        lines = "\n".join(f"{port} {path}" for port in open_ports for path in paths)
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", STRANGER], input=lines, capture_output=True, text=True, check=True
        )
        assert done.stdout == ""
        assert await call("GET", f"{session}/title") == ""


@pytest.mark.xfail(strict=True, reason="chromedriver 156 ignores --url-base for WebSockets (BiDi sessions)")
async def test_who_does_not_know_the_drivers_secret_gets_no_websocket(hub: LocalHub, tmp_path: Path) -> None:
    async with hub.driver(CHROME, tmp_path) as url, aiohttp.ClientSession() as stranger:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await stranger.ws_connect(url.rpartition("/")[0] + "/session")


# --- what they know --------------------------------------------------------------------------------------------------


async def test_the_browser_knows_nothing_of_the_workers_environment(
    hub: LocalHub, slots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCTOR_ADMIN_PASSWORD", "hunter2")
    async with hub.driver(CHROME, tmp_path) as url:
        await new_session(hub, url)
        driver = next(process for process in processes_below(slots) if process.name() == "chromedriver")
        assert driver.environ()["HOME"].startswith(str(slots))
        assert "PROCTOR_ADMIN_PASSWORD" not in driver.environ()


# --- a worker that is killed -----------------------------------------------------------------------------------------

WORKER = """
import asyncio, sys, tempfile
from pathlib import Path
from proctor.ports.hubs import local
sys.path.append({tests!r})
from test_hubs import CHROME, new_session

async def main():
    tempfile.tempdir = {slots!r}
    if not {confined}:
        local.bubblewrap_works = lambda: False
    hub = local.LocalHub("local")
    async with hub.driver(CHROME, Path({folder!r})) as url:
        await new_session(hub, url)
        print("open", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def killed_worker(slots: Path, folder: Path, *, confined: bool) -> None:
    """Runs a worker until its browser is open, and kills it with -9."""
    tests = str(Path(__file__).parent)
    script = textwrap.dedent(WORKER).format(slots=str(slots), folder=str(folder), confined=confined, tests=tests)
    # Its own session, and no pipe that its browser could inherit and keep open.
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        try:
            assert worker.stdout.readline() == "open\n"
            assert "chromium" in {process.name() for process in processes_below(slots)}
        finally:
            worker.kill()


def test_a_worker_killed_with_9_takes_its_browser_along(slots: Path, tmp_path: Path) -> None:
    killed_worker(slots, tmp_path, confined=True)
    deadline = time.monotonic() + 5
    while processes_below(slots):
        assert time.monotonic() < deadline, processes_below(slots)
        time.sleep(0.02)
    # The profile was in memory; the empty folder goes when the next driver is started.
    assert [list(slot.iterdir()) for slot in slots.iterdir()] == [[]]
    local.clear_left_behind()


async def test_without_bubblewrap_the_next_driver_clears_what_a_killed_worker_left(
    hub: LocalHub, slots: Path, tmp_path: Path
) -> None:
    await asyncio.to_thread(killed_worker, slots, tmp_path, confined=False)
    (left,) = slots.iterdir()
    async with hub.driver(CHROME, tmp_path):
        assert not left.exists()
        assert not [process for process in processes_below(left) if process.is_running()]


async def test_a_slot_that_is_in_use_is_not_cleared(hub: LocalHub, slots: Path, tmp_path: Path) -> None:
    async with hub.driver(CHROME, tmp_path) as url:
        session = await new_session(hub, url)
        async with hub.driver(CHROME, tmp_path):
            assert len(list(slots.iterdir())) == 2
        assert await call("GET", f"{session}/title") == ""


def test_the_tests_own_temporary_folder_is_used(slots: Path) -> None:
    with local.slot_folder() as slot:
        assert slot.parent == slots == Path(tempfile.gettempdir())
