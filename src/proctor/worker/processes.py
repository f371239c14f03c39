"""Runs one process tree to its end: what it prints kept, its time limited, nothing of it left behind."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import psutil

from proctor.clock import SystemClock
from proctor.errors import ToolMissing
from proctor.ports.sandbox import Bounds, Sandbox

LOG_LIMIT = 20 * 1024 * 1024  # bytes
TAIL_LIMIT = 256 * 1024  # bytes of the end of a log that is cut: the end is where the error is
GRACE = timedelta(seconds=5)
MARKER = "PROCTOR_PROCESS"  # by this variable, new for each run, a plain sandbox's strays are found
CHUNK = 256 * 1024
KILLED_DIES_WITHIN = 5.0  # seconds; only a process stuck in the kernel takes longer

T = TypeVar("T")


@dataclass(frozen=True)
class Exit:
    """How a process ended; `exit_code` is negative, or 128 and more from a sandbox, when a signal ended it."""

    exit_code: int
    timed_out: bool
    started_at: datetime
    runtime: timedelta


async def run_process(
    argv: Sequence[str],
    *,
    sandbox: Sandbox,
    bounds: Bounds,
    env: Mapping[str, str],
    log: Path,
    timeout: timedelta,
    log_limit: int = LOG_LIMIT,
    grace: timedelta = GRACE,
) -> Exit:
    """Runs it with `env` and a mark of its own; stdout and stderr go to the end of `log`, at most `log_limit` bytes.

    When the timeout is over, or on cancellation, the tree is asked to stop, and killed after `grace`. Nothing that it
    started is alive when this returns or raises. Raises ToolMissing when not even the sandbox can be started; a program
    that does not exist in the sandbox shows in its exit code and the log.
    """
    clock = SystemClock()
    started_at, loop = clock.now(), asyncio.get_running_loop()
    began = loop.time()
    tree = _Tree(argv, sandbox, bounds, env, _Log(log, log_limit))
    ended = False
    try:
        ended = await tree.wait(timeout)
    finally:
        exit_code = await finish(tree.end(grace))
    return Exit(exit_code, not ended, started_at, timedelta(seconds=loop.time() - began))


async def finish(work: Coroutine[object, object, T]) -> T:
    """Does the work to its end even when the caller is cancelled, who hears of the cancellation only then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not task.cancelled():
        raise cancelled
    return task.result()


class _Log:
    """Writes to a file up to a limit; of what comes later it keeps the end, which `close` appends."""

    def __init__(self, path: Path, limit: int) -> None:
        self._file = path.open("ab", buffering=0)
        self._keep = min(TAIL_LIMIT, limit // 2)
        self._room = limit - self._keep
        self._tail = bytearray()
        self._dropped = 0

    def write(self, chunk: bytes) -> None:
        head, rest = chunk[: self._room], chunk[self._room :]
        if head:
            self._file.write(head)
            self._room -= len(head)
        if rest:
            self._tail += rest
            excess = max(0, len(self._tail) - self._keep)
            del self._tail[:excess]
            self._dropped += excess

    def close(self) -> None:
        if self._dropped:
            self._file.write(f"\n[proctor: {self._dropped} bytes left out here, the log was too long]\n".encode())
        self._file.write(self._tail)
        self._file.close()


class _Tree:
    """A started process with all that it starts.

    asyncio's own subprocesses cost a thread or a child watcher, transports and protocols; a pidfd and a pipe do.
    """

    def __init__(
        self, argv: Sequence[str], sandbox: Sandbox, bounds: Bounds, env: Mapping[str, str], log: _Log
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = log
        self._contained = sandbox.contained
        self._mark = uuid4().hex
        self._exited: asyncio.Future[None] = self._loop.create_future()
        with contextlib.ExitStack() as undo:
            undo.callback(log.close)
            self._output, output = _pipe(undo)
            self._status, status = _pipe(undo)
            command = sandbox.command(argv, bounds, status=status if self._contained else None)
            self._process = _launch(command, {**env, MARKER: self._mark}, bounds, output, status)
            os.close(output)
            os.close(status)
            undo.pop_all()
        os.set_blocking(self._output, False)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._output, self._copy)
        self._loop.add_reader(self._pidfd, self._exit)

    async def wait(self, timeout: timedelta) -> bool:
        """True when the process has ended by then; what it left in the background may not have."""
        done, _ = await asyncio.wait([self._exited], timeout=timeout.total_seconds())
        return bool(done)

    async def end(self, grace: timedelta) -> int:
        """Ends what is alive and returns the exit code."""
        try:
            if not self._exited.done():
                self._ask()
                await self.wait(grace)
            if not self._exited.done():
                self._process.kill()
            await self._exited
            return self._process.wait()
        finally:
            await self._sweep()
            self._close()

    def _ask(self) -> None:
        if not self._contained:
            os.killpg(self._process.pid, signal.SIGTERM)
            return
        # The sandbox's own process must not hear it: its death would kill at once what is to be asked.
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.terminate()

    async def _sweep(self) -> None:
        if not self._contained:
            await asyncio.to_thread(_kill_marked, f"{MARKER}={self._mark}".encode())
            return
        # The sandbox's first process ends only after the kernel has killed all others in it.
        first = _child_pid(self._status)
        if first is not None and not await asyncio.to_thread(_await_death, first):
            raise ChildProcessError(f"Process {first} was killed and has not ended: it is stuck in the kernel.")

    def _copy(self) -> None:
        try:
            chunk = os.read(self._output, CHUNK)
        except BlockingIOError:
            return
        if chunk:
            self._log.write(chunk)
        else:
            self._loop.remove_reader(self._output)

    def _exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._exited.set_result(None)

    def _close(self) -> None:
        self._loop.remove_reader(self._output)
        self._loop.remove_reader(self._pidfd)
        with contextlib.suppress(BlockingIOError):  # a process stuck in the kernel may still hold the other end
            while chunk := os.read(self._output, CHUNK):
                self._log.write(chunk)
        self._log.close()
        for descriptor in (self._output, self._status, self._pidfd):
            os.close(descriptor)


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    undo.callback(os.close, reader)
    undo.callback(os.close, writer)
    return reader, writer


def _launch(
    command: list[str], env: Mapping[str, str], bounds: Bounds, output: int, status: int
) -> subprocess.Popen[bytes]:
    # In the event loop's thread on purpose: a sandbox dies with the *thread* that started it.
    try:
        return subprocess.Popen(
            command,
            cwd=bounds.cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[status],
        )
    except (FileNotFoundError, PermissionError) as error:
        raise ToolMissing(
            f"{error.filename} cannot be started: {error.strerror}. Install it on the worker, or correct the command."
        ) from error


def _child_pid(status: int) -> int | None:
    """From what bwrap wrote; None when it failed before it had a child."""
    said = os.read(status, 4096)
    return int(json.loads(said)["child-pid"]) if said else None


def _await_death(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], KILLED_DIES_WITHIN)[0])
    finally:
        os.close(descriptor)


def _kill_marked(mark: bytes) -> None:
    """Kills every process whose environment has the mark, until a look finds none: one may fork while we look."""
    while pids := list(_marked(mark)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not all(_await_death(pid) for pid in pids):
            raise ChildProcessError(f"One of the processes {pids} was killed and has not ended.")


def _marked(mark: bytes) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            # Gone meanwhile, or another user's.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)
