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


async def test_a_browser_sees_the_machine_but_not_the_hidden_folders(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("page.html", "data/secret.html"):
        (tmp_path / name).write_text("<title>seen</title>")
    (tmp_path / "data" / "attempt").mkdir()
    hub = LocalHub("local", hidden=[tmp_path / "data"])
    async with hub.driver(CHROME, tmp_path / "data" / "attempt") as url:
        session = await new_session(hub, url)
        for page, seen in (("page.html", True), ("data/secret.html", False)):
            await call("POST", f"{session}/url", {"url": f"file://{tmp_path}/{page}"})
            assert (await call("GET", f"{session}/title") == "seen") is seen


async def test_a_program_that_a_browsers_switch_starts_can_write_nothing_outside(hub: LocalHub, tmp_path: Path) -> None:
    folder = tmp_path / "attempt"
    folder.mkdir()
    escape = program(tmp_path, "escape", f'touch {tmp_path}/escaped {folder}/started\nexec "$@"')
    body = hub.capabilities(CHROME)
    body["goog:chromeOptions"]["args"].append(f"--renderer-cmd-prefix={escape}")  # type: ignore[index]
    async with hub.driver(CHROME, folder) as url:
        await call("POST", f"{url}/session", {"capabilities": {"alwaysMatch": body}})
        assert (folder / "started").exists()
    assert not (tmp_path / "escaped").exists()


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
