"""`proctor demo`: a whole installation on a temporary folder, and a client of it that shows what happens."""

import asyncio
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

import proctor
from proctor.cli.apply import open_manifest, prepare
from proctor.cli.client import Access, ExitCode, ServerBroken, open_client
from proctor.cli.execution import Execution, judge, read_execution
from proctor.cli.progress import open_progress
from proctor.cli.receiver import Callbacks, open_receiver
from proctor.cli.run import Wish, judge_start, start
from proctor.cli.watch import Watch, show_summary
from proctor.errors import ProctorError, UsageError
from proctor.settings import Settings

PLAN: Final = "smoke"
# The shop has a bug on purpose; this scenario finds it.
EXPECTED_TO_FAIL: Final = "takes the discount off the goods only"

START_TIMEOUT = timedelta(seconds=60)
# `up` ends within 10 s by itself.
STOP_TIMEOUT = timedelta(seconds=20)
CALLBACKS_TIMEOUT = timedelta(seconds=30)
TAIL = 30  # lines
# Of the caller's settings only those that cannot lead the demo to a database or folder of his.
_KEPT_SETTINGS = {"PROCTOR_SANDBOX", "PROCTOR_LOCAL_SLOTS", "PROCTOR_CONCURRENCY", "PROCTOR_LOG_LEVEL"}
# The same commit each time, whoever runs it and however his git is set up.
_GIT_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "Proctor",
    "GIT_AUTHOR_EMAIL": "demo@proctor.invalid",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "Proctor",
    "GIT_COMMITTER_EMAIL": "demo@proctor.invalid",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


class DemoFailed(ProctorError):
    """The demo failed"""

    code = "demo_failed"
    exit_code = ExitCode.MACHINERY_FAILED


@dataclass(frozen=True)
class Stage:
    """The demo's folder, and the passwords that it made up."""

    folder: Path
    admin_password: str
    ci_password: str

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "up.log"


@dataclass(frozen=True)
class Told:
    """What came of the plan: the execution, and the callbacks that told of it."""

    execution: Execution
    callbacks: Callbacks


def run_demo(port: int, *, keep: bool) -> ExitCode:
    return asyncio.run(_until_signalled(_demo(port, keep=keep)))


async def _until_signalled(work: Any) -> ExitCode:
    """Cancels the work at the first signal; later ones do not disturb its cleaning up, which is bounded."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _cancel_once(task))
    try:
        code: ExitCode = await task
    except asyncio.CancelledError:
        click.echo("\nproctor: the demo was interrupted; it has ended all that it started.", err=True)
        return ExitCode.INTERRUPTED
    return code


def _cancel_once(task: asyncio.Task[ExitCode]) -> Callable[[], None]:
    def cancel() -> None:
        if not task.cancelling():
            task.cancel()

    return cancel


async def _demo(port: int, *, keep: bool) -> ExitCode:
    example = find_example()
    say = Steps(asyncio.get_running_loop().time)
    with tempfile.TemporaryDirectory(prefix="proctor-demo-") as name:
        stage = Stage(Path(name), secrets.token_urlsafe(9), secrets.token_urlsafe(12))
        repository = await make_repository(example, stage.folder / "shop")
        say(f"A git repository was made from {example.name}'s folder, with a shop to test and its tests")
        with _explained(stage.log):
            async with _serve_shop(example) as shop_url, _run_up(stage, port) as url:
                say(f"The shop is open at {shop_url}, and Proctor runs at {url}")
                token = (stage.data / "admin.token").read_text().strip()
                variables = {
                    "SHOP_REPOSITORY": str(repository),
                    "SHOP_URL": shop_url,
                    "CI_PASSWORD": stage.ci_password,
                }
                secret = await _apply(Access(url, token), example / "proctor.yaml", variables, say)
                told = await _play(url, stage, secret, say)
                code = _conclude(told)
                if keep:
                    await _keep_open(url, stage, told.execution)
        say("Ending what was started")
    click.echo(_last_words(told, code, keep=keep))
    return code


class Steps:
    """Says what was done, each with the seconds since the start."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._began = time()

    def __call__(self, text: str) -> None:
        click.echo(f"{self._time() - self._began:5.1f} s  {text}", err=True)


