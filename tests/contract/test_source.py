"""Real git against real repositories: folders, an https server with a password, ssh up to the remote command."""

import asyncio
import base64
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from proctor.errors import SourceUnavailable
from proctor.ports import source as source_module
from proctor.ports.source import Credential, GitSource, locked, parse_repository

TOKEN = "ghp_c0ffee"


def git(folder: Path, *argv: str) -> str:
    identity = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", **identity}
    done = subprocess.run(["git", "-C", str(folder), *argv], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, text: str, *options: str) -> str:
    (folder / "test_shop.py").write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", text, *options)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "first")
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = tmp_path / "plain"
    (folder / "tests").mkdir(parents=True)
    (folder / "tests" / "test_a.py").write_text("a")
    (folder / ".gitignore").write_text("*.log\n")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> GitSource:
    return GitSource(tmp_path / "cache")


async def files(source: GitSource, repository: Path, folder: Path, branch: str = "main") -> dict[str, str]:
    found = await source.resolve(str(repository), branch, allow_local=True)
    await source.fetch(str(repository), found, branch, allow_local=True)
    await source.check_out(str(repository), found, folder)
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


async def refusal(source: GitSource, repository: object, branch: str = "main", **options: object) -> str:
    with pytest.raises(SourceUnavailable) as caught:
        await source.resolve(str(repository), branch, **{"allow_local": True, **options})  # type: ignore[arg-type]
    return caught.value.detail


async def test_the_head_of_a_branch_is_checked_out(source: GitSource, repository: Path, tmp_path: Path) -> None:
    assert await source.resolve(str(repository), "main", allow_local=True) == git(repository, "rev-parse", "main")
    assert await files(source, repository, tmp_path / "one") == {"test_shop.py": "first"}
    commit(repository, "second")
    assert await files(source, repository, tmp_path / "two") == {"test_shop.py": "second"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


async def test_uncommitted_changes_of_a_repository_are_not_taken(
    source: GitSource, repository: Path, tmp_path: Path
) -> None:
    (repository / "test_shop.py").write_text("changed")
    assert await files(source, repository, tmp_path / "out") == {"test_shop.py": "first"}


async def test_a_commit_that_was_rewritten_after_it_was_resolved_is_still_fetched(
    source: GitSource, repository: Path, tmp_path: Path
) -> None:
    resolved = await source.resolve(str(repository), "main", allow_local=True)
    commit(repository, "rewritten", "--amend")
    await source.fetch(str(repository), resolved, "main", allow_local=True)
    await source.check_out(str(repository), resolved, tmp_path / "out")
    assert (tmp_path / "out" / "test_shop.py").read_text() == "first"


async def test_a_branch_may_become_a_folder_of_branches(source: GitSource, repository: Path, tmp_path: Path) -> None:
    git(repository, "branch", "topic")
    assert await files(source, repository, tmp_path / "one", "topic")
    git(repository, "branch", "-D", "topic")
    git(repository, "switch", "-qc", "topic/deeper")
    commit(repository, "deeper")
    assert await files(source, repository, tmp_path / "two", "topic/deeper") == {"test_shop.py": "deeper"}


async def test_a_plain_folder_is_taken_as_it_is_without_what_it_ignores(
    source: GitSource, plain: Path, tmp_path: Path
) -> None:
    (plain / "run.log").write_text("ignored")
    (plain / "tests" / "__pycache__").mkdir()
    (plain / "tests" / "__pycache__" / "test_a.pyc").write_text("made by running the tests")
    assert set(await files(source, plain, tmp_path / "out")) == {".gitignore", "tests/test_a.py"}
    assert not (plain / ".git").exists()


async def test_the_same_content_of_a_plain_folder_is_the_same_commit(source: GitSource, plain: Path) -> None:
    first = await source.resolve(str(plain), "main", allow_local=True)
    (plain / "tests" / "test_a.py").touch()
    assert await source.resolve(str(plain), "main", allow_local=True) == first
    (plain / "tests" / "test_a.py").write_text("b")
    changed = await source.resolve(str(plain), "main", allow_local=True)
    (plain / "tests" / "test_a.py").write_text("a")
    assert changed != first
    assert await source.resolve(str(plain), "main", allow_local=True) == first


async def test_many_who_ask_at_once_share_one_mirror(repository: Path, tmp_path: Path) -> None:
    sources = [GitSource(tmp_path / "cache") for _ in range(6)]
    found = await asyncio.gather(*(files(s, repository, tmp_path / str(n)) for n, s in enumerate(sources)))
    assert found == [{"test_shop.py": "first"}] * 6
    assert len(list((tmp_path / "cache").glob("*.git"))) == 1


async def test_a_lock_file_of_a_killed_git_does_not_block_the_mirror_for_ever(
    source: GitSource, plain: Path, tmp_path: Path
) -> None:
    await files(source, plain, tmp_path / "one")
    (mirror,) = (tmp_path / "cache").glob("*.git")
    (mirror / "snapshot.index.lock").touch()
    (plain / "new.py").write_text("new")
    assert "new.py" in await files(source, plain, tmp_path / "two")


async def test_a_lock_has_one_holder_and_survives_the_removal_of_its_file(tmp_path: Path) -> None:
    path, holders = tmp_path / "lock", 0

    async def hold() -> None:
        nonlocal holders
        async with locked(path):
            holders += 1
            assert holders == 1
            await asyncio.sleep(0.005)
            path.unlink()
            holders -= 1

    await asyncio.gather(*(hold() for _ in range(10)))


async def test_a_missing_branch_is_named(source: GitSource, repository: Path) -> None:
    detail = await refusal(source, repository, "release")
    assert str(repository) in detail
    assert "no branch release" in detail


async def test_a_branch_is_not_found_by_the_end_of_another_name(source: GitSource, repository: Path) -> None:
    git(repository, "update-ref", "refs/odd/refs/heads/ghost", "main")
    assert "no branch ghost" in await refusal(source, repository, "ghost")


@pytest.mark.parametrize(
    "branch", ["--upload-pack=id", "-x", "a b", "a..b", "*", "a~1", "a:b", "@{-1}", "x.lock", "a\n"]
)
async def test_what_is_no_name_of_a_branch_is_refused(source: GitSource, repository: Path, branch: str) -> None:
    assert "is no name of a branch" in await refusal(source, repository, branch)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "-oProxyCommand=id",
        "http://host/x.git",
        "git://host/x",
        "ext::sh -c id",
        "ext://sh",
        "ftp://host/x",
        "https://",
        "ssh://-oProxyCommand=id/x",
        "git@host:-x",
        "git@-host:x",
        "relative/folder",
        "https://host/x\n--upload-pack=id",
    ],
)
def test_an_address_that_is_no_https_or_ssh_is_refused(address: str) -> None:
    with pytest.raises(SourceUnavailable, match="is refused"):
        parse_repository(address, allow_local=True)


