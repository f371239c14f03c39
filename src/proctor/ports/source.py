"""Git: from a repository and a branch to a folder of files, through a cached bare mirror of each repository."""

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from proctor.errors import SourceUnavailable, ToolMissing

RESOLVE_TIMEOUT = timedelta(seconds=60)
FETCH_TIMEOUT = timedelta(seconds=600)
LOCK_INTERVAL = 0.02  # seconds between two looks at a lock that another process holds
OUTPUT_LIMIT = 64 * 1024  # bytes of git's output that are kept

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BRANCH_REFUSED = re.compile(r"^[-/]|[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|[/.]$|\.lock$")
_SCP = re.compile(r"[A-Za-z0-9_][\w.-]*@[A-Za-z0-9][\w.-]*:[^-\x00-\x20][^\x00-\x20]*")
_PASSED_ON = re.compile(r"(?i)PATH|(?:https?|all|no)_proxy|SSL_CERT_FILE|SSL_CERT_DIR|GIT_SSL_CAINFO")
# What git says last is often this, and the reason stands above it.
_SMALL_TALK = re.compile(
    r"fatal: Could not read from remote repository|Please make sure you have the correct|and the repository exists"
)
_SIGN_IN = re.compile(r"(?i)authentication failed|could not read (?:user|pass)|permission denied|\b40[13]\b|publickey")

# One file for all of git's own settings: variables do not reach the `git upload-pack` that serves a local folder.
# Which folders may be read at all is the caller's decision (`allow_local`), so git need not ask who owns them.
_SETTINGS = """\
[safe]
	directory = *
[protocol]
	allow = never
[protocol "https"]
	allow = always
[protocol "ssh"]
	allow = always
[protocol "file"]
	allow = always
[core]
	hooksPath = /dev/null
	autocrlf = false
[fetch]
	recurseSubmodules = false
[gc]
	autoDetach = false
[maintenance]
	autoDetach = false
[advice]
	addEmbeddedRepo = false
"""
# Left out of the snapshot of a plain folder, beside what its .gitignore names: running its tests makes these.
_EXCLUDED = "__pycache__/\n.pytest_cache/\n.venv/\nnode_modules/\n"


@dataclass(frozen=True)
class Credential:
    """How to sign in to a repository: `username` and `token` over https, `ssh_key` (its private text) over ssh."""

    username: str = "git"
    token: str | None = field(default=None, repr=False)
    ssh_key: str | None = field(default=None, repr=False)