# --- the scene -------------------------------------------------------------------------------------------------------


def find_example() -> Path:
    """`examples/shop`, of the installed package or of the source checkout; raises UsageError."""
    package = Path(proctor.__file__).parent
    for root in (package, package.parents[1]):
        if (root / "examples" / "shop" / "proctor.yaml").is_file():
            return root / "examples" / "shop"
    raise UsageError(
        "The demo's shop is not here: this installation came without `examples/shop`. Install Proctor from a clone of "
        "its repository, as its README says, and run the demo there."
    )


async def make_repository(source: Path, target: Path) -> Path:
    """A git repository with one commit of the folder, always the same."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache", ".git", ".venv"))
    await _git(target, "init", "--quiet", "--initial-branch=main")
    await _git(target, "add", "--all", "--force")
    await _git(target, "commit", "--quiet", "--message=A tea shop and its tests")
    return target


async def _git(folder: Path, *arguments: str) -> None:
    # A GIT_DIR of the caller's, as in a hook, would lead elsewhere.
    own = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    try:
        process = await asyncio.create_subprocess_exec(
            "git", *arguments, cwd=folder, env={**own, **_GIT_ENVIRONMENT}, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        raise DemoFailed("git is not installed. Install it, as in `apt-get install git`.") from None
    _, said = await process.communicate()
    if process.returncode:
        raise DemoFailed(f"git {arguments[0]} failed: {said.decode(errors='replace').strip()}. Run `proctor doctor`.")


@asynccontextmanager
async def _serve_shop(example: Path) -> AsyncIterator[str]:
    """Runs the shop; gives its address."""
    command = [sys.executable, "-m", "shop.server", "--port", "0"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    async with _child(command, cwd=example, env=environment) as shop:
        yield await _read_address(shop, "The shop is open at ", "the shop")


@asynccontextmanager
async def _run_up(stage: Stage, port: int) -> AsyncIterator[str]:
    """Runs `proctor up` on the stage's data folder; gives its address once it is ready for work."""
    command = [sys.executable, "-m", "proctor.cli", "up", "--data", str(stage.data), "--port", str(port), "--dev"]
    environment = {
        **{name: text for name, text in os.environ.items() if _passes_on(name)},
        "PROCTOR_ADMIN_PASSWORD": stage.admin_password,
    }
    with stage.log.open("ab") as log:
        async with _child(command, env=environment, stderr=log) as up:
            url = await _read_address(up, "Proctor is ready at ", "`proctor up`")
            await _until_ready(url)
            yield url


def _passes_on(name: str) -> bool:
    return not name.startswith("PROCTOR_") or name in _KEPT_SETTINGS