@pytest.mark.parametrize("address", ["https://host/x.git", "ssh://git@host:22/x", "git@host.example:team/x.git"])
def test_an_address_by_https_or_ssh_is_accepted(address: str) -> None:
    assert parse_repository(address, allow_local=False) == (address, None)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(SourceUnavailable) as caught:
        parse_repository(f"https://ann:{TOKEN}@host/x", allow_local=False)
    assert TOKEN not in caught.value.detail


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_of_the_server_is_for_those_who_may(repository: Path, form: str) -> None:
    address = form.format(repository)
    with pytest.raises(SourceUnavailable, match="administrators"):
        parse_repository(address, allow_local=False)
    assert parse_repository(address, allow_local=True) == (str(repository), repository)


async def test_settings_and_hooks_of_the_machine_do_not_reach_git(
    source: GitSource, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    (tmp_path / "gitconfig").write_text(
        f'[core]\n\tsshCommand = touch {trap}\n[url "ext::touch {trap} "]\n\tinsteadOf = /\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert await files(source, repository, tmp_path / "out") == {"test_shop.py": "first"}
    assert not trap.exists()


@asynccontextmanager
async def https_server(root: Path, folder: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """Serves the bare repository `root` to who knows the token; gives its address and all command lines seen."""
    certificate = folder / "certificate.pem"
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    made = ["openssl", *options.split(), "-keyout", str(folder / "key.pem"), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, made, check=True, capture_output=True)
    wanted = "Basic " + base64.b64encode(f"ci:{TOKEN}".encode()).decode()
    seen: list[str] = []

    @web.middleware
    async def sign_in(request: web.Request, handler) -> web.StreamResponse:  # type: ignore[no-untyped-def]
        seen.extend(" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
        if request.headers.get("Authorization") != wanted:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[sign_in])
    app.router.add_static("/shop.git", root)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, folder / "key.pem")
    runner = web.AppRunner(app)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await web.SockSite(runner, listener, ssl_context=context).start()
        try:
            yield f"https://localhost:{listener.getsockname()[1]}/shop.git", seen
        finally:
            await runner.cleanup()


@pytest.fixture
async def shop(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, list[str]]]:
    bare = tmp_path / "shop.git"
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    git(bare, "update-server-info")
    monkeypatch.setenv("GIT_SSL_CAINFO", str(tmp_path / "certificate.pem"))
    async with https_server(bare, tmp_path) as served:
        yield served


async def test_a_token_signs_in_over_https_and_shows_in_no_command_line(
    source: GitSource, shop: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, command_lines = shop
    credential = Credential("ci", TOKEN)
    found = await source.resolve(url, "main", credential)
    await source.fetch(url, found, "main", credential)
    await source.check_out(url, found, tmp_path / "out")
    assert (tmp_path / "out" / "test_shop.py").read_text() == "first"
    encoded = base64.b64encode(f"ci:{TOKEN}".encode()).decode()
    assert any("git" in line for line in command_lines)
    assert not [line for line in command_lines if TOKEN in line or encoded in line]
    stored = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not [path for path in stored if TOKEN.encode() in path.read_bytes() or encoded.encode() in path.read_bytes()]


@pytest.mark.parametrize("credential", [None, Credential("ci", "wrong-token")])
async def test_a_sign_in_that_fails_says_what_to_do_without_the_token(
    source: GitSource, shop: tuple[str, list[str]], credential: Credential | None
) -> None:
    detail = await refusal(source, shop[0], credential=credential)
    assert "Store a credential" in detail
    assert "(branch main)" in detail
    assert "wrong-token" not in detail


def test_a_credential_does_not_print_its_secrets() -> None:
    assert "s3cret" not in repr(Credential("ci", "s3cret", "s3cret"))


# Does what sshd would after signing in, and writes down how it was called.
SSH = """#!/bin/sh
printf '%s\\n' "$@" > {calls}
for word; do case $word in -oIdentityFile=none) ;; -oIdentityFile=*) stat -c %a "${{word#*=}}" >> {calls}
cat "${{word#*=}}" >> {calls};; esac; done
for last; do :; done
exec sh -c "$last"
"""


async def test_an_ssh_key_is_used_from_a_private_file_that_is_gone_afterwards(
    source: GitSource, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = tmp_path / "calls"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text(SSH.format(calls=calls))
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    url = f"ssh://git@host{repository}"
    found = await source.resolve(url, "main", Credential(ssh_key="PRIVATE KEY"))
    assert found == git(repository, "rev-parse", "main")
    assert "600\nPRIVATE KEY\n" in calls.read_text()
    assert list((tmp_path / "cache").glob("key-*")) == []
    await source.resolve(url, "main")
    assert "-oIdentityFile=none\n" in calls.read_text()
    assert "-oIdentityAgent=none\n" in calls.read_text()


async def test_a_server_that_never_answers_is_given_up_and_no_git_is_left(
    source: GitSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "RESOLVE_TIMEOUT", timedelta(seconds=0.5))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "did not end within 0.5 s" in await refusal(source, f"https://127.0.0.1:{port}/x")
    left = [process for process in psutil.process_iter(["cmdline"]) if f":{port}/x" in str(process.info["cmdline"])]
    assert left == []


async def test_a_server_that_is_not_there_is_told_with_what_git_says(source: GitSource) -> None:
    detail = await refusal(source, "https://127.0.0.1:1/x")
    assert "git says: fatal: unable to access" in detail
    assert "Check its address" in detail


async def test_a_folder_that_is_gone_is_told(source: GitSource, repository: Path) -> None:
    shutil.rmtree(repository)
    assert "no such folder" in await refusal(source, repository)
