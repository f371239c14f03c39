"""One attempt, from its lease to its result: fence, workspace, recorder, runner, report, fenced finish."""

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from proctor.domain import wire
from proctor.domain.execution import AttemptState, Fence
from proctor.domain.verdict import Level, Outcome, Verdict
from proctor.errors import AttemptError, AttemptTimedOut, InfrastructureError
from proctor.ports.hubs import Hub
from proctor.ports.sandbox import Bounds, Sandbox
from proctor.ports.source import Credential, GitSource
from proctor.recorder.proxy import Endpoint, Recorder
from proctor.services import jobs
from proctor.services.context import Context
from proctor.services.dispatch import dispatch
from proctor.services.jobs import Result
from proctor.store import claims, executions
from proctor.store.claims import AttemptTask
from proctor.store.engine import DatabaseGone, Unstorable
from proctor.worker.processes import finish, run_process
from proctor.worker.runners import RunnerTask, find_runner, read_outcome
from proctor.worker.workspace import Checkout, Prepared, Workspaces, remove_tree

_logger = logging.getLogger(__name__)

HAND_IN_TIMEOUT = 30.0  # seconds
HAND_IN_INTERVAL = timedelta(seconds=1)
# What a test has to end by itself once it is asked to: with it a stopping worker ends before it is killed.
GRACE = timedelta(seconds=3)


@dataclass(frozen=True)
class Bench:
    """What a worker has at hand for its attempts."""

    context: Context
    worker_id: int
    hub: Hub
    recorder: Recorder
    source: GitSource
    workspaces: Workspaces
    sandbox: Sandbox
    folder: Path


@dataclass(frozen=True)
class Place:
    """The folders of one attempt, below one that goes when it ends."""

    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / wire.EXECUTOR_LOG

    @property
    def report(self) -> Path:
        return self.folder / "out" / "report"

    @property
    def home(self) -> Path:
        return self.folder / "out" / "home"

    @property
    def out(self) -> Path:
        """What the test may write to, beside its workspace."""
        return self.folder / "out"

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def recording(self) -> Path:
        return self.folder / "recording"


@dataclass
class Recording:
    """What the recorder saw, filled in while the test runs."""

    session_id: str | None = None
    machinery_failure: str | None = None

    def take(self, endpoint: Endpoint) -> None:
        self.session_id = endpoint.session_ids[-1] if endpoint.session_ids else None
        self.machinery_failure = endpoint.machinery_failure


async def run_attempt(bench: Bench, fence: Fence) -> None:
    """Runs the attempt if the fence still holds, hands its result in, and lets others have its place."""
    async with bench.context.store.begin() as tx:
        task = await claims.begin(tx, fence, bench.worker_id)
    if task is None:
        return
    place = Place(bench.folder / str(fence.attempt_id))
    recording = Recording()
    cancelled: asyncio.CancelledError | None = None
    try:
        result = await _carry_out(bench, task, place, recording)
    except asyncio.CancelledError as error:
        # Stopped, or the worker ends: what it had so far is kept all the same.
        cancelled = error
        result = Result(
            Verdict(Outcome.INFRASTRUCTURE, Level.STOPPED, "The worker was stopped."), AttemptState.CANCELLED
        )
    await finish(_hand_in(bench, task, place, recording, result))
    if cancelled is not None:
        raise cancelled


async def _carry_out(bench: Bench, task: AttemptTask, place: Place, recording: Recording) -> Result:
    """The result of the attempt; every way in which it can break is one."""
    for folder in (place.report, place.home, place.recording):
        folder.mkdir(parents=True)
    try:
        return await _run(bench, task, place, recording)
    except AttemptError as error:
        verdict = Verdict(Outcome.BROKEN, Level.ERROR, error.detail)
    except InfrastructureError as error:
        verdict = Verdict(Outcome.INFRASTRUCTURE, Level.ERROR, error.detail)
    except ChildProcessError as error:
        verdict = Verdict(Outcome.INFRASTRUCTURE, Level.ERROR, f"A process of the test could not be ended: {error}.")
    _append(place.log, verdict.message or "")
    return Result(verdict)


