"""The browsers of this machine: each session has a chromedriver of its own, and nothing of either outlives it."""

import asyncio
import fcntl
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from proctor.domain.environment import Environment, Offer, Stereotype
from proctor.errors import DriverFailed
from proctor.ports.hubs import carry_through
from proctor.ports.sandbox import hiding_options, machine_options, never_through_links

_log = logging.getLogger(__name__)

_BROWSERS = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
_DRIVERS = ("chromedriver",)
# Where distributions and Google's packages put them; a service manager's PATH often has only the first two.
_USUAL_PLACES = (
    *("/usr/bin", "/usr/local/bin", "/opt/google/chrome", "/usr/lib/chromium", "/usr/lib/chromium-browser"),
    *("/opt/chromedriver", "/snap/bin"),
)
# Never the worker's whole environment: it holds the server's secrets, and pages run by tests are not trusted.
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")

# Names the slot's folder, so that each process of the slot can be known by it wherever it was reparented to.
SLOT_VARIABLE = "PROCTOR_SLOT"
_SLOT_PREFIX = "proctor-slot-"
_LONGEST_PARENT = 40  # characters; what Chromium puts below a slot has about 60
_NEW_PREFIX = "proctor-new-"

_VERSION_TIMEOUT = 10.0
# Chromedriver is up in 10 ms; the rest is for a machine that is swapping.
_START_TIMEOUT = 20.0
# Over a pipe chromedriver does not notice that a browser has died while it starts, and would wait for a minute.
_BROWSER_START_TIMEOUT = 30.0
_TERM_PATIENCE = 2.0
_KILL_PATIENCE = 5.0
_SMALL_SHARED_MEMORY = 1 << 30

LOG_LIMIT = 20 * 1024 * 1024
_CHUNK = 64 * 1024

# To the character after the number: what is read from a pipe may end within it.
_STARTED = re.compile(rb"started successfully on port (\d+)\D")
_VERSION = re.compile(r"\b\d+(?:\.\d+){1,3}\b")
_RESOLUTION = re.compile(r"(\d{2,5})x(\d{2,5})")


@dataclass(frozen=True)
class Installed:
    """A browser of this machine and the driver that fits it; `version` is the browser's, in full."""

    browser: Path
    driver: Path
    version: str


class LocalHub:
    """Offers Chromium or Chrome of this machine, headless, in as many slots as it has cores unless told otherwise."""

    def __init__(self, name: str, slots: int | None = None, *, hidden: Sequence[Path] = ()) -> None:
        """`hidden` are folders that no browser may read, as in the server's data folder; they need bubblewrap."""
        self.name = name
        self._slots = (os.cpu_count() or 1) if slots is None else slots
        self._hidden = tuple(hidden)

    async def offers(self) -> list[Offer]:
        """One offer, or none on a machine without a browser and a driver of the same major version."""
        installed = await asyncio.to_thread(find_installed)
        if installed is None:
            return []
        return [Offer(Stereotype(os="LINUX", browser="chrome", version=installed.version), self._slots)]

    def capabilities(self, environment: Environment) -> dict[str, object]:
        """Chrome with the binary that was found, headless, in the environment's resolution."""
        options = {
            "binary": str(_installed_or_fail().browser),
            "args": browser_arguments(environment.resolution),
            "browserStartupTimeout": int(_BROWSER_START_TIMEOUT * 1000),
        }
        return {"browserName": "chrome", "goog:chromeOptions": options}

    @asynccontextmanager
    async def driver(self, environment: Environment, folder: Path) -> AsyncIterator[str]:
        """A chromedriver on a port of its own; driver, browser and profile are gone on leaving, also when cancelled.

        The URL has a secret in it, without which the driver takes no HTTP request: every test of the machine can find
        the port and connect to it.
        """
        installed, launcher = await asyncio.to_thread(self._prepare)
        secret = secrets.token_hex(16)
        with slot_folder() as slot, DriverLog(folder / "driver.log") as log:
            started: list[_Driver] = []
            try:
                command = [*launcher.prefix(slot), str(installed.driver), "--port=0", f"--url-base=/{secret}"]
                started.append(_Driver(await _launch([*command, "--log-level=INFO"], slot), log))
                yield f"http://127.0.0.1:{await started[0].port()}/{secret}"
            finally:
                await carry_through(_end(slot, started, confined=launcher.bubblewrap))

    def _prepare(self) -> tuple[Installed, "Launcher"]:
        clear_left_behind()
        installed = _installed_or_fail()
        programs = (installed.browser, installed.driver)
        return installed, Launcher(bubblewrap=bubblewrap_works(), programs=programs, hidden=self._hidden)


