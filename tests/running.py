"""The installed command for tests: `proctor up` on a fresh data folder, called over HTTP as any client would."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

PASSWORD = "a long password"
B = "/Testinium.RestApi/api"


@dataclass(frozen=True)
class Proctor:
    """A running `proctor up`."""

    url: str
    data: Path
    process: "subprocess.Popen[str]"

    @property
    def token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def apply(self, project: dict[str, Any]) -> dict[str, Any]:
        applied: dict[str, Any] = self.call("POST", "/api/v1/apply", {"company": "Acme", "projects": [project]})
        return applied

    def start(self, plan: str, query: str = "") -> int:
        return int(self.call("GET", f"{B}/plans/{plan}/run{query}")["execution_id"])

    def finish(self, execution_id: int, timeout: float = 60) -> dict[str, Any]:
        """The execution with its jobs, once it has ended."""
        until(lambda: self.summary(execution_id)["state"] == "finished", timeout)
        execution: dict[str, Any] = self.call("GET", f"/api/v1/executions/{execution_id}")
        return execution

    def run(self, plan: str) -> dict[str, Any]:
        return self.finish(self.start(plan))

    def summary(self, execution_id: int) -> dict[str, Any]:
        summary: dict[str, Any] = self.call("GET", f"/api/v1/executions/{execution_id}/summary")
        return summary

    def ready(self) -> bool:
        try:
            return bool(self.call("GET", "/readyz")["status"] == "ready")
        except OSError:
            # Refused, reset, or 503: not yet.
            return False

    def child(self, name: str) -> psutil.Process:
        """The supervisor's child of that name: `server` or `worker`; waits for one that is being started again."""
        found: list[psutil.Process] = []

        def look() -> bool:
            children = psutil.Process(self.process.pid).children()
            found[:] = [one for one in children if one.status() != "zombie" and one.cmdline()[-1:] == [name]]
            return bool(found)

        until(look, 30)
        return found[0]

    def postmaster(self) -> psutil.Process:
        return psutil.Process(int((self.data / "postgres" / "postmaster.pid").read_text().split("\n")[0]))

    def family(self) -> list[psutil.Process]:
        """Every process of it, PostgreSQL's included, which are no children of the supervisor."""
        own, postmaster = psutil.Process(self.process.pid), self.postmaster()
        return [own, *own.children(recursive=True), postmaster, *postmaster.children()]


@contextmanager
def up(data: Path, *options: str, **variables: str) -> Iterator[Proctor]:
    """On leaving, Ctrl-C: it must end within 10 s with exit code 0 and leave no process behind."""
    proctor = start(data, *options, **variables)
    try:
        until(proctor.ready, 30)
        yield proctor
    finally:
        family = proctor.family() if proctor.process.poll() is None else []
        asked_at = time.monotonic()
        proctor.process.send_signal(signal.SIGINT)
        code = proctor.process.wait(timeout=30)
        took = time.monotonic() - asked_at
        if proctor.process.stdout:
            proctor.process.stdout.close()
    assert code == 0
    assert took < 10, f"Ctrl-C took {took:.1f} s"
    assert alive(family) == []


def start(data: Path, *options: str, **variables: str) -> Proctor:
    """Without waiting until it is ready for work, and without ending it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proctor.cli", "up", "--data", str(data), "--port", "0", "--dev", *options],
        env={**os.environ, "PROCTOR_ADMIN_PASSWORD": PASSWORD, **variables},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    greeting = process.stdout.readline()
    assert greeting.startswith("Proctor is ready at "), greeting
    return Proctor(greeting.split()[-1], data, process)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def until(true: Callable[[], object], timeout: float) -> None:
    """Waits until the condition holds; fails with its name when it never does."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout} s: {true}"
        time.sleep(0.1)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder with a short path: PostgreSQL listens on a socket in it."""
    with tempfile.TemporaryDirectory(prefix="pt-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def make_repository(folder: Path, files: dict[str, str]) -> Path:
    """A git repository with one commit on `main`."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-C", str(folder)]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "tests"]):
        subprocess.run([*git, *arguments], check=True)
    return folder
