"""`proctor doctor` on machines that are well, and on some that are not."""

import json
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

from proctor.cli.client import ExitCode
from proctor.cli.doctor import GIB, Check, check_folder, describe, examine, run_doctor
from proctor.cli.main import main
from proctor.settings import Settings

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "state"), [(0.5, "failed"), (3, "warning"), (50, "ok")])
def test_a_data_folder_needs_room(free: float, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free * GIB))
    check = check_folder(tmp_path / "not" / "there" / "yet")
    assert (check.state, bool(check.fix)) == (state, state != "ok")
    assert not (tmp_path / "not").exists(), "it only looks"


def test_a_data_folder_that_cannot_be_one_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = check_folder(tmp_path / "file")
    assert (check.state, check.detail) == ("failed", f"{tmp_path}/file cannot be written: Not a directory")


async def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        (tmp_path / "address").write_text(f"http://127.0.0.1:{port}")
        url = f"postgresql://proctor:secret@127.0.0.1:{port}/proctor"
        checks = {check.name: check for check in await examine(Settings(data=tmp_path, database_url=url))}
    assert (checks["git"].state, checks["git"].fix) == ("failed", "Install it, as in `apt-get install git`.")
    assert checks["sandbox"].state == "warning"
    assert "apt-get install bubblewrap" in checks["sandbox"].fix
    assert checks["PostgreSQL"].state == "failed"
    assert "Connection refused" in checks["PostgreSQL"].detail
    assert checks["server"].state == "failed"
    assert "secret" not in json.dumps([[check.detail, check.fix] for check in checks.values()])


def test_a_failed_check_decides_on_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_doctor(Settings(data=tmp_path), as_json=False) is ExitCode.MACHINERY_FAILED
    assert "failed   git: not found\n           → Install it" in capsys.readouterr().out


def test_the_checks_of_this_machine_are_one_json_object(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["doctor", "--json", "--data", str(tmp_path)], env={"PROCTOR_DATABASE_URL": None})
    told = json.loads(done.stdout)
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert list(states) == ["Python", "PostgreSQL", "git", "sandbox", "browser", "data folder", "server"]
    assert (states["Python"], states["PostgreSQL"], states["server"]) == ("ok", "ok", "ok")
    assert told["exit_code"] == done.exit_code == (3 if "failed" in states.values() else 0)


def test_what_is_well_has_no_advice() -> None:
    assert describe([Check("git", "ok", "2.39")]) == ["\x1b[32mok      \x1b[0m git: 2.39"]
