"""The peer: Buildbot, a master and one worker with four builds at a time, in a virtual environment of its own.

By hand: `python -m bench.peers.buildbot --builds 200 --trigger 10`.

What is done so that Buildbot is shown at its best, within what its users can set:

- Four builders, one for each build that the worker may run at a time: Buildbot runs at most one build of a builder
  on a worker, so with one builder `max_builds=4` would be one.
- n builds are asked for by n / 4 force requests sent at once over HTTP, each a build set of one build on each of the
  four builders. The requests overlap with the builds. One request for 200 builders of their own cost the
  master six times the CPU; sending each request only when a build had ended took about the same time.
- The database keeps its connection (`pooled`). Out of the box Buildbot opens and closes SQLite for each query, which
  takes two to three times the time for everything; `--default-database` measures it so.
- The end is told by the master's event stream (`/sse`), one message a finished build, so that nobody polls it.
- The command is in the configuration, not in a property of each request; the log leaves the environment out.
- Every builder has run once before anything is measured, so that folders and connections are there.
"""

import argparse
import asyncio
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp
import psutil
import uv

from bench import measure
from bench.peers import JOB, PARALLEL, STAMP_SCRIPT

REQUIREMENTS = Path(__file__).parents[1] / "requirements-buildbot.txt"
MASTER_CONFIG = Path(__file__).with_name("master.cfg")

_INSTALL_TIMEOUT = 600.0
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 15.0
# Buildbot takes 75 to 220 ms for a build on two cores; a machine ten times as slow still ends in time.
_TIMEOUT_PER_BUILD = 2.0
_READY_INTERVAL = 0.1


class PeerFailed(measure.NotMeasured):
    """Buildbot could not be installed, did not start, or did not run what it was asked; there is no figure."""