async def _run(bench: Bench, task: AttemptTask, place: Place, recording: Recording) -> Result:
    runner = find_runner(task.runner)
    checkout = await _check_out(bench, task)
    prepared = await _prepare(bench, checkout, place)
    async with bench.workspaces.workspace(prepared, place.workspace) as workspace:
        asked = RunnerTask(
            task.source, task.selector or None, task.command or None, place.report, workspace, prepared.venv
        )
        argv = runner.argv(asked)
        async with _record(bench, task, place, recording) as variables:
            ended = await run_process(
                argv,
                sandbox=bench.sandbox,
                bounds=_bounds(bench, prepared, place, workspace),
                env={**prepared.variables(os.environ), **task.parameters, **_variables(task, place), **variables},
                log=place.log,
                timeout=task.timeout,
                grace=GRACE,
            )
        if ended.timed_out:
            raise _timed_out(task, recording)
        if not await _start_reporting(bench, task.fence):
            raise InfrastructureError("The attempt was given to somebody else.")
        reading = await asyncio.to_thread(read_outcome, runner, asked, ended.exit_code, place.log)
    verdict = _blame(reading.verdict, recording)
    return Result(verdict, cases=reading.cases)


async def _check_out(bench: Bench, task: AttemptTask) -> Checkout:
    """The commit that the whole execution uses: the first attempt that asks settles it."""
    credential = Credential(**task.credential) if task.credential else None
    commit = task.commit
    if commit is None:
        # Only an administrator can have named a folder of the server: `apply` sees to that.
        commit = await bench.source.resolve(task.repository, task.branch, credential, allow_local=True)
        async with bench.context.store.begin() as tx:
            commit = await executions.set_commit(tx, task.execution_id, commit)
    return Checkout(
        task.company_id, task.repository, task.branch, commit, task.setup or None, credential, allow_local=True
    )


async def _prepare(bench: Bench, checkout: Checkout, place: Place) -> Prepared:
    try:
        return await bench.workspaces.prepare(checkout)
    except AttemptError:
        setup_log = bench.workspaces.setup_log(checkout)
        if setup_log.exists():
            shutil.copyfile(setup_log, place.log)
        raise


@asynccontextmanager
async def _record(bench: Bench, task: AttemptTask, place: Place, recording: Recording) -> AsyncIterator[dict[str, str]]:
    """The recorder's endpoint for the attempt, as the variables that tests read; none without an environment."""
    if task.environment is None:
        yield {}
        return
    async with bench.recorder.endpoint(hub=bench.hub, environment=task.environment, folder=place.recording) as endpoint:
        try:
            yield _endpoint_variables(endpoint.url, task.environment.browser)
        finally:
            recording.take(endpoint)


def _endpoint_variables(url: str, browser: str) -> dict[str, str]:
    address = urlsplit(url)
    return {
        "SELENIUM_REMOTE_URL": url,
        "REMOTE_WEBDRIVER_URL": url,
        "SELENIUM_HOST": address.hostname or "",
        "SELENIUM_PORT": str(address.port),
        "PROCTOR_BROWSER": browser,
    }