class GitSource:
    """Reads branches of repositories; `cache` holds their mirrors and may be shared by many processes.

    A repository is an https or ssh URL, or where the caller says `allow_local`, a folder of this machine: one with a
    repository in it serves its branches, any other is taken as it is now, whatever the branch. Every method raises
    SourceUnavailable, whose detail names the repository and the branch and never a credential.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._settings = cache / "gitconfig"

    async def resolve(
        self, repository: str, branch: str, credential: Credential | None = None, *, allow_local: bool = False
    ) -> str:
        """The commit at the branch's head, in hex."""
        git = self._git(repository, branch, credential, allow_local)
        if git.folder is not None and not _is_repository(git.folder):
            return await self._snapshot(git, git.folder)
        ref = f"refs/heads/{branch}"
        listed = await git.run("ls-remote", "--", git.url, ref, timeout=RESOLVE_TIMEOUT)
        for line in listed.splitlines():
            commit, _, name = line.partition("\t")
            # A pattern matches the end of names too, as `x/refs/heads/main`.
            if name == ref and _COMMIT.fullmatch(commit):
                return commit
        raise git.failed(f"it has no branch {branch}", "Correct the project's branch, or push it.")

    async def fetch(
        self,
        repository: str,
        commit: str,
        branch: str,
        credential: Credential | None = None,
        *,
        allow_local: bool = False,
    ) -> None:
        """Makes sure that the mirror has the commit; costs nothing when it has."""
        git = self._git(repository, branch, credential, allow_local)
        _check_commit(git, commit)
        if await self._has(git, commit):
            return
        async with self._mirror(git):
            if not await self._has(git, commit):
                await self._fetch(git, commit)

    async def check_out(self, repository: str, commit: str, folder: Path) -> None:
        """Writes the files of a commit that was fetched into `folder`, which is made. No `.git` comes along."""
        git = self._git(repository, "", None, True)
        _check_commit(git, commit)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        index = folder.with_name(f".{folder.name}.index")
        try:
            variables = {"GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": str(index)}
            await git.run("read-tree", "-u", "--reset", commit, variables=variables, timeout=FETCH_TIMEOUT)
        finally:
            index.unlink(missing_ok=True)

    def _git(self, repository: str, branch: str, credential: Credential | None, allow_local: bool) -> "_Git":
        url, folder = parse_repository(repository, allow_local=allow_local)
        if _BRANCH_REFUSED.search(branch):
            raise SourceUnavailable(
                f"The repository {repository} cannot be read: {branch!r} is no name of a branch. Correct the project."
            )
        mirror = self._cache / f"{hashlib.sha256(url.encode()).hexdigest()}.git"
        return _Git(repository, branch, url, folder, mirror, self._settings, credential)

    async def _has(self, git: "_Git", commit: str) -> bool:
        """Our own ref says so at the cost of a stat; git packs refs away now and then, so then it is asked."""
        if (git.mirror / _ref(commit)).exists():
            return True
        return git.mirror.exists() and await git.succeeds("cat-file", "-e", f"{commit}^{{commit}}")

    async def _fetch(self, git: "_Git", commit: str) -> None:
        wanted = f"refs/heads/{git.branch}" if git.branch else commit
        # No name is written, so branches that move or turn into folders cannot get in each other's way.
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        await git.run("fetch", *options, "--", git.url, wanted, timeout=FETCH_TIMEOUT)
        if not await git.succeeds("cat-file", "-e", f"{commit}^{{commit}}"):
            # The branch was rewritten after it was resolved; most servers still hand out the commit by its name.
            await git.run("fetch", *options, "--", git.url, commit, timeout=FETCH_TIMEOUT)
        await git.run("update-ref", _ref(commit), commit)

    async def _snapshot(self, git: "_Git", folder: Path) -> str:
        """Commits the folder's files to the mirror; the same content gives the same commit."""
        async with self._mirror(git):
            work = {"GIT_WORK_TREE": str(folder), "GIT_INDEX_FILE": str(git.mirror / "snapshot.index")}
            await git.run("add", "--all", ".", variables=work, timeout=FETCH_TIMEOUT, cwd=folder)
            tree = (await git.run("write-tree", variables=work)).strip()
            commit = (await git.run("commit-tree", "-m", f"Snapshot of {folder}", tree)).strip()
            if not await self._has(git, commit):
                await git.run("update-ref", _ref(commit), commit)
        return commit

    @asynccontextmanager
    async def _mirror(self, git: "_Git") -> AsyncIterator[None]:
        """The mirror, made if need be, to this process alone."""
        self._cache.mkdir(parents=True, exist_ok=True)
        async with locked(git.mirror.with_suffix(".lock")) as lock:
            git.lock = lock
            if git.mirror.exists():
                _remove_stale_locks(git.mirror)
            else:
                await self._make_mirror(git)
            yield

    async def _make_mirror(self, git: "_Git") -> None:
        made = git.mirror.with_suffix(".new")
        shutil.rmtree(made, ignore_errors=True)
        await git.run("init", "--quiet", "--bare", "--template=", str(made), variables={"GIT_DIR": str(made)})
        (made / "info").mkdir(exist_ok=True)
        (made / "info" / "exclude").write_text(_EXCLUDED)
        made.rename(git.mirror)


