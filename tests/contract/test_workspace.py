"""Real checkouts, set-ups and attempts in the real sandbox."""

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from proctor.domain.verdict import Level, Outcome
from proctor.errors import NothingSelected, SetupFailed, ToolMissing
from proctor.ports.sandbox import Bounds, BubblewrapSandbox
from proctor.ports.source import GitSource
from proctor.worker import workspace as workspace_module
from proctor.worker.processes import run_process
from proctor.worker.runners import Reading, RunnerTask, find_runner, read_outcome
from proctor.worker.workspace import Checkout, Prepared, Workspaces

TESTS = """
import pytest
def test_pays(): assert True
def test_fails(): assert 1 == 2, "the sum is wrong"
@pytest.fixture
def till(): raise RuntimeError("the till is stuck")
def test_breaks(till): pass
@pytest.mark.skip(reason="no card reader")
def test_skips(): pass
@pytest.mark.parametrize("card", ["my visa"])
def test_card(card): assert card == "my visa"
"""


# A folder without rights, and one deeper than Python can recurse.
MESS = """
mkdir sealed && touch sealed/file && chmod 0 sealed
i=0; while [ $i -lt 1500 ]; do mkdir d; cd d || exit; i=$((i+1)); done
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "test_shop.py").write_text(TESTS)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "key").write_text("k3y-of-the-database")
    return tmp_path / "data"


def make(data: Path) -> Workspaces:
    source = GitSource(data / "git")
    return Workspaces(data / "workspaces", source, BubblewrapSandbox("bwrap"), hidden=[data])


@pytest.fixture
def workspaces(data: Path) -> Workspaces:
    return make(data)


async def checkout(data: Path, project: Path, setup: str | None = None) -> Checkout:
    commit = await GitSource(data / "git").resolve(str(project), "main", allow_local=True)
    return Checkout(1, str(project), "main", commit, setup, allow_local=True)


async def test_a_project_without_setup_gets_its_tree_and_no_virtual_environment(
    workspaces: Workspaces, data: Path, project: Path
) -> None:
    prepared = await workspaces.prepare(await checkout(data, project))
    assert (prepared.tree / "test_shop.py").read_text() == TESTS
    assert prepared.venv is None


async def test_the_setup_finds_the_virtual_environment_and_uv(
    workspaces: Workspaces, data: Path, project: Path
) -> None:
    setup = 'uv --version && test "$(command -v python)" = "$VIRTUAL_ENV/bin/python" && pwd && touch made'
    wanted = await checkout(data, project, setup)
    prepared = await workspaces.prepare(wanted)
    assert str(prepared.tree) in workspaces.setup_log(wanted).read_text()
    assert (prepared.tree / "made").exists()
    assert prepared.variables({"PATH": "/bin", "HOME": "/root", "PROCTOR_X": "1"}) == {
        "PATH": f"{prepared.venv}/bin:/bin",
        "VIRTUAL_ENV": str(prepared.venv),
    }


async def test_the_setup_sees_no_secret_of_the_worker(
    workspaces: Workspaces, data: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCTOR_DATABASE_URL", "k3y-of-the-database")
    monkeypatch.setenv("npm_config_registry", "kept")
    wanted = await checkout(data, project, f"env; cat {data}/key; ls {data} {data}/workspaces/prepared; true")
    await workspaces.prepare(wanted)
    said = workspaces.setup_log(wanted).read_text()
    assert "k3y-of-the-database" not in said
    assert "npm_config_registry=kept" in said
    assert not {"git", "key"} & set(said.split())


async def test_the_setup_runs_once_for_all_who_ask_at_the_same_time(data: Path, project: Path) -> None:
    wanted = await checkout(data, project, "echo ran >> ${UV_CACHE_DIR%/uv}/runs; sleep 0.2")
    workers = [make(data) for _ in range(3)]
    await asyncio.gather(*(workers[number % 3].prepare(wanted) for number in range(12)))
    (runs,) = data.glob("workspaces/cache/*/runs")
    assert runs.read_text() == "ran\n"


async def test_jobs_that_waited_for_the_setup_do_not_wait_for_each_others_attempts(data: Path, project: Path) -> None:
    wanted = await checkout(data, project, "sleep 0.2")
    together = asyncio.Barrier(4)

    async def job(number: int) -> None:
        workspaces = make(data)
        prepared = await workspaces.prepare(wanted)
        async with workspaces.workspace(prepared, data / "runs" / str(number)), asyncio.timeout(10):
            await together.wait()

    await asyncio.gather(*(job(number) for number in range(4)))


async def test_another_commit_and_another_setup_are_prepared_anew(
    workspaces: Workspaces, data: Path, project: Path
) -> None:
    first = await workspaces.prepare(await checkout(data, project))
    second = await workspaces.prepare(await checkout(data, project, "true"))
    (project / "test_new.py").write_text("")
    third = await workspaces.prepare(await checkout(data, project))
    assert len({first.folder, second.folder, third.folder}) == 3


async def test_a_setup_that_fails_says_how_and_is_not_run_again_for_the_next_job(
    workspaces: Workspaces, data: Path, project: Path
) -> None:
    wanted = await checkout(data, project, "echo ran >> ${UV_CACHE_DIR%/uv}/runs; echo no such package >&2; exit 7")
    for _ in range(3):
        with pytest.raises(SetupFailed) as caught:
            await workspaces.prepare(wanted)
        assert "exit code 7: no such package" in caught.value.detail
    (runs,) = data.glob("workspaces/cache/*/runs")
    assert runs.read_text() == "ran\n"
    assert "no such package" in workspaces.setup_log(wanted).read_text()


async def test_a_setup_that_failed_is_tried_again_later_in_a_clean_tree(
    workspaces: Workspaces, data: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_module, "FAILURE_KEPT", 0.0)
    wanted = await checkout(data, project, "test ! -e left && touch left && test -e ${UV_CACHE_DIR%/uv}/mended")
    with pytest.raises(SetupFailed):
        await workspaces.prepare(wanted)
    (home,) = data.glob("workspaces/cache/*")
    (home / "mended").touch()
    assert (await workspaces.prepare(wanted)).venv is not None


async def test_a_setup_that_hangs_is_ended(
    workspaces: Workspaces, data: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_module, "SETUP_TIMEOUT", timedelta(seconds=2))
    with pytest.raises(SetupFailed, match="ran past 0:00:02"):
        await workspaces.prepare(await checkout(data, project, "sleep 300"))


async def test_a_setup_whose_job_is_cancelled_is_done_by_the_next(
    workspaces: Workspaces, data: Path, project: Path
) -> None:
    wanted = await checkout(data, project, "echo started; test -e ${UV_CACHE_DIR%/uv}/go || sleep 300")
    task = asyncio.create_task(workspaces.prepare(wanted))
    async with asyncio.timeout(20):
        log = workspaces.setup_log(wanted)
        while not (log.exists() and "started" in log.read_text()):  # noqa: ASYNC110 - it is a file
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (home,) = data.glob("workspaces/cache/*")
    (home / "go").touch()
    assert await workspaces.prepare(wanted)


async def test_a_workspace_is_the_attempts_own_and_goes_with_it(
    workspaces: Workspaces, data: Path, project: Path
) -> None:
    prepared = await workspaces.prepare(await checkout(data, project))
    async with workspaces.workspace(prepared, data / "runs" / "1") as folder:
        (folder / "test_shop.py").write_text("changed")
        (folder / "new").mkdir()
    assert not folder.exists()
    assert (prepared.tree / "test_shop.py").read_text() == TESTS


async def test_a_large_tree_is_copied_with_its_links_and_modes(
    workspaces: Workspaces, data: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "link").symlink_to("run.sh")
    prepared = await workspaces.prepare(await checkout(data, project))
    for limit in (0, 1000):
        monkeypatch.setattr(workspace_module, "SMALL_TREE", limit)
        async with workspaces.workspace(prepared, data / "runs" / "1") as folder:
            assert (folder / "link").readlink() == Path("run.sh")
            assert os.access(folder / "run.sh", os.X_OK)
            assert sorted(path.name for path in folder.iterdir()) == ["link", "run.sh", "test_shop.py"]


async def test_a_workspace_is_deleted_whatever_the_test_made_of_it(
    workspaces: Workspaces, data: Path, project: Path
) -> None:
    prepared = await workspaces.prepare(await checkout(data, project))
    folder = data / "runs" / "1"

    async def break_it() -> None:
        async with workspaces.workspace(prepared, folder):
            (folder / "outside").symlink_to(data / "git")
            process = await asyncio.create_subprocess_exec("sh", "-c", MESS, cwd=folder)
            await process.wait()
            raise RuntimeError("the attempt broke")

    with pytest.raises(RuntimeError, match="the attempt broke"):
        await break_it()
    assert not folder.exists()
    assert (data / "git").exists()


async def test_trees_that_nobody_used_for_long_are_pruned_but_not_one_in_use(
    workspaces: Workspaces, data: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_module, "TREES_KEPT", 1)

    async def prepare(number: int) -> Prepared:
        (project / "number").write_text(str(number))
        return await workspaces.prepare(await checkout(data, project))

    used, unused, young = [await prepare(number) for number in range(3)]
    for prepared in (used, unused):
        os.utime(prepared.folder / "ready", (time.time() - 7200, time.time() - 7200))
    async with workspaces.workspace(used, data / "runs" / "1"):
        newest = await prepare(3)
        kept = {path.name for path in (data / "workspaces" / "prepared").iterdir() if path.is_dir()}
    assert kept == {used.folder.name, young.folder.name, newest.folder.name}
    assert not unused.folder.with_suffix(".lock").exists()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


class Attempts:
    """Runs scenarios of the project as the worker does, with pytest installed by the project's setup."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir(exist_ok=True)
        self.project = folder / "project"
        self.project.mkdir(exist_ok=True)
        (self.project / "test_shop.py").write_text(TESTS)
        self.workspaces = make(self.data)

    async def __call__(
        self, select: str | None, *, setup: str | None = "uv pip install pytest", runner: str = "pytest", **task: str
    ) -> Reading:
        prepared = await self.workspaces.prepare(await checkout(self.data, self.project, setup))
        report, log = self.data / "report", self.data / "log"
        async with self.workspaces.workspace(prepared, self.data / "runs" / "1") as folder:
            report.mkdir()
            try:
                wanted = RunnerTask("test_shop.py", select, task.get("command"), report, folder, prepared.venv)
                ended = await run_process(
                    find_runner(runner).argv(wanted),
                    sandbox=BubblewrapSandbox("bwrap"),
                    bounds=Bounds(folder, [folder, report], readable=[prepared.folder], hidden=[self.data]),
                    env=prepared.variables(os.environ) | {"PROCTOR_REPORT_DIR": str(report)},
                    log=log,
                    timeout=timedelta(minutes=1),
                )
                return await asyncio.to_thread(read_outcome, find_runner(runner), wanted, ended.exit_code, log)
            finally:
                for file in (*report.iterdir(), log):
                    file.unlink()
                report.rmdir()


