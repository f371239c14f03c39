"""Workspaces: the project's files as an attempt finds them, set up once for each commit and copied for each attempt."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import uv

from proctor.errors import SetupFailed
from proctor.ports.sandbox import Bounds, Sandbox
from proctor.ports.source import Credential, GitSource, locked, try_lock
from proctor.worker.processes import finish, run_process

SETUP_TIMEOUT = timedelta(minutes=15)
FAILURE_KEPT = 30.0  # seconds: long enough for the jobs of one execution, short enough for who mends and runs again
TREES_KEPT = 20
UNUSED_FOR = 3600.0  # seconds; a younger tree is never pruned, so that none goes between prepare() and workspace()
SMALL_TREE = 500  # entries; up to this many, copying in this process beats starting `cp`

_TEST_VARIABLES = re.compile(r"PATH|LANG|LC_\w+|TZ")
_SETUP_VARIABLES = re.compile(
    r"(?i)PATH|LANG|LC_\w+|TZ|\w+_proxy|PIP_\w+|UV_\w+|npm_config_\w+|NODE_EXTRA_CA_CERTS|SSL_CERT_FILE|SSL_CERT_DIR"
)


@dataclass(frozen=True)
class Checkout:
    """A commit of a repository's branch, after the project's `setup` (a shell command) has run in it.

    Companies share nothing that a set-up wrote, even of the same repository.
    """

    company_id: int
    repository: str
    branch: str
    commit: str
    setup: str | None = None
    credential: Credential | None = None
    allow_local: bool = False

    @property
    def key(self) -> str:
        """The commit fixes every lock file in it; another Python needs another virtual environment."""
        parts = (str(self.company_id), self.repository, self.commit, self.setup or "", sys.version)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Prepared:
    """A tree that was set up; `venv` is None for a project without setup. Attempts read it and copy `tree`."""

    folder: Path
    entries: int

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    @property
    def venv(self) -> Path | None:
        venv = self.folder / "venv"
        return venv if venv.is_dir() else None

    def variables(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What an attempt gets of the worker's variables, with PATH and VIRTUAL_ENV for its Python."""
        allowed = {name: text for name, text in environ.items() if _TEST_VARIABLES.fullmatch(name)}
        return _with_python(self.venv, allowed)


class Workspaces:
    """Prepares trees below `root`, which the worker's processes on this machine share.

    `hidden` are the folders that the project's setup must not see; `root` is always one of them.
    """

    def __init__(self, root: Path, source: GitSource, sandbox: Sandbox, *, hidden: Sequence[Path] = ()) -> None:
        self._prepared = root / "prepared"
        self._caches = root / "cache"
        self._source = source
        self._sandbox = sandbox
        self._hidden = (*hidden, root)
        self._failures: dict[str, tuple[float, str]] = {}
        self._prepared.mkdir(parents=True, exist_ok=True)

    def setup_log(self, checkout: Checkout) -> Path:
        """What the setup printed; it exists after a setup that failed, too."""
        return self._prepared / checkout.key / "setup.log"

    async def prepare(self, checkout: Checkout) -> Prepared:
        """Fetches and sets up once, however many ask at the same time; later calls cost a few stats.

        Raises SourceUnavailable and SetupFailed. A setup that failed fails at once for `FAILURE_KEPT` seconds.
        """
        folder = self._prepared / checkout.key
        if (ready := _ready(folder)) is not None:
            return ready
        async with locked(self._lock(folder)):
            if (ready := _ready(folder)) is not None:
                return ready
            self._raise_again(checkout.key)
            await asyncio.to_thread(remove_tree, folder)
            await self._make(checkout, folder)
            made = await asyncio.to_thread(_mark_ready, folder)
        await asyncio.to_thread(self._prune)
        return made

    @asynccontextmanager
    async def workspace(self, prepared: Prepared, folder: Path) -> AsyncIterator[Path]:
        """The attempt's own copy of the tree at `folder`, which must not exist; it is deleted at the end.

        While it is open, what was prepared is not pruned: tests run from its virtual environment.
        """
        use = try_lock(_use(prepared.folder), shared=True)
        try:
            await finish(asyncio.to_thread(_copy, prepared, folder))
            yield folder
        finally:
            await finish(asyncio.to_thread(remove_tree, folder))
            if use is not None:
                os.close(use)

    async def _make(self, checkout: Checkout, folder: Path) -> None:
        await self._source.fetch(
            checkout.repository,
            checkout.commit,
            checkout.branch,
            checkout.credential,
            allow_local=checkout.allow_local,
        )
        await self._source.check_out(checkout.repository, checkout.commit, folder / "tree")
        if checkout.setup:
            await self._set_up(checkout, checkout.setup, folder)

    async def _set_up(self, checkout: Checkout, setup: str, folder: Path) -> None:
        # A cache for each company's repository: what one's setup leaves in it, another's must not install.
        shared_by = f"{checkout.company_id}\0{checkout.repository}"
        cache = self._caches / hashlib.sha256(shared_by.encode()).hexdigest()[:32]
        cache.mkdir(parents=True, exist_ok=True)
        # New for each set-up: the next one must not read configuration that this one writes.
        home, venv, log = folder / "home", folder / "venv", folder / "setup.log"
        home.mkdir()
        env = {**_setup_variables(os.environ, venv, cache), "HOME": str(home)}
        made = [uv.find_uv_bin(), "venv", "--quiet", "--no-config", "--python", sys.executable, str(venv)]
        await self._run(checkout.key, made, "uv venv", Bounds(folder, [folder, cache], hidden=self._hidden), env, log)
        (venv / "bin" / "uv").symlink_to(uv.find_uv_bin())
        bounds = Bounds(folder / "tree", [folder / "tree", venv, home, cache], hidden=self._hidden)
        await self._run(checkout.key, ["sh", "-c", setup], setup, bounds, env, log)

    async def _run(self, key: str, argv: list[str], shown: str, bounds: Bounds, env: dict[str, str], log: Path) -> None:
        ended = await run_process(argv, sandbox=self._sandbox, bounds=bounds, env=env, log=log, timeout=SETUP_TIMEOUT)
        if ended.exit_code == 0 and not ended.timed_out:
            return
        how = f"ran past {SETUP_TIMEOUT}" if ended.timed_out else f"ended with exit code {ended.exit_code}"
        detail = (
            f"The project's setup `{shown[:200]}` {how}: {last_lines(log, 5) or 'it printed nothing'}. "
            "Correct the setup, or the files that it reads, and run again; its whole output is in the setup log."
        )
        self._failures[key] = (asyncio.get_running_loop().time() + FAILURE_KEPT, detail)
        raise SetupFailed(detail)

    def _raise_again(self, key: str) -> None:
        now = asyncio.get_running_loop().time()
        self._failures = {key: failure for key, failure in self._failures.items() if failure[0] > now}
        if key in self._failures:
            raise SetupFailed(self._failures[key][1])

    def _lock(self, folder: Path) -> Path:
        return folder.with_suffix(".lock")

    def _prune(self) -> None:
        """Removes all but the newest by last use, also what a failed setup left; never what is in use."""
        folders = sorted((path for path in self._prepared.iterdir() if path.is_dir()), key=_used_at, reverse=True)
        for folder in folders[TREES_KEPT:]:
            if _used_at(folders[0]) - _used_at(folder) > UNUSED_FOR:
                self._prune_one(folder)

    def _prune_one(self, folder: Path) -> None:
        lock = try_lock(self._lock(folder))
        if lock is None:
            return
        try:
            use = try_lock(_use(folder))
            if use is not None:
                os.close(use)
                remove_tree(folder)
                self._lock(folder).unlink()
        finally:
            os.close(lock)