@dataclass
class _Git:
    """Git at work on one repository, with everything of this machine's and user's settings shut out."""

    repository: str
    branch: str
    url: str
    folder: Path | None
    mirror: Path
    settings: Path
    credential: Credential | None
    # Git inherits the lock, so that it stays taken until an orphan of a killed worker has ended too.
    lock: int | None = None

    async def run(
        self,
        *argv: str,
        variables: Mapping[str, str] | None = None,
        timeout: timedelta = RESOLVE_TIMEOUT,
        cwd: Path | None = None,
    ) -> str:
        """Its stdout; raises SourceUnavailable with what it said when it fails or runs past the timeout."""
        code, output, said = await self._spawn(argv, variables or {}, timeout, cwd)
        if code is None:
            raise self.failed(f"git {argv[0]} did not end within {timeout.total_seconds():g} s", _advice(""))
        if code != 0:
            line = _telling(self._redact(said)) or f"git {argv[0]} ended with exit code {code}"
            raise self.failed(f"git says: {line}", _advice(line))
        return output

    async def succeeds(self, *argv: str) -> bool:
        code, _, _ = await self._spawn(argv, {}, RESOLVE_TIMEOUT, None)
        return code == 0

    def failed(self, reason: str, advice: str) -> SourceUnavailable:
        which = f"{_without_password(self.repository)}" + (f" (branch {self.branch})" if self.branch else "")
        return SourceUnavailable(f"The repository {which} could not be read: {reason}. {advice}")

    async def _spawn(
        self, argv: Sequence[str], variables: Mapping[str, str], timeout: timedelta, cwd: Path | None
    ) -> tuple[int | None, str, str]:
        """Exit code (None when out of time), stdout, stderr."""
        _write_once(self.settings, _SETTINGS)
        with _signed_in(self.credential, self.url, self.settings.parent) as secrets:
            process = await self._start(argv, {**self._environment(), **secrets, **variables}, cwd)
            try:
                async with asyncio.timeout(timeout.total_seconds()):
                    output, said = await asyncio.gather(_end_of(process.stdout), _end_of(process.stderr))
                    await process.wait()
            except TimeoutError:
                return None, "", ""
            finally:
                await _end(process)
        return process.returncode, output, said

    async def _start(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path | None) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                "git",
                *argv,
                cwd=cwd or self.settings.parent,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                pass_fds=() if self.lock is None else (self.lock,),
            )
        except FileNotFoundError as error:
            raise ToolMissing("git is not installed on the worker. Install it: apt-get install git.") from error

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
        return kept | {
            "GIT_DIR": str(self.mirror),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self.settings),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "GIT_SSH_COMMAND": _ssh(self.settings.parent, None),
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "HOME": str(self.settings.parent),
            "LC_ALL": "C",
            "GIT_AUTHOR_NAME": "Proctor",
            "GIT_AUTHOR_EMAIL": "proctor@localhost",
            "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
            "GIT_COMMITTER_NAME": "Proctor",
            "GIT_COMMITTER_EMAIL": "proctor@localhost",
            "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
        }

    def _redact(self, text: str) -> str:
        text = _without_password(text)
        if self.credential is not None and self.credential.token:
            for secret in (self.credential.token, _basic(self.credential)):
                text = text.replace(secret, "***")
        return text


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[int]:
    """Holds the file `path` locked against all other holders, in this process and in others; gives its descriptor."""
    while True:
        descriptor = try_lock(path)
        if descriptor is not None:
            break
        # flock has no way to wait that could be cancelled, but a thread that nothing could end.
        await asyncio.sleep(LOCK_INTERVAL)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """A descriptor that holds the lock until it is closed, or None when another holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # Its last holder may have removed the file between our open and our lock: then we hold nothing.
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def parse_repository(repository: str, *, allow_local: bool) -> tuple[str, Path | None]:
    """The URL for git, and the folder when it is one of this machine; raises SourceUnavailable for all else."""
    shown = _without_password(repository)
    if not repository or repository.startswith("-") or re.search(r"[\x00-\x1f\x7f]", repository):
        raise _refused(shown, "it is no address")
    url = urlsplit(repository) if "://" in repository else None
    if url is None and _SCP.fullmatch(repository):
        return repository, None
    if url is not None and url.scheme in {"https", "ssh"}:
        if not url.hostname or url.hostname.startswith("-") or " " in repository:
            raise _refused(shown, "it names no host")
        if url.password is not None:
            raise _refused(shown, "it has a password in it, which others would see; store a credential instead")
        return repository, None
    if url is not None and url.scheme != "file":
        raise _refused(shown, f"Proctor does not speak {url.scheme}")
    if not allow_local:
        raise _refused(shown, "only administrators may name a folder of the server")
    return _local(Path(unquote(url.path) if url is not None else repository), shown)


def _local(folder: Path, shown: str) -> tuple[str, Path]:
    if not folder.is_absolute():
        raise _refused(shown, "a folder must be named from the root")
    if not folder.is_dir():
        raise SourceUnavailable(f"The repository {shown} could not be read: there is no such folder. Correct its path.")
    return str(folder.resolve()), folder.resolve()


def _refused(shown: str, reason: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"The repository {shown!r} is refused: {reason}. Name it as https://…, ssh://… or git@host:path."
    )


def _check_commit(git: _Git, commit: str) -> None:
    if not _COMMIT.fullmatch(commit):
        raise git.failed(f"{commit[:80]!r} is no commit", "Resolve the branch first.")


def _is_repository(folder: Path) -> bool:
    return (folder / ".git").exists() or ((folder / "HEAD").is_file() and (folder / "objects").is_dir())


def _ref(commit: str) -> str:
    """Keeps the commit from git's garbage collection."""
    return f"refs/proctor/{commit}"