@pytest.fixture
def attempt(shared: Path) -> Attempts:
    return Attempts(shared)


@pytest.mark.parametrize(
    ("select", "outcome", "level", "message"),
    [
        ("test_pays", Outcome.PASSED, Level.SUCCESS, None),
        ("test_card[my visa]", Outcome.PASSED, Level.SUCCESS, None),
        ("pays or card", Outcome.PASSED, Level.SUCCESS, None),
        ("test_fails", Outcome.FAILED, Level.FAILURE, "the sum is wrong"),
        ("test_breaks", Outcome.BROKEN, Level.ERROR, "the till is stuck"),
        ("test_skips", Outcome.PASSED, Level.WARNING, "Skipped: no card reader"),
        (None, Outcome.BROKEN, Level.ERROR, "the till is stuck"),
    ],
)
async def test_a_pytest_scenario_ends_as_its_report_says(
    attempt: Attempts, select: str | None, outcome: Outcome, level: Level, message: str | None
) -> None:
    reading = await attempt(select)
    assert (reading.verdict.outcome, reading.verdict.level) == (outcome, level)
    assert (message or "") in (reading.verdict.message or "")
    assert len(reading.cases) == {None: 5, "pays or card": 2}.get(select, 1)


@pytest.mark.parametrize("select", ["test_gone", "gone and lost"])
async def test_a_scenario_that_selects_nothing_says_what_it_looked_for(attempt: Attempts, select: str) -> None:
    with pytest.raises(NothingSelected) as caught:
        await attempt(select)
    assert select in caught.value.detail
    assert "test_shop.py" in caught.value.detail


async def test_a_project_whose_setup_installs_no_pytest_is_told_to(attempt: Attempts) -> None:
    with pytest.raises(ToolMissing, match="Put pytest into its requirements"):
        await attempt("test_pays", setup="true")


async def test_a_command_that_writes_junit_is_judged_by_it(attempt: Attempts) -> None:
    command = """echo '<testsuite><testcase name="'"$1"'"/></testsuite>' > "$PROCTOR_REPORT_DIR/any.xml" """
    reading = await attempt(None, setup=None, runner="command", command=command)
    assert reading.verdict.level is Level.SUCCESS
    assert [case.name for case in reading.cases] == ["test_shop.py"]