def default_cache() -> Path:
    """Where the virtual environment is kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proctor-bench"


def install(cache: Path) -> Path:
    """Makes Buildbot's virtual environment, unless this cache has one of the same pins and Python; its folder.

    Raises PeerFailed when the packages cannot be had.
    """
    pins = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    home = cache / f"buildbot-{pins}-py{sys.version_info.major}.{sys.version_info.minor}"
    # Written last: an installation that was interrupted is made again.
    complete = home / "complete"
    if not complete.exists():
        home.mkdir(parents=True, exist_ok=True)
        _uv("venv", "--clear", "--python", sys.executable, str(home))
        _uv("pip", "install", "--python", str(home / "bin" / "python"), "--require-hashes", "-r", str(REQUIREMENTS))
        complete.touch()
    return home


def _uv(*arguments: str) -> None:
    command = [uv.find_uv_bin(), "--quiet", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"Buildbot was not installed within {_INSTALL_TIMEOUT:.0f} s. Run it again.") from None
    if done.returncode:
        raise PeerFailed(
            f"Buildbot was not installed: `uv {' '.join(arguments)}` exited with {done.returncode}.\n"
            f"{done.stderr.strip()[-2000:]}\n"
            "Check that this machine reaches its Python package index, then run it again."
        )


class Buildbot:
    """A running Buildbot: `async with Buildbot() as buildbot`. Its folder and processes are gone at the end.

    `job` is the argv of every build of `run_builds`; `parallel` of them run at a time. `pooled` says whether the
    database keeps its connection (faster) or is opened for each query (Buildbot's default).
    """

    def __init__(
        self,
        *,
        cache: Path | None = None,
        job: Sequence[str] = JOB,
        parallel: int = PARALLEL,
        pooled: bool = True,
    ) -> None:
        self._cache = cache or default_cache()
        self._pooled = pooled
        self._job = list(job)
        self._lanes = [f"lane-{i}" for i in range(parallel)]

    async def __aenter__(self) -> Self:
        bin_folder = await asyncio.to_thread(install, self._cache) / "bin"
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proctor-bench-")))
            self._reports = folder / "reports"
            http_port, worker_port = _free_ports(2)
            await self._make(bin_folder, folder, http_port, worker_port)
            self._log = folder / "master" / "twistd.log"
            self._processes = [
                await stack.enter_async_context(
                    _running(bin_folder / program, "start", "--nodaemon", cwd=folder / name)
                )
                for program, name in (("buildbot", "master"), ("buildbot-worker", "worker"))
            ]
            self._http = await stack.enter_async_context(_session(http_port))
            await self._wait_until_ready()
            self._events = await stack.enter_async_context(self._listen())
            await self.run_builds(len(self._lanes))
            await self.trigger()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def trigger(self) -> float:
        """Seconds from sending the force request to the process of the build's step running.

        Returns when the build has ended, so that the next call meets an idle Buildbot.
        """
        sent = time.time_ns()
        await self._force(["trigger"])
        (build,) = await self._finished(1)
        stamp = self._reports / f"trigger-{build['number']}" / "started"
        return (int(stamp.read_text()) - sent) / 1e9

    async def run_builds(self, n: int) -> float:
        """Wall seconds for `n` builds, from sending the first force request to hearing of the last build's end."""
        before = len(self._written())
        sets, rest = divmod(n, len(self._lanes))
        started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._finished(n))
                for lanes in [self._lanes] * sets + [self._lanes[:rest]] * bool(rest):
                    tasks.create_task(self._force(lanes))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        took = time.perf_counter() - started
        if (written := len(self._written()) - before) != n:
            raise PeerFailed(f"{n} builds ended well but {written} wrote a report. Check the job's command.")
        return took

    def _written(self) -> list[Path]:
        return list(self._reports.glob("*/junit.xml"))

    async def _make(self, bin_folder: Path, folder: Path, http_port: int, worker_port: int) -> None:
        """Writes what Buildbot's own commands write for a new master and a new worker, and the configuration."""
        password = secrets.token_hex()
        settings = {
            "folder": str(self._reports),
            "http_port": http_port,
            "worker_port": worker_port,
            "password": password,
            "lanes": self._lanes,
            "pooled": self._pooled,
            "job": self._job,
            "stamp": ["sh", "-c", STAMP_SCRIPT],
        }
        await _finish(bin_folder / "buildbot", "create-master", "--quiet", "master", cwd=folder)
        address = f"127.0.0.1:{worker_port}"
        worker = ("create-worker", "--quiet", "worker", address, "bench", password)
        await _finish(bin_folder / "buildbot-worker", *worker, cwd=folder)
        (folder / "master" / "settings.json").write_text(json.dumps(settings))
        (folder / "master" / "master.cfg").write_bytes(MASTER_CONFIG.read_bytes())

    async def _wait_until_ready(self) -> None:
        """Ready is when the master answers and says that the worker is connected."""
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                while not await self._worker_connected():  # noqa: ASYNC110 (another process, which has no event for it)
                    await asyncio.sleep(_READY_INTERVAL)
        except TimeoutError:
            raise PeerFailed(f"Buildbot was not ready within {_START_TIMEOUT:.0f} s.\n{self._last_words()}") from None

    async def _worker_connected(self) -> bool:
        if any(process.returncode is not None for process in self._processes):
            raise PeerFailed(f"Buildbot ended while it started.\n{self._last_words()}")
        try:
            async with self._http.get("/api/v2/workers") as answer:
                workers: list[dict[str, Any]] = (await answer.json())["workers"]
        except aiohttp.ClientConnectorError:
            return False
        return any(worker["connected_to"] for worker in workers)

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else "It wrote no log."

    @asynccontextmanager
    async def _listen(self) -> AsyncIterator[aiohttp.StreamReader]:
        """The master's events of finished builds, open before anything is asked so that none is missed."""
        forever = aiohttp.ClientTimeout(total=None)
        async with self._http.get("/sse/listen/builds/*/finished", timeout=forever) as stream:
            stream.raise_for_status()
            # The first event says that the subscription stands: "event: handshake", its id, an empty line.
            async with asyncio.timeout(_START_TIMEOUT):
                await stream.content.readuntil(b"\n\n")
            yield stream.content

    async def _force(self, builders: Sequence[str]) -> None:
        request = {"jsonrpc": "2.0", "method": "force", "id": 1, "params": {"builderNames": builders}}
        try:
            async with self._http.post("/api/v2/forceschedulers/force", json=request) as answer:
                if answer.status != 200:
                    raise PeerFailed(f"Buildbot refused a force request with {answer.status}: {await answer.text()}")
        except aiohttp.ClientError as gone:
            raise PeerFailed(f"Buildbot did not answer a force request: {gone}.\n{self._last_words()}") from gone

    async def _finished(self, n: int) -> list[dict[str, Any]]:
        """Waits for the end of `n` builds. Raises PeerFailed for one that did not end well, or too late."""
        timeout = _START_TIMEOUT + n * _TIMEOUT_PER_BUILD
        try:
            async with asyncio.timeout(timeout):
                builds = [await self._next_finished() for _ in range(n)]
        except TimeoutError:
            raise PeerFailed(f"Buildbot did not end {n} builds in {timeout:.0f} s.\n{self._last_words()}") from None
        if failed := [build["buildid"] for build in builds if build["results"] != 0]:
            raise PeerFailed(f"{len(failed)} of {n} builds did not succeed: {failed[:10]}. Check the job's command.")
        return builds

    async def _next_finished(self) -> dict[str, Any]:
        try:
            while line := await self._events.readline():
                if line.startswith(b"data: "):
                    build: dict[str, Any] = json.loads(line.removeprefix(b"data: "))["message"]
                    return build
        except aiohttp.ClientError as gone:
            raise PeerFailed(f"Buildbot's event stream broke: {gone}.\n{self._last_words()}") from gone
        raise PeerFailed(f"Buildbot closed its event stream.\n{self._last_words()}")