def _remove_stale_locks(mirror: Path) -> None:
    """Every git at work in the mirror holds our lock, and we do now: git's own lock files are those of one killed."""
    for folder in (mirror, mirror / "refs" / "proctor"):
        for stale in folder.glob("*.lock"):
            stale.unlink(missing_ok=True)


def _write_once(path: Path, text: str) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(name).rename(path)


@contextmanager
def _signed_in(credential: Credential | None, url: str, folder: Path) -> Iterator[dict[str, str]]:
    """Variables that sign git in: a command line or a URL would show in the list of processes."""
    if credential is None:
        yield {}
    elif url.startswith("https://") and credential.token:
        # Bound to the host, lest a redirect carries it elsewhere.
        parts = urlsplit(url)
        yield {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.https://{parts.netloc.rpartition('@')[2]}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {_basic(credential)}",
        }
    elif not url.startswith("https://") and credential.ssh_key:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix="key-") as file:  # made with mode 0600
            file.write(credential.ssh_key.strip() + "\n")
            file.flush()
            yield {"GIT_SSH_COMMAND": _ssh(folder, Path(file.name))}
    else:
        yield {}


def _basic(credential: Credential) -> str:
    return base64.b64encode(f"{credential.username}:{credential.token}".encode()).decode()


def _ssh(folder: Path, key: Path | None) -> str:
    """Signs in with `key` or not at all: the keys and the agent of the worker's own user are not for its tenants.

    The first sight of a host is believed and kept; a host whose key changes later is refused.
    """
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "20",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": "none" if key is None else str(key),
    }
    return shlex.join(["ssh", "-F", "/dev/null", *(f"-o{name}={value}" for name, value in options.items())])


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills git and the helpers that it started for the transport, when it has not ended by itself."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _end_of(stream: asyncio.StreamReader | None) -> str:
    """The last `OUTPUT_LIMIT` bytes: a server may make git say as much as it likes."""
    kept = b""
    while stream is not None and (chunk := await stream.read(OUTPUT_LIMIT)):
        kept = (kept + chunk)[-OUTPUT_LIMIT:]
    return kept.decode(errors="replace")


def _telling(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if not _SMALL_TALK.search(line)]
    return (telling or lines or [""])[-1][:500].rstrip(".")


def _advice(line: str) -> str:
    if _SIGN_IN.search(line):
        return "Store a credential for it in the project, or one with the right to read."
    return "Check its address, and that the worker's machine reaches it."


def _without_password(text: str) -> str:
    return re.sub(r"(\w+://)[^/\s@]*:[^/\s@]*@", r"\1***@", text)
