"""What test code can and cannot do in a real sandbox. A probe only looks: it must do no harm where it gets through."""

import os
import subprocess
from pathlib import Path

import pytest

from proctor.ports.sandbox import Bounds, BubblewrapSandbox, PlainSandbox, choose_sandbox, tools_below


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a secret beside the workspace."""
    (tmp_path / "data" / "workspace").mkdir(parents=True)
    (tmp_path / "data" / "secret").write_text("password")
    return tmp_path / "data"


def shell(data: Path, script: str, *, readable: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    workspace = data / "workspace"
    bounds = Bounds(workspace, writable=[workspace], readable=readable, hidden=[data])
    argv = BubblewrapSandbox("bwrap").command(["sh", "-c", script], bounds)
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_the_workspace_is_the_current_folder_and_can_be_written(data: Path) -> None:
    assert shell(data, "pwd; echo new > file").stdout == f"{data}/workspace\n"
    assert (data / "workspace" / "file").read_text() == "new\n"


def test_the_data_folder_around_the_workspace_is_not_seen(data: Path) -> None:
    assert shell(data, f"ls {data}; cat {data}/secret").stdout == "workspace\n"


def test_what_is_readable_in_a_hidden_folder_cannot_be_written(data: Path) -> None:
    (data / "venv").mkdir()
    (data / "venv" / "file").write_text("library")
    done = shell(
        data, "cat ../venv/file; test -w ../venv/file || echo no; touch ../venv/new", readable=(data / "venv",)
    )
    assert done.stdout == "libraryno\n"
    assert not (data / "venv" / "new").exists()


def test_the_machine_is_read_only(data: Path) -> None:
    assert shell(data, "for path in / /etc /usr/bin /var/tmp; do test -w $path && echo $path; done").stdout == ""


def test_the_home_folder_is_hidden(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    for folder in (".ssh", ".cargo/bin", ".nvm/versions/node/v22/bin", ".nvm/versions/node/v22/lib"):
        (home / folder).mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("key")
    (home / ".cargo" / "credentials").write_text("token")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", f"{home}/.cargo/bin:{home}/.nvm/versions/node/v22/bin:{os.environ['PATH']}")
    listed = shell(data, f"cd {home}; find . -type d; cat .ssh/id_ed25519 .cargo/credentials").stdout.split()
    assert "./.cargo/bin" in listed
    assert "./.nvm/versions/node/v22/lib" in listed
    assert not {"./.ssh", "key", "token"} & set(listed)


def test_only_tools_below_the_home_folder_are_shown_in_it() -> None:
    home = Path("/home/ann")
    path = "/usr/bin:/home/ann/bin:/home/ann/.local/bin:/home/ann/go/tools/bin:/home/ann:relative"
    assert tools_below(home, path) == [home / "bin", home / ".local" / "bin", home / "go" / "tools"]


def test_nothing_inside_has_a_capability_or_can_set_the_kernel(data: Path) -> None:
    assert "CapEff:\t0000000000000000" in shell(data, "cat /proc/self/status").stdout
    probe = "for name in kernel/panic vm/overcommit_memory; do test -w /proc/sys/$name && echo $name; done; true"
    assert shell(data, probe).stdout == ""
    assert shell(data, "test -w /proc/sysrq-trigger && echo open").stdout == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could read it at all")
def test_the_passwords_of_the_machine_cannot_be_read(data: Path) -> None:
    assert Path("/etc/shadow").read_text()
    assert shell(data, "cat /etc/shadow").stdout == ""


def test_temporary_folders_and_shared_memory_are_its_own(data: Path, tmp_path: Path) -> None:
    probe = "for path in /tmp /dev/shm; do echo x > $path/mine && cat $path/mine; done; ls /run"
    assert shell(data, probe).stdout == "x\nx\n"
    assert not Path("/tmp/mine").exists()
    assert not Path("/dev/shm/mine").exists()


def test_other_processes_are_not_seen(data: Path) -> None:
    listed = shell(data, "ls /proc | grep -c '^[0-9]'").stdout
    assert int(listed) <= 5
    assert shell(data, f"test -e /proc/{os.getpid()} && echo seen").stdout == ""


def test_the_network_is_shared_and_names_can_be_looked_up(data: Path) -> None:
    assert shell(data, "readlink /proc/self/ns/net").stdout.strip() == str(Path("/proc/self/ns/net").readlink())
    assert shell(data, "cat /etc/resolv.conf").stdout == Path("/etc/resolv.conf").read_text()


def test_the_exit_code_comes_through(data: Path) -> None:
    assert shell(data, "exit 42").returncode == 42


async def test_bubblewrap_is_chosen_where_it_works() -> None:
    sandbox = await choose_sandbox()
    assert (sandbox.name, sandbox.warning, sandbox.contained) == ("bubblewrap", None, True)


async def test_without_bubblewrap_the_warning_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox = await choose_sandbox()
    assert sandbox.name == "plain"
    assert "apt-get install bubblewrap" in (sandbox.warning or "")


async def test_a_bubblewrap_that_does_not_work_here_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sandbox = await choose_sandbox()
    assert sandbox.name == "plain"
    assert "setting up uid map: Permission denied" in (sandbox.warning or "")


def test_the_plain_sandbox_runs_the_command_as_it_is(tmp_path: Path) -> None:
    argv = PlainSandbox().command(["sh", "-c", "exit 42"], Bounds(tmp_path))
    assert subprocess.run(argv, check=False).returncode == 42