def _session(http_port: int) -> aiohttp.ClientSession:
    # Buildbot calls its JSON text/plain unless it is asked for JSON.
    return aiohttp.ClientSession(f"http://127.0.0.1:{http_port}", headers={"Accept": "application/json"})


def _free_ports(n: int) -> list[int]:
    """Ports of the loopback that were free just now; held together so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [each.getsockname()[1] for each in sockets]


async def _finish(program: Path, *arguments: str, cwd: Path) -> None:
    async with _running(program, *arguments, cwd=cwd) as process:
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                code: int | str = await process.wait()
        except TimeoutError:
            code = "nothing, in time"
    if code != 0:
        raise PeerFailed(
            f"`{program.name} {arguments[0]}` ended with {code}. Delete {program.parents[1]} and run it again."
        )


@asynccontextmanager
async def _running(program: Path, *arguments: str, cwd: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child process that is ended, with all that it started, on the way out."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=cwd,
        env={"PATH": os.defpath, "HOME": str(cwd), "LANG": "C.UTF-8"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        # Away from the terminal's Ctrl-C: the worker must not report builds as lost before this side ends it.
        start_new_session=True,
    )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Asks the process to stop, then kills what is left; its children are listed while it can still be asked."""
    if process.returncode is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    for child in family:
        if child.is_running():
            child.kill()


async def measure_triggers(buildbot: Buildbot, n: int) -> list[float]:
    """Seconds of each of `n` triggers, one after another."""
    return [await buildbot.trigger() for _ in range(n)]


async def measure_builds(n: int, runs: int, *, cache: Path | None = None, pooled: bool = True) -> list[float]:
    """Wall seconds of each of `runs` runs of `n` builds, each on a fresh Buildbot, since its database grows."""
    took = []
    for _ in range(runs):
        async with Buildbot(cache=cache, pooled=pooled) as buildbot:
            took.append(await buildbot.run_builds(n))
    return took


async def _main() -> None:
    parser = argparse.ArgumentParser(description="Buildbot's own figures, without Proctor beside them.")
    parser.add_argument("--builds", type=int, default=0, help="measure this many builds, four at a time")
    parser.add_argument("--trigger", type=int, default=0, help="measure this many force requests")
    parser.add_argument("--runs", type=int, default=3, help="how often the builds are measured")
    parser.add_argument("--default-database", action="store_true", help="open the database for each query")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where Buildbot is installed")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.builds and not args.trigger:
        parser.error("Nothing to measure. Give --builds, --trigger or both.")
    pooled = not args.default_database
    report = measure.Report("buildbot")
    if args.trigger:
        async with Buildbot(cache=args.cache, pooled=pooled) as buildbot:
            seconds = await measure_triggers(buildbot, args.trigger)
        report.add("median_ms", "Buildbot, force request to step", "ms", [each * 1000 for each in seconds])
    if args.builds:
        walls = await measure_builds(args.builds, args.runs, cache=args.cache, pooled=pooled)
        report.add("wall_s", f"Buildbot, {args.builds} builds", "s", walls)
        report.add("per_build_ms", "Buildbot, each build", "ms", [wall / args.builds * 1000 for wall in walls])
    report.print(as_json=args.json)


if __name__ == "__main__":
    measure.run(_main())
