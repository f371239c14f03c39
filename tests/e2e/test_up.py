"""`proctor up`: what dies is started again, what ends leaves nothing, what was kept is there again."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from running import Proctor, alive, make_repository, short_folder, start, until, up

HANG = "sleep 600"
PASS = 'echo \'<testsuite><testcase name="t" classname="c"/></testsuite>\' > $PROCTOR_REPORT_DIR/r.xml'


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def project(folder: Path, command: str) -> dict[str, object]:
    return {
        "name": "service",
        "repository": str(make_repository(folder / "repository", {"README": "tests"})),
        "framework": "SERVICE",
        "runner": "command",
        "command": command,
        "scenarios": [{"name": "only"}],
        "plans": [{"name": "plan"}],
    }


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def test_a_second_up_on_the_same_folder_says_so_and_exits(folder: Path) -> None:
    with up(folder / "data") as proctor:
        command = [sys.executable, "-m", "proctor.cli", "up", "--data", str(proctor.data), "--port", "0"]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 4
        assert f"already running on {proctor.data} ({proctor.url})" in second.stderr
        assert proctor.ready()


def test_a_taken_port_is_said_with_what_to_do(folder: Path) -> None:
    with up(folder / "data") as proctor:
        port = proctor.url.rpartition(":")[2]
        command = [sys.executable, "-m", "proctor.cli", "up", "--data", str(folder / "other"), "--port", port]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 4
        assert "Choose another --port" in second.stderr


def test_a_killed_server_is_started_again_and_refuses_nobody(folder: Path) -> None:
    with up(folder / "data") as proctor:
        kill(proctor.child("server"))
        # The supervisor holds the listening socket: this call waits for the next server.
        assert proctor.call("GET", "/healthz") == {"status": "alive"}


def test_what_a_killed_worker_ran_is_run_again_and_spends_no_retry(folder: Path) -> None:
    command = f"[ $PROCTOR_ATTEMPT_NUMBER = 1 ] && {HANG}; {PASS}"
    with up(folder / "data") as proctor:
        proctor.apply(project(folder, command))
        execution_id = proctor.start("plan")
        until(lambda: proctor.summary(execution_id)["counts"]["running"] == 1, 20)
        worker = proctor.child("worker")
        until(lambda: len(worker.children(recursive=True)) > 0, 20)
        tests = worker.children(recursive=True)
        kill(worker)
        until(lambda: alive(tests) == [], 5)
        execution = proctor.finish(execution_id, timeout=100)
        (job,) = execution["jobs"]
        assert [attempt["state"] for attempt in job["attempts"]] == ["lost", "done"]
        assert job["level"] == "SUCCESS"


def test_killed_postgres_is_started_again_and_the_plan_ends(folder: Path) -> None:
    with up(folder / "data") as proctor:
        proctor.apply(project(folder, PASS))
        kill(proctor.postmaster())
        until(proctor.ready, 60)
        assert proctor.run("plan")["level"] == "SUCCESS"


def test_ctrl_c_in_the_middle_of_a_test_leaves_nothing(folder: Path) -> None:
    with up(folder / "data") as proctor:
        proctor.apply(project(folder, HANG))
        execution_id = proctor.start("plan")
        worker = proctor.child("worker")
        until(lambda: proctor.summary(execution_id)["counts"]["running"] == 1, 20)
        until(lambda: len(worker.children(recursive=True)) > 0, 20)
    assert list((folder / "data" / "work" / "attempts").iterdir()) == []


def test_what_was_kept_is_there_after_a_restart_and_what_ran_ends(folder: Path) -> None:
    with up(folder / "data") as proctor:
        proctor.apply(project(folder, f"[ $PROCTOR_ATTEMPT_NUMBER = 1 ] && {HANG}; {PASS}"))
        execution_id = proctor.start("plan")
        until(lambda: proctor.summary(execution_id)["counts"]["running"] == 1, 20)
    with up(folder / "data") as proctor:
        assert proctor.finish(execution_id)["level"] == "SUCCESS"


def test_a_killed_supervisor_takes_its_children_along_and_the_next_up_works(folder: Path) -> None:
    proctor: Proctor = start(folder / "data")
    children = psutil.Process(proctor.process.pid).children(recursive=True)
    proctor.process.kill()
    proctor.process.wait()
    if proctor.process.stdout:
        proctor.process.stdout.close()
    until(lambda: alive(children) == [], 10)
    with up(folder / "data") as again:
        assert again.ready()