def _variables(task: AttemptTask, place: Place) -> dict[str, str]:
    key = wire.test_key(task)
    return {
        "HOME": str(place.home),
        # The same in every attempt of the job; the endpoint's secret is in its URL.
        "PROCTOR_KEY": key,
        "TESTINIUM_KEY": key,
        "key": key,
        "PROCTOR_REPORT_DIR": str(place.report),
        "PROCTOR_ATTEMPT_NUMBER": str(task.number),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _bounds(bench: Bench, prepared: Prepared, place: Place, workspace: Path) -> Bounds:
    return Bounds(
        cwd=workspace,
        writable=[workspace, place.out],
        # All of it: a set-up may install the project's own tree in place (`uv pip install -e .`).
        readable=[prepared.folder],
        hidden=[bench.context.settings.data],
    )


async def _start_reporting(bench: Bench, fence: Fence) -> bool:
    async with bench.context.store.begin() as tx:
        return await claims.set_reporting(tx, fence)


def _timed_out(task: AttemptTask, recording: Recording) -> AttemptError:
    seconds = int(task.timeout.total_seconds())
    at = " with its browser session open" if recording.session_id else ""
    return AttemptTimedOut(
        f"The test ran past its timeout of {seconds} s{at} and was ended. See where it hangs in the executor log "
        "and the last commands, or raise the plan's timeout."
    )


def _blame(verdict: Verdict, recording: Recording) -> Verdict:
    """A test that did not pass while its browser's machinery died did not fail: it is tried again elsewhere."""
    if recording.machinery_failure and verdict.outcome is not Outcome.PASSED:
        return replace(verdict, outcome=Outcome.INFRASTRUCTURE, level=Level.ERROR, message=recording.machinery_failure)
    return verdict


async def _hand_in(bench: Bench, task: AttemptTask, place: Place, recording: Recording, result: Result) -> None:
    artifacts = await _keep(bench, task, place, result.verdict)
    result = replace(result, session_id=recording.session_id, artifacts=artifacts)
    try:
        level = await _finish_storable(bench, task.fence, result)
    finally:
        await asyncio.to_thread(remove_tree, place.folder)
    if level is None:
        _logger.warning("attempt %s lost its fence: its result is not taken", task.fence.attempt_id)
    await dispatch(bench.context)


async def _finish_storable(bench: Bench, fence: Fence, result: Result) -> Level | None:
    """As `_finish`; a report that no column takes breaks its own job, and does not look like a lost worker."""
    try:
        return await _finish(bench, fence, result)
    except (Unstorable, UnicodeError) as error:
        _logger.exception("the result of attempt %s could not be stored", fence.attempt_id, exc_info=error)
        message = "The test's report has values that cannot be stored; see the executor log and the report's XML."
        return await _finish(
            bench, fence, replace(result, verdict=Verdict(Outcome.BROKEN, Level.ERROR, message), cases=())
        )


async def _finish(bench: Bench, fence: Fence, result: Result) -> Level | None:
    """Hands the result in; while the database is away, again, for half a lease. The fence makes repeating safe."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + HAND_IN_TIMEOUT
    while True:
        try:
            async with bench.context.store.begin() as tx:
                return await jobs.finish_attempt(tx, bench.context.queue, fence, result)
        except DatabaseGone as error:
            if loop.time() > give_up_at:
                raise
            _logger.warning("the result of attempt %s could not be handed in yet: %s", fence.attempt_id, error)
            await bench.context.clock.sleep(HAND_IN_INTERVAL)


async def _keep(bench: Bench, task: AttemptTask, place: Place, verdict: Verdict) -> Mapping[str, int]:
    """Stores what the attempt left; gives the size of each."""
    found: dict[str, int] = {}
    for name, file in _files(task, place, verdict):
        # Nothing but a plain file: what test code could reach may be a link to anything.
        if not file.is_symlink() and file.is_file() and file.stat().st_size > 0:
            found[name] = await bench.context.artifacts.put(task.execution_id, task.fence.attempt_id, name, file)
    return found


def _files(task: AttemptTask, place: Place, verdict: Verdict) -> list[tuple[str, Path]]:
    files = [(wire.EXECUTOR_LOG, place.log)]
    if task.environment is not None:
        files += [(name, place.recording / name) for name in (wire.NODE_LOG, wire.COMMANDS)]
        failed = verdict.outcome is not Outcome.PASSED
        if task.screenshots == "YES" or (task.screenshots == "ONLY_FAILURE" and failed):
            files.append((wire.SCREEN, place.recording / wire.SCREEN))
    return files


def _append(log: Path, message: str) -> None:
    with log.open("a") as file:
        file.write(f"\n[proctor] {message}\n")