@asynccontextmanager
async def _child(command: list[str], **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that ends with the demo, also after a `kill -9` of it where there is setpriv."""
    setpriv = shutil.which("setpriv")
    prefix = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C reaches the demo alone, which ends its children in order.
        start_new_session=True,
        **options,
    )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT.total_seconds()):
            # To the end of its output, so that the pipe closes with the process.
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _read_address(process: asyncio.subprocess.Process, prefix: str, who: str) -> str:
    """The address that the process prints once it listens."""
    assert process.stdout is not None  # noqa: S101 (it was asked for)
    try:
        async with asyncio.timeout(START_TIMEOUT.total_seconds()):
            async for line in process.stdout:
                text = line.decode(errors="replace").strip()
                if text.startswith(prefix):
                    return text.removeprefix(prefix)
    except TimeoutError:
        raise DemoFailed(f"{who} did not start within {START_TIMEOUT.total_seconds():g} s.") from None
    raise DemoFailed(f"{who} ended before it was ready, with exit code {await process.wait()}.")


async def _until_ready(url: str) -> None:
    """Waits for the worker, which starts beside the server and says what browsers there are."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_TIMEOUT.total_seconds()
    async with open_client(Access(url, "")) as client:
        while True:
            try:
                await client.readiness()
            except ServerBroken as error:
                if loop.time() > deadline:
                    raise DemoFailed(f"Proctor did not become ready for work: {error.detail}") from error
                await asyncio.sleep(0.1)
            else:
                return


@contextmanager
def _explained(log: Path) -> Iterator[None]:
    """Shows the end of `up`'s log when something fails, for it goes with the folder."""
    try:
        yield
    except ProctorError as error:
        with log.open(errors="replace") as file:
            tail = deque(file, maxlen=TAIL)
        click.echo(f"\nThe last lines of the log of `proctor up`:\n{''.join(tail) or '(nothing)'}", err=True)
        raise DemoFailed(error.detail) from error


# --- the play --------------------------------------------------------------------------------------------------------


async def _apply(access: Access, file: Path, variables: Mapping[str, str], say: Steps) -> str:
    """Applies the shop's manifest; gives the secret that callbacks are signed with."""
    async with open_client(access) as client:
        answer = await client.apply(prepare(open_manifest(str(file)), variables))
    say(f"Applied {file.name}: {len(answer['created'])} things were created")
    return str(answer["callback_secret"])


async def _play(url: str, stage: Stage, secret: str, say: Steps) -> Told:
    """Signs in as the user `ci`, starts the plan as a pipeline would, and follows it by callbacks and by asking."""
    settings = Settings()
    async with open_receiver(secret) as receiver:
        async with open_client(Access(url, "")) as client:
            token = await client.sign_in("ci", stage.ci_password, (settings.client_id, settings.client_secret))
        say("Signed in as the user ci")
        async with open_client(Access(url, token)) as client:
            answer = await start(client, Wish(PLAN, callback_url=receiver.url))
            if judge_start(answer) is not ExitCode.PASSED:
                reasons = [str(one["detail"]) for one in answer["unavailable_env_list"]]
                raise DemoFailed(" ".join([answer["message"], *reasons, "Run `proctor doctor`."]))
            say(f"GET /Testinium.RestApi/api/plans/{PLAN}/run?callbackUrl={receiver.url}: {answer['message']}")
            with open_progress(tell_jobs=False) as progress:
                document = await Watch(client, int(answer["execution_id"]), progress).follow()
                await receiver.wait_for_end(CALLBACKS_TIMEOUT)
        return Told(read_execution(document), receiver.callbacks)


def _conclude(told: Told) -> ExitCode:
    """Shows the verdict; the exit code is that of `run --wait`, unless the callbacks were not as they must be."""
    click.echo()
    show_summary(told.execution)
    wrong = told.callbacks.find_wrong()
    if wrong:
        raise DemoFailed(f"The callbacks were not as they must be: {'; '.join(wrong)}.")
    click.echo(f"\n{len(told.callbacks.received)} callbacks arrived, in order, each with a right signature.")
    return judge(told.execution)


async def _keep_open(url: str, stage: Stage, execution: Execution) -> None:
    """Says where to look, and waits for Ctrl-C."""
    header = f'-H "Authorization: Bearer $(cat {stage.data}/admin.token)"'
    failed = next((job for job in execution.jobs if job.failed), execution.jobs[0])
    click.echo(
        f"\nIt all runs until you press Ctrl-C. Look at it:\n"
        f"  {execution.url}   sign in as admin with the password {stage.admin_password}\n"
        f"  curl {header} {url}/api/v1/executions/{execution.id}\n"
        f"  curl {header} {url}/Testinium.RestApi/api/testResults/{failed.id}\n"
        f"  curl {header} {url}/Testinium.RestApi/api/plans/{PLAN}/run\n"
        f"  proctor run {PLAN} --wait --data {stage.data}"
    )
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        # This is how it is meant to end: the verdict stays the exit code.
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (it runs)
        task.uncancel()


def _last_words(told: Told, code: ExitCode, *, keep: bool) -> str:
    gone = "\nAll of it is gone again; `proctor demo --keep` leaves it running, with its pages and API to look at."
    failed = [job.scenario_name for job in told.execution.jobs if job.failed]
    verdict = f"which is not as expected: only {EXPECTED_TO_FAIL!r} should fail"
    if failed == [EXPECTED_TO_FAIL]:
        verdict = f"as expected: the shop has a bug on purpose, and {EXPECTED_TO_FAIL!r} found it"
    return f"{'' if keep else gone}\nExit code {int(code)}, {verdict}."
