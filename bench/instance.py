"""A Proctor of its own for a benchmark: the installed command on a fresh data folder, driven over HTTP."""

import asyncio
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import aiohttp

from bench import measure

READY_WITHIN = 60.0
B = "/Testinium.RestApi/api"


class ProctorFailed(measure.NotMeasured):
    """Proctor did not do what was to be timed."""


class Instance:
    """A running `proctor up`: `async with Instance() as proctor`. Its folder and processes are gone at the end."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proctor-bench-")))
            self.data = folder / "data"
            self.repository = folder / "repository"
            self.repository.mkdir()
            (self.repository / "README").write_text("Nothing to read: the benchmark's commands bring all they need.\n")
            self._log = stack.enter_context((folder / "up.log").open("w+"))
            self.process = await self._start(stack)
            self._http = await stack.enter_async_context(await self._open())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def apply(self, project: dict[str, Any]) -> None:
        """Makes a SERVICE project of the `command` runner."""
        fixed = {"repository": str(self.repository), "framework": "SERVICE", "runner": "command"}
        await self._call("POST", "/api/v1/apply", {"company": "Bench", "projects": [{**fixed, **project}]})

    async def run(self, plan: str) -> tuple[int, float]:
        """Runs the plan to its end; gives the execution's id and the wall seconds until that was known."""
        started = time.perf_counter()
        answer = await self._call("GET", f"{B}/plans/{plan}/run")
        if not answer["successful"]:
            raise ProctorFailed(answer["message"])
        execution_id: int = answer["execution_id"]
        after = 0
        while True:
            seen = await self._call("GET", f"/api/v1/executions/{execution_id}/summary?wait=20&after={after}")
            if seen["state"] == "finished":
                break
            after = seen["events"][-1]["sequence"] if seen["events"] else after
        took = time.perf_counter() - started
        if seen["level"] != "SUCCESS":
            raise ProctorFailed(f"Execution {execution_id} ended {seen['level']}: {seen['levels']}")
        return execution_id, took

    async def read_log(self, execution_id: int) -> str:
        """The executor log of the execution's only job."""
        execution = await self._call("GET", f"/api/v1/executions/{execution_id}")
        async with self._http.get(execution["jobs"][0]["executor_log_path"]) as response:
            return await response.text()

    async def _start(self, stack: AsyncExitStack) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proctor.cli", "up", "--data", str(self.data), "--port", "0"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
        )
        stack.push_async_callback(_end, process)
        assert process.stdout is not None
        async with asyncio.timeout(READY_WITHIN):
            while b"ready at" not in (line := await process.stdout.readline()):
                if not line:
                    self._log.seek(0)
                    raise ProctorFailed(f"proctor up did not start: {self._log.read()[-2000:]}")
        return process

    async def _open(self) -> aiohttp.ClientSession:
        token = (self.data / "admin.token").read_text()
        session = aiohttp.ClientSession(
            (self.data / "address").read_text(), headers={"Authorization": f"Bearer {token}"}
        )
        async with asyncio.timeout(READY_WITHIN):
            while True:
                async with session.get("/readyz") as response:
                    if response.status == 200:
                        return session
                await asyncio.sleep(0.1)

    async def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        async with self._http.request(method, path, json=body) as response:
            answer: dict[str, Any] = await response.json()
        if response.status != 200:
            raise ProctorFailed(f"{method} {path}: {response.status} {answer.get('detail')}")
        return answer


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()
