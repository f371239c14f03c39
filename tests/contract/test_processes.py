"""Real process trees, in every sandbox; each failure ends with nothing of them alive."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from proctor.errors import ToolMissing
from proctor.ports.sandbox import Bounds, BubblewrapSandbox, PlainSandbox, Sandbox
from proctor.worker.processes import Exit, run_process

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.1; done"


def alive(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PROCTOR_ATTEMPT") == mark:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def mark() -> Iterator[str]:
    mark = uuid4().hex
    yield mark
    assert alive(mark) == []


@pytest.fixture(params=["bubblewrap", "plain"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return BubblewrapSandbox("bwrap") if request.param == "bubblewrap" else PlainSandbox()


class Runner:
    """Runs shell scripts with the test's folder, sandbox and mark."""

    def __init__(self, sandbox: Sandbox, folder: Path, mark: str) -> None:
        self.sandbox, self.folder, self.mark = sandbox, folder, mark
        self.log = folder / "log"

    async def __call__(
        self, script: str, *, timeout: timedelta = MINUTE, grace: timedelta = SECOND, **limits: int
    ) -> Exit:
        return await run_process(
            ["sh", "-c", script],
            sandbox=self.sandbox,
            bounds=Bounds(self.folder, [self.folder]),
            env={"PATH": os.defpath, "PROCTOR_ATTEMPT": self.mark},
            log=self.log,
            timeout=timeout,
            grace=grace,
            **limits,
        )

    async def printed(self, text: str) -> None:
        async with asyncio.timeout(10):
            while not (self.log.exists() and text in self.log.read_text()):  # noqa: ASYNC110 - it is a file
                await asyncio.sleep(0.01)


@pytest.fixture
def run(sandbox: Sandbox, tmp_path: Path, mark: str) -> Runner:
    return Runner(sandbox, tmp_path, mark)


async def test_output_of_both_streams_is_kept_in_order_with_the_exit_code(run: Runner) -> None:
    ended = await run("echo one; echo two >&2; echo three; exit 3")
    assert (ended.exit_code, ended.timed_out) == (3, False)
    assert run.log.read_text() == "one\ntwo\nthree\n"
    assert timedelta(0) < ended.runtime < timedelta(seconds=10)


async def test_a_second_process_appends_to_the_log(run: Runner) -> None:
    await run("echo setup")
    await run("echo test")
    assert run.log.read_text() == "setup\ntest\n"


async def test_standard_input_is_empty_and_variables_are_those_given(
    run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCTOR_DATABASE_URL", "secret")
    await run("cat; env")
    names = {line.partition("=")[0] for line in run.log.read_text().splitlines()}
    assert names == {"PATH", "PROCTOR_ATTEMPT", "PROCTOR_PROCESS", "PWD"}


async def test_a_long_log_keeps_its_beginning_and_its_end(run: Runner) -> None:
    ended = await run("echo first; seq 1 200000; echo last", log_limit=100_000)
    text = run.log.read_text()
    assert ended.exit_code == 0
    assert text.startswith("first\n1\n2\n")
    assert text.endswith("200000\nlast\n")
    assert "bytes left out here" in text
    assert len(text) < 100_200


async def test_a_background_process_in_its_own_session_ends_with_the_test(run: Runner, mark: str) -> None:
    ended = await run("setsid sleep 300 >/dev/null 2>&1 & sleep 301 & exit 0")
    assert ended.exit_code == 0
    assert alive(mark) == []


async def test_a_test_that_hangs_is_asked_to_stop_and_may_clean_up(run: Runner, mark: str) -> None:
    ended = await run(
        "trap 'echo cleaned; exit 9' TERM; echo ready; while :; do sleep 0.1; done",
        timeout=timedelta(seconds=0.5),
        grace=timedelta(seconds=10),
    )
    assert (ended.timed_out, ended.exit_code) == (True, 9)
    assert "cleaned" in run.log.read_text()
    assert ended.runtime < timedelta(seconds=5)
    assert alive(mark) == []


async def test_a_test_that_will_not_stop_is_killed_with_all_it_started(run: Runner, mark: str) -> None:
    ended = await run(f'setsid sh -c "{STUBBORN}" & {STUBBORN}', timeout=timedelta(seconds=0.5), grace=SECOND / 2)
    assert ended.timed_out
    assert ended.exit_code != 0
    assert alive(mark) == []


async def test_cancellation_ends_the_tree_before_it_goes_on(run: Runner, mark: str) -> None:
    task = asyncio.create_task(run(f"setsid sleep 300 & {STUBBORN}", grace=SECOND / 2))
    await run.printed("ready")
    task.cancel()
    await asyncio.sleep(0.05)
    task.cancel()  # an impatient caller does not get ahead of the cleaning up either
    with pytest.raises(asyncio.CancelledError):
        await task
    assert alive(mark) == []


async def test_many_at_once_keep_apart(sandbox: Sandbox, tmp_path: Path, mark: str) -> None:
    async def one(number: int) -> str:
        folder = tmp_path / str(number)
        folder.mkdir()
        run = Runner(sandbox, folder, mark)
        ended = await run(f"sleep 0.1; echo {number}; exit {number}")
        return f"{ended.exit_code} {run.log.read_text().strip()}"

    assert await asyncio.gather(*(one(number) for number in range(8))) == [f"{n} {n}" for n in range(8)]


async def test_descriptors_are_not_leaked(run: Runner) -> None:
    await run("true")
    before = open_descriptors()
    for _ in range(5):
        await run("true")
    assert open_descriptors() == before


async def test_a_sandbox_that_cannot_be_started_is_a_missing_tool_and_leaks_nothing(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(ToolMissing, match="no-such-bwrap"):
        await Runner(BubblewrapSandbox("/no-such-bwrap"), tmp_path, "none")("true")
    assert open_descriptors() == before


SUPERVISOR = """
import asyncio, os, sys
from datetime import timedelta
from pathlib import Path
from proctor.ports.sandbox import Bounds, BubblewrapSandbox, PlainSandbox
from proctor.worker.processes import run_process
sandbox = BubblewrapSandbox("bwrap") if sys.argv[1] == "bubblewrap" else PlainSandbox()
folder = Path(sys.argv[2])
asyncio.run(run_process(
    sys.argv[4:], sandbox=sandbox, bounds=Bounds(folder, [folder]), log=folder / "log", timeout=timedelta(minutes=5),
    env={"PATH": os.defpath, "PROCTOR_ATTEMPT": sys.argv[3]},
))
"""


@pytest.mark.parametrize(
    ("sandbox_name", "argv"),
    [
        ("bubblewrap", ["sh", "-c", "setsid sleep 300 & sleep 301"]),
        # Without a sandbox only the process itself is promised to die with its worker, not what it started.
        ("plain", ["sleep", "300"]),
    ],
)
def test_a_worker_that_is_killed_takes_its_processes_along(
    sandbox_name: str, argv: list[str], tmp_path: Path, mark: str
) -> None:
    worker = subprocess.Popen([sys.executable, "-c", SUPERVISOR, sandbox_name, str(tmp_path), mark, *argv])
    try:
        _until(lambda: any("sleep" in psutil.Process(pid).name() for pid in alive(mark)))
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    _until(lambda: alive(mark) == [])


def _until(holds) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