# --- what is installed -----------------------------------------------------------------------------------------------


def find_installed() -> Installed | None:
    """The first browser for which there is a driver of the same major version; looks again at each call, cheaply."""
    for browser in _candidates(_BROWSERS):
        version = version_of(browser)
        for driver in _candidates(_DRIVERS):
            if version and version.split(".")[0] == version_of(driver).split(".")[0]:
                return Installed(browser, driver, version)
    return None


def _installed_or_fail() -> Installed:
    installed = find_installed()
    if installed is None:
        raise DriverFailed(
            "No Chromium or Chrome with a chromedriver of the same major version was found on this machine. "
            "Install both, as in `apt-get install chromium chromium-driver`."
        )
    return installed


def _candidates(names: Sequence[str]) -> Iterator[Path]:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_USUAL_PLACES))
    for name in names:
        if found := shutil.which(name, path=path):
            yield Path(found)


def version_of(program: Path) -> str:
    """As in `156.0.8078.79`; empty when the program does not tell."""
    try:
        # The time of change is part of the key: a worker outlives upgrades of its browser.
        return _told_version(program, program.stat().st_mtime_ns)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s does not tell its version: %s", program, error)
        return ""


@lru_cache(maxsize=32)
def _told_version(program: Path, _changed_at: int) -> str:
    told = subprocess.run(
        [program, "--version"],
        env=_surroundings(slots_parent()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_VERSION_TIMEOUT,
        check=False,
    )
    found = _VERSION.search(told.stdout.decode(errors="replace"))
    return found[0] if found else ""


def browser_arguments(resolution: str | None) -> list[str]:
    """Command line switches of Chromium; `resolution` as in `1440x900`, or None for the browser's own choice."""
    arguments = [
        *("--headless=new", "--disable-gpu", "--no-first-run", "--no-default-browser-check", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
        # A port would be open to every test of the machine.
        "--remote-debugging-pipe",
    ]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")
    if _shared_memory_is_small():
        arguments.append("--disable-dev-shm-usage")
    if resolution:
        arguments.append("--window-size={},{}".format(*window_size(resolution)))
    return arguments


def window_size(resolution: str) -> tuple[int, int]:
    """Width and height in pixels of `1440x900`; raises DriverFailed for anything else."""
    parts = _RESOLUTION.fullmatch(resolution.strip().lower())
    if parts is None:
        raise DriverFailed(f"The environment's resolution {resolution!r} is not of the form 1440x900. Correct it.")
    return int(parts[1]), int(parts[2])


def _shared_memory_is_small() -> bool:
    # Containers get 64 MiB, in which pages crash.
    try:
        return shutil.disk_usage("/dev/shm").free < _SMALL_SHARED_MEMORY  # noqa: S108
    except OSError:
        return True


# --- starting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launcher:
    """What stands before the driver's command line, so that all of a slot dies with the worker, `kill -9` included."""

    bubblewrap: bool
    programs: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()

    def prefix(self, slot: Path) -> list[str]:
        """With bubblewrap the browser sees what test code sees, and can write nothing that is still there afterwards.

        A test chooses the browser's switches and may find a way past those that are refused: what it can start there
        must be harmless.
        """
        if self.bubblewrap:
            # The slot last: it may lie below a folder that is hidden, as /tmp.
            place = ("--tmpfs", str(slot), "--chdir", str(slot))
            return ["bwrap", *machine_options(self._path()), *hiding_options(self.hidden), *place, "--"]
        # Without it only the driver dies at once; clear_left_behind() ends its browser later.
        return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []

    def _path(self) -> str:
        # A link in $PATH may lead to a browser that is unpacked below the home folder.
        folders = [str(path.parent) for program in self.programs for path in (program, program.resolve())]
        return ":".join([os.environ.get("PATH", ""), *folders])


@lru_cache(maxsize=1)
def bubblewrap_works() -> bool:
    """True when bubblewrap is there and may make namespaces, which containers and some distributions forbid."""
    if not shutil.which("bwrap"):
        return False
    try:
        command = ["bwrap", *machine_options(os.environ.get("PATH", "")), "--", "true"]
        tried = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except subprocess.TimeoutExpired as error:
        raise DriverFailed(f"bubblewrap does not come back: {error}. Run `proctor doctor`.") from error
    if tried.returncode:
        _log.warning("bubblewrap cannot be used, browsers run unconfined: %s", tried.stderr.decode(errors="replace"))
    return tried.returncode == 0


async def _launch(command: Sequence[str], slot: Path) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            env=_surroundings(slot),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise DriverFailed(f"{command[0]} could not be started: {error}. Run `proctor doctor`.") from error


def _surroundings(slot: Path) -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed_on, "HOME": str(slot), "TMPDIR": str(slot), SLOT_VARIABLE: str(slot)}


class DriverLog:
    """A file that takes what drivers say until it holds `limit` bytes; what comes later is thrown away."""

    def __init__(self, path: Path, *, limit: int = LOG_LIMIT) -> None:
        """Appends, because an attempt may open several sessions one after another."""
        self.path = path
        try:
            self._file = open(path, "ab", buffering=0, opener=never_through_links)  # noqa: SIM115
        except OSError as error:
            raise DriverFailed(f"The driver's log cannot be written: {error}. See who may write there.") from error
        self._left = limit - self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, said: bytes) -> None:
        if self._left <= 0:
            return
        kept = said if len(said) <= self._left else said[: self._left] + _FULL
        self._left -= len(said)
        try:
            self._file.write(kept)
        except OSError as error:
            # A full disk must not fail the test: it shows in the log of the worker.
            _log.error("The driver's log %s cannot be written any more: %s", self.path, error)
            self._left = 0

    def end(self) -> str:
        """The last 2,000 bytes."""
        with open(self.path, "rb", opener=never_through_links) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
            return file.read().decode(errors="replace").strip()