def _use(folder: Path) -> Path:
    """Locked, shared, by every attempt that runs from the folder."""
    return folder / "use.lock"


def last_lines(log: Path, count: int) -> str:
    """The last lines with anything on them, joined by ` / `, at most 1,000 characters; empty when there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").replace("\0", "\ufffd").splitlines()
    except FileNotFoundError:
        return ""
    return " / ".join([line.strip() for line in lines if line.strip()][-count:])[-1_000:]


def _ready(folder: Path) -> Prepared | None:
    marker = folder / "ready"
    try:
        os.utime(marker)
        return Prepared(folder, json.loads(marker.read_text())["entries"])
    except FileNotFoundError:
        return None


def _mark_ready(folder: Path) -> Prepared:
    entries = sum(len(folders) + len(files) for _, folders, files in os.walk(folder / "tree"))
    # By rename, so that whoever finds the marker finds all of it.
    unfinished = folder / "ready.new"
    unfinished.write_text(json.dumps({"entries": entries}))
    unfinished.rename(folder / "ready")
    return Prepared(folder, entries)


def _used_at(folder: Path) -> float:
    for path in (folder / "ready", folder):
        with contextlib.suppress(FileNotFoundError):
            return path.stat().st_mtime
    return 0.0  # another worker has just pruned it


def _setup_variables(environ: Mapping[str, str], venv: Path, cache: Path) -> dict[str, str]:
    allowed = {name: text for name, text in environ.items() if _SETUP_VARIABLES.fullmatch(name)}
    return _with_python(venv, allowed) | {
        "UV_CACHE_DIR": str(cache / "uv"),
        "PIP_CACHE_DIR": str(cache / "pip"),
        "npm_config_cache": str(cache / "npm"),
        # The cache and the environment are separate mounts in the sandbox: a hard link between them is impossible.
        "UV_LINK_MODE": "copy",
        # Attempts cannot write to the environment; uncompiled, every one would compile all of it anew.
        "UV_COMPILE_BYTECODE": "1",
    }


def _with_python(venv: Path | None, variables: dict[str, str]) -> dict[str, str]:
    """`python3` is the virtual environment's, else the one that Proctor itself stands on."""
    path = variables.get("PATH", os.defpath)
    if venv is None:
        return {**variables, "PATH": f"{Path(sys.base_prefix) / 'bin'}:{path}"}
    return {**variables, "PATH": f"{venv / 'bin'}:{path}", "VIRTUAL_ENV": str(venv)}


def _copy(prepared: Prepared, folder: Path) -> None:
    if prepared.entries <= SMALL_TREE:
        shutil.copytree(prepared.tree, folder, symlinks=True)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", "-T", "--", prepared.tree, folder], check=True)


def remove_tree(folder: Path) -> None:
    """Test code may have left anything: folders without rights, or so deep that Python's own recursion ends."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except (OSError, RecursionError):
        subprocess.run(["chmod", "-R", "u+rwX", "--", folder], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", "--one-file-system", "--", folder], check=True, capture_output=True)