_FULL = b"\n[proctor] The log has reached its size limit; what the driver said later is not in it.\n"


class _Driver:
    """A driver's process, and a task that listens to it.

    It writes into a pipe: were it given the log's path or descriptor, what it starts could do to the file what it can.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: DriverLog) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        self.process = process
        self._log = log
        self._port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen(process.stdout))

    async def _listen(self, output: asyncio.StreamReader) -> None:
        heard = b""
        while said := await output.read(_CHUNK):
            self._log.add(said)
            if not self._port.done():
                heard += said
                if told := _STARTED.search(heard):
                    self._port.set_result(int(told[1]))

    async def port(self) -> int:
        """Where it listens, once it does; raises DriverFailed with the end of its log when it does not."""
        waited: set[asyncio.Future[None] | asyncio.Future[int]] = {self._listening, self._port}
        await asyncio.wait(waited, timeout=_START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if self._port.done():
            return self._port.result()
        what = "ended before it listened" if self._listening.done() else f"did not start within {_START_TIMEOUT:.0f} s"
        said = await asyncio.to_thread(self._log.end)
        raise DriverFailed(f"chromedriver {what}. The end of its log: {said or '(empty)'}. Run `proctor doctor`.")

    async def ended(self) -> None:
        """Until its pipe has been heard to the end and it has been reaped: 5 s at most for each."""
        await asyncio.wait_for(self._listening, _KILL_PATIENCE)
        await asyncio.wait_for(self.process.wait(), _KILL_PATIENCE)

    def give_up(self) -> None:
        self._listening.cancel()


# --- ending ----------------------------------------------------------------------------------------------------------


def slots_parent() -> Path:
    """The temporary folder, unless its path is too long: a socket that Chromium makes below it has 107 characters."""
    folder = tempfile.gettempdir()
    return Path(folder if len(folder) <= _LONGEST_PARENT else "/tmp")  # noqa: S108 (mkdtemp makes a private one in it)


@contextmanager
def slot_folder() -> Iterator[Path]:
    """A private folder for one session, locked while its worker lives; gone on leaving."""
    try:
        unlocked = Path(tempfile.mkdtemp(prefix=_NEW_PREFIX, dir=slots_parent()))
        held = os.open(unlocked, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise DriverFailed(f"No folder for a browser's profile could be made: {error}. Make room there.") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        # Named a slot only once it is locked, or another worker might take it for one left behind.
        slot = unlocked.rename(unlocked.with_name(unlocked.name.replace(_NEW_PREFIX, _SLOT_PREFIX)))
        try:
            yield slot
        finally:
            shutil.rmtree(slot, ignore_errors=True)
    finally:
        os.close(held)


def processes_of(slot: Path) -> list[psutil.Process]:
    """The live processes of a slot, wherever they were reparented to."""
    mark = str(slot)
    found = []
    for process in psutil.process_iter():
        # Either sign alone misses some: Chromium's helpers overwrite their environment, the driver's arguments lack it.
        with suppress(psutil.Error):
            if any(mark in part for part in process.cmdline()) or process.environ().get(SLOT_VARIABLE) == mark:
                found.append(process)
    return found


async def _end(slot: Path, started: Sequence[_Driver], *, confined: bool) -> None:
    for driver in started if confined else ():
        await _end_namespace(driver.process)
    gone = await _gone_after(signal.SIGTERM, slot, _TERM_PATIENCE)
    if not gone and not await _gone_after(signal.SIGKILL, slot, _KILL_PATIENCE):
        _log.error("Processes of %s survived SIGKILL: %s", slot, await asyncio.to_thread(processes_of, slot))
        for driver in started:
            driver.give_up()
        return
    for driver in started:
        await driver.ended()


async def _end_namespace(bubblewrap: asyncio.subprocess.Process) -> None:
    """Kills the namespace's first process, and with it the kernel kills all others; bubblewrap reaps it and ends.

    Were bubblewrap killed instead, each session would leave a zombie in a container whose first process does not reap.
    """
    with suppress(psutil.NoSuchProcess, TimeoutError):
        first = await asyncio.to_thread(psutil.Process(bubblewrap.pid).children)
        for process in first:
            process.kill()
        if first:
            await asyncio.wait_for(bubblewrap.wait(), _TERM_PATIENCE)


async def _gone_after(number: signal.Signals, slot: Path, patience: float) -> bool:
    """Signals each process of the slot once, later ones too; False when some outlive `patience`, in seconds."""
    signalled: set[psutil.Process] = set()
    try:
        async with asyncio.timeout(patience):
            while alive := await asyncio.to_thread(processes_of, slot):
                for process in set(alive) - signalled:
                    with suppress(psutil.NoSuchProcess):
                        process.send_signal(number)
                signalled.update(alive)
                await asyncio.sleep(0.01)
    except TimeoutError:
        return False
    return True


def clear_left_behind() -> None:
    """Ends and deletes what a worker that was killed left: its slots' folders are there, and no longer locked."""
    for slot in slots_parent().glob(f"{_SLOT_PREFIX}*"):
        with suppress(OSError):
            if slot.lstat().st_uid == os.geteuid():
                _clear_unless_held(slot)


def _clear_unless_held(slot: Path) -> None:
    held = os.open(slot, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for process in processes_of(slot):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(slot, ignore_errors=True)
    finally:
        os.close(held)
